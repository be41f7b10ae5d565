//! Points in time, and the log.

use super::Store;
use super::view::{BranchView, View, check_watermark, no_branch};
use crate::api::{LogEntry, LogRequest};
use crate::env::Deadline;
use crate::error::{Error, Result};
use crate::format::keys;
use crate::format::log::LogRecord;
use crate::format::records::PinRecord;
use crate::kv::{Reads, Snapshot};
use crate::types::{BranchId, Version};
use crate::when::{When, format_time};

/// How far a time may lie ahead of the store's own clock and still mean now, in microseconds:
/// the clocks of two machines differ by a little.
const AHEAD_MICROS: i64 = 10_000_000;

/// Most entries that one call for the log gives.
const MAX_LOG_ENTRIES: usize = 100_000;

impl Store {
    pub(super) fn resolve_now(
        &self,
        branch: BranchId,
        when: &When,
        deadline: Deadline,
    ) -> Result<Version> {
        let reads = self.kv.snapshot(deadline)?;
        let newest = self.newest(&*reads);
        let view = View(&*reads);
        let BranchView { lineage, dropped, watermark } = view.branch(branch)?;
        if dropped {
            return Err(no_branch(branch));
        }
        let now = self.sampler.now();
        let version = match when {
            When::Version(version) if *version > newest => {
                return Err(Error::NotFound {
                    what: format!("version {version} (the newest is {newest})"),
                });
            }
            When::Version(version) => *version,
            When::Time(time) => at_time(&view, *time, now, newest)?,
            When::Ago(ago) => {
                let back = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
                at_time(&view, now.saturating_sub(back), now, newest)?
            }
            When::Pin(label) => {
                let missing = || Error::NotFound { what: format!("pin {label:?}") };
                let bytes = reads.get(&keys::pin(lineage.database, label))?.ok_or_else(missing)?;
                let pin = PinRecord::decode(&bytes)?;
                if !lineage
                    .segments(Version::MAX)
                    .any(|(b, bound)| b == pin.branch && pin.version <= bound)
                {
                    return Err(missing());
                }
                pin.version
            }
        };
        if version < lineage.origin {
            return Err(Error::NotFound {
                what: format!("a version at {when} (the database was created later)"),
            });
        }
        check_watermark(version, watermark)?;
        Ok(version)
    }

    /// The newest version that a begin could get now.
    fn newest(&self, reads: &dyn Snapshot) -> Version {
        match &self.published {
            Some(published) => published.newest(),
            None => reads.version(),
        }
    }

    pub(super) fn log_now(
        &self,
        request: &LogRequest,
        deadline: Deadline,
    ) -> Result<Vec<LogEntry>> {
        let reads = self.kv.snapshot(deadline)?;
        let view = View(&*reads);
        let limit = request.limit.min(MAX_LOG_ENTRIES);
        let up_to = request.up_to.min(self.newest(&*reads));
        let BranchView { lineage, dropped, .. } = view.branch(request.branch)?;
        if dropped {
            return Err(no_branch(request.branch));
        }
        let mut entries = Vec::new();
        if limit == 0 {
            return Ok(entries);
        }
        let mut visit = |version, record: LogRecord| {
            entries.push(to_entry(version, record));
            Ok(entries.len() < limit)
        };
        if request.newest_first {
            view.walk_log_back(&lineage, request.after, up_to, &mut visit)?;
        } else {
            view.walk_log(&lineage, request.after, up_to, &mut visit)?;
        }
        Ok(entries)
    }

    pub(super) fn time_of_now(&self, version: Version, deadline: Deadline) -> Result<Option<i64>> {
        let reads = self.kv.snapshot(deadline)?;
        Ok(View(&*reads).first_sample_of(version)?.map(|(time, _)| time))
    }
}

fn at_time<R: Reads + ?Sized>(
    view: &View<'_, R>,
    time: i64,
    now: i64,
    newest: Version,
) -> Result<Version> {
    if time > now.saturating_add(AHEAD_MICROS) {
        let (time, now) = (format_time(time), format_time(now));
        return Err(Error::NotFound {
            what: format!("a version at {time} (in the future: the store's clock says {now})"),
        });
    }
    if time >= now {
        return Ok(newest);
    }
    match view.sample_at(time)? {
        // A sample is written with its batch, a moment before the batch is published.
        Some((_, version)) => Ok(version.min(newest)),
        None => Err(Error::NotFound {
            what: format!("a version at {} (the store was created later)", format_time(time)),
        }),
    }
}

fn to_entry(version: Version, record: LogRecord) -> LogEntry {
    LogEntry {
        version,
        id: record.id,
        time_micros: record.time_micros,
        pages: record.pages.to_set(),
        bytes: record.content_bytes,
        allocation: record.allocation,
        client: record.client,
    }
}
