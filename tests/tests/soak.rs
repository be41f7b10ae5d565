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
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use interleaf_tests::process::Guard;
use interleaf_tests::server::Server;
use interleaf_tests::sql::{self, assert_sound, one};
use interleaf_tests::store::{Kind, TestStore};
use interleaf_tests::transfers::{self, ACCOUNTS, OVERDRAWN, Plan, START, Tally};
use interleaf_tests::worker::{self, Client};
use interleaf_tests::{rng, wait};
use rand::RngExt;
use rand::rngs::StdRng;
use rusqlite::Connection;

const WORKERS: u32 = 16;

/// How much of the time has passed when trouble ends.
const PEACE: f64 = 0.8;

/// In a time of peace as long as this every worker is expected to go on.
const CALM: Duration = Duration::from_secs(10);

/// How long a worker may take to end once its time is up.
const GRACE: Duration = Duration::from_secs(60);

/// How long a store may take to answer again after all trouble.
const RECOVERY: Duration = Duration::from_secs(90);

struct Soak {
    store: TestStore,
    /// The workers take these in turns.
    clients: Vec<Client>,
    rng: StdRng,
    end: Instant,
    workers: Vec<(Guard, u32)>,
    kills: u32,
    /// The server, while it was killed and is not ready again.
    restarting: Option<JoinHandle<Server>>,
}

impl Soak {
    fn log(&self, worker: u32) -> PathBuf {
        self.store.scratch().join(format!("log{worker}"))
    }

    fn spawn(&mut self, worker: u32, incarnation: u32) -> Guard {
        let client = &self.clients[worker as usize % self.clients.len()];
        client.transfer(&Plan {
            uri: &client.uri(&self.store.name("bank")),
            worker,
            incarnation,
            seed: self.rng.random(),
            duration: self.end.saturating_duration_since(Instant::now()),
            log: &self.log(worker),
        })
    }

    fn logs(&self) -> Vec<PathBuf> {
        (0..WORKERS).map(|worker| self.log(worker)).collect()
    }

    /// How many transfers of each worker were acknowledged so far.
    fn acknowledged(&self) -> Vec<usize> {
        self.logs().iter().map(|log| transfers::acknowledged(log)).collect()
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

    /// `kill -9` of the server, and another in its place, ready once its store lets it: the
    /// trouble goes on meanwhile.
    fn kill_server(&mut self) {
        let mut server = self.store.server.take().unwrap();
        server.kill9();
        let pause = Duration::from_millis(self.rng.random_range(0..500));
        self.restarting = Some(std::thread::spawn(move || {
            std::thread::sleep(pause);
            let begun = Instant::now();
            server.restart();
            println!("the server was killed, and ready again in {:?}", begun.elapsed());
            server
        }));
    }

    /// Waits until the server is there and the store answers: whoever was hurt last may take
    /// longer to recover than the time of peace is.
    fn recover(&mut self, reader: &Connection) {
        if let Some(restarting) = self.restarting.take() {
            self.store.server = Some(restarting.join().unwrap());
        }
        wait::until("the store to answer", RECOVERY, || check_sum(reader).then_some(()));
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

/// Runs it on a store with a server. Half of the workers go past the server where they can, or
/// find it by the store's directory. `trouble` is told again and again how much of the time
/// has passed, from 0 to 0.8 and at last that, and may do to the store what it likes.
pub fn soak(store: TestStore, seconds: u64, trouble: &mut dyn FnMut(f64)) {
    let urls = [store.url(), store.direct_url().to_owned()];
    let clients = urls.map(|url| Client { url, ..Client::default() }).to_vec();
    soak_of(store, clients, seconds, trouble);
}

/// As [`soak`], with the workers at the store in these ways, in turns. Gives what became of
/// their transfers.
pub fn soak_of(
    store: TestStore,
    clients: Vec<Client>,
    seconds: u64,
    trouble: &mut dyn FnMut(f64),
) -> Tally {
    let bank = store.open("bank");
    transfers::create(&bank, WORKERS);
    let start = Instant::now();
    let duration = Duration::from_secs(seconds);
    let mut soak = Soak {
        store,
        clients,
        rng: rng::seeded("soak"),
        end: start + duration,
        workers: Vec::new(),
        kills: 0,
        restarting: None,
    };
    soak.start_all();
    let mut server_lives = true;
    let mut sums = 0_u64;
    let mut at_peace = None;
    while Instant::now() < soak.end {
        std::thread::sleep(Duration::from_millis(soak.rng.random_range(50..250)));
        let begun = Instant::now();
        sums += u64::from(check_sum(&bank));
        if begun.elapsed() > Duration::from_secs(2) {
            println!("{:?}: a sum took {:?}", start.elapsed(), begun.elapsed());
        }
        if soak.end.saturating_duration_since(Instant::now()) < duration / 5 {
            // The last fifth is left in peace: killed workers come back in it.
            if at_peace.is_none() {
                trouble(PEACE);
                at_peace = Some(soak.acknowledged());
            }
            continue;
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
    soak.recover(&bank);
    if duration / 5 >= CALM {
        let (before, after) = (at_peace.unwrap_or_default(), soak.acknowledged());
        for (worker, (before, after)) in std::iter::zip(before, after).enumerate() {
            assert!(after > before, "worker {worker} did not go on: {after} transfers");
        }
    }
    report(&mut soak, &bank, sums)
}

fn report(soak: &mut Soak, bank: &Connection, sums: u64) -> Tally {
    let logs = soak.logs();
    for (error, count) in transfers::errors(&logs) {
        println!("{count} x {error}");
    }
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
    tally
}
