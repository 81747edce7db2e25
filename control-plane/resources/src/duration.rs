//! duration: lengths of time, as the Gateway API (GEP-2257), ISO 8601 and Go write them.

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

/// Why a text is a duration neither of ISO 8601 nor of Go.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a duration: write \"PT30S\" or \"P2D\" (ISO 8601: weeks, days, hours, minutes, seconds) or \"30s\" (h, m, s, ms; two days are \"48h\")"
)]
pub struct IsoOrGoError(String);

/// What stands before and after the `T` of ISO 8601, and Go's units, in milliseconds.
const ISO_DATE: &[(&str, u64)] = &[("W", 604_800_000), ("D", 86_400_000)];
const ISO_TIME: &[(&str, u64)] = &[("H", 3_600_000), ("M", 60_000), ("S", 1000)];
const GO: &[(&str, u64)] = &[("ms", 1), ("h", 3_600_000), ("m", 60_000), ("s", 1000)];

/// Reads `PT0.5S`, `P1DT12H` (ISO 8601 §5.5.2.2, without years and months, which have no fixed
/// length) or `72h`, `1h30m`, `0.5s` (Go's `time.ParseDuration`, without what is below a
/// millisecond).
///
/// # Errors
/// [`IsoOrGoError`] for everything else, negative ones and fractions of a millisecond included.
pub fn parse_iso_or_go(text: &str) -> Result<Duration, IsoOrGoError> {
    let read = || match text.strip_prefix('P') {
        Some(rest) => {
            let (date, time) = match rest.split_once('T') {
                Some((date, time)) => (date, Some(time)),
                None => (rest, None),
            };
            let is_empty = date.is_empty() && time.is_none();
            if is_empty || time.is_some_and(str::is_empty) {
                return None;
            }
            let date = parts(date, ISO_DATE, true)?;
            date.checked_add(time.map_or(Some(0), |time| parts(time, ISO_TIME, true))?)
        }
        None if text == "0" => Some(0),
        None if text.is_empty() => None,
        None => parts(text, GO, false),
    };
    read().map(Duration::from_millis).ok_or_else(|| IsoOrGoError(text.to_owned()))
}

/// The sum of `1h30m` in milliseconds; `once`: each unit once, in the order of `units`.
fn parts(text: &str, units: &[(&str, u64)], once: bool) -> Option<u64> {
    let (mut rest, mut left, mut total) = (text, units, 0_u64);
    while !rest.is_empty() {
        let length = rest.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'.').count();
        let at = left.iter().position(|(unit, _)| rest[length..].starts_with(unit))?;
        let (unit, millis) = left[at];
        total = total.checked_add(number(&rest[..length], millis)?)?;
        rest = &rest[length + unit.len()..];
        if once {
            left = &left[at + 1..];
        }
    }
    Some(total)
}

/// `1.5` times `millis`; at most 9 digits before and after the point.
fn number(text: &str, millis: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let read = |digits: &str| -> Option<u64> {
        let right = (1..=9).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
        if right { digits.parse().ok() } else { None }
    };
    let scale = 10_u64.pow(u32::try_from(fraction.len()).ok().filter(|length| *length <= 9)?);
    let part = read(fraction)? * millis;
    let sum = read(whole)? * millis + part / scale;
    if part.is_multiple_of(scale) { Some(sum) } else { None }
}

/// `duration` as the Gateway API and Go write it, in the largest unit that divides it: `1h`, `500ms`.
pub(crate) fn print_go(duration: Duration) -> String {
    let millis = duration.as_millis();
    let units = [("h", 3_600_000), ("m", 60_000), ("s", 1000)];
    let found = units.into_iter().find(|(_, length)| millis != 0 && millis.is_multiple_of(*length));
    found.map_or_else(|| format!("{millis}ms"), |(unit, length)| format!("{}{unit}", millis / length))
}

/// `duration` in ISO 8601, in hours, minutes and seconds: `PT24H`, `PT0.5S`.
#[must_use]
pub fn print_iso(duration: Duration) -> String {
    let (seconds, millis) = (duration.as_secs(), duration.subsec_millis());
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = "PT".to_owned();
    let mut put = |number: String, unit| {
        if number != "0" {
            text.push_str(&number);
            text.push(unit);
        }
    };
    put(hours.to_string(), 'H');
    put(minutes.to_string(), 'M');
    let fraction = format!("{seconds}.{millis:03}");
    put(fraction.trim_end_matches('0').trim_end_matches('.').to_owned(), 'S');
    if text.len() == 2 { "PT0S".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iso_8601_and_go_are_both_read_and_one_is_printed() {
        for (text, millis, printed) in [
            ("PT0.5S", 500, "PT0.5S"),
            ("500ms", 500, "PT0.5S"),
            ("0.5s", 500, "PT0.5S"),
            ("PT24H", 86_400_000, "PT24H"),
            ("P1D", 86_400_000, "PT24H"),
            ("24h", 86_400_000, "PT24H"),
            ("P1DT12H", 129_600_000, "PT36H"),
            ("1h30m10s", 5_410_000, "PT1H30M10S"),
            ("PT1H30M10S", 5_410_000, "PT1H30M10S"),
            ("P2W", 1_209_600_000, "PT336H"),
            ("72h", 259_200_000, "PT72H"),
            ("PT10S", 10_000, "PT10S"),
            ("PT100M", 6_000_000, "PT1H40M"),
            ("PT0S", 0, "PT0S"),
            ("0", 0, "PT0S"),
            ("0s", 0, "PT0S"),
            ("PT0.001S", 1, "PT0.001S"),
        ] {
            let duration = parse_iso_or_go(text).unwrap();
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(print_iso(duration), printed);
            assert_eq!(parse_iso_or_go(printed).unwrap(), duration);
        }
        for bad in [
            "",
            "P",
            "PT",
            "P1Y",
            "P1M",
            "P1DT",
            "PT1S1H",
            "PT1H1H",
            "pt1s",
            "30",
            "-1s",
            "PT-1S",
            "1d",
            "s",
            ".s",
            "1.s",
            "PT0.0001S",
            "1 s",
            "PT1s",
            "9999999999h",
            "PT999999999999999999999S",
            "ü",
            "PT1ü",
            "1us",
        ] {
            assert!(parse_iso_or_go(bad).is_err(), "{bad:?} passed");
        }
    }

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
