//! What survives what (K3, K4), for engines whose stores can be opened again.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use interleaf_store::Error;
use interleaf_store::env::Env;
use interleaf_store::kv::fjall::FjallEngine;
use interleaf_store::kv::{Commit, Durability, Mutation};
use interleaf_store::types::Version;

use crate::support::{Case, Ctx, Open, case, point, put, text, threads};

pub const CASES: &[Case] = &[
    case!(Persistent, everything_survives_a_clean_end),
    case!(Fjall, an_unclean_end_is_told_and_no_version_comes_again),
    case!(Fjall, a_snapshot_of_an_earlier_life_is_too_old),
    case!(Fjall, kill_9_loses_nothing_acknowledged),
    case!(Fjall, a_held_directory_names_its_holder),
];

/// Set for a child process: the directory of its store.
const CHILD: &str = "INTERLEAF_CONFORMANCE_CHILD";
/// Threads in which a child commits.
const CHILD_THREADS: usize = 4;
/// Bytes of a value that a child writes: larger than a journal's buffer every few commits.
const CHILD_VALUE_BYTES: usize = 3000;

fn everything_survives_a_clean_end(ctx: &Ctx) {
    let mut last = Version::ZERO;
    for n in 0..3 {
        let kv = ctx.open();
        assert!(!kv.recovered());
        assert_eq!(kv.all().len(), 2 * n);
        let mutations = vec![put(&format!("a{n}"), "1"), put(&format!("c{n}"), &"x".repeat(5000))];
        let version = kv.write(mutations);
        assert!(version > last, "{version} after {last}");
        last = version;
        kv.close().unwrap();
    }
    assert_eq!(ctx.open().all().len(), 6);
}

fn an_unclean_end_is_told_and_no_version_comes_again(ctx: &Ctx) {
    let mut last = Version::ZERO;
    for n in 0..5 {
        let kv = ctx.open();
        assert_eq!(kv.recovered(), n > 0, "{n}");
        assert!(kv.now() >= last);
        let version = kv.put("n", &n.to_string());
        assert!(version > last, "{version} after {last}");
        last = version;
    }
    let kv = ctx.open();
    assert_eq!(text(&kv.all()), "n=4");
    kv.close().unwrap();
    drop(kv);
    assert!(!ctx.open().recovered(), "a clean end is clean");
}

fn a_snapshot_of_an_earlier_life_is_too_old(ctx: &Ctx) {
    let kv = ctx.open();
    let before = kv.now();
    kv.close().unwrap();
    drop(kv);
    let kv = ctx.open();
    kv.at(before, &[point("a")], &[point("b")]).unwrap();
    drop(kv);
    let kv = ctx.open();
    assert_eq!(kv.at(before, &[point("a")], &[]), Err(interleaf_store::kv::KvError::TooOld));
}

/// Whether this process is a child of the suite.
pub fn is_child() -> bool {
    std::env::var_os(CHILD).is_some()
}

/// Commits without an end, and says what was acknowledged.
pub fn child() {
    let dir = PathBuf::from(std::env::var_os(CHILD).unwrap());
    let env = Env::system();
    let kv = Arc::new(FjallEngine::open(&dir, 64 << 20, env.clone()).unwrap());
    let open = Open { kv, env };
    threads(CHILD_THREADS, |t| {
        for n in 0u64.. {
            let filler = vec![u8::try_from(n % 251).unwrap(); CHILD_VALUE_BYTES];
            let commit = Commit {
                mutations: vec![
                    put(&format!("n{t}"), &n.to_string()),
                    put(&format!("k{t}/{n:010}"), "x"),
                    Mutation::Put { key: format!("c{t}/{n:010}").into(), value: filler.into() },
                ],
                // One thread syncs, so that batches of both kinds occur.
                durability: if t == 0 { Durability::Synced } else { Durability::Buffered },
                ..Commit::default()
            };
            let version = open.commit_at(commit, open.soon()).unwrap();
            let mut out = std::io::stdout().lock();
            writeln!(out, "{t} {n} {version}").unwrap();
            out.flush().unwrap();
        }
    });
}

fn spawn_child(ctx: &Ctx) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .env(CHILD, ctx.place.dir())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn kill_9_loses_nothing_acknowledged(ctx: &Ctx) {
    let mut newest = Version::ZERO;
    let mut acknowledged: BTreeMap<usize, u64> = BTreeMap::new();
    for lines in [1, 50, 700] {
        let mut child = spawn_child(ctx);
        let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told: Vec<String> = (0..lines).map(|_| out.next().unwrap().unwrap()).collect();
        // Kills, not ends: SIGKILL.
        child.kill().unwrap();
        child.wait().unwrap();
        // What was in the pipe was acknowledged as well; the last line may be cut.
        told.extend(out.map_while(Result::ok));
        acknowledged.clear();
        for line in &told {
            let parts: Vec<&str> = line.split(' ').collect();
            let [t, n, version] = parts[..] else { continue };
            let Ok(version) = version.parse::<Version>() else { continue };
            assert!(version > newest || lines == 1 || version.commit() > 0);
            acknowledged.insert(t.parse().unwrap(), n.parse().unwrap());
        }
        let kv = ctx.open();
        assert!(kv.recovered());
        check_survivors(&kv, &acknowledged);
        let version = kv.write(vec![Mutation::DeleteRange { range: b"".to_vec()..b"z".to_vec() }]);
        let told_newest = told.iter().filter_map(|l| l.split(' ').nth(2)?.parse().ok()).max();
        assert!(Some(version) > told_newest, "K3");
        assert!(version > newest, "K3");
        newest = version;
    }
}

/// Every acknowledged commit is there, whole, and of each thread a beginning of its commits.
fn check_survivors(kv: &Open, acknowledged: &BTreeMap<usize, u64>) {
    let all: BTreeMap<Bytes, Bytes> = kv.all().into_iter().collect();
    for t in 0..CHILD_THREADS {
        let last = all.get(format!("n{t}").as_bytes());
        let last = last.map(|v| std::str::from_utf8(v).unwrap().parse::<u64>().unwrap());
        assert!(last >= acknowledged.get(&t).copied(), "thread {t}: {last:?} {acknowledged:?}");
        for n in 0..last.map_or(0, |last| last + 1) {
            assert!(all.contains_key(format!("k{t}/{n:010}").as_bytes()), "{t} {n} of {last:?}");
            let filler = &all[format!("c{t}/{n:010}").as_bytes()];
            assert_eq!(filler.len(), CHILD_VALUE_BYTES);
            assert!(filler.iter().all(|&b| u64::from(b) == n % 251));
        }
    }
    let counted: usize = all.keys().filter(|key| key.starts_with(b"k")).count();
    let fillers = all.keys().filter(|key| key.starts_with(b"c")).count();
    assert_eq!(counted, fillers, "a commit is there as a whole or not at all");
}

fn a_held_directory_names_its_holder(ctx: &Ctx) {
    let mut child = spawn_child(ctx);
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines();
    out.next().unwrap().unwrap();
    let result = FjallEngine::open(ctx.place.dir(), 64 << 20, Env::system());
    let Err(Error::Locked { path, holder }) = result else {
        panic!("must be locked");
    };
    assert_eq!(path, ctx.place.dir().display().to_string());
    assert!(holder.starts_with(&format!("process {} (", child.id())), "{holder}");
    assert!(holder.contains("conformance"), "{holder}");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(ctx.open().recovered(), "the lock dies with its holder");
}
