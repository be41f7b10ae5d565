//! From a store URL to a [`Backend`].

mod autostart;
mod direct;
mod directory;
mod followed;
mod lock;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use interleaf_store::api::Backend;
use interleaf_store::env::{Deadline, Env};
use interleaf_store::url::StoreUrl;
use interleaf_store::{Error, Result, StoreOptions};

use self::autostart::Autostart;
pub use self::direct::open_store;
use crate::client::{Client, ClientOptions, Endpoint};
use crate::marker::{self, Standing};

/// How long a server that is not there is waited for, where nothing says that there was or
/// will be one.
const FIRST_CONTACT: Duration = Duration::from_secs(2);

/// How often a wait looks again.
const POLL: Duration = Duration::from_millis(20);

/// How to connect.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Time and randomness.
    pub env: Env,
    /// How long all of it may take.
    pub timeout: Duration,
    /// Whether a server may be started for the default store.
    pub autostart: bool,
    /// The program `interleaf`, where the user names it.
    pub server_binary: Option<PathBuf>,
    /// The library or program that calls: the program `interleaf` is looked for beside it.
    pub beside: Option<PathBuf>,
    /// Bytes that the embedded engine may use where the store is opened in this process.
    pub memory_bytes: u64,
    /// Name and version of this program, told to servers.
    pub software: String,
}

impl Default for ConnectOptions {
    fn default() -> Self {
        Self {
            env: Env::system(),
            timeout: Duration::from_secs(10),
            autostart: true,
            server_binary: None,
            beside: None,
            memory_bytes: StoreOptions::default().memory_bytes,
            software: ClientOptions::default().software,
        }
    }
}

impl ConnectOptions {
    fn client(&self) -> ClientOptions {
        ClientOptions { env: self.env.clone(), software: self.software.clone(), revive: None }
    }

    fn store(&self) -> StoreOptions {
        StoreOptions {
            env: self.env.clone(),
            memory_bytes: self.memory_bytes,
            open_timeout: self.timeout,
            heads_mode: None,
        }
    }
}

/// Connects to the store at `url`: directly, or to the server that has it.
///
/// Two calls in one process for one directory, or for `mem:`, give the same store.
///
/// # Errors
/// `Unavailable` where no server answers, `Locked` where another process holds the
/// directory, `Unsupported` for what this build cannot reach, and those of opening.
pub fn connect(url: &StoreUrl, options: &ConnectOptions) -> Result<Arc<dyn Backend>> {
    let deadline = options.env.deadline(options.timeout);
    match url {
        StoreUrl::Default => connect_default(options, deadline),
        StoreUrl::Directory(dir) => directory::connect(dir, options, deadline),
        StoreUrl::Unix(path) => to_server(vec![Endpoint::Unix(path.clone())], options, deadline),
        StoreUrl::Tcp(hosts) => {
            to_server(hosts.iter().cloned().map(Endpoint::Tcp).collect(), options, deadline)
        }
        StoreUrl::Memory | StoreUrl::FoundationDb { .. } => direct::shared(url, options, deadline),
        StoreUrl::Tls(_) => {
            Err(Error::Unsupported { what: format!("{url}: TLS, in this version,") })
        }
    }
}

/// A client of servers at known addresses. One that is just being started again is waited
/// for, though not for long.
fn to_server(
    endpoints: Vec<Endpoint>,
    options: &ConnectOptions,
    deadline: Deadline,
) -> Result<Arc<dyn Backend>> {
    let clock = &options.env.clock;
    let give_up = options.env.deadline(FIRST_CONTACT);
    let mut last = None;
    loop {
        match Client::connect(endpoints.clone(), options.client(), deadline) {
            Ok(client) => return Ok(Arc::new(client)),
            Err(error @ Error::Unavailable { .. }) => {
                let hopeless = give_up.remaining(clock.now()).is_err()
                    && !endpoints.iter().any(|endpoint| is_awaited(endpoint, options));
                if hopeless || deadline.remaining(clock.now()).is_err() {
                    return Err(error);
                }
                last = Some(error);
                clock.sleep(POLL);
            }
            // Why there was no server says more than that time ran out.
            Err(error @ Error::Timeout { .. }) => return Err(last.unwrap_or(error)),
            Err(error) => return Err(error),
        }
    }
}

/// Whether a server's marker beside its socket says that it is worth to wait for it.
fn is_awaited(endpoint: &Endpoint, options: &ConnectOptions) -> bool {
    let Endpoint::Unix(socket) = endpoint else { return false };
    let standing = socket.parent().map(|dir| marker::standing(dir, &*options.env.clock));
    matches!(standing, Some(Ok(Standing::Alive { .. } | Standing::Died { .. })))
}

/// The default store: by a server started on demand, or like `dir:`.
fn connect_default(options: &ConnectOptions, deadline: Deadline) -> Result<Arc<dyn Backend>> {
    let dir = default_directory()?;
    create_private(&dir)?;
    if !options.autostart {
        return directory::connect(&dir, options, deadline);
    }
    let socket = StoreUrl::socket_in(&dir)?;
    let revive = Autostart::new(&dir, &socket, options);
    let client_options = ClientOptions { revive: Some(Arc::new(revive)), ..options.client() };
    let client = Client::connect(vec![Endpoint::Unix(socket)], client_options, deadline)?;
    Ok(Arc::new(client))
}

/// The directory of the default store: `$XDG_DATA_HOME/interleaf`, else
/// `~/.local/share/interleaf`.
///
/// # Errors
/// `InvalidSetting` where neither variable gives an absolute path. The XDG rules say to
/// ignore a relative `XDG_DATA_HOME`: data would then go to, and be looked for at, another
/// place than its user believes, so it is refused instead.
pub fn default_directory() -> Result<PathBuf> {
    directory_from(std::env::var_os("XDG_DATA_HOME"), std::env::var_os("HOME"))
}

fn directory_from(
    data_home: Option<std::ffi::OsString>,
    home: Option<std::ffi::OsString>,
) -> Result<PathBuf> {
    if let Some(data) = data_home.filter(|value| !value.is_empty()).map(PathBuf::from) {
        if data.is_absolute() {
            return Ok(data.join("interleaf"));
        }
        return Err(Error::InvalidSetting {
            setting: "XDG_DATA_HOME".into(),
            value: data.display().to_string(),
            allowed: "an absolute path, or nothing for ~/.local/share".into(),
        });
    }
    match home.map(PathBuf::from).filter(|path| path.is_absolute()) {
        Some(home) => Ok(home.join(".local/share/interleaf")),
        None => Err(Error::InvalidSetting {
            setting: "HOME".into(),
            value: String::new(),
            allowed: "an absolute path, or XDG_DATA_HOME one, or a store named by INTERLEAF_STORE"
                .into(),
        }),
    }
}

/// Creates a directory that only its owner may enter.
///
/// # Errors
/// `Io`.
pub fn create_private(dir: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let io =
        |path: &Path, e: std::io::Error| Error::Io { what: format!("{}: {e}", path.display()) };
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent).map_err(|e| io(parent, e))?;
    }
    match std::fs::DirBuilder::new().mode(0o700).create(dir) {
        Err(error) if !dir.is_dir() => Err(io(dir, error)),
        _ => Ok(()),
    }
}
