//! The store: [`Backend`](crate::api::Backend) over an engine.

use std::sync::Arc;

use crate::env::Env;
use crate::error::Result;
use crate::kv::Kv;

/// What a store is opened with.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Time and randomness.
    pub env: Env,
    /// Bytes the embedded engine may use for its own block cache and write buffers.
    pub memory_bytes: u64,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self { env: Env::system(), memory_bytes: 192 << 20 }
    }
}

/// A store in this process.
pub struct Store {
    kv: Arc<dyn Kv>,
    env: Env,
}

impl Store {
    /// Opens the store that `kv` holds, creating it where the engine is empty.
    ///
    /// # Errors
    /// `FormatVersion` for a store of a newer program; those of the engine.
    pub fn open(kv: Arc<dyn Kv>, options: StoreOptions) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { kv, env: options.env }))
    }

    /// Opens an embedded store in a directory, creating it where it is absent. The
    /// directory is locked to this process.
    ///
    /// # Errors
    /// `Locked` where another process holds it.
    pub fn open_dir(_path: &std::path::Path, _options: StoreOptions) -> Result<Arc<Self>> {
        Err(crate::Error::Unsupported { what: "embedded store".into() })
    }

    /// Makes everything durable, leaves the mark of a clean end; later calls fail.
    ///
    /// # Errors
    /// Those of the engine.
    pub fn close(&self) -> Result<()> {
        Ok(self.kv.close()?)
    }

    /// Time and randomness of this store.
    #[must_use]
    pub fn env(&self) -> &Env {
        &self.env
    }
}
