//! Parts of a commit that are sent ahead of it.
//!
//! Content goes to its place at once; beside it stand records of which page is to get it,
//! by commit id. A commit of few pages turns those into page records itself; in place of a
//! larger one's page records they are read as they are, until they are [`merged`](super::merge).
//!
//! # Invariants
//! * **S1** What is staged for an id changes no more once the commit took effect: staging
//!   conflicts on the commit's id, and so does what takes staging back.
//! * **S2** A discarded id never takes effect: a commit of staged pages conflicts on the mark.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Store;
use super::fetched::{Fetched, point};
use super::prepare::MAX_COMMIT_PAGES;
use super::view::{View, no_branch};
use crate::api::{CommitPart, CommitRequest, StageRequest};
use crate::env::Deadline;
use crate::error::{Error, Result};
use crate::format::keys;
use crate::format::records::{
    StagedPage, encode_content, encode_discarded, encode_staging, encode_unmerged,
};
use crate::kv::{Commit, Durability, KeyRange, Mutation, Reads, Scan};
use crate::types::{BranchId, CommitId, ContentHash, DomainId, PageNumber, PageSize, Version};

/// Bytes of content given to the engine at once. Small in unit tests, as the two below, so
/// that those see more than one step.
const STAGE_BYTES: u64 = if cfg!(test) { 8 << 10 } else { 4 << 20 };

/// Bytes of pages past which a commit's content is written ahead of it.
const SPILL_BYTES: u64 = if cfg!(test) { 16 << 10 } else { 8 << 20 };

/// Records swept, or read, at once.
const STEP: usize = if cfg!(test) { 3 } else { 4096 };

/// A page to stage.
pub(super) struct ToStage {
    pub(super) page: PageNumber,
    pub(super) staged: StagedPage,
    /// The content record's value.
    pub(super) value: Bytes,
}

/// Whether pages can be staged for a commit.
enum Staging {
    Open,
    /// It took effect: there is nothing to stage for any more.
    Done(Version),
}

pub(super) fn is_discarded(id: CommitId) -> Error {
    Error::Conflict { what: format!("the staged pages of commit {id} (given up meanwhile)") }
}

impl Store {
    pub(super) fn stage_now(&self, request: &StageRequest, deadline: Deadline) -> Result<()> {
        let basis = self.retrying(deadline, || {
            let reads = self.kv.snapshot(deadline)?;
            let view = View(&*reads);
            let found = view.branch(request.branch)?;
            if found.dropped {
                return Err(no_branch(request.branch));
            }
            Ok(found.lineage)
        })?;
        if basis.domain != request.domain {
            return Err(Error::InvalidRequest {
                what: format!("branch {} belongs to another content domain", request.branch),
            });
        }
        let pages = request.pages.iter().map(|(page, content)| {
            let size = PageSize::new(u32::try_from(content.len()).unwrap_or(u32::MAX))?;
            let staged = StagedPage { hash: ContentHash::of(content), size };
            Ok(ToStage { page: *page, staged, value: encode_content(content) })
        });
        self.stage_pages(request.id, (request.branch, request.domain), pages, deadline)
    }

    /// Stages pages, in as many transactions as their content needs.
    pub(super) fn stage_pages(
        &self,
        id: CommitId,
        (branch, domain): (BranchId, DomainId),
        pages: impl Iterator<Item = Result<ToStage>>,
        deadline: Deadline,
    ) -> Result<()> {
        let limit = STAGE_BYTES.min(self.kv.limits().transaction_bytes / 2);
        // A content is written once though several pages have it.
        let mut contents = BTreeMap::new();
        let (mut mutations, mut bytes, mut count) = (Vec::new(), 0, 0);
        for page in pages {
            let ToStage { page, staged, value } = page?;
            bytes += value.len() as u64;
            count += 1;
            mutations.push(Mutation::Put {
                key: keys::staged_page(id, branch, page),
                value: staged.encode(),
            });
            contents.insert(keys::content(domain, staged.hash), value);
            if bytes >= limit {
                self.put_staged(id, &mut mutations, &mut contents, deadline)?;
                bytes = 0;
            }
        }
        self.put_staged(id, &mut mutations, &mut contents, deadline)?;
        self.counters.staged(count);
        Ok(())
    }

    /// Writes some staged pages, as long as their commit may still come (S1, S2).
    fn put_staged(
        &self,
        id: CommitId,
        mutations: &mut Vec<Mutation>,
        contents: &mut BTreeMap<Vec<u8>, Bytes>,
        deadline: Deadline,
    ) -> Result<()> {
        let contents = std::mem::take(contents);
        mutations.extend(contents.into_iter().map(|(key, value)| Mutation::Put { key, value }));
        let value = encode_staging(self.env.clock.unix_micros());
        mutations.push(Mutation::Put { key: keys::staging(id), value });
        let ends = [keys::commit_id(id), keys::discarded(id)];
        self.retrying(deadline, || {
            let scans = ends.iter().cloned().map(point).collect();
            let reads = Fetched::take(&*self.kv, None, scans, deadline)?;
            if let Staging::Done(_) = staging(&View(&reads), id)? {
                return Ok(());
            }
            let commit = Commit {
                snapshot: crate::kv::Snapshot::version(&reads),
                read_conflicts: ends.iter().cloned().map(keys::only).collect::<Vec<_>>().into(),
                mutations: mutations.clone(),
                durability: Durability::Buffered,
                on_publish: self.on_version(),
                ..Commit::default()
            };
            self.kv.commit_at(commit, deadline)?;
            Ok(())
        })?;
        mutations.clear();
        Ok(())
    }

    /// Whether a commit's pages are too much for one transaction of the engine, or for its
    /// memory.
    pub(super) fn is_large(&self, request: &CommitRequest) -> bool {
        let pages = request.parts.iter().flat_map(|part| &part.writes);
        let bytes: u64 = pages.map(|(_, bytes)| bytes.len() as u64).sum();
        bytes > SPILL_BYTES.min(self.kv.limits().transaction_bytes / 4)
    }

    /// Stages what a large commit brings: the same commit with its pages staged.
    pub(super) fn spill(
        &self,
        request: &CommitRequest,
        deadline: Deadline,
    ) -> Result<CommitRequest> {
        for part in request.parts.iter().filter(|part| !part.writes.is_empty()) {
            let stage = StageRequest {
                id: request.id,
                branch: part.branch,
                domain: part.domain,
                pages: part.writes.clone(),
            };
            self.stage_now(&stage, deadline)?;
        }
        let parts = request.parts.iter().map(|part| CommitPart {
            writes: Vec::new(),
            hashes: Vec::new(),
            staged: part.staged || !part.writes.is_empty(),
            reads: part.reads.clone(),
            ..*part
        });
        Ok(CommitRequest { parts: parts.collect(), client: request.client.clone(), ..*request })
    }

    /// Applies changes that may be applied again and conflict with nobody.
    fn apply(&self, mutations: &[Mutation], deadline: Deadline) -> Result<()> {
        self.retrying(deadline, || {
            let snapshot = self.kv.snapshot(deadline)?.version();
            self.apply_at(snapshot, mutations.to_vec(), [Vec::new(), Vec::new()], deadline)
        })
    }

    /// Applies changes that were worked out at a snapshot: with read and write conflicts.
    pub(super) fn apply_at(
        &self,
        snapshot: Version,
        mutations: Vec<Mutation>,
        [reads, writes]: [Vec<KeyRange>; 2],
        deadline: Deadline,
    ) -> Result<()> {
        let commit = Commit {
            snapshot,
            mutations,
            read_conflicts: reads.into(),
            write_conflicts: writes,
            durability: Durability::Buffered,
            on_publish: self.on_version(),
        };
        self.kv.commit_at(commit, deadline)?;
        Ok(())
    }

    /// The pages staged for one branch of a commit, ascending.
    pub(super) fn staged_pages(
        &self,
        id: CommitId,
        branch: BranchId,
        deadline: Deadline,
    ) -> Result<Vec<(PageNumber, StagedPage)>> {
        let mut range = keys::staged_pages(id, Some(branch));
        let mut pages = Vec::new();
        loop {
            // A snapshot for each step: an engine may not keep one long enough for all. Who
            // commits has staged everything; what changes it makes the commit conflict.
            let scan = Scan { range: range.clone(), reverse: false, limit: STEP };
            let marks = [keys::staging(id), keys::discarded(id)].map(point);
            let scans = marks.into_iter().chain([scan.clone()]).collect();
            let reads = Fetched::take(&*self.kv, None, scans, deadline)?;
            if !View(&reads).is_staged(id)? {
                return Err(Error::InvalidRequest {
                    what: format!("nothing is staged for commit {id}"),
                });
            }
            let entries = reads.scan(&scan)?;
            for (key, value) in &entries {
                let (_, _, page) = keys::parse_staged_page(key)?;
                pages.push((page, StagedPage::decode(value)?));
            }
            if pages.len() > MAX_COMMIT_PAGES {
                return Err(Error::TooLarge {
                    what: "a commit in pages".into(),
                    size: pages.len() as u64,
                    limit: MAX_COMMIT_PAGES as u64,
                });
            }
            match entries.last() {
                Some((last, _)) if entries.len() == STEP => range.start = keys::after(last),
                _ => return Ok(pages),
            }
        }
    }

    /// Removes what was staged for a commit that will not come; that of one that came is
    /// what its pages are, and stays theirs.
    pub(super) fn unstage_now(&self, id: CommitId, deadline: Deadline) -> Result<()> {
        let done = self.retrying(deadline, || {
            let reads = self.kv.snapshot(deadline)?;
            match staging(&View(&*reads), id) {
                Ok(Staging::Done(version)) => return Ok(Some(version)),
                Err(Error::Conflict { .. }) => return Ok(None),
                Ok(Staging::Open) => {}
                Err(error) => return Err(error),
            }
            let value = encode_discarded(self.env.clock.unix_micros());
            let mark = Mutation::Put { key: keys::discarded(id), value };
            let conflicts =
                [vec![keys::only(keys::commit_id(id))], vec![keys::only(keys::discarded(id))]];
            self.apply_at(reads.version(), vec![mark], conflicts, deadline)?;
            Ok(None)
        })?;
        if let Some(version) = done {
            return self.settle(id, version, deadline);
        }
        // The staging mark last: as long as it stands, what is left can be found.
        self.remove_staged_pages(id, deadline)?;
        self.apply(&[Mutation::Delete { key: keys::staging(id) }], deadline)?;
        self.note_merged(id);
        Ok(())
    }

    /// Removes what was staged for a commit that failed. Failing in turn is no error of the
    /// commit: what stays is garbage, and can be found by its id.
    pub(super) fn sweep_staged(&self, id: CommitId, deadline: Deadline) {
        if let Err(error) = self.unstage_now(id, deadline) {
            tracing::debug!(%id, %error, "staged pages of a failed commit stay for now");
        }
    }

    fn remove_staged_pages(&self, id: CommitId, deadline: Deadline) -> Result<()> {
        let mut range = keys::staged_pages(id, None);
        loop {
            let entries = self.retrying(deadline, || {
                let scan = Scan { range: range.clone(), reverse: false, limit: STEP };
                Ok(self.kv.snapshot(deadline)?.scan(&scan)?)
            })?;
            let more = entries.len() == STEP;
            // On from here: an engine passes over what was removed at a cost.
            if let Some((last, _)) = entries.last() {
                range.start = keys::after(last);
            }
            let deletes: Vec<Mutation> = entries
                .into_iter()
                .map(|(key, _)| Mutation::Delete { key: key.to_vec() })
                .collect();
            if !deletes.is_empty() {
                self.apply(&deletes, deadline)?;
            }
            if !more {
                return Ok(());
            }
        }
    }
}

/// What became of a commit id, as far as staging goes.
///
/// # Errors
/// `Conflict` for one that was discarded.
fn staging<R: Reads + ?Sized>(view: &View<'_, R>, id: CommitId) -> Result<Staging> {
    if let Some(version) = view.find_commit(id)? {
        return Ok(Staging::Done(version));
    }
    if view.0.get(&keys::discarded(id))?.is_some() {
        return Err(is_discarded(id));
    }
    Ok(Staging::Open)
}

/// The change by which staged pages become a branch's page records.
pub(super) fn publish(branch: BranchId, id: CommitId) -> Mutation {
    Mutation::PutVersionedKey {
        prefix: keys::unmerged_prefix(branch),
        suffix: Vec::new(),
        value: encode_unmerged(id),
    }
}
