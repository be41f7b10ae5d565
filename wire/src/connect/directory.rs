//! `dir:`: the embedded store of a directory, through its server or in this process.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use interleaf_store::api::Backend;
use interleaf_store::env::{Deadline, Env};
use interleaf_store::url::StoreUrl;
use interleaf_store::{Error, Result};

use super::followed::Followed;
use super::{ConnectOptions, POLL, direct};
use crate::client::{Client, ClientOptions, Endpoint, Revive};
use crate::marker::{self, Standing};

/// How long a directory that is locked without a server's marker is looked at again: a
/// server that is starting takes the lock before it can answer.
const STARTING: Duration = Duration::from_secs(1);

/// A way to a directory's store.
pub(super) enum Way {
    /// Through its server.
    Served(Box<Client>),
    /// In this process.
    Here(Arc<dyn Backend>),
}

impl Way {
    /// The store.
    pub(super) fn backend(&self) -> &dyn Backend {
        match self {
            Self::Served(client) => &**client,
            Self::Here(store) => &**store,
        }
    }

    /// Whether it needs a server.
    pub(super) const fn is_served(&self) -> bool {
        matches!(self, Self::Served(_))
    }
}

/// Connects to the store in `dir`.
pub(super) fn connect(
    dir: &Path,
    options: &ConnectOptions,
    deadline: Deadline,
) -> Result<Arc<dyn Backend>> {
    match reach(dir, options, deadline)? {
        Way::Here(store) => Ok(store),
        way @ Way::Served(_) => {
            // The directory is to be found when the process works in another one.
            let dir = std::path::absolute(dir)
                .map_err(|e| Error::Io { what: format!("{}: {e}", dir.display()) })?;
            Ok(Arc::new(Followed::new(dir, options.clone(), way, deadline)?))
        }
    }
}

/// Finds a way to the store in `dir`: its server, else this process.
pub(super) fn reach(dir: &Path, options: &ConnectOptions, deadline: Deadline) -> Result<Way> {
    let env = &options.env;
    // Where the path is too long for a socket there can be no server's either.
    let socket = StoreUrl::socket_in(dir).ok();
    let mut locked_until = None;
    loop {
        let answer = socket.as_deref().map(|socket| through_server(dir, socket, options, deadline));
        let answer = match answer {
            Some(Ok(client)) => return Ok(Way::Served(Box::new(client))),
            Some(Err(Error::Unavailable { what })) => what,
            // Time is up, but who holds the directory can still be told.
            Some(Err(error @ Error::Timeout { .. })) => error.to_string(),
            Some(Err(error)) => return Err(error),
            None => "it has no socket".into(),
        };
        let waiting = match marker::standing(dir, &*env.clock)? {
            Standing::Alive { pid } => format!("process {pid} serves it"),
            Standing::Died { pid, .. } => format!("process {pid} served it and died just now"),
            Standing::None | Standing::Gone { .. } => match in_this_process(dir, options, deadline)
            {
                Ok(store) => return Ok(Way::Here(store)),
                Err(error @ Error::Locked { .. }) => {
                    let until = *locked_until.get_or_insert_with(|| env.deadline(STARTING));
                    if env.remaining(until).is_err() || env.remaining(deadline).is_err() {
                        return Err(error);
                    }
                    env.clock.sleep(POLL);
                    continue;
                }
                Err(error) => return Err(error),
            },
        };
        if env.remaining(deadline).is_err() {
            return Err(Error::Unavailable {
                what: format!("{}: {waiting}, but: {answer}", dir.display()),
            });
        }
        env.clock.sleep(POLL);
    }
}

fn through_server(
    dir: &Path,
    socket: &Path,
    options: &ConnectOptions,
    deadline: Deadline,
) -> Result<Client> {
    let awaited = Awaited { dir: dir.to_owned(), env: options.env.clone() };
    let client = ClientOptions { revive: Some(Arc::new(awaited)), ..options.client() };
    Client::connect(vec![Endpoint::Unix(socket.to_owned())], client, deadline)
}

/// Starts no server, but says when there is none to wait for.
struct Awaited {
    dir: PathBuf,
    env: Env,
}

impl Revive for Awaited {
    fn revive(&self, _deadline: Deadline) -> Result<()> {
        match marker::standing(&self.dir, &*self.env.clock)? {
            Standing::Alive { .. } | Standing::Died { .. } => Ok(()),
            Standing::None | Standing::Gone { .. } => Err(Error::Unavailable {
                what: format!("{} has no server any more", self.dir.display()),
            }),
        }
    }
}

/// Opens the directory here; the store's own lock says whether that may be.
fn in_this_process(
    dir: &Path,
    options: &ConnectOptions,
    deadline: Deadline,
) -> Result<Arc<dyn Backend>> {
    let store = direct::shared(&StoreUrl::Directory(dir.to_owned()), options, deadline)?;
    // Under the lock: what a dead server left is nobody's now.
    marker::clear(dir)?;
    Ok(store)
}
