use std::collections::BTreeMap;

use interleaf_store::api::{
    BeginReply, Change, Changes, CommitReply, DatabaseInfo, LogEntry, OpenReply, PageRead,
    RecordCounts, StoreInfo, StoreStatus,
};
use interleaf_store::codec::{Reader, Writer};
use interleaf_store::types::{BranchId, CommitId, DatabaseId, DomainId, Incarnation, Version};
use interleaf_store::{Error, Result};

use super::hello::{ServerHello, put_store_info, store_info};
use super::{KIND_ERROR, KIND_HELLO_REPLY, error, field};
use crate::frame;
use crate::limits::{MAX_CLIENT_BYTES, MAX_COMMIT_PARTS};

/// Some of the databases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatabasePage {
    /// In order of their names.
    pub items: Vec<DatabaseInfo>,
    /// Whether there are more after the last one.
    pub more: bool,
}

/// Some of the entries asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogPage {
    /// In the order asked for.
    pub items: Vec<LogEntry>,
    /// Whether there are more after the last one.
    pub more: bool,
}

/// A reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To a hello.
    Hello(ServerHello),
    /// To `Info`.
    Info(StoreInfo),
    /// To `Open` and `Create`.
    Opened(OpenReply),
    /// To `Resolve`.
    Version(Version),
    /// To `Begin`.
    Begun(BeginReply),
    /// To `Read`: the first pages asked for, at least one; the client asks again for the rest.
    Pages(Vec<PageRead>),
    /// To `Stage`, `Unstage`, `FinishImport`, `Rename`, `Drop`.
    Done,
    /// To `Commit`.
    Committed(CommitReply),
    /// To `FindCommit`.
    Found(Option<Version>),
    /// To `List`.
    Databases(DatabasePage),
    /// To `Describe`.
    Database(Box<DatabaseInfo>),
    /// To `Log`.
    Log(LogPage),
    /// To `TimeOf`.
    Time(Option<i64>),
    /// To `Status`.
    Status(StoreStatus),
    /// To `CountRecords`.
    Records(RecordCounts),
    /// To any request.
    Error(Error),
}

const INFO: u8 = 0x82;
const OPENED: u8 = 0x83;
const VERSION: u8 = 0x84;
const BEGUN: u8 = 0x85;
const PAGES: u8 = 0x86;
const DONE: u8 = 0x87;
const COMMITTED: u8 = 0x88;
const FOUND: u8 = 0x89;
const DATABASES: u8 = 0x8a;
const DATABASE: u8 = 0x8b;
const LOG: u8 = 0x8c;
const TIME: u8 = 0x8d;
const STATUS: u8 = 0x8e;
const RECORDS: u8 = 0x8f;

impl Reply {
    const fn code(&self) -> u8 {
        match self {
            Self::Hello(_) => KIND_HELLO_REPLY,
            Self::Info(_) => INFO,
            Self::Opened(_) => OPENED,
            Self::Version(_) => VERSION,
            Self::Begun(_) => BEGUN,
            Self::Pages(_) => PAGES,
            Self::Done => DONE,
            Self::Committed(_) => COMMITTED,
            Self::Found(_) => FOUND,
            Self::Databases(_) => DATABASES,
            Self::Database(_) => DATABASE,
            Self::Log(_) => LOG,
            Self::Time(_) => TIME,
            Self::Status(_) => STATUS,
            Self::Records(_) => RECORDS,
            Self::Error(_) => KIND_ERROR,
        }
    }

    /// The reply's name, for errors about a reply of the wrong kind.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Hello(_) => "hello",
            Self::Info(_) => "info",
            Self::Opened(_) => "opened",
            Self::Version(_) => "version",
            Self::Begun(_) => "begun",
            Self::Pages(_) => "pages",
            Self::Done => "done",
            Self::Committed(_) => "committed",
            Self::Found(_) => "found",
            Self::Databases(_) => "databases",
            Self::Database(_) => "database",
            Self::Log(_) => "log",
            Self::Time(_) => "time",
            Self::Status(_) => "status",
            Self::Records(_) => "records",
            Self::Error(_) => "error",
        }
    }

    /// The reply as a frame; where it does not fit one, an error reply that says so.
    #[must_use]
    pub fn encode(&self, id: u64) -> Vec<u8> {
        let frame = frame::build(id, self.code(), self.size_hint(), |w| self.put_body(w));
        match frame {
            Ok(frame) => frame,
            // An error's texts are cut: its frame is always built.
            Err(error) => {
                frame::build(id, KIND_ERROR, 128, |w| error::put(w, &error)).unwrap_or_default()
            }
        }
    }

    fn size_hint(&self) -> usize {
        match self {
            Self::Pages(pages) => 8 + pages.iter().map(|page| page.bytes.len() + 48).sum::<usize>(),
            _ => 128,
        }
    }

    fn put_body(&self, w: &mut Writer) {
        match self {
            Self::Hello(hello) => hello.encode(w),
            Self::Info(info) => put_store_info(w, info),
            Self::Opened(reply) => put_opened(w, reply),
            Self::Version(version) => {
                w.bytes(&version.to_bytes());
            }
            Self::Begun(reply) => put_begun(w, reply),
            Self::Pages(pages) => {
                w.len_of(pages.len());
                for page in pages {
                    w.bytes(&page.version.to_bytes())
                        .bytes(&page.hash.to_bytes())
                        .blob(&page.bytes);
                }
            }
            Self::Done => {}
            Self::Committed(reply) => {
                w.bytes(&reply.version.to_bytes()).len_of(reply.previous.len());
                for previous in &reply.previous {
                    put_version_option(w, *previous);
                }
            }
            Self::Found(version) => put_version_option(w, *version),
            Self::Databases(page) => {
                w.len_of(page.items.len());
                page.items.iter().for_each(|item| put_database(w, item));
                w.bool(page.more);
            }
            Self::Database(info) => put_database(w, info),
            Self::Log(page) => {
                w.len_of(page.items.len());
                page.items.iter().for_each(|item| put_log_entry(w, item));
                w.bool(page.more);
            }
            Self::Time(micros) => field::put_option(w, *micros, |w, micros| {
                w.i64(micros);
            }),
            Self::Status(status) => put_status(w, status),
            Self::Records(counts) => {
                w.len_of(counts.subspaces.len());
                for (name, (records, bytes)) in &counts.subspaces {
                    w.text(name).u64(*records).u64(*bytes);
                }
            }
            Self::Error(error) => error::put(w, error),
        }
    }

    /// Reads a reply of type `code`.
    ///
    /// # Errors
    /// `Corrupt` for an unknown type and for a body that is not exactly its message,
    /// `ProtocolVersion` for a hello of another version.
    pub fn decode(code: u8, body: &[u8]) -> Result<Self> {
        let mut r = Reader::new(body, "reply");
        let r = &mut r;
        let reply = match code {
            KIND_HELLO_REPLY => Self::Hello(ServerHello::decode(r)?),
            INFO => Self::Info(store_info(r)?),
            OPENED => Self::Opened(opened(r)?),
            VERSION => Self::Version(field::version(r)?),
            BEGUN => Self::Begun(begun(r)?),
            PAGES => Self::Pages(field::list(r, 554, page_read)?),
            DONE => Self::Done,
            COMMITTED => Self::Committed(committed(r)?),
            FOUND => Self::Found(field::option(r, field::version)?),
            DATABASES => Self::Databases(DatabasePage {
                items: field::list(r, 61, database)?,
                more: r.bool()?,
            }),
            DATABASE => Self::Database(Box::new(database(r)?)),
            LOG => Self::Log(LogPage { items: field::list(r, 45, log_entry)?, more: r.bool()? }),
            TIME => Self::Time(field::option(r, |r| r.i64())?),
            STATUS => Self::Status(status(r)?),
            RECORDS => {
                Self::Records(RecordCounts { subspaces: map(r, 17, |r| Ok((r.u64()?, r.u64()?)))? })
            }
            KIND_ERROR => Self::Error(error::get(r)?),
            other => return Err(r.corrupt(&format!("of unknown type {other:#04x}"))),
        };
        r.end()?;
        Ok(reply)
    }
}

fn put_version_option(w: &mut Writer, version: Option<Version>) {
    field::put_option(w, version, |w, version| {
        w.bytes(&version.to_bytes());
    });
}

fn put_opened(w: &mut Writer, reply: &OpenReply) {
    w.bytes(&reply.database.to_bytes())
        .bytes(&reply.branch.to_bytes())
        .bytes(&reply.domain.to_bytes());
    put_version_option(w, reply.snapshot);
    w.bool(reply.created);
}

fn opened(r: &mut Reader<'_>) -> Result<OpenReply> {
    Ok(OpenReply {
        database: r.array().map(DatabaseId::from_bytes)?,
        branch: r.array().map(BranchId::from_bytes)?,
        domain: r.array().map(DomainId::from_bytes)?,
        snapshot: field::option(r, field::version)?,
        created: r.bool()?,
    })
}

fn put_begun(w: &mut Writer, reply: &BeginReply) {
    w.bytes(&reply.incarnation.to_bytes())
        .bytes(&reply.snapshot.to_bytes())
        .bytes(&reply.head.to_bytes());
    field::put_allocation(w, &reply.allocation);
    let Changes::Commits(commits) = &reply.changes else {
        w.bool(false);
        return;
    };
    w.bool(true).len_of(commits.len());
    for change in commits {
        w.bytes(&change.version.to_bytes()).len_of(change.pages.len());
        for (page, hash) in &change.pages {
            w.u32(page.get());
            field::put_option(w, hash.as_ref(), |w, hash| {
                w.bytes(&hash.to_bytes());
            });
        }
        field::put_option(w, change.shrunk_to, |w, count| {
            w.u32(count.0);
        });
    }
}

fn begun(r: &mut Reader<'_>) -> Result<BeginReply> {
    Ok(BeginReply {
        incarnation: r.array().map(Incarnation::from_bytes)?,
        snapshot: field::version(r)?,
        head: field::version(r)?,
        allocation: field::allocation(r)?,
        changes: if r.bool()? {
            Changes::Commits(field::list(r, 12, change)?)
        } else {
            Changes::Unknown
        },
    })
}

fn change(r: &mut Reader<'_>) -> Result<Change> {
    Ok(Change {
        version: field::version(r)?,
        pages: field::list(r, 5, |r| Ok((field::page_number(r)?, field::option(r, field::hash)?)))?,
        shrunk_to: field::option(r, field::page_count)?,
    })
}

fn page_read(r: &mut Reader<'_>) -> Result<PageRead> {
    Ok(PageRead {
        version: field::version(r)?,
        hash: field::hash(r)?,
        bytes: field::page_bytes(r)?,
    })
}

fn committed(r: &mut Reader<'_>) -> Result<CommitReply> {
    let version = field::version(r)?;
    let previous = field::list(r, 1, |r| field::option(r, field::version))?;
    if previous.len() > MAX_COMMIT_PARTS {
        return Err(r.corrupt("more parts than a commit can have"));
    }
    Ok(CommitReply { version, previous })
}

fn put_database(w: &mut Writer, info: &DatabaseInfo) {
    field::put_name(w, &info.name);
    w.bytes(&info.database.to_bytes())
        .bytes(&info.branch.to_bytes())
        .bytes(&info.domain.to_bytes())
        .i64(info.created_micros)
        .bool(info.importing)
        .bytes(&info.head.to_bytes());
    field::put_allocation(w, &info.allocation);
}

fn database(r: &mut Reader<'_>) -> Result<DatabaseInfo> {
    Ok(DatabaseInfo {
        name: field::name(r)?,
        database: r.array().map(DatabaseId::from_bytes)?,
        branch: r.array().map(BranchId::from_bytes)?,
        domain: r.array().map(DomainId::from_bytes)?,
        created_micros: r.i64()?,
        importing: r.bool()?,
        head: field::version(r)?,
        allocation: field::allocation(r)?,
    })
}

fn put_log_entry(w: &mut Writer, entry: &LogEntry) {
    w.bytes(&entry.version.to_bytes()).bytes(&entry.id.to_bytes()).i64(entry.time_micros);
    field::put_page_set(w, &entry.pages);
    w.u64(entry.bytes);
    field::put_option(w, entry.allocation.as_ref(), field::put_allocation);
    field::put_cut_text(w, &entry.client, MAX_CLIENT_BYTES);
}

fn log_entry(r: &mut Reader<'_>) -> Result<LogEntry> {
    Ok(LogEntry {
        version: field::version(r)?,
        id: r.array().map(CommitId::from_bytes)?,
        time_micros: r.i64()?,
        pages: field::page_set(r)?,
        bytes: r.u64()?,
        allocation: field::option(r, field::allocation)?,
        client: field::text(r, "client", MAX_CLIENT_BYTES)?,
    })
}

fn put_status(w: &mut Writer, status: &StoreStatus) {
    w.len_of(status.numbers.len());
    for (name, number) in &status.numbers {
        w.text(name).u64(*number);
    }
    w.len_of(status.texts.len());
    for (name, text) in &status.texts {
        w.text(name).text(text);
    }
}

fn status(r: &mut Reader<'_>) -> Result<StoreStatus> {
    Ok(StoreStatus {
        numbers: map(r, 9, |r| r.u64())?,
        texts: map(r, 2, |r| r.text().map(str::to_owned))?,
    })
}

fn map<T>(
    r: &mut Reader<'_>,
    item_bytes: usize,
    read: impl Fn(&mut Reader<'_>) -> Result<T>,
) -> Result<BTreeMap<String, T>> {
    let len = r.len(item_bytes)?;
    (0..len).map(|_| Ok((r.text()?.to_owned(), read(r)?))).collect()
}
