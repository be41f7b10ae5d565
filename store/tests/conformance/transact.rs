//! Transactions that may run again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use interleaf_store::Error;
use interleaf_store::kv::{KvError, Mutation, Txn, TxnError};
use interleaf_store::types::Version;

use crate::support::{Case, Ctx, Open, Random, case, delete, put, range, scan, text, threads};

pub const CASES: &[Case] = &[
    case!(Nothing, own_writes_are_seen),
    case!(Nothing, random_transactions_agree_with_a_map),
    case!(Nothing, versioned_writes_are_not_seen_but_written),
    case!(Nothing, a_transaction_runs_again_after_a_conflict),
    case!(Nothing, counters_under_threads_are_exact),
    case!(Nothing, scans_conflict_with_what_they_looked_at),
    case!(Nothing, own_reads_do_not_conflict),
    case!(Nothing, logical_conflicts_count),
    case!(Nothing, reading_alone_gives_no_version),
    case!(Nothing, an_abort_is_given_at_once_and_writes_nothing),
    case!(Nothing, lasting_errors_of_the_body_are_given_at_once),
    case!(Nothing, the_deadline_ends_endless_conflicts),
];

fn own_writes_are_seen(ctx: &Ctx) {
    let kv = ctx.open();
    kv.write(["a", "b", "c", "ca", "d", "e"].map(|key| put(key, "0")).into());
    kv.transact(kv.soon(), &mut |txn| {
        txn.put(b"b".to_vec(), "1".into());
        txn.put(b"bb".to_vec(), "1".into());
        txn.delete(b"d".to_vec());
        txn.mutate(Mutation::DeleteRange { range: range("c", "cz") });
        txn.put(b"cb".to_vec(), "1".into());
        assert_eq!(txn.get(b"b")?.unwrap(), "1");
        assert_eq!(txn.get(b"d")?, None);
        assert_eq!(txn.get(b"ca")?, None);
        assert_eq!(txn.get(b"cb")?.unwrap(), "1");
        let all = "a=0 b=1 bb=1 cb=1 e=0";
        assert_eq!(text(&scan(txn, b"", b"z", false, 100)), all);
        assert_eq!(text(&scan(txn, b"", b"z", true, 3)), "e=0 cb=1 bb=1");
        assert_eq!(text(&scan(txn, b"b", b"z", false, 2)), "b=1 bb=1");
        assert_eq!(text(&scan(txn, b"c", b"e", true, 1)), "cb=1");
        Ok(())
    })
    .unwrap();
    assert_eq!(text(&kv.all()), "a=0 b=1 bb=1 cb=1 e=0");
}

fn random_transactions_agree_with_a_map(ctx: &Ctx) {
    const SEED: u64 = 777;
    println!("seed {SEED}");
    let mut random = Random::new(SEED);
    let kv = ctx.open();
    let mut model: BTreeMap<String, String> = BTreeMap::new();
    for round in 0..100 {
        kv.transact(kv.soon(), &mut |txn| {
            for _ in 0..random.below(12) {
                step(&mut random, txn, &mut model, round);
            }
            Ok(())
        })
        .unwrap();
        let expected: Vec<_> = model.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(text(&kv.all()), expected.join(" "), "round {round}");
    }
}

/// One random read or write, in the transaction and in the model.
fn step(random: &mut Random, txn: &mut dyn Txn, model: &mut BTreeMap<String, String>, n: usize) {
    let mut key =
        || (0..1 + random.below(2)).map(|_| ["a", "b", "c", "d", "e"][random.below(5)]).collect();
    let (k, end): (String, String) = (key(), key());
    match random.below(8) {
        0 => {
            model.retain(|key, _| !(k <= *key && *key < end));
            txn.mutate(Mutation::DeleteRange { range: range(&k, &end) });
        }
        1 => {
            model.remove(&k);
            txn.delete(k.into());
        }
        2..=4 => {
            model.insert(k.clone(), n.to_string());
            txn.put(k.into(), n.to_string().into());
        }
        5 => {
            let value = txn.get(k.as_bytes()).unwrap();
            assert_eq!(value, model.get(&k).map(|v| Bytes::from(v.clone())));
        }
        _ => {
            let (reverse, limit) = (random.below(2) == 0, random.below(5));
            let mut expected: Vec<_> =
                model.iter().filter(|(key, _)| k <= **key && **key < end).collect();
            if reverse {
                expected.reverse();
            }
            expected.truncate(limit);
            let expected: Vec<_> = expected.iter().map(|(k, v)| format!("{k}={v}")).collect();
            let got = scan(txn, k.as_bytes(), end.as_bytes(), reverse, limit);
            assert_eq!(text(&got), expected.join(" "), "{k}..{end} {reverse} {limit}");
        }
    }
}

fn versioned_writes_are_not_seen_but_written(ctx: &Ctx) {
    let kv = ctx.open();
    let body = &mut |txn: &mut dyn Txn| {
        let (prefix, suffix) = (b"k".to_vec(), vec![]);
        txn.mutate(Mutation::PutVersionedKey { prefix, suffix, value: "x".into() });
        let key = b"v".to_vec();
        txn.mutate(Mutation::PutVersionedValue { key, prefix: vec![], suffix: vec![] });
        assert_eq!(scan(txn, b"k", b"l", false, 10), vec![]);
        Ok(())
    };
    let version = kv.transact(kv.soon(), body).unwrap().unwrap();
    let expected: Vec<(Bytes, Bytes)> = vec![
        ([b"k", &version.to_bytes()[..]].concat().into(), "x".into()),
        ("v".into(), version.to_bytes().to_vec().into()),
    ];
    assert_eq!(kv.all(), expected);
}

fn a_transaction_runs_again_after_a_conflict(ctx: &Ctx) {
    let kv = ctx.open();
    kv.put("a", "1");
    let mut runs = 0;
    kv.transact(kv.soon(), &mut |txn| {
        runs += 1;
        let value = txn.get(b"a")?.unwrap();
        if runs == 1 {
            write_through(&kv, "a", "2");
        }
        txn.put(b"b".to_vec(), value);
        Ok(())
    })
    .unwrap();
    assert_eq!((runs, kv.value("b").unwrap()), (2, "2".into()));
}

/// A write of another transaction, which conflicts with those that read the key.
fn write_through(kv: &Open, key: &str, value: &str) -> Version {
    let body = &mut |txn: &mut dyn Txn| {
        txn.put(key.into(), Bytes::copy_from_slice(value.as_bytes()));
        Ok(())
    };
    kv.transact(kv.soon(), body).unwrap().unwrap()
}

fn counters_under_threads_are_exact(ctx: &Ctx) {
    const THREADS: usize = 16;
    const ADDS: usize = 30;
    let kv = ctx.open();
    threads(THREADS, |t| {
        for _ in 0..ADDS {
            kv.transact(kv.soon(), &mut |txn| {
                for key in ["all".to_owned(), format!("of {}", t % 4)] {
                    let old = txn
                        .get(key.as_bytes())?
                        .map_or(0, |v| std::str::from_utf8(&v).unwrap().parse::<usize>().unwrap());
                    txn.put(key.into(), (old + 1).to_string().into());
                }
                Ok(())
            })
            .unwrap();
        }
    });
    let of = THREADS / 4 * ADDS;
    let expected = format!("all={} of 0={of} of 1={of} of 2={of} of 3={of}", THREADS * ADDS);
    assert_eq!(text(&kv.all()), expected);
}

fn scans_conflict_with_what_they_looked_at(ctx: &Ctx) {
    let kv = ctx.open();
    // (reverse, limit, written meanwhile, conflicts)
    let table = [
        (false, 100, "k5x", true),
        (false, 100, "k99", true),
        (false, 100, "l", false),
        (false, 2, "k0x", true),
        (false, 2, "k1", true),
        (false, 2, "k1x", false),
        (true, 2, "k8x", true),
        (true, 2, "k8", true),
        (true, 2, "k7x", false),
    ];
    for (reverse, limit, written, conflicts) in table {
        kv.write(vec![Mutation::DeleteRange { range: range("a", "z") }]);
        kv.write((0..10).map(|n| put(&format!("k{n}"), "1")).collect());
        let mut runs = 0;
        kv.transact(kv.soon(), &mut |txn| {
            runs += 1;
            scan(txn, b"k", b"l", reverse, limit);
            if runs == 1 {
                write_through(&kv, written, "2");
            }
            txn.put(b"out".to_vec(), Bytes::new());
            Ok(())
        })
        .unwrap();
        assert_eq!(runs, 1 + usize::from(conflicts), "{reverse} {limit} {written}");
    }
}

fn own_reads_do_not_conflict(ctx: &Ctx) {
    let kv = ctx.open();
    let mut runs = 0;
    kv.transact(kv.soon(), &mut |txn| {
        runs += 1;
        txn.put(b"a".to_vec(), "mine".into());
        txn.get(b"a")?;
        write_through(&kv, "a", "theirs");
        Ok(())
    })
    .unwrap();
    assert_eq!((runs, kv.value("a").unwrap()), (1, "mine".into()));
}

fn logical_conflicts_count(ctx: &Ctx) {
    let kv = ctx.open();
    let mut runs = 0;
    kv.transact(kv.soon(), &mut |txn| {
        runs += 1;
        txn.read_conflict(range("logical", "logicam"));
        if runs == 1 {
            // Writes nothing but a conflict, which is a commit as well.
            let version = kv.transact(kv.soon(), &mut |other| {
                other.write_conflict(range("logical1", "logical2"));
                Ok(())
            });
            assert!(version.unwrap().is_some());
        }
        txn.put(b"a".to_vec(), Bytes::new());
        Ok(())
    })
    .unwrap();
    assert_eq!(runs, 2);
}

fn reading_alone_gives_no_version(ctx: &Ctx) {
    let kv = ctx.open();
    kv.put("a", "1");
    let mut runs = 0;
    let version = kv.transact(kv.soon(), &mut |txn| {
        runs += 1;
        txn.get(b"a")?;
        write_through(&kv, "a", "2");
        Ok(())
    });
    assert_eq!((version, runs), (Ok(None), 1));
}

fn an_abort_is_given_at_once_and_writes_nothing(ctx: &Ctx) {
    let kv = ctx.open();
    let mut runs = 0;
    let abort = Error::NotFound { what: "what was looked for".into() };
    let result = kv.transact(kv.soon(), &mut |txn| {
        runs += 1;
        txn.put(b"a".to_vec(), Bytes::new());
        Err(TxnError::Abort(abort.clone()))
    });
    assert_eq!((result, runs), (Err(abort), 1));
    assert_eq!(kv.value("a"), None);
}

fn lasting_errors_of_the_body_are_given_at_once(ctx: &Ctx) {
    let kv = ctx.open();
    let mut runs = 0;
    let error = KvError::Corrupt { what: "record".into() };
    let result = kv.transact(kv.soon(), &mut |_| {
        runs += 1;
        Err(error.clone().into())
    });
    assert_eq!((result, runs), (Err(error.into()), 1));
    let mut runs = 0;
    kv.transact(kv.soon(), &mut |_| {
        runs += 1;
        if runs < 3 { Err(KvError::TooOld.into()) } else { Ok(()) }
    })
    .unwrap();
    assert_eq!(runs, 3, "what passes is tried again");
}

fn the_deadline_ends_endless_conflicts(ctx: &Ctx) {
    let kv = ctx.open();
    let (mut runs, begun) = (0u64, Instant::now());
    let result = kv.transact(kv.within(300), &mut |txn| {
        runs += 1;
        txn.get(b"a")?;
        kv.write(vec![delete("nothing")]);
        write_through(&kv, "a", &runs.to_string());
        txn.put(b"b".to_vec(), Bytes::new());
        Ok(())
    });
    assert!(matches!(result, Err(Error::Unavailable { .. } | Error::Timeout { .. })), "{result:?}");
    assert!(runs > 2, "{runs}");
    assert!(begun.elapsed() < Duration::from_secs(30), "bounded");
    assert_eq!(kv.value("b"), None);
}
