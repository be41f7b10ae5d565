//! The retry runner: one request until its reply or its deadline.

use std::sync::atomic::Ordering;
use std::time::Duration;

use interleaf_store::env::Deadline;
use interleaf_store::types::{CommitId, StoreId};
use interleaf_store::{Error, Result};

use super::socket::{Broken, Pace, Socket};
use super::{Client, Endpoint};
use crate::frame;
use crate::limits::{HEADER_LEN, MAX_WAIT_MS};
use crate::message::{CAN_SHARE_HEADS, ClientHello, Reply, Request};

/// First wait between two attempts; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(2);

/// Pages of a read that a server answers at once.
const QUICK_PAGES: usize = 16;

/// Longest wait between two attempts.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

/// What a lost reply means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repeat {
    /// The request may be sent again: twice is like once.
    Freely,
    /// It may not: the caller is told that the outcome is not known.
    Never,
    /// The store takes the commit of this id once, however often it is sent.
    Commit(CommitId),
}

/// A connection, and the store that its server names.
type Greeted = (Socket, StoreId);

/// Where an exchange broke.
struct Failed {
    /// Whether the request may have reached a server.
    sent: bool,
    why: Broken,
}

impl Client {
    /// Sends a request until there is a reply, an error that another attempt would not
    /// change, or the deadline.
    pub(super) fn call(
        &self,
        request: &Request<'_>,
        repeat: Repeat,
        deadline: Deadline,
    ) -> Result<Reply> {
        let mut frame = request.encode(self.next_id(), 0)?;
        // Whether an attempt may have had an effect that is not known here.
        let mut doubt = false;
        let mut last = None;
        let mut wait = FIRST_WAIT;
        loop {
            let error = match self.attempt(&mut frame, repeat, pace(request), deadline) {
                Ok(Reply::Error(error)) if error.is_transient() => error,
                Ok(Reply::Error(error)) => return Err(after_doubt(error, repeat, doubt)),
                Ok(reply) => return Ok(reply),
                Err(Failed { sent, why }) => {
                    doubt |= sent;
                    match why {
                        // Why there was no server says more than that time ran out.
                        Broken::Late(late) if !sent => {
                            let error = last.unwrap_or(late);
                            return Err(after_doubt(error, repeat, doubt));
                        }
                        Broken::Late(error) | Broken::Refused(error) => {
                            return Err(after_doubt(error, repeat, doubt));
                        }
                        Broken::Lost(what) if sent && repeat == Repeat::Never => {
                            return Err(Error::Unavailable {
                                what: format!(
                                    "{what} (whether `{}` took effect is not known)",
                                    request.kind().label()
                                ),
                            });
                        }
                        Broken::Lost(what) => Error::Unavailable { what },
                    }
                }
            };
            let Ok(left) = self.env().remaining(deadline) else {
                return Err(after_doubt(error, repeat, doubt));
            };
            tracing::debug!(%error, request = request.kind().label(), "trying again");
            self.pause(wait.min(left))?;
            last = Some(error);
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// One exchange over an idle or a new connection.
    fn attempt(
        &self,
        frame: &mut [u8],
        repeat: Repeat,
        pace: Pace,
        deadline: Deadline,
    ) -> Result<Reply, Failed> {
        let unsent = |why| Failed { sent: false, why };
        // An idle connection may have lost its server unnoticed: not for a request that
        // cannot be sent twice.
        let idle = if repeat == Repeat::Never { None } else { self.pool.take() };
        let reused = idle.is_some();
        let mut socket = match idle {
            Some(socket) => socket,
            None => self.connection(deadline).map_err(unsent)?.0,
        };
        let request = self.put_wait(frame, deadline).map_err(unsent)?;
        let clock = &*self.env().clock;
        if let Err(why) = socket.send(frame, clock, deadline) {
            self.pool.clear();
            if reused && matches!(why, Broken::Lost(_)) {
                // The whole pool went stale at once: begin anew without a wait.
                return self.attempt(frame, repeat, pace, deadline);
            }
            // A part of a frame has no effect.
            return Err(unsent(why));
        }
        match self.reply(&mut socket, request, pace, deadline) {
            Ok(reply) => {
                self.pool.give(socket);
                Ok(reply)
            }
            Err(why) => {
                self.pool.clear();
                Err(Failed { sent: true, why })
            }
        }
    }

    fn reply(
        &self,
        socket: &mut Socket,
        request: u64,
        pace: Pace,
        deadline: Deadline,
    ) -> Result<Reply, Broken> {
        self.round_trips.fetch_add(1, Ordering::Relaxed);
        let (id, reply) = socket.receive(&*self.env().clock, deadline, pace)?;
        if id == request {
            return Ok(reply);
        }
        // The server could not read the request's own number, or ends the connection.
        if let Reply::Error(error) = reply {
            return Err(if error.is_transient() {
                Broken::Lost(error.to_string())
            } else {
                Broken::Refused(error)
            });
        }
        Err(Broken::Refused(Error::Corrupt {
            what: format!("a {} reply to request {id} instead of {request}", reply.label()),
        }))
    }

    /// Writes how long this client will wait still into a frame; the frame's request id.
    fn put_wait(&self, frame: &mut [u8], deadline: Deadline) -> Result<u64, Broken> {
        let left = self.env().remaining(deadline).map_err(Broken::Late)?;
        let wait = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).clamp(1, MAX_WAIT_MS);
        let header = frame::parse_header(frame).map_err(Broken::Refused)?;
        match (header, frame.get_mut(HEADER_LEN..).and_then(<[u8]>::first_chunk_mut)) {
            (Some(header), Some(field)) => {
                *field = wait.to_be_bytes();
                Ok(header.request)
            }
            _ => Err(Broken::Refused(Error::Corrupt { what: "a request without a wait".into() })),
        }
    }

    /// A new connection to the first server that answers, the one that did last first.
    pub(super) fn connection(&self, deadline: Deadline) -> Result<Greeted, Broken> {
        let mut all = Vec::new();
        for round in 0..2 {
            match self.connect_any(deadline) {
                // Nobody wants to read the same twice.
                Err(Broken::Lost(what)) if all.contains(&what) => {}
                Err(Broken::Lost(what)) => all.push(what),
                done => return done,
            }
            match &self.options.revive {
                Some(revive) if round == 0 => {
                    revive.revive(deadline).map_err(Broken::Refused)?;
                }
                _ => break,
            }
        }
        Err(Broken::Lost(all.join("; then ")))
    }

    fn connect_any(&self, deadline: Deadline) -> Result<Greeted, Broken> {
        let count = self.endpoints.len();
        let first = self.preferred.load(Ordering::Relaxed);
        let mut failures = Vec::new();
        for index in (0..count).map(|offset| (first + offset) % count) {
            let Some(endpoint) = self.endpoints.get(index) else { continue };
            let opened = endpoint
                .open(&*self.env().clock, deadline)
                .and_then(|fd| self.greet(Socket::new(fd), endpoint, deadline));
            match opened {
                Ok(socket) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(socket);
                }
                Err(Broken::Lost(what)) => failures.push(what),
                Err(why) => return Err(why),
            }
        }
        Err(Broken::Lost(failures.join("; ")))
    }

    /// Exchanges hellos.
    fn greet(
        &self,
        mut socket: Socket,
        endpoint: &Endpoint,
        deadline: Deadline,
    ) -> Result<Greeted, Broken> {
        let capabilities = match endpoint {
            Endpoint::Unix(_) => CAN_SHARE_HEADS,
            Endpoint::Tcp(_) => 0,
        };
        let hello = ClientHello { capabilities, software: self.options.software.clone() };
        let id = self.next_id();
        let frame = hello.encode(id).map_err(Broken::Refused)?;
        socket.send(&frame, &*self.env().clock, deadline)?;
        let reply = self.reply(&mut socket, id, Pace::Slow, deadline);
        if reply.is_err() && socket.got_http() {
            return Err(Broken::Refused(Error::InvalidUrl {
                url: endpoint.to_string(),
                why: "this is an HTTP port; Interleaf's protocol is spoken at another one, by \
                      default 7480"
                    .into(),
            }));
        }
        match reply? {
            Reply::Hello(hello) => {
                let found = hello.store.store;
                match self.store {
                    Some(store) if store != found => Err(Broken::Refused(Error::Unavailable {
                        what: format!("the server now serves store {found}, not {store}"),
                    })),
                    _ => {
                        self.heads.greeted(hello.heads.as_ref(), found);
                        Ok((socket, found))
                    }
                }
            }
            Reply::Error(error) if error.is_transient() => Err(Broken::Lost(error.to_string())),
            Reply::Error(error) => Err(Broken::Refused(error)),
            other => Err(Broken::Refused(unexpected(&other))),
        }
    }

    /// Waits between half of `wait` and all of it.
    fn pause(&self, wait: Duration) -> Result<()> {
        let [share] = self.env().random::<1>()?;
        self.env().clock.sleep(wait / 2 + wait * u32::from(share) / 512);
        Ok(())
    }

    fn next_id(&self) -> u64 {
        self.last_id.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// How long a server takes for a request.
fn pace(request: &Request<'_>) -> Pace {
    match request {
        Request::Begin(_) => Pace::Quick,
        Request::Read(read) if read.pages.len() <= QUICK_PAGES => Pace::Quick,
        Request::Commit(_) => Pace::Disk,
        _ => Pace::Slow,
    }
}

/// What the caller is told after an attempt whose effect is not known: for a commit, only
/// an answer that the store gives after it looked for the commit's id says that there was
/// none.
fn after_doubt(error: Error, repeat: Repeat, doubt: bool) -> Error {
    match repeat {
        Repeat::Commit(id) => commit_error(error, id, doubt),
        Repeat::Freely | Repeat::Never => error,
    }
}

/// The same for the commit `id`.
pub(crate) fn commit_error(error: Error, id: CommitId, doubt: bool) -> Error {
    match error {
        Error::Conflict { .. }
        | Error::IncarnationChanged
        | Error::Pruned { .. }
        | Error::NotFound { .. }
        | Error::OutcomeUnknown { .. } => error,
        _ if doubt => {
            tracing::debug!(%error, %id, "the commit's outcome is not known");
            Error::OutcomeUnknown { id, why: error.to_string() }
        }
        _ => error,
    }
}

/// The error for a reply of the wrong kind.
pub(super) fn unexpected(reply: &Reply) -> Error {
    Error::Corrupt { what: format!("a {} reply to another request", reply.label()) }
}
