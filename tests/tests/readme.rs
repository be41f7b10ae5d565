//! The README's quick starts, run as they are written there.
//!
//! A block is run where a line `<!-- test: KIND -->` stands before it; KIND is `sh`, `python`,
//! `node` or `rust`. Each runs in a directory of its own in which `target/release` is what was
//! built, with a data directory of its own: so the default store and the server that starts on
//! demand are part of it. The first block makes the database that the others use.
//!
//! The Rust block is compiled as the example `readme` of this crate, which must be the same text.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use interleaf_tests::{artefacts, npm, process, server};
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

fn main() {
    let arguments = Arguments::from_args();
    let readme = std::fs::read_to_string(artefacts::repository().join("README.md")).unwrap();
    let blocks = blocks(&readme);
    let mut trials = Vec::new();
    let first = blocks.first().map(|block| block.text.clone()).unwrap_or_default();
    for block in blocks {
        let first = first.clone();
        let missing = block.kind == "node" && !npm::is_there();
        let name = format!("line_{}::{}", block.line, block.kind);
        let trial = Trial::test(name, move || {
            let place = Place::new();
            if block.text != first {
                place.run("sh", &first)?;
            }
            if block.kind == "node" {
                let modules = place.temp.path().join("node_modules");
                std::os::unix::fs::symlink(npm::better_sqlite3()?, modules)?;
            }
            let out = place.run(&block.kind, &block.text)?;
            expect(&block, &out)
        });
        trials.push(trial.with_ignored_flag(missing));
    }
    trials.push(Trial::test("every_client_has_a_tested_block", move || {
        let kinds = ["sh", "python", "node", "rust"];
        let found = self::blocks(&readme);
        let missing: Vec<_> =
            kinds.iter().filter(|kind| !found.iter().any(|b| b.kind == **kind)).collect();
        if missing.is_empty() {
            Ok(())
        } else {
            Err(format!("not in README.md: {missing:?}").into())
        }
    }));
    libtest_mimic::run(&arguments, trials).exit();
}

/// A block of the README that is to be run.
struct Block {
    /// Its language.
    kind: String,
    /// Where it begins, from 1.
    line: usize,
    /// Its lines.
    text: String,
}

fn blocks(readme: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = readme.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(kind) =
            line.strip_prefix("<!-- test: ").and_then(|rest| rest.strip_suffix(" -->"))
        else {
            continue;
        };
        let (_, fence) = lines.next().unwrap();
        assert!(fence.starts_with("```"), "line {}: no block behind the marker", number + 2);
        let text: Vec<&str> =
            lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
        blocks.push(Block {
            kind: kind.to_owned(),
            line: number + 2,
            text: text.join("\n") + "\n",
        });
    }
    blocks
}

/// What a block that shows a result has to print, besides ending well.
fn expect(block: &Block, out: &str) -> Result<(), Failed> {
    let wanted: &[&str] = match block.kind.as_str() {
        "sh" if block.text.contains("CREATE TABLE") => &["2|8"],
        "sh" => &["pear|3", "plum|5"],
        "python" => &["(3,)"],
        "node" => &["{ n: 2 }"],
        "rust" => &["2 orders"],
        _ => &[],
    };
    for line in wanted {
        if !out.lines().any(|l| l.trim() == *line) {
            return Err(format!("no line {line:?} in:\n{out}").into());
        }
    }
    Ok(())
}

/// A fresh directory, and a user without any Interleaf data.
struct Place {
    temp: TempDir,
}

impl Place {
    fn new() -> Self {
        let temp = tempfile::Builder::new().prefix("interleaf-").tempdir().unwrap();
        std::fs::create_dir(temp.path().join("target")).unwrap();
        let release = temp.path().join("target/release");
        std::os::unix::fs::symlink(artefacts::target_dir(), release).unwrap();
        Self { temp }
    }

    fn data(&self) -> PathBuf {
        self.temp.path().join("data")
    }

    fn run(&self, kind: &str, text: &str) -> Result<String, Failed> {
        let mut command = match kind {
            "sh" => with_script("bash", &["-euo", "pipefail", "-c", text]),
            // The system's own: others may have been built without loadable extensions.
            "python" => with_script("/usr/bin/python3", &["-c", text]),
            "node" => with_script("node", &["-e", text]),
            "rust" => {
                same_as_the_example(text)?;
                Command::new(artefacts::artefact("examples/readme"))
            }
            other => return Err(format!("no such kind of block: {other}").into()),
        };
        let output = process::run(
            command
                .current_dir(self.temp.path())
                .env("XDG_DATA_HOME", self.data())
                .env("PATH", path_with_system_first())
                .env_remove("INTERLEAF_STORE"),
        );
        let (stdout, stderr) = process::text(&output);
        if output.status.success() {
            Ok(stdout)
        } else {
            Err(format!("{}\nprinted:\n{stdout}\non stderr:\n{stderr}", output.status).into())
        }
    }
}

impl Drop for Place {
    /// Stops the server that was started on demand, if there is one.
    fn drop(&mut self) {
        let socket = server::socket(&self.data().join("interleaf"));
        let Ok(stream) = UnixStream::connect(socket) else { return };
        let peer = rustix::net::sockopt::socket_peercred(&stream).expect("who serves");
        kill_process(peer.pid, Signal::TERM).expect("the server is ours");
    }
}

fn with_script(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn path_with_system_first() -> String {
    format!("/usr/bin:/bin:{}", std::env::var("PATH").unwrap_or_default())
}

fn same_as_the_example(text: &str) -> Result<(), Failed> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/readme.rs");
    let example = std::fs::read_to_string(path)?;
    if example == text {
        Ok(())
    } else {
        Err("README.md's Rust block and tests/examples/readme.rs differ".into())
    }
}
