//! FoundationDB against clusters of its own: the engine, and the store on it. What every
//! engine must do is in the conformance suite; here is what only this one does. Each test
//! of a cluster runs on one of one process and on one of three with two copies.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test program"
)]

mod engine;
#[path = "../support/fdb_cluster.rs"]
mod fdb_cluster;
mod store;

use std::env;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use fdb_cluster::{Cluster, Shape, Tools};
use interleaf_store::env::Env;
use interleaf_store::kv::fdb::FdbKv;
use libtest_mimic::{Arguments, Failed, Trial};

/// Set in a child process: the cluster file that it is to open.
const CHILD: &str = "INTERLEAF_TEST_OPEN";

/// A test of the cluster with this file.
type Test = fn(&Path);

const SHAPES: [(&str, Shape); 2] = [("single", Shape::Single), ("three", Shape::ThreeDouble)];

fn main() -> ExitCode {
    if let Some(file) = env::var_os(CHILD) {
        let opened = FdbKv::open(Path::new(&file), "", Env::system());
        println!("{}", opened.err().map_or_else(String::new, |error| error.to_string()));
        return ExitCode::SUCCESS;
    }
    let mut arguments = Arguments::from_args();
    // One cluster serves all, and some tests wait while others work.
    arguments.test_threads.get_or_insert(4);
    let tools = Tools::find();
    if let Err(why) = &tools {
        println!("skipped: {why}");
    }
    let clusters: Vec<Arc<Lazy>> = SHAPES.map(|(_, shape)| Arc::new(Lazy::new(shape))).into();
    let mut trials = Vec::new();
    for ((prefix, _), cluster) in SHAPES.iter().zip(&clusters) {
        for (name, test) in [engine::TESTS, store::TESTS].concat() {
            let (tools, cluster) = (tools.clone(), Arc::clone(cluster));
            trials.push(Trial::test(format!("{prefix}::{name}"), move || {
                test(&cluster.file(&tools?)?);
                Ok(())
            }));
        }
    }
    let found = tools.is_ok();
    trials.push(Trial::test("a_deserted_cluster_is_a_timeout", || {
        engine::a_deserted_cluster();
        Ok(())
    }));
    let tools_of_dead = tools.clone();
    trials.push(Trial::test("a_dead_server_is_a_timeout_or_unknown", move || {
        engine::a_dead_server(&tools_of_dead?);
        Ok(())
    }));
    let mut trials: Vec<Trial> =
        trials.into_iter().map(|trial| trial.with_ignored_flag(!found)).collect();
    trials.push(Trial::test("a_missing_library_is_named", || {
        engine::a_missing_library_is_named();
        Ok(())
    }));
    let (figures_tools, cluster) = (tools, Arc::clone(&clusters[0]));
    trials.push(
        Trial::test("figures", move || {
            store::figures(&cluster.file(&figures_tools?)?);
            Ok(())
        })
        .with_ignored_flag(true),
    );
    let conclusion = libtest_mimic::run(&arguments, trials);
    // The threads of the tests are over; the clusters go before the process does.
    clusters.iter().for_each(|cluster| cluster.stop());
    conclusion.exit_code()
}

/// A cluster that the first test to ask starts.
struct Lazy {
    shape: Shape,
    cluster: Mutex<Option<Cluster>>,
}

impl Lazy {
    const fn new(shape: Shape) -> Self {
        Self { shape, cluster: Mutex::new(None) }
    }

    fn file(&self, tools: &Tools) -> Result<PathBuf, Failed> {
        let mut cluster = self.cluster.lock().unwrap_or_else(PoisonError::into_inner);
        if cluster.is_none() {
            *cluster = Some(Cluster::start_as(tools, self.shape)?);
        }
        Ok(cluster.as_ref().ok_or("no cluster")?.file())
    }

    fn stop(&self) {
        drop(self.cluster.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}
