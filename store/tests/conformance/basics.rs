//! Mutations, reads, scans, limits, snapshots.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use interleaf_store::kv::{Commit, Key, KvError, Mutation, Scan};

use crate::support::{
    Case, Ctx, Open, Random, case, delete, point, put, range, scan, text, threads,
};

pub const CASES: &[Case] = &[
    case!(Nothing, puts_and_deletes),
    case!(Nothing, an_empty_key_is_refused),
    case!(Nothing, mutations_of_a_commit_apply_in_order),
    case!(Nothing, versions_are_filled_into_keys_and_values),
    case!(Nothing, a_range_is_deleted_within_its_bounds),
    case!(Nothing, scans_go_both_ways_with_bounds_and_limits),
    case!(Nothing, the_last_key_of_a_range_is_found_backwards),
    case!(Nothing, many_reads_are_answered_in_order),
    case!(Nothing, random_commits_agree_with_a_map),
    case!(Nothing, limits_are_named_and_nothing_is_written),
    case!(Nothing, a_snapshot_does_not_move),
    case!(Nothing, a_snapshot_sees_what_was_acknowledged),
    case!(Nothing, a_snapshot_never_sees_part_of_a_commit),
    case!(Nothing, a_passed_deadline_is_a_timeout_without_effect),
    case!(Nothing, a_closed_store_takes_no_commits),
];

fn puts_and_deletes(ctx: &Ctx) {
    let kv = ctx.open();
    assert_eq!(kv.value("a"), None);
    kv.put("a", "1");
    kv.write(vec![put("a", "2"), put("b", "")]);
    assert_eq!(text(&kv.all()), "a=2 b=");
    kv.write(vec![delete("a"), delete("never there")]);
    assert_eq!(kv.value("a"), None);
    assert_eq!(kv.value("b"), Some(Bytes::new()));
    kv.put("a", "3");
    assert_eq!(text(&kv.all()), "a=3 b=");
}

fn an_empty_key_is_refused(ctx: &Ctx) {
    let kv = ctx.open();
    for mutation in [put("", "1"), delete("")] {
        let commit = Commit { mutations: vec![put("a", "1"), mutation], ..Commit::default() };
        let result = kv.commit_at(commit, kv.soon());
        assert!(matches!(result, Err(KvError::Corrupt { .. })), "{result:?}");
    }
    assert_eq!(kv.all(), vec![]);
    assert_eq!(kv.value(""), None);
}

fn mutations_of_a_commit_apply_in_order(ctx: &Ctx) {
    let kv = ctx.open();
    kv.write(vec![put("a", "1"), delete("a"), put("a", "2"), put("b", "1"), delete("b")]);
    assert_eq!(text(&kv.all()), "a=2");
    let all = Mutation::DeleteRange { range: range("a", "z") };
    kv.write(vec![put("c", "1"), all.clone(), put("d", "1")]);
    assert_eq!(text(&kv.all()), "d=1");
    kv.write(vec![delete("d"), put("d", "2"), all, put("c", "5")]);
    assert_eq!(text(&kv.all()), "c=5");
}

fn versions_are_filled_into_keys_and_values(ctx: &Ctx) {
    let kv = ctx.open();
    let version = kv.write(vec![
        Mutation::PutVersionedKey {
            prefix: b"k".to_vec(),
            suffix: b"s".to_vec(),
            value: Bytes::from_static(b"x"),
        },
        Mutation::PutVersionedValue {
            key: b"v".to_vec(),
            prefix: b"<".to_vec(),
            suffix: b">".to_vec(),
        },
        Mutation::PutVersionedValue { key: b"w".to_vec(), prefix: vec![], suffix: vec![] },
    ]);
    let v = version.to_bytes();
    let expected: Vec<(Bytes, Bytes)> = vec![
        ([b"k", &v[..], b"s"].concat().into(), "x".into()),
        ("v".into(), [b"<", &v[..], b">"].concat().into()),
        ("w".into(), v.to_vec().into()),
    ];
    assert_eq!(kv.all(), expected);
}

fn a_range_is_deleted_within_its_bounds(ctx: &Ctx) {
    let kv = ctx.open();
    // The keys lie on both sides of, and in, the part that fjall keeps apart.
    let keys = ["a", "b", "c", "ca", "cz", "d", "e"];
    kv.write(keys.iter().map(|key| put(key, "1")).collect());
    kv.write(vec![Mutation::DeleteRange { range: range("b", "cz") }]);
    assert_eq!(text(&kv.all()), "a=1 cz=1 d=1 e=1");
    for nothing in [range("x", "z"), range("d", "d"), range("e", "a")] {
        kv.write(vec![Mutation::DeleteRange { range: nothing }]);
    }
    assert_eq!(text(&kv.all()), "a=1 cz=1 d=1 e=1");
    kv.write(vec![Mutation::DeleteRange { range: range("", "e") }]);
    assert_eq!(text(&kv.all()), "e=1");
}

fn scans_go_both_ways_with_bounds_and_limits(ctx: &Ctx) {
    let kv = ctx.open();
    let keys = ["a", "aa", "b", "c", "ca", "cb", "d", "da", "e"];
    kv.write(keys.iter().map(|key| put(key, key)).collect());
    kv.write(vec![put("x", "gone"), put("ab", "gone")]);
    kv.write(vec![delete("x"), delete("ab")]);
    let snapshot = kv.snapshot(kv.soon()).unwrap();
    let bounds = ["", "a", "aa", "ab", "b", "c", "c\0", "ca", "d", "d\0", "e", "f"];
    for start in bounds {
        for end in bounds {
            let mut expected: Vec<&str> = keys.to_vec();
            expected.retain(|key| start <= *key && *key < end);
            for limit in [0, 1, 2, 3, 5, 100] {
                for reverse in [false, true] {
                    let mut expected = expected.clone();
                    if reverse {
                        expected.reverse();
                    }
                    expected.truncate(limit);
                    let got = scan(&*snapshot, start.as_bytes(), end.as_bytes(), reverse, limit);
                    let got: Vec<_> = got.iter().map(|(key, _)| &key[..]).collect();
                    let expected: Vec<_> = expected.iter().map(|key| key.as_bytes()).collect();
                    assert_eq!(got, expected, "{start:?}..{end:?} {reverse} {limit}");
                }
            }
        }
    }
}

/// How a page is looked up: the newest version not later than a snapshot.
fn the_last_key_of_a_range_is_found_backwards(ctx: &Ctx) {
    let kv = ctx.open();
    let mut versions = Vec::new();
    for n in 0..50 {
        let page = Mutation::PutVersionedKey {
            prefix: b"p1".to_vec(),
            suffix: vec![],
            value: Bytes::from(format!("{n}")),
        };
        versions.push(kv.write(vec![page, put("p0", "before"), put("p2", "behind")]));
    }
    let snapshot = kv.snapshot(kv.soon()).unwrap();
    for (n, version) in versions.iter().enumerate() {
        let end = [b"p1", &version.to_bytes()[..], b"\0"].concat();
        let found = scan(&*snapshot, b"p1", &end, true, 1);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].1, n.to_string());
    }
    let first = [b"p1", &versions[0].to_bytes()[..]].concat();
    assert_eq!(scan(&*snapshot, b"p1", &first, true, 1), vec![]);
}

fn many_reads_are_answered_in_order(ctx: &Ctx) {
    let kv = ctx.open();
    kv.write((0..100).map(|n| put(&format!("k{n:03}"), &n.to_string())).collect());
    let snapshot = kv.snapshot(kv.soon()).unwrap();
    let keys: Vec<Key> = (0..200).rev().map(|n| format!("k{n:03}").into_bytes()).collect();
    let values = snapshot.get_many(&keys).unwrap();
    for (n, value) in (0..200).rev().zip(values) {
        assert_eq!(value, (n < 100).then(|| Bytes::from(n.to_string())));
    }
    let one = |n: usize| Scan {
        range: range(&format!("k{n:03}"), "l"),
        reverse: n.is_multiple_of(2),
        limit: 2,
    };
    let scans: Vec<Scan> = [90, 99, 7, 100].map(one).into();
    let found: Vec<_> = snapshot.scan_many(&scans).unwrap().iter().map(|s| text(s)).collect();
    assert_eq!(found, ["k099=99 k098=98", "k099=99", "k007=7 k008=8", ""]);
}

fn random_commits_agree_with_a_map(ctx: &Ctx) {
    const SEED: u64 = 20_251;
    println!("seed {SEED}");
    let mut random = Random::new(SEED);
    let kv = ctx.open();
    let mut model: BTreeMap<String, String> = BTreeMap::new();
    let key = |random: &mut Random| {
        let length = 1 + random.below(3);
        (0..length).map(|_| ["a", "b", "c", "d"][random.below(4)]).collect::<String>()
    };
    for round in 0..300 {
        let mut mutations = Vec::new();
        for _ in 0..random.below(8) {
            let k = key(&mut random);
            match random.below(6) {
                0 => {
                    let end = key(&mut random);
                    model.retain(|key, _| !(k <= *key && *key < end));
                    mutations.push(Mutation::DeleteRange { range: range(&k, &end) });
                }
                1 => {
                    model.remove(&k);
                    mutations.push(delete(&k));
                }
                _ => {
                    model.insert(k.clone(), round.to_string());
                    mutations.push(put(&k, &round.to_string()));
                }
            }
        }
        kv.write(mutations);
        let expected: Vec<_> = model.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(text(&kv.all()), expected.join(" "), "round {round}");
    }
}

fn limits_are_named_and_nothing_is_written(ctx: &Ctx) {
    let kv = ctx.open();
    let limits = kv.limits();
    let bytes = |size: usize| Bytes::from(vec![7; size]);
    let commit = |key: usize, value: usize| {
        let mutation = Mutation::Put { key: vec![b'k'; key], value: bytes(value) };
        let mutations = vec![put("other", "x"), mutation];
        kv.commit_at(Commit { mutations, ..Commit::default() }, kv.soon())
    };
    let refused = |result| match result {
        Err(KvError::TooLarge { what, size, limit }) => (what, size, limit),
        other => panic!("must be too large: {other:?}"),
    };
    let (what, size, limit) = refused(commit(limits.key_bytes + 1, 1));
    assert!(what.contains("key") && (size, limit) == (limit + 1, limits.key_bytes as u64));
    let (what, size, limit) = refused(commit(1, limits.value_bytes + 1));
    assert!(what.contains("value") && (size, limit) == (limit + 1, limits.value_bytes as u64));

    let count = usize::try_from(limits.transaction_bytes).unwrap() / limits.value_bytes + 1;
    let value = bytes(limits.value_bytes);
    let many = |n: usize| Mutation::Put { key: n.to_be_bytes().into(), value: value.clone() };
    let mutations = (0..count).map(many).collect();
    let result = kv.commit_at(Commit { mutations, ..Commit::default() }, kv.soon());
    let (what, size, limit) = refused(result);
    assert!(what.contains("transaction") && size > limit && limit == limits.transaction_bytes);
    assert_eq!(kv.all(), vec![]);

    commit(limits.key_bytes, limits.value_bytes).unwrap();
    let snapshot = kv.snapshot(kv.soon()).unwrap();
    let stored = snapshot.get(&vec![b'k'; limits.key_bytes]).unwrap();
    assert_eq!(stored, Some(bytes(limits.value_bytes)));
}

fn a_snapshot_does_not_move(ctx: &Ctx) {
    let kv = ctx.open();
    kv.write(vec![put("a", "1"), put("b", "1"), put("ca", "1"), put("d", "1")]);
    let snapshot = kv.snapshot(kv.soon()).unwrap();
    let (before, version) = (kv.all(), snapshot.version());
    for n in 0..50 {
        kv.write(vec![put("a", &n.to_string()), put("ca", "x"), put("new", "x"), delete("b")]);
        kv.write(vec![Mutation::DeleteRange { range: range("d", "e") }]);
    }
    assert_eq!(scan(&*snapshot, b"", b"\xff", false, 100), before);
    assert_eq!(snapshot.get(b"b").unwrap().unwrap(), "1");
    assert_eq!(snapshot.get(b"new").unwrap(), None);
    assert_eq!(snapshot.version(), version);
}

/// K5.
fn a_snapshot_sees_what_was_acknowledged(ctx: &Ctx) {
    let kv = ctx.open();
    threads(4, |t| {
        for n in 0..50 {
            let version = kv.put(&format!("k{t}"), &n.to_string());
            let snapshot = kv.snapshot(kv.soon()).unwrap();
            assert!(snapshot.version() >= version);
            let value = snapshot.get(format!("k{t}").as_bytes()).unwrap().unwrap();
            assert_eq!(value, n.to_string());
        }
    });
}

/// K1.
fn a_snapshot_never_sees_part_of_a_commit(ctx: &Ctx) {
    let kv = ctx.open();
    // Of both keyspaces of fjall.
    let both = |n: usize| vec![put("a", &n.to_string()), put("c", &n.to_string())];
    kv.write(both(0));
    let done = AtomicBool::new(false);
    threads(4, |t| {
        if t == 0 {
            for n in 1..500 {
                kv.write(both(n));
            }
            done.store(true, Ordering::Relaxed);
        }
        while !done.load(Ordering::Relaxed) {
            let snapshot = kv.snapshot(kv.soon()).unwrap();
            assert_eq!(snapshot.get(b"a").unwrap(), snapshot.get(b"c").unwrap());
            let all = scan(&*snapshot, b"", b"z", t == 1, 10);
            assert_eq!((all.len(), &all[0].1), (2, &all[1].1));
        }
    });
}

fn a_passed_deadline_is_a_timeout_without_effect(ctx: &Ctx) {
    let kv = ctx.open();
    let commit = Commit { mutations: vec![put("a", "1")], ..Commit::default() };
    let result = kv.commit_at(commit, kv.within(0));
    assert!(matches!(result, Err(KvError::Timeout { .. })), "{result:?}");
    assert_eq!(kv.value("a"), None);
}

fn a_closed_store_takes_no_commits(ctx: &Ctx) {
    let kv: Open = ctx.open();
    let snapshot = kv.now();
    kv.put("a", "1");
    kv.close().unwrap();
    kv.close().unwrap();
    for reads in [vec![], vec![point("b")]] {
        let result = kv.at(snapshot, &reads, &[]);
        assert!(matches!(result, Err(KvError::Unavailable { .. })), "{result:?}");
    }
    let result = kv.transact(kv.within(5000), &mut |txn| {
        txn.put(b"a".to_vec(), Bytes::new());
        Ok(())
    });
    assert!(matches!(result, Err(interleaf_store::Error::Unavailable { .. })), "{result:?}");
}
