//! Globs as used in `INTERLEAF_DATABASES`.
//!
//! `*` is any text, slashes included (so that `*` alone is every name), `?` is one
//! character, `\` takes the character behind it as it stands. There are no classes and no
//! braces: their characters are refused unless they are escaped. A crate for this would bring more syntax than is wanted: in shell-like globs
//! `*` stops at a slash.

/// One element of a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token {
    /// This character.
    Literal(char),
    /// Any one character.
    One,
    /// Any text, also none.
    Any,
}

/// A parsed pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Glob(Vec<Token>);

impl Glob {
    /// Any text.
    pub(crate) fn any() -> Self {
        Self(vec![Token::Any])
    }

    /// Parses a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn parse(pattern: &str) -> Result<Self, &'static str> {
        let mut tokens = Vec::new();
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Any,
                '?' => Token::One,
                '\\' => Token::Literal(chars.next().ok_or("ends in \\")?),
                '[' | ']' => return Err("has a class"),
                '{' | '}' => return Err("has braces"),
                other => Token::Literal(other),
            });
        }
        Ok(Self(tokens))
    }

    /// Whether the whole text matches. Takes at most pattern length times text length
    /// steps: only the last `*` is ever tried again.
    pub(crate) fn matches(&self, text: &str) -> bool {
        let text: Vec<char> = text.chars().collect();
        let (mut at, mut token) = (0, 0);
        // Where to go on when something behind the last `*` did not match.
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match (self.0.get(token), text.get(at)) {
                (Some(Token::Any), _) => {
                    retry = Some((token + 1, at));
                    token += 1;
                    continue;
                }
                (Some(Token::One), Some(_)) => {
                    token += 1;
                    at += 1;
                    continue;
                }
                (Some(Token::Literal(wanted)), Some(found)) if wanted == found => {
                    token += 1;
                    at += 1;
                    continue;
                }
                (None, None) => return true,
                _ => {}
            }
            match retry {
                // The `*` swallows one character more.
                Some((behind, from)) if from < text.len() => {
                    retry = Some((behind, from + 1));
                    token = behind;
                    at = from + 1;
                }
                _ => return false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        Glob::parse(pattern).unwrap().matches(text)
    }

    #[test]
    fn each_element_matches_what_it_says() {
        for (pattern, text) in [
            ("*", ""),
            ("*", "/srv/app/db.sqlite3"),
            ("", ""),
            ("app.db", "app.db"),
            ("*.db", "app.db"),
            ("*.db", "/a/b/c.db"),
            ("/srv/*", "/srv/a/b"),
            ("/srv/*/x.db", "/srv/a/b/x.db"),
            ("a?c", "abc"),
            ("a?c", "aéc"),
            ("a*b*c", "axbxbxc"),
            ("**a**", "a"),
            ("*ab", "aab"),
            ("*a?b", "aaxb"),
            (r"a\*", "a*"),
            (r"a\\b", r"a\b"),
            (r"\[x\]\{y\}", "[x]{y}"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("app.db", "app.dbx"),
            ("app.db", "xapp.db"),
            ("*.db", "app.db-journal"),
            ("a?c", "ac"),
            ("?", ""),
            ("a*b", "ac"),
            (r"a\*", "ab"),
            ("A", "a"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
        assert_eq!(Glob::parse(r"a\"), Err("ends in \\"));
        for pattern in ["[ab]", "a]", "{a", "b}"] {
            assert!(Glob::parse(pattern).is_err(), "{pattern}");
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = "*a".repeat(100) + "b";
        assert!(!matches(&pattern, &"a".repeat(4000)));
    }

    /// Every pattern and text up to a length over a small alphabet, against the plain
    /// recursive definition.
    #[test]
    fn agrees_with_the_definition_on_all_short_inputs() {
        fn defined(pattern: &[char], text: &[char]) -> bool {
            match pattern.split_first() {
                None => text.is_empty(),
                Some(('*', rest)) => (0..=text.len()).any(|n| defined(rest, &text[n..])),
                Some((c, rest)) => text
                    .split_first()
                    .is_some_and(|(t, tail)| (*c == '?' || c == t) && defined(rest, tail)),
            }
        }
        fn words(alphabet: &[char], longest: usize) -> Vec<Vec<char>> {
            let mut all = vec![vec![]];
            let mut last = all.clone();
            for _ in 0..longest {
                last = last
                    .iter()
                    .flat_map(|w| {
                        alphabet.iter().map(move |c| w.iter().copied().chain([*c]).collect())
                    })
                    .collect();
                all.extend(last.iter().cloned());
            }
            all
        }
        let texts = words(&['a', 'b'], 5);
        for pattern in words(&['a', 'b', '*', '?'], 4) {
            let glob = Glob::parse(&pattern.iter().collect::<String>()).unwrap();
            for text in &texts {
                let string: String = text.iter().collect();
                assert_eq!(glob.matches(&string), defined(&pattern, text), "{pattern:?} {string}");
            }
        }
    }
}
