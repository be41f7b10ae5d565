//! Time samples: which version was current when, by one clock.
//!
//! An embedded store writes a sample with every batch of commits, under the commit lock.
//! Its time is the end of the current millisecond: batches within one millisecond share a
//! sample, each overwriting it with its newer version, and a sample whose time has passed
//! never changes again.

use std::sync::{Mutex, PoisonError};

use crate::env::Env;
use crate::error::Result;
use crate::format::{keys, records};
use crate::kv::{Mutation, Reads, Scan};
use crate::types::Version;

use super::view::View;

/// Samples are this far apart, in microseconds.
const STEP_MICROS: i64 = 1000;

/// The clock that samples are taken from. It never goes back, however the machine's does.
pub(super) struct Sampler {
    env: Env,
    last: Mutex<i64>,
}

impl Sampler {
    /// Goes on from the newest sample of the store.
    pub(super) fn load<R: Reads + ?Sized>(env: Env, view: &View<'_, R>) -> Result<Self> {
        let last = match view.newest_sample()? {
            Some((time, _)) => time,
            None => i64::MIN,
        };
        Ok(Self { env, last: Mutex::new(last) })
    }

    /// Now, on the sampling clock: never before a sample that was taken.
    pub(super) fn now(&self) -> i64 {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.env.clock.unix_micros().max(last)
    }

    /// The sample of a batch whose newest version is `version`.
    pub(super) fn sample(&self, version: Version) -> Mutation {
        let now = self.env.clock.unix_micros();
        let rounded = match now.rem_euclid(STEP_MICROS) {
            0 => now,
            over => now.saturating_add(STEP_MICROS - over),
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        *last = rounded.max(*last);
        Mutation::Put { key: keys::time(*last), value: records::encode_version(version) }
    }
}

impl<R: Reads + ?Sized> View<'_, R> {
    fn newest_sample(&self) -> Result<Option<(i64, Version)>> {
        self.sample_at(i64::MAX)
    }

    /// The newest sample whose time is at most `micros`.
    pub(super) fn sample_at(&self, micros: i64) -> Result<Option<(i64, Version)>> {
        let range = keys::time(i64::MIN)..keys::after(&keys::time(micros));
        let found = self.0.scan(&Scan { range, reverse: true, limit: 1 })?;
        found.first().map(|(key, value)| parse_sample(key, value)).transpose()
    }

    /// The oldest sample that has `version`: the time at which it was first current.
    pub(super) fn first_sample_of(&self, version: Version) -> Result<Option<(i64, Version)>> {
        let range = keys::time(i64::MIN)..keys::after(&keys::time(i64::MAX));
        let first = self.0.scan(&Scan { range, reverse: false, limit: 1 })?;
        let (Some((key, value)), Some(newest)) = (first.first(), self.newest_sample()?) else {
            return Ok(None);
        };
        let first = parse_sample(key, value)?;
        if first.1 >= version {
            return Ok(Some(first));
        }
        if newest.1 < version {
            return Ok(None);
        }
        // Samples grow in both parts (F5): halve the time until none lies between.
        let (mut before, mut found) = (first.0, newest);
        loop {
            let middle = before.saturating_add(found.0.saturating_sub(before) / 2);
            match self.sample_at(middle)? {
                Some(sample) if sample.1 >= version => found = sample,
                _ => {
                    if middle == before {
                        return Ok(Some(found));
                    }
                    before = middle;
                }
            }
        }
    }
}

fn parse_sample(key: &[u8], value: &[u8]) -> Result<(i64, Version)> {
    Ok((keys::parse_time(key)?, records::decode_version(value, "time sample")?))
}
