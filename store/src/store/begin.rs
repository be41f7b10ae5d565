//! The beginning of a transaction: a snapshot, and what changed on the way to it.

use std::sync::Arc;

use super::Store;
use super::fetched::{Fetched, point};
use super::published::{BranchState, Published};
use super::view::{BranchView, Lineage, View, branch_scans, check_watermark, log_scan, no_branch};
use crate::api::{Allocation, BeginReply, BeginRequest, Changes};
use crate::env::Deadline;
use crate::error::{Error, Result};
use crate::format::keys;
use crate::kv::{Reads, Snapshot};
use crate::types::{BranchId, Version};

/// What a read or a commit must know of a branch at a snapshot.
pub(super) struct Basis {
    pub(super) lineage: Arc<Lineage>,
    pub(super) allocation: Allocation,
}

/// What memory says to a begin.
enum Quick {
    Reply(BeginReply),
    /// Memory does not reach back so far: ask the engine at this snapshot.
    AskEngine(Version),
}

fn beyond(snapshot: Version, newest: Version) -> Error {
    Error::InvalidRequest {
        what: format!("the snapshot {snapshot} lies beyond the newest version {newest}"),
    }
}

impl Store {
    /// Runs `look` on the state of a branch, loading it first where it is not in memory.
    pub(super) fn with_branch<T>(
        &self,
        published: &Published,
        branch: BranchId,
        deadline: Deadline,
        look: impl Fn(Version, &BranchState) -> T,
    ) -> Result<T> {
        loop {
            if let Some(seen) = published.peek(branch, &look) {
                return Ok(seen);
            }
            self.env.remaining(deadline)?;
            published.load(branch, || Ok(self.kv.snapshot(deadline)?))?;
        }
    }

    pub(super) fn begin_now(
        &self,
        request: &BeginRequest,
        deadline: Deadline,
    ) -> Result<BeginReply> {
        let Some(published) = &self.published else {
            return self.begin_shared(request, deadline);
        };
        let quick = self.with_branch(published, request.branch, deadline, |newest, state| {
            self.begin_in_memory(request, newest, state)
        })?;
        match quick? {
            Quick::Reply(reply) => Ok(reply),
            Quick::AskEngine(snapshot) => {
                let reads = self.kv.snapshot(deadline)?;
                self.begin_in_engine(request, snapshot, &View(&*reads))
            }
        }
    }

    /// Where others write too: everything is read, in one wait as a rule.
    fn begin_shared(&self, request: &BeginRequest, deadline: Deadline) -> Result<BeginReply> {
        let up_to = request.at.unwrap_or(Version::MAX);
        let mut scans = branch_scans(request.branch, up_to);
        scans.push(point(keys::head(request.branch)));
        if let Some(known) = self.known_version(request, up_to) {
            scans.push(log_scan(request.branch, known, up_to));
        }
        scans.extend(self.sampler.look());
        let reads = Fetched::take(&*self.kv, request.at, scans, deadline)?;
        let view = View(&reads);
        self.sampler.seen(&view)?;
        let newest = reads.version();
        let snapshot = request.at.unwrap_or(newest);
        if snapshot > newest {
            return Err(beyond(snapshot, newest));
        }
        self.begin_in_engine(request, snapshot, &view)
    }

    fn begin_in_memory(
        &self,
        request: &BeginRequest,
        newest: Version,
        state: &BranchState,
    ) -> Result<Quick> {
        let snapshot = request.at.unwrap_or(newest);
        if snapshot > newest {
            return Err(beyond(snapshot, newest));
        }
        if state.dropped {
            return Err(no_branch(request.branch));
        }
        check_watermark(snapshot, state.watermark)?;
        let changes = match self.known_version(request, snapshot) {
            None => Some(Changes::Unknown),
            Some(known) => state.changes(known, snapshot),
        };
        let found = (state.head_at(snapshot), state.allocation_at(snapshot), changes);
        let (Some(head), Some(allocation), Some(changes)) = found else {
            return Ok(Quick::AskEngine(snapshot));
        };
        let incarnation = self.incarnation;
        Ok(Quick::Reply(BeginReply { incarnation, snapshot, head, allocation, changes }))
    }

    fn begin_in_engine<R: Reads + ?Sized>(
        &self,
        request: &BeginRequest,
        snapshot: Version,
        view: &View<'_, R>,
    ) -> Result<BeginReply> {
        let BranchView { lineage, dropped, watermark } = view.branch(request.branch)?;
        if dropped {
            return Err(no_branch(request.branch));
        }
        check_watermark(snapshot, watermark)?;
        let head = view.head_at(&lineage, snapshot)?;
        let (made, allocation) = view.allocation_at(&lineage, snapshot)?;
        let lineage = Arc::new(lineage);
        if self.published.is_none() {
            self.remembered.note(request.branch, &lineage, snapshot, (made, allocation));
        }
        let changes = match self.known_version(request, snapshot) {
            None => Changes::Unknown,
            Some(known) if known >= head => Changes::Commits(Vec::new()),
            // Below the watermark the log may have been pruned.
            Some(known) if known < watermark => Changes::Unknown,
            Some(known) => view.changes(&lineage, known, snapshot)?,
        };
        let incarnation = self.incarnation;
        Ok(BeginReply { incarnation, snapshot, head, allocation, changes })
    }

    /// The version up to which the caller's page map is right, where that is of use.
    fn known_version(&self, request: &BeginRequest, snapshot: Version) -> Option<Version> {
        request
            .known
            .filter(|&(incarnation, known)| incarnation == self.incarnation && known <= snapshot)
            .map(|(_, known)| known)
    }

    /// Lineage and allocation at a snapshot that was begun with. `reads`, where given, were
    /// taken before this call: what they see was not pruned if the snapshot is not now.
    /// Without them the caller is about to commit, and memory may answer (R1).
    pub(super) fn basis(
        &self,
        branch: BranchId,
        snapshot: Version,
        reads: Option<&dyn Snapshot>,
        deadline: Deadline,
    ) -> Result<Basis> {
        if let Some(published) = &self.published {
            let (lineage, allocation) =
                self.with_branch(published, branch, deadline, |newest, state| {
                    if snapshot > newest {
                        return Err(beyond(snapshot, newest));
                    }
                    if state.dropped {
                        return Err(no_branch(branch));
                    }
                    check_watermark(snapshot, state.watermark)?;
                    Ok((Arc::clone(&state.lineage), state.allocation_at(snapshot)))
                })??;
            if let Some(allocation) = allocation {
                return Ok(Basis { lineage, allocation });
            }
        }
        if self.published.is_none()
            && reads.is_none()
            && let Some(basis) = self.remembered.basis(branch, snapshot)
        {
            return Ok(basis);
        }
        let taken;
        let reads = match reads {
            Some(reads) => reads,
            None => {
                let scans = branch_scans(branch, snapshot);
                taken = Fetched::take(&*self.kv, None, scans, deadline)?;
                &taken
            }
        };
        if self.published.is_none() && snapshot > reads.version() {
            return Err(beyond(snapshot, reads.version()));
        }
        let view = View(reads);
        let BranchView { lineage, dropped, watermark } = view.branch(branch)?;
        if dropped {
            return Err(no_branch(branch));
        }
        check_watermark(snapshot, watermark)?;
        let (_, allocation) = view.allocation_at(&lineage, snapshot)?;
        Ok(Basis { lineage: Arc::new(lineage), allocation })
    }
}
