//! From a store URL to a backend.

use std::sync::Arc;

use interleaf_store::api::Backend;
use interleaf_store::env::Env;
use interleaf_store::kv::mem::MemEngine;
use interleaf_store::url::StoreUrl;
use interleaf_store::{Error, Result, Store, StoreOptions};

use crate::config::Config;

/// Connects to the store at `url`.
///
/// # Errors
/// Those of connecting.
pub fn connect(url: &StoreUrl, _config: &Config) -> Result<Arc<dyn Backend>> {
    match url {
        StoreUrl::Memory => {
            let engine = Arc::new(MemEngine::new(Env::system()));
            let store: Arc<dyn Backend> = Store::open(engine, StoreOptions::default())?;
            Ok(store)
        }
        other => Err(Error::Unsupported { what: other.to_string() }),
    }
}
