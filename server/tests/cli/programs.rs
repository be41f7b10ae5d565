//! exec and shell: what the started program is given.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use crate::support::{Place, Ran};

/// An executable script.
fn script(place: &Place, name: &str, text: &str) {
    let path = place.path(name);
    fs::write(&path, text).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn exec_gives_the_program_the_library_the_store_and_its_exit_code() {
    let place = Place::new();
    fs::write(place.path("lib.so"), "").unwrap();
    let library = place.path("lib.so").display().to_string();
    let show = "echo \"$1|$LD_PRELOAD|$INTERLEAF_STORE|$INTERLEAF_BIN\"; exit 7";
    let output = place
        .command(["--store", "dir:store", "exec", "--", "sh", "-c", show, "x", "--json"])
        .env("INTERLEAF_PRELOAD", &library)
        .env("LD_PRELOAD", "")
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(7), "the program's own exit code");
    let bin = env!("CARGO_BIN_EXE_interleaf");
    let store = place.store_dir();
    let expected = format!("--json|{library}|dir:{}|{bin}\n", store.display());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn exec_names_what_is_missing() {
    let place = Place::new();
    let run = |library: &str, program: &str| {
        let mut command = place.command(["exec", "--", program]);
        Ran::of(command.env("INTERLEAF_PRELOAD", library).output().unwrap())
    };
    run("/nowhere/lib.so", "true").failed(1, &["INTERLEAF_PRELOAD", "/nowhere/lib.so"]);
    fs::write(place.path("lib.so"), "").unwrap();
    let library = place.path("lib.so").display().to_string();
    run(&library, "no-such-program").failed(1, &["no-such-program"]);
}

#[test]
fn shell_opens_the_name_in_sqlite3_and_passes_the_rest_through() {
    let place = Place::new();
    fs::create_dir(place.path("a bin")).unwrap();
    script(&place, "a bin/sqlite3", "#!/bin/sh\nfor a; do echo \"[$a]\"; done; cat\n");
    fs::write(place.path("a bin/lib.so"), "").unwrap();
    let library = place.path("a bin/lib.so").display().to_string();
    let output = place
        .command(["shell", "/srv/a b.db", "SELECT 1", "--", "-json"])
        .env("PATH", format!("{}:/usr/bin:/bin", place.path("a bin").display()))
        .env("INTERLEAF_EXTENSION", &library)
        .stdin(fs::File::open(place.sqlite_file("in", "")).unwrap())
        .output()
        .unwrap();
    let expected = format!(
        "[-cmd]\n[.load \"{library}\"]\n[-cmd]\n\
         [.open file:/srv/a%20b.db?vfs=interleaf]\n[-json]\n[:memory:]\n[SELECT 1]\n"
    );
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
}

#[test]
fn shell_fails_before_sqlite3_would_go_on_in_memory() {
    let place = Place::new();
    fs::write(place.path("lib.so"), "").unwrap();
    let run = |arguments: &[&str]| {
        let mut command = place.command(arguments);
        Ran::of(command.env("INTERLEAF_EXTENSION", place.path("lib.so")).output().unwrap())
    };
    run(&["shell", "nosuch@-5s", "SELECT 1"]).failed(1, &["nosuch"]);
    run(&["--store", "unix:/gone.sock", "shell", "a", "SELECT 1"]).failed(1, &["/gone.sock"]);
    place.ok(["db", "create", "app.db"]);
    run(&["shell", "app.db@yesterday"]).failed(1, &["no point in time", "mean \"app.db\"?"]);
}

#[test]
fn shell_creates_nothing_under_a_relative_path() {
    let place = Place::new();
    fs::write(place.path("lib.so"), "").unwrap();
    let run = |name: &str| {
        let mut command = place.command(["shell", name, "SELECT 1"]);
        Ran::of(command.env("INTERLEAF_EXTENSION", place.path("lib.so")).output().unwrap())
    };
    let folder = fs::canonicalize(place.path("")).unwrap();
    let full = folder.join("sub/app.db");
    let full = full.to_str().unwrap();
    run("./app.db").failed(1, &["\"./app.db\" does not exist", "/app.db\""]);
    run("../app.db").failed(1, &["\"../app.db\" does not exist"]);
    place.ok(["db", "create", full]);
    run("sub/app.db").failed(1, &["\"sub/app.db\" does not exist", full]);
    let list = place.json(["db", "list", "--json"]);
    assert_eq!(list.as_array().unwrap().len(), 1, "{list}");
}

#[test]
fn shell_says_that_it_created_a_database() {
    let place = Place::new();
    script(&place, "sqlite3", "#!/bin/sh\n");
    fs::write(place.path("lib.so"), "").unwrap();
    let run = |name: &str| {
        let mut command = place.command(["shell", name]);
        command.env("PATH", format!("{}:/usr/bin:/bin", place.path("").display()));
        Ran::of(command.env("INTERLEAF_EXTENSION", place.path("lib.so")).output().unwrap())
    };
    for (name, said) in [
        ("app.db", "interleaf: database \"app.db\" did not exist and was created\n"),
        ("app.db", ""),
        (
            "apq.db",
            "interleaf: database \"apq.db\" did not exist and was created; did you mean \"app.db\"?\n",
        ),
        ("me@home", "interleaf: database \"me@home\" did not exist and was created\n"),
    ] {
        let ran = run(name);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, said));
    }
}

#[test]
fn shell_names_the_package_where_sqlite3_is_missing() {
    let place = Place::new();
    place.ok(["db", "create", "a"]);
    fs::write(place.path("lib.so"), "").unwrap();
    let output = place
        .command(["shell", "a"])
        .env("PATH", place.path("empty"))
        .env("INTERLEAF_EXTENSION", place.path("lib.so"))
        .output()
        .unwrap();
    Ran::of(output).failed(1, &["apt-get install sqlite3"]);
}

#[test]
fn the_demo_without_its_data_says_how_to_get_them() {
    let place = Place::new();
    place.run(["demo", "--dir", "d"]).failed(1, &["d/csv/airlines.csv", "make demo"]);
    assert!(place.names().is_empty(), "{:?}", place.names());
}
