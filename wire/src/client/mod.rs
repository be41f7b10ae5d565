//! The synchronous client: a [`Backend`] behind a server.
//!
//! No threads. A call takes an idle connection or opens one, sends one frame, waits for
//! one, and gives the connection back, so that as many threads as like work at once.

mod call;
mod endpoint;
mod heads;
mod pool;
mod socket;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use interleaf_store::api::{
    Backend, BeginReply, BeginRequest, CommitReply, CommitRequest, CreateState, DatabaseInfo,
    LogEntry, LogRequest, OpenReply, OpenRequest, PageRead, ReadRequest, RecordCounts,
    StageRequest, StoreInfo, StoreStatus,
};
use interleaf_store::env::{Deadline, Env};
use interleaf_store::types::{BranchId, CommitId, DatabaseId, DatabaseName, StoreId, Version};
use interleaf_store::when::When;
use interleaf_store::{Error, Result};

pub(crate) use self::call::commit_error;
use self::call::{Repeat, unexpected};
pub use self::endpoint::Endpoint;
use self::heads::Heads;
use self::pool::Pool;
use self::socket::Broken;
use crate::limits::STAGE_REQUEST_BYTES;
use crate::message::{Reply, Request};

/// Starts a server where none answers.
pub trait Revive: Send + Sync {
    /// Returns when a server should answer.
    ///
    /// # Errors
    /// Why there will be none, in words for the user.
    fn revive(&self, deadline: Deadline) -> Result<()>;
}

/// How a client behaves.
#[derive(Clone)]
pub struct ClientOptions {
    /// Time and randomness.
    pub env: Env,
    /// Name and version of this program, told to the server.
    pub software: String,
    /// Called where no server answers.
    pub revive: Option<Arc<dyn Revive>>,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            env: Env::system(),
            software: concat!("interleaf ", env!("CARGO_PKG_VERSION")).into(),
            revive: None,
        }
    }
}

impl fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientOptions")
            .field("software", &self.software)
            .field("revive", &self.revive.is_some())
            .finish_non_exhaustive()
    }
}

/// A store behind a server.
pub struct Client {
    endpoints: Vec<Endpoint>,
    options: ClientOptions,
    /// Index of the endpoint that answered last.
    preferred: AtomicUsize,
    pool: Pool,
    heads: Heads,
    /// The store that the first server named: no other is accepted after it.
    store: Option<StoreId>,
    last_id: AtomicU64,
    round_trips: AtomicU64,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("endpoints", &self.endpoints).finish_non_exhaustive()
    }
}

impl Client {
    /// A client of the servers at `endpoints`, which serve one store. Connects once, so that
    /// a wrong address is known at once; afterwards lost connections are opened again.
    ///
    /// # Errors
    /// `Unavailable` where none of them answers, `ProtocolVersion` for a server of another
    /// version, `TooLarge` for a socket's path that is too long.
    pub fn connect(
        endpoints: Vec<Endpoint>,
        options: ClientOptions,
        deadline: Deadline,
    ) -> Result<Self> {
        if endpoints.is_empty() {
            return Err(Error::InvalidRequest { what: "a client without an address".into() });
        }
        let mut client = Self {
            endpoints,
            options,
            preferred: AtomicUsize::new(0),
            pool: Pool::default(),
            heads: Heads::default(),
            store: None,
            last_id: AtomicU64::new(0),
            round_trips: AtomicU64::new(0),
        };
        match client.connection(deadline) {
            Ok((socket, store)) => {
                client.store = Some(store);
                client.pool.give(socket);
            }
            Err(Broken::Lost(what)) => return Err(Error::Unavailable { what }),
            Err(Broken::Late(error) | Broken::Refused(error)) => return Err(error),
        }
        Ok(client)
    }

    fn env(&self) -> &Env {
        &self.options.env
    }

    /// A call that may be repeated.
    fn ask(&self, request: &Request<'_>, deadline: Deadline) -> Result<Reply> {
        self.call(request, Repeat::Freely, deadline)
    }

    /// A call that answers no more than that it is done.
    fn tell(&self, request: &Request<'_>, repeat: Repeat, deadline: Deadline) -> Result<()> {
        match self.call(request, repeat, deadline)? {
            Reply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Sends the pages of a commit that is too large for one frame ahead of it.
    fn stage_writes(&self, request: &CommitRequest, deadline: Deadline) -> Result<CommitRequest> {
        let mut rest = request.clone();
        for part in &mut rest.parts {
            let pages = std::mem::take(&mut part.writes);
            if pages.is_empty() {
                continue;
            }
            part.staged = true;
            let (id, branch, domain) = (request.id, part.branch, part.domain);
            self.stage(&StageRequest { id, branch, domain, pages }, deadline)?;
        }
        Ok(rest)
    }

    fn commit_staged(&self, request: &CommitRequest, deadline: Deadline) -> Result<CommitReply> {
        let result = self
            .stage_writes(request, deadline)
            .and_then(|rest| self.commit_frame(&rest, deadline));
        if let Err(error) = &result
            && !matches!(error, Error::OutcomeUnknown { .. })
            && let Err(error) = self.unstage(request.id, deadline)
        {
            // The store drops abandoned parts by itself after some time.
            tracing::debug!(%error, id = %request.id, "staged pages of a failed commit remain");
        }
        result
    }

    fn commit_frame(&self, request: &CommitRequest, deadline: Deadline) -> Result<CommitReply> {
        let frame = Request::Commit(Cow::Borrowed(request));
        match self.call(&frame, Repeat::Commit(request.id), deadline)? {
            Reply::Committed(reply) if reply.previous.len() == request.parts.len() => Ok(reply),
            Reply::Committed(_) => Err(Error::Corrupt {
                what: "a reply to a commit with another number of parts".into(),
            }),
            other => Err(unexpected(&other)),
        }
    }
}

/// Bytes of pages in a request.
fn page_bytes(pages: &[(interleaf_store::types::PageNumber, bytes::Bytes)]) -> usize {
    pages.iter().map(|(_, bytes)| bytes.len()).sum()
}

impl Backend for Client {
    fn info(&self, deadline: Deadline) -> Result<StoreInfo> {
        match self.ask(&Request::Info, deadline)? {
            Reply::Info(info) => Ok(info),
            other => Err(unexpected(&other)),
        }
    }

    fn open(&self, request: &OpenRequest, deadline: Deadline) -> Result<OpenReply> {
        match self.ask(&Request::Open(Cow::Borrowed(request)), deadline)? {
            Reply::Opened(reply) => Ok(reply),
            other => Err(unexpected(&other)),
        }
    }

    fn resolve(&self, branch: BranchId, when: &When, deadline: Deadline) -> Result<Version> {
        match self.ask(&Request::Resolve { branch, when: when.clone() }, deadline)? {
            Reply::Version(version) => Ok(version),
            other => Err(unexpected(&other)),
        }
    }

    fn begin(&self, request: &BeginRequest, deadline: Deadline) -> Result<BeginReply> {
        // Without its server, whose next one may know of another incarnation, the transaction
        // would read what is at hand and could not commit.
        if let Some(reply) = self.heads.begin(request)
            && self.pool.is_connected()
        {
            return Ok(reply);
        }
        let generation = self.heads.generation();
        match self.ask(&Request::Begin(Cow::Borrowed(request)), deadline)? {
            Reply::Begun(reply) => {
                self.heads.begun(generation, request.branch, &reply);
                Ok(reply)
            }
            other => Err(unexpected(&other)),
        }
    }

    fn read(&self, request: &ReadRequest, deadline: Deadline) -> Result<Vec<PageRead>> {
        let mut pages: Vec<PageRead> = Vec::with_capacity(request.pages.len());
        let mut rest = Cow::Borrowed(request);
        // A reply holds what fits a frame; the rest is asked for again.
        while !rest.pages.is_empty() {
            match self.ask(&Request::Read(rest), deadline)? {
                Reply::Pages(some) if !some.is_empty() => pages.extend(some),
                other => return Err(unexpected(&other)),
            }
            let missing = request.pages.get(pages.len()..).ok_or_else(|| Error::Corrupt {
                what: "a reply to a read with more pages than were asked for".into(),
            })?;
            rest = Cow::Owned(ReadRequest { pages: missing.to_vec(), ..*request });
        }
        Ok(pages)
    }

    fn stage(&self, request: &StageRequest, deadline: Deadline) -> Result<()> {
        if page_bytes(&request.pages) <= STAGE_REQUEST_BYTES {
            let frame = Request::Stage(Cow::Borrowed(request));
            return self.tell(&frame, Repeat::Freely, deadline);
        }
        let mut rest = request.pages.as_slice();
        while !rest.is_empty() {
            let mut bytes = 0;
            let fit = rest.iter().take_while(|(_, page)| {
                bytes += page.len();
                bytes <= STAGE_REQUEST_BYTES
            });
            let (now, later) = rest.split_at(fit.count().max(1));
            rest = later;
            let some = StageRequest { pages: now.to_vec(), ..*request };
            self.tell(&Request::Stage(Cow::Owned(some)), Repeat::Freely, deadline)?;
        }
        Ok(())
    }

    fn unstage(&self, id: CommitId, deadline: Deadline) -> Result<()> {
        self.tell(&Request::Unstage(id), Repeat::Freely, deadline)
    }

    fn commit(&self, request: &CommitRequest, deadline: Deadline) -> Result<CommitReply> {
        let generation = self.heads.generation();
        let bytes: usize = request.parts.iter().map(|part| page_bytes(&part.writes)).sum();
        let reply = if bytes > STAGE_REQUEST_BYTES {
            self.commit_staged(request, deadline)
        } else {
            self.commit_frame(request, deadline)
        }?;
        self.heads.committed(generation, request, &reply);
        Ok(reply)
    }

    fn find_commit(&self, id: CommitId, deadline: Deadline) -> Result<Option<Version>> {
        match self.ask(&Request::FindCommit(id), deadline)? {
            Reply::Found(version) => Ok(version),
            other => Err(unexpected(&other)),
        }
    }

    fn create(
        &self,
        name: &DatabaseName,
        state: CreateState,
        deadline: Deadline,
    ) -> Result<OpenReply> {
        let request = Request::Create { name: name.clone(), state };
        match self.call(&request, Repeat::Never, deadline)? {
            Reply::Opened(reply) => Ok(reply),
            other => Err(unexpected(&other)),
        }
    }

    fn finish_import(&self, database: DatabaseId, deadline: Deadline) -> Result<()> {
        self.tell(&Request::FinishImport(database), Repeat::Freely, deadline)
    }

    fn list(&self, deadline: Deadline) -> Result<Vec<DatabaseInfo>> {
        let mut all: Vec<DatabaseInfo> = Vec::new();
        loop {
            let after = all.last().map(|info| info.name.clone());
            match self.ask(&Request::List { after }, deadline)? {
                Reply::Databases(page) => {
                    let more = page.more && !page.items.is_empty();
                    all.extend(page.items);
                    if !more {
                        return Ok(all);
                    }
                }
                other => return Err(unexpected(&other)),
            }
        }
    }

    fn describe(&self, name: &DatabaseName, deadline: Deadline) -> Result<DatabaseInfo> {
        match self.ask(&Request::Describe(name.clone()), deadline)? {
            Reply::Database(info) => Ok(*info),
            other => Err(unexpected(&other)),
        }
    }

    fn rename(&self, from: &DatabaseName, to: &DatabaseName, deadline: Deadline) -> Result<()> {
        let request = Request::Rename { from: from.clone(), to: to.clone() };
        self.tell(&request, Repeat::Never, deadline)
    }

    fn drop_database(&self, name: &DatabaseName, deadline: Deadline) -> Result<()> {
        self.tell(&Request::Drop(name.clone()), Repeat::Never, deadline)
    }

    fn log(&self, request: &LogRequest, deadline: Deadline) -> Result<Vec<LogEntry>> {
        let mut all: Vec<LogEntry> = Vec::new();
        let mut rest = request.clone();
        loop {
            let page = match self.ask(&Request::Log(rest.clone()), deadline)? {
                Reply::Log(page) => page,
                other => return Err(unexpected(&other)),
            };
            all.extend(page.items);
            let last = all.last().map(|entry| entry.version);
            rest.limit = request.limit.saturating_sub(all.len());
            match last {
                Some(last) if page.more && rest.limit > 0 => {
                    if request.newest_first {
                        let Some(before) = before(last) else { return Ok(all) };
                        rest.up_to = before;
                    } else {
                        rest.after = last;
                    }
                }
                _ => return Ok(all),
            }
        }
    }

    fn time_of(&self, version: Version, deadline: Deadline) -> Result<Option<i64>> {
        match self.ask(&Request::TimeOf(version), deadline)? {
            Reply::Time(micros) => Ok(micros),
            other => Err(unexpected(&other)),
        }
    }

    fn status(&self, deadline: Deadline) -> Result<StoreStatus> {
        match self.ask(&Request::Status, deadline)? {
            Reply::Status(status) => Ok(status),
            other => Err(unexpected(&other)),
        }
    }

    fn count_records(&self, deadline: Deadline) -> Result<RecordCounts> {
        match self.ask(&Request::CountRecords, deadline)? {
            Reply::Records(counts) => Ok(counts),
            other => Err(unexpected(&other)),
        }
    }

    fn round_trips(&self) -> u64 {
        self.round_trips.load(Ordering::Relaxed)
    }
}

/// The largest version before this one.
fn before(version: Version) -> Option<Version> {
    match version.batch().checked_sub(1) {
        Some(batch) => Some(Version::new(version.commit(), batch)),
        None => Some(Version::new(version.commit().checked_sub(1)?, u16::MAX)),
    }
}
