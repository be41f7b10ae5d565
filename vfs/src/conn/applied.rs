//! What a connection holds after its commit took effect.

use interleaf_store::api::{Allocation, CommitPart, CommitReply, CommitRequest, MAX_BEGIN_CHANGES};
use interleaf_store::sqlite_file::Header;
use interleaf_store::types::{Incarnation, PageCount, Version};

use super::file::{After, FileState, Lock, Phase, Writer};
use super::page_map::OwnCommit;
use super::session::Files;
use super::write_buffer::WriteBuffer;
use crate::code::Outcome;

/// The commit took effect. `members`: the files of the request's parts, those written with
/// the allocation after it.
pub(super) fn apply(
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
pub(super) fn committed(file: &mut FileState, pages: Option<PageCount>) -> Option<WriteBuffer> {
    let Lock::Writing(Writer { reader, buffer, phase, .. }) = &mut file.lock else { return None };
    let allocation = reader.view.allocation;
    *phase = Phase::Committed;
    let mut own =
        std::mem::replace(buffer, WriteBuffer::new(allocation.pages, allocation.page_size));
    let page_one = own.first().and_then(|page| Header::parse(page).ok())?;
    own.shorten(u64::from(pages?.0) * u64::from(page_one.page_size.get()));
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
    if sent.staged && sent.reads.len() > MAX_BEGIN_CHANGES as u64 {
        return source.map.outgrown(incarnation, version);
    }
    let pages: Vec<_> = if sent.staged {
        // They are no longer at hand: whatever was read or written is looked up again.
        sent.reads.iter().map(|page| (page, None)).collect()
    } else {
        // Those that were hashed.
        let hashes = sent.hashes.iter().copied().map(Some).chain(std::iter::repeat(None));
        let kept = sent.writes.iter().zip(hashes).map(|((page, bytes), hash)| {
            if let Some(hash) = hash {
                source.store.cache().keep(hash, bytes);
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
