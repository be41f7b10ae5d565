//! Which database a program gets for the name it opens, and what it is told where it gets
//! none.

use std::os::unix::ffi::OsStrExt;

use libtest_mimic::Trial;

use crate::support::{Failure, Outcome, Program, World, extension, same, sources};
use crate::trial;

/// Python with `enable_load_extension`.
const LOADING_PYTHON: &str = "/usr/bin/python3";

pub fn trials() -> Vec<Trial> {
    let python: &[&str] = &["python3"];
    vec![
        trial("a_bare_name_is_one_database_everywhere", python, bare_names),
        trial("rules_choose_and_rename", python, rules),
        trial("what_is_not_interleafs_is_untouched", python, untouched),
        trial("open_flags_keep_their_meaning", python, flags),
        trial("a_file_with_data_is_not_shadowed", python, existing_file),
        trial("the_default_vfs_of_the_extension", python, default_vfs),
        trial("bad_variables_are_told", python, bad_variables),
        trial("bad_names_are_told", python, bad_names),
        trial("bad_snapshots_are_told", python, bad_snapshots),
        trial("stores_out_of_reach_are_told", python, out_of_reach),
        trial("a_locked_directory_names_its_holder", python, locked),
    ]
}

/// `probe.py` under the preload library.
fn probe(world: &World, arguments: &[&str]) -> Result<Program, Failure> {
    let python = world.preloaded("python3")?.arg(sources().join("probe.py"));
    Ok(arguments.iter().fold(python, Program::arg))
}

/// `probe.py` with the extension loaded.
fn load(world: &World, arguments: &[&str]) -> Result<Program, Failure> {
    let python = world.program(LOADING_PYTHON).arg(sources().join("probe.py"));
    Ok(arguments.iter().fold(python.arg("--load").arg(extension()), Program::arg))
}

const FILL: &str = "CREATE TABLE t AS SELECT 'in the store' AS v";
const READ: &str = "SELECT v FROM t";
const STORED: &str = "[('in the store',)]\n";

/// Runs it and compares what it printed.
fn prints(program: Program, expected: &str) -> Outcome {
    same(&program.succeed()?, &expected.to_owned())
}

/// Runs it; it must print an error of this name, and all parts of the reason on either
/// stream.
fn tells(program: Program, error: &str, reason: &[&str]) -> Outcome {
    let ran = program.run();
    let told = ran.stdout.lines().any(|line| line.split(' ').next() == Some(error));
    let both = format!("{}{}", ran.stdout, ran.stderr);
    if ran.code == Some(0) && told && reason.iter().all(|part| both.contains(part)) {
        Ok(())
    } else {
        Err(ran.report(&format!("{error} and {reason:?}")))
    }
}

fn bare_names() -> Outcome {
    let world = World::new()?;
    let sub = world.dir().join("sub");
    std::fs::create_dir(&sub)?;
    prints(probe(&world, &["app.db", FILL])?, "[]\n")?;
    prints(probe(&world, &["app.db", READ])?.dir(&sub), STORED)?;
    prints(probe(&world, &["file:app.db?vfs=interleaf", READ])?, STORED)?;
    // With a slash it is a path.
    tells(probe(&world, &["./app.db", READ])?, "SQLITE_ERROR", &["no such table"])?;
    prints(probe(&world, &["./app.db", "CREATE TABLE t AS SELECT 'path' AS v"])?, "[]\n")?;
    prints(probe(&world, &["../app.db", READ])?.dir(&sub), "[('path',)]\n")?;
    let absolute = world.dir().join("app.db");
    let absolute = absolute.to_str().ok_or("no UTF-8")?;
    prints(probe(&world, &[&format!("file:{absolute}?vfs=interleaf"), READ])?, "[('path',)]\n")?;
    // Nothing of it is on the disk.
    same(&std::fs::read_dir(world.dir())?.count(), &1)
}

fn rules() -> Outcome {
    let world = World::new()?;
    let rules = format!("{}/shared/*=common, *.db", world.dir().display());
    let on = |arguments: &[&str]| {
        Ok::<_, Failure>(probe(&world, arguments)?.env("INTERLEAF_DATABASES", &rules))
    };
    prints(on(&["shared/a.sqlite", FILL])?, "[]\n")?;
    prints(on(&["shared/b", READ])?, STORED)?;
    prints(on(&["file:common?vfs=interleaf", READ])?, STORED)?;
    prints(on(&["x.db", FILL, READ])?, &format!("[]\n{STORED}"))?;
    same(&std::fs::read_dir(world.dir())?.count(), &0)?;
    // All others are files, as ever.
    prints(
        on(&["plain.sqlite", "PRAGMA journal_mode=WAL", FILL, READ])?,
        &format!("[('wal',)]\n[]\n{STORED}"),
    )?;
    same(&world.dir().join("plain.sqlite").is_file(), &true)?;
    // Both kinds in one connection.
    let attach = "ATTACH 'x.db' AS other";
    let join = "SELECT t.v = o.v FROM main.t, other.t AS o";
    prints(on(&["plain.sqlite", attach, join])?, "[]\n[(1,)]\n")?;
    let attach = "ATTACH 'plain.sqlite' AS other";
    prints(on(&["x.db", attach, join])?, "[]\n[(1,)]\n")?;
    // A name that no rule takes stays SQLite's although its full path would match one.
    let rules = format!("{}/*", world.dir().display());
    let bare = probe(&world, &["bare.sqlite", FILL])?.env("INTERLEAF_DATABASES", rules);
    prints(bare, "[]\n")?;
    same(&world.dir().join("bare.sqlite").is_file(), &true)
}

fn untouched() -> Outcome {
    let world = World::new()?;
    for name in [":memory:", "", "file::memory:?cache=shared", "file:x?mode=memory"] {
        prints(
            probe(&world, &[name, "CREATE TEMP TABLE s(a)", FILL, READ])?,
            &format!("[]\n[]\n{STORED}"),
        )?;
    }
    prints(probe(&world, &["file:explicit.db?vfs=unix", FILL])?, "[]\n")?;
    same(&world.dir().join("explicit.db").is_file(), &true)?;
    same(&world.store().exists(), &false)
}

fn flags() -> Outcome {
    let world = World::new()?;
    for mode in ["ro", "rw"] {
        let name = format!("file:missing.db?mode={mode}");
        tells(probe(&world, &[&name, READ])?, "SQLITE_CANTOPEN", &["missing.db"])?;
    }
    prints(probe(&world, &["file:app.db?mode=rwc", FILL])?, "[]\n")?;
    let write = "DELETE FROM t";
    tells(probe(&world, &["file:app.db?mode=ro", READ, write])?, "SQLITE_READONLY", &[])?;
    prints(probe(&world, &["file:app.db?mode=rw", READ])?, STORED)
}

fn existing_file() -> Outcome {
    let world = World::new()?;
    let file = world.dir().join("app.db");
    let plain = world.program("python3").arg(sources().join("probe.py"));
    prints(plain.arg("app.db").arg("CREATE TABLE t AS SELECT 'on disk' AS v"), "[]\n")?;
    let bytes = std::fs::read(&file)?;
    for name in ["app.db", "./app.db", "file:app.db?mode=ro"] {
        tells(probe(&world, &[name, READ])?, "SQLITE_CANTOPEN", &["interleaf import", "app.db"])?;
    }
    same(&(std::fs::read(&file)? == bytes), &true)?;
    // Whoever asks for Interleaf by its name means the store.
    prints(probe(&world, &["file:app.db?vfs=interleaf", FILL])?, "[]\n")?;
    // Now there is a database of that name.
    prints(probe(&world, &["app.db", READ])?, STORED)?;
    std::fs::write(world.dir().join("empty.db"), b"")?;
    prints(probe(&world, &["empty.db", FILL])?, "[]\n")
}

fn default_vfs() -> Outcome {
    let world = World::new()?;
    let on = |arguments: &[&str]| {
        Ok::<_, Failure>(load(&world, arguments)?.env("INTERLEAF_DEFAULT_VFS", "1"))
    };
    prints(on(&["app.db", FILL])?, "[]\n")?;
    prints(load(&world, &["file:app.db?vfs=interleaf", READ])?, STORED)?;
    prints(on(&["./app.db", "SELECT count(*) FROM sqlite_schema"])?, "[(0,)]\n")?;
    same(&std::fs::read_dir(world.dir())?.count(), &0)?;
    std::fs::write(world.dir().join("there.db"), b"something")?;
    tells(on(&["there.db", READ])?, "SQLITE_CANTOPEN", &["interleaf import"])?;
    // Without the variable the extension takes no name for itself.
    prints(load(&world, &["file.db", FILL])?, "[]\n")?;
    same(&world.dir().join("file.db").is_file(), &true)
}

fn bad_variables() -> Outcome {
    let world = World::new()?;
    for (variable, value, allowed) in [
        ("INTERLEAF_TIMEOUT_MS", "soon", "milliseconds"),
        ("INTERLEAF_STORE", "ftp://x", "tcp://"),
        ("INTERLEAF_LOG", "loud", "warn"),
        ("INTERLEAF_DATABASES", "a,,b", "globs"),
    ] {
        let reason = &[variable, value, allowed];
        // A bad URL's own message names no variable.
        let reason = if variable == "INTERLEAF_STORE" { &reason[1..] } else { reason };
        tells(probe(&world, &["app.db", FILL])?.env(variable, value), "SQLITE_ERROR", reason)?;
        let loaded = load(&world, &["file:app.db?vfs=interleaf", FILL])?;
        tells(loaded.env(variable, value), "SQLITE_ERROR", reason)?;
    }
    same(&world.dir().join("app.db").exists(), &false)
}

fn bad_names() -> Outcome {
    let world = World::new()?;
    let long = "x".repeat(256);
    tells(probe(&world, &[&long, READ])?, "SQLITE_CANTOPEN", &["255"])?;
    let uri = format!("file:{long}?vfs=interleaf");
    tells(load(&world, &[&uri, READ])?, "SQLITE_CANTOPEN", &["255"])?;
    prints(probe(&world, &[&long[..255], FILL])?, "[]\n")?;
    let bad = std::ffi::OsStr::from_bytes(b"caf\xe9.db");
    let python = world.preloaded("python3")?.arg(sources().join("probe.py"));
    tells(python.arg(bad).arg(READ), "SQLITE_CANTOPEN", &["UTF-8"])?;
    tells(load(&world, &["file:caf%e9.db?vfs=interleaf", READ])?, "SQLITE_CANTOPEN", &["UTF-8"])?;
    same(&world.dir().join(bad).exists(), &false)
}

fn bad_snapshots() -> Outcome {
    let world = World::new()?;
    prints(probe(&world, &["app.db", FILL])?, "[]\n")?;
    let never = "ffffffffffffffff0000";
    for when in [never, "2001-01-01T00:00:00Z", "pin:nobody", "-7d"] {
        let name = format!("app.db@{when}");
        tells(probe(&world, &[&name, READ])?, "SQLITE_CANTOPEN", &[])?;
        let name = format!("file:app.db?vfs=interleaf&at={when}");
        tells(load(&world, &[&name, READ])?, "SQLITE_CANTOPEN", &[])?;
    }
    tells(
        load(&world, &["file:app.db?vfs=interleaf&at=yesterday", READ])?,
        "SQLITE_CANTOPEN",
        &["yesterday", "RFC 3339"],
    )?;
    tells(probe(&world, &["nobody.db@-1s", READ])?, "SQLITE_CANTOPEN", &["nobody.db"])?;
    prints(probe(&world, &["app.db", READ])?, STORED)
}

fn out_of_reach() -> Outcome {
    let world = World::new()?;
    let file = world.dir().join("file");
    std::fs::write(&file, b"no directory")?;
    let nobody = world.dir().join("nobody.sock");
    drop(std::os::unix::net::UnixListener::bind(&nobody)?);
    let long = format!("unix:/{}", "x".repeat(200));
    for (url, error, reason) in [
        (format!("dir:{}/store", file.display()), "SQLITE_CANTOPEN", "file"),
        (
            format!("unix:{}", world.dir().join("missing.sock").display()),
            "SQLITE_CANTOPEN",
            "missing.sock",
        ),
        (format!("unix:{}", nobody.display()), "SQLITE_CANTOPEN", "nobody.sock"),
        ("tcp://127.0.0.1:1".to_owned(), "SQLITE_CANTOPEN", "127.0.0.1:1"),
        (long, "SQLITE_ERROR", "107"),
    ] {
        let open = probe(&world, &["app.db", READ])?;
        let open = open.env("INTERLEAF_STORE", &url).env("INTERLEAF_TIMEOUT_MS", "1000");
        tells(open, error, &[reason])?;
    }
    Ok(())
}

/// A directory that another process holds without a server.
fn locked() -> Outcome {
    use std::io::{BufRead, BufReader, Write};
    use std::process::Stdio;

    let world = World::new()?;
    let mut holder = probe(&world, &["--hold", "app.db", FILL])?.command();
    let mut holder = holder.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(holder.stdout.take().ok_or("no stdout")?).lines();
    let ready = lines.by_ref().map_while(Result::ok).any(|line| line == "holding");
    let id = holder.id().to_string();
    let seen = if ready {
        let second = probe(&world, &["app.db", READ])?.env("INTERLEAF_TIMEOUT_MS", "1000");
        tells(second, "SQLITE_CANTOPEN", &[&id, "interleaf serve"])
    } else {
        Err("the holder never opened its database".into())
    };
    drop(holder.stdin.take().map(|mut stdin| stdin.flush()));
    holder.wait()?;
    seen?;
    prints(probe(&world, &["app.db", READ])?, STORED)
}
