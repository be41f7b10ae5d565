//! One connection: warm point SELECT, one-row UPDATE.

use std::path::Path;

use anyhow::Result;
use rusqlite::Connection;

use crate::Context;
use crate::peer::{self, Sync};
use crate::report::{Bound, Report};
use crate::sample::{in_turns, seconds_per_call};
use crate::server::Server;

const ROWS: u32 = 100_000;

/// The two ways to a store that are compared with plain SQLite.
struct Sides {
    plain: Connection,
    direct: Connection,
    socket: Connection,
    _server: Server,
}

impl Sides {
    fn open(dir: &Path, case: &str, sync: Sync) -> Result<Self> {
        let dir = dir.join(case);
        std::fs::create_dir_all(&dir)?;
        let server = Server::start(&dir.join("served"))?;
        let direct_url = format!("dir:{}", dir.join("direct").display());
        let mut sides = Self {
            plain: peer::open(&peer::plain_uri(&dir, "plain.db"), sync)?,
            direct: peer::open(&peer::interleaf_uri(&direct_url, "db"), sync)?,
            socket: peer::open(&peer::interleaf_uri(&server.url(), "db"), sync)?,
            _server: server,
        };
        peer::fill(&mut sides.plain, ROWS)?;
        peer::fill(&mut sides.direct, ROWS)?;
        peer::fill(&mut sides.socket, ROWS)?;
        Ok(sides)
    }
}

/// The i-th row of a walk over all rows that is nowhere sequential.
fn row(i: u64) -> u32 {
    u32::try_from(i.wrapping_mul(2_654_435_761) % u64::from(ROWS)).unwrap_or(0) + 1
}

/// Warm autocommit point SELECT: a transaction each.
pub fn point_select(context: &Context, report: &mut Report) -> Result<()> {
    let sides = Sides::open(&context.dir, "point-select", Sync::Full)?;
    let time = |db: &Connection| -> Result<f64> {
        let mut select = db.prepare("SELECT n FROM t WHERE id = ?1")?;
        for id in 1..=ROWS {
            select.query_row((id,), |r| r.get::<_, i64>(0))?;
        }
        seconds_per_call(context.seconds, |i| {
            select.query_row((row(i),), |r| r.get::<_, i64>(0))?;
            Ok(())
        })
    };
    for (name, db, bound) in [
        ("warm point SELECT, direct", &sides.direct, Bound::AtLeast(0.7)),
        ("warm point SELECT, socket", &sides.socket, Bound::None),
    ] {
        let (plain, ours, ratio) = in_turns(context.rounds, || time(&sides.plain), || time(db))?;
        let detail = format!("{:.2} us against {:.2} us", ours * 1e6, plain * 1e6);
        report.add(name, 1.0 / ratio, "x", bound, detail);
    }
    Ok(())
}

/// Durable one-row UPDATE, against WAL FULL.
pub fn update_full(context: &Context, report: &mut Report) -> Result<()> {
    update(context, report, "update-full", Sync::Full, [Bound::AtMost(1.6), Bound::AtMost(2.5)])
}

/// One-row UPDATE at synchronous=NORMAL, against WAL NORMAL.
pub fn update_normal(context: &Context, report: &mut Report) -> Result<()> {
    update(context, report, "update-normal", Sync::Normal, [Bound::None, Bound::None])
}

fn update(
    context: &Context,
    report: &mut Report,
    case: &str,
    sync: Sync,
    bounds: [Bound; 2],
) -> Result<()> {
    let sides = Sides::open(&context.dir, case, sync)?;
    let time = |db: &Connection| -> Result<f64> {
        let mut update = db.prepare("UPDATE t SET n = n + 1 WHERE id = ?1")?;
        seconds_per_call(context.seconds, |i| {
            update.execute((row(i),))?;
            Ok(())
        })
    };
    let level = if sync == Sync::Full { "FULL" } else { "NORMAL" };
    let [direct_bound, socket_bound] = bounds;
    for (way, db, bound) in
        [("direct", &sides.direct, direct_bound), ("socket", &sides.socket, socket_bound)]
    {
        let (plain, ours, ratio) = in_turns(context.rounds, || time(&sides.plain), || time(db))?;
        let detail = format!("{:.1} us against {:.1} us", ours * 1e6, plain * 1e6);
        report.add(&format!("one-row UPDATE {level}, {way}: time"), ratio, "x", bound, detail);
    }
    Ok(())
}
