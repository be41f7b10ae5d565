//! Many nodes on one FoundationDB cluster: network namespaces with addresses of their own, and
//! a load during which the cluster is hurt in every way that one machine can do. Ignored where
//! FoundationDB is not found, or where there can be no namespaces and the test needs them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

#[allow(dead_code, unused_imports, reason = "used in the program of that name")]
mod soak;

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use interleaf_tests::fdb::{Cluster, Place, Shape, Tools};
use interleaf_tests::network::{self, Network};
use interleaf_tests::process::{Guard, LIMIT};
use interleaf_tests::server::{Server, Setup};
use interleaf_tests::store::TestStore;
use interleaf_tests::transfers::{self, Plan};
use interleaf_tests::worker::{Client, Talk};
use interleaf_tests::{rng, sql};
use libtest_mimic::{Arguments, Trial};
use rand::RngExt;

/// Where servers listen, each at its node's address.
const PORT: u16 = 7480;

/// The longest that one call of SQLite may take: the deadline of 10 s and the busy timeout of
/// 5 s, and as much again for a machine that has other things to do.
const LONGEST: Duration = Duration::from_secs(30);

/// Settings by which FoundationDB's client library fails at random, as it reads them itself:
/// a tenth of all commits before they are sent, a tenth of those that are made ("unknown"), and
/// one in a hundred reads.
const BUGGIFY: [(&str, &str); 3] = [
    ("FDB_NETWORK_OPTION_CLIENT_BUGGIFY_ENABLE", ""),
    ("FDB_NETWORK_OPTION_CLIENT_BUGGIFY_SECTION_ACTIVATED_PROBABILITY", "100"),
    ("FDB_NETWORK_OPTION_CLIENT_BUGGIFY_SECTION_FIRED_PROBABILITY", "10"),
];

fn main() {
    let fdb = Tools::find();
    let network = Network::new(1);
    for why in [fdb.as_ref().err(), network.as_ref().err()].into_iter().flatten() {
        println!("skipped: {why}");
    }
    let trials = vec![
        Trial::test("writers_on_two_nodes", || {
            writers_on_two_nodes();
            Ok(())
        })
        .with_ignored_flag(fdb.is_err() || network.is_err()),
        Trial::test("soak_while_the_cluster_is_hurt", || {
            soak_while_the_cluster_is_hurt();
            Ok(())
        })
        .with_ignored_flag(fdb.is_err()),
    ];
    drop(network);
    libtest_mimic::run(&Arguments::from_args(), trials).exit();
}

/// A cluster, and nodes of which some have a server.
struct World {
    // Dropped in this order: a cluster's processes stand in the network.
    store: Option<TestStore>,
    other: Server,
    cluster: Cluster,
    network: Option<Network>,
    /// The store, past the servers.
    direct: String,
    env: Vec<(String, String)>,
}

impl World {
    /// A cluster whose processes are spread over the nodes from the first on, and a server on
    /// each of the `serving` nodes. Without a network all is on the loopback interface.
    fn new(
        network: Option<Network>,
        shape: Shape,
        serving: [usize; 2],
        env: &[(&str, &str)],
    ) -> Self {
        let processes = if shape == Shape::Single { 1 } else { 3 };
        let place = |node| match &network {
            Some(network) => Place { address: network::address(node), enter: network.enter(node) },
            None => Place { address: IpAddr::V4(Ipv4Addr::LOCALHOST), enter: Vec::new() },
        };
        let places: Vec<Place> = (0..processes).map(place).collect();
        let cluster = Cluster::start_at(&Tools::find().unwrap(), shape, &places).unwrap();
        let direct = format!("fdb:{}?prefix=nodes", cluster.file().display());
        let env: Vec<(String, String)> =
            env.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let server = |node: usize, folder: &Path| {
            Server::set_up(Setup {
                store: direct.clone(),
                socket: folder.join(format!("node{node}.sock")),
                listen: network.iter().map(|_| tcp(node)).collect(),
                enter: network.as_ref().map(|network| network.enter(node)).unwrap_or_default(),
                env: env.clone(),
            })
        };
        let mut other = None;
        let store = TestStore::behind(&direct, |folder| {
            other = Some(server(serving[1], folder));
            server(serving[0], folder)
        });
        let other = other.unwrap();
        Self { store: Some(store), other, cluster, network, direct, env }
    }

    fn client(&self, node: usize, url: &str) -> Client {
        let enter = self.network.as_ref().map(|network| network.enter(node)).unwrap_or_default();
        Client { url: url.to_owned(), enter, env: self.env.clone() }
    }
}

/// The URL of a node's server.
fn tcp(node: usize) -> String {
    format!("tcp://{}:{PORT}", network::address(node))
}

/// The cluster is on the first node; the two others write, past their servers and through
/// them, and through one that is on the other node.
fn writers_on_two_nodes() {
    const WRITING: Duration = Duration::from_secs(8);
    let network = Network::new(3).unwrap();
    let mut world = World::new(Some(network), Shape::Single, [1, 2], &[]);
    let store = world.store.take().unwrap();
    let bank = store.open("bank");
    let clients = [
        world.client(1, &world.direct),
        world.client(2, &world.direct),
        world.client(1, &tcp(1)),
        world.client(2, &tcp(2)),
        world.client(1, &format!("{},{}:{PORT}", tcp(2), network::address(1))),
        world.client(2, &format!("{},{}:{PORT}", tcp(1), network::address(2))),
    ];
    transfers::create(&bank, u32::try_from(clients.len()).unwrap());
    let mut rng = rng::seeded("nodes");
    let log = |worker: usize| store.scratch().join(format!("log{worker}"));
    let mut workers: Vec<Guard> = Vec::new();
    for (worker, client) in clients.iter().enumerate() {
        workers.push(client.transfer(&Plan {
            uri: &client.uri(&store.name("bank")),
            worker: worker.try_into().unwrap(),
            incarnation: 0,
            seed: rng.random(),
            duration: WRITING,
            log: &log(worker),
        }));
    }
    for worker in &mut workers {
        assert!(worker.wait(WRITING + LIMIT).success());
    }
    let logs: Vec<PathBuf> = (0..clients.len()).map(log).collect();
    let tally = transfers::judge(&bank, &logs);
    println!("{tally:?}");
    for (log, client) in std::iter::zip(&logs, &clients) {
        assert!(transfers::acknowledged(log) > 0, "{client:?} did nothing");
    }
    assert_eq!(tally.errors, 0, "{:?}", transfers::errors(&logs));
    sql::assert_sound(&bank);
    each_sees_what_another_was_told(&clients, &store.name("strict"));
}

/// One writes, and as soon as it has its answer all others read.
fn each_sees_what_another_was_told(clients: &[Client], name: &str) {
    let mut talks: Vec<Talk> =
        clients.iter().map(|client| Talk::open(&client.enter, &client.uri(name))).collect();
    talks[0].ask("CREATE TABLE t AS SELECT 0 AS v");
    for round in 1..=60_usize {
        let writer = round % talks.len();
        let written = talks[writer].ask("UPDATE t SET v = v + 1 RETURNING v");
        assert_eq!(*written.value(), round, "written by {:?}", clients[writer]);
        for (talk, client) in std::iter::zip(&mut talks, clients) {
            let seen = talk.ask("SELECT v FROM t");
            assert_eq!(*seen.value(), round, "read by {client:?}");
        }
    }
    talks.into_iter().for_each(Talk::end);
}

/// What is done to the cluster.
#[derive(Clone, Copy, Debug)]
enum Harm {
    /// `kill -9` of one fdbserver.
    Kill(usize),
    /// `kill -9` of all.
    KillAll,
    /// The dead ones start again.
    Restart,
    /// All are stopped for a while, as they are.
    Pause,
    /// One node, with all that is on it, cannot reach the others for a while.
    Cut(usize),
}

/// What happens when so much of the time has passed. The soak itself kills workers, and one
/// of the servers at 0.4.
const HARMS: &[(f64, Harm)] = &[
    (0.04, Harm::Kill(0)),
    (0.08, Harm::Restart),
    (0.14, Harm::Pause),
    (0.28, Harm::Cut(2)),
    (0.42, Harm::Kill(1)),
    (0.46, Harm::Restart),
    (0.50, Harm::KillAll),
    (0.51, Harm::Restart),
    (0.58, Harm::Cut(1)),
    (0.70, Harm::Kill(2)),
    (0.73, Harm::Restart),
];

/// Three nodes, a process of the cluster on each, servers on two, workers on all of them, and
/// FoundationDB's client library failing at random in all of them. Without namespaces a node
/// that is cut off is a stopped fdbserver.
fn soak_while_the_cluster_is_hurt() {
    let seconds: u64 = std::env::var("INTERLEAF_SOAK_SECONDS")
        .map_or(30, |text| text.parse().expect("INTERLEAF_SOAK_SECONDS is a number"));
    let pause = Duration::from_secs(20).min(Duration::from_secs(seconds) / 10);
    let network = Network::new(3).inspect_err(|why| println!("without a network: {why}")).ok();
    let mut world = World::new(network, Shape::ThreeDouble, [0, 1], &BUGGIFY);
    let store = world.store.take().unwrap();
    let (first, second) = match &world.network {
        Some(_) => (tcp(0), tcp(1)),
        None => (store.url(), world.other.url()),
    };
    let both = match &world.network {
        Some(_) => format!("{first},{}:{PORT}", network::address(1)),
        None => first.clone(),
    };
    let clients = vec![
        world.client(0, &world.direct),
        world.client(1, &second),
        world.client(2, &world.direct),
        world.client(0, &first),
        world.client(1, &world.direct),
        world.client(2, &both),
    ];
    let mut harms = HARMS.iter();
    let mut next = harms.next();
    let begun = Instant::now();
    let tally = soak::soak_of(store, clients, seconds, &mut |progress| {
        while let Some((_, harm)) = next.filter(|(when, _)| progress >= *when) {
            println!("{:?}: {harm:?}", begun.elapsed());
            world.harm(*harm, pause);
            next = harms.next();
        }
    });
    assert!(next.is_none(), "{next:?} was never done");
    let slowest = Duration::from_millis(tally.slowest_ms);
    assert!(slowest <= LONGEST, "a call took {slowest:?}");
}

impl World {
    fn harm(&mut self, harm: Harm, pause: Duration) {
        match harm {
            Harm::Kill(index) => self.cluster.kill_one(index).unwrap(),
            Harm::KillAll => self.cluster.kill().unwrap(),
            Harm::Restart => self.cluster.restart().unwrap(),
            Harm::Pause => {
                self.cluster.pause().unwrap();
                std::thread::sleep(pause);
                self.cluster.resume().unwrap();
            }
            Harm::Cut(node) => match &self.network {
                Some(network) => {
                    network.cut(node);
                    std::thread::sleep(pause);
                    network.mend(node);
                }
                None => {
                    self.cluster.pause_one(node).unwrap();
                    std::thread::sleep(pause);
                    self.cluster.resume().unwrap();
                }
            },
        }
    }
}
