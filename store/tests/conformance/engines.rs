//! The engines that the suite runs on. To add one: a function that opens the store at a
//! [`Place`], new or not, and an entry in [`all`].

use std::sync::Arc;

use interleaf_store::env::Env;
use interleaf_store::kv::Kv;
use interleaf_store::kv::fjall::FjallEngine;
use interleaf_store::kv::mem::MemEngine;

use crate::support::Place;

/// Memory given to an engine on disk, in bytes.
const MEMORY_BYTES: u64 = 192 << 20;

/// An engine under test.
#[derive(Clone, Copy)]
pub struct Engine {
    pub name: &'static str,
    /// Whether this process is the store's only writer.
    pub exclusive: bool,
    /// Whether a store outlives the handle to it, as [`Place`].
    pub persistent: bool,
    /// Whether what the engine needs is missing on this machine.
    pub ignored: bool,
    /// Opens the store at a place.
    pub open: fn(&Place) -> (Arc<dyn Kv>, Env),
}

/// All of them.
pub fn all() -> Vec<Engine> {
    let mem = Engine {
        name: "mem",
        exclusive: true,
        persistent: false,
        ignored: false,
        open: |_| {
            let env = Env::system();
            (Arc::new(MemEngine::new(env.clone())), env)
        },
    };
    let fjall = Engine { name: "fjall", persistent: true, open: open_fjall, ..mem };
    #[allow(unused_mut, reason = "without the feature there is no more")]
    let mut engines = vec![mem, fjall];
    #[cfg(feature = "sim")]
    engines.extend(simulated());
    #[cfg(feature = "fdb")]
    engines.push(fdb::engine());
    engines
}

/// Stops what the engines have started.
pub fn finish() {
    #[cfg(feature = "fdb")]
    fdb::finish();
}

#[cfg(feature = "fdb")]
mod fdb {
    use std::sync::{Arc, Mutex, PoisonError};

    use interleaf_store::env::Env;
    use interleaf_store::kv::Kv;
    use interleaf_store::kv::fdb::FdbKv;

    use super::Engine;
    use crate::fdb_cluster::{Cluster, Tools};
    use crate::support::Place;

    /// One cluster for all cases, started by the first one that needs it.
    static CLUSTER: Mutex<Option<Cluster>> = Mutex::new(None);

    pub fn engine() -> Engine {
        let tools = Tools::find();
        if let Err(why) = &tools {
            println!("skipped: {why}");
        }
        let ignored = tools.is_err();
        Engine { name: "fdb", exclusive: false, persistent: true, ignored, open }
    }

    /// Each place has a prefix of its own.
    fn open(place: &Place) -> (Arc<dyn Kv>, Env) {
        let mut cluster = CLUSTER.lock().unwrap_or_else(PoisonError::into_inner);
        if cluster.is_none() {
            *cluster = Some(Cluster::start(&Tools::find().unwrap()).unwrap());
        }
        let file = cluster.as_ref().unwrap().file();
        let prefix = place.dir().file_name().unwrap().to_str().unwrap();
        let env = Env::system();
        (Arc::new(FdbKv::open(&file, prefix, env.clone()).unwrap()), env)
    }

    pub fn finish() {
        drop(CLUSTER.lock().unwrap_or_else(PoisonError::into_inner).take());
    }
}

fn open_fjall(place: &Place) -> (Arc<dyn Kv>, Env) {
    let env = Env::system();
    let engine = FjallEngine::open(place.dir(), MEMORY_BYTES, env.clone()).unwrap();
    (Arc::new(engine), env)
}

#[cfg(feature = "sim")]
fn simulated() -> [Engine; 2] {
    use interleaf_store::kv::sim::{FaultPlan, SimEngine};

    const SEED: u64 = 1;
    let sim = Engine {
        name: "sim",
        exclusive: true,
        persistent: false,
        ignored: false,
        open: |_| {
            let engine = SimEngine::new(SEED, FaultPlan::NONE);
            let env = engine.env();
            (Arc::new(engine), env)
        },
    };
    let shared = Engine {
        name: "sim-shared",
        exclusive: false,
        open: |_| {
            let engine = SimEngine::shared(SEED, FaultPlan::NONE);
            let env = engine.env();
            (Arc::new(engine), env)
        },
        ..sim
    };
    [sim, shared]
}
