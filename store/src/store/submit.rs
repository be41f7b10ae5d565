//! Commits without a thread of their own that waits.
//!
//! A server has many commits under way at once. In the plain case, which is one attempt at
//! the transaction's own snapshot that succeeds, a commit needs no thread from the moment
//! it is queued in the engine until its batch is written: whoever writes the batch answers
//! it. Everything else is handed back as [`CommitWork`], for a thread that may block.

use std::sync::Arc;

use super::Store;
use super::prepare::{Form, check_request, may_be_indexed, part_writes};
use crate::api::{CommitReply, CommitRequest};
use crate::env::Deadline;
use crate::error::{Error, Result};
use crate::kv::KvError;

/// Most bytes of pages whose hashes are worked out where the commit is submitted.
const SUBMITTED_BYTES: usize = 256 << 10;

/// What became of a submitted commit.
pub enum Submitted {
    /// It is answered.
    Reply(Result<CommitReply>),
    /// A thread has to work on it.
    Work(CommitWork),
}

/// Called once, from whatever thread; must not block.
pub type OnCommit = Box<dyn FnOnce(Submitted) + Send>;

/// A commit that needs a thread.
pub struct CommitWork {
    store: Arc<Store>,
    request: CommitRequest,
    deadline: Deadline,
    /// How an attempt at its own snapshot ended.
    tried: Option<KvError>,
}

impl CommitWork {
    /// Commits; blocks at most until the deadline.
    ///
    /// # Errors
    /// As [`Backend::commit`](crate::api::Backend::commit).
    pub fn run(self) -> Result<CommitReply> {
        let Self { store, request, deadline, tried } = self;
        let Some(tried) = tried else { return store.commit_now(&request, deadline) };
        let prepared = store.retrying(deadline, || store.prepare(&request, deadline));
        let reply = match prepared {
            Ok(prepared) => store.drive(&prepared, Some(&tried), deadline),
            // C3
            Err(error) if tried == KvError::UnknownResult => {
                Err(Error::OutcomeUnknown { id: request.id, why: error.to_string() })
            }
            Err(_) => return store.commit_now(&request, deadline),
        };
        store.count(&request, &reply);
        fault_point!("commit.before-answer");
        reply
    }
}

impl Store {
    /// As [`Backend::commit`](crate::api::Backend::commit), the result being given to
    /// `done`, at once or later. Where this says `true` the caller must call
    /// [`lead_commits`](Self::lead_commits) next, from a thread that may block, or
    /// [`lead_commits_in_passing`](Self::lead_commits_in_passing).
    #[must_use = "somebody has to lead"]
    pub fn submit(
        self: &Arc<Self>,
        request: CommitRequest,
        deadline: Deadline,
        done: OnCommit,
    ) -> bool {
        let work = move |store: &Arc<Self>, request, tried| {
            Submitted::Work(CommitWork { store: Arc::clone(store), request, deadline, tried })
        };
        if !self.is_plain(&request) {
            done(work(self, request, None));
            return false;
        }
        let Ok(prepared) = self.prepare(&request, deadline) else {
            done(work(self, request, None));
            return false;
        };
        let snapshot = prepared.lowest_snapshot();
        if !self.kv.validates(snapshot) {
            done(work(self, request, None));
            return false;
        }
        self.name_successor();
        let (commit, previous) = self.commit_of(&prepared, Form::Small, snapshot);
        let store = Arc::clone(self);
        let told = move |result| match result {
            Ok(version) => {
                let reply = Ok(previous.reply(version));
                store.count(&request, &reply);
                fault_point!("commit.before-answer");
                done(Submitted::Reply(reply));
            }
            Err(tried) => done(work(&store, request, Some(tried))),
        };
        self.kv.submit(commit, deadline, Box::new(told))
    }

    /// Tells the engine where another thread is to be had for submitted commits.
    fn name_successor(self: &Arc<Self>) {
        self.has_successor.call_once(|| {
            let store = Arc::downgrade(self);
            self.kv.set_successor(Box::new(move || {
                let Some(store) = store.upgrade() else { return false };
                let thread = std::thread::Builder::new().name("interleaf-lead".into());
                thread.spawn(move || store.lead_commits()).is_ok()
            }));
        });
    }

    /// Writes what was submitted, by this thread and others, until another thread does it
    /// or nothing is left. Blocks for as long.
    pub fn lead_commits(&self) {
        self.kv.lead();
    }

    /// As [`lead_commits`](Self::lead_commits), by a thread that others wait for: what is
    /// submitted meanwhile is another thread's to write.
    pub fn lead_commits_in_passing(&self) {
        self.kv.lead_in_passing();
    }

    /// Whether nothing but an attempt at its own snapshot is needed, if that succeeds.
    fn is_plain(&self, request: &CommitRequest) -> bool {
        let bytes = || -> usize {
            request.parts.iter().flat_map(|part| &part.writes).map(|(_, page)| page.len()).sum()
        };
        self.published.is_some()
            && request.incarnation == self.incarnation
            && request.parts.iter().any(part_writes)
            && !may_be_indexed(request)
            && bytes() <= SUBMITTED_BYTES
            && !self.is_large(request)
            && check_request(request).is_ok()
    }
}
