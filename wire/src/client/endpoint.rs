//! Where a server listens, and how a socket to it is opened.

use std::fmt;
use std::net::{TcpStream, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use interleaf_store::env::{Clock, Deadline};
use interleaf_store::url::{HostPort, check_socket_path};
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::socket::Broken;

/// Longest wait for one host to accept a connection, where there are others to try.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port.
    Tcp(HostPort),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(host) => write!(f, "tcp://{host}"),
        }
    }
}

impl Endpoint {
    /// Opens a socket.
    ///
    /// A host name is resolved by the system's resolver, which keeps its own time limit.
    pub(super) fn open(&self, clock: &dyn Clock, deadline: Deadline) -> Result<OwnedFd, Broken> {
        let left = deadline.remaining(clock.now()).map_err(Broken::Late)?;
        match self {
            Self::Unix(path) => {
                check_socket_path(path).map_err(Broken::Refused)?;
                open_unix(path, left).map_err(|e| Broken::Lost(format!("{self}: {e}")))
            }
            Self::Tcp(host) => open_tcp(host, left.min(CONNECT_LIMIT))
                .map_err(|e| Broken::Lost(format!("{self}: {e}"))),
        }
    }
}

fn open_unix(path: &std::path::Path, left: Duration) -> Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new(path)?;
    let fd = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    // A connect to a Unix socket waits while the listener's queue is full, by this timeout.
    set_socket_timeout(&fd, Timeout::Send, Some(left.max(Duration::from_millis(1))))?;
    rustix::io::retry_on_intr(|| rustix::net::connect(&fd, &address))?;
    Ok(fd)
}

fn open_tcp(host: &HostPort, left: Duration) -> std::io::Result<OwnedFd> {
    let mut last = std::io::Error::other("the name has no address");
    for address in (host.host.as_str(), host.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream.into());
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}
