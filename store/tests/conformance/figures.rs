//! Figures, to read: nothing is asserted of them. Run by
//! `cargo test -p interleaf-store --test conformance -- --ignored --nocapture figures`.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use interleaf_store::kv::{Commit, Durability, KeyRange, Mutation};
use interleaf_store::types::Version;

use crate::support::{Case, Ctx, Needs, Open, Random, point, put, threads};

pub const CASES: &[Case] =
    &[Case { name: "figures", needs: Needs::Exclusive, ignored: true, run: figures }];

/// A page and the two bytes before it; half of it compresses.
static CONTENT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut random = Random::new(1);
    let mut byte = |at| if at % 64 < 32 { 0 } else { u8::try_from(random.below(256)).unwrap() };
    (0..4098).map(&mut byte).collect()
});

/// Like a commit of three pages: content, references, page records, log, head, commit id.
fn three_pages(t: usize, n: usize) -> Vec<Mutation> {
    let mut mutations = vec![put(&format!("h{t}"), "version")];
    for page in 0..3 {
        let mut content = CONTENT.to_vec();
        content[0] = u8::try_from(n % 256).unwrap();
        let hash = format!("{t:04}{n:010}{page:018}");
        mutations
            .push(Mutation::Put { key: format!("cDOMAIN__{hash}").into(), value: content.into() });
        mutations.push(put(&format!("rDOMAIN__{hash}BRANCH__{page:04}{n:010}"), ""));
        mutations.push(Mutation::PutVersionedKey {
            prefix: format!("pBRANCH{t:02}{page:04}").into(),
            suffix: vec![],
            value: Bytes::copy_from_slice(hash.as_bytes()),
        });
    }
    let (prefix, suffix) = (format!("lBRANCH{t:02}").into_bytes(), b"00".to_vec());
    mutations.push(Mutation::PutVersionedKey { prefix, suffix, value: vec![1; 180].into() });
    let (prefix, suffix) = (vec![1], vec![]);
    let key = format!("i{t:06}{n:010}").into();
    mutations.push(Mutation::PutVersionedValue { key, prefix, suffix });
    mutations
}

fn commit(kv: &Open, t: usize, n: usize, durability: Durability) {
    let pages = || (0..3).map(|page| point(&format!("kBRANCH{t:02}{page}"))).collect::<Vec<_>>();
    let commit = Commit {
        snapshot: kv.now(),
        read_conflicts: pages().into(),
        write_conflicts: pages(),
        mutations: three_pages(t, n),
        durability,
        on_publish: None,
    };
    kv.commit_at(commit, kv.soon()).unwrap();
}

fn figures(ctx: &Ctx) {
    for durability in [Durability::Buffered, Durability::Synced] {
        for count in [1, 16, 64] {
            let ctx = Ctx::new(ctx.engine);
            let kv = ctx.open();
            let each = 8000 / count.max(4);
            threads(count, |t| (0..50).for_each(|n| commit(&kv, t, n, durability)));
            let (begun, cpu) = (Instant::now(), cpu_ticks());
            threads(count, |t| (50..50 + each).for_each(|n| commit(&kv, t, n, durability)));
            let cpu = Duration::from_millis((cpu_ticks() - cpu) * 10);
            report(&ctx, durability, count, each * count, [begun.elapsed(), cpu]);
        }
    }
    reads(ctx);
    large_sets(ctx);
}

/// What a commit costs that has read 20,000 pages, by what was committed since: the best
/// of ten.
fn large_sets(ctx: &Ctx) {
    let kv = ctx.open();
    let page = |n: usize| point(&format!("kBRANCH__{n:08}"));
    let reads: Vec<_> = (0..20_000).map(|n| page(2 * n)).collect();
    let writes: Vec<_> = (0..5000).map(|n| page(8 * n + 1)).collect();
    let time = |what: &str, snapshot, reads: &[KeyRange], writes: &[KeyRange]| {
        let once = |_| {
            let (read_conflicts, write_conflicts) = (reads.to_vec().into(), writes.to_vec());
            let commit = Commit { snapshot, read_conflicts, write_conflicts, ..Commit::default() };
            let begun = Instant::now();
            kv.commit_at(commit, kv.soon()).unwrap();
            begun.elapsed()
        };
        let best = (0..10).map(once).min().unwrap();
        println!("{:10} {} pages read, {what}: {best:?}", ctx.engine.name, reads.len());
    };
    let before = kv.now();
    time("nothing since", before, &reads, &[]);
    time("5,000 written", before, &[], &writes);
    time("50,000 written since", before, &reads, &[]);
    for n in 0..10_000 {
        let commit = Commit {
            write_conflicts: (0..4).map(|m| page(2 * (n * 4 + m) + 1)).collect(),
            ..Commit::default()
        };
        kv.commit_at(commit, kv.soon()).unwrap();
    }
    time("10,000 commits of 4 pages since", before, &reads, &[]);
    time("10,000 commits of 4 pages since", before, &reads[..20], &[]);
    time("nothing since", kv.now(), &reads, &[]);
}

/// Processor time of this process, in hundredths of a second.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn report(ctx: &Ctx, durability: Durability, count: usize, commits: usize, took: [Duration; 2]) {
    let total = commits as f64;
    let [wall, cpu] = took.map(|took| took.as_secs_f64());
    println!(
        "{:10} {durability:?} {count:2} threads: {:7.1} us a commit, {:5.1} us of processor, {:7.0} commits/s",
        ctx.engine.name,
        wall * 1e6 * count as f64 / total,
        cpu * 1e6 / total,
        total / wall,
    );
}

fn reads(ctx: &Ctx) {
    let kv = ctx.open();
    for n in 0..5000 {
        kv.commit_at(
            Commit {
                mutations: three_pages(n % 10, n / 10),
                durability: Durability::Buffered,
                ..Commit::default()
            },
            kv.soon(),
        )
        .unwrap();
    }
    let count = 20_000;
    let time = |what: &str, call: &dyn Fn(usize)| {
        let begun = Instant::now();
        (0..count).for_each(call);
        let each = begun.elapsed().as_secs_f64() * 1e6 / f64::from(u32::try_from(count).unwrap());
        println!("{:10} {what}: {each:.2} us", ctx.engine.name);
    };
    time("snapshot", &|_| assert!(kv.now() > Version::ZERO));
    let snapshot = kv.snapshot(kv.soon()).unwrap();
    time("get of a page's content", &|n| {
        let key = format!("cDOMAIN__{:04}{:010}{:018}", n % 10, n % 500, n % 3);
        assert!(snapshot.get(key.as_bytes()).unwrap().is_some());
    });
    time("newest version of a page", &|n| {
        let key = format!("pBRANCH{:02}{:04}", n % 10, n % 3);
        let end = [key.as_bytes(), &[0xff; 10]].concat();
        let scan = crate::support::scan(&*snapshot, key.as_bytes(), &end, true, 1);
        assert_eq!(scan.len(), 1);
    });
}
