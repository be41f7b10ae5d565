//! SQLITE_FCNTL_SYNC: the commit point, and what tells a commit from a rollback.
//!
//! | page 1 in the buffer | journal played back | it is |
//! |---|---|---|
//! | another change counter | no | a commit |
//! | the counter shown, or none | yes | a rollback: what was written undid |
//! | the counter shown, or none | no | harmless where nothing differs from the snapshot; else a commit without a counter (locking_mode=EXCLUSIVE), an IOERR |
//! | another change counter | yes | nothing that SQLite does: an IOERR |

use std::sync::Arc;

use interleaf_store::api::{Allocation, CommitRequest};
use interleaf_store::kv::Durability;
use interleaf_store::sqlite_file::Header;
use interleaf_store::types::Incarnation;
use interleaf_store::{Error, Result, fault_point};

use super::ahead::Ahead;
use super::applied::{apply, committed};
use super::file::{At, FileState, Lock, Phase};
use super::parts::{Part, join_same_branch, part, read_only_parts, stage};
use super::session::{Files, Session};
use super::stats::Stats;
use super::store::Store;
use super::super_journal;
use crate::code::{Failure, IOERR, Outcome};

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
    let has_journal = file.has_journal();
    let name = file.name.clone();
    let Some(writer) = file.writer_mut() else { return Ok(()) };
    match writer.phase {
        Phase::Dead | Phase::Committed => return Ok(()),
        Phase::Open | Phase::Prepared => {}
    }
    if !writer.buffer.is_changed() {
        return Ok(());
    }
    if !has_journal {
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
        if let Some(name) = super_name
            && super_journal::join(name, session, id)?
        {
            return super_journal::put_on_disk_for(name, is_ours).map(|()| false);
        }
        Ok(files.list.iter().all(|f| !f.is_committing() || is_prepared(f)))
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
    let header = writer.buffer.first().and_then(|page| Header::parse(page).ok());
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
        if writer.buffer.get(page)? != Some(shown) {
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
        // Here, since xDelete of a super-journal is no method of a file that could note it.
        files.stats.last_error = Some(failure.text.clone());
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

/// A commit, ready for the store.
struct Prepared {
    store: Arc<Store>,
    request: CommitRequest,
    /// The files of the request's parts, those written with the allocation after it.
    members: Vec<(u32, Option<Allocation>)>,
}

fn try_commit(files: &mut Files, ids: &[u32]) -> Outcome<()> {
    let mut ahead = Ahead::default();
    let prepared = match prepare(files, ids, &mut ahead) {
        Ok(Some(prepared)) => prepared,
        Ok(None) => return Ok(()),
        Err(failure) => {
            if let Some(store) = store_of(files, ids) {
                ahead.take_back(&store, &mut files.stats);
            }
            return Err(failure);
        }
    };
    let Prepared { store, request, members } = prepared;
    fault_point!("client.before-commit");
    let reply = match store.commit(&request, &mut files.stats) {
        Ok(reply) => reply,
        Err(error) => {
            if !matches!(error, Error::OutcomeUnknown { .. }) {
                ahead.take_back(&store, &mut files.stats);
            }
            return Err(error.into());
        }
    };
    fault_point!("client.after-commit");
    files.stats.commits += 1;
    apply(files, &members, &request, &reply)
}

/// The store of the files that are committed: it is one (see [`one_store`]).
fn store_of(files: &Files, ids: &[u32]) -> Option<Arc<Store>> {
    let id = ids.first()?;
    let file = files.list.iter().find(|file| file.id == *id)?;
    Some(Arc::clone(&file.source.store))
}

/// What the store is asked for; `None` where nothing changed. What is too much for one
/// request has gone ahead.
fn prepare(files: &mut Files, ids: &[u32], ahead: &mut Ahead) -> Outcome<Option<Prepared>> {
    let mut parts = Vec::with_capacity(ids.len());
    let mut durability = Durability::Buffered;
    for id in ids {
        let (file, stats) = files.file(*id)?;
        durability = durability.max(file.journal.as_ref().map_or(durability, |j| j.durability()));
        parts.push(part(file, ahead, stats)?);
    }
    if parts.iter().all(Part::changes_nothing) {
        for part in &parts {
            let file = files.file(part.id)?.0;
            file.source.pager.wrote(&part.request.reads);
            file.source.pager.committed_nothing();
            committed(file, None);
        }
        return Ok(None);
    }
    let Some(store) = store_of(files, ids) else { return Ok(None) };
    let mut request = CommitRequest {
        id: ahead.id(&store)?,
        incarnation: incarnation(files, &store)?,
        parts: Vec::new(),
        durability,
        client: client_name(),
    };
    let mut readers = read_only_parts(files, &store, ids);
    join_same_branch(&mut parts, &mut readers);
    stage(&store, ahead, &mut parts, &mut files.stats)?;
    let mut members = Vec::with_capacity(parts.len() + readers.len());
    for part in parts {
        members.push((part.id, Some(part.after)));
        request.parts.push(part.request);
    }
    for (id, part) in readers {
        members.push((id, None));
        request.parts.push(part);
    }
    Ok(Some(Prepared { store, request, members }))
}

/// The incarnation in which all files of the commit began, those that are only read too.
fn incarnation(files: &Files, store: &Store) -> Outcome<Incarnation> {
    let here = |file: &&FileState| file.at == At::Head && file.source.store.id() == store.id();
    let readers = files.list.iter().filter(here).filter_map(FileState::reader);
    let mut began = readers.map(|reader| reader.view.incarnation);
    let first = began.next().ok_or_else(|| Failure::broken("a commit without a snapshot"))?;
    if began.any(|other| other != first) {
        return Err(Error::IncarnationChanged.into());
    }
    Ok(first)
}

/// Who commits, to show in the log.
fn client_name() -> String {
    format!("pid {}", std::process::id())
}

/// xDelete of a super-journal with dirSync: the commit of all databases that name it.
///
/// # Errors
/// As [`sync_point`]; the super-journal stays, as a rollback needs it.
pub fn commit_super(name: &[u8]) -> Outcome<()> {
    if let Some((session, members)) = super_journal::members(name) {
        let mut files = session.files()?;
        let mut prepared = members;
        let asked = prepared.len();
        prepared.retain(|id| files.list.iter().any(|file| file.id == *id && is_prepared(file)));
        if prepared.len() < asked {
            // SQLite takes the deletion for the commit of all of them, whatever comes later.
            let failure = Failure::broken("a database of this commit was not ready for it");
            files.stats.last_error = Some(failure.text.clone());
            return Err(failure);
        }
        prepared.sort_unstable();
        if !prepared.is_empty() {
            commit(&mut files, &prepared)?;
        }
    }
    super_journal::remove(name)
}
