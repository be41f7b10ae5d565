//! SQLITE_FCNTL_SYNC: the commit point, and what tells a commit from a rollback.
//!
//! | page 1 in the buffer | journal played back | it is |
//! |---|---|---|
//! | another change counter | no | a commit |
//! | the counter shown, or none | yes | a rollback: what was written undid |
//! | the counter shown, or none | no | harmless where nothing differs from the snapshot; else a commit without a counter (locking_mode=EXCLUSIVE), an IOERR |
//! | another change counter | yes | nothing that SQLite does: an IOERR |

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use interleaf_store::api::{
    Allocation, AllocationChange, CommitPart, CommitReply, CommitRequest, StageRequest,
};
use interleaf_store::kv::Durability;
use interleaf_store::sqlite_file::{Header, LIBRARY_VERSION, set_rollback_journal, strip_page_one};
use interleaf_store::types::{CommitId, ContentHash, Incarnation, PageCount, PageNumber, Version};
use interleaf_store::{Error, Result, fault_point};

use super::file::{After, At, FileState, Lock, Phase, Writer};
use super::page_map::OwnCommit;
use super::session::{Files, Session};
use super::source::View;
use super::stats::Stats;
use super::store::Store;
use super::super_journal;
use super::write_buffer::WriteBuffer;
use crate::code::{Failure, IOERR, Outcome};

/// Bytes of pages that a commit request carries itself; more are sent ahead.
const MAX_INLINE_BYTES: usize = 8 << 20;

/// Bytes of pages that are sent ahead at once.
const STAGE_BYTES: usize = 4 << 20;

/// Pages of an own commit that are kept in the caches; those of a larger one are read again
/// when they are wanted.
const MAX_KEPT_PAGES: usize = 2048;

/// What one file brings to a commit.
struct Part {
    id: u32,
    request: CommitPart,
    /// Size and freelist after it.
    after: Allocation,
}

impl Part {
    fn changes_nothing(&self) -> bool {
        self.request.writes.is_empty() && self.request.allocation.is_none()
    }
}

/// What SQLITE_FCNTL_SYNC means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meaning {
    Commit,
    Rollback,
    Unclear,
}

/// SQLITE_FCNTL_SYNC on a file. Commits, where it is the last file of the commit that is
/// asked (rule 5).
///
/// # Errors
/// BUSY_SNAPSHOT for a conflict; IOERR for what must not pass as done; those of the store.
pub fn sync_point(
    session: &Arc<Session>,
    files: &mut Files,
    id: u32,
    super_name: Option<&[u8]>,
    is_ours: &dyn Fn(&[u8]) -> bool,
) -> Outcome<()> {
    let (file, stats) = files.file(id)?;
    let open_journal = file.journal.is_some();
    let name = file.name.clone();
    let Some(writer) = file.writer_mut() else { return Ok(()) };
    match writer.phase {
        Phase::Dead | Phase::Committed => return Ok(()),
        Phase::Open | Phase::Prepared => {}
    }
    if !writer.buffer.is_changed() {
        return Ok(());
    }
    if !open_journal {
        return Err(Failure::broken(format!("database {name}: pages written without a journal")));
    }
    match meaning(file) {
        Meaning::Rollback => {
            undo(file);
            return Ok(());
        }
        Meaning::Unclear => {
            if differs(file, stats)? {
                fail(file);
                return Err(Failure::broken(format!(
                    "database {name}: pages changed without a new change counter; \
                     locking_mode=EXCLUSIVE is not supported"
                )));
            }
            undo(file);
            return Ok(());
        }
        Meaning::Commit => {}
    }
    if let Some(writer) = file.writer_mut() {
        writer.phase = Phase::Prepared;
    }
    let prepared = one_store(files, id).and_then(|()| {
        match super_name.filter(|name| super_journal::join(name, session, id)) {
            Some(name) => super_journal::put_on_disk_for(name, is_ours).map(|()| false),
            None => Ok(files.list.iter().all(|f| !f.is_committing() || is_prepared(f))),
        }
    });
    match prepared {
        Ok(false) => {
            fault_point!("client.between-files");
            Ok(())
        }
        Ok(true) => {
            let all =
                files.list.iter().filter(|f| is_prepared(f)).map(|f| f.id).collect::<Vec<_>>();
            commit(files, &all)
        }
        Err(failure) => {
            fail(files.file(id)?.0);
            Err(failure)
        }
    }
}

fn is_prepared(file: &FileState) -> bool {
    matches!(&file.lock, Lock::Writing(writer) if writer.phase == Phase::Prepared)
}

/// SQLITE_FCNTL_COMMIT_PHASETWO: SQLite believes that it committed.
///
/// # Errors
/// IOERR where it did not: never a silent success.
pub fn phase_two(file: &mut FileState) -> Outcome<()> {
    let name = file.name.clone();
    match file.writer_mut() {
        Some(writer) if writer.phase != Phase::Committed && writer.buffer.is_changed() => {
            fail(file);
            Err(Failure::broken(format!("database {name}: a commit ended that never began")))
        }
        _ => Ok(()),
    }
}

/// The transaction failed for good: what SQLite still writes undoes it.
fn fail(file: &mut FileState) {
    file.source.pager.force_reset();
    if let Some(writer) = file.writer_mut() {
        writer.phase = Phase::Dead;
        let allocation = writer.reader.view.allocation;
        writer.buffer.clear(allocation.pages, allocation.page_size);
    }
}

/// A rollback has undone what was written.
fn undo(file: &mut FileState) {
    if let Some(writer) = file.writer_mut() {
        writer.phase = Phase::Open;
        let allocation = writer.reader.view.allocation;
        writer.buffer.clear(allocation.pages, allocation.page_size);
    }
}

/// What the counter and the journal say; see the module.
fn meaning(file: &FileState) -> Meaning {
    let played_back = file.journal.as_ref().is_some_and(super::journal::Journal::is_played_back);
    let Lock::Writing(writer) = &file.lock else { return Meaning::Unclear };
    let shown = match writer.reader.view.allocation.pages.0 {
        0 => 0,
        _ => file.source.pager.counter(),
    };
    let header = writer.buffer.get(PageNumber::ONE).and_then(|page| Header::parse(page).ok());
    let counted = header.is_some_and(|header| header.change_counter != shown);
    match (counted, played_back) {
        (true, false) => Meaning::Commit,
        (false, true) => Meaning::Rollback,
        (true, true) | (false, false) => Meaning::Unclear,
    }
}

/// Whether the buffer differs from the snapshot.
fn differs(file: &mut FileState, stats: &mut Stats) -> Result<bool> {
    let FileState { lock, source, .. } = file;
    let Lock::Writing(writer) = lock else { return Ok(false) };
    let view = writer.reader.view;
    if writer.buffer.size() != view.size() {
        return Ok(true);
    }
    for page in writer.buffer.written().iter() {
        let shown = source.shown(&view, page, stats)?;
        if writer.buffer.get(page) != Some(&shown) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// All files of one commit must be of one store.
fn one_store(files: &Files, id: u32) -> Outcome<()> {
    let of = |file: &FileState| (file.name.clone(), file.source.store.id());
    let mut writing = files.list.iter().filter(|file| file.is_committing()).map(of);
    let Some((name, store)) = files.list.iter().find(|file| file.id == id).map(of) else {
        return Ok(());
    };
    match writing.find(|(_, other)| *other != store) {
        None => Ok(()),
        Some((other, _)) => Err(Failure::new(
            IOERR,
            format!(
                "databases {name} and {other} are in two stores: one transaction cannot write both"
            ),
        )),
    }
}

/// Commits the prepared files, at the last of them or at xDelete of their super-journal.
///
/// # Errors
/// As [`sync_point`]; all files are `Dead` then.
pub fn commit(files: &mut Files, ids: &[u32]) -> Outcome<()> {
    let result = try_commit(files, ids);
    if let Err(failure) = &result {
        if failure.code == crate::code::BUSY_SNAPSHOT {
            files.stats.conflicts += 1;
            // Perhaps only the superset explains it: the next try is to be exact (rule 3).
            for file in files.list.iter_mut().filter(|file| file.reader().is_some()) {
                file.source.pager.force_reset();
            }
        }
        for id in ids {
            fail(files.file(*id)?.0);
        }
    }
    result
}

fn try_commit(files: &mut Files, ids: &[u32]) -> Outcome<()> {
    let mut parts = Vec::with_capacity(ids.len());
    let mut durability = Durability::Buffered;
    for id in ids {
        let (file, stats) = files.file(*id)?;
        durability = durability.max(file.journal.as_ref().map_or(durability, |j| j.durability()));
        parts.push(part(file, stats)?);
    }
    if parts.iter().all(Part::changes_nothing) {
        for part in &parts {
            let file = files.file(part.id)?.0;
            file.source.pager.committed_nothing();
            committed(file, None);
        }
        return Ok(());
    }
    let Some(store) = parts.first().and_then(|part| {
        files.list.iter().find(|file| file.id == part.id).map(|f| Arc::clone(&f.source.store))
    }) else {
        return Ok(());
    };
    let mut request = CommitRequest {
        id: store.commit_id()?,
        incarnation: incarnation(files, ids)?,
        parts: Vec::new(),
        durability,
        client: client_name(),
    };
    let mut readers = read_only_parts(files, &store, ids);
    join_same_branch(&mut parts, &mut readers);
    stage(&store, request.id, &mut parts, &mut files.stats)?;
    let mut members = Vec::with_capacity(parts.len() + readers.len());
    for part in parts {
        members.push((part.id, Some(part.after)));
        request.parts.push(part.request);
    }
    for (id, part) in readers {
        members.push((id, None));
        request.parts.push(part);
    }
    fault_point!("client.before-commit");
    let reply = store.commit(&request, &mut files.stats)?;
    fault_point!("client.after-commit");
    files.stats.commits += 1;
    apply(files, &members, &request, &reply)
}

fn incarnation(files: &mut Files, ids: &[u32]) -> Outcome<Incarnation> {
    let mut found = None;
    for id in ids {
        let Some(reader) = files.file(*id)?.0.reader() else { continue };
        if found.is_some_and(|i| i != reader.view.incarnation) {
            return Err(Error::IncarnationChanged.into());
        }
        found = Some(reader.view.incarnation);
    }
    found.ok_or_else(|| Failure::broken("a commit without a snapshot"))
}

/// What one prepared file brings.
fn part(file: &mut FileState, stats: &mut Stats) -> Outcome<Part> {
    let FileState { lock, source, name, .. } = file;
    let Lock::Writing(writer) = lock else {
        return Err(Failure::broken(format!("database {name}: prepared without a lock")));
    };
    let view = writer.reader.view;
    let page_one = writer.buffer.get(PageNumber::ONE).cloned().unwrap_or_default();
    let header = Header::parse(&page_one)?;
    let written = u32_at(&page_one, LIBRARY_VERSION);
    source.pager.wrote_header(header.change_counter, written);
    let after = header.allocation();
    if after.pages.0 == 0 || header.version_valid_for != header.change_counter {
        return Err(Failure::broken(format!("database {name}: a header without a size")));
    }
    let mut pages = {
        let mut base = |page: PageNumber| source.shown(&view, page, stats);
        writer.buffer.cut(after.pages, after.page_size, &mut base)?
    };
    let mut reads = source.pager.handed().clone();
    reads.extend_from(&pages.iter().map(|(page, _)| *page).collect());
    reads.extend_from(&writer.buffer.written());
    if after.page_size == view.page_size() {
        drop_unchanged(&mut pages, source, &view, stats)?;
    } else {
        strip(&mut pages);
        reads.extend_from(&(1..=view.allocation.pages.0).filter_map(PageNumber::new).collect());
    }
    if header.journal_versions.contains(&2) {
        refuse_or_clear_wal(&mut pages, name.as_str())?;
        // The pager has the header with 2 in it.
        source.pager.force_reset();
    }
    let change = AllocationChange { snapshot: view.version, before: view.allocation, after };
    let request = CommitPart {
        database: file.database,
        branch: source.branch,
        domain: file.domain,
        snapshot: view.version,
        reads,
        writes: pages,
        staged: false,
        allocation: (change.before != change.after).then_some(change),
    };
    Ok(Part { id: file.id, request, after })
}

fn u32_at(page: &[u8], range: std::ops::Range<usize>) -> u32 {
    page.get(range).and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes)
}

/// Page 1 as it is stored.
fn strip(pages: &mut [(PageNumber, Bytes)]) {
    if let Some((PageNumber::ONE, bytes)) = pages.first_mut() {
        let mut stripped = BytesMut::from(&**bytes);
        strip_page_one(&mut stripped);
        *bytes = stripped.freeze();
    }
}

/// Drops the pages that are what the snapshot has, as far as that can be told without asking
/// the store; of page 1, which every transaction writes, in any case.
fn drop_unchanged(
    pages: &mut Vec<(PageNumber, Bytes)>,
    source: &mut super::source::Source,
    view: &View,
    stats: &mut Stats,
) -> Result<()> {
    strip(pages);
    let mut failed = None;
    pages.retain(|(page, bytes)| {
        if !view.allocation.pages.contains(*page) {
            return true;
        }
        if let Some(before) = source.cached(view, *page) {
            return before != *bytes;
        }
        if *page == PageNumber::ONE {
            return source.page(view, *page, stats).map_or_else(
                |error| {
                    failed = Some(error);
                    true
                },
                |before| before != *bytes,
            );
        }
        source.map.get(*page, view.version).is_none_or(|hash| hash != ContentHash::of(bytes))
    });
    failed.map_or(Ok(()), Err)
}

/// A header that asks for WAL. Alone it is `PRAGMA journal_mode=WAL` behind the VFS's back,
/// refused; with other pages it is a whole database copied in (the backup API), and is made
/// one with a rollback journal.
fn refuse_or_clear_wal(pages: &mut [(PageNumber, Bytes)], name: &str) -> Outcome<()> {
    if pages.len() <= 1 {
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
fn read_only_parts(files: &Files, store: &Arc<Store>, ids: &[u32]) -> Vec<(u32, CommitPart)> {
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
                staged: false,
                allocation: None,
            };
            Some((file.id, part))
        })
        .collect()
}

/// The same database attached twice, read under one name and written under the other: one
/// part of the commit. The reader's view stays where it is.
fn join_same_branch(parts: &mut [Part], readers: &mut Vec<(u32, CommitPart)>) {
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

/// Sends the pages of a large commit ahead.
fn stage(store: &Store, id: CommitId, parts: &mut [Part], stats: &mut Stats) -> Outcome<()> {
    let bytes = |part: &Part| part.request.writes.iter().map(|(_, page)| page.len()).sum::<usize>();
    if parts.iter().map(bytes).sum::<usize>() <= MAX_INLINE_BYTES {
        return Ok(());
    }
    for part in parts {
        let mut pages = std::mem::take(&mut part.request.writes).into_iter().peekable();
        part.request.staged = pages.peek().is_some();
        while pages.peek().is_some() {
            let mut size = 0;
            let chunk = std::iter::from_fn(|| {
                let next = pages.next_if(|(_, page)| size + page.len() <= STAGE_BYTES)?;
                size += next.1.len();
                Some(next)
            });
            let request = StageRequest {
                id,
                branch: part.request.branch,
                domain: part.request.domain,
                pages: chunk.collect(),
            };
            if let Err(error) = store.stage(&request, stats) {
                // The store drops what was staged and never committed by itself; saying so
                // now only frees the space sooner.
                return Err(match store.unstage(id, stats) {
                    Ok(()) => error.into(),
                    Err(also) => Failure::new(IOERR, format!("{error}; then {also}")),
                });
            }
        }
    }
    Ok(())
}

/// Who commits, to show in the log.
fn client_name() -> String {
    format!("pid {}", std::process::id())
}

/// The commit took effect. `members`: the files of the request's parts, those written with
/// the allocation after it.
fn apply(
    files: &mut Files,
    members: &[(u32, Option<Allocation>)],
    request: &CommitRequest,
    reply: &CommitReply,
) -> Outcome<()> {
    let alone = request
        .parts
        .iter()
        .zip(reply.previous.iter().chain(std::iter::repeat(&None)))
        .all(|(part, previous)| previous.is_some_and(|previous| previous <= part.snapshot));
    for (index, ((id, written), sent)) in members.iter().zip(&request.parts).enumerate() {
        let (file, _) = files.file(*id)?;
        let previous = reply.previous.get(index).copied().flatten();
        let Some(allocation) = *written else {
            file.source.pager.validated(reply.version);
            move_view(file, alone, reply, None, None);
            continue;
        };
        keep(file, allocation, sent, request.incarnation, reply.version, previous);
        file.source.pager.wrote(&sent.reads);
        file.source.pager.committed(reply.version);
        file.last = Some(reply.version);
        let own = committed(file, Some(allocation.pages));
        move_view(file, alone, reply, Some(allocation), own);
    }
    Ok(())
}

/// What SQLite goes on reading under the lock it still holds. With nobody's commit between
/// the snapshot and this one the view moves here; else it stays, with what was written over
/// it, until [`Files::lock_for_writing`] or a read finds out whether it can move.
fn move_view(
    file: &mut FileState,
    alone: bool,
    reply: &CommitReply,
    written: Option<Allocation>,
    own: Option<WriteBuffer>,
) {
    let Some(reader) = file.reader_mut() else { return };
    let allocation = written.unwrap_or(reader.view.allocation);
    if alone {
        reader.view.version = reply.version;
        reader.view.allocation = allocation;
    } else {
        reader.after = Some(After { version: reply.version, own, allocation, stuck: false });
    }
}

/// Ends the writer's transaction; gives what it wrote.
fn committed(file: &mut FileState, pages: Option<PageCount>) -> Option<WriteBuffer> {
    let Lock::Writing(Writer { reader, buffer, phase, .. }) = &mut file.lock else { return None };
    let allocation = reader.view.allocation;
    *phase = Phase::Committed;
    let mut own =
        std::mem::replace(buffer, WriteBuffer::new(allocation.pages, allocation.page_size));
    let page_one = own.get(PageNumber::ONE).and_then(|page| Header::parse(page).ok())?;
    own.truncate(u64::from(pages?.0) * u64::from(page_one.page_size.get()));
    Some(own)
}

/// Puts the pages of an own commit into the caches.
fn keep(
    file: &FileState,
    after: Allocation,
    sent: &CommitPart,
    incarnation: Incarnation,
    version: Version,
    previous: Option<Version>,
) {
    let source = &file.source;
    let before = sent.allocation.map_or(after, |change| change.before);
    let pages: Vec<_> = if sent.staged {
        // They are no longer at hand: whatever was read or written is looked up again.
        sent.reads.iter().map(|page| (page, None)).collect()
    } else {
        let few = sent.writes.len() <= MAX_KEPT_PAGES;
        let kept = sent.writes.iter().map(|(page, bytes)| {
            let hash = few.then(|| ContentHash::of(bytes));
            if let Some(hash) = hash {
                source.store.cache().put(hash, bytes);
            }
            (*page, hash)
        });
        kept.collect()
    };
    source.map.applied(&OwnCommit {
        incarnation,
        version,
        previous,
        pages: &pages,
        shrunk_to: (after.pages < before.pages).then_some(after.pages),
    });
}

/// xDelete of a super-journal with dirSync: the commit of all databases that name it.
///
/// # Errors
/// As [`sync_point`]; the super-journal stays, as a rollback needs it.
pub fn commit_super(name: &[u8]) -> Outcome<()> {
    if let Some((session, members)) = super_journal::members(name) {
        let mut files = session.files()?;
        let mut prepared = members;
        prepared.retain(|id| files.list.iter().any(|file| file.id == *id && is_prepared(file)));
        prepared.sort_unstable();
        if !prepared.is_empty() {
            commit(&mut files, &prepared)?;
        }
    }
    super_journal::remove(name)
}
