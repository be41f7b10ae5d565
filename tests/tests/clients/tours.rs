//! Each client creates, fills, queries, rolls back, vacuums and time-travels a database.

use std::path::Path;
use std::process::Command;

use interleaf_store::url::StoreUrl;
use interleaf_tests::npm;
use interleaf_vfs::config::Config;
use libtest_mimic::Trial;
use rusqlite::{Connection, ErrorCode};

use crate::support::{
    Failure, Outcome, Program, World, contains, extension, preload, same, second_extension, sources,
};
use crate::trial;

/// Python as Debian ships it, with `enable_load_extension`.
const DEBIAN_PYTHON: &str = "/usr/bin/python3";

pub fn trials() -> Vec<Trial> {
    vec![
        trial("extension_exports_its_entry_point_only", &["nm"], extension_exports),
        trial("preload_exports_the_six_functions_only", &["nm"], preload_exports),
        trial("programs_without_sqlite_run_under_preload", &["bash", "ls"], harmless),
        trial("sqlite3_extension", &["sqlite3"], || sqlite3(&Way::Extension)),
        trial("sqlite3_preload", &["sqlite3"], || sqlite3(&Way::Preload)),
        trial("python3_extension", &["python3"], python_extension),
        trial("python3_preload", &["python3"], || python_preload("python3")),
        trial("python3_of_debian_preload", &["python3"], || python_preload(DEBIAN_PYTHON)),
        trial("better_sqlite3_extension", &["node", "npm"], better_sqlite3),
        trial("better_sqlite3_is_untouched_by_preload", &["node", "npm"], better_sqlite3_preload),
        trial("two_copies_of_sqlite_in_one_process", &["python3", "cc"], two_copies),
        trial("rusqlite_rlib", &[], rusqlite_rlib),
    ]
}

/// Names that a shared library defines for others.
fn exports(library: &Path) -> Result<Vec<String>, Failure> {
    let output = Command::new("nm").args(["-D", "--defined-only"]).arg(library).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.lines().filter_map(|line| line.split_whitespace().last()).map(Into::into).collect())
}

fn extension_exports() -> Outcome {
    same(&exports(&extension())?, &vec!["sqlite3_interleaf_init".to_owned()])
}

fn preload_exports() -> Outcome {
    let six = ["exec", "get_table", "open", "open16", "open_v2", "step"];
    same(&exports(&preload())?, &six.map(|name| format!("sqlite3_{name}")).to_vec())
}

/// What inherits LD_PRELOAD and never opens a database is not changed, and leaves no store.
fn harmless() -> Outcome {
    let world = World::new()?;
    let script = "echo one; ls / >/dev/null && (echo two) | cat; exit 7";
    let ran = world.preloaded("bash")?.arg("-c").arg(script).run();
    same(&(ran.code, ran.stdout.as_str(), ran.stderr.as_str()), &(Some(7), "one\ntwo\n", ""))?;
    same(&world.store().exists(), &false)
}

enum Way {
    Extension,
    Preload,
}

/// The sqlite3 program with a database open. `suffix` is `@WHEN` or nothing.
fn sqlite3_on(world: &World, way: &Way, name: &str, sql: &str) -> Result<Program, Failure> {
    Ok(match way {
        Way::Preload => world.preloaded("sqlite3")?.arg("-batch").arg(name).input(sql),
        Way::Extension => {
            let load = format!(".load {}", extension().display());
            let open = format!(".open 'file:{name}?vfs=interleaf'");
            world.program("sqlite3").arg("-batch").input(format!("{load}\n{open}\n{sql}"))
        }
    })
}

fn sqlite3(way: &Way) -> Outcome {
    let world = World::new()?;
    let on = |name: &str, sql: &str| sqlite3_on(&world, way, name, sql);
    let tour = std::fs::read_to_string(sources().join("tour.sql"))?;
    let expected = std::fs::read_to_string(sources().join("tour.expected"))?;
    same(&on("library", &tour)?.succeed()?, &expected)?;

    let version = on("library", "PRAGMA interleaf_version;")?.succeed()?;
    let version = version.trim();
    on("library", "DELETE FROM author WHERE id <= 10; DROP TABLE place;")?.succeed()?;
    let count = "SELECT count(*) FROM author;";
    same(&on("library", count)?.succeed()?, &"39\n".to_owned())?;
    let then = format!("library@{version}");
    same(&on(&then, count)?.succeed()?, &"49\n".to_owned())?;
    same(&on(&then, "SELECT count(*) FROM place;")?.succeed()?, &"1000\n".to_owned())?;
    on(&then, "DELETE FROM author;")?.fail(&["readonly"])?;
    let back = format!("PRAGMA interleaf_at='{version}';{count}PRAGMA interleaf_at='head';{count}");
    let back = on("library", &back)?.succeed()?;
    let counts: Vec<&str> = back.lines().filter(|line| line.len() == 2).collect();
    same(&counts, &vec!["49", "39"])?;

    let load =
        format!(".load {}\nSELECT second_extension_twice(21);", second_extension()?.display());
    same(&on("library", &load)?.succeed()?, &"42\n".to_owned())
}

fn python_extension() -> Outcome {
    let world = World::new()?;
    let tour = world
        .program(DEBIAN_PYTHON)
        .arg(sources().join("tour.py"))
        .arg("extension")
        .arg(extension())
        .arg("library")
        .arg(second_extension()?);
    contains(&tour.succeed()?, "tour complete")
}

fn python_preload(python: &str) -> Outcome {
    let world = World::new()?;
    let tour = world
        .preloaded(python)?
        .arg(sources().join("tour.py"))
        .arg("preload")
        .arg("library")
        .arg(second_extension()?);
    contains(&tour.succeed()?, "tour complete")?;
    same(&std::fs::read_dir(world.dir())?.count(), &0)
}

fn better_sqlite3() -> Outcome {
    let modules = npm::better_sqlite3()?;
    let world = World::new()?;
    let tour = world
        .program("node")
        .env("NODE_PATH", modules)
        .env("INTERLEAF_DEFAULT_VFS", "1")
        .arg(sources().join("node/tour.js"))
        .arg(extension())
        .arg("library")
        .arg(second_extension()?);
    contains(&tour.succeed()?, "tour complete")?;
    same(&std::fs::read_dir(world.dir())?.count(), &0)
}

/// Its SQLite is its own and hidden: the preload library neither reaches nor harms it.
fn better_sqlite3_preload() -> Outcome {
    let modules = npm::better_sqlite3()?;
    let world = World::new()?;
    let script = "const db = new (require('better-sqlite3'))('plain.db');
        db.exec('CREATE TABLE t(a); INSERT INTO t VALUES (1)');
        console.log(db.prepare('SELECT a FROM t').pluck().all())";
    let node = world.preloaded("node")?.env("NODE_PATH", modules).arg("-e").arg(script);
    same(&node.succeed()?, &"[ 1 ]\n".to_owned())?;
    same(&world.dir().join("plain.db").is_file(), &true)
}

/// A call goes on to the copy of SQLite that the caller is linked with.
fn two_copies() -> Outcome {
    let world = World::new()?;
    let python = world
        .preloaded("python3")?
        .arg(sources().join("two_copies.py"))
        .arg(sources().join("second_copy.c"))
        .arg(world.dir());
    contains(&python.succeed()?, "two copies, one database")
}

/// A Rust program with SQLite inside, without any shared library.
fn rusqlite_rlib() -> Outcome {
    let world = World::new()?;
    let config = Config { store: StoreUrl::Directory(world.store()), ..Config::default() };
    interleaf_vfs::register(interleaf_vfs::sqlite_api!(rusqlite::ffi), &config)?;
    let open =
        |parameters: &str| Connection::open(format!("file:library?vfs=interleaf{parameters}"));
    let mut db = open("")?;
    let other = open("")?;
    rust::create_and_fill(&mut db)?;
    rust::roll_back(&mut db, &other)?;
    rust::features(&mut db, &other)?;
    rust::vacuum(&db)?;
    let version: String = db.query_row("PRAGMA interleaf_version", [], |row| row.get(0))?;
    db.execute("DELETE FROM author WHERE id <= 10", [])?;
    let count = |db: &Connection| db.query_row("SELECT count(*) FROM author", [], |row| row.get(0));
    let then = open(&format!("&at={version}"))?;
    same(&(count(&then)?, count(&db)?), &(50, 40))?;
    let written = then.execute("DELETE FROM author", []);
    same(&written.map_err(|e| e.sqlite_error_code()), &Err(Some(ErrorCode::ReadOnly)))?;
    db.pragma_update(None, "interleaf_at", &version)?;
    same(&count(&db)?, &50)?;
    db.pragma_update(None, "interleaf_at", "head")?;
    same(&count(&db)?, &40)?;
    rust::second_extension(&db)
}

/// The parts of the tour in Rust.
mod rust {
    use rusqlite::{Connection, params};

    use crate::support::{Failure, Outcome, same, second_extension as library};

    /// Size of the large blob.
    const BLOB_BYTES: usize = 50 << 20;

    fn one<T: rusqlite::types::FromSql>(db: &Connection, sql: &str) -> Result<T, Failure> {
        Ok(db.query_row(sql, [], |row| row.get(0))?)
    }

    pub fn create_and_fill(db: &mut Connection) -> Outcome {
        let mode: String = one(db, "PRAGMA journal_mode=WAL")?;
        same(&mode.as_str(), &"delete")?;
        db.execute_batch(
            "PRAGMA synchronous=NORMAL; PRAGMA cache_size=-64000; PRAGMA foreign_keys=ON;
             CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT UNIQUE NOT NULL);
             CREATE TABLE book(id INTEGER PRIMARY KEY, title TEXT NOT NULL, data TEXT,
                author INTEGER NOT NULL REFERENCES author(id) ON DELETE CASCADE);
             CREATE TABLE audit(what TEXT);
             CREATE TRIGGER book_added AFTER INSERT ON book
                BEGIN INSERT INTO audit VALUES (new.title); END;",
        )?;
        let transaction = db.transaction()?;
        for author in 0..50 {
            let name = format!("author {author}");
            transaction.execute("INSERT INTO author(name) VALUES (?)", [name])?;
        }
        for book in 0..5000 {
            let sql = "INSERT INTO book(author, title, data) VALUES (?, ?, json_object('n', ?))";
            transaction.execute(sql, params![1 + book % 50, format!("title {book}"), book])?;
        }
        transaction.commit()?;
        same(&one(db, "SELECT count(*) FROM audit")?, &5000)?;
        same(&one(db, "SELECT sum(data ->> '$.n') FROM book")?, &(4999 * 5000 / 2))
    }

    pub fn roll_back(db: &mut Connection, other: &Connection) -> Outcome {
        let transaction = db.transaction()?;
        transaction.execute("DELETE FROM book", [])?;
        same(&one(other, "SELECT count(*) FROM book")?, &5000)?;
        transaction.rollback()?;
        same(&one(db, "SELECT count(*) FROM book")?, &5000)
    }

    pub fn features(db: &mut Connection, other: &Connection) -> Outcome {
        db.execute_batch(
            "CREATE VIRTUAL TABLE search USING fts5(title);
             INSERT INTO search(rowid, title) SELECT id, title FROM book;
             CREATE VIRTUAL TABLE place USING rtree(id, x0, x1);
             INSERT INTO place SELECT id, id, id + 1 FROM book;
             CREATE TABLE large(content BLOB);",
        )?;
        let found = "SELECT count(*) FROM search WHERE search MATCH '\"title 17\"'";
        same(&one(db, found)?, &1)?;
        same(&one(db, "SELECT count(*) FROM place WHERE x0 >= 10 AND x1 <= 20")?, &10)?;
        let blob: Vec<u8> = (0..=250).cycle().take(BLOB_BYTES).collect();
        db.execute("INSERT INTO large VALUES (?)", [&blob])?;
        let read: Vec<u8> = one(other, "SELECT content FROM large")?;
        same(&(read == blob), &true)?;
        db.execute("DELETE FROM large", [])?;
        let dangling = db.execute("INSERT INTO book(author, title) VALUES (999, 'orphan')", []);
        same(&dangling.is_err(), &true)
    }

    pub fn vacuum(db: &Connection) -> Outcome {
        let before: i64 = one(db, "PRAGMA page_count")?;
        db.execute_batch("VACUUM")?;
        let after: i64 = one(db, "PRAGMA page_count")?;
        same(&(after < before / 10), &true)?;
        same(&one::<String>(db, "PRAGMA integrity_check")?, &"ok".to_owned())
    }

    #[expect(unsafe_code, reason = "loads a library of the test's own")]
    pub fn second_extension(db: &Connection) -> Outcome {
        // SAFETY: the library is compiled from this repository.
        unsafe {
            db.load_extension_enable()?;
            db.load_extension(library()?, None::<&str>)?;
        }
        same(&one(db, "SELECT second_extension_twice(21)")?, &42)
    }
}
