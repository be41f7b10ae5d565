//! db, log, status.

use crate::support::{FILL, Place};

#[test]
fn databases_are_created_listed_described_renamed_and_dropped() {
    let place = Place::new();
    assert_eq!(place.json(["db", "list", "--json"]), serde_json::json!([]));
    place.ok(["db", "create", "b"]);
    place.ok(["db", "create", "/srv/a ü.db"]);
    place.run(["db", "create", "b"]).failed(1, &["\"b\"", "exists already"]);
    let table = place.ok(["db", "list"]);
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines.len(), 3, "{table}");
    assert!(lines[0].starts_with("NAME") && lines[1].starts_with("/srv/a ü.db"), "{table}");
    assert_eq!(lines[0].find("STATE"), lines[2].find("ready"), "columns line up:\n{table}");

    place.ok(["db", "rename", "b", "c"]);
    place.run(["db", "info", "b"]).failed(1, &["\"b\"", "does not exist"]);
    place.run(["db", "rename", "b", "d"]).failed(1, &["\"b\"", "does not exist"]);
    place.run(["db", "rename", "c", "/srv/a ü.db"]).failed(1, &["exists already"]);
    let info = place.json(["db", "info", "c", "--json"]);
    assert_eq!((&info["name"], &info["pages"]), (&"c".into(), &0.into()));
    assert!(place.ok(["db", "info", "c"]).contains("4096 bytes"));

    place.run(["db", "drop", "c"]).failed(2, &["--yes"]);
    assert_eq!(place.json(["db", "list", "--json"]).as_array().unwrap().len(), 2);
    place.ok(["db", "drop", "c", "--yes"]);
    place.run(["db", "drop", "c", "--yes"]).failed(1, &["\"c\"", "does not exist"]);
    assert_eq!(place.json(["db", "list", "--json"]).as_array().unwrap().len(), 1);
}

#[test]
fn the_log_has_an_import_and_finds_it_by_its_commit_id() {
    let place = Place::new();
    place.sqlite_file("a.db", FILL);
    let imported = place.json(["import", "a.db", "--json"]);
    let log = place.json(["log", "a.db", "--json"]);
    let entry = &log.as_array().unwrap()[0];
    assert_eq!(entry["version"], imported["version"]);
    assert_eq!(entry["pages"], imported["pages"]);
    assert_eq!(entry["client"], "interleaf import");
    assert!(entry["time"].as_str().unwrap().ends_with('Z'));

    let id = entry["commit"].as_str().unwrap();
    let found = place.ok(["log", "a.db", "--commit", id]);
    assert!(found.contains("took effect") && found.contains("interleaf import"), "{found}");
    let unknown = "0".repeat(32);
    let ran = place.run(["log", "a.db", "--commit", &unknown]);
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stdout.contains("did not take effect"), "{ran:?}");
    place.ok(["db", "create", "other"]);
    let elsewhere = place.ok(["log", "other", "--commit", id]);
    assert!(elsewhere.contains("not in other"), "{elsewhere}");

    assert_eq!(place.json(["log", "a.db", "--limit", "0", "--json"]), serde_json::json!([]));
    place.run(["log", "nope"]).failed(1, &["\"nope\"", "does not exist"]);
    let future = "ffffffffffffffffffff";
    place.run(["log", &format!("a.db@{future}")]).failed(1, &[future]);
}

#[test]
fn status_tells_of_the_store_its_databases_and_records() {
    let place = Place::new();
    place.sqlite_file("a.db", FILL);
    let pages = place.json(["import", "a.db", "--json"])["pages"].as_u64().unwrap();
    let status = place.json(["status", "--records", "--json"]);
    assert_eq!(status["engine"], "fjall");
    assert_eq!(status["databases"][0]["name"], "a.db");
    assert_eq!(status["store"].as_str().unwrap().len(), 32);
    let records = status["records"].as_object().unwrap();
    let most = records.values().filter_map(|of| of["records"].as_u64()).max().unwrap();
    assert!(most >= pages, "a record a page: {records:?}");
    let text = place.ok(["status"]);
    assert!(text.contains("fjall") && text.contains("a.db") && !text.contains("SUBSPACE"));
    assert!(place.ok(["status", "--records"]).contains("SUBSPACE"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::new();
    place.ok(["db", "create", "a"]);
    let mut command = place.command(["db", "list"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = command.stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
