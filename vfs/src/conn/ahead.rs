//! Pages sent to the store ahead of the commit that they are part of.

use interleaf_store::Result;
use interleaf_store::api::StageRequest;
use interleaf_store::types::{BranchId, CommitId, DomainId};

use super::parts::Pages;
use super::stats::Stats;
use super::store::Store;

/// What was sent ahead of one commit.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    id: Option<CommitId>,
    staged: bool,
}

impl Ahead {
    /// The commit's id.
    ///
    /// # Errors
    /// Where the system gives no randomness.
    pub(super) fn id(&mut self, store: &Store) -> Result<CommitId> {
        match self.id {
            Some(id) => Ok(id),
            None => Ok(*self.id.insert(store.commit_id()?)),
        }
    }

    /// Sends some pages of one file.
    ///
    /// # Errors
    /// Those of the store.
    pub(super) fn send(
        &mut self,
        store: &Store,
        (branch, domain): (BranchId, DomainId),
        pages: Pages,
        stats: &mut Stats,
    ) -> Result<()> {
        let id = self.id(store)?;
        // Also where this fails: the store may have some of them.
        self.staged = true;
        store.stage(&StageRequest { id, branch, domain, pages }, stats)
    }

    /// Says to the store that the commit will not come. It drops what was staged by itself in
    /// time, so that a failure here is none of the commit's.
    pub(super) fn take_back(&self, store: &Store, stats: &mut Stats) {
        if let Some(id) = self.id.filter(|_| self.staged)
            && let Err(error) = store.unstage(id, stats)
        {
            tracing::debug!(%error, %id, "staged pages could not be dropped");
        }
    }
}
