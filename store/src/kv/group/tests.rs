use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc;
use std::time::Duration;

use super::*;
use crate::kv::mem::{MemStorage, View};
use crate::kv::{KeyRange, Mutation};

/// What the test storage is to do with its next batch.
enum Order {
    Apply,
    Fail(ApplyError),
    Panic,
}

/// In memory, but each batch waits for an order; without one left it applies.
struct Ordered {
    mem: MemStorage,
    orders: Mutex<mpsc::Receiver<Order>>,
    /// Batches that have come in.
    begun: AtomicU32,
    durabilities: Mutex<Vec<Durability>>,
    reserved: Mutex<Vec<u64>>,
    /// What reserving answers, where it is to fail.
    refuses: Mutex<Option<KvError>>,
}

impl Storage for Ordered {
    type View = View;

    fn name(&self) -> &'static str {
        "ordered"
    }

    fn limits(&self) -> Limits {
        self.mem.limits()
    }

    fn view(&self) -> KvResult<View> {
        self.mem.view()
    }

    fn apply(&self, ops: Vec<Op>, durability: Durability) -> Result<(), ApplyError> {
        self.begun.fetch_add(1, Ordering::SeqCst);
        lock(&self.durabilities).push(durability);
        match lock(&self.orders).recv() {
            Ok(Order::Fail(error)) => Err(error),
            Ok(Order::Panic) => panic!("on purpose"),
            Ok(Order::Apply) | Err(_) => self.mem.apply(ops, durability),
        }
    }

    fn reserve(&self, bound: u64) -> KvResult<()> {
        lock(&self.reserved).push(bound);
        lock(&self.refuses).clone().map_or(Ok(()), Err)
    }
}

type TestEngine = Group<Ordered>;

/// An engine, and the way to give it orders.
fn engine() -> (TestEngine, mpsc::Sender<Order>) {
    let (send, receive) = mpsc::channel();
    let storage = Ordered {
        mem: MemStorage::default(),
        orders: Mutex::new(receive),
        begun: AtomicU32::new(0),
        durabilities: Mutex::default(),
        reserved: Mutex::default(),
        refuses: Mutex::default(),
    };
    (Group::over(storage, Env::system(), Version::ZERO, 0, WINDOW_BYTES), send)
}

fn put(key: &str, durability: Durability) -> Commit {
    let mutations = vec![Mutation::Put { key: key.into(), value: Bytes::from_static(b"1") }];
    Commit { mutations, durability, ..Commit::default() }
}

fn within(engine: &TestEngine, ms: u64) -> Deadline {
    engine.env.deadline(Duration::from_millis(ms))
}

fn write(engine: &TestEngine, key: &str) -> KvResult<Version> {
    engine.commit(put(key, Durability::Buffered), within(engine, 60_000))
}

fn has(engine: &TestEngine, key: &str) -> bool {
    engine.at_now().unwrap().get(key.as_bytes()).unwrap().is_some()
}

fn wait_until(done: impl Fn() -> bool) {
    while !done() {
        std::thread::sleep(Duration::from_micros(100));
    }
}

fn queued(engine: &TestEngine) -> usize {
    engine.queue.len()
}

fn begun(engine: &TestEngine) -> u32 {
    engine.storage.begun.load(Ordering::SeqCst)
}

#[test]
fn commits_that_wait_become_one_batch_with_the_strongest_durability() {
    let (engine, orders) = engine();
    std::thread::scope(|scope| {
        scope.spawn(|| write(&engine, "first").unwrap());
        wait_until(|| begun(&engine) == 1);
        for n in 0..5 {
            let durability = if n == 3 { Durability::Synced } else { Durability::Buffered };
            let engine = &engine;
            scope.spawn(move || {
                engine.commit(put(&format!("k{n}"), durability), within(engine, 60_000)).unwrap()
            });
        }
        wait_until(|| queued(&engine) == 5);
        orders.send(Order::Apply).unwrap();
        orders.send(Order::Apply).unwrap();
    });
    assert_eq!(begun(&engine), 2);
    let durabilities = lock(&engine.storage.durabilities).clone();
    assert_eq!(durabilities, [Durability::Buffered, Durability::Synced]);
    assert!((0..5).all(|n| has(&engine, &format!("k{n}"))));
    assert!(!engine.queue.is_led(), "G4");
}

#[test]
fn commits_of_one_batch_are_validated_against_each_other() {
    let (engine, orders) = engine();
    let one = || -> Vec<KeyRange> { vec![b"k".to_vec()..b"l".to_vec()] };
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        scope.spawn(|| write(&engine, "first").unwrap());
        wait_until(|| begun(&engine) == 1);
        for _ in 0..4 {
            scope.spawn(|| {
                let snapshot = engine.at_now().unwrap().version();
                let commit = Commit {
                    snapshot,
                    read_conflicts: one().into(),
                    write_conflicts: one(),
                    ..put("k", Durability::Buffered)
                };
                let result = engine.commit(commit, within(&engine, 60_000));
                results.lock().unwrap().push(result);
            });
        }
        wait_until(|| queued(&engine) == 4);
        drop(orders);
    });
    let results = results.into_inner().unwrap();
    let conflicts = results.iter().filter(|r| **r == Err(KvError::Conflict)).count();
    assert_eq!((results.len(), conflicts), (4, 3), "{results:?}");
    assert_eq!(begun(&engine), 2);
}

#[test]
fn a_deadline_ends_the_wait_and_says_what_is_known() {
    let (engine, orders) = engine();
    let begin = std::sync::Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| write(&engine, "first").unwrap());
        wait_until(|| begun(&engine) == 1);
        // Not taken by a leader: out of the queue, without effect.
        let result = engine.commit(put("queued", Durability::Buffered), within(&engine, 20));
        assert_eq!(result, Err(KvError::Timeout { after: Duration::from_millis(20) }));
        assert_eq!(queued(&engine), 0);

        // Taken: the second of a batch that is under way.
        scope.spawn(|| {
            begin.wait();
            write(&engine, "leads").unwrap()
        });
        begin.wait();
        wait_until(|| queued(&engine) == 1);
        let late =
            scope.spawn(|| engine.commit(put("taken", Durability::Buffered), within(&engine, 300)));
        wait_until(|| queued(&engine) == 2);
        orders.send(Order::Apply).unwrap();
        assert_eq!(late.join().unwrap(), Err(KvError::UnknownResult));
        orders.send(Order::Apply).unwrap();
    });
    assert_eq!(begun(&engine), 2);
    assert!(!has(&engine, "queued"));
    assert!(has(&engine, "taken"), "its outcome was not known, and is that it was committed");
}

#[test]
fn a_failed_write_ends_the_engine_with_its_cause() {
    let fire = || KvError::Io { what: "disk on fire".into() };
    let full = || KvError::DiskFull { what: "no room".into() };
    for (order, answer, cause) in [
        (ApplyError::Unknown(fire()), KvError::UnknownResult, fire()),
        (ApplyError::Nothing(fire()), fire(), fire()),
        (ApplyError::Unknown(full()), KvError::UnknownResult, full()),
        (ApplyError::Nothing(full()), full(), full()),
    ] {
        let (engine, orders) = engine();
        orders.send(Order::Apply).unwrap();
        write(&engine, "before").unwrap();
        assert_eq!(engine.failure(), None);
        orders.send(Order::Fail(order)).unwrap();
        assert_eq!(write(&engine, "at"), Err(answer));
        let after = write(&engine, "after").unwrap_err();
        assert_eq!(after, cause.lasting());
        assert_eq!(engine.failure().as_ref(), Some(&after));
        assert!(!retry::retryable(&after), "nobody waits for it");
        assert_eq!(begun(&engine), 2, "G5");
        assert!(has(&engine, "before") && !has(&engine, "after"), "reads go on");
        assert_eq!(engine.close(), Err(after), "no mark of a clean end");
    }
}

#[test]
fn versions_that_cannot_be_reserved_end_the_engine() {
    let (engine, orders) = engine();
    drop(orders);
    let full = KvError::DiskFull { what: "no room".into() };
    *lock(&engine.storage.refuses) = Some(full.clone());
    assert_eq!(write(&engine, "first"), Err(full.clone()));
    assert_eq!(write(&engine, "second"), Err(full.lasting()));
    assert_eq!(begun(&engine), 0);
}

#[test]
fn an_engine_that_was_closed_has_not_failed() {
    let (engine, _orders) = engine();
    engine.close().unwrap();
    assert_eq!(engine.failure(), None);
    assert!(matches!(write(&engine, "late"), Err(KvError::Unavailable { .. })));
}

#[test]
fn a_panic_in_a_write_leaves_nobody_waiting() {
    let (engine, orders) = engine();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| write(&engine, "first"));
        wait_until(|| begun(&engine) == 1);
        let second = scope.spawn(|| write(&engine, "second"));
        wait_until(|| queued(&engine) == 1);
        orders.send(Order::Panic).unwrap();
        assert_eq!(first.join().unwrap(), Err(KvError::UnknownResult));
        let second = second.join().unwrap();
        assert!(matches!(second, Err(KvError::Io { .. })), "{second:?}");
    });
    assert!(!engine.queue.is_led(), "G4");
}

#[test]
fn a_panic_in_the_hook_ends_the_engine_before_anything_is_written() {
    let (engine, _orders) = engine();
    engine.set_batch_hook(Box::new(|_| panic!("on purpose")));
    assert_eq!(write(&engine, "a"), Err(KvError::UnknownResult));
    assert!(matches!(write(&engine, "b"), Err(KvError::Io { .. })));
    assert_eq!(begun(&engine), 0);
}

#[test]
fn versions_are_reserved_before_they_are_issued_and_rarely() {
    let (engine, orders) = engine();
    drop(orders);
    for _ in 0..100 {
        let version = write(&engine, "a").unwrap();
        let bound = *lock(&engine.storage.reserved).last().unwrap();
        assert!(version.commit() < bound, "G2");
    }
    assert_eq!(lock(&engine.storage.reserved).len(), 1);
    lock(&engine.core).newest = Version::new(RESERVED_VERSIONS - 1, 0);
    for _ in 0..5 {
        let version = write(&engine, "a").unwrap();
        let bound = *lock(&engine.storage.reserved).last().unwrap();
        assert!(version.commit() < bound, "G2");
    }
    assert_eq!(lock(&engine.storage.reserved).len(), 2);
}

#[test]
fn large_commits_make_batches_of_their_own() {
    let (engine, orders) = engine();
    let large = || {
        let value = Bytes::from(vec![0; engine.limits().value_bytes]);
        let count = queue::BATCH_BYTES / value.len() as u64 / 2 + 1;
        let put = |n: u64| Mutation::Put { key: n.to_be_bytes().into(), value: value.clone() };
        Commit { mutations: (0..count).map(put).collect(), ..Commit::default() }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| write(&engine, "first").unwrap());
        wait_until(|| begun(&engine) == 1);
        // More than one caller leads.
        for _ in 0..6 {
            scope.spawn(|| engine.commit(large(), within(&engine, 60_000)).unwrap());
        }
        wait_until(|| queued(&engine) == 6);
        drop(orders);
    });
    assert_eq!(begun(&engine), 7);
    assert!(!engine.queue.is_led(), "G4");
}

#[test]
fn submitted_commits_are_told_of_by_whoever_leads() {
    let (engine, orders) = engine();
    drop(orders);
    let (told, results) = mpsc::channel();
    let submit = |name: &'static str, commit| {
        let told = told.clone();
        let done = move |result: KvResult<Version>| told.send((name, result)).unwrap();
        engine.submit(commit, within(&engine, 60_000), Box::new(done))
    };
    assert!(submit("first", put("a", Durability::Buffered)), "nobody leads yet");
    assert!(!submit("second", put("b", Durability::Synced)));
    assert!(!submit("refused", put("", Durability::Buffered)));
    assert!(matches!(results.try_recv(), Ok(("refused", Err(KvError::Corrupt { .. })))));
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| write(&engine, "c").unwrap());
        wait_until(|| queued(&engine) == 3);
        assert!(results.try_recv().is_err(), "the first caller was told to lead and has not");
        engine.lead();
        waits.join().unwrap();
    });
    assert!(matches!(results.try_recv(), Ok(("first", Ok(_)))));
    assert!(matches!(results.try_recv(), Ok(("second", Ok(_)))));
    assert!(["a", "b", "c"].iter().all(|key| has(&engine, key)));
    assert_eq!(begun(&engine), 1);
    assert!(!engine.queue.is_led(), "G4");
    assert!(submit("third", put("d", Durability::Buffered)));
    engine.end(KvError::Unavailable { what: "a test".into() });
    engine.lead();
    assert!(matches!(results.try_recv(), Ok(("third", Err(KvError::Unavailable { .. })))));
    assert!(!submit("fourth", put("e", Durability::Buffered)));
    assert!(matches!(results.try_recv(), Ok(("fourth", Err(KvError::Unavailable { .. })))));
}

#[test]
fn a_panic_in_what_is_told_is_nobody_elses() {
    let (engine, orders) = engine();
    drop(orders);
    let done = |_: KvResult<Version>| panic!("a test");
    assert!(engine.submit(put("a", Durability::Buffered), within(&engine, 60_000), Box::new(done)));
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| write(&engine, "b"));
        wait_until(|| queued(&engine) == 2);
        engine.lead();
        assert!(waits.join().unwrap().is_ok());
    });
    assert!(!engine.queue.is_led(), "G4");
}

/// Most commits of one chain of [`submit_again`].
const MOST: u32 = 1_000;

/// Submits a commit whose answer submits the next; whether the caller is to lead.
fn submit_again(engine: Arc<TestEngine>, count: Arc<AtomicU32>) -> bool {
    let done = {
        let engine = Arc::clone(&engine);
        move |result: KvResult<Version>| {
            result.unwrap();
            if count.fetch_add(1, Ordering::SeqCst) < MOST {
                assert!(!submit_again(engine, count), "somebody leads");
            }
        }
    };
    let deadline = within(&engine, 60_000);
    engine.submit(put("a", Durability::Buffered), deadline, Box::new(done))
}

#[test]
fn a_thread_that_leads_in_passing_is_let_go_after_a_batch() {
    let (engine, orders) = engine();
    drop(orders);
    let (engine, count) = (Arc::new(engine), Arc::new(AtomicU32::new(0)));
    let (asked, ask) = mpsc::channel();
    engine.set_successor(Box::new(move || asked.send(()).is_ok()));
    assert!(submit_again(Arc::clone(&engine), Arc::clone(&count)));
    engine.lead_in_passing();
    assert_eq!(count.load(Ordering::SeqCst), 1, "the batch with its own commit");
    ask.try_recv().unwrap();
    assert!(engine.queue.is_led(), "by whoever was asked");
    engine.lead();
    assert_eq!(count.load(Ordering::SeqCst), MOST + 1);
    assert!(ask.try_recv().is_err() && !engine.queue.is_led(), "G4");
    assert!(!engine.submit(put("", Durability::Buffered), within(&engine, 60_000), Box::new(drop)));
    assert!(engine.submit(put("b", Durability::Buffered), within(&engine, 60_000), Box::new(drop)));
    engine.lead_in_passing();
    assert!(ask.try_recv().is_err() && !engine.queue.is_led(), "nobody waits: nobody is asked");
}

#[test]
fn a_caller_that_leads_is_let_go_however_much_is_submitted() {
    let (engine, orders) = engine();
    let (engine, count) = (Arc::new(engine), Arc::new(AtomicU32::new(0)));
    let (asked, ask) = mpsc::channel();
    engine.set_successor(Box::new(move || asked.send(()).is_ok()));
    std::thread::scope(|scope| {
        let caller = scope.spawn(|| write(&engine, "first").unwrap());
        wait_until(|| begun(&engine) == 1);
        assert!(!submit_again(Arc::clone(&engine), Arc::clone(&count)));
        drop(orders);
        caller.join().unwrap();
    });
    assert!(count.load(Ordering::SeqCst) < MOST, "it has led to the end");
    ask.try_recv().unwrap();
    assert!(engine.queue.is_led(), "by whoever was asked");
    engine.lead();
    assert_eq!(count.load(Ordering::SeqCst), MOST + 1);
    assert!(!engine.queue.is_led(), "G4");
}
