//! Time samples: which version was current when, by one clock.
//!
//! An embedded store writes a sample with every batch of commits, under the commit lock.
//! Its time is the end of the current millisecond: batches within one millisecond share a
//! sample, each overwriting it with its newer version, and a sample whose time has passed
//! never changes again.
//!
//! Where others write too, each commit carries a sample, in its own transaction and
//! conflicting with nobody: the engine's order of commits decides which of two that share
//! a sample stays. Its time is the end of the current hundredth of a second by the clock
//! of this process, and never before the newest sample that this process has seen. So a
//! commit is in the samples from the moment it takes effect, whoever commits or does not
//! commit after it. Clocks that differ can leave a sample older in version than one
//! shortly before it: a reader takes the newest version of the last [`SKEW_MICROS`].

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::env::{Deadline, Env};
use crate::error::Result;
use crate::format::{keys, records};
use crate::kv::{Mutation, Reads, Scan};
use crate::types::Version;

use super::Store;
use super::fetched::Fetched;
use super::view::View;

/// Samples of an embedded store are this far apart, in microseconds.
const STEP_MICROS: i64 = 1000;

/// Samples of a store to which others write, too.
const SHARED_STEP_MICROS: i64 = 10_000;

/// How far clocks of machines that commit to one store may differ, in microseconds: the
/// times of samples that two of them write at once differ no more.
const SKEW_MICROS: i64 = 5_000_000;

/// Most samples that differ no more in time.
const SKEW_SAMPLES: usize = 501;

const _: () = assert!((SKEW_SAMPLES as i64 - 1) * SHARED_STEP_MICROS == SKEW_MICROS);

/// How often a process looks for samples of others, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The clock that samples are taken from. It never goes back, however the machine's does.
pub(super) struct Sampler {
    env: Env,
    step: i64,
    state: Mutex<State>,
}

struct State {
    /// The newest sample taken or seen.
    last: i64,
    /// When samples of others were last looked for; `None` where there are no others.
    looked: Option<Instant>,
}

impl Sampler {
    /// Goes on from the newest sample of the store. `exclusive`: nobody else writes any.
    pub(super) fn load<R: Reads + ?Sized>(
        env: Env,
        exclusive: bool,
        view: &View<'_, R>,
    ) -> Result<Self> {
        let last = view.newest_sample()?.map_or(i64::MIN, |(time, _)| time);
        let looked = (!exclusive).then(|| env.clock.now());
        let step = if exclusive { STEP_MICROS } else { SHARED_STEP_MICROS };
        Ok(Self { env, step, state: Mutex::new(State { last, looked }) })
    }

    /// Now, on the sampling clock: never before a sample that was taken.
    pub(super) fn now(&self) -> i64 {
        let last = self.state().last;
        self.env.clock.unix_micros().max(last)
    }

    /// The sample of a batch whose newest version is `version`.
    pub(super) fn sample(&self, version: Version) -> Mutation {
        let value = records::encode_version(version);
        Mutation::Put { key: keys::time(self.next()), value }
    }

    /// The sample of a commit that is about to get its version.
    pub(super) fn stamped(&self) -> Mutation {
        Mutation::PutVersionedValue {
            key: keys::time(self.next()),
            prefix: records::encode_version_prefix(),
            suffix: Vec::new(),
        }
    }

    fn next(&self) -> i64 {
        let now = self.env.clock.unix_micros();
        let rounded = match now.rem_euclid(self.step) {
            0 => now,
            over => now.saturating_add(self.step - over),
        };
        let mut state = self.state();
        state.last = rounded.max(state.last);
        state.last
    }

    /// The scan that finds the samples of others, where it is time to look.
    pub(super) fn look(&self) -> Option<Scan> {
        let due = self.state().looked.is_some_and(|looked| {
            self.env.clock.now().saturating_duration_since(looked) >= LOOK_EVERY
        });
        due.then(|| samples_up_to(i64::MAX))
    }

    /// Goes on from the newest sample in `view`, where it is time to look.
    pub(super) fn seen<R: Reads + ?Sized>(&self, view: &View<'_, R>) -> Result<()> {
        if self.look().is_none() {
            return Ok(());
        }
        let newest = view.newest_sample()?;
        let mut state = self.state();
        if let Some((time, _)) = newest {
            state.last = state.last.max(time);
        }
        state.looked = Some(self.env.clock.now());
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Two values that are each right alone.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// The changes of a commit with its sample, where no hook of the engine adds one.
    pub(super) fn with_sample(&self, mut mutations: Vec<Mutation>) -> Vec<Mutation> {
        if self.published.is_none() {
            mutations.push(self.sampler.stamped());
        }
        mutations
    }

    /// Looks for samples of others where it is time to, by a read of its own.
    pub(super) fn refresh_sampler(&self, deadline: Deadline) -> Result<()> {
        let Some(scan) = self.sampler.look() else { return Ok(()) };
        self.retrying(deadline, || {
            let reads = Fetched::take(&*self.kv, None, vec![scan.clone()], deadline)?;
            self.sampler.seen(&View(&reads))
        })
    }
}

/// The newest samples up to a time, as many as clocks can have left out of order.
fn samples_up_to(micros: i64) -> Scan {
    let range = keys::time(i64::MIN)..keys::after(&keys::time(micros));
    Scan { range, reverse: true, limit: SKEW_SAMPLES }
}

impl<R: Reads + ?Sized> View<'_, R> {
    fn newest_sample(&self) -> Result<Option<(i64, Version)>> {
        self.sample_at(i64::MAX)
    }

    /// The newest sample whose time is at most `micros`: its time, and the newest version
    /// up to it.
    pub(super) fn sample_at(&self, micros: i64) -> Result<Option<(i64, Version)>> {
        let found = self.0.scan(&samples_up_to(micros))?;
        let mut samples = found.iter().map(|(key, value)| parse_sample(key, value));
        let Some(newest) = samples.next().transpose()? else { return Ok(None) };
        let mut version = newest.1;
        for sample in samples {
            let (time, other) = sample?;
            if time < newest.0.saturating_sub(SKEW_MICROS) {
                break;
            }
            version = version.max(other);
        }
        Ok(Some((newest.0, version)))
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
