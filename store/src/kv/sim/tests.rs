use super::*;
use crate::kv::{Durability, Mutation};

fn put(key: &str, value: u64, durability: Durability) -> Commit {
    let value = Bytes::copy_from_slice(&value.to_be_bytes());
    let mutations = vec![Mutation::Put { key: key.into(), value }];
    Commit { mutations, durability, ..Commit::default() }
}

fn number(engine: &SimEngine, key: &str) -> Option<u64> {
    let at = engine.inner.at_now().unwrap();
    let value = at.get(key.as_bytes()).unwrap()?;
    Some(u64::from_be_bytes(value.as_ref().try_into().unwrap()))
}

fn soon(engine: &SimEngine) -> Deadline {
    engine.env().deadline(Duration::from_secs(60))
}

/// Runs a fixed program and notes every answer.
fn trace(seed: u64) -> (Vec<String>, FaultCounts) {
    let engine = SimEngine::new(seed, FaultPlan { timeout: 0.05, ..FaultPlan::every(0.1) });
    let mut answers = Vec::new();
    for n in 0..300 {
        let deadline = soon(&engine);
        let snapshot = engine.snapshot(deadline);
        answers.push(format!("{:?}", snapshot.as_ref().map(|s| s.version())));
        if let Ok(snapshot) = snapshot {
            answers.push(format!("{:?}", snapshot.get(b"a")));
            let read_conflicts = vec![b"a".to_vec()..b"b".to_vec()].into();
            let commit = Commit {
                snapshot: snapshot.version(),
                read_conflicts,
                ..put("a", n, Durability::Buffered)
            };
            answers.push(format!("{:?}", engine.commit_at(commit, deadline)));
        }
        answers.push(format!("{:?}", engine.watch(b"a", Some(b"other"), deadline)));
    }
    (answers, engine.fault_counts())
}

#[test]
fn a_seed_gives_one_run_and_every_kind_of_fault() {
    let (first, counts) = trace(7);
    assert_eq!(first, trace(7).0);
    assert_ne!(first, trace(8).0);
    let kinds: Vec<_> = counts.keys().copied().collect();
    let all = ["conflict", "timeout", "too_old", "unavailable", "unknown_after", "unknown_before"];
    assert_eq!(kinds, all);
}

#[test]
fn unknown_results_are_what_they_say() {
    let before = FaultPlan { unknown_before: 1.0, ..FaultPlan::NONE };
    let after = FaultPlan { unknown_after: 1.0, ..FaultPlan::NONE };
    for (plan, left) in [(before, None), (after, Some(5))] {
        let engine = SimEngine::new(1, plan);
        let result = engine.commit_at(put("a", 5, Durability::Synced), soon(&engine));
        assert_eq!(result, Err(KvError::UnknownResult));
        assert_eq!(number(&engine, "a"), left, "{plan:?}");
    }
}

#[test]
fn transactions_get_through_all_faults_but_a_timeout() {
    for seed in 0..20 {
        for engine in [
            SimEngine::new(seed, FaultPlan::every(0.1)),
            SimEngine::shared(seed, FaultPlan::every(0.1)),
        ] {
            for n in 1..=50 {
                let result = engine.transact(soon(&engine), &mut |txn| {
                    txn.get(b"a")?;
                    txn.put(b"a".to_vec(), Bytes::copy_from_slice(&u64::to_be_bytes(n)));
                    Ok(())
                });
                result.unwrap_or_else(|e| panic!("seed {seed}: {e}"));
                assert_eq!(number(&engine, "a"), Some(n), "seed {seed}");
            }
        }
    }
    let engine = SimEngine::new(1, FaultPlan { timeout: 1.0, ..FaultPlan::NONE });
    let result = engine.transact(soon(&engine), &mut |_| Ok(()));
    assert_eq!(result, Err(crate::Error::Timeout { after: Duration::from_secs(60) }));
    assert_eq!(engine.clock().passed(), Duration::from_secs(60));
}

#[test]
fn a_crash_loses_a_suffix_and_nothing_synced_and_no_version_comes_again() {
    let mut kept = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let engine = SimEngine::new(seed, FaultPlan::NONE);
        let mut newest = Version::ZERO;
        for n in 1..=20 {
            let durability = if n <= 10 { Durability::Synced } else { Durability::Buffered };
            let key = if n % 2 == 0 { "even" } else { "odd" };
            newest = engine.commit_at(put(key, n, durability), soon(&engine)).unwrap();
        }
        let next = engine.crash(true);
        assert!(next.recovered());
        let gone = engine.commit_at(put("x", 1, Durability::Synced), soon(&engine));
        assert!(matches!(gone, Err(KvError::Unavailable { .. })), "{gone:?}");
        assert!(engine.snapshot(soon(&engine)).is_err());
        let (even, odd) = (number(&next, "even").unwrap(), number(&next, "odd").unwrap());
        assert_eq!(even.abs_diff(odd), 1, "seed {seed}: a suffix is lost, nothing in between");
        assert!(even.max(odd) >= 10, "seed {seed}: what was synced is kept");
        kept.insert(even.max(odd));
        let version = next.commit_at(put("x", 1, Durability::Synced), soon(&next)).unwrap();
        assert!(version > newest, "K3");
        assert_eq!(number(&next.crash(false), "x"), Some(1));
    }
    assert!(kept.len() > 5, "the suffix varies: {kept:?}");
}

#[test]
fn a_shared_engine_numbers_like_foundationdb() {
    let engine = SimEngine::shared(3, FaultPlan::NONE);
    let mut versions = Vec::new();
    for n in 0..200 {
        versions.push(engine.commit_at(put("a", n, Durability::Synced), soon(&engine)).unwrap());
    }
    assert!(versions.is_sorted_by(|a, b| a < b));
    assert!(versions.iter().any(|version| version.batch() > 0));
    let snapshot = engine.snapshot(soon(&engine)).unwrap();
    let at = snapshot.version();
    assert_eq!(at, Version::new(versions[199].commit(), Version::BATCH_ALL));
    let later = engine.commit_at(put("a", 0, Durability::Synced), soon(&engine)).unwrap();
    assert!(later > at, "a snapshot is never overtaken by its own commit version");
    assert!(engine.validates(at) && !engine.validates(later));
    let read = |snapshot| {
        let read_conflicts = vec![b"b".to_vec()..b"c".to_vec()].into();
        let commit = Commit { snapshot, read_conflicts, ..put("b", 1, Durability::Synced) };
        engine.commit_at(commit, soon(&engine))
    };
    assert_eq!(read(later), Err(KvError::TooOld));
    assert!(read(at).is_ok());
    engine.clock().advance(Duration::from_millis(SHARED_AGE_MS + 1));
    assert_eq!(snapshot.get(b"a"), Err(KvError::TooOld));
}
