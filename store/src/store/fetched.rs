//! Reads that were asked for together, before the code that needs them runs.
//!
//! To a store outside of this process each wait costs a round trip, and code that reads a
//! row, then another, waits for each. So whoever knows what will be read names it first:
//! all of it is fetched in one wait, and the same code then finds it here. What was not
//! named is asked of the engine as ever: naming too little costs time and nothing else.

use std::collections::HashMap;

use bytes::Bytes;

use crate::env::Deadline;
use crate::format::keys;
use crate::kv::{Entry, Key, Kv, KvResult, Reads, Scan, Snapshot};
use crate::types::Version;

/// A snapshot, and what some scans of it gave.
pub(super) struct Fetched<'a> {
    inner: Box<dyn Snapshot + 'a>,
    /// By the scan's start and direction.
    known: HashMap<(Key, bool), (Scan, Vec<Entry>)>,
}

/// A scan that finds `key` alone.
pub(super) fn point(key: Key) -> Scan {
    Scan { range: keys::only(key), reverse: false, limit: 1 }
}

/// A scan that finds the last key of a range.
pub(super) fn last(range: crate::kv::KeyRange) -> Scan {
    Scan { range, reverse: true, limit: 1 }
}

impl<'a> Fetched<'a> {
    /// Takes a snapshot and the answers to `scans` in it, as [`Kv::snapshot_with`].
    ///
    /// # Errors
    /// Those of the engine.
    pub(super) fn take(
        kv: &'a dyn Kv,
        at: Option<Version>,
        scans: Vec<Scan>,
        deadline: Deadline,
    ) -> KvResult<Self> {
        let (inner, found) = kv.snapshot_with(at, &scans, deadline)?;
        let entry = |(scan, entries): (Scan, Vec<Entry>)| {
            ((scan.range.start.clone(), scan.reverse), (scan, entries))
        };
        Ok(Self { inner, known: scans.into_iter().zip(found).map(entry).collect() })
    }

    /// The answer to `scan`, where what was fetched holds all of it.
    fn answer(&self, scan: &Scan) -> Option<Vec<Entry>> {
        let (asked, found) = self.known.get(&(scan.range.start.clone(), scan.reverse))?;
        if scan.range.end > asked.range.end {
            return None;
        }
        let inside = |entry: &&Entry| entry.0 < scan.range.end.as_slice();
        let within: Vec<Entry> = found.iter().filter(inside).take(scan.limit).cloned().collect();
        // Upwards, an entry beyond the end shows that none is missing before it.
        let beyond = !scan.reverse && found.iter().any(|entry| !inside(&entry));
        let whole = found.len() < asked.limit || beyond;
        (whole || within.len() == scan.limit).then_some(within)
    }
}

impl Reads for Fetched<'_> {
    fn get(&self, key: &[u8]) -> KvResult<Option<Bytes>> {
        match self.answer(&point(key.to_vec())) {
            Some(found) => Ok(found.into_iter().next().map(|(_, value)| value)),
            None => self.inner.get(key),
        }
    }

    fn get_many(&self, keys: &[Key]) -> KvResult<Vec<Option<Bytes>>> {
        self.inner.get_many(keys)
    }

    fn scan(&self, scan: &Scan) -> KvResult<Vec<Entry>> {
        self.answer(scan).map_or_else(|| self.inner.scan(scan), Ok)
    }

    /// What is not known is fetched in one go.
    fn scan_many(&self, scans: &[Scan]) -> KvResult<Vec<Vec<Entry>>> {
        let answers: Vec<Option<Vec<Entry>>> = scans.iter().map(|scan| self.answer(scan)).collect();
        let missing: Vec<Scan> = scans
            .iter()
            .zip(&answers)
            .filter(|(_, answer)| answer.is_none())
            .map(|(scan, _)| scan.clone())
            .collect();
        let mut fetched = if missing.is_empty() {
            Vec::new().into_iter()
        } else {
            self.inner.scan_many(&missing)?.into_iter()
        };
        let whole = |answer: Option<_>| answer.or_else(|| fetched.next()).unwrap_or_default();
        Ok(answers.into_iter().map(whole).collect())
    }
}

impl Snapshot for Fetched<'_> {
    fn version(&self) -> Version {
        self.inner.version()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::env::Env;
    use crate::kv::mem::MemEngine;
    use crate::store::tests::common::Dice;

    /// Whatever was fetched before, every read answers as the snapshot itself does.
    #[test]
    fn what_was_fetched_answers_as_the_snapshot_does() {
        let env = Env::system();
        let deadline = env.deadline(Duration::from_secs(10));
        let engine = MemEngine::new(env);
        let key = |n: u32| vec![u8::try_from(n).unwrap()];
        engine
            .transact(deadline, &mut |txn| {
                (0..40).step_by(3).for_each(|n| txn.put(key(n), Bytes::from(key(n))));
                Ok(())
            })
            .unwrap();
        let snapshot = engine.snapshot(deadline).unwrap();
        let mut dice = Dice::new(7);
        let any = |dice: &mut Dice| {
            let (a, b) = (dice.below(42), dice.below(42));
            let limit = [1, 2, 5, usize::MAX][dice.index(4)];
            Scan { range: key(a.min(b))..key(a.max(b)), reverse: dice.percent(50), limit }
        };
        let mut answered = 0;
        for _ in 0..2000 {
            let scans: Vec<Scan> = (0..8).map(|_| any(&mut dice)).collect();
            let fetched = Fetched::take(&engine, None, scans, deadline).unwrap();
            let asked: Vec<Scan> = (0..4).map(|_| any(&mut dice)).collect();
            answered += asked.iter().filter(|scan| fetched.answer(scan).is_some()).count();
            assert_eq!(fetched.scan_many(&asked), snapshot.scan_many(&asked));
            assert_eq!(fetched.scan(&asked[0]), snapshot.scan(&asked[0]), "{:?}", asked[0]);
            let wanted = key(dice.below(42));
            assert_eq!(fetched.get(&wanted), snapshot.get(&wanted));
        }
        assert!(answered > 200, "only {answered}");
    }
}
