//! From a commit request to what is written and what is checked: everything that does not
//! depend on the version at which the engine is asked to commit.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;

use super::Store;
use super::bases::{Base, Bases, MOST_AT_ONCE, NewBase};
use super::stage::{ToStage, publish};
use super::view::Lineage;
use crate::api::{Allocation, AllocationChange, CommitPart, CommitRequest, MAX_LOG_HASHES};
use crate::env::Deadline;
use crate::error::{Error, Result};
use crate::format::delta;
use crate::format::log::{LogPages, LogRecord};
use crate::format::records::{self, PageRecord, StagedPage, decode_content, encode_content};
use crate::format::{MAX_CLIENT_BYTES, keys};
use crate::kv::{ConflictSet, Key, KeyRange, Mutation, ReadConflicts};
use crate::sqlite_file::VIRTUAL;
use crate::types::{
    BranchId, CommitId, ContentHash, DomainId, PageCount, PageNumber, PageSet, PageSize, runs,
};

/// Most pages that one commit writes in one branch, the pages of zeros that it grew over
/// included: 16 GiB of 4 KiB pages.
pub(super) const MAX_COMMIT_PAGES: usize = 1 << 22;

/// Most branches in one commit: SQLite attaches at most 125 databases.
const MAX_PARTS: usize = 128;

/// Most ranges of logical conflicts of a kind given to an engine for one commit; past it,
/// neighbouring runs of pages are merged. The log judges exactly what that brings up.
const MAX_CONFLICT_RANGES: usize = 10_000;

/// Most pages that a commit gives records in its own transaction; those of a larger one are
/// published as they are staged. Records and conflict keys of so many take about 6 MB of
/// FoundationDB's 10. Few in unit tests, so that those see both ways.
const INDEXED_PAGES: usize = if cfg!(test) { 12 } else { 16_384 };

/// Most pages whose hashes are logged; fewer in unit tests, so that those see both kinds.
const LOGGED_HASHES: usize = if cfg!(test) { 4 } else { MAX_LOG_HASHES };

/// A commit, ready to be put to the engine at one snapshot after another.
pub(super) struct Prepared<'a> {
    pub(super) request: &'a CommitRequest,
    pub(super) parts: Vec<PreparedPart<'a>>,
    /// Whether all its pages are staged, and published by one record a branch: its own
    /// transaction is small, however many they are.
    pub(super) indexed: bool,
}

/// What the commit does in one branch.
pub(super) struct PreparedPart<'a> {
    pub(super) part: &'a CommitPart,
    pub(super) lineage: Arc<Lineage>,
    /// The read set, the write set included.
    pub(super) reads: PageSet,
    pub(super) write: Option<PartWrite>,
}

/// What it writes there.
pub(super) struct PartWrite {
    domain: DomainId,
    branch: BranchId,
    pages: BTreeMap<PageNumber, Written>,
    allocation: Option<Allocation>,
    shrunk_to: Option<PageCount>,
    page_size: PageSize,
    pub(super) record: Arc<LogRecord>,
}

/// A page's new content.
enum Written {
    /// With the content record's value.
    Content(ContentHash, Bytes),
    /// What differs from a full page in the store, and the page itself.
    Delta { hash: ContentHash, base: ContentHash, delta: Bytes, page: Bytes },
    /// Its content is in the store already.
    Staged(ContentHash),
    /// The database grew over it.
    Zeros,
}

/// How pages are written of which only a difference is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As the difference: the engine says whether the base was deleted since the snapshot.
    Small,
    /// As whole pages: for an attempt at a later snapshot, before which it may have been.
    Whole,
}

fn invalid(what: String) -> Error {
    Error::InvalidRequest { what }
}

fn too_large(what: &str, size: usize, limit: usize) -> Error {
    Error::TooLarge { what: what.to_owned(), size: size as u64, limit: limit as u64 }
}

/// Whether a part changes its branch.
pub(super) fn part_writes(part: &CommitPart) -> bool {
    !part.writes.is_empty() || part.staged || part.allocation.is_some()
}

/// Whether a request may write more pages than its own transaction gives records.
pub(super) fn may_be_indexed(request: &CommitRequest) -> bool {
    let pages = |part: &CommitPart| {
        let grown = part.allocation.map_or(0, |AllocationChange { before, after, .. }| {
            let kept = if before.page_size == after.page_size { before.pages.0 } else { 0 };
            after.pages.0.saturating_sub(kept)
        });
        part.writes.len() + grown as usize
    };
    request.parts.iter().any(|part| part.staged)
        || request.parts.iter().map(pages).sum::<usize>() > INDEXED_PAGES
}

/// What can be said of a request without the store.
pub(super) fn check_request(request: &CommitRequest) -> Result<()> {
    if request.client.len() > MAX_CLIENT_BYTES {
        return Err(too_large("the client text in bytes", request.client.len(), MAX_CLIENT_BYTES));
    }
    if request.parts.is_empty() {
        return Err(invalid("a commit without parts".into()));
    }
    if request.parts.len() > MAX_PARTS {
        return Err(too_large("a commit in branches", request.parts.len(), MAX_PARTS));
    }
    let mut branches = HashSet::new();
    for part in &request.parts {
        if !branches.insert(part.branch) {
            return Err(invalid(format!("branch {} is in the commit twice", part.branch)));
        }
        if !part.writes.is_sorted_by(|(a, _), (b, _)| a < b) {
            return Err(invalid(format!("branch {}: pages not in ascending order", part.branch)));
        }
        if !part.hashes.is_empty() && part.hashes.len() != part.writes.len() {
            return Err(invalid(format!("branch {}: not a hash for each page", part.branch)));
        }
        if let Some((page, bytes)) = part.writes.first()
            && *page == PageNumber::ONE
            && VIRTUAL
                .into_iter()
                .any(|range| bytes.get(range).is_some_and(|b| b.iter().any(|&b| b != 0)))
        {
            return Err(invalid(
                "page 1 comes with bytes 24..40 and 92..100 zero, and here does not".into(),
            ));
        }
    }
    Ok(())
}

impl Store {
    /// Checks the request against the store and works out what it writes.
    pub(super) fn prepare<'a>(
        &self,
        request: &'a CommitRequest,
        deadline: Deadline,
    ) -> Result<Prepared<'a>> {
        let mut parts = request
            .parts
            .iter()
            .map(|part| self.prepare_part(request, part, deadline))
            .collect::<Result<Vec<_>>>()?;
        let mut writes: Vec<&mut PartWrite> =
            parts.iter_mut().filter_map(|part| part.write.as_mut()).collect();
        let pages = writes.iter().map(|write| write.pages.len()).sum::<usize>();
        let indexed = pages > INDEXED_PAGES;
        if indexed {
            for write in &mut writes {
                self.stage_rest(request.id, write, deadline)?;
            }
        }
        Ok(Prepared { request, parts, indexed })
    }

    /// Stages what a commit writes and has not staged, pages of zeros as any others.
    fn stage_rest(&self, id: CommitId, write: &mut PartWrite, deadline: Deadline) -> Result<()> {
        let size = write.page_size;
        let mut zeros = None;
        let rest = write.pages.iter_mut().filter_map(|(&page, written)| {
            let (hash, value) = match written {
                Written::Staged(_) => return None,
                Written::Content(hash, value) => (*hash, std::mem::take(value)),
                // Such a commit gets no bases.
                Written::Delta { .. } => {
                    let what = format!("page {page} of a large commit as a difference");
                    return Some(Err(Error::Corrupt { what }));
                }
                Written::Zeros => zeros
                    .get_or_insert_with(|| {
                        let bytes = vec![0; size.len()];
                        (ContentHash::of(&bytes), encode_content(&bytes))
                    })
                    .clone(),
            };
            *written = Written::Staged(hash);
            Some(Ok(ToStage { page, staged: StagedPage { hash, size }, value }))
        });
        self.stage_pages(id, (write.branch, write.domain), rest, deadline)
    }

    fn prepare_part<'a>(
        &self,
        request: &CommitRequest,
        part: &'a CommitPart,
        deadline: Deadline,
    ) -> Result<PreparedPart<'a>> {
        let at = part.allocation.map_or(part.snapshot, |change| change.snapshot);
        let basis = self.basis(part.branch, at, None, deadline)?;
        let lineage = basis.lineage;
        if part.domain != lineage.domain || part.database != lineage.database {
            return Err(invalid(format!(
                "branch {} belongs to another database or content domain",
                part.branch
            )));
        }
        if !part_writes(part) {
            let reads = part.reads.clone();
            return Ok(PreparedPart { part, lineage, reads, write: None });
        }
        let before = basis.allocation;
        let after = match part.allocation {
            Some(change) if change.before != before => {
                return Err(invalid(format!(
                    "branch {}: the allocation at {} was another than the one given",
                    part.branch, change.snapshot
                )));
            }
            Some(AllocationChange { after, .. }) => after,
            None => before,
        };
        let staged = if part.staged {
            self.staged_pages(request.id, part.branch, deadline)?
        } else {
            Vec::new()
        };
        let bases = (!may_be_indexed(request)).then_some(&self.bases);
        let (pages, content_bytes) = collect_pages(part, staged, (before, after), bases)?;
        let shrunk_to = shrunk_to(before, after);
        let mut reads = with_writes(&part.reads, &pages);
        if let Some(size) = shrunk_to {
            // What is cut off counts as written.
            reads.insert_range(size.0.saturating_add(1), before.pages.0);
        }
        let record = Arc::new(LogRecord {
            id: request.id,
            time_micros: self.env.clock.unix_micros(),
            client: request.client.clone(),
            content_bytes,
            allocation: part.allocation.map(|change| change.after),
            shrunk_to,
            pages: log_pages(&pages, after.page_size),
        });
        let write = PartWrite {
            domain: part.domain,
            branch: part.branch,
            pages,
            allocation: record.allocation,
            shrunk_to,
            page_size: after.page_size,
            record,
        };
        Ok(PreparedPart { part, lineage, reads, write: Some(write) })
    }
}

/// A database that shrinks, or whose page size changes, loses what it had beyond this.
fn shrunk_to(before: Allocation, after: Allocation) -> Option<PageCount> {
    if before.pages.0 > 0 && before.page_size != after.page_size {
        return Some(PageCount(0));
    }
    (after.pages < before.pages).then_some(after.pages)
}

/// All pages that the commit writes, and the bytes of content it brings.
fn collect_pages(
    part: &CommitPart,
    staged: Vec<(PageNumber, StagedPage)>,
    (before, after): (Allocation, Allocation),
    bases: Option<&Bases>,
) -> Result<(BTreeMap<PageNumber, Written>, u64)> {
    let check = |page: PageNumber, bytes: usize| {
        if bytes != after.page_size.len() {
            return Err(invalid(format!(
                "page {page} has {bytes} bytes in a database of {}-byte pages",
                after.page_size
            )));
        }
        if !after.pages.contains(page) {
            return Err(invalid(format!(
                "page {page} lies beyond the size of {} pages",
                after.pages
            )));
        }
        Ok(())
    };
    let mut content_bytes = 0u64;
    let mut pages = BTreeMap::new();
    for (page, staged) in staged {
        check(page, staged.size.len())?;
        content_bytes += u64::from(staged.size.get());
        pages.insert(page, Written::Staged(staged.hash));
    }
    let mut hashes = part.hashes.iter();
    for (page, bytes) in &part.writes {
        check(*page, bytes.len())?;
        let hash = hashes.next().map_or_else(|| ContentHash::of(bytes), |hash| *hash);
        debug_assert_eq!(hash, ContentHash::of(bytes), "the hash of page {page} as given");
        let written = bases
            .and_then(|bases| difference(&bases.get(part.branch, *page)?, hash, bytes))
            .unwrap_or_else(|| Written::Content(hash, encode_content(bytes)));
        content_bytes += match &written {
            Written::Delta { delta, .. } => delta.len() as u64,
            _ => bytes.len() as u64,
        };
        pages.insert(*page, written);
    }
    // F2: what the database grew over and SQLite did not write.
    let kept = shrunk_to(before, after).unwrap_or(before.pages);
    let grown = after.pages.0.saturating_sub(kept.0) as usize;
    if grown.max(pages.len()) > MAX_COMMIT_PAGES {
        return Err(too_large("a commit in pages", grown.max(pages.len()), MAX_COMMIT_PAGES));
    }
    for number in kept.0.saturating_add(1)..=after.pages.0 {
        if let Some(page) = PageNumber::new(number) {
            pages.entry(page).or_insert(Written::Zeros);
        }
    }
    Ok((pages, content_bytes))
}

/// A page as its difference from a full one, where that takes a quarter of the page or less.
fn difference(base: &Base, hash: ContentHash, page: &Bytes) -> Option<Written> {
    let delta = delta::encode(&base.page, page, page.len() / 4)?.into();
    Some(Written::Delta { hash, base: base.hash, delta, page: page.clone() })
}

/// The read set with the write set in it; a client that keeps rule 3 sent it so.
fn with_writes(reads: &PageSet, pages: &BTreeMap<PageNumber, Written>) -> PageSet {
    let mut all = reads.clone();
    for &page in pages.keys() {
        all.insert(page);
    }
    all
}

fn log_pages(pages: &BTreeMap<PageNumber, Written>, size: PageSize) -> LogPages {
    if pages.len() > LOGGED_HASHES {
        return LogPages::Named(pages.keys().copied().collect());
    }
    let mut zeros = None;
    let hash = |written: &Written, zeros: &mut Option<ContentHash>| match written {
        Written::Content(hash, _) | Written::Staged(hash) | Written::Delta { hash, .. } => *hash,
        Written::Zeros => *zeros.get_or_insert_with(|| ContentHash::of(&vec![0; size.len()])),
    };
    LogPages::Hashed(pages.iter().map(|(&page, w)| (page, hash(w, &mut zeros))).collect())
}

impl Prepared<'_> {
    /// The changes, content first.
    pub(super) fn mutations(&self, form: Form) -> Vec<Mutation> {
        let mut out = Vec::new();
        // A content is written once though several pages or branches have it.
        let mut contents = HashSet::new();
        for write in self.parts.iter().filter_map(|part| part.write.as_ref()) {
            if self.indexed {
                if !write.pages.is_empty() {
                    out.push(publish(write.branch, self.request.id));
                }
            } else {
                write.page_mutations(form, &mut out, &mut contents);
            }
            write.mutations(&mut out);
        }
        let prefix = records::encode_version_prefix();
        let key = keys::commit_id(self.request.id);
        out.push(Mutation::PutVersionedValue { key, prefix, suffix: Vec::new() });
        out
    }

    /// What the engine checks: the pages read, the allocation where it changes, each
    /// branch's row, and the commit's id, by which a duplicate is noticed.
    pub(super) fn read_conflicts(&self, form: Form) -> ReadConflicts {
        let of = |part: &PreparedPart<'_>| PartReads {
            branch: part.part.branch,
            allocation: part.part.allocation.is_some(),
            pages: part.reads.clone(),
        };
        let id = self.request.id;
        let rows = self.parts.iter().map(|part| keys::only(keys::branch(part.part.branch)));
        // S2: what was staged must not have been given up.
        let staged = self.has_staged().then(|| keys::only(keys::discarded(id)));
        ReadConflicts::Set(Arc::new(CommitReads {
            keys: rows.chain([keys::only(keys::commit_id(id))]).chain(staged).collect(),
            bases: self.bases(form),
            parts: self.parts.iter().map(of).collect(),
        }))
    }

    /// The content that it names and does not write (B1).
    fn bases(&self, form: Form) -> Vec<Key> {
        let mut bases = Vec::new();
        for write in self.parts.iter().filter_map(|part| part.write.as_ref()) {
            for written in write.pages.values() {
                if let (Written::Delta { base, .. }, Form::Small) = (written, form) {
                    bases.push(keys::content(write.domain, *base));
                }
            }
        }
        bases.sort_unstable();
        bases
    }

    /// The pages that it writes whole: once it took effect, what later ones differ from.
    pub(super) fn full_pages(&self, form: Form) -> Vec<NewBase> {
        let writes = self.parts.iter().filter_map(|part| part.write.as_ref());
        let full = writes.flat_map(|write| {
            write.pages.iter().filter_map(|(&page, written)| match written {
                Written::Content(hash, value) => {
                    let base = Base { hash: *hash, page: decode_content(value).ok()? };
                    Some((write.branch, page, base))
                }
                Written::Delta { hash, page: whole, .. } if form == Form::Whole => {
                    Some((write.branch, page, Base { hash: *hash, page: whole.clone() }))
                }
                _ => None,
            })
        });
        full.take(MOST_AT_ONCE).collect()
    }

    /// Whether pages of it were staged, by its client or here (S2).
    pub(super) fn has_staged(&self) -> bool {
        self.indexed || self.request.parts.iter().any(|part| part.staged)
    }

    /// What others may have read.
    pub(super) fn write_conflicts(&self) -> Vec<KeyRange> {
        let mut out = vec![keys::only(keys::commit_id(self.request.id))];
        for write in self.parts.iter().filter_map(|part| part.write.as_ref()) {
            if write.allocation.is_some() {
                out.push(keys::conflict_allocation(write.branch));
            }
            if let Some(size) = write.shrunk_to {
                let beyond = size.0.saturating_add(1);
                out.push(keys::conflict_pages(write.branch, beyond, u32::MAX));
            }
            push_pages(&mut out, write.branch, runs(write.pages.keys().copied()), self.parts.len());
        }
        out
    }
}

/// What a commit read; see [`Prepared::read_conflicts`].
struct CommitReads {
    /// The keys beside pages and allocations.
    keys: Vec<KeyRange>,
    /// Content that it names and does not write (B1), ascending: one a page, where the keys
    /// above are few.
    bases: Vec<Key>,
    parts: Vec<PartReads>,
}

impl CommitReads {
    fn names_base_in(&self, start: &[u8], end: &[u8]) -> bool {
        let first = self.bases.partition_point(|key| **key < *start);
        self.bases.get(first).is_some_and(|key| **key < *end)
    }
}

struct PartReads {
    branch: BranchId,
    allocation: bool,
    pages: PageSet,
}

impl ConflictSet for CommitReads {
    fn meets(&self, start: &[u8], end: &[u8]) -> bool {
        let met = |part: &PartReads| {
            keys::pages_of_conflict(part.branch, start, end).is_some_and(|(first, last)| {
                (part.allocation && first == 0) || part.pages.meets(first, last)
            })
        };
        self.parts.iter().any(met)
            || self.keys.iter().any(|key| *key.start < *end && *start < *key.end)
            || self.names_base_in(start, end)
    }

    fn ranges(&self) -> Vec<KeyRange> {
        let mut out = self.keys.clone();
        out.extend(self.bases.iter().cloned().map(keys::only));
        for part in &self.parts {
            if part.allocation {
                out.push(keys::conflict_allocation(part.branch));
            }
            push_pages(&mut out, part.branch, part.pages.runs(), self.parts.len());
        }
        out
    }
}

impl PartWrite {
    /// Page records, references and what content was not staged.
    fn page_mutations(
        &self,
        form: Form,
        out: &mut Vec<Mutation>,
        contents: &mut HashSet<(DomainId, ContentHash)>,
    ) {
        out.reserve(3 * self.pages.len() + 4);
        for (&page, written) in &self.pages {
            let mut content = |hash: ContentHash, value: &dyn Fn() -> Bytes| {
                if contents.insert((self.domain, hash)) {
                    let key = keys::content(self.domain, hash);
                    out.push(Mutation::Put { key, value: value() });
                }
                (PageRecord::Content(hash), Some(hash))
            };
            let (record, hash) = match written {
                Written::Zeros => (PageRecord::Zeros, None),
                Written::Staged(hash) => (PageRecord::Content(*hash), Some(*hash)),
                Written::Content(hash, value) => content(*hash, &|| value.clone()),
                Written::Delta { hash, page, .. } if form == Form::Whole => {
                    content(*hash, &|| encode_content(page))
                }
                Written::Delta { hash, base, delta, .. } => {
                    let record =
                        PageRecord::Delta { hash: *hash, base: *base, delta: delta.clone() };
                    (record, Some(*base))
                }
            };
            out.push(Mutation::PutVersionedKey {
                prefix: keys::page_prefix(self.branch, page),
                suffix: Vec::new(),
                value: record.encode(),
            });
            if let Some(hash) = hash {
                out.push(Mutation::PutVersionedKey {
                    prefix: keys::reference_prefix(self.domain, hash, self.branch, page),
                    suffix: Vec::new(),
                    value: records::encode_reference(),
                });
            }
        }
    }

    /// Everything else.
    fn mutations(&self, out: &mut Vec<Mutation>) {
        if let Some(allocation) = &self.allocation {
            out.push(Mutation::PutVersionedKey {
                prefix: keys::allocation_prefix(self.branch),
                suffix: Vec::new(),
                value: records::encode_allocation(allocation),
            });
        }
        for (part, value) in (0u16..).zip(self.record.encode()) {
            let prefix = keys::log_prefix(self.branch);
            let suffix = part.to_be_bytes().to_vec();
            out.push(Mutation::PutVersionedKey { prefix, suffix, value });
        }
        let (key, prefix) = (keys::head(self.branch), records::encode_version_prefix());
        out.push(Mutation::PutVersionedValue { key, prefix, suffix: Vec::new() });
    }
}

/// The pages, in runs, of one of so many branches as few ranges: exact while all branches together
/// have at most [`MAX_CONFLICT_RANGES`].
fn push_pages(
    out: &mut Vec<KeyRange>,
    branch: BranchId,
    mut runs: Vec<(PageNumber, PageNumber)>,
    branches: usize,
) {
    let limit = MAX_CONFLICT_RANGES / branches.max(1);
    let mut gap = 1u32;
    while runs.len() > limit {
        gap = gap.saturating_mul(2);
        runs =
            runs.into_iter().fold(Vec::new(), |mut merged: Vec<(PageNumber, PageNumber)>, run| {
                match merged.last_mut() {
                    Some((_, last)) if run.0.get() - last.get() <= gap => *last = run.1,
                    _ => merged.push(run),
                }
                merged
            });
    }
    out.extend(
        runs.into_iter().map(|(first, last)| keys::conflict_pages(branch, first.get(), last.get())),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_scattered_reads_become_few_ranges_that_still_hold_them_all() {
        let branch = BranchId::from_bytes([1; 8]);
        let pages: PageSet = (1..50_000).filter_map(|n| PageNumber::new(n * 3)).collect();
        let mut ranges = Vec::new();
        push_pages(&mut ranges, branch, pages.runs(), 1);
        assert!(ranges.len() <= MAX_CONFLICT_RANGES);
        for page in pages.iter() {
            let key = keys::conflict_pages(branch, page.get(), page.get()).start;
            assert!(ranges.iter().any(|range| range.contains(&key)), "{page}");
        }
    }

    #[test]
    fn a_change_of_page_size_cuts_everything_off() {
        let of = |pages, size| Allocation {
            pages: PageCount(pages),
            page_size: PageSize::new(size).unwrap(),
            ..Allocation::EMPTY
        };
        assert_eq!(shrunk_to(of(5, 4096), of(9, 512)), Some(PageCount(0)));
        assert_eq!(shrunk_to(of(0, 4096), of(9, 512)), None, "nothing there before");
        assert_eq!(shrunk_to(of(5, 4096), of(4, 4096)), Some(PageCount(4)));
        assert_eq!(shrunk_to(of(5, 4096), of(5, 4096)), None);
    }
}
