//! The commit: at most once per commit id, validated page by page.
//!
//! The engine is asked first at the transaction's own snapshot, where it can validate from
//! there; that needs no read. Whatever else than success it answers, the way goes over the
//! log (rule 2 of the protocol): a new snapshot R, the commit id looked for, the log of
//! (S, R] compared exactly with what the transaction read, and the engine asked at R.
//!
//! # Invariants
//! * **C1** At most once per id. A commit's version is greater than its snapshots, and it
//!   writes the conflict key of its id. An engine that validates from S, the lowest of the
//!   snapshots, either knows every write conflict after S, and so answers a duplicate with
//!   a conflict, or answers too old. Then the id is looked for at R; and what takes effect
//!   after R conflicts at R, on the id again. This holds however late a duplicate comes.
//! * **C2** Only the log says `Conflict`. That is also true after an unknown result: where
//!   the id is not seen at R, the earlier attempt can only take effect after R; the log
//!   has a conflict C in (S, R] that no earlier look at the log saw, so the earlier attempt
//!   was made at a snapshot before C, and the engine refuses it.
//!   Where the id's staged pages were given up (S2) that is certain too: the engine refuses
//!   every attempt made at a snapshot before the mark, and after it none is made.
//! * **C3** After an unknown result every other end than success or C2's is
//!   `OutcomeUnknown`.

use std::sync::{Arc, Mutex, PoisonError};

use super::Store;
use super::bases::{Bases, NewBase};
use super::fetched::{Fetched, point};
use super::prepare::{Form, Prepared, PreparedPart, check_request, part_writes};
use super::published::Event;
use super::retry::Backoff;
use super::stage::is_discarded;
use super::view::{View, log_scan, no_branch};
use crate::api::{CommitReply, CommitRequest};
use crate::env::Deadline;
use crate::error::{Error, Result};
use crate::format::log::LogRecord;
use crate::format::{keys, records};
use crate::kv::{Commit, KvError, OnPublish, Reads, Scan, Snapshot};
use crate::types::{CommitId, Version};

/// What is to be done and told once a commit took effect.
pub(super) struct Previous {
    /// The heads right before the commit, filled in when it is published.
    heads: Arc<Mutex<Vec<Option<Version>>>>,
    bases: Bases,
    /// The full pages that it writes.
    full: Vec<NewBase>,
}

impl Previous {
    /// The reply to a commit that took effect at `version`.
    pub(super) fn reply(self, version: Version) -> CommitReply {
        self.bases.keep(self.full);
        let mut heads = self.heads.lock().unwrap_or_else(PoisonError::into_inner);
        let previous = std::mem::take(&mut *heads);
        CommitReply { version, previous }
    }
}

/// What the log says of a commit.
enum Verdict {
    /// It took effect at this version.
    Done(Version),
    /// Nothing in the way up to this snapshot.
    Clear(Version),
    /// What came after this snapshot of the commit is no longer known.
    Pruned(Version),
}

impl Store {
    pub(super) fn commit_now(
        &self,
        request: &CommitRequest,
        deadline: Deadline,
    ) -> Result<CommitReply> {
        check_request(request)?;
        if request.incarnation != self.incarnation {
            // It may have taken effect before the end that changed the incarnation.
            return match self.find_commit_now(request.id, deadline)? {
                Some(version) => Ok(unknown_heads(request, version)),
                None => Err(Error::IncarnationChanged),
            };
        }
        if !request.parts.iter().any(part_writes) {
            // Nothing changes: a transaction that only read is right at its snapshot.
            let at = request.parts.iter().map(|part| part.snapshot).max().unwrap_or_default();
            return Ok(unknown_heads(request, at));
        }
        let spilled = self.is_large(request);
        if spilled || request.parts.iter().any(|part| part.staged) {
            // What was staged goes away with the commit; a duplicate must not miss it.
            if let Some(version) = self.find_commit_now(request.id, deadline)? {
                return Ok(unknown_heads(request, version));
            }
        }
        if !spilled {
            return self.commit_prepared(request, deadline);
        }
        let small = self.spill(request, deadline)?;
        let reply = self.commit_prepared(&small, deadline);
        if reply.as_ref().is_err_and(had_no_effect) {
            // Nobody else knows of what was staged here.
            self.sweep_staged(request.id, deadline);
        }
        reply
    }

    fn commit_prepared(&self, request: &CommitRequest, deadline: Deadline) -> Result<CommitReply> {
        let staged = request.parts.iter().any(|part| part.staged);
        let mut indexed = false;
        let reply = match self.retrying(deadline, || self.prepare(request, deadline)) {
            Ok(prepared) => {
                indexed = prepared.indexed;
                self.drive(&prepared, None, deadline)
            }
            // A transaction begun before a pruning may be the duplicate of one that is done.
            Err(error) => match self.find_commit_now(request.id, deadline)? {
                Some(version) => return Ok(unknown_heads(request, version)),
                None => Err(pruned_is_conflict(error)),
            },
        };
        self.count(request, &reply);
        match &reply {
            Ok(reply) if staged || indexed => {
                self.settle_soon(request.id, reply.version, deadline);
            }
            // Nobody else knows of what was staged here.
            Err(error) if indexed && !staged && had_no_effect(error) => {
                self.sweep_staged(request.id, deadline);
            }
            _ => {}
        }
        fault_point!("commit.before-answer");
        reply
    }

    pub(super) fn count(&self, request: &CommitRequest, reply: &Result<CommitReply>) {
        match reply {
            Ok(_) => self.counters.committed(request),
            Err(Error::Conflict { .. }) => self.counters.conflict(),
            Err(_) => {}
        }
    }

    /// Asks the engine until it says yes, the log says no, or time is up. `tried`: the
    /// result of a first attempt at the commit's own snapshot.
    pub(super) fn drive(
        &self,
        prepared: &Prepared<'_>,
        tried: Option<&KvError>,
        deadline: Deadline,
    ) -> Result<CommitReply> {
        let lowest = prepared.lowest_snapshot();
        let validates = tried.is_none() && self.kv.validates(lowest);
        let mut first = validates.then_some(lowest);
        let mut unknown = tried == Some(&KvError::UnknownResult);
        let mut backoff = Backoff::new();
        let id = prepared.request.id;
        let fail = |unknown: bool, error: Error| {
            Err(if unknown { Error::OutcomeUnknown { id, why: error.to_string() } } else { error })
        };
        loop {
            let own = first.take();
            let form = if own.is_some() { Form::Small } else { Form::Whole };
            let verdict = match own {
                Some(snapshot) => Ok(Verdict::Clear(snapshot)),
                None => self.judge(prepared, deadline),
            };
            let error = match verdict {
                Ok(Verdict::Done(version)) => {
                    return Ok(unknown_heads(prepared.request, version));
                }
                Ok(Verdict::Clear(snapshot)) => {
                    match self.attempt(prepared, form, snapshot, deadline) {
                        Ok(reply) => return Ok(reply),
                        Err(error) => {
                            unknown |= error == KvError::UnknownResult;
                            error.into()
                        }
                    }
                }
                // Whether an earlier attempt of unknown result still takes effect, no log says.
                Ok(Verdict::Pruned(snapshot)) => return fail(unknown, pruned(snapshot)),
                // C2: these are certain.
                Err(error @ (Error::Conflict { .. } | Error::NotFound { .. })) => {
                    return Err(error);
                }
                Err(error) => error,
            };
            if !self.may_retry(&error) {
                return fail(unknown, error);
            }
            self.counters.retry();
            if let Err(timeout) = backoff.wait(&self.env, deadline) {
                return fail(unknown, timeout);
            }
        }
    }

    /// One try at one snapshot.
    fn attempt(
        &self,
        prepared: &Prepared<'_>,
        form: Form,
        snapshot: Version,
        deadline: Deadline,
    ) -> std::result::Result<CommitReply, KvError> {
        let (commit, previous) = self.commit_of(prepared, form, snapshot);
        let version = self.kv.commit_at(commit, deadline)?;
        Ok(previous.reply(version))
    }

    /// What the engine is asked for, and where it says what the heads were.
    pub(super) fn commit_of(
        &self,
        prepared: &Prepared<'_>,
        form: Form,
        snapshot: Version,
    ) -> (Commit, Previous) {
        let previous = Previous {
            heads: Arc::new(Mutex::new(vec![None; prepared.parts.len()])),
            bases: self.bases.clone(),
            full: prepared.full_pages(form),
        };
        if prepared.indexed && self.published.is_some() {
            self.unmerged.add(prepared.request.id);
        }
        let commit = Commit {
            snapshot,
            read_conflicts: prepared.read_conflicts(form),
            write_conflicts: prepared.write_conflicts(),
            mutations: self.with_sample(prepared.mutations(form)),
            durability: prepared.request.durability,
            on_publish: self.on_publish(prepared, &previous),
        };
        (commit, previous)
    }

    /// What the engine calls once the commit took effect.
    fn on_publish(&self, prepared: &Prepared<'_>, previous: &Previous) -> Option<OnPublish> {
        let published = Arc::clone(self.published.as_ref()?);
        let mut events = Vec::new();
        let mut places = Vec::new();
        for (place, part) in prepared.parts.iter().enumerate() {
            if let Some(write) = &part.write {
                events.push((part.part.branch, Event::Commit(Arc::clone(&write.record))));
                places.push(place);
            }
        }
        let previous = Arc::clone(&previous.heads);
        Some(Box::new(move |version| {
            let heads = published.publish(version, events);
            let mut previous = previous.lock().unwrap_or_else(PoisonError::into_inner);
            for (place, head) in places.into_iter().zip(heads) {
                if let Some(slot) = previous.get_mut(place) {
                    *slot = head;
                }
            }
        }))
    }

    /// Looks for the commit id and compares the log with what was read.
    fn judge(&self, prepared: &Prepared<'_>, deadline: Deadline) -> Result<Verdict> {
        let reads = Fetched::take(&*self.kv, None, self.judge_scans(prepared), deadline)?;
        let view = View(&reads);
        self.sampler.seen(&view)?;
        if let Some(version) = view.find_commit(prepared.request.id)? {
            return Ok(Verdict::Done(version));
        }
        if prepared.has_staged() && !view.is_staged(prepared.request.id)? {
            return Err(is_discarded(prepared.request.id));
        }
        let now = reads.version();
        for part in &prepared.parts {
            let branch = part.part.branch;
            if view.branch_row(branch)?.dropped {
                return Err(no_branch(branch));
            }
            let from = part.lowest_snapshot();
            if from < view.watermark(branch)? {
                return Ok(Verdict::Pruned(from));
            }
            view.walk_log(&part.lineage, from, now, &mut |version, record| {
                self.env.remaining(deadline)?;
                match part.conflict_with(version, &record) {
                    Some(what) => Err(Error::Conflict { what }),
                    None => Ok(true),
                }
            })?;
        }
        Ok(Verdict::Clear(now))
    }

    /// What [`judge`](Self::judge) reads, as far as that is known before.
    fn judge_scans(&self, prepared: &Prepared<'_>) -> Vec<Scan> {
        let id = prepared.request.id;
        let mut scans = vec![point(keys::commit_id(id))];
        if prepared.has_staged() {
            scans.extend([keys::staging(id), keys::discarded(id)].map(point));
        }
        for part in &prepared.parts {
            let branch = part.part.branch;
            scans.extend([keys::branch(branch), keys::watermark(branch)].map(point));
            scans.push(log_scan(branch, part.lowest_snapshot(), Version::MAX));
        }
        scans.extend(self.sampler.look());
        scans
    }

    pub(super) fn find_commit_now(
        &self,
        id: CommitId,
        deadline: Deadline,
    ) -> Result<Option<Version>> {
        let found =
            self.retrying(deadline, || View(&*self.kv.snapshot(deadline)?).find_commit(id))?;
        match (found, self.failure()) {
            // What was being written when the engine failed may be found when it is opened
            // anew: until then nobody can say that a commit has not taken effect.
            (None, Some(failure)) => Err(failure),
            (found, _) => Ok(found),
        }
    }
}

/// Whether a commit that failed so will never take effect, and is not asked for again.
const fn had_no_effect(error: &Error) -> bool {
    matches!(
        error,
        Error::Conflict { .. }
            | Error::NotFound { .. }
            | Error::TooLarge { .. }
            | Error::InvalidRequest { .. }
    )
}

/// The answer where only the version is known.
fn unknown_heads(request: &CommitRequest, version: Version) -> CommitReply {
    CommitReply { version, previous: vec![None; request.parts.len()] }
}

/// A transaction whose snapshot is gone is to be run again, as after a conflict.
fn pruned_is_conflict(error: Error) -> Error {
    match error {
        Error::Pruned { version, .. } => pruned(version),
        other => other,
    }
}

fn pruned(snapshot: Version) -> Error {
    Error::Conflict { what: format!("the snapshot {snapshot} (now pruned)") }
}

impl Prepared<'_> {
    pub(super) fn lowest_snapshot(&self) -> Version {
        self.parts.iter().map(PreparedPart::lowest_snapshot).min().unwrap_or_default()
    }
}

impl PreparedPart<'_> {
    /// From where the log must be looked at.
    fn lowest_snapshot(&self) -> Version {
        let pages = self.part.snapshot;
        self.part.allocation.map_or(pages, |change| change.snapshot.min(pages))
    }

    /// What a commit at `version` changed of that which this part relies on.
    fn conflict_with(&self, version: Version, record: &LogRecord) -> Option<String> {
        let branch = self.part.branch;
        if let Some(change) = &self.part.allocation
            && version > change.snapshot
            && record.allocation.is_some()
        {
            return Some(format!("the allocation of branch {branch}"));
        }
        if version <= self.part.snapshot {
            return None;
        }
        if let Some(page) = record.pages.first_in(&self.reads) {
            return Some(format!("page {page} of branch {branch}"));
        }
        match (record.shrunk_to, self.reads.max()) {
            (Some(size), Some(page)) if !size.contains(page) => {
                Some(format!("page {page} of branch {branch} (cut off)"))
            }
            _ => None,
        }
    }
}

impl<R: Reads + ?Sized> View<'_, R> {
    /// The version at which a commit took effect.
    pub(super) fn find_commit(&self, id: CommitId) -> Result<Option<Version>> {
        let found = self.0.get(&keys::commit_id(id))?;
        found.map(|bytes| records::decode_version(&bytes, "commit id record")).transpose()
    }
}
