//! The default store and its server started on demand.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{program, signal};

/// A home of its own for the default store; its server is killed at the end.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn dir(&self) -> PathBuf {
        self.0.path().join("interleaf")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = program();
        command.args(args).env("XDG_DATA_HOME", self.0.path());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str]) {
        let output = self.command(args).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// The servers of this home's directory, by /proc.
    fn servers(&self) -> Vec<u32> {
        let dir = format!("dir:{}", self.dir().display());
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).replace('\0', " ");
            if line.contains(" serve ") && line.contains(&dir) {
                found.push(pid);
            }
        }
        found
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        for pid in self.servers() {
            signal(pid, Signal::KILL);
        }
    }
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().unwrap().permissions().mode() & 0o777
}

#[test]
fn eight_processes_at_once_get_one_server() {
    let home = Home::new();
    let children: Vec<Child> = (0..8)
        .map(|n| home.command(&["db", "create", &format!("db{n}")]).spawn().unwrap())
        .collect();
    for child in children {
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(home.servers().len(), 1, "{:?}", home.servers());
    let output = home.command(&["db", "list"]).output().unwrap();
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!((0..8).all(|n| listed.contains(&format!("db{n}"))), "{listed}");
    assert_eq!(mode(&home.dir()), 0o700);
    assert_eq!(mode(&home.dir().join("interleaf.sock")), 0o600);
}

#[test]
fn the_server_outlives_its_starter_and_is_started_again_after_a_crash() {
    let home = Home::new();
    home.run(&["db", "create", "app"]);
    let first = home.servers();
    assert_eq!(first.len(), 1);
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", first[0])).unwrap();
    let session = stat.rsplit_once(") ").unwrap().1.split(' ').nth(3).unwrap().to_owned();
    assert_eq!(session, first[0].to_string(), "a session of its own");
    signal(first[0], Signal::KILL);
    home.run(&["db", "info", "app"]);
    let second = home.servers();
    assert!(second.len() == 1 && second != first, "{first:?} {second:?}");
}

#[test]
fn a_client_that_lives_on_starts_the_next_server() {
    use interleaf_store::env::Env;
    use interleaf_wire::client::{Client, ClientOptions, Endpoint, Revive};
    use std::sync::Arc;

    struct Starter(PathBuf, std::sync::atomic::AtomicU32);
    impl Revive for Starter {
        fn revive(&self, _: interleaf_store::env::Deadline) -> interleaf_store::Result<()> {
            self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            let url = format!("dir:{}", self.0.display());
            let args = ["serve", "--store", &url, "--idle-exit=5", "--detach"];
            let output = program().args(args).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        }
    }

    let home = Home::new();
    let starter = Arc::new(Starter(home.dir(), Default::default()));
    let options =
        ClientOptions { revive: Some(Arc::clone(&starter) as _), ..ClientOptions::default() };
    let deadline = || Env::system().deadline(Duration::from_secs(20));
    let endpoints = vec![Endpoint::Unix(home.dir().join("interleaf.sock"))];
    let client = Client::connect(endpoints, options, deadline()).unwrap();
    let backend: &dyn interleaf_store::api::Backend = &client;
    backend.info(deadline()).unwrap();
    signal(home.servers()[0], Signal::KILL);
    backend.info(deadline()).unwrap();
    assert_eq!(starter.1.load(std::sync::atomic::Ordering::SeqCst), 2);
}

#[test]
fn a_server_that_cannot_start_says_why() {
    let home = Home::new();
    std::fs::create_dir_all(home.dir()).unwrap();
    std::fs::write(home.dir().join("fjall"), "no directory").unwrap();
    let output = home.command(&["db", "list"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success());
    assert!(said.contains("serve:") && said.contains("fjall"), "{said}");
}

#[test]
fn without_the_program_the_error_says_what_to_set() {
    let home = Home::new();
    let mut command = home.command(&["db", "list"]);
    let output = command.env("INTERLEAF_BIN", "/nowhere/interleaf").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("/nowhere/interleaf"), "{said}");
}

#[test]
fn autostart_can_be_switched_off() {
    let home = Home::new();
    let mut command = home.command(&["db", "create", "app"]);
    let output = command.env("INTERLEAF_AUTOSTART", "0").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(home.servers().is_empty());
    assert!(!home.dir().join("interleaf.sock").exists());
}
