//! One client's connection: frames in, requests to the store, replies out.

use std::io::ErrorKind;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use interleaf_store::api::{Backend, CommitRequest};
use interleaf_store::env::{Deadline, Env};
use interleaf_store::{Error, Store, Submitted};
use interleaf_wire::frame::{Header, is_http, parse_header};
use interleaf_wire::limits::HEADER_LEN;
use interleaf_wire::looks::{LOOK, Looks};
use interleaf_wire::message::{
    CAN_SHARE_HEADS, ClientHello, KIND_HELLO, Reply, Request, RequestKind, ServerHello,
};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use super::alone::Alone;
use super::execute::{execute, guarded};
use super::gate::{IN_FLIGHT, LARGE, LargeGate, Pass, reply_bytes};
use super::metrics::Metrics;
use super::outbox::Outbox;
use super::stream::Stream;

/// How long a client may take for its hello, and for the rest of a frame once it began.
const FRAME_LIMIT: Duration = Duration::from_secs(30);

/// How long a connection that ends in an error is read on, so that its client sees why.
const LINGER: Duration = Duration::from_secs(1);

/// Bytes of room in a connection's buffer.
const BUFFER: usize = 16 << 10;

/// Most bytes by which the buffer grows ahead of what has arrived.
const GROWTH: usize = 1 << 20;

/// What a client is told that speaks HTTP.
const NOT_HTTP: &str = "this port speaks Interleaf's protocol, not HTTP; /healthz and /metrics are \
                        where `interleaf serve --http` says, by default http://127.0.0.1:7481\n";

/// Most pages that are read on a socket's own thread; more go to a thread of their own.
const QUICK_PAGES: usize = 16;

/// What all connections share.
pub struct Shared {
    /// The store.
    pub store: Arc<Store>,
    /// Time and randomness.
    pub env: Env,
    /// Leave for large frames.
    pub large: LargeGate,
    /// Whether one client is at work alone.
    pub alone: Arc<Alone>,
    /// How many connections there were.
    pub connections: AtomicU64,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Whether the server is to stop.
    pub stop: watch::Receiver<bool>,
}

/// Why reading ended.
enum End {
    /// The client closed the connection, or it broke.
    Gone,
    /// The client broke the protocol: it is told, and the connection closed.
    Fault(u64, Error),
    /// The client speaks HTTP: it is told so in HTTP.
    Http,
}

struct Connection {
    /// Its number, from 1.
    number: u64,
    shared: Arc<Shared>,
    stream: Arc<Stream>,
    outbox: Arc<Outbox>,
    slots: Arc<Semaphore>,
}

/// Serves a connection until its client closes it, breaks the protocol, or the server is
/// to stop. What is in flight then is finished and answered.
pub async fn serve(shared: Arc<Shared>, stream: Stream) {
    let stream = Arc::new(stream);
    let outbox = Arc::new(Outbox::new(Arc::clone(&stream), Arc::clone(&shared.metrics)));
    let slots = Arc::new(Semaphore::new(IN_FLIGHT as usize));
    let mut stop = shared.stop.clone();
    let number = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
    let connection = Connection { number, shared, stream, outbox, slots };
    let end = tokio::select! {
        end = connection.read() => end,
        () = connection.outbox.drain() => End::Gone,
        _ = stop.wait_for(|stop| *stop) => End::Gone,
    };
    if let End::Fault(request, error) = &end {
        tracing::debug!(%error, "a client broke the protocol");
        connection.shared.metrics.faults.inc();
        connection.outbox.send(Reply::Error(error.clone()).encode(*request), None);
    }
    if let End::Http = &end {
        tracing::debug!("a client speaks HTTP");
        connection.shared.metrics.faults.inc();
        connection.outbox.send(not_http(), None);
    }
    // Each request in flight holds a slot until its reply is written.
    tokio::select! {
        _ = connection.slots.acquire_many(IN_FLIGHT) => {}
        () = connection.outbox.drain() => {}
    }
    if matches!(end, End::Fault(..) | End::Http) {
        connection.linger().await;
    }
}

impl Connection {
    async fn read(&self) -> End {
        let mut buffer = BytesMut::with_capacity(BUFFER);
        let mut greeted = false;
        let mut looks = Looks::default();
        loop {
            if buffer.is_empty() && self.shared.alone.is(self.number) && looks.due() {
                match self.look(&mut buffer).await {
                    Ok(found) => looks.looked(found),
                    Err(end) => return end,
                }
            }
            let (header, body, large) = match self.frame(&mut buffer, greeted).await {
                Ok(frame) => frame,
                Err(end) => return end,
            };
            self.shared.metrics.bytes_in.inc_by(header.frame_len() as u64);
            self.shared.alone.asks(self.number);
            let handled = if greeted {
                self.request(header, &body, large).await
            } else {
                self.hello(header, &body).await
            };
            if let Err(end) = handled {
                return end;
            }
            greeted = true;
        }
    }

    /// The next whole frame.
    async fn frame(
        &self,
        buffer: &mut BytesMut,
        greeted: bool,
    ) -> Result<(Header, Bytes, Option<OwnedSemaphorePermit>), End> {
        // Between two frames a client may be silent as long as it likes.
        let begun = async {
            while buffer.is_empty() {
                self.fill(buffer, HEADER_LEN).await?;
            }
            Ok(())
        };
        if greeted {
            begun.await?;
        } else {
            in_time(begun).await?;
        }
        in_time(async {
            let header = loop {
                if !greeted && is_http(buffer) {
                    return Err(End::Http);
                }
                match parse_header(buffer).map_err(|error| End::Fault(0, error))? {
                    Some(header) => break header,
                    None => self.fill(buffer, HEADER_LEN).await?,
                }
            };
            let large = self.shared.large.pass(header.frame_len()).await.map_err(|_| End::Gone)?;
            while let Some(missing) =
                header.frame_len().checked_sub(buffer.len()).filter(|n| *n > 0)
            {
                self.fill(buffer, missing).await?;
            }
            let mut frame = buffer.split_to(header.frame_len()).freeze();
            let body = frame.split_off(HEADER_LEN);
            Ok((header, body, large))
        })
        .await
    }

    /// Looks for a while whether something comes, and reads it. Others' work goes on.
    async fn look(&self, buffer: &mut BytesMut) -> Result<bool, End> {
        buffer.reserve(BUFFER / 4);
        let clock = &*self.shared.env.clock;
        let begun = clock.now();
        while clock.now().duration_since(begun) < LOOK {
            match self.stream.try_read_buf(buffer) {
                Ok(0) => return Err(End::Gone),
                Ok(_) => return Ok(true),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    std::thread::yield_now();
                    tokio::task::yield_now().await;
                }
                Err(_) => return Err(End::Gone),
            }
        }
        Ok(false)
    }

    /// Reads something into the buffer, which is to get `missing` more bytes.
    async fn fill(&self, buffer: &mut BytesMut, missing: usize) -> Result<(), End> {
        buffer.reserve(missing.clamp(BUFFER / 4, GROWTH));
        loop {
            // Most often the request is there already when its connection gets its turn.
            match self.stream.try_read_buf(buffer) {
                Ok(0) => return Err(End::Gone),
                Ok(_) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(_) => return Err(End::Gone),
            }
            self.stream.readable().await.map_err(|_| End::Gone)?;
        }
    }

    async fn hello(&self, header: Header, body: &[u8]) -> Result<(), End> {
        let fault = |error| End::Fault(header.request, error);
        if header.kind != KIND_HELLO {
            return Err(fault(Error::InvalidRequest {
                what: "the first message is not a hello".into(),
            }));
        }
        let hello = ClientHello::decode(body).map_err(fault)?;
        tracing::debug!(software = hello.software, "a client");
        // To those on this machine.
        let local = matches!(*self.stream, Stream::Unix(_));
        let asked = hello.capabilities & CAN_SHARE_HEADS != 0;
        let heads = if local && asked { self.shared.store.heads_place() } else { None };
        let shared = Arc::clone(&self.shared);
        let deadline = shared.env.deadline(FRAME_LIMIT);
        let info = tokio::task::spawn_blocking(move || shared.store.info(deadline)).await;
        let reply = match info {
            Ok(Ok(store)) => Reply::Hello(ServerHello { capabilities: 0, store, heads }),
            Ok(Err(error)) => Reply::Error(error),
            Err(error) => Reply::Error(Error::Io { what: format!("the server failed: {error}") }),
        };
        self.outbox.send(reply.encode(header.request), None);
        Ok(())
    }

    /// Takes a request on. Returns as soon as the next one may be read.
    async fn request(
        &self,
        header: Header,
        body: &[u8],
        large: Option<OwnedSemaphorePermit>,
    ) -> Result<(), End> {
        let id = header.request;
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| End::Gone)?;
        let (request, wait_ms) = match Request::decode(header.kind, body) {
            Ok(decoded) => decoded,
            // A message of a later version of the protocol is no fault: the frame is whole.
            Err(error @ Error::Unsupported { .. }) => {
                let pass = Pass::new(slot, large);
                self.outbox.send(Reply::Error(error).encode(id), Some(pass));
                return Ok(());
            }
            Err(error) => return Err(End::Fault(id, error)),
        };
        let deadline = self.shared.env.deadline(Duration::from_millis(wait_ms.into()));
        let reply_large = match &large {
            // One leave at a time, or two that have one might wait for each other.
            Some(_) => None,
            None => self.shared.large.pass(reply_bytes(&request)).await.map_err(|_| End::Gone)?,
        };
        let pass = Pass::new(slot, large.or(reply_large));
        let request = match request {
            Request::Commit(commit) => {
                return self.commit(id, commit.into_owned(), deadline, pass);
            }
            other => other,
        };
        let work = Work { id, request, deadline, pass };
        if work.is_quick() {
            work.run(&self.shared, &self.outbox);
        } else {
            let (shared, outbox) = (Arc::clone(&self.shared), Arc::clone(&self.outbox));
            // A task of its own, so that the connection is read on.
            tokio::spawn(async move { tokio::task::block_in_place(|| work.run(&shared, &outbox)) });
        }
        Ok(())
    }

    /// Takes a commit on. Whoever writes the batch that it gets into sends the reply.
    fn commit(
        &self,
        id: u64,
        request: CommitRequest,
        deadline: Deadline,
        pass: Pass,
    ) -> Result<(), End> {
        let begun = self.shared.env.clock.now();
        let (shared, outbox) = (Arc::clone(&self.shared), Arc::clone(&self.outbox));
        let answer = move |reply: Reply| {
            let took = shared.env.clock.now().duration_since(begun);
            shared.metrics.answered(RequestKind::Commit, &reply, took);
            outbox.send(reply.encode(id), Some(pass));
        };
        let runtime = Handle::current();
        let done = move |submitted| match submitted {
            Submitted::Reply(reply) => answer(reply.map_or_else(Reply::Error, Reply::Committed)),
            Submitted::Work(work) => {
                runtime.spawn_blocking(move || {
                    answer(guarded("commit", || work.run().map(Reply::Committed)));
                });
            }
        };
        let submit = || self.shared.store.submit(request, deadline, Box::new(done));
        let Ok(lead) = std::panic::catch_unwind(AssertUnwindSafe(submit)) else {
            let what = "the server failed inside `commit`; its log says more".into();
            return Err(End::Fault(id, Error::Io { what }));
        };
        if lead {
            self.lead();
        }
        Ok(())
    }

    /// Writes the commits that wait.
    fn lead(&self) {
        let in_passing = self.shared.alone.may_lead(self.number);
        let shared = Arc::clone(&self.shared);
        let lead = move || {
            let begun = shared.env.clock.now();
            let write = || match in_passing {
                // Others' commits that come meanwhile are not this connection's to write: it
                // would be read no more for as long as they come.
                true => shared.store.lead_commits_in_passing(),
                false => shared.store.lead_commits(),
            };
            if std::panic::catch_unwind(AssertUnwindSafe(write)).is_err() {
                tracing::error!("the server failed while it wrote commits");
            }
            shared.alone.led(shared.env.clock.now().duration_since(begun));
        };
        if in_passing {
            return lead();
        }
        // In place, for a switch to a waiting thread would be on the commit's way: against
        // `spawn_blocking` a lone client's commit took 80 instead of 130 microseconds
        // beside its fsync.
        tokio::spawn(async move { tokio::task::block_in_place(lead) });
    }

    /// Reads and forgets what a client still sends, so that the system does not take the
    /// error reply back together with the connection.
    async fn linger(&self) {
        self.stream.shut_write();
        let rest = async {
            let mut buffer = BytesMut::with_capacity(LARGE);
            while self.fill(&mut buffer, LARGE).await.is_ok() {
                buffer.clear();
            }
        };
        // Either way the connection is closed now.
        drop(tokio::time::timeout(LINGER, rest).await);
    }
}

async fn in_time<T>(work: impl Future<Output = Result<T, End>>) -> Result<T, End> {
    match tokio::time::timeout(FRAME_LIMIT, work).await {
        Ok(result) => result,
        Err(_) => Err(End::Fault(0, Error::Timeout { after: FRAME_LIMIT })),
    }
}

/// [`NOT_HTTP`] as a reply.
fn not_http() -> Vec<u8> {
    let length = NOT_HTTP.len();
    format!(
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\
         Connection: close\r\n\r\n{NOT_HTTP}"
    )
    .into_bytes()
}

/// A request to be answered.
struct Work {
    id: u64,
    request: Request<'static>,
    deadline: Deadline,
    pass: Pass,
}

impl Work {
    /// Whether it is answered from memory or by few reads: a switch to another thread
    /// would cost more than it.
    fn is_quick(&self) -> bool {
        match &self.request {
            Request::Begin(_) | Request::Info | Request::Resolve { .. } | Request::TimeOf(_) => {
                true
            }
            Request::Read(read) => read.pages.len() <= QUICK_PAGES,
            _ => false,
        }
    }

    fn run(self, shared: &Shared, outbox: &Outbox) {
        let kind = self.request.kind();
        let begun = shared.env.clock.now();
        let reply = execute(&*shared.store, &self.request, self.deadline);
        shared.metrics.answered(kind, &reply, shared.env.clock.now().duration_since(begun));
        outbox.send(reply.encode(self.id), Some(self.pass));
    }
}
