//! asked: what a request's headers ask of the queue.

use std::time::{Duration, SystemTime};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use policy::limits;

pub(crate) const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(crate) const CALLBACK: HeaderName = HeaderName::from_static("tidegate-callback");
pub(crate) const DELAY: HeaderName = HeaderName::from_static("tidegate-delay");
pub(crate) const EXPIRES: HeaderName = HeaderName::from_static("tidegate-expires");
pub(crate) const KEY: HeaderName = HeaderName::from_static("tidegate-key");
pub(crate) const NOT_BEFORE: HeaderName = HeaderName::from_static("tidegate-not-before");
pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");
pub(crate) const PRIORITY: HeaderName = HeaderName::from_static("priority");

/// The urgency of a request that names none (RFC 9218 §4.1).
const PRIORITY_DEFAULT: u8 = 3;

/// How a client prefers to be answered (RFC 7240).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Preference {
    /// `respond-async` (§4.1).
    pub(crate) respond_async: bool,
    /// `wait=N` (§4.3), at most [`limits::RESULT_WAIT_MAX`].
    pub(crate) wait: Option<Duration>,
}

impl Preference {
    /// Reads `Prefer`; what is not understood is passed over, as RFC 7240 §2 asks.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let mut preference = Self::default();
        for part in parts(headers) {
            let part = part.split(';').next().unwrap_or_default();
            let (name, value) =
                part.split_once('=').map_or((part, None), |(name, value)| (name, Some(value)));
            let name = name.trim();
            if name.eq_ignore_ascii_case("respond-async") {
                preference.respond_async = true;
            } else if name.eq_ignore_ascii_case("wait") && preference.wait.is_none() {
                let seconds = value.and_then(|value| value.trim().trim_matches('"').parse::<u64>().ok());
                preference.wait = seconds.map(|s| Duration::from_secs(s).min(limits::RESULT_WAIT_MAX));
            }
        }
        preference
    }
}

fn parts(headers: &HeaderMap) -> impl Iterator<Item = &str> {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|part| !part.is_empty())
}

/// Takes `respond-async` and `wait` out of `Prefer`; other preferences are for the receiver.
pub(crate) fn strip_preference(headers: &mut HeaderMap) {
    let ours = |part: &&str| {
        let name = part.split([';', '=']).next().unwrap_or_default().trim();
        name.eq_ignore_ascii_case("respond-async") || name.eq_ignore_ascii_case("wait")
    };
    let left: Vec<_> = parts(headers).filter(|part| !ours(part)).collect();
    let left = if left.is_empty() { None } else { HeaderValue::try_from(left.join(", ")).ok() };
    headers.remove(PREFER);
    if let Some(left) = left {
        headers.insert(PREFER, left);
    }
}

/// What a message is to be, as its sender says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Asked {
    /// 0, the most urgent, to 7.
    pub(crate) priority: u8,
    /// Not delivered before.
    pub(crate) not_before: Option<SystemTime>,
    /// Not delivered after.
    pub(crate) expires: Option<SystemTime>,
    /// The ordering key.
    pub(crate) key: Option<String>,
    /// The value of `Idempotency-Key`, without quotes.
    pub(crate) idempotency_key: Option<String>,
    /// Where the end is told.
    pub(crate) callback: Option<String>,
}

/// A header that cannot be understood: the sender is told, nothing is taken in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{header}: {reason}")]
pub(crate) struct BadHeader {
    pub(crate) header: HeaderName,
    pub(crate) reason: String,
}

impl Asked {
    /// Reads the control headers; `key_header` names the ordering key's.
    pub(crate) fn of(
        headers: &HeaderMap,
        key_header: Option<&str>,
        now: SystemTime,
    ) -> Result<Self, BadHeader> {
        let delay = once(headers, &DELAY)?.map(|text| after(&DELAY, text, now)).transpose()?;
        let not_before =
            once(headers, &NOT_BEFORE)?.map(|text| moment(&NOT_BEFORE, text, now)).transpose()?;
        if delay.is_some() && not_before.is_some() {
            return Err(bad(&DELAY, "Tidegate-Not-Before says it too: send one of them"));
        }
        let key = match key_header.map(HeaderName::try_from) {
            Some(Ok(name)) => once(headers, &name)?.map(str::to_owned),
            _ => None,
        };
        let idempotency_key = once(headers, &IDEMPOTENCY_KEY)?.map(unquoted).transpose()?;
        Ok(Self {
            priority: priority(headers),
            not_before: delay.or(not_before),
            expires: once(headers, &EXPIRES)?.map(|text| time(&EXPIRES, text)).transpose()?,
            key,
            idempotency_key,
            callback: once(headers, &CALLBACK)?.map(str::to_owned),
        })
    }
}

fn bad(header: &HeaderName, reason: impl Into<String>) -> BadHeader {
    BadHeader { header: header.clone(), reason: reason.into() }
}

/// A header that may stand once, of bounded length.
fn once<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, BadHeader> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad(name, "it may stand once"));
    }
    let text = value.to_str().map_err(|_| bad(name, "it must be visible ASCII"))?.trim();
    if text.is_empty() {
        return Err(bad(name, "it is empty"));
    }
    if text.len() > limits::MESSAGE_KEY_BYTES_MAX {
        return Err(bad(name, format!("it is longer than {} bytes", limits::MESSAGE_KEY_BYTES_MAX)));
    }
    Ok(Some(text))
}

/// `u=N` (RFC 9218 §4); anything else leaves the default, as §4 asks.
fn priority(headers: &HeaderMap) -> u8 {
    let text = headers.get(PRIORITY).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let members = text.split(',').map(str::trim);
    let urgency = members.filter_map(|member| member.strip_prefix("u=")).next_back();
    let urgency = urgency.and_then(|u| u.split(';').next()?.trim().parse::<u8>().ok());
    urgency.filter(|u| *u <= 7).unwrap_or(PRIORITY_DEFAULT)
}

/// A structured field's string, or a bare key: both are the same key.
fn unquoted(text: &str) -> Result<String, BadHeader> {
    let Some(inner) = text.strip_prefix('"') else { return Ok(text.to_owned()) };
    let Some(inner) = inner.strip_suffix('"') else {
        return Err(bad(&IDEMPOTENCY_KEY, "its quotation mark is not closed"));
    };
    let mut key = String::with_capacity(inner.len());
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => return Err(bad(&IDEMPOTENCY_KEY, "it has a quotation mark inside")),
            '\\' => match letters.next() {
                Some(escaped @ ('"' | '\\')) => key.push(escaped),
                _ => {
                    return Err(bad(
                        &IDEMPOTENCY_KEY,
                        "a backslash stands before something else (RFC 8941 §3.3.3)",
                    ));
                }
            },
            letter => key.push(letter),
        }
    }
    if key.is_empty() { Err(bad(&IDEMPOTENCY_KEY, "it is empty")) } else { Ok(key) }
}

fn after(header: &HeaderName, text: &str, now: SystemTime) -> Result<SystemTime, BadHeader> {
    let delay = match days(text) {
        Some(delay) => delay,
        None => {
            let wrong = |_| bad(header, format!("{text:?} is not a duration such as PT30S, PT36H or P2D"));
            let parsed = text.parse::<jiff::SignedDuration>().map_err(wrong)?;
            Duration::try_from(parsed).map_err(|_| bad(header, format!("{text:?} lies in the past")))?
        }
    };
    in_reach(header, text, now, now + delay.min(limits::MESSAGE_DELAY_MAX + Duration::from_secs(1)))
}

/// `P2D`, `P1DT12H`: days of 24 hours, which [`jiff::SignedDuration`] does not read.
fn days(text: &str) -> Option<Duration> {
    let (days, rest) = text.strip_prefix('P')?.split_once('D')?;
    let days = days.parse::<u32>().ok().filter(|_| !days.starts_with('+'))?;
    let rest = match rest {
        "" => Duration::ZERO,
        rest => Duration::try_from(format!("P{rest}").parse::<jiff::SignedDuration>().ok()?).ok()?,
    };
    Some(Duration::from_secs(u64::from(days) * 24 * 60 * 60).saturating_add(rest))
}

fn moment(header: &HeaderName, text: &str, now: SystemTime) -> Result<SystemTime, BadHeader> {
    in_reach(header, text, now, time(header, text)?)
}

fn in_reach(
    header: &HeaderName,
    text: &str,
    now: SystemTime,
    at: SystemTime,
) -> Result<SystemTime, BadHeader> {
    if at > now + limits::MESSAGE_DELAY_MAX {
        let days = limits::MESSAGE_DELAY_MAX.as_secs() / (24 * 60 * 60);
        return Err(bad(header, format!("{text:?} is farther than {days} days away")));
    }
    Ok(at)
}

fn time(header: &HeaderName, text: &str) -> Result<SystemTime, BadHeader> {
    let wrong = || bad(header, format!("{text:?} is not a time such as 2026-11-05T14:00:00Z (RFC 3339)"));
    let at = text.parse::<jiff::Timestamp>().map_err(|_| wrong())?;
    if at < jiff::Timestamp::UNIX_EPOCH { Err(wrong()) } else { Ok(at.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    #[test]
    fn a_preference_is_read_among_others_and_taken_out_alone() {
        let mut all =
            headers(&[("prefer", "return=minimal, Respond-Async, wait=10"), ("prefer", "handling=lenient")]);
        let wait = Some(Duration::from_secs(10));
        assert_eq!(Preference::of(&all), Preference { respond_async: true, wait });
        strip_preference(&mut all);
        assert_eq!(all["prefer"], "return=minimal, handling=lenient");
        assert_eq!(
            Preference::of(&headers(&[("prefer", "wait=1000000")])).wait,
            Some(limits::RESULT_WAIT_MAX)
        );
        assert_eq!(Preference::of(&headers(&[("prefer", "wait=soon, async")])), Preference::default());
    }

    #[test]
    fn quoted_and_bare_idempotency_keys_are_equal() {
        let now = SystemTime::now();
        let key = |text| {
            Asked::of(&headers(&[("idempotency-key", text)]), None, now).map(|asked| asked.idempotency_key)
        };
        assert_eq!(key("\"a-1\"").unwrap(), key("a-1").unwrap());
        assert_eq!(key("\"a\\\"b\"").unwrap().unwrap(), "a\"b");
        for wrong in ["\"open", "\"\"", "\"a\\b\"", ""] {
            assert!(key(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_and_delays_are_read_and_far_ones_refused() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let asked = |name, value: &str| Asked::of(&headers(&[(name, value)]), None, now);
        assert_eq!(
            asked("tidegate-delay", "PT1M30S").unwrap().not_before,
            Some(now + Duration::from_secs(90))
        );
        assert_eq!(
            asked("tidegate-delay", "PT0.25S").unwrap().not_before,
            Some(now + Duration::from_millis(250))
        );
        for (text, hours) in [("P2D", 48), ("P1DT12H", 36)] {
            let due = Some(now + Duration::from_secs(hours * 60 * 60));
            assert_eq!(asked("tidegate-delay", text).unwrap().not_before, due, "{text}");
        }
        let far = asked("tidegate-delay", "P40D").unwrap_err();
        assert_eq!(far.reason, "\"P40D\" is farther than 30 days away");
        for wrong in ["P2DT", "PD", "P+2D", "P2D1H", "2d"] {
            let said = asked("tidegate-delay", wrong).unwrap_err().reason;
            assert!(said.contains("or P2D"), "{wrong}: {said}");
        }
        let at = asked("tidegate-not-before", "2027-01-15T08:00:30Z").unwrap().not_before;
        assert_eq!(at, Some(now + Duration::from_secs(30)));
        assert!(asked("tidegate-expires", "2027-01-15T09:00:30+01:00").unwrap().expires.is_some());
        for (name, value) in [
            ("tidegate-delay", "PT1000H"),
            ("tidegate-delay", "-PT1S"),
            ("tidegate-delay", "soon"),
            ("tidegate-not-before", "2099-01-01T00:00:00Z"),
            ("tidegate-not-before", "tomorrow"),
            ("tidegate-expires", "1"),
        ] {
            assert_eq!(asked(name, value).unwrap_err().header, name, "{value}");
        }
        let both = headers(&[("tidegate-delay", "PT1S"), ("tidegate-not-before", "2027-01-15T08:00:30Z")]);
        assert!(Asked::of(&both, None, now).is_err());
    }

    #[test]
    fn an_urgency_outside_its_range_is_the_default() {
        let urgency = |text| priority(&headers(&[("priority", text)]));
        assert_eq!(
            [urgency("u=0"), urgency("i, u=7"), urgency("u=8"), urgency("u=-1"), urgency("x")],
            [0, 7, 3, 3, 3]
        );
    }
}
