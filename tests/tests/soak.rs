//! Sixteen processes on one database through a server: random transfers, random kills of
//! clients, one kill of the server. `INTERLEAF_SOAK_SECONDS` says for how long (6).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use std::path::PathBuf;
use std::time::{Duration, Instant};

use interleaf_tests::process::Guard;
use interleaf_tests::rng;
use interleaf_tests::sql::{self, assert_sound, one};
use interleaf_tests::store::{Kind, TestStore};
use interleaf_tests::transfers::{self, ACCOUNTS, OVERDRAWN, START};
use interleaf_tests::worker;
use rand::RngExt;
use rand::rngs::StdRng;
use rusqlite::Connection;

const WORKERS: u32 = 16;

/// How long a worker may take to end once its time is up.
const GRACE: Duration = Duration::from_secs(60);

struct Soak {
    store: TestStore,
    rng: StdRng,
    end: Instant,
    workers: Vec<(Guard, u32)>,
    kills: u32,
}

impl Soak {
    fn log(&self, worker: u32) -> PathBuf {
        self.store.scratch().join(format!("log{worker}"))
    }

    fn spawn(&mut self, worker: u32, incarnation: u32) -> Guard {
        // Half of them go past the server where they can, or find it by the store's directory.
        let (served, direct) = (self.store.url(), self.store.direct_url());
        let url = if worker.is_multiple_of(2) { served.as_str() } else { direct };
        let uri = format!("file:{}?vfs=interleaf&store={url}", self.store.name("bank"));
        let left = self.end.saturating_duration_since(Instant::now());
        Guard::spawn(
            worker::command()
                .arg("transfer")
                .arg(uri)
                .args([worker.to_string(), incarnation.to_string()])
                .arg(self.rng.random::<u64>().to_string())
                .arg(left.as_millis().to_string())
                .arg(self.log(worker))
                .env("INTERLEAF_LOG", "off"),
        )
    }

    fn start_all(&mut self) {
        for worker in 0..WORKERS {
            let guard = self.spawn(worker, 0);
            self.workers.push((guard, 0));
        }
    }

    /// `kill -9` of a random worker, and another in its place.
    fn kill_one(&mut self) {
        let worker = self.rng.random_range(0..WORKERS);
        let incarnation = {
            let (guard, incarnation) = &mut self.workers[worker as usize];
            assert!(guard.ended().is_none(), "worker {worker} ended by itself");
            guard.kill9();
            *incarnation + 1
        };
        self.workers[worker as usize] = (self.spawn(worker, incarnation), incarnation);
        self.kills += 1;
    }

    fn kill_server(&mut self) {
        let server = self.store.server.as_mut().unwrap();
        server.kill9();
        std::thread::sleep(Duration::from_millis(self.rng.random_range(0..500)));
        server.restart();
    }

    fn finish(&mut self) {
        for (worker, (guard, _)) in self.workers.iter_mut().enumerate() {
            let status = guard.wait(GRACE);
            assert!(status.success(), "worker {worker}: {status}");
        }
    }
}

/// The sum of all balances, wherever it can be read: it must always be the same, and no pair
/// overdrawn.
fn check_sum(reader: &Connection) -> bool {
    match reader.query_row("SELECT sum(balance), count(*) FROM account", [], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?))
    }) {
        Ok(found) => {
            assert_eq!(found, (ACCOUNTS * START, ACCOUNTS));
            let overdrawn = reader.prepare(OVERDRAWN).and_then(|mut select| select.exists([]));
            assert_ne!(overdrawn, Ok(true), "write skew");
            true
        }
        Err(error) => {
            println!("reader: {} {error}", sql::code(&error));
            false
        }
    }
}

#[test]
fn transfers_are_exact_whoever_is_killed() {
    let seconds = std::env::var("INTERLEAF_SOAK_SECONDS")
        .map_or(6, |text| text.parse().expect("INTERLEAF_SOAK_SECONDS is a number"));
    soak(TestStore::new(Kind::Server), seconds, &mut |_| {});
}

/// Runs it on a store with a server. `trouble` is told again and again how much of the time
/// has passed, from 0 to 0.8, and may do to the store what it likes.
pub fn soak(store: TestStore, seconds: u64, trouble: &mut dyn FnMut(f64)) {
    let bank = store.open("bank");
    transfers::create(&bank, WORKERS);
    let start = Instant::now();
    let duration = Duration::from_secs(seconds);
    let mut soak = Soak {
        store,
        rng: rng::seeded("soak"),
        end: start + duration,
        workers: Vec::new(),
        kills: 0,
    };
    soak.start_all();
    let mut server_lives = true;
    let mut sums = 0_u64;
    while Instant::now() < soak.end {
        std::thread::sleep(Duration::from_millis(soak.rng.random_range(50..250)));
        sums += u64::from(check_sum(&bank));
        if soak.end.saturating_duration_since(Instant::now()) < duration / 5 {
            continue; // The last fifth is left in peace: killed workers come back in it.
        }
        trouble(start.elapsed().as_secs_f64() / duration.as_secs_f64());
        if server_lives && start.elapsed() > duration * 2 / 5 {
            soak.kill_server();
            server_lives = false;
        } else if soak.rng.random_bool(0.4) {
            soak.kill_one();
        }
    }
    soak.finish();
    report(&mut soak, &bank, sums);
}

fn report(soak: &mut Soak, bank: &Connection, sums: u64) {
    let logs: Vec<PathBuf> = (0..WORKERS).map(|worker| soak.log(worker)).collect();
    let tally = transfers::judge(bank, &logs);
    println!("{tally:?}, {} workers killed, {sums} sums read", soak.kills);
    assert_sound(bank);
    assert!(tally.acknowledged > 0 && soak.kills > 0 && sums > 0, "nothing happened");
    // And the same once more from the disk, through a server that knows nothing.
    let mut server = soak.store.server.take().unwrap();
    server.kill9();
    server.restart();
    let again = soak.store.name("bank");
    let uri = format!("file:{again}?vfs=interleaf&store={}", server.url());
    let report = worker::sql(&uri, &["SELECT sum(balance) FROM account", "PRAGMA integrity_check"]);
    assert_eq!(report.answers[0].value().as_i64(), Some(ACCOUNTS * START));
    assert_eq!(report.answers[1].value(), "ok");
    assert_eq!(transfers::judge(bank, &logs), tally);
    assert_eq!(one::<i64>(bank, "SELECT count(*) FROM account"), ACCOUNTS);
    assert!(server.stop().success());
}
