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
fn what_the_catalog_commands_did_is_printed_as_json() {
    let place = Place::new();
    let created = place.json(["db", "create", "a", "--json"]);
    assert_eq!(created["created"], "a");
    assert_eq!(created["branch"], place.json(["db", "info", "a", "--json"])["branch"]);
    let renamed = place.json(["db", "rename", "a", "b", "--json"]);
    assert_eq!(renamed, serde_json::json!({ "renamed": "a", "to": "b" }));
    let dropped = place.json(["db", "drop", "b", "--yes", "--json"]);
    assert_eq!(dropped, serde_json::json!({ "dropped": "b" }));
    assert_eq!(place.json(["db", "list", "--json"]), serde_json::json!([]));
}

#[test]
fn a_slip_in_a_name_or_a_time_is_answered_with_what_may_be_meant() {
    let place = Place::new();
    place.ok(["db", "create", "orders.db"]);
    place.ok(["db", "create", "/srv/shop/orders.db"]);
    let near = "did you mean \"orders.db\"?";
    for args in [
        &["export", "order.db", "x"][..],
        &["verify", "odrers.db"],
        &["log", "orders.bd"],
        &["db", "info", "oders.db"],
        &["db", "rename", "orderz.db", "x"],
        &["db", "drop", "orders.d", "--yes"],
    ] {
        place.run(args).failed(1, &["does not exist", near]);
    }
    place.run(["verify", "./orders.db"]).failed(1, &["\"/srv/shop/orders.db\" or \"orders.db\""]);
    place.run(["log", "invoices"]).failed(1, &["database \"invoices\" does not exist"]);
    let slip = ["\"yesterday\" is no point in time: 20 hex digits, an RFC 3339 time", near];
    place.run(["log", "orders.db@yesterday"]).failed(1, &slip);
    let future = place.run(["export", "orders.db@2999-01-01T00:00:00Z", "x"]);
    future.failed(1, &["2999-01-01T00:00:00Z", "in the future: the store's clock says 2"]);
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
    let table = place.ok(["log", "a.db"]);
    assert!(table.contains("COMMIT") && table.contains(&id[..12]), "{table}");
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
    let url = format!("dir:{}", place.store_dir().display());
    assert_eq!((&status["url"], &status["default"]), (&url.into(), &false.into()));
    let text = place.ok(["status"]);
    assert!(text.contains("fjall") && text.contains("a.db") && !text.contains("SUBSPACE"));
    assert!(place.ok(["status", "--records"]).contains("SUBSPACE"));
}

#[test]
fn status_names_the_directory_of_the_default_store() {
    let place = Place::new();
    let run = |args: &[&str], data: &std::path::Path| {
        let mut command = place.command(args);
        command.env_remove("INTERLEAF_STORE").env("INTERLEAF_AUTOSTART", "0");
        crate::support::Ran::of(command.env("XDG_DATA_HOME", data).output().unwrap())
    };
    let data = place.path("data");
    let url = format!("dir:{}", data.join("interleaf").display());
    let ran = run(&["status"], &data);
    assert!(ran.stdout.contains(&format!("{url} (the default store)")), "{ran:?}");
    let ran = run(&["status", "--json"], &data);
    let status: serde_json::Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&status["url"], &status["default"]), (&url.into(), &true.into()));
    run(&["status"], "data".as_ref()).failed(2, &["XDG_DATA_HOME", "\"data\"", "absolute"]);
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
