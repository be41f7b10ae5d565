//! Accounts, one a page, and threads that move money between them: every acknowledged
//! transfer is applied exactly once, every other not at all or reported as unknown.

use std::collections::BTreeMap;
use std::sync::{Arc, Barrier};

use bytes::Bytes;

use super::common::{Db, Dice, commit_id, filled_to, for_seeds, page, soon};
use crate::api::{
    Backend, BeginRequest, CommitPart, CommitRequest, LogRequest, OpenReply, ReadRequest,
};
use crate::env::Env;
use crate::error::Error;
use crate::kv::mem::MemEngine;
use crate::kv::sim::{FaultCounts, FaultPlan, SimEngine};
use crate::kv::{Durability, Kv};
use crate::store::{Store, StoreOptions};
use crate::types::{CommitId, Version};

const ACCOUNTS: u32 = 12;
const OPENING: u32 = 1000;
const THREADS: u64 = 4;
const TRANSFERS: usize = 60;

fn account(balance: u32) -> Bytes {
    let mut bytes = filled_to(512, 0).to_vec();
    bytes[..4].copy_from_slice(&balance.to_be_bytes());
    bytes.into()
}

#[derive(Clone, Copy, Debug)]
struct Transfer {
    from: u32,
    to: u32,
    amount: u32,
}

/// What a thread knows at its end.
#[derive(Default)]
struct Books {
    acknowledged: BTreeMap<Version, (CommitId, Transfer)>,
    unknown: BTreeMap<CommitId, Transfer>,
}

fn balances(store: &Store, open: &OpenReply, snapshot: Version, accounts: &[u32]) -> Vec<u32> {
    let pages = accounts.iter().map(|&n| page(n)).collect();
    let request = ReadRequest { branch: open.branch, snapshot, incarnation: None, pages };
    let pages = store.read(&request, soon()).unwrap();
    pages.iter().map(|p| u32::from_be_bytes(p.bytes[..4].try_into().unwrap())).collect()
}

fn transfer_once(
    store: &Store,
    open: &OpenReply,
    dice: &mut Dice,
    books: &mut Books,
) -> Result<(), Error> {
    let from = 1 + dice.below(ACCOUNTS);
    let to = 1 + (from + dice.below(ACCOUNTS - 1)) % ACCOUNTS;
    assert_ne!(from, to);
    let request = BeginRequest { branch: open.branch, at: None, known: None };
    let begun = store.begin(&request, soon())?;
    let was = balances(store, open, begun.snapshot, &[from, to]);
    let amount = dice.below(was[0].min(50) + 1);
    let transfer = Transfer { from, to, amount };
    let mut writes =
        vec![(page(from), account(was[0] - amount)), (page(to), account(was[1] + amount))];
    writes.sort_by_key(|&(page, _)| page);
    let part = CommitPart {
        database: open.database,
        branch: open.branch,
        domain: open.domain,
        snapshot: begun.snapshot,
        reads: [from, to].into_iter().map(page).collect(),
        writes,
        hashes: Vec::new(),
        staged: false,
        allocation: None,
    };
    let id = commit_id();
    let request = CommitRequest {
        id,
        incarnation: begun.incarnation,
        parts: vec![part],
        durability: Durability::Buffered,
        client: String::new(),
    };
    match store.commit(&request, store.env().deadline(std::time::Duration::from_secs(5))) {
        Ok(reply) => {
            assert!(books.acknowledged.insert(reply.version, (id, transfer)).is_none());
        }
        Err(Error::OutcomeUnknown { .. }) => {
            books.unknown.insert(id, transfer);
        }
        // Certain: nothing happened.
        Err(Error::Conflict { .. } | Error::Timeout { .. } | Error::Unavailable { .. }) => {}
        Err(error) => return Err(error),
    }
    Ok(())
}

fn run(seed: u64, kv: Arc<dyn Kv>, env: Env, quiet: impl Fn(bool)) {
    quiet(true);
    let store =
        Store::open(kv, StoreOptions { env, memory_bytes: 0, ..StoreOptions::default() }).unwrap();
    let db = Db::open(&store, "bank");
    let mut tx = db.begin();
    for n in 1..=ACCOUNTS {
        tx.write(n, account(OPENING));
    }
    let opening = tx.commit().unwrap().version;
    quiet(false);
    let barrier = Arc::new(Barrier::new(usize::try_from(THREADS).unwrap()));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let (store, open) = (Arc::clone(&store), db.open.clone());
            let barrier = Arc::clone(&barrier);
            std::thread::spawn(move || {
                let mut dice = Dice::new(seed * THREADS + thread);
                let mut books = Books::default();
                barrier.wait();
                for _ in 0..TRANSFERS {
                    transfer_once(&store, &open, &mut dice, &mut books).unwrap();
                }
                books
            })
        })
        .collect();
    let mut all = Books::default();
    for thread in threads {
        let books = thread.join().unwrap();
        for (version, what) in books.acknowledged {
            assert!(all.acknowledged.insert(version, what).is_none(), "one version, one commit");
        }
        all.unknown.extend(books.unknown);
    }
    quiet(true);
    check(&store, &db.open, opening, &all);
}

/// The log has each acknowledged transfer once, and no other but unknown ones; applied in
/// its order they give what is in the store.
fn check(store: &Store, open: &OpenReply, opening: Version, books: &Books) {
    let request = LogRequest {
        branch: open.branch,
        after: opening,
        up_to: Version::MAX,
        limit: usize::MAX,
        newest_first: false,
    };
    let mut expected = [OPENING; ACCOUNTS as usize];
    let mut seen = 0;
    for entry in store.log(&request, soon()).unwrap() {
        let transfer = match books.acknowledged.get(&entry.version) {
            Some((id, transfer)) => {
                assert_eq!(*id, entry.id);
                seen += 1;
                transfer
            }
            None => &books.unknown[&entry.id],
        };
        expected[transfer.from as usize - 1] -= transfer.amount;
        expected[transfer.to as usize - 1] += transfer.amount;
    }
    assert_eq!(seen, books.acknowledged.len(), "every acknowledged commit is in the log");
    assert!(seen > 0);
    let request = BeginRequest { branch: open.branch, at: None, known: None };
    let snapshot = store.begin(&request, soon()).unwrap().snapshot;
    let accounts: Vec<u32> = (1..=ACCOUNTS).collect();
    assert_eq!(balances(store, open, snapshot, &accounts), expected);
    assert_eq!(expected.iter().sum::<u32>(), ACCOUNTS * OPENING);
}

#[test]
fn threads_on_the_engine_in_memory() {
    for_seeds(0..10, |seed| {
        let env = Env::system();
        let kv = Arc::new(MemEngine::new(env.clone()));
        run(seed, kv, env, |_| {});
    });
}

fn simulated(seeds: std::ops::Range<u64>, engine: impl Fn(u64) -> SimEngine) {
    let mut counts = FaultCounts::new();
    let enough = for_seeds(seeds, |seed| {
        let engine = Arc::new(engine(seed));
        let kv: Arc<dyn Kv> = Arc::clone(&engine) as _;
        run(seed, kv, engine.env(), |quiet| engine.set_faults(!quiet));
        for (fault, count) in engine.fault_counts() {
            *counts.entry(fault).or_default() += count;
        }
    });
    for fault in ["conflict", "too_old", "unknown_before", "unknown_after", "unavailable"] {
        assert!(!enough || counts.contains_key(fault), "{fault}: {counts:?}");
    }
}

#[test]
fn threads_on_the_simulated_engine_with_every_fault() {
    simulated(0..10, |seed| SimEngine::new(seed, FaultPlan::every(0.05)));
}

#[test]
fn threads_on_the_simulated_shared_engine_with_every_fault() {
    simulated(0..10, |seed| SimEngine::shared(seed, FaultPlan::every(0.03)));
}
