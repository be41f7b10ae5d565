//! Where the server listens.

use std::fmt;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use interleaf_store::url::{HostPort, StoreUrl, check_socket_path};
use rustix::fs::Mode;

/// An address to listen at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket.
    Unix(PathBuf),
    /// A TCP port, for the protocol.
    Tcp(HostPort),
    /// A TCP port, for HTTP.
    Http(HostPort),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(at) => write!(f, "tcp://{at}"),
            Self::Http(at) => write!(f, "http://{at}"),
        }
    }
}

/// An address, and what becomes of the server where it is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Where.
    pub address: Address,
    /// Named by the user, or needed by clients: without it the server does not start.
    pub required: bool,
}

/// A socket that is listened on.
#[derive(Debug)]
pub enum Listening {
    /// A Unix socket and its file.
    Unix(UnixListener, PathBuf),
    /// A TCP port, for the protocol.
    Tcp(TcpListener, SocketAddr),
    /// A TCP port, for HTTP.
    Http(TcpListener, SocketAddr),
}

impl fmt::Display for Listening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(_, path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(_, at) => write!(f, "tcp://{at}"),
            Self::Http(_, at) => write!(f, "http://{at}"),
        }
    }
}

/// The address that `--listen URL` means.
///
/// # Errors
/// For a URL that nobody listens at.
pub fn address_of(url: &StoreUrl) -> anyhow::Result<Vec<Address>> {
    match url {
        StoreUrl::Unix(path) => Ok(vec![Address::Unix(path.clone())]),
        StoreUrl::Tcp(hosts) => Ok(hosts.iter().cloned().map(Address::Tcp).collect()),
        StoreUrl::Tls(_) => bail!("{url}: TLS is not in this version"),
        _ => bail!("{url} is no address to listen at: unix:/path.sock or tcp://host:port"),
    }
}

/// Refuses addresses that other machines reach, unless told not to: then warns.
///
/// # Errors
/// For such an address without `allow_insecure`; for a name that is not known.
pub fn check_reach(address: &Address, allow_insecure: bool) -> anyhow::Result<()> {
    let (Address::Tcp(at) | Address::Http(at)) = address else { return Ok(()) };
    let open = resolve(at)?.into_iter().find(|a| !a.ip().is_loopback());
    let Some(open) = open else { return Ok(()) };
    if !allow_insecure {
        bail!(
            "{address}: {} can be reached from other machines, and this version has neither \
             tokens nor TLS; --allow-insecure listens there nevertheless",
            open.ip()
        );
    }
    tracing::warn!(%address, "open to everybody who reaches it: no tokens, no TLS");
    Ok(())
}

fn resolve(at: &HostPort) -> anyhow::Result<Vec<SocketAddr>> {
    let found = (at.host.as_str(), at.port).to_socket_addrs();
    Ok(found.with_context(|| format!("{at}"))?.collect())
}

/// Listens at `wanted`; `None` where it is taken and not required.
///
/// # Errors
/// Where it is taken and required, and for any other reason not to listen there.
pub fn listen(wanted: &Wanted, socket_mode: u32) -> anyhow::Result<Option<Listening>> {
    let address = &wanted.address;
    let tcp = |at: &HostPort| -> anyhow::Result<Option<(TcpListener, SocketAddr)>> {
        match TcpListener::bind(resolve(at)?.as_slice()) {
            Ok(listener) => {
                listener.set_nonblocking(true)?;
                let at = listener.local_addr()?;
                Ok(Some((listener, at)))
            }
            Err(error) if error.kind() == ErrorKind::AddrInUse && !wanted.required => {
                tracing::warn!(%address, "in use by another program: not listening there");
                Ok(None)
            }
            Err(error) => Err(error).with_context(|| format!("listening at {address}")),
        }
    };
    Ok(match address {
        Address::Unix(path) => Some(Listening::Unix(listen_unix(path, socket_mode)?, path.clone())),
        Address::Tcp(at) => tcp(at)?.map(|(listener, at)| Listening::Tcp(listener, at)),
        Address::Http(at) => tcp(at)?.map(|(listener, at)| Listening::Http(listener, at)),
    })
}

/// Listens at a Unix socket; one whose server is dead is replaced.
fn listen_unix(path: &Path, mode: u32) -> anyhow::Result<UnixListener> {
    check_socket_path(path)?;
    let bind = || {
        // The file must not be open to others even for a moment. The mask is the whole
        // process's: nothing else creates files while the server starts.
        let before = rustix::process::umask(Mode::from_raw_mode(0o777 & !mode));
        let bound = UnixListener::bind(path);
        rustix::process::umask(before);
        bound
    };
    let listener = match bind() {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            remove_stale(path)?;
            bind()
        }
        done => done,
    };
    let listener = listener.with_context(|| format!("listening at unix:{}", path.display()))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Removes a socket that nobody listens on.
fn remove_stale(path: &Path) -> anyhow::Result<()> {
    let shown = path.display();
    let metadata = std::fs::symlink_metadata(path).with_context(|| shown.to_string())?;
    if !metadata.file_type().is_socket() {
        bail!("{shown} is there and is no socket");
    }
    match UnixStream::connect(path) {
        Ok(stream) => {
            let holder = rustix::net::sockopt::socket_peercred(&stream)
                .map_or_else(|_| "a process".into(), |cred| format!("process {}", cred.pid));
            bail!("{holder} listens at unix:{shown} already");
        }
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            tracing::info!(path = %shown, "replacing the socket of a dead server");
            std::fs::remove_file(path).with_context(|| shown.to_string())
        }
        Err(error) => Err(error).with_context(|| format!("unix:{shown} is in use")),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn at(host: &str, port: u16) -> HostPort {
        HostPort { host: host.into(), port }
    }

    #[test]
    fn beyond_loopback_only_where_told() {
        check_reach(&Address::Tcp(at("127.0.0.1", 1)), false).unwrap();
        check_reach(&Address::Http(at("::1", 1)), false).unwrap();
        check_reach(&Address::Unix("/x".into()), false).unwrap();
        for open in [Address::Tcp(at("0.0.0.0", 1)), Address::Http(at("::", 1))] {
            let error = check_reach(&open, false).unwrap_err().to_string();
            assert!(error.contains("--allow-insecure"), "{error}");
            check_reach(&open, true).unwrap();
        }
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let first = listen_unix(&path, 0o600).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        let error = listen_unix(&path, 0o600).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        let second = listen_unix(&path, 0o660).unwrap();
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o660);
        drop(second);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, "data").unwrap();
        let error = listen_unix(&path, 0o600).unwrap_err().to_string();
        assert!(error.contains("no socket"), "{error}");
        let long = dir.path().join("x".repeat(108));
        assert!(listen_unix(&long, 0o600).unwrap_err().to_string().contains("107"));
    }

    #[test]
    fn a_taken_port_is_an_error_where_it_is_required() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = taken.local_addr().unwrap().port();
        let wanted = |required| Wanted { address: Address::Tcp(at("127.0.0.1", port)), required };
        assert!(listen(&wanted(false), 0o600).unwrap().is_none());
        let error = format!("{:#}", listen(&wanted(true), 0o600).unwrap_err());
        assert!(error.contains(&port.to_string()), "{error}");
    }
}
