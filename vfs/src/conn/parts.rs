//! What each file brings to a commit: its changed pages, its read set, its allocation.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use interleaf_store::Result;
use interleaf_store::api::{Allocation, AllocationChange, CommitPart};
use interleaf_store::sqlite_file::{
    Header, LIBRARY_VERSION, is_page_one, set_rollback_journal, strip_page_one,
};
use interleaf_store::types::{BranchId, ContentHash, DomainId, PageNumber, PageSet};

use super::ahead::Ahead;
use super::file::{At, FileState, Lock};
use super::session::Files;
use super::source::{Source, View};
use super::stats::Stats;
use super::store::Store;
use super::write_buffer::WriteBuffer;
use crate::code::{Failure, IOERR, Outcome};

/// Bytes of pages that a commit request carries itself; more are sent ahead.
const MAX_INLINE_BYTES: usize = 8 << 20;

/// Pages of an own commit that are kept in the caches, and hashed for that; those of a larger
/// one are read again when they are wanted.
const MAX_KEPT_PAGES: usize = 2048;

/// Bytes of pages that are sent ahead at once.
const STAGE_BYTES: usize = 4 << 20;

/// What one file brings to a commit.
pub(super) struct Part {
    /// The file.
    pub(super) id: u32,
    /// Its part of the request.
    pub(super) request: CommitPart,
    /// Size and freelist after it.
    pub(super) after: Allocation,
}

impl Part {
    /// Whether nothing needs to be told to the store.
    pub(super) fn changes_nothing(&self) -> bool {
        let CommitPart { writes, staged, allocation, .. } = &self.request;
        writes.is_empty() && !staged && allocation.is_none()
    }
}

/// Pages by number.
pub(super) type Pages = Vec<(PageNumber, Bytes)>;

/// What one prepared file brings. The pages of one that are many go ahead.
pub(super) fn part(file: &mut FileState, ahead: &mut Ahead, stats: &mut Stats) -> Outcome<Part> {
    let place = (file.source.branch, file.domain);
    let FileState { lock, source, name, .. } = file;
    let Lock::Writing(writer) = lock else {
        return Err(Failure::broken(format!("database {name}: prepared without a lock")));
    };
    let view = writer.reader.view;
    let page_one = writer.buffer.first().cloned().unwrap_or_default();
    let header = Header::parse(&page_one)?;
    let written = u32_at(&page_one, LIBRARY_VERSION);
    source.pager.wrote_header(header.change_counter, written);
    let after = header.allocation();
    if after.pages.0 == 0 || header.version_valid_for != header.change_counter {
        return Err(Failure::broken(format!("database {name}: a header without a size")));
    }
    source.pager.pack();
    let mut reads = source.pager.handed().clone();
    reads.extend(writer.buffer.pages());
    let mut hashes = Vec::new();
    if after.page_size != view.page_size() {
        reads.extend_from(&(1..=view.allocation.pages.0).filter_map(PageNumber::new).collect());
    }
    let (mut pages, staged) = if writer.buffer.is_large(after.page_size) {
        let buffer = &mut writer.buffer;
        let differing = buffer.may_differ(after.pages, after.page_size);
        reads.extend_from(&differing);
        let mut cut = Cut { source, view, after, place, ahead, stats };
        cut.send_most(buffer, &differing)?
    } else {
        let mut pages = writer.buffer.cut(after.pages);
        reads.extend(pages.iter().map(|(page, _)| *page));
        if after.page_size == view.page_size() {
            let few = pages.len() <= MAX_KEPT_PAGES;
            drop_unchanged(&mut pages, source, &view, few.then_some(&mut hashes), stats)?;
        } else {
            strip(&mut pages);
        }
        (pages, false)
    };
    if header.journal_versions.contains(&2) {
        refuse_or_clear_wal(&mut pages, staged, name.as_str())?;
        // Of page 1 it is another's now.
        hashes.clear();
        // The pager has the header with 2 in it.
        source.pager.force_reset();
    }
    if hashes.is_empty() && !staged && pages.len() <= MAX_KEPT_PAGES {
        hashes.extend(pages.iter().map(|(_, bytes)| ContentHash::of(bytes)));
    }
    let change = AllocationChange { snapshot: view.version, before: view.allocation, after };
    let request = CommitPart {
        database: file.database,
        branch: source.branch,
        domain: file.domain,
        snapshot: view.version,
        reads,
        writes: pages,
        hashes,
        staged,
        allocation: (change.before != change.after).then_some(change),
    };
    Ok(Part { id: file.id, request, after })
}

/// A large image on its way to the store, a page at a time.
struct Cut<'a> {
    source: &'a mut Source,
    view: View,
    after: Allocation,
    place: (BranchId, DomainId),
    ahead: &'a mut Ahead,
    stats: &'a mut Stats,
}

impl Cut<'_> {
    /// Sends the pages that changed, but for page 1 and the last few, which are given back for
    /// the commit itself; whether any were sent.
    fn send_most(&mut self, buffer: &mut WriteBuffer, pages: &PageSet) -> Outcome<(Pages, bool)> {
        let (mut first, mut some, mut bytes, mut staged) = (Vec::new(), Vec::new(), 0, false);
        for page in pages.iter() {
            let Some(whole) = self.changed(buffer, page)? else { continue };
            if page == PageNumber::ONE {
                first.push((page, whole));
                continue;
            }
            bytes += whole.len();
            some.push((page, whole));
            if bytes >= STAGE_BYTES {
                let full = std::mem::take(&mut some);
                self.ahead.send(&self.source.store, self.place, full, self.stats)?;
                (bytes, staged) = (0, true);
            }
        }
        first.append(&mut some);
        Ok((first, staged))
    }

    /// A page as it is to be stored, where it is not known to be what the snapshot has.
    fn changed(&mut self, buffer: &mut WriteBuffer, page: PageNumber) -> Result<Option<Bytes>> {
        let Self { source, view, after, stats, .. } = self;
        let mut base = |page: PageNumber| source.shown(view, page, stats);
        let mut pages = vec![(page, buffer.page(page, after.page_size, &mut base)?)];
        if after.page_size == view.page_size() {
            drop_unchanged(&mut pages, source, view, None, stats)?;
        } else {
            strip(&mut pages);
        }
        Ok(pages.pop().map(|(_, whole)| whole))
    }
}

fn u32_at(page: &[u8], range: std::ops::Range<usize>) -> u32 {
    page.get(range).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// Page 1 as it is stored.
fn strip(pages: &mut [(PageNumber, Bytes)]) {
    if let Some((PageNumber::ONE, bytes)) = pages.first_mut() {
        *bytes = stripped(bytes);
    }
}

fn stripped(page: &Bytes) -> Bytes {
    let mut stripped = BytesMut::from(&**page);
    strip_page_one(&mut stripped);
    stripped.freeze()
}

/// Drops the pages that are what the snapshot has, as far as that can be told without asking
/// the store; of page 1, which every transaction writes and which becomes what is stored of
/// it, in any case. `hashes`, where given, gets those of the others.
fn drop_unchanged(
    pages: &mut Pages,
    source: &mut Source,
    view: &View,
    mut hashes: Option<&mut Vec<ContentHash>>,
    stats: &mut Stats,
) -> Result<()> {
    let mut failed = None;
    pages.retain_mut(|(page, bytes)| {
        let mut hash = None;
        let there = view.allocation.pages.contains(*page);
        let changed = if *page == PageNumber::ONE {
            // As a rule unchanged, and at hand.
            let before = source.cached(view, *page).filter(|_| there);
            let before = match before {
                None if there => {
                    source.page(view, *page, stats).map_err(|error| failed = Some(error)).ok()
                }
                before => before,
            };
            let changed = before.is_none_or(|before| !is_page_one(&before, bytes));
            if changed {
                *bytes = stripped(bytes);
            }
            changed
        } else {
            let before = source.map.get(*page, view.version, view.incarnation).filter(|_| there);
            before.is_none_or(|before| before != *hash.insert(ContentHash::of(bytes)))
        };
        if let Some(hashes) = hashes.as_mut().filter(|_| changed) {
            hashes.push(hash.unwrap_or_else(|| ContentHash::of(bytes)));
        }
        changed
    });
    failed.map_or(Ok(()), Err)
}

/// A header that asks for WAL. Alone it is `PRAGMA journal_mode=WAL` behind the VFS's back,
/// refused; with other pages it is a whole database copied in (the backup API), and is made
/// one with a rollback journal.
fn refuse_or_clear_wal(pages: &mut Pages, staged: bool, name: &str) -> Outcome<()> {
    if pages.len() <= 1 && !staged {
        return Err(Failure::new(
            IOERR,
            format!("database {name}: journal_mode=WAL is not supported"),
        ));
    }
    if let Some((PageNumber::ONE, bytes)) = pages.first_mut() {
        let mut cleared = BytesMut::from(&**bytes);
        set_rollback_journal(&mut cleared);
        *bytes = cleared.freeze();
    }
    Ok(())
}

/// The files that were only read, and must not have changed either (rule 4).
pub(super) fn read_only_parts(
    files: &Files,
    store: &Arc<Store>,
    ids: &[u32],
) -> Vec<(u32, CommitPart)> {
    let others = files.list.iter().filter(|file| {
        file.at == At::Head && file.source.store.id() == store.id() && !ids.contains(&file.id)
    });
    others
        .filter_map(|file| {
            let reader = file.reader()?;
            let part = CommitPart {
                database: file.database,
                branch: file.source.branch,
                domain: file.domain,
                snapshot: reader.view.version,
                reads: file.source.pager.handed().clone(),
                writes: Vec::new(),
                hashes: Vec::new(),
                staged: false,
                allocation: None,
            };
            Some((file.id, part))
        })
        .collect()
}

/// The same database attached twice, read under one name and written under the other: one
/// part of the commit. The reader's view stays where it is.
pub(super) fn join_same_branch(parts: &mut [Part], readers: &mut Vec<(u32, CommitPart)>) {
    readers.retain(|(_, reader)| {
        let same = parts
            .iter_mut()
            .map(|part| &mut part.request)
            .find(|part| part.branch == reader.branch && part.snapshot == reader.snapshot);
        same.is_none_or(|part| {
            part.reads.extend_from(&reader.reads);
            false
        })
    });
}

/// Sends the pages of a commit ahead that are too many for its request.
pub(super) fn stage(
    store: &Store,
    ahead: &mut Ahead,
    parts: &mut [Part],
    stats: &mut Stats,
) -> Result<()> {
    let bytes = |part: &Part| part.request.writes.iter().map(|(_, page)| page.len()).sum::<usize>();
    if parts.iter().map(bytes).sum::<usize>() <= MAX_INLINE_BYTES {
        return Ok(());
    }
    for part in parts {
        let place = (part.request.branch, part.request.domain);
        part.request.hashes.clear();
        let mut pages = std::mem::take(&mut part.request.writes).into_iter().peekable();
        while pages.peek().is_some() {
            let mut size = 0;
            let chunk = std::iter::from_fn(|| {
                let next = pages.next_if(|(_, page)| size + page.len() <= STAGE_BYTES)?;
                size += next.1.len();
                Some(next)
            });
            ahead.send(store, place, chunk.collect(), stats)?;
            part.request.staged = true;
        }
    }
    Ok(())
}
