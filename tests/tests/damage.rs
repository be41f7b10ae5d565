//! A store that is damaged, or of another format: what is hit says so, by branch, page and
//! version; everything else stays readable.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::PathBuf;

use bytes::Bytes;
use interleaf_store::env::Env;
use interleaf_store::format::keys::Subspace;
use interleaf_store::kv::fjall::FjallEngine;
use interleaf_store::kv::{Commit, Key, Kv, Mutation, Scan};
use interleaf_tests::process::LIMIT;
use interleaf_tests::worker::{self, Answer, Report};
use tempfile::TempDir;

const CORRUPT: i64 = 11;
const CANTOPEN: i64 = 14;

const ROWS: i64 = 20;

/// Row 13, alone on its page, bears this.
const NEEDLE: &[u8] = b"needle in row 13";

struct Damaged {
    temp: TempDir,
}

impl Damaged {
    /// A store with the databases `hit`, whose table `t` has a row a page, and `other`.
    fn new() -> Self {
        let temp = tempfile::Builder::new().prefix("interleaf-").tempdir().unwrap();
        let place = Self { temp };
        let fill = format!(
            "INSERT INTO t WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i+1 FROM n \
             WHERE i<{ROWS}) SELECT i, CASE i WHEN 13 THEN '{}' END, randomblob(3000) FROM n",
            String::from_utf8_lossy(NEEDLE)
        );
        let table = "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, pad BLOB)";
        for name in ["hit", "other"] {
            let report = place.on(name, &[table, if name == "hit" { &fill } else { "SELECT 1" }]);
            assert!(report.answers.iter().all(|a| a.primary_code() == 0), "{report:?}");
        }
        place
    }

    fn dir(&self) -> PathBuf {
        self.temp.path().join("store")
    }

    fn on(&self, name: &str, statements: &[&str]) -> Report {
        let uri = format!("file:{name}?vfs=interleaf&store=dir:{}", self.dir().display());
        worker::sql(&uri, statements)
    }

    /// Changes records of a subspace through the engine: the first that `change` changes.
    fn change(&self, subspace: Subspace, change: impl Fn(&[u8], &mut Vec<u8>) -> bool) {
        let env = Env::system();
        let deadline = env.deadline(LIMIT);
        let engine = FjallEngine::open(&self.dir(), 128 << 20, env).unwrap();
        let (snapshot, found) = {
            let reads = engine.snapshot(deadline).unwrap();
            let scan = Scan { range: subspace.range(), reverse: false, limit: 100_000 };
            let found: Vec<(Key, Vec<u8>)> = reads
                .scan(&scan)
                .unwrap()
                .into_iter()
                .filter_map(|(key, value)| {
                    let mut value = value.to_vec();
                    change(&key, &mut value).then(|| (key.to_vec(), value))
                })
                .collect();
            (reads.version(), found)
        };
        assert_eq!(found.len(), 1, "exactly one record is to be changed");
        let mutations = found
            .into_iter()
            .map(|(key, value)| Mutation::Put { key, value: Bytes::from(value) })
            .collect();
        engine.commit_at(Commit { snapshot, mutations, ..Commit::default() }, deadline).unwrap();
        engine.close().unwrap();
    }

    /// The rows beside the thirteenth, and the other database. A range ends, and begins, at
    /// the row next to it.
    fn the_rest_is_readable(&self) {
        let report = self.on(
            "hit",
            &[
                "SELECT count(*) FROM t WHERE id < 12 AND length(pad) = 3000",
                "SELECT count(*) FROM t WHERE id > 14 AND length(pad) = 3000",
                "UPDATE t SET v = 'written' WHERE id = 2",
                "SELECT v FROM t WHERE id = 2",
            ],
        );
        let rows: Vec<i64> =
            report.answers.iter().take(2).map(|a| a.value().as_i64().unwrap()).collect();
        assert_eq!(rows, [11, ROWS - 14]);
        assert_eq!(report.last().value(), "written");
        let other = self.on("other", &["INSERT INTO t(v) VALUES ('x')", "SELECT v FROM t"]);
        assert_eq!(other.last().value(), "x");
    }
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

fn flip_in_the_middle(bytes: &mut [u8]) {
    let middle = bytes.len() / 2;
    if let Some(byte) = bytes.get_mut(middle) {
        *byte ^= 0x40;
    }
}

const HIT: &[&str] = &["SELECT pad FROM t WHERE id = 13"];

#[test]
fn a_flipped_bit_in_content() {
    let place = Damaged::new();
    place.change(Subspace::Content, |_, value| {
        let hit = contains(value, NEEDLE);
        if hit {
            flip_in_the_middle(value);
        }
        hit
    });
    place.on("hit", HIT).assert_refused(CORRUPT, &["page", "branch", "version"]);
    place.the_rest_is_readable();
}

#[test]
fn content_cut_short() {
    let place = Damaged::new();
    place.change(Subspace::Content, |_, value| {
        let hit = contains(value, NEEDLE);
        if hit {
            value.truncate(value.len() / 3);
        }
        hit
    });
    place.on("hit", HIT).assert_refused(CORRUPT, &["page", "branch", "version"]);
    place.the_rest_is_readable();
}

/// The record that names the content of row 13's page, found by that content's hash.
fn damage_page_record(place: &Damaged, damage: impl Fn(&mut Vec<u8>)) {
    let hash = std::cell::RefCell::new(Vec::new());
    place.change(Subspace::Content, |key, value| {
        let hit = contains(value, NEEDLE);
        if hit {
            hash.replace(key.get(key.len() - 32..).unwrap_or_default().to_vec());
        }
        hit
    });
    let hash = hash.into_inner();
    place.change(Subspace::Pages, |_, value| {
        let hit = value.ends_with(&hash);
        if hit {
            damage(value);
        }
        hit
    });
}

#[test]
fn a_page_record_that_names_no_content() {
    let place = Damaged::new();
    damage_page_record(&place, |value| {
        if let Some(last) = value.last_mut() {
            *last ^= 1;
        }
    });
    place.on("hit", HIT).assert_refused(CORRUPT, &["page", "branch", "version"]);
    place.the_rest_is_readable();
}

#[test]
fn a_page_record_of_an_unknown_format_version() {
    let place = Damaged::new();
    damage_page_record(&place, |value| {
        if let Some(schema) = value.first_mut() {
            *schema = 9;
        }
    });
    let report = place.on("hit", HIT);
    assert!(matches!(report.last(), Answer::Error(..)), "{report:?}");
    report.assert_refused(report.last().primary_code(), &["format version 9"]);
    place.the_rest_is_readable();
}

#[test]
fn a_store_of_an_unknown_format_version() {
    let place = Damaged::new();
    let version = |value: &mut Vec<u8>, number: u8| {
        // The second of two bytes, behind the schema byte and the magic of nine.
        value[1 + 9 + 1] = number;
    };
    place.change(Subspace::Meta, |key, value| {
        let hit = key.ends_with(b"format");
        if hit {
            version(value, 77);
        }
        hit
    });
    place.on("hit", HIT).assert_refused(CANTOPEN, &["format version 77"]);
    place.change(Subspace::Meta, |key, value| {
        let hit = key.ends_with(b"format");
        if hit {
            version(value, 1);
        }
        hit
    });
    let again = place.on("hit", &["SELECT count(*) FROM t"]);
    assert_eq!(again.last().value(), ROWS, "a newer store is left as it was");
}
