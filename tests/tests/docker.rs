//! The files in `docker/`: checked against the compose specification's schema, and their
//! start-up commands run against local processes, on other ports and paths. No container
//! engine is needed; what only one can show (that the images exist and build) is not shown.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::ffi::OsString;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use interleaf_tests::process::{self, Guard, LIMIT};
use interleaf_tests::store::Kind;
use interleaf_tests::{artefacts, npm, wait, worker};
use libtest_mimic::{Arguments, Failed, Trial};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

/// The services that are processes of the cluster.
const SERVERS: [&str; 3] = ["fdb1", "fdb2", "fdb3"];

fn main() {
    let node = npm::is_there();
    let fdb = Kind::Fdb.is_found();
    if !node {
        println!("skipped: no node or npm");
    }
    if !fdb {
        println!("skipped: no FoundationDB");
    }
    let trials = vec![
        Trial::test("the_files_keep_to_their_formats", || checked().map(drop))
            .with_ignored_flag(!node),
        Trial::test("the_files_agree_with_each_other", || agree(&checked()?))
            .with_ignored_flag(!node),
        Trial::test("the_start_up_commands_work", || start_up(&checked()?))
            .with_ignored_flag(!node || !fdb),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

fn folder() -> PathBuf {
    artefacts::repository().join("docker")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(folder().join(name)).unwrap()
}

/// The compose file, where it keeps to the schema and the linter finds no fault with the
/// Dockerfile.
fn checked() -> Result<Value, Failed> {
    let modules = npm::installed("tests/docker", "docker")?;
    let output = process::run(
        Command::new("node")
            .arg(artefacts::repository().join("tests/docker/check.cjs"))
            .args([folder().join("compose.yaml"), folder().join("Dockerfile")])
            .env("NODE_PATH", modules),
    );
    let (stdout, stderr) = process::text(&output);
    if !output.status.success() {
        return Err(stderr.into());
    }
    Ok(serde_json::from_str(&stdout)?)
}

/// What the schema does not know: which parts of the files mean the same thing.
fn agree(compose: &Value) -> Result<(), Failed> {
    let services = &compose["services"];
    let cluster = read("fdb.cluster");
    let mut addresses = Vec::new();
    for name in SERVERS {
        let address = services[name]["networks"]["cluster"]["ipv4_address"].as_str().unwrap();
        let command = services[name]["command"].as_str().unwrap();
        assert!(command.contains(&format!("--public-address {address}:4500 ")), "{command}");
        assert!(command.contains(&format!("--locality-zoneid {name}")), "{command}");
        assert!(command.contains(&format!("--locality-machineid {name}")), "{command}");
        let volume = services[name]["volumes"][0].as_str().unwrap();
        assert_eq!(volume, format!("{name}:/var/fdb/data"));
        assert!(compose["volumes"].as_object().unwrap().contains_key(name), "volume {name}");
        addresses.push(format!("{address}:4500"));
    }
    assert_eq!(cluster.trim(), format!("interleaf:dev@{}", addresses.join(",")));
    assert_eq!(compose["configs"]["fdb-cluster"]["file"], "fdb.cluster");
    // One release for servers, tools and the client library.
    let image = services["configure"]["image"].as_str().unwrap();
    assert!(image.starts_with("foundationdb/foundationdb:7.3."), "{image}");
    for name in SERVERS {
        assert_eq!(services[name]["image"], image);
    }
    let dockerfile = read("Dockerfile");
    assert!(dockerfile.contains(&format!("FROM {image} AS fdb\n")), "{dockerfile}");
    // What is published to the host is what the server listens at.
    let serve = services["interleaf"]["command"].as_str().unwrap();
    for (port, listens) in [(7480, "--listen tcp://0.0.0.0:7480"), (7481, "--http 0.0.0.0:7481")] {
        assert!(serve.contains(listens), "{serve}");
        let published = format!("127.0.0.1:{port}:{port}");
        let ports = services["interleaf"]["ports"].as_array().unwrap();
        assert!(ports.contains(&published.clone().into()), "{published} in {ports:?}");
    }
    Ok(())
}

/// The commands' world, moved to this machine.
struct Moved {
    temp: TempDir,
    /// What is written in the files, and what stands for it here.
    replaced: Vec<(String, String)>,
}

impl Moved {
    fn new(compose: &Value) -> Self {
        let temp = tempfile::Builder::new().prefix("interleaf-docker-").tempdir().unwrap();
        let mut replaced = Vec::new();
        // All are held until the last is chosen, so that they differ.
        let held: Vec<TcpListener> =
            (0..5).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let local = |at: usize| held[at].local_addr().unwrap().to_string();
        for (at, name) in SERVERS.into_iter().enumerate() {
            let networks = &compose["services"][name]["networks"];
            let address = networks["cluster"]["ipv4_address"].as_str().unwrap();
            replaced.push((format!("{address}:4500"), local(at)));
        }
        // 0.0.0.0 to listen at, 127.0.0.1 to connect to: longer names first.
        for (port, at) in [(7480, 3), (7481, 4)] {
            replaced.push((format!("0.0.0.0:{port}"), local(at)));
            replaced.push((format!("127.0.0.1:{port}"), local(at)));
        }
        let file = temp.path().join("fdb.cluster");
        replaced.push(("/etc/foundationdb/fdb.cluster".into(), file.display().to_string()));
        let moved = Self { temp, replaced };
        std::fs::write(file, moved.text(&read("fdb.cluster"))).unwrap();
        moved
    }

    fn text(&self, text: &str) -> String {
        let replace = |text: String, (from, to): &(String, String)| text.replace(from, to);
        self.replaced.iter().fold(text.to_owned(), replace)
    }

    /// A command of the service `name`, to be run here. Its `$$` is compose's `$`.
    fn command(&self, name: &str, words: &[String]) -> Command {
        let own = self.temp.path().join(name);
        for folder in ["data", "logs"] {
            std::fs::create_dir_all(own.join(folder)).unwrap();
        }
        let local = |word: &String| {
            let word = word.replace("/var/fdb", &own.display().to_string());
            self.text(&word).replace("$$", "$")
        };
        let words: Vec<String> = words.iter().map(local).collect();
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).env("PATH", path()).stdin(Stdio::null());
        command.env_remove("INTERLEAF_STORE");
        command
    }
}

/// Where the programs are, as an image's PATH would have them.
fn path() -> OsString {
    let mut dirs = vec![artefacts::program().parent().unwrap().to_owned()];
    for variable in ["FDB_BIN", "PATH"] {
        dirs.extend(std::env::split_paths(&std::env::var_os(variable).unwrap_or_default()));
    }
    std::env::join_paths(dirs).unwrap()
}

/// Entry point and command of a service, as one list.
fn words(service: &Value, entrypoint: &[&str]) -> Vec<String> {
    let list = |value: &Value| match value {
        Value::String(line) => line.split_whitespace().map(str::to_owned).collect(),
        Value::Array(words) => words.iter().map(|word| word.as_str().unwrap().into()).collect(),
        other => panic!("{other} is no command"),
    };
    let mut words: Vec<String> = match &service["entrypoint"] {
        Value::Null => entrypoint.iter().map(|word| (*word).to_owned()).collect(),
        own => list(own),
    };
    words.extend(list(&service["command"]));
    words
}

fn start_up(compose: &Value) -> Result<(), Failed> {
    let services = &compose["services"];
    let moved = Moved::new(compose);
    let start = |name: &str, entrypoint: &[&str]| {
        let words = words(&services[name], entrypoint);
        Guard::spawn(moved.command(name, &words).stdout(Stdio::null()))
    };
    let mut cluster = SERVERS.map(|name| start(name, &[]));
    // Once to make the database, once more as `up` does it later.
    for _ in 0..2 {
        let words = words(&services["configure"], &[]);
        let output = process::run_within(
            &mut moved.command("configure", &words),
            "",
            Duration::from_secs(150),
        );
        assert!(output.status.success(), "configure: {:?}", process::text(&output));
    }
    let entrypoint = "ENTRYPOINT [\"interleaf\"]\n";
    assert!(read("Dockerfile").contains(entrypoint), "{entrypoint}");
    let mut server = start("interleaf", &["interleaf"]);
    healthy(&moved, &services["interleaf"]["healthcheck"]["test"], &mut server);
    // From the host, by the published port.
    let uri = format!("file:app.db?vfs=interleaf&store={}", moved.text("tcp://127.0.0.1:7480"));
    let made = worker::sql(&uri, &["CREATE TABLE t AS SELECT 7 AS v", "SELECT v FROM t"]);
    assert_eq!(made.last().value(), 7, "{made:?}");
    // And past the server, on the cluster itself, with the prefix of its command.
    let direct = format!("fdb:{}?prefix=dev", moved.temp.path().join("fdb.cluster").display());
    let seen = listed(&direct);
    assert!(seen.contains("app.db"), "{seen}");
    // One process may die: there are two copies.
    cluster[1].kill9();
    let seen = worker::sql(&uri, &["UPDATE t SET v = v + 1", "SELECT v FROM t"]);
    assert_eq!(seen.last().value(), 8, "{seen:?}");
    cluster[1] = start(SERVERS[1], &[]);
    assert!(cluster.iter_mut().all(|server| server.ended().is_none()), "an fdbserver ended");
    server.signal(Signal::TERM);
    assert!(server.wait(LIMIT).success(), "interleaf serve did not stop cleanly");
    Ok(())
}

/// Waits until the health check says yes.
fn healthy(moved: &Moved, test: &Value, server: &mut Guard) {
    let test: Vec<String> =
        test.as_array().unwrap().iter().map(|word| word.as_str().unwrap().into()).collect();
    assert_eq!(test[0], "CMD");
    wait::until("the health check", LIMIT, || {
        assert!(server.ended().is_none(), "interleaf serve ended");
        let output = process::run(&mut moved.command("interleaf", &test[1..]));
        output.status.success().then_some(())
    });
}

/// The names of the databases in a store.
fn listed(store: &str) -> String {
    let list = ["db", "list", "--store", store];
    let output = process::run(Command::new(artefacts::program()).args(list));
    let (stdout, stderr) = process::text(&output);
    assert!(output.status.success(), "{stderr}");
    stdout
}
