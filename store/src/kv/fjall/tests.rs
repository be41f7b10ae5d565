use std::io::Write;
use std::time::Duration;

use super::*;
use crate::kv::{Commit, Kv, Mutation};

const MEMORY_BYTES: u64 = 32 << 20;

fn open(dir: &Path) -> Result<FjallEngine> {
    FjallEngine::open(dir, MEMORY_BYTES, Env::system())
}

fn write(engine: &FjallEngine, key: &str, value: &[u8]) -> Version {
    let value = Bytes::copy_from_slice(value);
    let mutations = vec![Mutation::Put { key: key.into(), value }];
    let commit = Commit { mutations, durability: Durability::Buffered, ..Commit::default() };
    engine.commit_at(commit, Env::system().deadline(Duration::from_secs(60))).unwrap()
}

fn value(engine: &FjallEngine, key: &str) -> Option<Bytes> {
    let snapshot = engine.snapshot(Env::system().deadline(Duration::from_secs(60))).unwrap();
    snapshot.get(key.as_bytes()).unwrap()
}

/// The bytes of the newest journal up to its end, and its path.
fn journal(dir: &Path) -> (PathBuf, Vec<u8>) {
    let path = dir.join(FILES).join("0.jnl");
    let mut bytes = std::fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|&b| b != 0).unwrap() + 1;
    bytes.truncate(end);
    (path, bytes)
}

fn find(haystack: &[u8], needle: &[u8]) -> usize {
    haystack.windows(needle.len()).position(|window| window == needle).unwrap()
}

/// A store with three commits of 12,000 bytes, not closed.
fn three_commits(dir: &Path) -> Version {
    let engine = open(dir).unwrap();
    for n in 1..=3u8 {
        write(&engine, &format!("c{n}"), &[n; 12_000]);
    }
    write(&engine, "last", b"1")
}

#[test]
fn a_batch_with_a_hole_is_cut_off_with_all_behind_it() {
    for hole in [1u8, 2, 3] {
        let dir = tempfile::tempdir().unwrap();
        let newest = three_commits(dir.path());
        // A page in the middle of the batch was never written.
        let (path, mut bytes) = journal(dir.path());
        let at = find(&bytes, &[hole; 64]) + 4096;
        bytes[at..at + 4096].fill(0);
        std::fs::write(&path, &bytes).unwrap();
        let engine = open(dir.path()).unwrap();
        assert!(engine.recovered());
        for n in 1..=3u8 {
            let left = value(&engine, &format!("c{n}"));
            assert_eq!(left.is_some(), n < hole, "hole {hole}, commit {n}");
        }
        assert_eq!(value(&engine, "last"), None);
        assert!(write(&engine, "next", b"1") > newest, "K3");
        engine.close().unwrap();
        drop(engine);
        let engine = open(dir.path()).unwrap();
        assert!(!engine.recovered() && value(&engine, "next").is_some());
    }
}

#[test]
fn a_journal_cut_anywhere_opens_with_a_beginning() {
    let dir = tempfile::tempdir().unwrap();
    three_commits(dir.path());
    let (path, bytes) = journal(dir.path());
    let begin = find(&bytes, &[1; 64]);
    for cut in (begin..bytes.len()).step_by(1777) {
        let copy = tempfile::tempdir().unwrap();
        let files = copy.path().join(FILES);
        copy_all(path.parent().unwrap(), &files);
        let mut file = std::fs::File::create(files.join("0.jnl")).unwrap();
        file.write_all(&bytes[..cut]).unwrap();
        drop(file);
        let engine = open(copy.path()).unwrap();
        let left: Vec<bool> = (1..=3).map(|n| value(&engine, &format!("c{n}")).is_some()).collect();
        assert!(left.is_sorted_by(|a, b| a >= b), "cut at {cut}: {left:?}");
        write(&engine, "next", b"1");
        drop(engine);
        assert!(value(&open(copy.path()).unwrap(), "next").is_some(), "cut at {cut}");
    }
}

fn copy_all(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_all(&entry.path(), &to);
        } else if entry.file_name() != "0.jnl" {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_whole_journal_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    three_commits(dir.path());
    let (path, bytes) = journal(dir.path());
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(journal::cut_torn_end(&dir.path().join(FILES)).unwrap(), None);
    assert_eq!(journal(dir.path()).1, bytes);
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(journal::cut_torn_end(empty.path()).unwrap(), None);
}

#[test]
fn damage_where_nothing_may_be_lost_is_refused_and_kept() {
    let dir = tempfile::tempdir().unwrap();
    three_commits(dir.path());
    open(dir.path()).unwrap().close().unwrap();
    let (path, good) = journal(dir.path());
    for at in [0, find(&good, &[2; 64]) + 100, good.len() - 1] {
        let mut bytes = good.clone();
        bytes[at] ^= 0x10;
        std::fs::write(&path, &bytes).unwrap();
        let error = refused(dir.path());
        assert!(matches!(&error, Error::Corrupt { what } if what.contains("0.jnl")), "{error}");
        assert_eq!(journal(dir.path()).1, bytes, "what is left can still be read");
    }
    std::fs::write(&path, &good).unwrap();
    let engine = open(dir.path()).unwrap();
    assert!(!engine.recovered() && value(&engine, "last").is_some());
    drop(engine);
    assert!(!dir.path().join(CLEAN_FILE).exists());

    // A journal that is no longer written to.
    std::fs::copy(&path, path.with_file_name("1.jnl")).unwrap();
    std::fs::write(&path, &good[..good.len() - 1]).unwrap();
    assert!(matches!(refused(dir.path()), Error::Corrupt { .. }));
}

#[test]
fn files_that_vanished_after_a_clean_end_are_damage_and_no_new_store() {
    for vanish in [
        |files: &Path| std::fs::remove_dir_all(files).unwrap(),
        |files: &Path| std::fs::write(files.join("0.jnl"), b"").unwrap(),
    ] {
        let dir = tempfile::tempdir().unwrap();
        three_commits(dir.path());
        open(dir.path()).unwrap().close().unwrap();
        vanish(&dir.path().join(FILES));
        // Each time: the attempt itself leaves files.
        for _ in 0..2 {
            let error = refused(dir.path());
            assert!(matches!(&error, Error::Corrupt { what } if what.contains(FILES)), "{error}");
        }
    }
}

#[test]
fn what_a_killed_creation_leaves_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let files = dir.path().join(FILES);
    std::fs::create_dir_all(files.join("keyspaces")).unwrap();
    std::fs::write(files.join("0.jnl"), b"").unwrap();
    std::fs::write(files.join("lock"), b"").unwrap();
    let engine = open(dir.path()).unwrap();
    assert!(!engine.recovered(), "nothing was ever there");
    write(&engine, "a", b"1");
}

#[test]
fn a_creation_killed_before_its_first_version_is_a_new_store() {
    let dir = tempfile::tempdir().unwrap();
    drop(Database::builder(dir.path().join(FILES)).open().unwrap());
    let engine = open(dir.path()).unwrap();
    assert!(!engine.recovered());
    assert_eq!(write(&engine, "a", b"1"), Version::new(1, 0));
}

fn refused(dir: &Path) -> Error {
    match open(dir) {
        Ok(_) => panic!("must be refused"),
        Err(error) => error,
    }
}

#[test]
fn damaged_files_are_named_errors_and_nothing_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    three_commits(dir.path());
    let files = dir.path().join(FILES);
    let version = files.join("version");
    let good = std::fs::read(&version).unwrap();

    for unknown in [2, 99] {
        std::fs::write(&version, [b'F', b'J', b'L', unknown]).unwrap();
        let error = refused(dir.path());
        let Error::FormatVersion { found, known: 3, .. } = error else { panic!("{error}") };
        assert_eq!(found, u32::from(unknown));
    }
    for bad in [&b"rubbish"[..], b""] {
        std::fs::write(&version, bad).unwrap();
        let error = refused(dir.path());
        assert!(matches!(error, Error::Corrupt { .. }), "{error}");
        assert!(error.to_string().contains(&files.display().to_string()), "{error}");
    }
    std::fs::remove_file(&version).unwrap();
    let error = refused(dir.path());
    assert!(matches!(&error, Error::Corrupt { what } if what.contains("is missing")), "{error}");

    std::fs::write(&version, good).unwrap();
    for (name, directory) in [("keyspaces/no number", true), ("x.jnl", false), ("7.jnl", true)] {
        let path = files.join(name);
        if directory {
            std::fs::create_dir(&path).unwrap();
        } else {
            std::fs::write(&path, b"").unwrap();
        }
        let error = refused(dir.path());
        assert!(matches!(&error, Error::Corrupt { what } if what.contains(name)), "{error}");
        if directory { std::fs::remove_dir(path) } else { std::fs::remove_file(path) }.unwrap();
    }
    assert!(value(&open(dir.path()).unwrap(), "last").is_some());
}

#[test]
fn a_directory_that_cannot_be_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    std::fs::write(&file, b"").unwrap();
    assert!(matches!(refused(&file), Error::Io { what } if what.ends_with("is no directory")));
    assert!(matches!(refused(&file.join("below")), Error::Io { .. }));
}

#[test]
fn a_missing_or_unknown_bound_of_versions_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let newest = three_commits(dir.path());
    let with_engine = |change: &dyn Fn(&Keyspace)| {
        let db = Database::builder(dir.path().join(FILES)).open().unwrap();
        change(&db.keyspace("engine", KeyspaceCreateOptions::default).unwrap());
    };
    with_engine(&|engine| engine.insert(RESERVED, b"\x02").unwrap());
    let error = refused(dir.path());
    assert!(matches!(error, Error::FormatVersion { found: 2, known: 1, .. }), "{error}");
    with_engine(&|engine| engine.insert(RESERVED, b"\x01short").unwrap());
    assert!(matches!(refused(dir.path()), Error::Corrupt { .. }));
    with_engine(&|engine| engine.remove(RESERVED).unwrap());
    assert!(matches!(refused(dir.path()), Error::Corrupt { .. }), "the store is not empty");
    with_engine(&|engine| {
        engine.insert(RESERVED, encode(1000)).unwrap();
        engine.insert(CLEAN, encode(1000)).unwrap();
    });
    assert!(matches!(refused(dir.path()), Error::Corrupt { .. }), "a version beyond the bound");
    with_engine(&|engine| {
        engine.insert(RESERVED, encode(newest.commit() + 1)).unwrap();
        engine.insert(CLEAN, encode(newest.commit())).unwrap();
    });
    let engine = open(dir.path()).unwrap();
    assert_eq!(write(&engine, "a", b"1").commit(), newest.commit() + 1);
}

#[test]
fn disk_bytes_grow_with_the_data_and_not_with_sparse_files() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    let empty = engine.disk_bytes().unwrap();
    assert!(empty < 4 << 20, "{empty}");
    for n in 0..64u8 {
        write(&engine, &format!("c{n}"), &[n; 65_536]);
    }
    assert!(engine.disk_bytes().unwrap() > empty + (3 << 20));
}

/// Enough to write memtables out and journals away, then everything is still there.
#[test]
fn a_store_larger_than_its_buffers_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    let engine = open(dir.path()).unwrap();
    let filler = |n: u32| -> Vec<u8> {
        let byte =
            |at: u32| (at.wrapping_mul(2_654_435_761).wrapping_add(n) >> 13).to_le_bytes()[0];
        (0..20_000).map(byte).collect()
    };
    for n in 0..1500u32 {
        write(&engine, &format!("c{n:05}"), &filler(n));
        write(&engine, &format!("p{n:05}"), &filler(n)[..2000]);
    }
    engine.close().unwrap();
    drop(engine);
    let engine = open(dir.path()).unwrap();
    for n in 0..1500u32 {
        assert_eq!(value(&engine, &format!("c{n:05}")).unwrap(), filler(n));
        assert_eq!(value(&engine, &format!("p{n:05}")).unwrap(), filler(n)[..2000]);
    }
}
