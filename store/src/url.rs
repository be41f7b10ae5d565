//! Store URLs: where a store is. The table of forms stands in the README.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Port of `interleaf serve` where a URL gives none.
pub const DEFAULT_PORT: u16 = 7480;

/// Longest path of a Unix socket, in bytes.
pub const MAX_SOCKET_PATH: usize = 107;

/// Name of the socket within an embedded store's directory.
pub const SOCKET_NAME: &str = "interleaf.sock";

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StoreUrl {
    /// None given: the embedded store in the user's data directory, by a server started on
    /// demand.
    Default,
    /// `dir:/path`: an embedded store.
    Directory(PathBuf),
    /// `fdb:/path/fdb.cluster?prefix=NAME`.
    FoundationDb {
        /// The cluster file.
        cluster_file: PathBuf,
        /// Prefix of every key; empty for none.
        prefix: String,
    },
    /// `unix:/path.sock`: a server.
    Unix(PathBuf),
    /// `tcp://host:port[,host:port]`: servers of one store, any of which will do.
    Tcp(Vec<HostPort>),
    /// `tls://host:port[,host:port]`.
    Tls(Vec<HostPort>),
    /// `mem:`: in the memory of this process.
    Memory,
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostPort {
    /// Name or address; an IPv6 address without its brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

impl StoreUrl {
    /// The socket of the server of an embedded store in `dir`.
    ///
    /// # Errors
    /// `TooLarge` where the path is longer than a socket's path can be.
    pub fn socket_in(dir: &std::path::Path) -> Result<PathBuf> {
        let path = dir.join(SOCKET_NAME);
        check_socket_path(&path)?;
        Ok(path)
    }
}

/// Checks the length of a socket's path.
///
/// # Errors
/// `TooLarge` naming the limit.
pub fn check_socket_path(path: &std::path::Path) -> Result<()> {
    let len = path.as_os_str().len();
    if len > MAX_SOCKET_PATH {
        return Err(Error::TooLarge {
            what: format!("the socket path {} in bytes", path.display()),
            size: len as u64,
            limit: MAX_SOCKET_PATH as u64,
        });
    }
    Ok(())
}

impl FromStr for StoreUrl {
    type Err = Error;

    fn from_str(url: &str) -> Result<Self> {
        let refuse = |why: &str| Error::InvalidUrl { url: url.to_owned(), why: why.to_owned() };
        if url.is_empty() {
            return Ok(Self::Default);
        }
        let path_of = |path: &str| {
            if path.is_empty() {
                Err(refuse("the path is missing"))
            } else {
                Ok(PathBuf::from(path))
            }
        };
        if let Some(path) = url.strip_prefix("dir:") {
            return path_of(path).map(Self::Directory);
        }
        if let Some(path) = url.strip_prefix("unix:") {
            let path = path_of(path)?;
            check_socket_path(&path)?;
            return Ok(Self::Unix(path));
        }
        if let Some(rest) = url.strip_prefix("fdb:") {
            let (path, query) = rest.split_once('?').map_or((rest, None), |(p, q)| (p, Some(q)));
            let prefix = match query {
                None => String::new(),
                Some(q) => q
                    .strip_prefix("prefix=")
                    .filter(|p| !p.is_empty() && p.len() <= 64 && !p.contains('&'))
                    .ok_or_else(|| refuse("the only parameter is prefix=NAME, at most 64 bytes"))?
                    .to_owned(),
            };
            return Ok(Self::FoundationDb { cluster_file: path_of(path)?, prefix });
        }
        if let Some(hosts) = url.strip_prefix("tcp://") {
            return hosts_of(hosts)
                .map(Self::Tcp)
                .ok_or_else(|| refuse("tcp://host:port[,host:port]"));
        }
        if let Some(hosts) = url.strip_prefix("tls://") {
            return hosts_of(hosts)
                .map(Self::Tls)
                .ok_or_else(|| refuse("tls://host:port[,host:port]"));
        }
        if url == "mem:" {
            return Ok(Self::Memory);
        }
        Err(refuse("it begins with none of dir: fdb: unix: tcp:// mem:"))
    }
}

fn hosts_of(text: &str) -> Option<Vec<HostPort>> {
    text.split(',').map(host_of).collect()
}

fn host_of(text: &str) -> Option<HostPort> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, tail) = rest.split_once(']')?;
            (host, if tail.is_empty() { None } else { Some(tail.strip_prefix(':')?) })
        }
        None => text.split_once(':').map_or((text, None), |(h, p)| (h, Some(p))),
    };
    let port = port.map_or(Some(DEFAULT_PORT), |p| p.parse().ok())?;
    let plain = !host.is_empty() && !host.contains(['/', '?', ' ', '@']);
    plain.then(|| HostPort { host: host.to_owned(), port })
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hosts = |hosts: &[HostPort]| {
            hosts.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
        };
        match self {
            Self::Default => f.write_str("(the default store)"),
            Self::Directory(path) => write!(f, "dir:{}", path.display()),
            Self::FoundationDb { cluster_file, prefix } if prefix.is_empty() => {
                write!(f, "fdb:{}", cluster_file.display())
            }
            Self::FoundationDb { cluster_file, prefix } => {
                write!(f, "fdb:{}?prefix={prefix}", cluster_file.display())
            }
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(list) => write!(f, "tcp://{}", hosts(list)),
            Self::Tls(list) => write!(f, "tls://{}", hosts(list)),
            Self::Memory => f.write_str("mem:"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_round_trips() {
        for url in [
            "dir:/var/lib/x",
            "fdb:/etc/fdb.cluster",
            "fdb:/etc/fdb.cluster?prefix=app",
            "unix:/run/i.sock",
            "tcp://a:7480,b:1",
            "tcp://[::1]:7480",
            "tls://db.example:7480",
            "mem:",
        ] {
            assert_eq!(url.parse::<StoreUrl>().unwrap().to_string(), url);
        }
        assert_eq!("tcp://a".parse::<StoreUrl>().unwrap().to_string(), "tcp://a:7480");
        assert_eq!("".parse::<StoreUrl>().unwrap(), StoreUrl::Default);
    }

    #[test]
    fn bad_urls_are_refused() {
        for url in [
            "dir:",
            "/tmp/x",
            "unix:",
            "tcp://",
            "tcp://a:x",
            "tcp://a:70000",
            "http://x",
            "fdb:/c?x=1",
            "mem:x",
        ] {
            assert!(matches!(url.parse::<StoreUrl>(), Err(Error::InvalidUrl { .. })), "{url}");
        }
        let long = format!("unix:/{}", "a".repeat(107));
        assert!(long.parse::<StoreUrl>().unwrap_err().to_string().contains("107"));
    }
}
