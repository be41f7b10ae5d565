//! Wrong input: exit code 2 and one line that says what is wrong.

use crate::support::Place;

#[test]
fn what_is_no_command_line_is_exit_code_2_and_one_line() {
    let place = Place::new();
    for (args, part) in [
        (&["frobnicate"][..], "frobnicate"),
        (&["import"], "<FILE>"),
        (&["log", "a", "--limit", "x"], "--limit"),
        (&["log", "a", "--commit", "xyz"], "commit id"),
        (&["db", "create", ""], "at least one byte"),
        (&["db", "create", "a\nb"], "control character"),
        (&["db", "create", "app@-15m"], "snapshot"),
        (&["export", "app@", "--json", "x", "y"], "y"),
        (&["--store", "http://x", "db", "list"], "dir:"),
        (&["--store", "dir:", "db", "list"], "path"),
        (&["export", "a", "-", "--json"], "stdout"),
        (&["--store", "tcp://host:70000", "db", "list"], "tcp://host:port"),
        (&["verify"], "--all"),
        (&["verify", "a", "--all"], "--all"),
        (&["demo", "--seconds", "1"], "6"),
        (&["exec"], "CMD"),
    ] {
        place.run(args).failed(2, &[part]);
    }
    assert!(place.names().is_empty(), "nothing was written: {:?}", place.names());
}

#[test]
fn a_missing_subcommand_shows_the_help_as_an_error() {
    let place = Place::new();
    for (args, usage) in [
        (&[][..], "Usage: interleaf [OPTIONS] <COMMAND>"),
        (&["db"], "Usage: interleaf db [OPTIONS] <COMMAND>"),
    ] {
        for with_store in [true, false] {
            let mut command = place.command(args);
            if !with_store {
                command.env_remove("INTERLEAF_STORE");
            }
            let ran = crate::support::Ran::of(command.output().unwrap());
            assert_eq!((ran.code, ran.stdout.as_str()), (2, ""), "{ran:?}");
            assert!(ran.stderr.contains(usage) && ran.stderr.contains("Example"), "{ran:?}");
        }
    }
}

#[test]
fn a_name_beyond_the_limit_names_the_limit() {
    let place = Place::new();
    let long = "n".repeat(256);
    place.run(["db", "create", &long]).failed(2, &["255", "256"]);
    place.ok(["db", "create", &"n".repeat(255)]);
}

#[test]
fn a_name_that_is_not_utf8_is_refused() {
    use std::os::unix::ffi::OsStringExt;
    let place = Place::new();
    let name = std::ffi::OsString::from_vec(vec![b'a', 0xff]);
    let args = ["db".into(), "create".into(), name.clone()];
    place.run(args).failed(2, &["UTF-8"]);
    // As a file it is fine, as a database's name it is not.
    let file = place.sqlite_file("a.db", "CREATE TABLE t(a)");
    let odd = place.path("x").with_file_name(&name);
    std::fs::rename(file, &odd).unwrap();
    place.run([std::ffi::OsStr::new("import"), odd.as_os_str()]).failed(2, &["UTF-8"]);
    place.ok([std::ffi::OsStr::new("import"), odd.as_os_str(), "named".as_ref()]);
}

#[test]
fn a_bad_setting_names_variable_value_and_what_is_allowed() {
    let place = Place::new();
    for (name, value, allowed) in [
        ("INTERLEAF_TIMEOUT_MS", "soon", "milliseconds"),
        ("INTERLEAF_LOG", "loud", "debug"),
        ("INTERLEAF_STORE", "nowhere", "dir:"),
        ("INTERLEAF_DATABASES", "[a-z].db", "no classes"),
    ] {
        let output = place.command(["db", "list"]).env(name, value).output().unwrap();
        crate::support::Ran::of(output).failed(2, &[value, allowed]);
    }
}

#[test]
fn help_shows_an_example_and_is_no_error() {
    let place = Place::new();
    for args in [&["--help"][..], &["import", "--help"], &["db", "drop", "--help"]] {
        let ran = place.run(args);
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""));
        assert!(ran.stdout.contains("Example"), "{}", ran.stdout);
    }
    assert!(place.ok(["--version"]).starts_with("interleaf "));
}

#[test]
fn a_store_that_is_not_there_is_exit_code_1_and_named() {
    let place = Place::new();
    let socket = format!("unix:{}", place.path("none.sock").display());
    place.run(["--store", &socket, "db", "list"]).failed(1, &["none.sock"]);
    place.run(["--store", "tcp://127.0.0.1:1", "db", "list"]).failed(1, &["127.0.0.1:1"]);
    std::fs::write(place.path("file"), "x").unwrap();
    let file = format!("dir:{}", place.path("file").display());
    place.run(["--store", &file, "db", "list"]).failed(1, &["file"]);
}
