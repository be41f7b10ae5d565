//! The server: sockets in front of a store.
//!
//! The reactor (tokio) moves bytes and answers what is answered from memory; what may wait
//! for the disk blocks its thread while another one takes the reactor over, so that commits
//! of many clients meet in the engine's group commit.

mod alone;
mod connection;
pub mod detach;
mod directory;
mod execute;
mod gate;
mod http;
mod listen;
mod metrics;
mod outbox;
mod restart;
mod signals;
mod stream;
mod tend;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use anyhow::Context;
use interleaf_store::env::Env;
use interleaf_store::url::{HostPort, StoreUrl};
use interleaf_store::{Error, StoreOptions};
use interleaf_wire::marker::{Marker, TOUCH_INTERVAL};
use interleaf_wire::message::Reply;
use tokio::sync::watch;
use tokio::task::JoinSet;

use self::connection::Shared;
use self::directory::{Served, directory_of};
use self::gate::LargeGate;
use self::listen::{Address, Listening, Wanted};
use self::metrics::Metrics;
use self::signals::Signals;
use self::stream::Stream;

/// Default port of HTTP.
pub const HTTP_PORT: u16 = 7481;

/// How long requests in flight may take at a stop.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);

/// Threads for requests that may wait for the disk: as many commits merge at once.
const WORK_THREADS: usize = 512;

/// How long an accept that failed (too many open files) is not tried again.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How to serve.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The store.
    pub store: StoreUrl,
    /// Addresses named by the user; empty for the default ones.
    pub listen: Vec<StoreUrl>,
    /// HTTP: as named, switched off, or the default.
    pub http: HttpSetting,
    /// Stop after so long without a client; and listen on the store's socket only, but for
    /// what is named.
    pub idle_exit: Option<Duration>,
    /// Permissions of Unix sockets.
    pub socket_mode: u32,
    /// Listen beyond loopback.
    pub allow_insecure: bool,
    /// Bytes for the engine's caches and buffers.
    pub memory_bytes: u64,
    /// Most connections at once.
    pub max_connections: usize,
    /// How long the store may take to answer at the start.
    pub open_timeout: Duration,
}

/// Where HTTP is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HttpSetting {
    /// At 127.0.0.1:7481, unless that is taken.
    Default,
    /// Nowhere.
    Off,
    /// There.
    At(HostPort),
}

/// Serves a store until a signal or, where asked, until nobody uses it.
///
/// # Errors
/// Where the store or an address cannot be had.
pub fn run(settings: &Settings, env: &Env) -> anyhow::Result<()> {
    let wanted = wanted(settings)?;
    for each in &wanted {
        listen::check_reach(&each.address, settings.allow_insecure)?;
    }
    let options = StoreOptions {
        env: env.clone(),
        memory_bytes: settings.memory_bytes,
        open_timeout: settings.open_timeout,
        // Whoever may connect may read the heads.
        heads_mode: Some(0o600 | settings.socket_mode & 0o444),
    };
    let served = directory::take(&settings.store, &options)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(std::thread::available_parallelism().map_or(2, usize::from).max(2))
        .max_blocking_threads(WORK_THREADS)
        .enable_all()
        .thread_name("interleaf")
        .build()
        .context("starting threads")?;
    let result = runtime.block_on(serve(settings, &wanted, &served, env));
    runtime.shutdown_timeout(Duration::from_secs(1));
    if matches!(result, Ok(End::Restart)) {
        // Neither closed nor given back: as after a crash, but the marker says that this
        // process is alive, so that clients wait for it.
        return Err(restart::start_over());
    }
    // In any case: the next server must not find a marker of a store that is closed.
    let closed = served.give_back(env);
    result.map(drop).and(closed)
}

/// Why a server ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    /// It was told to, or nobody uses it.
    Stop,
    /// Its engine failed and can be opened anew.
    Restart,
}

/// The addresses to listen at.
fn wanted(settings: &Settings) -> anyhow::Result<Vec<Wanted>> {
    let mut all = Vec::new();
    if let Some(dir) = directory_of(&settings.store)? {
        all.push(Wanted { address: Address::Unix(StoreUrl::socket_in(&dir)?), required: true });
    }
    let local = |port| HostPort { host: "127.0.0.1".into(), port };
    for url in &settings.listen {
        for address in listen::address_of(url)? {
            let wanted = Wanted { address, required: true };
            if !all.contains(&wanted) {
                all.push(wanted);
            }
        }
    }
    let alone = settings.idle_exit.is_some();
    if settings.listen.is_empty() && !alone {
        let address = Address::Tcp(local(interleaf_store::url::DEFAULT_PORT));
        all.push(Wanted { address, required: false });
    }
    match &settings.http {
        HttpSetting::Default if !alone => {
            all.push(Wanted { address: Address::Http(local(HTTP_PORT)), required: false });
        }
        HttpSetting::Default | HttpSetting::Off => {}
        HttpSetting::At(at) => {
            all.push(Wanted { address: Address::Http(at.clone()), required: true });
        }
    }
    Ok(all)
}

async fn serve(
    settings: &Settings,
    wanted: &[Wanted],
    served: &Served,
    env: &Env,
) -> anyhow::Result<End> {
    // From here on a signal means a clean stop.
    let mut signals = Signals::take()?;
    let mut listening = Vec::new();
    let mut sockets = SocketFiles::default();
    for each in wanted {
        if let Some(bound) = listen::listen(each, settings.socket_mode)? {
            sockets.note(&bound);
            listening.push(bound);
        }
    }
    let places: Vec<String> = listening.iter().map(ToString::to_string).collect();
    let (stop, stopped) = watch::channel(false);
    let shared = Arc::new(Shared {
        store: Arc::clone(&served.store),
        env: env.clone(),
        large: LargeGate::default(),
        alone: Arc::default(),
        connections: AtomicU64::new(0),
        metrics: Arc::default(),
        stop: stopped.clone(),
    });
    let clients = Arc::new(Clients::new(settings.max_connections));
    let mut tasks = JoinSet::new();
    for each in listening {
        start(each, &shared, &clients, &mut tasks)?;
    }
    ready(settings, &places)?;
    let stopping = |why: &str| {
        tracing::info!("{why}: stopping");
        End::Stop
    };
    let end = tokio::select! {
        name = signals.come() => stopping(name),
        () = clients.idle(settings.idle_exit) => stopping("nobody uses the store"),
        () = touch(served.place.as_ref().map(|(_, marker)| marker)) => End::Stop,
        () = restart::room_again(served) => End::Restart,
        () = tend::for_ever(&served.store, env) => End::Stop,
    };
    // Nobody finds the server any more; then those who have found it are finished with.
    sockets.remove();
    stop.send_replace(true);
    let all_done = async {
        while let Some(ended) = tasks.join_next().await {
            if let Err(error) = ended {
                tracing::error!(%error, "a listener failed");
            }
        }
        clients.wait_for(0).await;
    };
    let all_done = tokio::time::timeout(DRAIN_LIMIT, all_done);
    let (finished, signal) = signals.while_waiting_for(all_done).await;
    if finished.is_err() {
        tracing::warn!("requests still in flight after {DRAIN_LIMIT:?} are cut off");
    }
    // Whoever told a server to stop that was about to start over means it as well.
    Ok(signal.map_or(end, stopping))
}

/// The one line that says that the server is ready.
fn ready(settings: &Settings, places: &[String]) -> anyhow::Result<()> {
    let store = match directory_of(&settings.store)? {
        Some(dir) => format!("dir:{}", dir.display()),
        None => settings.store.to_string(),
    };
    let mut out = std::io::stdout().lock();
    let said = writeln!(out, "interleaf: serving {store} at {}", places.join(" "))
        .and_then(|()| out.flush());
    match said {
        // Whoever wanted to know has read it, and gone, when this server began first.
        Err(error) if restart::is_again() => {
            tracing::debug!(%error, "nobody reads that the server is ready");
            Ok(())
        }
        said => said.context("stdout"),
    }
}

/// Touches the marker for ever.
async fn touch(marker: Option<&Marker>) {
    let Some(marker) = marker else { return std::future::pending().await };
    loop {
        if let Err(error) = marker.touch() {
            tracing::warn!(%error, "the server's marker cannot be touched");
        }
        tokio::time::sleep(TOUCH_INTERVAL).await;
    }
}

/// Starts to accept clients.
fn start(
    listening: Listening,
    shared: &Arc<Shared>,
    clients: &Arc<Clients>,
    tasks: &mut JoinSet<()>,
) -> anyhow::Result<()> {
    let (shared, clients) = (Arc::clone(shared), Arc::clone(clients));
    let mut stop = shared.stop.clone();
    match listening {
        Listening::Unix(listener, _) => {
            let listener = tokio::net::UnixListener::from_std(listener)?;
            tasks.spawn(async move {
                loop {
                    let accepted = tokio::select! {
                        accepted = listener.accept() => accepted,
                        _ = stop.wait_for(|stop| *stop) => return,
                    };
                    accept(&shared, &clients, accepted.map(|(s, _)| Stream::Unix(s))).await;
                }
            });
        }
        Listening::Tcp(listener, _) => {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tasks.spawn(async move {
                loop {
                    let accepted = tokio::select! {
                        accepted = listener.accept() => accepted,
                        _ = stop.wait_for(|stop| *stop) => return,
                    };
                    let stream = accepted.and_then(|(stream, _)| {
                        stream.set_nodelay(true)?;
                        Ok(Stream::Tcp(stream))
                    });
                    accept(&shared, &clients, stream).await;
                }
            });
        }
        Listening::Http(listener, _) => {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            tasks.spawn(async move {
                if let Err(error) = http::serve(listener, shared).await {
                    tracing::error!(%error, "HTTP ended");
                }
            });
        }
    }
    Ok(())
}

async fn accept(shared: &Arc<Shared>, clients: &Arc<Clients>, stream: std::io::Result<Stream>) {
    let stream = match stream {
        Ok(stream) => stream,
        Err(error) => {
            tracing::warn!(%error, "a connection could not be accepted");
            return tokio::time::sleep(ACCEPT_PAUSE).await;
        }
    };
    shared.metrics.accepted.inc();
    let Some(place) = Clients::enter(clients, &shared.metrics) else {
        shared.metrics.refused.inc();
        let error = Error::Unavailable {
            what: format!("the server has {} connections, its limit", clients.limit),
        };
        // A new socket takes so little at once, or its client is gone already.
        if let Err(error) =
            stream.writable().await.and_then(|()| stream.try_write(&Reply::Error(error).encode(0)))
        {
            tracing::debug!(%error, "a client was not told that there are too many");
        }
        return;
    };
    let shared = Arc::clone(shared);
    tokio::spawn(async move {
        connection::serve(shared, stream).await;
        drop(place);
    });
}

/// The clients connected.
struct Clients {
    count: watch::Sender<usize>,
    limit: usize,
}

/// One client's place.
struct Place {
    clients: Arc<Clients>,
    metrics: Arc<Metrics>,
}

impl Clients {
    fn new(limit: usize) -> Self {
        Self { count: watch::Sender::new(0), limit }
    }

    fn enter(this: &Arc<Self>, metrics: &Arc<Metrics>) -> Option<Place> {
        let entered = this.count.send_if_modified(|count| {
            let room = *count < this.limit;
            *count += usize::from(room);
            room
        });
        entered.then(|| {
            metrics.connections.inc();
            Place { clients: Arc::clone(this), metrics: Arc::clone(metrics) }
        })
    }

    async fn wait_for(&self, count: usize) {
        // The sender is `self`: the channel cannot be closed.
        drop(self.count.subscribe().wait_for(|now| *now == count).await);
    }

    /// Returns when there was no client for `limit`; never without one.
    async fn idle(&self, limit: Option<Duration>) {
        let Some(limit) = limit else { return std::future::pending().await };
        let mut count = self.count.subscribe();
        loop {
            drop(count.wait_for(|now| *now == 0).await);
            let came = count.wait_for(|now| *now > 0);
            if tokio::time::timeout(limit, came).await.is_err() {
                return;
            }
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.metrics.connections.dec();
        self.clients.count.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// The socket files of this server, removed when it stops, however it does.
#[derive(Default)]
struct SocketFiles(Vec<PathBuf>);

impl SocketFiles {
    fn note(&mut self, listening: &Listening) {
        if let Listening::Unix(_, path) = listening {
            self.0.push(path.clone());
        }
    }

    fn remove(&mut self) {
        for path in std::mem::take(&mut self.0) {
            if let Err(error) = std::fs::remove_file(&path) {
                tracing::warn!(%error, path = %path.display(), "the socket cannot be removed");
            }
        }
    }
}

impl Drop for SocketFiles {
    fn drop(&mut self) {
        self.remove();
    }
}
