//! What conflicts with what (K2).

use interleaf_store::kv::{Commit, KeyRange, KvError, Mutation};

use crate::support::{Case, Ctx, Open, case, point, put, range, threads};

pub const CASES: &[Case] = &[
    case!(Nothing, reads_conflict_with_later_writes_only),
    case!(Nothing, ranges_conflict_where_they_meet),
    case!(Nothing, only_logical_writes_conflict),
    case!(Nothing, blind_writes_never_conflict),
    case!(Nothing, a_conflict_leaves_nothing),
    case!(Nothing, a_failed_commit_conflicts_with_nobody),
    case!(Nothing, a_commit_conflicts_with_its_own_past),
    case!(Nothing, lost_updates_do_not_happen),
    case!(Nothing, write_skew_does_not_happen),
    case!(Nothing, large_sets_are_exact),
    case!(Exclusive, a_forgotten_snapshot_is_too_old),
];

fn reads_conflict_with_later_writes_only(ctx: &Ctx) {
    let kv = ctx.open();
    let before = kv.now();
    kv.at(before, &[], &[point("a")]).unwrap();
    let between = kv.now();
    assert_eq!(kv.at(before, &[point("a")], &[]), Err(KvError::Conflict));
    assert_eq!(kv.at(before, &[point("b"), point("a")], &[]), Err(KvError::Conflict));
    kv.at(before, &[point("b")], &[point("a")]).unwrap();
    assert_eq!(kv.at(between, &[point("a")], &[]), Err(KvError::Conflict));
    let now = kv.now();
    kv.at(now, &[point("a")], &[]).unwrap();
    kv.at(now, &[point("a")], &[point("z")]).unwrap();
}

fn ranges_conflict_where_they_meet(ctx: &Ctx) {
    let kv = ctx.open();
    // (read, written, meet)
    let table = [
        (range("b", "d"), range("c", "e"), true),
        (range("b", "d"), range("a", "c"), true),
        (range("b", "d"), range("a", "z"), true),
        (range("a", "z"), range("b", "d"), true),
        (range("b", "d"), range("d", "e"), false),
        (range("b", "d"), range("a", "b"), false),
        (range("b", "d"), point("b"), true),
        (range("b", "d"), point("d"), false),
        (point("b"), range("a", "b"), false),
        (point("b"), range("a", "b\0"), true),
        (point("b"), range("b\0", "c"), false),
        (range("b", "b"), range("a", "z"), false),
        (range("a", "z"), range("c", "c"), false),
        (range("d", "b"), range("a", "z"), false),
    ];
    for (read, written, meet) in table {
        let before = kv.now();
        kv.at(before, &[], std::slice::from_ref(&written)).unwrap();
        let result = kv.at(before, std::slice::from_ref(&read), &[]);
        assert_eq!(result == Err(KvError::Conflict), meet, "{read:?} {written:?} {result:?}");
    }
}

fn only_logical_writes_conflict(ctx: &Ctx) {
    let kv = ctx.open();
    let before = kv.now();
    kv.write(vec![put("a", "1"), Mutation::DeleteRange { range: range("a", "z") }]);
    kv.at(before, &[range("a", "z")], &[]).unwrap();
}

fn blind_writes_never_conflict(ctx: &Ctx) {
    let kv = ctx.open();
    let before = kv.now();
    for _ in 0..3 {
        kv.at(before, &[], &[range("a", "z")]).unwrap();
    }
}

fn a_conflict_leaves_nothing(ctx: &Ctx) {
    let kv = ctx.open();
    let before = kv.now();
    kv.at(before, &[], &[point("a")]).unwrap();
    let all = kv.all();
    let commit = Commit {
        snapshot: before,
        read_conflicts: vec![point("a")].into(),
        mutations: vec![put("x", "1"), put("c", "1")],
        ..Commit::default()
    };
    assert_eq!(kv.commit_at(commit, kv.soon()), Err(KvError::Conflict));
    assert_eq!(kv.all(), all);
}

fn a_failed_commit_conflicts_with_nobody(ctx: &Ctx) {
    let kv = ctx.open();
    let before = kv.now();
    kv.at(before, &[], &[point("a")]).unwrap();
    assert_eq!(kv.at(before, &[point("a")], &[point("b")]), Err(KvError::Conflict));
    kv.at(before, &[point("b")], &[]).unwrap();
}

fn a_commit_conflicts_with_its_own_past(ctx: &Ctx) {
    let kv = ctx.open();
    let before = kv.now();
    kv.at(before, &[point("a")], &[point("a")]).unwrap();
    assert_eq!(kv.at(before, &[point("a")], &[point("a")]), Err(KvError::Conflict));
}

/// Adds one to the number at `key`, unless it conflicts.
fn add_one(kv: &Open, key: &str) -> bool {
    let snapshot = kv.snapshot(kv.soon()).unwrap();
    let value = snapshot.get(key.as_bytes()).unwrap();
    let value: u64 = value.map_or(0, |v| std::str::from_utf8(&v).unwrap().parse().unwrap());
    let commit = Commit {
        snapshot: snapshot.version(),
        read_conflicts: vec![point(key)].into(),
        write_conflicts: vec![point(key)],
        mutations: vec![put(key, &(value + 1).to_string())],
        ..Commit::default()
    };
    match kv.commit_at(commit, kv.soon()) {
        Ok(_) => true,
        Err(KvError::Conflict) => false,
        Err(e) => panic!("{e}"),
    }
}

fn lost_updates_do_not_happen(ctx: &Ctx) {
    const THREADS: usize = 16;
    const ADDS: usize = 20;
    let kv = ctx.open();
    threads(THREADS, |t| {
        for key in ["hot", if t.is_multiple_of(2) { "even" } else { "odd" }] {
            (0..ADDS).for_each(|_| while !add_one(&kv, key) {});
        }
    });
    let number = |key: &str| String::from_utf8(kv.value(key).unwrap().to_vec()).unwrap();
    assert_eq!(number("hot"), (THREADS * ADDS).to_string());
    assert_eq!(number("odd"), (THREADS / 2 * ADDS).to_string());
    assert_eq!(number("even"), number("odd"));
}

/// Two keys of which at least one must stay: each thread deletes one where it sees both.
fn write_skew_does_not_happen(ctx: &Ctx) {
    let kv = ctx.open();
    for _ in 0..50 {
        kv.write(vec![put("a", "1"), put("b", "1")]);
        threads(2, |t| {
            let snapshot = kv.snapshot(kv.soon()).unwrap();
            let both = snapshot.get_many(&[b"a".to_vec(), b"b".to_vec()]).unwrap();
            if both.iter().all(Option::is_some) {
                let mine = ["a", "b"][t];
                let commit = Commit {
                    snapshot: snapshot.version(),
                    read_conflicts: vec![point("a"), point("b")].into(),
                    write_conflicts: vec![point(mine)],
                    mutations: vec![Mutation::Delete { key: mine.into() }],
                    ..Commit::default()
                };
                let result = kv.commit_at(commit, kv.soon());
                assert!(matches!(result, Ok(_) | Err(KvError::Conflict)), "{result:?}");
            }
        });
        assert_eq!(kv.all().len(), 1);
    }
}

/// As of pages: 20,000 read and 5,000 written, point by point.
fn large_sets_are_exact(ctx: &Ctx) {
    let kv = ctx.open();
    let page = |n: usize| point(&format!("kbranch{n:08}"));
    let reads: Vec<KeyRange> = (0..20_000).map(|n| page(2 * n)).collect();
    let odd: Vec<KeyRange> = (0..5000).map(|n| page(8 * n + 1)).collect();
    let before = kv.now();
    kv.at(before, &[], &odd).unwrap();
    kv.at(before, &reads, &odd).unwrap();
    kv.at(before, &[], &[page(39_998)]).unwrap();
    assert_eq!(kv.at(before, &reads, &[]), Err(KvError::Conflict));
    kv.at(before, &reads[..19_999], &[]).unwrap();
    let even: Vec<KeyRange> = (0..5000).map(|n| page(4 * n)).collect();
    let before = kv.now();
    kv.at(before, &[], &even).unwrap();
    assert_eq!(kv.at(before, &[page(4 * 4999)], &[]), Err(KvError::Conflict));
    kv.at(before, &[page(4 * 5000), page(3)], &[]).unwrap();
}

fn a_forgotten_snapshot_is_too_old(ctx: &Ctx) {
    let kv = ctx.open();
    let before = kv.now();
    let mut commits = 0u64;
    while kv.at(before, &[point("elsewhere")], &[]) != Err(KvError::TooOld) {
        let keys = (0..5000).map(|n| point(&format!("{commits:08}{n:08}"))).collect::<Vec<_>>();
        kv.at(before, &[], &keys).unwrap();
        commits += 1;
        assert!(commits < 1000, "the window is bounded");
    }
    assert!(commits > 5, "the window holds some commits");
    let now = kv.now();
    kv.at(now, &[point("elsewhere")], &[]).unwrap();
    kv.at(before, &[], &[point("elsewhere")]).unwrap();
    assert_eq!(kv.at(now, &[point("elsewhere")], &[]), Err(KvError::Conflict));
}
