//! duration: lengths of time as the Gateway API writes them (GEP-2257).

use std::time::Duration;

/// Why a text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a duration: whole numbers of at most 5 digits with h, m, s or ms, such as \"10s\" or \"1h30m\""
)]
pub struct DurationError(String);

/// Reads `1h30m`, `500ms`, `0s`: one to four parts, each unit at most once, large units first not
/// demanded (GEP-2257: `^([0-9]{1,5}(h|m|s|ms)){1,4}$`).
///
/// # Errors
/// [`DurationError`] for everything else, fractions and negative ones included.
pub fn parse_duration(text: &str) -> Result<Duration, DurationError> {
    let wrong = || DurationError(text.to_owned());
    let mut rest = text;
    let mut total = Duration::ZERO;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if !(1..=5).contains(&digits) || parts == 4 {
            return Err(wrong());
        }
        let number: u64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let (unit, length) = [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000)]
            .into_iter()
            .find(|(unit, _)| rest.starts_with(unit))
            .ok_or_else(wrong)?;
        total += Duration::from_millis(number * length);
        rest = &rest[unit.len()..];
        parts += 1;
    }
    if parts == 0 { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_the_gateway_api_writes_them() {
        for (text, millis) in
            [("0s", 0), ("10s", 10_000), ("1h30m", 5_400_000), ("500ms", 500), ("1m1ms", 60_001)]
        {
            assert_eq!(parse_duration(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for bad in ["", "10", "s", "-1s", "1.5s", "100000s", "1d", "1s1s1s1s1s", "1 s"] {
            assert!(parse_duration(bad).is_err(), "{bad:?} passed");
        }
    }
}
