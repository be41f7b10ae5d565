//! Keeping the store in order while it is served: pages of large commits are merged, and what
//! was staged for commits that never came is given up.

use std::sync::Arc;
use std::time::Duration;

use interleaf_store::env::Env;
use interleaf_store::{Error, Store};

/// From the end of one round to the next.
const INTERVAL: Duration = Duration::from_secs(30);

/// How long one round may take; the next goes on where it ended.
const ROUND: Duration = Duration::from_secs(60);

/// Never returns.
pub async fn for_ever(store: &Arc<Store>, env: &Env) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        if store.failure().is_some() {
            continue;
        }
        let (store, deadline) = (Arc::clone(store), env.deadline(ROUND));
        match tokio::task::spawn_blocking(move || store.tend(deadline)).await {
            Ok(Ok(tended)) => tracing::debug!(?tended, "staged commits"),
            Ok(Err(error @ (Error::Unavailable { .. } | Error::Timeout { .. }))) => {
                tracing::debug!(%error, "staged commits stay as they are for now");
            }
            Ok(Err(error)) => tracing::warn!(%error, "staged commits stay as they are"),
            Err(error) => tracing::error!(%error, "tending to staged commits failed"),
        }
    }
}
