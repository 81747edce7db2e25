//! query: what an operator asks for behind the question mark, read once.

use std::time::{Duration, SystemTime};

use policy::limits;
use queue::{Filter, Part, Reason};
use store::message::Timestamp;

use super::{BAD_QUERY, Problem};
use crate::admit::answer::rfc3339;

/// Messages on a page that names no number.
const LIMIT: usize = 100;

/// All that may be asked.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Query {
    pub(super) queue: Option<String>,
    pub(super) durability: Option<String>,
    pub(super) part: Part,
    pub(super) filter: Filter,
    /// Where the page before ended.
    pub(super) after: Option<u64>,
    pub(super) limit: usize,
    /// Messages a second.
    pub(super) rate: Option<f64>,
    /// A redrive under way makes room for this one.
    pub(super) replace: bool,
    pub(super) id: Option<String>,
    /// A person pressed a button of the page and is sent back to it.
    pub(super) from_page: bool,
    /// What was asked with, by name, and whether it had a value.
    pub(super) named: Vec<(String, bool)>,
}

fn wrong(name: &str, value: &str, expected: &str) -> Problem {
    Problem::new(BAD_QUERY, format!("{name}={value:?}: {expected} is expected"))
}

impl Query {
    /// Reads it; what is not understood is refused, because leaving a filter out would choose more.
    pub(super) fn read(text: &str, now: SystemTime) -> Result<Self, Problem> {
        let mut query = Self {
            queue: None,
            durability: None,
            part: Part::Waiting,
            filter: Filter::default(),
            after: None,
            limit: LIMIT,
            rate: None,
            replace: false,
            id: None,
            from_page: false,
            named: Vec::new(),
        };
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            query.named.push((name.to_string(), !value.is_empty()));
            if !value.is_empty() {
                query.set(&name, &value, now)?;
            }
        }
        Ok(query)
    }

    /// Which messages are meant, in the words of the query, for the log; `None`: all.
    pub(super) fn filtered(&self) -> Option<String> {
        let Filter { reason, key, status, before, since } = &self.filter;
        let parts = [
            reason.map(|reason| format!("reason={}", reason.as_str())),
            key.as_ref().map(|key| format!("key={key:?}")),
            status.map(|status| format!("status={status}")),
            before.map(|before| format!("before={}", rfc3339(before))),
            since.map(|since| format!("since={}", rfc3339(since))),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        (!parts.is_empty()).then(|| parts.join(" "))
    }

    /// Refuses what `verb` would leave out: whoever asks for one message, or for a few, does not mean
    /// all of them.
    pub(super) fn fits(&self, verb: &str) -> Result<(), Problem> {
        let filtered = ["queue", "durability", "from", "part", "reason", "key", "status", "before", "since"];
        let (used, more): (&[&str], &[&str]) = match verb {
            "purge" => (&filtered, &[]),
            "redrive" if self.id.is_some() => (&["queue", "durability", "from", "part"], &["id"]),
            "redrive" => (&filtered, &["rate", "replace"]),
            _ => (&filtered[..3], &[]),
        };
        let refused = |what: String| Err(Problem::new(BAD_QUERY, format!("{verb} {what}")));
        for (name, has_value) in &self.named {
            if !used.contains(&name.as_str()) && !more.contains(&name.as_str()) {
                return refused(format!("takes no {name}="));
            }
            if !has_value {
                return refused(format!("does not know what {name}= means without a value"));
            }
            if verb == "redrive" && name == "part" && self.part != Part::Dead {
                return refused(format!("brings dead letters back, not part={}", word(self.part)));
            }
        }
        Ok(())
    }

    fn set(&mut self, name: &str, value: &str, now: SystemTime) -> Result<(), Problem> {
        match name {
            "queue" => self.queue = Some(value.to_owned()),
            "durability" => self.durability = Some(value.to_owned()),
            "id" => self.id = Some(value.to_owned()),
            "part" => self.part = part(value)?,
            "from" => self.from_page = value == "page",
            "after" => self.after = Some(number(name, value)?),
            "limit" => {
                let limit: usize = number(name, value)?;
                self.limit = limit.clamp(1, limits::PEEK_MAX);
            }
            "rate" => {
                let rate = value.parse::<f64>().ok().filter(|rate| rate.is_finite() && *rate > 0.0);
                let rate = rate.ok_or_else(|| wrong(name, value, "a number of messages a second above 0"))?;
                self.rate = Some(rate.min(limits::REDRIVE_PER_SECOND_MAX));
            }
            "replace" => self.replace = value.parse().map_err(|_| wrong(name, value, "true or false"))?,
            "reason" => {
                let expected = "NonRetryable, Exhausted, Expired, Gone, Misconfigured or Damaged";
                self.filter.reason = Some(Reason::parse(value).ok_or_else(|| wrong(name, value, expected))?);
            }
            "key" => self.filter.key = Some(value.to_owned()),
            "status" => self.filter.status = Some(number(name, value)?),
            "before" => self.filter.before = Some(moment(name, value, now)?),
            "since" => self.filter.since = Some(moment(name, value, now)?),
            _ => return Err(Problem::new(BAD_QUERY, format!("{name:?} is not known here"))),
        }
        Ok(())
    }
}

fn part(value: &str) -> Result<Part, Problem> {
    match value {
        "waiting" => Ok(Part::Waiting),
        "dead" => Ok(Part::Dead),
        "quarantined" => Ok(Part::Quarantined),
        _ => Err(wrong("part", value, "waiting, dead or quarantined")),
    }
}

/// The word of a part.
pub(super) fn word(part: Part) -> &'static str {
    match part {
        Part::Waiting => "waiting",
        Part::Dead => "dead",
        Part::Quarantined => "quarantined",
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, Problem> {
    value.parse().map_err(|_| wrong(name, value, "a number"))
}

/// A time, or how long ago: `2026-11-05T14:00:00Z`, `15m`, `PT15M`.
fn moment(name: &str, value: &str, now: SystemTime) -> Result<Timestamp, Problem> {
    let at = match value.parse::<jiff::Timestamp>() {
        Ok(at) => SystemTime::from(at),
        Err(_) => {
            let ago = value.parse::<jiff::SignedDuration>().ok().and_then(|ago| Duration::try_from(ago).ok());
            let expected = "a time such as 2026-11-05T14:00:00Z, or how long ago, such as 15m,";
            ago.and_then(|ago| now.checked_sub(ago)).ok_or_else(|| wrong(name, value, expected))?
        }
    };
    let since = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Query, String> {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        Query::read(text, now).map_err(|problem| problem.detail)
    }

    #[test]
    fn every_filter_is_read_and_times_may_be_ages() {
        let query = read("queue=shop%2Fa%2Fb&part=dead&reason=Exhausted&key=k+1&status=503&before=15m&since=1970-01-01T00:00:01Z&limit=5000&rate=1e9").unwrap();
        assert_eq!(query.queue.as_deref(), Some("shop/a/b"));
        let filter = Filter {
            reason: Some(Reason::Exhausted),
            key: Some("k 1".to_owned()),
            status: Some(503),
            before: Some(Timestamp(999_100_000)),
            since: Some(Timestamp(1000)),
        };
        assert_eq!((query.part, query.filter), (Part::Dead, filter));
        assert_eq!((query.limit, query.rate), (limits::PEEK_MAX, Some(limits::REDRIVE_PER_SECOND_MAX)));
    }

    #[test]
    fn what_is_not_understood_is_refused_rather_than_left_out() {
        for wrong in [
            "reason=Old",
            "status=abc",
            "before=soon",
            "part=all",
            "rate=-1",
            "rate=NaN",
            "stat=5",
            "since=-5m",
        ] {
            let said = read(wrong).unwrap_err();
            assert!(said.contains(wrong.split('=').next().unwrap()), "{said}");
        }
    }
}
