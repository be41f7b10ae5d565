//! What survives what (K3, K4), for engines whose stores can be opened again.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use interleaf_store::Error;
use interleaf_store::env::Env;
use interleaf_store::kv::fjall::FjallEngine;
use interleaf_store::kv::{Commit, Durability, Kv, Mutation, Scan};
use interleaf_store::types::Version;

use crate::support::{Case, Ctx, Open, Random, case, point, put, text, threads};

pub const CASES: &[Case] = &[
    case!(Persistent, everything_survives_a_clean_end),
    case!(Fjall, an_unclean_end_is_told_and_no_version_comes_again),
    case!(Fjall, a_snapshot_of_an_earlier_life_is_too_old),
    case!(Fjall, kill_9_loses_nothing_acknowledged),
    case!(Fjall, a_held_directory_names_its_holder),
    case!(Fjall, damaged_files_end_no_process),
];

/// Set for a child process: the directory of its store.
const CHILD: &str = "INTERLEAF_CONFORMANCE_CHILD";
/// Set for a child that is only to read.
const READS: &str = "INTERLEAF_CONFORMANCE_READS";
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
    if std::env::var_os(READS).is_some() {
        return read_what_is_there(&dir);
    }
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

/// Opens and reads a store that may be damaged: errors are as good as values, an end by a
/// signal is what the parent looks for.
fn read_what_is_there(dir: &Path) {
    std::panic::set_hook(Box::new(|_| {}));
    let env = Env::system();
    let deadline = env.deadline(Duration::from_secs(20));
    let kv = match FjallEngine::open(dir, 64 << 20, env) {
        Ok(kv) => kv,
        Err(error) => return println!("{error}"),
    };
    let snapshot = kv.snapshot(deadline).unwrap();
    let scan = Scan { range: b"a".to_vec()..b"z".to_vec(), reverse: false, limit: usize::MAX };
    match snapshot.scan(&scan) {
        Ok(entries) => println!("{} entries", entries.len()),
        Err(error) => println!("{error}"),
    }
    let mutations = vec![put("after", "1")];
    match kv.commit_at(Commit { mutations, ..Commit::default() }, deadline) {
        Ok(version) => println!("committed {version}"),
        Err(error) => println!("{error}"),
    }
}

/// Whatever is wrong with the files, the process that opens them lives on.
fn damaged_files_end_no_process(ctx: &Ctx) {
    const SEED: u64 = 4;
    println!("seed {SEED}");
    let kv = ctx.open();
    for n in 0..900 {
        let key = format!("{}{n}", ["c", "p"][n % 2]);
        kv.write(vec![put(&key, &n.to_string().repeat(9000))]);
    }
    kv.close().unwrap();
    drop(kv);
    let mut random = Random::new(SEED);
    let files = files_below(ctx.place.dir());
    for round in 0..rounds() {
        let copy = tempfile::tempdir().unwrap();
        for file in &files {
            let to = copy.path().join(file.strip_prefix(ctx.place.dir()).unwrap());
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(file, to).unwrap();
        }
        let victim = &files[random.below(files.len())];
        let victim = copy.path().join(victim.strip_prefix(ctx.place.dir()).unwrap());
        let what = damage(&mut random, &victim);
        let output = Command::new(std::env::current_exe().unwrap())
            .env(CHILD, copy.path())
            .env(READS, "1")
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let status = output.status;
        assert!(status.code().is_some(), "{round}: {what} of {victim:?}: {status}: {said}");
    }
}

/// More of them on demand: each takes a process.
fn rounds() -> usize {
    std::env::var("INTERLEAF_DAMAGE_ROUNDS").map_or(10, |rounds| rounds.parse().unwrap())
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files.sort();
    files
}

/// Does something bad to a file; says what.
fn damage(random: &mut Random, path: &Path) -> String {
    let mut bytes = std::fs::read(path).unwrap();
    let used = bytes.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
    let at = random.below(used.max(1));
    match random.below(4) {
        0 => {
            std::fs::remove_file(path).unwrap();
            return "removal".into();
        }
        1 => bytes.truncate(at),
        2 => {
            let end = bytes.len().min(at + 1 + random.below(5000));
            bytes[at..end].fill(0);
        }
        _ if used > 0 => bytes[at] ^= 1 << random.below(8),
        _ => {}
    }
    std::fs::write(path, bytes).unwrap();
    format!("damage at {at}")
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
