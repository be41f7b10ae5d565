//! One connection: a socket, what was read off it ahead, and its timeouts.

use std::fmt;
use std::os::fd::OwnedFd;
use std::time::Duration;

use interleaf_store::env::{Clock, Deadline};
use interleaf_store::{Error, Result};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags};

use crate::frame::{Header, is_http, parse_header};
use crate::limits::HEADER_LEN;
use crate::looks::{LOOK, Looks};
use crate::message::Reply;

/// Bytes asked of the kernel at once, and kept for the next reply.
const INBOX_BYTES: usize = 16 << 10;

/// How long a reply is looked for that a server gives from memory.
const SHORT_LOOK: Duration = Duration::from_micros(30);

/// How long a reply takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pace {
    /// The server has it in memory, or almost.
    Quick,
    /// As long as a disk.
    Disk,
    /// Nobody knows.
    Slow,
}

/// Most bytes by which the inbox grows ahead of what has arrived.
const GROWTH_BYTES: usize = 1 << 20;

/// Why an exchange did not end in a reply.
#[derive(Debug)]
pub(super) enum Broken {
    /// The deadline passed.
    Late(Error),
    /// The connection is gone; why.
    Lost(String),
    /// The peer does not keep the protocol, or refuses this client: no use to try again.
    Refused(Error),
}

/// A connected socket.
pub(super) struct Socket {
    fd: OwnedFd,
    inbox: Vec<u8>,
    send_timeout: Duration,
    receive_timeout: Duration,
    /// For replies of [`Pace::Disk`].
    looks: Looks,
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Socket").field(&self.fd).finish()
    }
}

impl Socket {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self {
            fd,
            inbox: Vec::with_capacity(INBOX_BYTES),
            send_timeout: Duration::ZERO,
            receive_timeout: Duration::ZERO,
            looks: Looks::default(),
        }
    }

    /// Sends a whole frame, in one system call where the kernel takes it.
    pub(super) fn send(
        &mut self,
        frame: &[u8],
        clock: &dyn Clock,
        deadline: Deadline,
    ) -> Result<(), Broken> {
        let mut rest = frame;
        while !rest.is_empty() {
            arm(&self.fd, Timeout::Send, &mut self.send_timeout, clock, deadline)?;
            // NOSIGNAL: a peer that is gone must not raise SIGPIPE in the host.
            match rustix::net::send(&self.fd, rest, SendFlags::NOSIGNAL) {
                Ok(sent) => rest = rest.get(sent..).unwrap_or_default(),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(Broken::Lost(format!("sending: {error}"))),
            }
        }
        Ok(())
    }

    /// Waits for the next frame and decodes it.
    pub(super) fn receive(
        &mut self,
        clock: &dyn Clock,
        deadline: Deadline,
        pace: Pace,
    ) -> Result<(u64, Reply), Broken> {
        match pace {
            Pace::Quick => drop(self.look(clock, SHORT_LOOK)?),
            Pace::Disk if self.looks.due() => {
                let found = self.look(clock, LOOK)?;
                self.looks.looked(found);
            }
            Pace::Disk | Pace::Slow => {}
        }
        let header = self.fill(clock, deadline)?;
        let body = self.inbox.get(HEADER_LEN..header.frame_len()).unwrap_or_default();
        let reply = Reply::decode(header.kind, body).map_err(Broken::Refused)?;
        if self.inbox.len() > header.frame_len() {
            return Err(Broken::Refused(Error::Corrupt {
                what: "a reply with bytes behind its end".into(),
            }));
        }
        self.inbox.clear();
        self.inbox.shrink_to(INBOX_BYTES);
        Ok((header.request, reply))
    }

    /// Whether the peer is there still, while nothing is awaited of it.
    pub(super) fn is_connected(&self) -> bool {
        let mut byte = [0u8];
        let flags = RecvFlags::DONTWAIT | RecvFlags::PEEK;
        matches!(rustix::net::recv(&self.fd, &mut byte, flags), Err(Errno::AGAIN))
    }

    /// Whether what was received last is HTTP.
    pub(super) fn got_http(&self) -> bool {
        is_http(&self.inbox)
    }

    /// Reads what comes within a moment; whether something did. Others run in between, where
    /// there are any.
    fn look(&mut self, clock: &dyn Clock, limit: Duration) -> Result<bool, Broken> {
        let begun = clock.now();
        while clock.now().duration_since(begun) < limit {
            let space = rustix::buffer::spare_capacity(&mut self.inbox);
            match rustix::net::recv(&self.fd, space, RecvFlags::DONTWAIT) {
                Ok((0, _)) => return Err(gone()),
                Ok(_) => return Ok(true),
                Err(Errno::INTR | Errno::AGAIN) => std::thread::yield_now(),
                Err(error) => return Err(Broken::Lost(format!("receiving: {error}"))),
            }
        }
        Ok(false)
    }

    /// Reads until the inbox begins with a whole frame.
    fn fill(&mut self, clock: &dyn Clock, deadline: Deadline) -> Result<Header, Broken> {
        loop {
            let missing = match parse_header(&self.inbox).map_err(Broken::Refused)? {
                Some(header) => match header.frame_len().checked_sub(self.inbox.len()) {
                    None | Some(0) => return Ok(header),
                    Some(missing) => missing,
                },
                None => HEADER_LEN,
            };
            self.inbox.reserve(missing.min(GROWTH_BYTES));
            arm(&self.fd, Timeout::Recv, &mut self.receive_timeout, clock, deadline)?;
            let space = rustix::buffer::spare_capacity(&mut self.inbox);
            match rustix::net::recv(&self.fd, space, RecvFlags::empty()) {
                Ok((0, _)) => return Err(gone()),
                Ok(_) | Err(Errno::INTR | Errno::AGAIN) => {}
                Err(error) => return Err(Broken::Lost(format!("receiving: {error}"))),
            }
        }
    }
}

fn gone() -> Broken {
    Broken::Lost("the server closed the connection".into())
}

/// Sets a socket's timeout so that a wait that begins now ends by the deadline.
///
/// It is the largest power of two of milliseconds that is left: a wait that ends early is
/// begun again, and in most calls the timeout set last is the right one still.
fn arm(
    fd: &OwnedFd,
    which: Timeout,
    armed: &mut Duration,
    clock: &dyn Clock,
    deadline: Deadline,
) -> Result<(), Broken> {
    let left = deadline.remaining(clock.now()).map_err(Broken::Late)?;
    let millis = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
    let timeout = Duration::from_millis(1 << millis.ilog2().min(40));
    if *armed != timeout {
        set_socket_timeout(fd, which, Some(timeout))
            .map_err(|error| Broken::Lost(format!("setting a timeout: {error}")))?;
        *armed = timeout;
    }
    Ok(())
}
