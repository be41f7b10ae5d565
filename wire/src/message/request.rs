use std::borrow::Cow;

use interleaf_store::api::{
    AllocationChange, BeginRequest, CommitPart, CommitRequest, CreateState, LogRequest,
    MAX_READ_PAGES, OpenRequest, ReadRequest, StageRequest,
};
use interleaf_store::codec::{Reader, Writer};
use interleaf_store::kv::Durability;
use interleaf_store::types::{
    BranchId, CommitId, DatabaseId, DatabaseName, DomainId, Incarnation, PageNumber, PageSize,
    Version,
};
use interleaf_store::when::When;
use interleaf_store::{Error, Result};

use super::field;
use crate::frame;
use crate::limits::{MAX_CLIENT_BYTES, MAX_COMMIT_PARTS, MAX_WAIT_MS, PROTOCOL_VERSION};

/// A request, the hello excepted. Large ones are borrowed where they are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request<'a> {
    /// [`Backend::info`](interleaf_store::api::Backend::info), and so on for all below.
    Info,
    /// Open a database.
    Open(Cow<'a, OpenRequest>),
    /// What a WHEN means.
    Resolve {
        /// The branch.
        branch: BranchId,
        /// The WHEN.
        when: When,
    },
    /// Begin a transaction.
    Begin(Cow<'a, BeginRequest>),
    /// Read pages.
    Read(Cow<'a, ReadRequest>),
    /// Send parts of a commit ahead.
    Stage(Cow<'a, StageRequest>),
    /// Drop what was staged.
    Unstage(CommitId),
    /// Commit.
    Commit(Cow<'a, CommitRequest>),
    /// The version of a commit id.
    FindCommit(CommitId),
    /// Create a database.
    Create {
        /// Its name.
        name: DatabaseName,
        /// Its state.
        state: CreateState,
    },
    /// Make an imported database visible.
    FinishImport(DatabaseId),
    /// Databases by name, after this one.
    List {
        /// The last name known; `None` to begin.
        after: Option<DatabaseName>,
    },
    /// One database.
    Describe(DatabaseName),
    /// Another name.
    Rename {
        /// The name now.
        from: DatabaseName,
        /// The name then.
        to: DatabaseName,
    },
    /// Remove a name.
    Drop(DatabaseName),
    /// A part of a log.
    Log(LogRequest),
    /// The time of a version.
    TimeOf(Version),
    /// Numbers.
    Status,
    /// Every record counted.
    CountRecords,
}

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $code:literal $label:literal,)*) => {
        /// Message type of a request.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum RequestKind {
            $($(#[$doc])* $name = $code,)*
        }

        impl RequestKind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The type with this code.
            #[must_use]
            pub const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// A word for it, as in logs and metrics.
            #[must_use]
            pub const fn label(self) -> &'static str {
                match self { $(Self::$name => $label,)* }
            }
        }
    };
}

kinds! {
    /// Info.
    Info = 0x02 "info",
    /// Open.
    Open = 0x03 "open",
    /// Resolve.
    Resolve = 0x04 "resolve",
    /// Begin.
    Begin = 0x05 "begin",
    /// Read.
    Read = 0x06 "read",
    /// Stage.
    Stage = 0x07 "stage",
    /// Unstage.
    Unstage = 0x08 "unstage",
    /// Commit.
    Commit = 0x09 "commit",
    /// Find a commit.
    FindCommit = 0x0a "find_commit",
    /// Create.
    Create = 0x0b "create",
    /// Finish an import.
    FinishImport = 0x0c "finish_import",
    /// List.
    List = 0x0d "list",
    /// Describe.
    Describe = 0x0e "describe",
    /// Rename.
    Rename = 0x0f "rename",
    /// Drop.
    Drop = 0x10 "drop",
    /// Log.
    Log = 0x11 "log",
    /// Time of a version.
    TimeOf = 0x12 "time_of",
    /// Status.
    Status = 0x13 "status",
    /// Count records.
    CountRecords = 0x14 "count_records",
}

impl RequestKind {
    /// The code in a frame.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }
}

impl Request<'_> {
    /// The message type.
    #[must_use]
    pub const fn kind(&self) -> RequestKind {
        match self {
            Self::Info => RequestKind::Info,
            Self::Open(_) => RequestKind::Open,
            Self::Resolve { .. } => RequestKind::Resolve,
            Self::Begin(_) => RequestKind::Begin,
            Self::Read(_) => RequestKind::Read,
            Self::Stage(_) => RequestKind::Stage,
            Self::Unstage(_) => RequestKind::Unstage,
            Self::Commit(_) => RequestKind::Commit,
            Self::FindCommit(_) => RequestKind::FindCommit,
            Self::Create { .. } => RequestKind::Create,
            Self::FinishImport(_) => RequestKind::FinishImport,
            Self::List { .. } => RequestKind::List,
            Self::Describe(_) => RequestKind::Describe,
            Self::Rename { .. } => RequestKind::Rename,
            Self::Drop(_) => RequestKind::Drop,
            Self::Log(_) => RequestKind::Log,
            Self::TimeOf(_) => RequestKind::TimeOf,
            Self::Status => RequestKind::Status,
            Self::CountRecords => RequestKind::CountRecords,
        }
    }

    /// The request as a frame. `wait_ms` is how long the client will still wait.
    ///
    /// # Errors
    /// `TooLarge` where it does not fit one.
    pub fn encode(&self, id: u64, wait_ms: u32) -> Result<Vec<u8>> {
        frame::build(id, self.kind().code(), self.size_hint(), |w| {
            w.u32(wait_ms);
            self.put_body(w);
        })
    }

    fn size_hint(&self) -> usize {
        let pages = |pages: &[(PageNumber, bytes::Bytes)]| -> usize {
            pages.iter().map(|(_, bytes)| bytes.len() + 8).sum()
        };
        match self {
            Self::Commit(r) => {
                128 + r.client.len() + r.parts.iter().map(|p| 256 + pages(&p.writes)).sum::<usize>()
            }
            Self::Stage(r) => 64 + pages(&r.pages),
            Self::Read(r) => 32 + 4 * r.pages.len(),
            _ => 64,
        }
    }

    fn put_body(&self, w: &mut Writer) {
        match self {
            Self::Info | Self::Status | Self::CountRecords => {}
            Self::Open(r) => {
                field::put_name(w, &r.name);
                w.bool(r.create);
                field::put_option(w, r.at.as_ref(), field::put_when);
            }
            Self::Resolve { branch, when } => {
                w.bytes(&branch.to_bytes());
                field::put_when(w, when);
            }
            Self::Begin(r) => put_begin(w, r),
            Self::Read(r) => {
                w.bytes(&r.branch.to_bytes()).bytes(&r.snapshot.to_bytes());
                field::put_option(w, r.incarnation, |w, incarnation| {
                    w.bytes(&incarnation.to_bytes());
                });
                w.len_of(r.pages.len());
                for page in &r.pages {
                    w.u32(page.get());
                }
            }
            Self::Stage(r) => {
                w.bytes(&r.id.to_bytes()).bytes(&r.branch.to_bytes()).bytes(&r.domain.to_bytes());
                put_pages(w, &r.pages);
            }
            Self::Unstage(id) | Self::FindCommit(id) => {
                w.bytes(&id.to_bytes());
            }
            Self::Commit(r) => put_commit(w, r),
            Self::Create { name, state } => {
                field::put_name(w, name);
                w.u8(match state {
                    CreateState::Ready => 0,
                    CreateState::Importing => 1,
                });
            }
            Self::FinishImport(database) => {
                w.bytes(&database.to_bytes());
            }
            Self::List { after } => field::put_option(w, after.as_ref(), field::put_name),
            Self::Describe(name) | Self::Drop(name) => field::put_name(w, name),
            Self::Rename { from, to } => {
                field::put_name(w, from);
                field::put_name(w, to);
            }
            Self::Log(r) => {
                w.bytes(&r.branch.to_bytes())
                    .bytes(&r.after.to_bytes())
                    .bytes(&r.up_to.to_bytes())
                    .varint(r.limit as u64)
                    .bool(r.newest_first);
            }
            Self::TimeOf(version) => {
                w.bytes(&version.to_bytes());
            }
        }
    }
}

impl Request<'static> {
    /// Reads a request of type `code`; and how long its client will wait, in milliseconds.
    ///
    /// # Errors
    /// `Unsupported` for a type that this protocol version does not have, `Corrupt` for a
    /// body that is not exactly its message.
    pub fn decode(code: u8, body: &[u8]) -> Result<(Self, u32)> {
        let Some(kind) = RequestKind::from_code(code) else {
            return Err(Error::Unsupported {
                what: format!("message type {code:#04x} in protocol version {PROTOCOL_VERSION}"),
            });
        };
        let mut r = Reader::new(body, kind.label());
        let wait_ms = r.u32()?.min(MAX_WAIT_MS);
        let request = Self::read_body(kind, &mut r)?;
        r.end()?;
        Ok((request, wait_ms))
    }

    fn read_body(kind: RequestKind, r: &mut Reader<'_>) -> Result<Self> {
        Ok(match kind {
            RequestKind::Info => Self::Info,
            RequestKind::Open => Self::Open(Cow::Owned(OpenRequest {
                name: field::name(r)?,
                create: r.bool()?,
                at: field::option(r, field::when)?,
            })),
            RequestKind::Resolve => Self::Resolve { branch: branch(r)?, when: field::when(r)? },
            RequestKind::Begin => Self::Begin(Cow::Owned(begin(r)?)),
            RequestKind::Read => Self::Read(Cow::Owned(read(r)?)),
            RequestKind::Stage => Self::Stage(Cow::Owned(StageRequest {
                id: commit_id(r)?,
                branch: branch(r)?,
                domain: r.array().map(DomainId::from_bytes)?,
                pages: pages(r)?,
            })),
            RequestKind::Unstage => Self::Unstage(commit_id(r)?),
            RequestKind::Commit => Self::Commit(Cow::Owned(commit(r)?)),
            RequestKind::FindCommit => Self::FindCommit(commit_id(r)?),
            RequestKind::Create => Self::Create {
                name: field::name(r)?,
                state: match r.u8()? {
                    0 => CreateState::Ready,
                    1 => CreateState::Importing,
                    other => return Err(r.corrupt(&format!("state {other}"))),
                },
            },
            RequestKind::FinishImport => Self::FinishImport(r.array().map(DatabaseId::from_bytes)?),
            RequestKind::List => Self::List { after: field::option(r, field::name)? },
            RequestKind::Describe => Self::Describe(field::name(r)?),
            RequestKind::Rename => Self::Rename { from: field::name(r)?, to: field::name(r)? },
            RequestKind::Drop => Self::Drop(field::name(r)?),
            RequestKind::Log => Self::Log(LogRequest {
                branch: branch(r)?,
                after: field::version(r)?,
                up_to: field::version(r)?,
                limit: usize::try_from(r.varint()?).unwrap_or(usize::MAX),
                newest_first: r.bool()?,
            }),
            RequestKind::TimeOf => Self::TimeOf(field::version(r)?),
            RequestKind::Status => Self::Status,
            RequestKind::CountRecords => Self::CountRecords,
        })
    }
}

fn branch(r: &mut Reader<'_>) -> Result<BranchId> {
    r.array().map(BranchId::from_bytes)
}

fn commit_id(r: &mut Reader<'_>) -> Result<CommitId> {
    r.array().map(CommitId::from_bytes)
}

fn put_begin(w: &mut Writer, r: &BeginRequest) {
    w.bytes(&r.branch.to_bytes());
    field::put_option(w, r.at, |w, at| {
        w.bytes(&at.to_bytes());
    });
    field::put_option(w, r.known, |w, (incarnation, version)| {
        w.bytes(&incarnation.to_bytes()).bytes(&version.to_bytes());
    });
}

fn begin(r: &mut Reader<'_>) -> Result<BeginRequest> {
    Ok(BeginRequest {
        branch: branch(r)?,
        at: field::option(r, field::version)?,
        known: field::option(r, |r| {
            Ok((r.array().map(Incarnation::from_bytes)?, field::version(r)?))
        })?,
    })
}

fn read(r: &mut Reader<'_>) -> Result<ReadRequest> {
    let branch = branch(r)?;
    let snapshot = field::version(r)?;
    let incarnation = field::option(r, |r| r.array().map(Incarnation::from_bytes))?;
    let pages = field::list(r, 4, field::page_number)?;
    if pages.len() > MAX_READ_PAGES {
        return Err(Error::TooLarge {
            what: "a read, in pages,".into(),
            size: pages.len() as u64,
            limit: MAX_READ_PAGES as u64,
        });
    }
    Ok(ReadRequest { branch, snapshot, incarnation, pages })
}

fn put_pages(w: &mut Writer, pages: &[(PageNumber, bytes::Bytes)]) {
    w.len_of(pages.len());
    for (page, bytes) in pages {
        w.u32(page.get()).blob(bytes);
    }
}

fn pages(r: &mut Reader<'_>) -> Result<Vec<(PageNumber, bytes::Bytes)>> {
    field::list(r, 4 + PageSize::MIN.len(), |r| Ok((field::page_number(r)?, field::page_bytes(r)?)))
}

fn put_commit(w: &mut Writer, r: &CommitRequest) {
    w.bytes(&r.id.to_bytes()).bytes(&r.incarnation.to_bytes());
    w.u8(match r.durability {
        Durability::Buffered => 0,
        Durability::Synced => 1,
    });
    field::put_cut_text(w, &r.client, MAX_CLIENT_BYTES);
    w.len_of(r.parts.len());
    for part in &r.parts {
        w.bytes(&part.database.to_bytes())
            .bytes(&part.branch.to_bytes())
            .bytes(&part.domain.to_bytes())
            .bytes(&part.snapshot.to_bytes());
        field::put_page_set(w, &part.reads);
        put_pages(w, &part.writes);
        w.bool(part.staged);
        field::put_option(w, part.allocation.as_ref(), |w, change| {
            w.bytes(&change.snapshot.to_bytes());
            field::put_allocation(w, &change.before);
            field::put_allocation(w, &change.after);
        });
    }
}

fn commit(r: &mut Reader<'_>) -> Result<CommitRequest> {
    let id = commit_id(r)?;
    let incarnation = r.array().map(Incarnation::from_bytes)?;
    let durability = match r.u8()? {
        0 => Durability::Buffered,
        1 => Durability::Synced,
        other => return Err(r.corrupt(&format!("durability {other}"))),
    };
    let client = field::text(r, "client", MAX_CLIENT_BYTES)?;
    let parts = field::list(r, 37, part)?;
    if parts.len() > MAX_COMMIT_PARTS {
        return Err(Error::TooLarge {
            what: "a commit, in databases,".into(),
            size: parts.len() as u64,
            limit: MAX_COMMIT_PARTS as u64,
        });
    }
    Ok(CommitRequest { id, incarnation, parts, durability, client })
}

fn part(r: &mut Reader<'_>) -> Result<CommitPart> {
    Ok(CommitPart {
        database: r.array().map(DatabaseId::from_bytes)?,
        branch: branch(r)?,
        domain: r.array().map(DomainId::from_bytes)?,
        snapshot: field::version(r)?,
        reads: field::page_set(r)?,
        writes: pages(r)?,
        hashes: Vec::new(),
        staged: r.bool()?,
        allocation: field::option(r, |r| {
            Ok(AllocationChange {
                snapshot: field::version(r)?,
                before: field::allocation(r)?,
                after: field::allocation(r)?,
            })
        })?,
    })
}
