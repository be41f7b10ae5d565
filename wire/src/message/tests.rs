//! Round trips of every message, and damaged ones.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use interleaf_store::Error;
use interleaf_store::api::*;
use interleaf_store::kv::Durability;
use interleaf_store::types::*;
use interleaf_store::when::When;
use proptest::prelude::Rng;
use proptest::test_runner::{RngAlgorithm, TestRng};

use super::*;
use crate::frame::parse_header;
use crate::limits::{HEADER_LEN, PROTOCOL_VERSION};

fn page(number: u32) -> PageNumber {
    PageNumber::new(number).unwrap()
}

fn name(text: &str) -> DatabaseName {
    DatabaseName::new(text).unwrap()
}

fn allocation(pages: u32) -> Allocation {
    Allocation { pages: PageCount(pages), ..Allocation::EMPTY }
}

fn commit_request() -> CommitRequest {
    CommitRequest {
        id: CommitId::from_bytes([1; 16]),
        incarnation: Incarnation::from_bytes([2; 8]),
        parts: vec![
            CommitPart {
                database: DatabaseId::from_bytes([3; 8]),
                branch: BranchId::from_bytes([4; 8]),
                domain: DomainId::from_bytes([5; 8]),
                snapshot: Version::new(6, 7),
                reads: [page(1), page(2), page(70_000)].into_iter().collect(),
                writes: vec![
                    (page(1), Bytes::from(vec![8; 512])),
                    (page(9), Bytes::from(vec![9; 512])),
                ],
                hashes: Vec::new(),
                staged: true,
                allocation: Some(AllocationChange {
                    snapshot: Version::new(6, 0),
                    before: allocation(8),
                    after: allocation(9),
                }),
            },
            CommitPart {
                database: DatabaseId::from_bytes([13; 8]),
                branch: BranchId::from_bytes([14; 8]),
                domain: DomainId::from_bytes([15; 8]),
                snapshot: Version::new(6, 7),
                reads: PageSet::new(),
                writes: vec![],
                hashes: Vec::new(),
                staged: false,
                allocation: None,
            },
        ],
        durability: Durability::Buffered,
        client: "sqlite3 pid 7".into(),
    }
}

pub(super) fn requests() -> Vec<Request<'static>> {
    let branch = BranchId::from_bytes([4; 8]);
    let open = |at: Option<When>| OpenRequest { name: name("app"), create: at.is_none(), at };
    let begin = |at, known| Request::Begin(Cow::Owned(BeginRequest { branch, at, known }));
    vec![
        Request::Info,
        Request::Open(Cow::Owned(open(None))),
        Request::Open(Cow::Owned(open(Some(When::Ago(Duration::from_secs(900)))))),
        Request::Resolve { branch, when: When::Version(Version::new(5, 6)) },
        Request::Resolve { branch, when: When::Time(-1) },
        Request::Resolve { branch, when: When::Pin("before".into()) },
        begin(None, None),
        begin(Some(Version::new(1, 2)), Some((Incarnation::from_bytes([7; 8]), Version::MAX))),
        Request::Read(Cow::Owned(ReadRequest {
            branch,
            snapshot: Version::new(3, 0),
            incarnation: Some(Incarnation::from_bytes([8; 8])),
            pages: vec![page(3), page(1), page(PageNumber::MAX)],
        })),
        Request::Stage(Cow::Owned(StageRequest {
            id: CommitId::from_bytes([1; 16]),
            branch,
            domain: DomainId::from_bytes([5; 8]),
            pages: vec![(page(2), Bytes::from(vec![1; 1024]))],
        })),
        Request::Unstage(CommitId::from_bytes([1; 16])),
        Request::Commit(Cow::Owned(commit_request())),
        Request::FindCommit(CommitId::from_bytes([2; 16])),
        Request::Create { name: name("a"), state: CreateState::Ready },
        Request::Create { name: name("b"), state: CreateState::Importing },
        Request::FinishImport(DatabaseId::from_bytes([3; 8])),
        Request::List { after: None },
        Request::List { after: Some(name("a")) },
        Request::Describe(name("ä")),
        Request::Rename { from: name("a"), to: name("b") },
        Request::Drop(name("a")),
        Request::Log(LogRequest {
            branch,
            after: Version::ZERO,
            up_to: Version::MAX,
            limit: 10,
            newest_first: true,
        }),
        Request::TimeOf(Version::new(1, 1)),
        Request::Status,
        Request::CountRecords,
    ]
}

fn database_info() -> DatabaseInfo {
    DatabaseInfo {
        name: name("app"),
        database: DatabaseId::from_bytes([3; 8]),
        branch: BranchId::from_bytes([4; 8]),
        domain: DomainId::from_bytes([5; 8]),
        created_micros: 1_700_000_000_000_000,
        importing: true,
        head: Version::new(9, 0),
        allocation: allocation(3),
    }
}

fn log_entry() -> LogEntry {
    LogEntry {
        version: Version::new(9, 0),
        id: CommitId::from_bytes([1; 16]),
        time_micros: -5,
        pages: [page(1), page(5)].into_iter().collect(),
        bytes: 4096,
        allocation: Some(allocation(5)),
        client: "python3".into(),
    }
}

fn begun(changes: Changes) -> Reply {
    Reply::Begun(BeginReply {
        incarnation: Incarnation::from_bytes([2; 8]),
        snapshot: Version::new(9, 3),
        head: Version::new(9, 0),
        allocation: allocation(5),
        changes,
    })
}

fn store_info() -> StoreInfo {
    StoreInfo {
        store: StoreId::from_bytes([1; 16]),
        incarnation: Incarnation::from_bytes([2; 8]),
        engine: "fjall".into(),
        software: "interleaf 0.1.0".into(),
    }
}

pub(super) fn replies() -> Vec<Reply> {
    let opened = |snapshot| {
        Reply::Opened(OpenReply {
            database: DatabaseId::from_bytes([3; 8]),
            branch: BranchId::from_bytes([4; 8]),
            domain: DomainId::from_bytes([5; 8]),
            snapshot,
            created: true,
        })
    };
    let bytes = Bytes::from(vec![7; 512]);
    vec![
        Reply::Hello(ServerHello { capabilities: 1 << 63, store: store_info(), heads: None }),
        Reply::Hello(ServerHello {
            capabilities: 4,
            store: store_info(),
            heads: Some(interleaf_heads::Place {
                path: "/srv/store/heads.shm".into(),
                device: 2,
                inode: 3,
                generation: 4,
                boot: "0d0f".into(),
            }),
        }),
        Reply::Info(store_info()),
        opened(None),
        opened(Some(Version::new(4, 4))),
        Reply::Version(Version::new(1, 0)),
        begun(Changes::Unknown),
        begun(Changes::Commits(vec![])),
        begun(Changes::Commits(vec![
            Change {
                version: Version::new(8, 0),
                pages: vec![(page(3), Some(ContentHash::of(b"x"))), (page(4), None)],
                shrunk_to: None,
            },
            Change { version: Version::new(9, 0), pages: vec![], shrunk_to: Some(PageCount(4)) },
        ])),
        Reply::Pages(vec![PageRead {
            version: Version::new(3, 0),
            hash: ContentHash::of(&bytes),
            bytes,
        }]),
        Reply::Done,
        Reply::Committed(CommitReply {
            version: Version::new(10, 0),
            previous: vec![None, Some(Version::new(9, 0))],
        }),
        Reply::Found(None),
        Reply::Found(Some(Version::new(10, 0))),
        Reply::Databases(DatabasePage { items: vec![database_info()], more: true }),
        Reply::Database(Box::new(database_info())),
        Reply::Log(LogPage { items: vec![log_entry(), log_entry()], more: false }),
        Reply::Time(Some(-7)),
        Reply::Time(None),
        Reply::Status(StoreStatus {
            numbers: [("commits".into(), 7)].into(),
            texts: [("engine".into(), "fjall".into())].into(),
        }),
        Reply::Records(RecordCounts { subspaces: [("content".into(), (3, 4))].into() }),
        Reply::Error(Error::Conflict { what: "page 7".into() }),
    ]
}

/// Splits a whole frame into type and body.
fn split(frame: &[u8]) -> (u8, &[u8]) {
    let header = parse_header(frame).unwrap().unwrap();
    assert_eq!(header.frame_len(), frame.len());
    (header.kind, &frame[HEADER_LEN..])
}

#[test]
fn requests_round_trip() {
    let mut seen = std::collections::HashSet::new();
    for request in requests() {
        seen.insert(request.kind());
        let frame = request.encode(77, 1234).unwrap();
        let (kind, body) = split(&frame);
        assert_eq!(Request::decode(kind, body).unwrap(), (request, 1234));
    }
    assert_eq!(seen.len(), RequestKind::ALL.len(), "every kind of request is tried");
    for kind in RequestKind::ALL {
        assert_eq!(RequestKind::from_code(kind.code()), Some(*kind));
    }
}

#[test]
fn replies_round_trip() {
    for reply in replies() {
        let frame = reply.encode(77);
        let (kind, body) = split(&frame);
        assert_eq!(Reply::decode(kind, body).unwrap(), reply);
    }
}

#[test]
fn hello_round_trips_and_names_what_is_wrong() {
    let hello = ClientHello { capabilities: 5, software: "interleaf 0.1.0".into() };
    let frame = hello.encode(0).unwrap();
    let (kind, body) = split(&frame);
    assert_eq!(kind, KIND_HELLO);
    assert_eq!(ClientHello::decode(body).unwrap(), hello);

    let mut other_version = body.to_vec();
    other_version[5] = 9;
    other_version.extend_from_slice(b"fields of that version");
    assert_eq!(
        ClientHello::decode(&other_version).unwrap_err(),
        Error::ProtocolVersion { found: 9, known: u32::from(PROTOCOL_VERSION) }
    );
    let mut magic = body.to_vec();
    magic[0] = b'X';
    assert!(ClientHello::decode(&magic).unwrap_err().to_string().contains("ILF1"));
}

#[test]
fn a_body_cut_short_or_with_bytes_behind_its_end_is_refused() {
    for request in requests() {
        let frame = request.encode(1, 1).unwrap();
        let (kind, body) = split(&frame);
        for cut in 0..body.len() {
            assert!(Request::decode(kind, &body[..cut]).is_err(), "{request:?} cut at {cut}");
        }
        let longer = [body, &[0]].concat();
        assert!(Request::decode(kind, &longer).is_err(), "{request:?}");
    }
    for reply in replies() {
        let frame = reply.encode(1);
        let (kind, body) = split(&frame);
        for cut in 0..body.len() {
            assert!(Reply::decode(kind, &body[..cut]).is_err(), "{reply:?} cut at {cut}");
        }
        let longer = [body, &[0]].concat();
        assert!(Reply::decode(kind, &longer).is_err(), "{reply:?}");
    }
}

#[test]
fn unknown_types_are_named() {
    let error = Request::decode(0x7e, &[]).unwrap_err();
    assert!(matches!(&error, Error::Unsupported { what } if what.contains("0x7e")), "{error}");
    assert!(Reply::decode(0x70, &[]).unwrap_err().to_string().contains("0x70"));
}

#[test]
fn bounds_are_kept() {
    let pages: Vec<_> = (1..=1025).map(page).collect();
    let branch = BranchId::from_bytes([4; 8]);
    let read = ReadRequest { branch, snapshot: Version::ZERO, incarnation: None, pages };
    let frame = Request::Read(Cow::Owned(read)).encode(1, 1).unwrap();
    let (kind, body) = split(&frame);
    let error = Request::decode(kind, body).unwrap_err();
    assert!(matches!(error, Error::TooLarge { size: 1025, limit: 1024, .. }), "{error}");

    let stage = |len| {
        let request = Request::Stage(Cow::Owned(StageRequest {
            id: CommitId::from_bytes([1; 16]),
            branch,
            domain: DomainId::from_bytes([5; 8]),
            pages: vec![(page(1), Bytes::from(vec![0; len]))],
        }));
        request.encode(1, 1)
    };
    let frame = stage(1000).unwrap();
    let (kind, body) = split(&frame);
    assert!(Request::decode(kind, body).is_err(), "a page of 1000 bytes");
    assert!(matches!(stage(17 << 20).unwrap_err(), Error::TooLarge { .. }));

    let infos = vec![database_info(); 300_000];
    let frame = Reply::Databases(DatabasePage { items: infos, more: false }).encode(1);
    let (kind, body) = split(&frame);
    let reply = Reply::decode(kind, body).unwrap();
    assert!(matches!(reply, Reply::Error(Error::TooLarge { .. })), "{reply:?}");
}

/// Seeded damage: bits flipped, bytes replaced, parts cut out or doubled. A decoder may
/// find a message or an error in it, and must not panic or take memory without end.
#[test]
fn damaged_messages_never_panic() {
    let seed = std::env::var("INTERLEAF_SEED")
        .ok()
        .and_then(|text| text.parse::<u64>().ok())
        .unwrap_or(0x1eaf);
    eprintln!("INTERLEAF_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_be_bytes());
    let mut rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let frames: Vec<Vec<u8>> = requests()
        .iter()
        .map(|request| request.encode(1, 1).unwrap())
        .chain(replies().iter().map(|reply| reply.encode(1)))
        .collect();
    for _ in 0..2000 {
        for frame in &frames {
            let (kind, body) = split(frame);
            let damaged = damage(&mut rng, body);
            let kind = if rng.next_u32().is_multiple_of(20) { byte(&mut rng) } else { kind };
            // Whatever is decoded can be encoded again: it kept every bound.
            if let Ok((request, wait)) = Request::decode(kind, &damaged) {
                request.encode(1, wait).unwrap();
            }
            if let Ok(reply) = Reply::decode(kind, &damaged) {
                drop(reply.encode(1));
            }
            drop(ClientHello::decode(&damaged));
            drop(parse_header(&damaged));
        }
    }
}

fn byte(rng: &mut TestRng) -> u8 {
    rng.next_u32().to_be_bytes()[0]
}

fn damage(rng: &mut TestRng, body: &[u8]) -> Vec<u8> {
    let mut bytes = body.to_vec();
    for _ in 0..=rng.next_u32() % 4 {
        if bytes.is_empty() {
            bytes.push(byte(rng));
        }
        let at = rng.next_u32() as usize % bytes.len();
        let to = at + rng.next_u32() as usize % (bytes.len() - at);
        match rng.next_u32() % 6 {
            0 => bytes[at] ^= 1 << (rng.next_u32() % 8),
            1 => bytes[at] = byte(rng),
            2 => bytes[at] = 0xff,
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..to)),
            _ => bytes.extend_from_within(at..to),
        }
    }
    bytes
}
