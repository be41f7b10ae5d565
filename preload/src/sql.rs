//! How many statements a text holds: only a single one may be run again.

/// Whether `sql` holds at most one statement. Errs on the safe side: a trigger's
/// definition, which has semicolons inside, counts as several.
pub fn is_single_statement(sql: &[u8]) -> bool {
    let mut rest = sql;
    let (mut started, mut ended) = (false, false);
    loop {
        rest = skip_blanks_and_comments(rest);
        let Some((&first, tail)) = rest.split_first() else { return true };
        if first == b';' {
            ended |= started;
            rest = tail;
            continue;
        }
        if ended {
            return false;
        }
        started = true;
        rest = match first {
            b'\'' | b'"' | b'`' => behind_quoted(tail, first),
            b'[' => behind_quoted(tail, b']'),
            _ => tail,
        };
    }
}

/// What follows the closing quote. A doubled quote reads as the end of one text and the
/// beginning of the next, which comes to the same.
fn behind_quoted(text: &[u8], quote: u8) -> &[u8] {
    text.iter()
        .position(|&byte| byte == quote)
        .and_then(|end| text.get(end + 1..))
        .unwrap_or_default()
}

fn skip_blanks_and_comments(mut text: &[u8]) -> &[u8] {
    loop {
        let before = text.len();
        text = text.trim_ascii_start();
        if let Some(comment) = text.strip_prefix(b"--") {
            text = behind_quoted(comment, b'\n');
        } else if let Some(comment) = text.strip_prefix(b"/*") {
            let end = comment.windows(2).position(|pair| pair == b"*/");
            text = end.and_then(|end| comment.get(end + 2..)).unwrap_or_default();
        }
        if text.len() == before {
            return text;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_statement_with_whatever_surrounds_it() {
        for sql in [
            "",
            ";",
            "insert into t values (1)",
            "insert into t values (1);",
            " ;; insert into t values (1) ; ; -- done; really\n /* ; x */ ;",
            "insert into t values ('a;b'';c', \"d;\", [e;f], `g;`);",
            "select 1 /* ; */ + 2",
            "select 'it''s; one'",
            "select 'never closed; x",
            "select 1; /* never closed; x",
        ] {
            assert!(is_single_statement(sql.as_bytes()), "{sql}");
        }
    }

    #[test]
    fn several_statements() {
        for sql in [
            "begin; commit",
            "insert into t values (1);select 1",
            "select ';'; select 2",
            "select 1; -- comment\nselect 2",
            "select 1;/**/x",
            "create trigger r after insert on t begin delete from u; end;",
        ] {
            assert!(!is_single_statement(sql.as_bytes()), "{sql}");
        }
    }
}
