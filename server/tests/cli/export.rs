//! export: any version, complete or not at all.

use std::fs;
use std::os::unix::fs::{FileTypeExt, symlink};

use crate::support::{FILL, Place, Ran, count, mkfifo};

#[test]
fn a_file_that_is_there_stays_unless_forced() {
    let place = Place::new();
    place.sqlite_file("a.db", FILL);
    place.ok(["import", "a.db"]);
    fs::write(place.path("there"), "mine").unwrap();
    place.run(["export", "a.db", "there"]).failed(1, &["there", "--force"]);
    assert_eq!(fs::read(place.path("there")).unwrap(), b"mine");
    place.ok(["export", "a.db", "there", "--force"]);
    assert_eq!(count(&place.path("there"), "t"), 2000);
    assert_eq!(place.names(), ["a.db", "there"], "no temporary file stays");
}

#[test]
fn only_a_file_is_replaced_and_a_link_stays() {
    let place = Place::new();
    place.sqlite_file("a.db", FILL);
    place.ok(["import", "a.db"]);
    mkfifo(&place.path("pipe"));
    place.run(["export", "a.db", "pipe", "--force"]).failed(1, &["pipe", "no regular file"]);
    assert!(fs::metadata(place.path("pipe")).unwrap().file_type().is_fifo());

    fs::write(place.path("there"), "mine").unwrap();
    symlink("there", place.path("link")).unwrap();
    place.run(["export", "a.db", "link"]).failed(1, &["link", "--force"]);
    place.ok(["export", "a.db", "link", "--force"]);
    assert_eq!(fs::read_link(place.path("link")).unwrap().to_str(), Some("there"));
    assert_eq!(count(&place.path("there"), "t"), 2000);
    symlink("nowhere", place.path("loose")).unwrap();
    place.run(["export", "a.db", "loose", "--force"]).failed(1, &["loose is a link"]);
}

#[test]
fn a_dash_is_stdout_and_no_file() {
    let place = Place::new();
    place.sqlite_file("a.db", FILL);
    place.ok(["import", "a.db"]);
    place.ok(["export", "a.db", "x.db"]);
    let output = place.command(["export", "a.db", "-"]).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    assert!(output.stdout == fs::read(place.path("x.db")).unwrap());
    assert_eq!(place.names(), ["a.db", "x.db"]);
    // A reader that goes away has no database.
    let mut command = place.command(["export", "a.db", "-"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    Ran::of(command.stdout(writer).output().unwrap()).failed(1, &["stdout"]);
    place.ok(["export", "a.db", "./-"]);
    assert_eq!(count(&place.path("-"), "t"), 2000);
}

#[test]
fn a_journal_or_wal_in_the_way_is_named() {
    let place = Place::new();
    place.sqlite_file("a.db", FILL);
    place.ok(["import", "a.db"]);
    for suffix in ["-wal", "-journal"] {
        let other = place.path(&format!("x.db{suffix}"));
        fs::write(&other, "somebody's").unwrap();
        place.run(["export", "a.db", "x.db", "--force"]).failed(1, &[suffix, "in the way"]);
        fs::remove_file(other).unwrap();
    }
    assert!(!place.path("x.db").exists());
    place.ok(["export", "a.db", "x.db"]);
}

#[test]
fn what_cannot_be_exported_leaves_no_file() {
    let place = Place::new();
    place.sqlite_file("a.db", FILL);
    place.ok(["import", "a.db"]);
    place.run(["export", "nope", "x.db"]).failed(1, &["\"nope\"", "does not exist"]);
    let ran = place.run(["export", "a.db@1999-01-01T00:00:00Z", "x.db"]);
    assert_eq!(ran.code, 1, "{ran:?}");
    place.run(["export", "a.db", "none/x.db"]).failed(1, &["none"]);
    place.run(["export", "a.db", "store"]).failed(1, &["directory"]);
    assert_eq!(place.names(), ["a.db"]);
}

#[test]
fn a_database_without_pages_is_an_empty_file() {
    let place = Place::new();
    place.ok(["db", "create", "a"]);
    place.ok(["export", "a", "x.db"]);
    assert_eq!(fs::metadata(place.path("x.db")).unwrap().len(), 0);
}
