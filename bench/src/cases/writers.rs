//! Sixteen durable writers, each on leaves of its own.

use std::io::{BufRead, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::Context;
use crate::peer::{self, Sync};
use crate::report::{Bound, Report};
use crate::sample::in_turns;
use crate::server::Server;

const WRITERS: u32 = 16;
const ROWS_EACH: u32 = 4_000;

/// Commits a second by so many threads of one process, each on so many rows of its own.
pub fn by_threads(uri: &str, writers: u32, rows_each: u32, seconds: f64) -> Result<f64> {
    let barrier = Barrier::new(writers as usize);
    let limit = Duration::from_secs_f64(seconds);
    let work = |writer: u32| -> Result<u64> {
        let db = peer::open(uri, Sync::Full)?;
        let mut update = db.prepare("UPDATE t SET n = n + 1 WHERE id = ?1")?;
        let first = writer * rows_each + 1;
        peer::retry(|| update.execute((first,)))?;
        barrier.wait();
        let start = Instant::now();
        let mut commits = 0u64;
        while start.elapsed() < limit {
            let row = first + u32::try_from(commits * 7 % u64::from(rows_each))?;
            peer::retry(|| update.execute((row,)))?;
            commits += 1;
        }
        Ok(commits)
    };
    let commits: u64 = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..writers).map(|w| scope.spawn(move || work(w))).collect();
        let mut sum = 0;
        for thread in threads {
            sum += thread.join().map_err(|_| anyhow::anyhow!("a writer panicked"))??;
        }
        Ok::<_, anyhow::Error>(sum)
    })?;
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    Ok(commits as f64 / seconds)
}

/// Commits a second by processes.
fn by_processes(uri: &str, seconds: f64) -> Result<f64> {
    let program = std::env::current_exe()?;
    let mut children = Vec::new();
    for writer in 0..WRITERS {
        let mut child = Command::new(&program)
            .args(["worker", "--uri", uri, "--seconds", &seconds.to_string()])
            .args([
                "--first",
                &(writer * ROWS_EACH + 1).to_string(),
                "--rows",
                &ROWS_EACH.to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let stdout = BufReader::new(child.stdout.take().context("a worker's output")?);
        children.push((child, stdout));
    }
    let mut line = String::new();
    for (_, stdout) in &mut children {
        line.clear();
        stdout.read_line(&mut line)?;
        if line.trim() != "ready" {
            bail!("a worker failed to start");
        }
    }
    for (child, _) in &mut children {
        child.stdin.take().context("a worker's input")?.write_all(b"g")?;
    }
    let mut commits = 0u64;
    for (child, mut stdout) in children {
        line.clear();
        stdout.read_line(&mut line)?;
        commits += line
            .split(' ')
            .next()
            .unwrap_or_default()
            .trim()
            .parse::<u64>()
            .context("a worker's count")?;
        finish(child)?;
    }
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    Ok(commits as f64 / seconds)
}

fn finish(mut child: Child) -> Result<()> {
    let status = child.wait()?;
    if status.success() { Ok(()) } else { bail!("a worker ended with {status}") }
}

fn fill(uri: &str) -> Result<()> {
    peer::fill(&mut peer::open(uri, Sync::Full)?, WRITERS * ROWS_EACH)
}

/// Threads of one process, direct.
pub fn threads(context: &Context, report: &mut Report) -> Result<()> {
    let dir = context.dir.join("writers-threads");
    std::fs::create_dir_all(&dir)?;
    let plain = peer::plain_uri(&dir, "plain.db");
    let ours = peer::interleaf_uri(&format!("dir:{}", dir.join("store").display()), "db");
    fill(&plain)?;
    fill(&ours)?;
    let by = |uri: &str| by_threads(uri, WRITERS, ROWS_EACH, context.seconds * 2.0);
    let (a, b, ratio) = in_turns(context.rounds, || by(&plain), || by(&ours))?;
    let detail = format!("{b:.0}/s against {a:.0}/s");
    report.add("16 durable writers, threads, direct", ratio, "x", Bound::AtLeast(1.5), detail);
    Ok(())
}

/// Processes through the server.
pub fn processes(context: &Context, report: &mut Report) -> Result<()> {
    let dir = context.dir.join("writers-processes");
    std::fs::create_dir_all(&dir)?;
    let server = Server::start(&dir.join("served"))?;
    let plain = peer::plain_uri(&dir, "plain.db");
    let ours = peer::interleaf_uri(&server.url(), "db");
    fill(&plain)?;
    fill(&ours)?;
    let seconds = context.seconds * 2.0;
    let (a, b, ratio) = in_turns(
        context.rounds,
        || by_processes(&plain, seconds),
        || by_processes(&ours, seconds),
    )?;
    let detail = format!("{b:.0}/s against {a:.0}/s");
    report.add("16 durable writers, processes, server", ratio, "x", Bound::AtLeast(1.0), detail);
    Ok(())
}
