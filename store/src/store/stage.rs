//! Parts of a commit that are sent ahead of it.
//!
//! Content goes to its place at once; beside it stand records of which page is to get it,
//! by commit id. The commit turns those into page records. What is left of them, after a
//! commit or because none came, is found by its id and swept.

use super::Store;
use super::view::{View, no_branch};
use crate::api::{CommitPart, CommitRequest, StageRequest};
use crate::env::Deadline;
use crate::error::{Error, Result};
use crate::format::keys;
use crate::format::records::{StagedPage, decode_staging, encode_content, encode_staging};
use crate::kv::{Commit, Durability, Mutation, Scan};
use crate::types::{BranchId, CommitId, ContentHash, PageNumber, PageSize};

use super::prepare::MAX_COMMIT_PAGES;

/// Bytes of content given to the engine at once. Small in unit tests, as the two below, so
/// that those see more than one step.
const STAGE_BYTES: u64 = if cfg!(test) { 8 << 10 } else { 4 << 20 };

/// Bytes of pages past which a commit's content is written ahead of it.
const SPILL_BYTES: u64 = if cfg!(test) { 16 << 10 } else { 8 << 20 };

/// Records swept, or read, at once.
const STEP: usize = if cfg!(test) { 3 } else { 4096 };

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
        let mut mutations = vec![self.staging_mark(request.id)];
        let (mut bytes, limit) = (0, STAGE_BYTES.min(self.kv.limits().transaction_bytes / 2));
        for (page, content) in &request.pages {
            let size = PageSize::new(u32::try_from(content.len()).unwrap_or(u32::MAX))?;
            let hash = ContentHash::of(content);
            let value = encode_content(content);
            bytes += value.len() as u64;
            mutations.push(Mutation::Put { key: keys::content(basis.domain, hash), value });
            mutations.push(Mutation::Put {
                key: keys::staged_page(request.id, request.branch, *page),
                value: StagedPage { hash, size }.encode(),
            });
            if bytes >= limit {
                self.apply(&mutations, deadline)?;
                mutations.truncate(1);
                bytes = 0;
            }
        }
        self.apply(&mutations, deadline)?;
        self.counters.staged(request.pages.len() as u64);
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
            staged: part.staged || !part.writes.is_empty(),
            reads: part.reads.clone(),
            ..*part
        });
        Ok(CommitRequest { parts: parts.collect(), client: request.client.clone(), ..*request })
    }

    fn staging_mark(&self, id: CommitId) -> Mutation {
        let value = encode_staging(self.env.clock.unix_micros());
        Mutation::Put { key: keys::staging(id), value }
    }

    /// Applies changes that may be applied again and conflict with nobody.
    fn apply(&self, mutations: &[Mutation], deadline: Deadline) -> Result<()> {
        self.retrying(deadline, || {
            let snapshot = self.kv.snapshot(deadline)?.version();
            let commit = Commit {
                snapshot,
                mutations: mutations.to_vec(),
                durability: Durability::Buffered,
                on_publish: self.on_version(),
                ..Commit::default()
            };
            self.kv.commit_at(commit, deadline)?;
            Ok(())
        })
    }

    /// The pages staged for one branch of a commit, ascending.
    pub(super) fn staged_pages(
        &self,
        id: CommitId,
        branch: BranchId,
        deadline: Deadline,
    ) -> Result<Vec<(PageNumber, StagedPage)>> {
        let reads = self.kv.snapshot(deadline)?;
        let mark = reads.get(&keys::staging(id))?;
        if mark.map(|bytes| decode_staging(&bytes)).transpose()?.is_none() {
            return Err(Error::InvalidRequest {
                what: format!("nothing is staged for commit {id}"),
            });
        }
        let mut range = keys::staged_pages(id, Some(branch));
        let mut pages = Vec::new();
        loop {
            let scan = Scan { range: range.clone(), reverse: false, limit: STEP };
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

    /// Removes what was staged for a commit that will not come.
    pub(super) fn unstage_now(&self, id: CommitId, deadline: Deadline) -> Result<()> {
        // The mark last: as long as it stands, what is left can be found.
        self.remove_staged_pages(id, deadline)?;
        self.apply(&[Mutation::Delete { key: keys::staging(id) }], deadline)
    }

    /// Removes the staged pages of a commit that has ended. Failing is no error of the
    /// commit: what stays is garbage, and can be found by its id.
    pub(super) fn sweep_staged(&self, id: CommitId, deadline: Deadline) {
        if let Err(error) = self.unstage_now(id, deadline) {
            tracing::debug!(%id, %error, "staged pages of a finished commit stay for now");
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
