//! What the demo says about what was done, and whether it adds up.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

use super::desks::{DESKS, Kind, On, Transcript, ledger};
use super::stage::Stage;
use crate::context::out;
use crate::human::{grouped, per_second};
use crate::table::{Align, Table};

/// Transactions by desk, as the database counts them.
pub type Counts = BTreeMap<u32, u64>;

/// One run of the desks.
pub struct Run {
    elapsed: Duration,
    desks: BTreeMap<u32, Desk>,
    /// Statements that nobody ran again, with an example.
    failed: u64,
    example: Option<String>,
}

/// What one desk did.
#[derive(Clone, Copy, Debug, Default)]
struct Desk {
    transactions: u64,
    /// Run again because of a conflict or a lock; only where the desk counts it.
    again: Option<u64>,
    /// Longest transaction with its repetitions; only where the desk measures it.
    longest_ms: Option<u64>,
}

impl Run {
    /// Reads what the desks did since `before`.
    ///
    /// # Errors
    /// Where the database cannot be read.
    pub fn read(
        stage: &Stage<'_>,
        on: On,
        elapsed: Duration,
        before: &Counts,
        transcripts: &[Transcript],
    ) -> anyhow::Result<Self> {
        let after = transactions(stage, on)?;
        let (mut desks, mut failed, mut example) = (BTreeMap::new(), 0, None);
        for transcript in transcripts {
            let number = transcript.desk;
            let count = |counts: &Counts| counts.get(&number).copied().unwrap_or(0);
            let mut desk = Desk {
                transactions: count(&after).saturating_sub(count(before)),
                ..Desk::default()
            };
            for fields in transcript.stdout.lines().filter_map(object) {
                let field = |name: &str| fields.get(name).and_then(Value::as_u64);
                let again = field("conflicts").unwrap_or(0) + field("busy").unwrap_or(0);
                desk.again = Some(desk.again.unwrap_or(0) + again);
                desk.longest_ms = field("longest_ms").or(desk.longest_ms);
            }
            let errors = transcript.stderr.lines().filter(|line| line.contains("rror"));
            let (many, first) = (u64::try_from(errors.clone().count())?, errors.clone().next());
            match kind_of(number) {
                // The script runs again what failed.
                Some(Kind::Script) => desk.again = Some(many),
                Some(Kind::Pipe) => {
                    failed += many;
                    example =
                        example.or_else(|| first.map(|line| format!("desk {number}: {line}")));
                }
                _ => {}
            }
            desks.insert(number, desk);
        }
        Ok(Self { elapsed, desks, failed, example })
    }

    fn rate(&self, of: impl Fn(u32) -> bool) -> u64 {
        let chosen = self.desks.iter().filter(|(number, _)| of(**number));
        let total = chosen.map(|(_, desk)| desk.transactions).sum();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "to show")]
        let rate = per_second(total, self.elapsed).round() as u64;
        rate
    }

    fn desk(&self, number: u32) -> Desk {
        self.desks.get(&number).copied().unwrap_or_default()
    }
}

fn kind_of(number: u32) -> Option<Kind> {
    DESKS.iter().find(|(desk, _)| *desk == number).map(|(_, kind)| *kind)
}

fn object(line: &str) -> Option<serde_json::Map<String, Value>> {
    match serde_json::from_str(line) {
        Ok(Value::Object(fields)) => Some(fields),
        _ => None,
    }
}

/// What the server counted since it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Served {
    commits: u64,
    conflicts: u64,
}

impl Served {
    /// Asks the server.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn read(stage: &Stage<'_>) -> anyhow::Result<Self> {
        let text = stage.quiet("interleaf status --json")?;
        let status: Value = serde_json::from_str(&text).context("interleaf status --json")?;
        let number = |name: &str| {
            let value = status.pointer(&format!("/numbers/{name}")).and_then(Value::as_u64);
            value.with_context(|| format!("the status has no number {name}"))
        };
        Ok(Self { commits: number("commits")?, conflicts: number("conflicts")? })
    }

    /// What one server counted from `start` to `end`, and the next one to `next`.
    pub const fn over_restart(start: Self, end: Self, next: Self) -> Self {
        Self {
            commits: end.commits.saturating_sub(start.commits) + next.commits,
            conflicts: end.conflicts.saturating_sub(start.conflicts) + next.conflicts,
        }
    }
}

/// Transactions by desk.
///
/// # Errors
/// Where the database cannot be read.
pub fn transactions(stage: &Stage<'_>, on: On) -> anyhow::Result<Counts> {
    let sql = "SELECT desk, transactions FROM desks WHERE desk > 0";
    let text = match on {
        On::Interleaf => stage.quiet(&format!("interleaf shell flights '{sql}'"))?,
        On::Plain => stage.quiet(&format!("sqlite3 plain.db '{sql}'"))?,
    };
    let parse = |line: &str| {
        let (desk, count) = line.split_once('|')?;
        Some((desk.parse().ok()?, count.parse().ok()?))
    };
    text.lines().map(parse).collect::<Option<_>>().with_context(|| format!("no counts: {text}"))
}

/// Shows both runs beside each other.
///
/// # Errors
/// Those of stdout.
pub fn throughput(
    stage: &Stage<'_>,
    interleaf: &Run,
    served: Served,
    plain: &Run,
) -> anyhow::Result<()> {
    stage.heading("What the desks did: transactions a second, and how many were run again")?;
    let mut table = Table::new(&[
        ("DESK", Align::Left),
        ("PROGRAM", Align::Left),
        ("DOES", Align::Left),
        ("INTERLEAF", Align::Right),
        ("AGAIN", Align::Right),
        ("LONGEST", Align::Right),
        ("PLAIN FILE", Align::Right),
        ("AGAIN", Align::Right),
        ("LONGEST", Align::Right),
    ]);
    let again = |count: Option<u64>| count.map_or_else(String::new, grouped);
    let longest = |desk: Desk| desk.longest_ms.map_or_else(String::new, |ms| format!("{ms} ms"));
    for (number, kind) in DESKS {
        let (a, b) = (interleaf.desk(number), plain.desk(number));
        table.row([
            number.to_string(),
            kind.what().to_owned(),
            kind.work().to_owned(),
            grouped(interleaf.rate(|desk| desk == number)),
            again(a.again),
            longest(a),
            grouped(plain.rate(|desk| desk == number)),
            again(b.again),
            longest(b),
        ]);
    }
    let all = |run: &Run| grouped(run.desks.values().filter_map(|desk| desk.again).sum::<u64>());
    table.row([
        "all".to_owned(),
        String::new(),
        String::new(),
        grouped(interleaf.rate(|_| true)),
        all(interleaf),
        String::new(),
        grouped(plain.rate(|_| true)),
        all(plain),
        String::new(),
    ]);
    out(table)?;
    for (name, run) in [("Interleaf", interleaf), ("the plain file", plain)] {
        if let Some(example) = &run.example {
            let failed = grouped(run.failed);
            out(format_args!("{failed} statements failed for good on {name}, as {example}\n"))?;
        }
    }
    out(format_args!(
        "The server counted {} commits and {} conflicts.\n",
        grouped(served.commits),
        grouped(served.conflicts),
    ))?;
    out("\nOn Interleaf, commits that touch different pages do not wait for each other, and a\n\
         payment within a transaction holds up nobody; the desks there lost time to two kills.\n\
         On the plain file one transaction writes at a time. One process alone is faster on the\n\
         plain file: this is about many.\n")
}

/// The totals at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Totals {
    capacity: i64,
    booked: i64,
    free: i64,
    sold: i64,
    cancelled: i64,
}

impl Totals {
    fn parse(text: &str) -> anyhow::Result<Self> {
        let numbers: Option<Vec<i64>> = text.split('|').map(|field| field.parse().ok()).collect();
        match numbers.as_deref() {
            Some(&[capacity, booked, free, sold, cancelled]) => {
                Ok(Self { capacity, booked, free, sold, cancelled })
            }
            _ => bail!("these are no totals: {text:?}"),
        }
    }

    const fn add_up(&self) -> bool {
        self.booked + self.free == self.capacity && self.sold == self.booked
    }
}

/// The totals of a snapshot; `at` is empty or a WHEN.
///
/// # Errors
/// Where they cannot be read.
pub fn totals(stage: &Stage<'_>, at: &str) -> anyhow::Result<Totals> {
    let at = if at.is_empty() { String::new() } else { format!("@{at}") };
    let line = format!("interleaf shell flights{at} < scripts/totals.sql");
    stage.show(&line)?;
    Totals::parse(&stage.quiet(&line)?)
}

/// Shows the totals before, between and now; whether all is as it must be.
///
/// # Errors
/// Where they cannot be read.
pub fn history(
    stage: &Stage<'_>,
    loaded: &Totals,
    before: &str,
    between: &str,
) -> anyhow::Result<bool> {
    let mut table = Table::new(&[
        ("WHEN", Align::Left),
        ("CAPACITY", Align::Right),
        ("BOOKED", Align::Right),
        ("FREE", Align::Right),
        ("SOLD", Align::Right),
        ("CANCELLED", Align::Right),
        ("", Align::Left),
    ]);
    let mut all = Vec::new();
    for at in [before, between, ""] {
        let totals = totals(stage, at)?;
        table.row([
            if at.is_empty() { "now".to_owned() } else { at.to_owned() },
            grouped(totals.capacity),
            grouped(totals.booked),
            grouped(totals.free),
            grouped(totals.sold),
            grouped(totals.cancelled),
            (if totals.add_up() { "adds up" } else { "DOES NOT ADD UP" }).to_owned(),
        ]);
        all.push(totals);
    }
    out(format_args!("\n{table}"))?;
    let unchanged = all.first() == Some(loaded);
    if !unchanged {
        out("the state before the desks wrote is NOT what it was then\n")?;
    }
    Ok(unchanged && all.iter().all(Totals::add_up))
}

/// Shows whether every commit that a Python desk was told of is there.
///
/// # Errors
/// Where a desk's notes cannot be read.
pub fn acknowledged(stage: &Stage<'_>, run: &Run) -> anyhow::Result<bool> {
    let (mut told, mut there, mut complete) = (0, 0, true);
    for (number, kind) in DESKS {
        let Some(file) = ledger(kind, On::Interleaf, number) else { continue };
        let path = stage.path(&file);
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        // Nothing is noted before the first commit.
        let acknowledged: u64 = match text.trim() {
            "" => 0,
            number => number.parse().with_context(|| path.display().to_string())?,
        };
        let committed = run.desk(number).transactions;
        complete &= committed >= acknowledged;
        told += acknowledged;
        there += committed;
    }
    let verdict = if complete { "none is missing" } else { "SOME ARE MISSING" };
    out(format_args!(
        "The Python desks were told of {} commits, through the kills of a desk and of the server;\n\
         the database has {} of theirs: {verdict}.\n",
        grouped(told),
        grouped(there),
    ))?;
    Ok(complete)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn totals_add_up_or_do_not() {
        assert!(Totals::parse("10|6|4|6|0").unwrap().add_up());
        assert!(!Totals::parse("10|6|4|7|0").unwrap().add_up(), "sold and booked");
        assert!(!Totals::parse("10|6|5|6|0").unwrap().add_up(), "booked and free");
        assert!(Totals::parse("10|6|4|6").is_err());
        assert!(Totals::parse("").is_err());
    }
}
