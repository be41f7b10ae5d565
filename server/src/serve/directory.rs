//! Taking over an embedded store's directory, and giving it back.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use interleaf_store::env::Env;
use interleaf_store::url::StoreUrl;
use interleaf_store::{Error, Store, StoreOptions};
use interleaf_wire::connect::{create_private, open_store};
use interleaf_wire::marker::{self, Marker, Standing};

/// How long a server that is stopping is waited for.
const STOPPING: Duration = Duration::from_secs(15);

/// How long a directory locked by a process that is no server is looked at again: it may
/// be a server that is starting.
const STARTING: Duration = Duration::from_secs(1);

const POLL: Duration = Duration::from_millis(20);

/// A store that this process serves.
pub struct Served {
    /// The store.
    pub store: Arc<Store>,
    /// Its directory, where it is embedded, and this server's marker there.
    pub place: Option<(PathBuf, Marker)>,
}

/// The directory of an embedded store.
///
/// # Errors
/// Where the default one is not known.
pub fn directory_of(url: &StoreUrl) -> anyhow::Result<Option<PathBuf>> {
    Ok(match url {
        StoreUrl::Default => Some(interleaf_wire::connect::default_directory()?),
        StoreUrl::Directory(dir) => Some(std::path::absolute(dir)?),
        _ => None,
    })
}

/// Opens a store to serve it.
///
/// # Errors
/// Where another process has it; those of opening it.
pub fn take(url: &StoreUrl, options: &StoreOptions) -> anyhow::Result<Served> {
    let Some(dir) = directory_of(url)? else {
        let store = open_store(url, options.clone()).with_context(|| url.to_string())?;
        return Ok(Served { store, place: None });
    };
    create_private(&dir)?;
    let store = open_directory(&dir, options)?;
    // Under the directory's lock: whatever marker is there is a dead server's.
    let marker = Marker::put(&dir)?;
    Ok(Served { store, place: Some((dir, marker)) })
}

fn open_directory(dir: &Path, options: &StoreOptions) -> anyhow::Result<Arc<Store>> {
    let env = &options.env;
    let stopped = env.deadline(STOPPING);
    let started = env.deadline(STARTING);
    loop {
        let locked = match open_store(&StoreUrl::Directory(dir.to_owned()), options.clone()) {
            Ok(store) => return Ok(store),
            Err(error @ Error::Locked { .. }) => error,
            Err(error) => return Err(error).with_context(|| format!("dir:{}", dir.display())),
        };
        match marker::standing(dir, &*env.clock)? {
            Standing::Alive { pid } if answers(dir) => {
                bail!("process {pid} serves dir:{} already", dir.display());
            }
            // It is stopping, or starting and about to answer.
            Standing::Alive { .. } if env.remaining(stopped).is_ok() => {}
            _ if env.remaining(started).is_ok() => {}
            _ => return Err(locked.into()),
        }
        env.clock.sleep(POLL);
    }
}

fn answers(dir: &Path) -> bool {
    StoreUrl::socket_in(dir)
        .is_ok_and(|socket| std::os::unix::net::UnixStream::connect(socket).is_ok())
}

impl Served {
    /// Closes the store and removes the marker, that also where closing fails: whoever comes
    /// next need not wait for this server.
    ///
    /// # Errors
    /// Those of the store.
    pub fn give_back(self, env: &Env) -> anyhow::Result<()> {
        let begun = env.clock.now();
        let closed = self.store.close();
        // The lock is released with the store; the marker goes after it, so that no client
        // finds the directory locked by nobody that it knows.
        drop(self.store);
        let removed = self.place.map_or(Ok(()), |(_, marker)| marker.remove());
        closed.context("closing the store")?;
        removed?;
        tracing::info!(took = ?env.clock.now().duration_since(begun), "the store is closed");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_marker_goes_though_the_store_cannot_be_closed() {
        let dir = tempfile::tempdir().unwrap();
        let options = StoreOptions::default();
        let served = take(&StoreUrl::Directory(dir.path().to_owned()), &options).unwrap();
        let standing = || marker::standing(dir.path(), &*options.env.clock).unwrap();
        assert!(matches!(standing(), Standing::Alive { .. }));
        // In the way of the file that says that the end was clean.
        std::fs::create_dir(dir.path().join("CLEAN")).unwrap();
        let error = served.give_back(&options.env).unwrap_err();
        assert!(error.to_string().contains("closing the store"), "{error}");
        assert_eq!(standing(), Standing::None);
    }
}
