//! Staged pages that are page records, and how they become real ones.
//!
//! A commit of many pages publishes what was staged for it: one record a branch says that
//! at this version the pages staged under that id count. Reads look there too
//! ([`View::page_records`]). Merging moves the pages to where page records are, step by
//! step, and in the end takes that record away.
//!
//! # Invariants
//! * **U1** At every moment a page of an unmerged commit has either its staged page or its
//!   page record: one transaction writes the one and removes the other.
//! * **U2** A branch's unmerged record goes with the last of its staged pages or after it.
//! * **U3** Two that merge the same commit conflict: what one has moved the other does not
//!   write again, however late it is.
//! * **U4** While this process is an engine's only writer it knows of every unmerged commit
//!   before the engine does; where it knows of none, reads need not look.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Store;
use super::view::View;
use crate::env::Deadline;
use crate::error::{Error, Result};
use crate::format::keys::{self, Subspace};
use crate::format::records::{
    PageRecord, StagedPage, decode_staging, decode_unmerged, encode_reference,
};
use crate::kv::{Entry, Key, Mutation, Reads, Scan};
use crate::types::{BranchId, CommitId, DomainId, PageNumber, Version};

/// Pages moved by one transaction.
const STEP: usize = if cfg!(test) { 3 } else { 4096 };

/// How long after its last staged page a commit that never came is given up, in
/// microseconds. One that is only slow gets a conflict, and loses its work.
const ABANDONED_MICROS: i64 = 3_600_000_000;

/// The unmerged commits of an engine whose only writer is this process (U4).
#[derive(Default)]
pub(super) struct Unmerged {
    ids: Mutex<HashSet<CommitId>>,
}

impl Unmerged {
    /// Those that an engine has.
    pub(super) fn load<R: Reads + ?Sized>(reads: &R) -> Result<Self> {
        let scan = Scan { range: Subspace::Unmerged.range(), reverse: false, limit: usize::MAX };
        let found = reads.scan(&scan)?;
        let ids = found.iter().map(|(_, value)| decode_unmerged(value)).collect::<Result<_>>()?;
        Ok(Self { ids: Mutex::new(ids) })
    }

    fn lock(&self) -> MutexGuard<'_, HashSet<CommitId>> {
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called before the engine is asked to commit.
    pub(super) fn add(&self, id: CommitId) {
        self.lock().insert(id);
    }

    /// Whether there are none; holds for every snapshot begun before.
    pub(super) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }
}

/// What is outstanding of staged commits, as [`Store::tend`] left it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tended {
    /// Commits whose pages were merged.
    pub merged: u64,
    /// Commits that never came and were given up.
    pub discarded: u64,
    /// Commits that may still come.
    pub open: u64,
}

/// How far the merging of one commit has come.
pub(super) struct Merging {
    id: CommitId,
    version: Version,
    /// Nothing staged lies before: it was moved, and nothing comes any more (S1 of
    /// [`stage`](super::stage)). An engine passes over what was removed at a cost, which grew
    /// with the square of the pages.
    pub(super) from: Key,
    /// The branch moved last, with its domain.
    domain: Option<(BranchId, DomainId)>,
}

impl Merging {
    /// Nothing was moved yet of the commit of that version.
    pub(super) fn of(id: CommitId, version: Version) -> Self {
        Self { id, version, from: keys::staged_pages(id, None).start, domain: None }
    }
}

impl Store {
    /// Merges the pages of large commits and gives up what was staged for commits that never
    /// came. To be called again and again by whoever keeps a store in order; harmless from
    /// many at once.
    ///
    /// # Errors
    /// Those of the engine; what was done stays done. `Corrupt` where records of a commit are
    /// damaged, after all others were tended to.
    pub fn tend(&self, deadline: Deadline) -> Result<Tended> {
        let mut tended = Tended::default();
        // Of records that are damaged: the other commits are not to suffer.
        let mut failed = None;
        let mut range = Subspace::Staging.range();
        loop {
            let entries = self.retrying(deadline, || {
                let scan = Scan { range: range.clone(), reverse: false, limit: STEP };
                Ok(self.kv.snapshot(deadline)?.scan(&scan)?)
            })?;
            for (key, value) in &entries {
                match self.tend_one(key, value, &mut tended, deadline) {
                    Err(error @ (Error::Corrupt { .. } | Error::FormatVersion { .. })) => {
                        failed.get_or_insert(error);
                    }
                    result => result?,
                }
            }
            match entries.last() {
                Some((last, _)) if entries.len() == STEP => range.start = keys::after(last),
                _ => return failed.map_or(Ok(tended), Err),
            }
        }
    }

    fn tend_one(
        &self,
        key: &[u8],
        value: &[u8],
        tended: &mut Tended,
        deadline: Deadline,
    ) -> Result<()> {
        let id = keys::parse_staging(key)?;
        let age = self.env.clock.unix_micros().saturating_sub(decode_staging(value)?);
        if let Some(version) = self.find_commit_now(id, deadline)? {
            self.settle(id, version, deadline)?;
            tended.merged += 1;
        } else if age > ABANDONED_MICROS || self.is_given_up(id, deadline)? {
            self.unstage_now(id, deadline)?;
            tended.discarded += 1;
        } else {
            tended.open += 1;
        }
        Ok(())
    }

    /// Whether the commit of that id will never come, though what was staged for it is there:
    /// whoever gave it up died, or had no time left to remove everything.
    fn is_given_up(&self, id: CommitId, deadline: Deadline) -> Result<bool> {
        let mark = self
            .retrying(deadline, || Ok(self.kv.snapshot(deadline)?.get(&keys::discarded(id))?));
        Ok(mark?.is_some())
    }

    /// Merges a commit right after it, as far as that goes in half of the time that is left.
    /// Failing is no error of the commit: reads find its pages where they are.
    pub(super) fn settle_soon(&self, id: CommitId, version: Version, deadline: Deadline) {
        #[cfg(test)]
        if self.unhurried.load(std::sync::atomic::Ordering::Relaxed) {
            return;
        }
        let half = self.env.remaining(deadline).map(|left| self.env.deadline(left / 2));
        if let Err(error) = half.and_then(|half| self.settle(id, version, half)) {
            tracing::debug!(%id, %error, "pages of a large commit are not merged yet");
        }
    }

    /// Moves all that was staged for the commit of that version to its place.
    pub(super) fn settle(&self, id: CommitId, version: Version, deadline: Deadline) -> Result<()> {
        let mut merging = Merging::of(id, version);
        while self.retrying(deadline, || self.settle_step(&mut merging, deadline))? {}
        self.note_merged(id);
        Ok(())
    }

    /// Nothing staged for this commit is anybody's page record any more.
    pub(super) fn note_merged(&self, id: CommitId) {
        self.unmerged.lock().remove(&id);
    }

    /// One transaction of it; says whether there is more to do.
    pub(super) fn settle_step(&self, merging: &mut Merging, deadline: Deadline) -> Result<bool> {
        let Merging { id, version, .. } = *merging;
        let reads = self.kv.snapshot(deadline)?;
        let range = merging.from.clone()..keys::staged_pages(id, None).end;
        let entries = reads.scan(&Scan { range, reverse: false, limit: STEP + 1 })?;
        let Some((first, _)) = entries.first() else {
            let mark = Mutation::Delete { key: keys::staging(id) };
            self.apply_at(reads.version(), vec![mark], [Vec::new(), Vec::new()], deadline)?;
            return Ok(false);
        };
        let branch = keys::parse_staged_page(first)?.1;
        let mut pages = Vec::with_capacity(entries.len());
        for (key, value) in &entries {
            let (_, of, page) = keys::parse_staged_page(key)?;
            if of == branch {
                pages.push((page, StagedPage::decode(value)?));
            }
        }
        // One more than is moved was asked for, to see whether these are the last (U2).
        let last = pages.len() <= STEP;
        pages.truncate(STEP);
        let unmerged = keys::unmerged(branch, version);
        let mut mutations = Vec::with_capacity(3 * pages.len() + 1);
        if reads.get(&unmerged)?.is_some() {
            let domain = match merging.domain {
                Some((of, domain)) if of == branch => domain,
                _ => View(&*reads).branch_row(branch)?.domain,
            };
            merging.domain = Some((branch, domain));
            for (page, staged) in &pages {
                push_records(&mut mutations, (domain, branch), version, *page, *staged);
            }
            if last {
                mutations.push(Mutation::Delete { key: unmerged.clone() });
            }
        }
        let moved: Vec<Key> =
            pages.iter().map(|(page, _)| keys::staged_page(id, branch, *page)).collect();
        let from = keys::after(moved.last().map_or(first.as_ref(), Vec::as_slice));
        mutations.extend(moved.into_iter().map(|key| Mutation::Delete { key }));
        let turn = vec![keys::only(unmerged)];
        self.apply_at(reads.version(), mutations, [turn.clone(), turn], deadline)?;
        merging.from = from;
        Ok(true)
    }
}

/// The page record and the reference of a page, both of a version that is known.
fn push_records(
    mutations: &mut Vec<Mutation>,
    (domain, branch): (DomainId, BranchId),
    version: Version,
    page: PageNumber,
    staged: StagedPage,
) {
    let at = |mut key: Vec<u8>| {
        key.extend_from_slice(&version.to_bytes());
        key
    };
    mutations.push(Mutation::Put {
        key: at(keys::page_prefix(branch, page)),
        value: PageRecord::Content(staged.hash).encode(),
    });
    mutations.push(Mutation::Put {
        key: at(keys::reference_prefix(domain, staged.hash, branch, page)),
        value: encode_reference(),
    });
}

/// What [`View::unmerged`] reads of a branch.
pub(super) fn unmerged_scan(branch: BranchId, at: Version) -> Scan {
    let range = keys::versions_up_to(&keys::unmerged_prefix(branch), at);
    Scan { range, reverse: true, limit: usize::MAX }
}

impl<R: Reads + ?Sized> View<'_, R> {
    /// Whether anything is staged for a commit, and not given up.
    pub(super) fn is_staged(&self, id: CommitId) -> Result<bool> {
        let mark = self.0.get(&keys::staging(id))?;
        let there = mark.map(|bytes| decode_staging(&bytes)).transpose()?.is_some();
        Ok(there && self.0.get(&keys::discarded(id))?.is_none())
    }

    /// The branch's unmerged commits up to `at`, newest first.
    pub(super) fn unmerged(
        &self,
        branch: BranchId,
        at: Version,
    ) -> Result<Vec<(Version, CommitId)>> {
        let of = |(key, value): &Entry| Ok((keys::parse_unmerged(key)?.1, decode_unmerged(value)?));
        self.0.scan(&unmerged_scan(branch, at))?.iter().map(of).collect()
    }

    /// Puts the newer pages of unmerged commits in place of what page records say.
    pub(super) fn overlay(
        &self,
        branch: BranchId,
        commits: &[(Version, CommitId)],
        pages: &[PageNumber],
        found: &mut [Option<(Version, PageRecord)>],
    ) -> Result<()> {
        // All in one go, for each page the newest commit first.
        let mut asked = Vec::new();
        for (&page, slot) in pages.iter().zip(found.iter_mut()) {
            let newer = slot.as_ref().map_or(Version::ZERO, |(version, _)| *version);
            for &(version, id) in commits.iter().take_while(|(version, _)| *version > newer) {
                asked.push((keys::staged_page(id, branch, page), version));
            }
        }
        if asked.is_empty() {
            return Ok(());
        }
        let keys: Vec<Key> = asked.iter().map(|(key, _)| key.clone()).collect();
        let mut answers: BTreeMap<PageNumber, (Version, PageRecord)> = BTreeMap::new();
        for ((key, version), value) in asked.into_iter().zip(self.0.get_many(&keys)?) {
            if let Some(value) = value {
                let record = PageRecord::Content(StagedPage::decode(&value)?.hash);
                // The newest came first.
                answers.entry(keys::parse_staged_page(&key)?.2).or_insert((version, record));
            }
        }
        for (page, slot) in pages.iter().zip(found.iter_mut()) {
            if let Some(answer) = answers.get(page) {
                *slot = Some(answer.clone());
            }
        }
        Ok(())
    }
}
