//! Timing of a piece of work, and medians.

use std::time::{Duration, Instant};

use anyhow::Result;

/// Runs `work` again and again for about `seconds`; seconds per call.
pub fn seconds_per_call(seconds: f64, mut work: impl FnMut(u64) -> Result<()>) -> Result<f64> {
    let limit = Duration::from_secs_f64(seconds);
    let start = Instant::now();
    let mut calls = 0u64;
    // The clock is read once a batch: it costs a tenth of what is measured here.
    while start.elapsed() < limit {
        for _ in 0..16 {
            work(calls)?;
            calls += 1;
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    Ok(start.elapsed().as_secs_f64() / calls as f64)
}

/// Runs `work` again and again for about `seconds`; the median of the seconds of a call.
/// `work` times itself what counts.
#[cfg(feature = "fdb")]
pub fn median_seconds(seconds: f64, mut work: impl FnMut(u64) -> Result<Duration>) -> Result<f64> {
    let limit = Duration::from_secs_f64(seconds);
    let start = Instant::now();
    let mut calls = Vec::new();
    while start.elapsed() < limit || calls.is_empty() {
        calls.push(work(u64::try_from(calls.len())?)?.as_secs_f64());
    }
    Ok(median(&calls))
}

/// The middle value.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let at = |i: usize| sorted.get(i).copied().unwrap_or(f64::NAN);
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(at(middle.wrapping_sub(1)), at(middle))
    } else {
        at(middle)
    }
}

/// Rounds in which the peers take turns: medians of (first, second, second / first).
pub fn in_turns(
    rounds: usize,
    mut first: impl FnMut() -> Result<f64>,
    mut second: impl FnMut() -> Result<f64>,
) -> Result<(f64, f64, f64)> {
    let mut firsts = Vec::new();
    let mut seconds = Vec::new();
    let mut ratios = Vec::new();
    for round in 0..rounds {
        // Whoever goes second finds a warmer machine: take turns in that, too.
        let (a, b) = if round % 2 == 0 {
            let a = first()?;
            (a, second()?)
        } else {
            let b = second()?;
            (first()?, b)
        };
        firsts.push(a);
        seconds.push(b);
        ratios.push(b / a);
    }
    Ok((median(&firsts), median(&seconds), median(&ratios)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-9);
        assert!(median(&[]).is_nan());
    }
}
