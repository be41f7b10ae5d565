//! `/healthz` and `/metrics`.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use interleaf_store::api::Backend;
use tokio::net::TcpListener;

use super::connection::Shared;

/// How long a scrape waits for the store.
const LIMIT: Duration = Duration::from_secs(2);

/// Prometheus' text format.
const TEXT_FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Serves HTTP until the server is to stop.
pub async fn serve(listener: TcpListener, shared: Arc<Shared>) -> std::io::Result<()> {
    let mut stop = shared.stop.clone();
    let router = Router::new()
        .route("/healthz", get(health))
        .route("/metrics", get(metrics))
        .with_state(shared);
    let stopped = async move {
        // An error means that the sender is gone: that is the end as well.
        drop(stop.wait_for(|stop| *stop).await);
    };
    axum::serve(listener, router).with_graceful_shutdown(stopped).await
}

/// Asks the store something on a thread of its own.
async fn ask<T: Send + 'static>(
    shared: &Arc<Shared>,
    question: impl FnOnce(&dyn Backend) -> interleaf_store::Result<T> + Send + 'static,
) -> Result<T, Response> {
    let shared = Arc::clone(shared);
    let answer = tokio::task::spawn_blocking(move || question(&*shared.store)).await;
    let why = match answer {
        Ok(Ok(answer)) => return Ok(answer),
        Ok(Err(error)) => error.to_string(),
        Err(error) => error.to_string(),
    };
    Err((StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response())
}

async fn health(State(shared): State<Arc<Shared>>) -> Response {
    let deadline = shared.env.deadline(LIMIT);
    if let Err(response) = ask(&shared, move |backend| backend.info(deadline)).await {
        return response;
    }
    match shared.store.failure() {
        None => "ok\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let deadline = shared.env.deadline(LIMIT);
    let status = match ask(&shared, move |backend| backend.status(deadline)).await {
        Ok(status) => status,
        Err(response) => return response,
    };
    match shared.metrics.text(status) {
        Ok(text) => ([(header::CONTENT_TYPE, TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}
