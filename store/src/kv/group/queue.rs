//! Who waits for a group commit, and who leads it.
//!
//! A commit waits with its caller, on a *seat*, or with a call to be made when it is done.
//! The first that finds nobody leading leads; it goes on while commits wait, for to wake
//! another leader takes about as long as a batch, and the disk would be idle so long. After
//! [`MAX_BATCHES_LED`] batches it hands over to a seat at the head of the queue; a leader
//! that has a seat itself, and an answer to give, also to a thread that it asks for. One that
//! has other work does so after its first batch.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::super::prepare::Prepared;
use super::super::{Commit, KvError, KvResult, OnDone};
use super::{Group, Storage, lock, timeout};
use crate::env::Deadline;
use crate::types::Version;

/// Most batches that one caller leads where another one waits who can.
const MAX_BATCHES_LED: usize = 4;

/// Bytes at which a batch takes no more commits.
pub(super) const BATCH_BYTES: u64 = 8 << 20;

/// The commits that wait.
#[derive(Default)]
pub(super) struct Queue(Mutex<State>);

#[cfg(test)]
impl Queue {
    pub(super) fn len(&self) -> usize {
        lock(&self.0).waiting.len()
    }

    pub(super) fn is_led(&self) -> bool {
        lock(&self.0).led
    }
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    led: bool,
}

/// A commit in the queue.
struct Waiting {
    prepared: Prepared,
    caller: Caller,
}

enum Caller {
    Waits(Arc<Seat>),
    Called(OnDone),
}

/// Who leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leader {
    /// A caller with a commit of its own, for whose answer somebody waits.
    Seated,
    /// A thread with other work that waits for it.
    Passing,
    /// A thread that came to lead.
    Sent,
}

/// Where a caller waits.
#[derive(Default)]
struct Seat {
    state: Mutex<Turn>,
    changed: Condvar,
}

#[derive(Default)]
enum Turn {
    #[default]
    Wait,
    /// The caller is to lead; its own commit is at the head of the queue.
    Lead,
    Done(KvResult<Version>),
}

impl Seat {
    fn set(&self, turn: Turn) {
        *lock(&self.state) = turn;
        self.changed.notify_one();
    }

    /// The result, once somebody has led; there is one then (see [`Group::lead_once`]).
    fn result(&self) -> KvResult<Version> {
        match std::mem::take(&mut *lock(&self.state)) {
            Turn::Done(result) => result,
            Turn::Wait | Turn::Lead => Err(KvError::UnknownResult),
        }
    }
}

impl Caller {
    fn tell(self, result: KvResult<Version>) {
        match self {
            Self::Waits(seat) => seat.set(Turn::Done(result)),
            // A panic in it is its owner's bug and no reason to leave others waiting.
            Self::Called(done) => {
                if catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
                    tracing::error!("what was to be done after a commit panicked");
                }
            }
        }
    }
}

impl<S: Storage> Group<S> {
    /// Queues a commit and gives its result.
    pub(in crate::kv) fn commit(&self, commit: Commit, deadline: Deadline) -> KvResult<Version> {
        self.usable()?;
        if self.env.remaining(deadline).is_err() {
            return Err(timeout(deadline));
        }
        let prepared = Prepared::new(commit, &self.storage.limits())?;
        let seat = Arc::new(Seat::default());
        if self.enqueue(prepared, Caller::Waits(Arc::clone(&seat))) {
            self.lead_queue(Leader::Seated);
            return seat.result();
        }
        self.wait(&seat, deadline)
    }

    /// Queues a commit; whether the caller is to lead.
    pub(super) fn push(&self, commit: Commit, done: OnDone) -> bool {
        let usable = self.usable();
        match usable.and_then(|()| Prepared::new(commit, &self.storage.limits())) {
            Ok(prepared) => self.enqueue(prepared, Caller::Called(done)),
            Err(error) => {
                done(Err(error));
                false
            }
        }
    }

    fn enqueue(&self, prepared: Prepared, caller: Caller) -> bool {
        let mut queue = lock(&self.queue.0);
        queue.waiting.push_back(Waiting { prepared, caller });
        !std::mem::replace(&mut queue.led, true)
    }

    fn wait(&self, seat: &Arc<Seat>, deadline: Deadline) -> KvResult<Version> {
        let mut turn = lock(&seat.state);
        loop {
            match &*turn {
                Turn::Done(result) => return result.clone(),
                Turn::Lead => {
                    drop(turn);
                    self.lead_queue(Leader::Seated);
                    return seat.result();
                }
                Turn::Wait => {}
            }
            let Ok(left) = self.env.remaining(deadline) else {
                drop(turn);
                return self.give_up(seat, deadline);
            };
            (turn, _) =
                seat.changed.wait_timeout(turn, left).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The deadline has passed: out of the queue, where the commit is still there.
    fn give_up(&self, seat: &Arc<Seat>, deadline: Deadline) -> KvResult<Version> {
        let mut queue = lock(&self.queue.0);
        // A turn to lead is given under the queue's lock.
        let turn = std::mem::take(&mut *lock(&seat.state));
        match turn {
            Turn::Done(result) => return result,
            Turn::Lead => {
                drop(queue);
                self.lead_queue(Leader::Seated);
                return seat.result();
            }
            Turn::Wait => {}
        }
        let own = |waiting: &Waiting| match &waiting.caller {
            Caller::Waits(other) => Arc::ptr_eq(other, seat),
            Caller::Called(_) => false,
        };
        match queue.waiting.iter().position(own) {
            Some(at) => {
                queue.waiting.remove(at);
                Err(timeout(deadline))
            }
            None => Err(KvError::UnknownResult),
        }
    }

    /// Commits what waits, batch by batch, until nobody waits or another one leads.
    pub(super) fn lead_queue(&self, leader: Leader) {
        let most = if leader == Leader::Passing { 1 } else { MAX_BATCHES_LED };
        for batch in 1usize.. {
            self.lead_once();
            let over = batch >= most;
            let mut queue = lock(&self.queue.0);
            match queue.waiting.front().map(|next| &next.caller) {
                None => {
                    queue.led = false;
                    return;
                }
                Some(Caller::Waits(next)) if over => {
                    next.set(Turn::Lead);
                    return;
                }
                Some(Caller::Called(_)) if over && leader != Leader::Sent => {}
                Some(_) => continue,
            }
            drop(queue);
            // The lead stays taken until that thread has it.
            if self.successor.get().is_some_and(|ask| ask()) {
                return;
            }
        }
    }

    /// Commits a batch and tells every caller in it.
    fn lead_once(&self) {
        let (commits, callers) = self.take();
        let count = commits.len();
        let results =
            catch_unwind(AssertUnwindSafe(|| self.process(commits))).unwrap_or_else(|_| {
                self.end(KvError::Io { what: "no commits are taken: one ended in a panic".into() });
                vec![Err(KvError::UnknownResult); count]
            });
        debug_assert_eq!(results.len(), count, "a result for each");
        for (caller, result) in callers.into_iter().zip(results) {
            caller.tell(result);
        }
    }

    /// Takes the next batch off the queue.
    fn take(&self) -> (Vec<Prepared>, Vec<Caller>) {
        let mut queue = lock(&self.queue.0);
        let (mut bytes, mut count) = (0, 0);
        for waiting in &queue.waiting {
            bytes += waiting.prepared.bytes;
            if count > 0 && bytes > BATCH_BYTES {
                break;
            }
            count += 1;
        }
        queue.waiting.drain(..count).map(|waiting| (waiting.prepared, waiting.caller)).unzip()
    }
}
