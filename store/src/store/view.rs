//! What an engine's reads say about a branch: rows, heads, allocations, pages, log.
//!
//! Everything here is one moment of the engine and knows no memory of this process.

use crate::api::{Allocation, Change, Changes, MAX_BEGIN_CHANGES};
use crate::error::{Error, Result};
use crate::format::keys;
use crate::format::log::{LogAssembler, LogRecord};
use crate::format::records::{self, BranchRow, PageRecord};
use crate::kv::{Reads, Scan};
use crate::types::{BranchId, DatabaseId, DomainId, PageNumber, Version};

use super::fetched::{last, point};

/// Deepest chain of parents that is followed; deeper ones are flattened long before.
pub(super) const MAX_DEPTH: usize = 1024;

/// Entries that one step of a long scan takes; few in unit tests, for more steps.
const SCAN_STEP: usize = if cfg!(test) { 3 } else { 512 };

/// A branch and its parents. What it says never changes while the branch lives.
#[derive(Clone, Debug)]
pub(super) struct Lineage {
    pub(super) database: DatabaseId,
    pub(super) domain: DomainId,
    /// When the oldest ancestor was created: nothing is known before.
    pub(super) origin: Version,
    /// The branch itself first, then its parents, each with the newest version that
    /// counts there. Bounds never grow along the way.
    segments: Vec<(BranchId, Version)>,
}

impl Lineage {
    /// Where to look for what was current at `at`, nearest first.
    pub(super) fn segments(&self, at: Version) -> impl Iterator<Item = (BranchId, Version)> + '_ {
        self.segments.iter().map(move |&(branch, bound)| (branch, bound.min(at)))
    }

    /// The parts of `(after, up_to]`, oldest first.
    fn windows(&self, after: Version, up_to: Version) -> Vec<(BranchId, Version, Version)> {
        let mut windows = Vec::new();
        for (index, &(branch, bound)) in self.segments.iter().enumerate() {
            // What a branch wrote itself came after it left its parent.
            let left = self.segments.get(index + 1).map_or(Version::ZERO, |&(_, bound)| bound);
            let (low, high) = (after.max(left), up_to.min(bound));
            if low < high {
                windows.push((branch, low, high));
            }
            if after >= left {
                break;
            }
        }
        windows.reverse();
        windows
    }
}

/// A branch's row with its lineage.
pub(super) struct BranchView {
    pub(super) lineage: Lineage,
    pub(super) dropped: bool,
    pub(super) watermark: Version,
}

/// Refuses a snapshot below a watermark.
pub(super) fn check_watermark(snapshot: Version, watermark: Version) -> Result<()> {
    if snapshot < watermark {
        return Err(Error::Pruned { version: snapshot, oldest: watermark });
    }
    Ok(())
}

pub(super) fn no_branch(branch: BranchId) -> Error {
    Error::NotFound { what: format!("branch {branch} (its database was dropped)") }
}

/// What [`View::branch`] and [`View::allocation_at`] read of a branch that wrote its own
/// allocation up to `at`: to be fetched together.
pub(super) fn branch_scans(branch: BranchId, at: Version) -> Vec<Scan> {
    let allocations = keys::versions_up_to(&keys::allocation_prefix(branch), at);
    vec![point(keys::branch(branch)), point(keys::watermark(branch)), last(allocations)]
}

/// The first that [`View::walk_log`] reads of a branch's own log.
pub(super) fn log_scan(branch: BranchId, after: Version, up_to: Version) -> Scan {
    let range = keys::versions(&keys::log_prefix(branch), after, up_to);
    Scan { range, reverse: false, limit: SCAN_STEP }
}

/// What [`View::page_records`] reads of pages that the branch itself wrote up to `at`.
pub(super) fn page_scan(branch: BranchId, page: PageNumber, at: Version) -> Scan {
    last(keys::versions_up_to(&keys::page_prefix(branch, page), at))
}

/// Reads of one moment.
pub(super) struct View<'a, R: Reads + ?Sized>(pub(super) &'a R);

impl<R: Reads + ?Sized> View<'_, R> {
    /// The row of a branch, also of a dropped one.
    pub(super) fn branch_row(&self, branch: BranchId) -> Result<BranchRow> {
        let bytes = self.0.get(&keys::branch(branch))?.ok_or_else(|| no_branch(branch))?;
        BranchRow::decode(&bytes)
    }

    /// A branch, its parents and its watermark.
    pub(super) fn branch(&self, branch: BranchId) -> Result<BranchView> {
        let row = self.branch_row(branch)?;
        let mut segments = vec![(branch, Version::MAX)];
        let (mut origin, mut parent, mut bound) = (row.created, row.parent, Version::MAX);
        while let Some(up) = parent {
            if segments.len() >= MAX_DEPTH {
                return Err(Error::Corrupt {
                    what: format!("branch {branch}: more than {MAX_DEPTH} parents"),
                });
            }
            bound = bound.min(up.version);
            segments.push((up.branch, bound));
            let row = self.branch_row(up.branch).map_err(|e| match e {
                Error::NotFound { .. } => Error::Corrupt {
                    what: format!("branch {branch}: its parent {} is missing", up.branch),
                },
                other => other,
            })?;
            (origin, parent) = (row.created, row.parent);
        }
        let watermark = self.watermark(branch)?;
        let (database, domain) = (row.database, row.domain);
        let lineage = Lineage { database, domain, origin, segments };
        Ok(BranchView { lineage, dropped: row.dropped, watermark })
    }

    pub(super) fn watermark(&self, branch: BranchId) -> Result<Version> {
        match self.0.get(&keys::watermark(branch))? {
            Some(bytes) => records::decode_version(&bytes, "watermark record"),
            None => Ok(Version::ZERO),
        }
    }

    /// The newest commit up to `at`; [`Version::ZERO`] for none.
    pub(super) fn head_at(&self, lineage: &Lineage, at: Version) -> Result<Version> {
        for (branch, bound) in lineage.segments(at) {
            // The head answers without a scan where it is not behind the bound.
            if let Some(bytes) = self.0.get(&keys::head(branch))? {
                let head = records::decode_version(&bytes, "head record")?;
                if head <= bound {
                    return Ok(head);
                }
                if let Some((key, _)) = self.last_version(&keys::log_prefix(branch), bound)? {
                    return Ok(keys::parse_log(&key)?.1);
                }
            }
        }
        Ok(Version::ZERO)
    }

    /// The allocation at `at`, and the version that made it so.
    pub(super) fn allocation_at(
        &self,
        lineage: &Lineage,
        at: Version,
    ) -> Result<(Version, Allocation)> {
        for (branch, bound) in lineage.segments(at) {
            let found = self.last_version(&keys::allocation_prefix(branch), bound)?;
            if let Some((key, value)) = found {
                return Ok((keys::parse_allocation(&key)?.1, records::decode_allocation(&value)?));
            }
        }
        Ok((Version::ZERO, Allocation::EMPTY))
    }

    fn last_version(&self, prefix: &[u8], bound: Version) -> Result<Option<crate::kv::Entry>> {
        Ok(self.0.scan(&last(keys::versions_up_to(prefix, bound)))?.into_iter().next())
    }

    /// The newest record of each page up to `at`, in their order. `unmerged`: whether there
    /// may be commits whose pages are staged ones.
    pub(super) fn page_records(
        &self,
        lineage: &Lineage,
        at: Version,
        pages: &[PageNumber],
        unmerged: bool,
    ) -> Result<Vec<Option<(Version, PageRecord)>>> {
        let mut found: Vec<Option<(Version, PageRecord)>> = vec![None; pages.len()];
        let mut open: Vec<usize> = (0..pages.len()).collect();
        for (branch, bound) in lineage.segments(at) {
            let wanted: Vec<PageNumber> =
                open.iter().filter_map(|&index| pages.get(index).copied()).collect();
            let mut here = self.own_page_records(branch, bound, &wanted)?;
            if unmerged {
                let commits = self.unmerged(branch, bound)?;
                self.overlay(branch, &commits, &wanted, &mut here)?;
            }
            let mut still_open = Vec::new();
            for (&index, record) in open.iter().zip(here) {
                match (record, found.get_mut(index)) {
                    (Some(record), Some(slot)) => *slot = Some(record),
                    _ => still_open.push(index),
                }
            }
            open = still_open;
            if open.is_empty() {
                break;
            }
        }
        Ok(found)
    }

    /// The newest page records that a branch itself has up to `at`.
    fn own_page_records(
        &self,
        branch: BranchId,
        at: Version,
        pages: &[PageNumber],
    ) -> Result<Vec<Option<(Version, PageRecord)>>> {
        let scans: Vec<Scan> = pages.iter().map(|&page| page_scan(branch, page, at)).collect();
        let parse = |answer: Vec<crate::kv::Entry>| {
            let Some((key, value)) = answer.into_iter().next() else { return Ok(None) };
            Ok(Some((keys::parse_page(&key)?.2, PageRecord::decode(&value)?)))
        };
        self.0.scan_many(&scans)?.into_iter().map(parse).collect()
    }

    /// Gives `visit` every commit of `(after, up_to]`, oldest first, until it says `false`.
    pub(super) fn walk_log(
        &self,
        lineage: &Lineage,
        after: Version,
        up_to: Version,
        visit: &mut dyn FnMut(Version, LogRecord) -> Result<bool>,
    ) -> Result<()> {
        for window in lineage.windows(after, up_to) {
            if !self.walk_window(window, false, visit)? {
                break;
            }
        }
        Ok(())
    }

    /// As [`walk_log`](Self::walk_log), newest first.
    pub(super) fn walk_log_back(
        &self,
        lineage: &Lineage,
        after: Version,
        up_to: Version,
        visit: &mut dyn FnMut(Version, LogRecord) -> Result<bool>,
    ) -> Result<()> {
        for window in lineage.windows(after, up_to).into_iter().rev() {
            if !self.walk_window(window, true, visit)? {
                break;
            }
        }
        Ok(())
    }

    fn walk_window(
        &self,
        (branch, after, up_to): (BranchId, Version, Version),
        reverse: bool,
        visit: &mut dyn FnMut(Version, LogRecord) -> Result<bool>,
    ) -> Result<bool> {
        let mut range = keys::versions(&keys::log_prefix(branch), after, up_to);
        let mut parts = EntryParts { reverse, ..EntryParts::default() };
        loop {
            let scan = Scan { range: range.clone(), reverse, limit: SCAN_STEP };
            let entries = self.0.scan(&scan)?;
            let (count, last) = (entries.len(), entries.last().map(|(key, _)| key.to_vec()));
            for (key, value) in entries {
                let (_, version, part) = keys::parse_log(&key)?;
                if let Some(record) = parts.push(part, value)?
                    && !visit(version, record)?
                {
                    return Ok(false);
                }
            }
            match last {
                Some(last) if count == SCAN_STEP && reverse => range.end = last,
                Some(last) if count == SCAN_STEP => range.start = keys::after(&last),
                _ => break,
            }
        }
        parts.end()?;
        Ok(true)
    }

    /// What a client that knows `known` must hear to be right at `snapshot`.
    pub(super) fn changes(
        &self,
        lineage: &Lineage,
        known: Version,
        snapshot: Version,
    ) -> Result<Changes> {
        let mut commits = Vec::new();
        let (mut pages, mut fits) = (0usize, true);
        self.walk_log(lineage, known, snapshot, &mut |version, record| {
            pages += record.pages.len().max(1);
            fits = pages <= MAX_BEGIN_CHANGES;
            if fits {
                // Not those of a commit of millions of pages, which nobody would hear of.
                commits.push(to_change(version, &record));
            }
            Ok(fits)
        })?;
        Ok(if fits { Changes::Commits(commits) } else { Changes::Unknown })
    }
}

/// A log entry as a begin reports it.
pub(super) fn to_change(version: Version, record: &LogRecord) -> Change {
    Change { version, pages: record.pages.to_changes(), shrunk_to: record.shrunk_to }
}

/// Puts log entries together from their parts, as a scan in either direction gives them.
#[derive(Default)]
struct EntryParts {
    reverse: bool,
    upwards: LogAssembler,
    /// Downwards the last part of an entry comes first, its part 0 at the end.
    pending: Vec<(u16, bytes::Bytes)>,
}

impl EntryParts {
    /// Adds the next part; gives the entry once it is whole.
    fn push(&mut self, part: u16, value: bytes::Bytes) -> Result<Option<LogRecord>> {
        if !self.reverse {
            return self.upwards.push(part, &value);
        }
        self.pending.push((part, value));
        if part > 0 {
            return Ok(None);
        }
        let mut whole = None;
        for (part, value) in self.pending.drain(..).rev() {
            whole = self.upwards.push(part, &value)?;
        }
        whole.map(Some).ok_or_else(|| cut_short("end"))
    }

    /// Checks that the scan did not end within an entry.
    fn end(&self) -> Result<()> {
        match (self.upwards.is_partial(), self.pending.is_empty()) {
            (true, _) => Err(cut_short("end")),
            (false, false) => Err(cut_short("beginning")),
            (false, true) => Ok(()),
        }
    }
}

fn cut_short(what: &str) -> Error {
    Error::Corrupt { what: format!("log entry: its {what} is missing") }
}
