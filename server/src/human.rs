//! Sizes, rates and durations as people read them.

use std::time::Duration;

/// `1.5 MiB` and the like.
#[must_use]
pub fn bytes(count: u64) -> String {
    const UNITS: [(&str, u64); 4] =
        [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
    match UNITS.iter().find(|(_, size)| count >= *size) {
        Some((unit, size)) => format!("{:.1} {unit}", ratio(count, *size)),
        None => format!("{count} B"),
    }
}

/// Megabytes (10^6 bytes) a second.
#[must_use]
pub fn megabytes_per_second(bytes: u64, elapsed: Duration) -> f64 {
    per_second(bytes, elapsed) / 1e6
}

/// Something a second.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a rate to show")]
pub fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64().max(1e-9)
}

/// 1234567 as `1,234,567`.
#[must_use]
pub fn grouped<N: TryInto<i128>>(number: N) -> String {
    let Ok(number) = number.try_into() else { return String::new() };
    let digits = number.unsigned_abs().to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3 + 1);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if number < 0 { format!("-{out}") } else { out }
}

#[expect(clippy::cast_precision_loss, reason = "a size to show")]
fn ratio(count: u64, unit: u64) -> f64 {
    count as f64 / unit as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_numbers_read_well() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(-1_234_567), "-1,234,567");
        assert_eq!(grouped(u64::MAX), "18,446,744,073,709,551,615");
        assert!((megabytes_per_second(3_000_000, Duration::from_secs(2)) - 1.5).abs() < 1e-9);
    }
}
