//! From a request to its reply, by the same call of the store.

use std::panic::AssertUnwindSafe;

use interleaf_store::api::{Backend, LogRequest, PageRead, ReadRequest};
use interleaf_store::env::Deadline;
use interleaf_store::types::{DatabaseName, PageSize};
use interleaf_store::{Error, Result};
use interleaf_wire::limits::{LIST_REPLY_BYTES, READ_REPLY_BYTES};
use interleaf_wire::message::{DatabasePage, LogPage, Reply, Request};

/// Pages read at once before their size is known.
const FIRST_READ: usize = READ_REPLY_BYTES / PageSize::MAX.len();

/// Most bytes of a database in a list.
const LISTED_BYTES: usize = DatabaseName::MAX_LEN + 128;

/// Log entries asked of the store at once.
const LOG_BATCH: usize = 2048;

/// Bytes of a log entry in a reply, beside its pages; at most.
const LOG_ENTRY_BYTES: usize = 192;

/// The reply to a request.
pub fn execute(backend: &dyn Backend, request: &Request<'_>, deadline: Deadline) -> Reply {
    guarded(request.kind().label(), || answer(backend, request, deadline))
}

/// The reply that `answer` gives. A panic of the store becomes an error reply: it must not
/// end the server for others.
pub fn guarded(what: &str, answer: impl FnOnce() -> Result<Reply>) -> Reply {
    match std::panic::catch_unwind(AssertUnwindSafe(answer)) {
        Ok(Ok(reply)) => reply,
        Ok(Err(error)) => Reply::Error(error),
        Err(_) => {
            let what = format!("the server failed inside `{what}`; its log says more");
            tracing::error!("{what}");
            Reply::Error(Error::Io { what })
        }
    }
}

fn answer(backend: &dyn Backend, request: &Request<'_>, deadline: Deadline) -> Result<Reply> {
    Ok(match request {
        Request::Info => Reply::Info(backend.info(deadline)?),
        Request::Open(open) => Reply::Opened(backend.open(open, deadline)?),
        Request::Resolve { branch, when } => {
            Reply::Version(backend.resolve(*branch, when, deadline)?)
        }
        Request::Begin(begin) => Reply::Begun(backend.begin(begin, deadline)?),
        Request::Read(read) => Reply::Pages(read_pages(backend, read, deadline)?),
        Request::Stage(stage) => done(backend.stage(stage, deadline))?,
        Request::Unstage(id) => done(backend.unstage(*id, deadline))?,
        Request::Commit(commit) => Reply::Committed(backend.commit(commit, deadline)?),
        Request::FindCommit(id) => Reply::Found(backend.find_commit(*id, deadline)?),
        Request::Create { name, state } => Reply::Opened(backend.create(name, *state, deadline)?),
        Request::FinishImport(database) => done(backend.finish_import(*database, deadline))?,
        Request::List { after } => Reply::Databases(list(backend, after.as_ref(), deadline)?),
        Request::Describe(name) => Reply::Database(Box::new(backend.describe(name, deadline)?)),
        Request::Rename { from, to } => done(backend.rename(from, to, deadline))?,
        Request::Drop(name) => done(backend.drop_database(name, deadline))?,
        Request::Log(log) => Reply::Log(log_page(backend, log, deadline)?),
        Request::TimeOf(version) => Reply::Time(backend.time_of(*version, deadline)?),
        Request::Status => Reply::Status(backend.status(deadline)?),
        Request::CountRecords => Reply::Records(backend.count_records(deadline)?),
    })
}

fn done(result: Result<()>) -> Result<Reply> {
    result.map(|()| Reply::Done)
}

/// As many of the first pages asked for as fit a reply, at least one.
fn read_pages(
    backend: &dyn Backend,
    request: &ReadRequest,
    deadline: Deadline,
) -> Result<Vec<PageRead>> {
    let mut pages: Vec<PageRead> = Vec::new();
    let mut room = READ_REPLY_BYTES;
    let mut batch = FIRST_READ;
    loop {
        let rest = request.pages.get(pages.len()..).unwrap_or_default();
        let now = rest.get(..batch.min(rest.len())).unwrap_or_default();
        if now.is_empty() {
            return Ok(pages);
        }
        let some = if now.len() == request.pages.len() {
            backend.read(request, deadline)?
        } else {
            backend.read(&ReadRequest { pages: now.to_vec(), ..*request }, deadline)?
        };
        let bytes: usize = some.iter().map(|page| page.bytes.len()).sum();
        // The pages of a database are equally long: as many more fit as there is room for.
        let longest = some.iter().map(|page| page.bytes.len()).max().unwrap_or(1).max(1);
        room = room.saturating_sub(bytes);
        batch = room / longest;
        pages.extend(some);
    }
}

fn list(
    backend: &dyn Backend,
    after: Option<&DatabaseName>,
    deadline: Deadline,
) -> Result<DatabasePage> {
    let mut items = backend.list(deadline)?;
    items.retain(|info| after.is_none_or(|after| info.name > *after));
    let fit = LIST_REPLY_BYTES / LISTED_BYTES;
    let more = items.len() > fit;
    items.truncate(fit);
    Ok(DatabasePage { items, more })
}

fn log_page(backend: &dyn Backend, request: &LogRequest, deadline: Deadline) -> Result<LogPage> {
    let limit = request.limit.min(LOG_BATCH);
    let mut items = backend.log(&LogRequest { limit, ..request.clone() }, deadline)?;
    let found = items.len();
    let mut room = LIST_REPLY_BYTES;
    let fit = items
        .iter()
        .take_while(|entry| {
            let fits = room > 0;
            room = room.saturating_sub(LOG_ENTRY_BYTES + entry.pages.to_bytes().len());
            fits
        })
        .count();
    items.truncate(fit);
    Ok(LogPage { items, more: fit < found || (found == limit && limit < request.limit) })
}
