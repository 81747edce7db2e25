//! filter: which messages of a queue are meant.

use clap::{Args, ValueEnum};

/// Fields a message is chosen by.
const FIELDS: [&str; 5] = ["reason", "key", "status", "before", "since"];

/// Which messages.
#[derive(Debug, Clone, Default, Args)]
pub(super) struct Filter {
    /// Only messages for which this holds; several must hold together. reason=Exhausted (or
    /// NonRetryable, Expired, Gone, Misconfigured, Damaged), key=ORDERING-KEY, status=503 (of the last
    /// attempt), before=TIME, since=TIME (of acceptance: 2026-11-05T14:00:00Z, or how long ago: 15m).
    #[arg(long = "filter", value_name = "FIELD=VALUE", value_parser = field)]
    fields: Vec<(&'static str, String)>,
}

/// Which part of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// What is to be delivered.
    Waiting,
    /// The dead letters.
    Dead,
    /// What is damaged on disk.
    Quarantined,
}

impl Part {
    /// The word of the query.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Dead => "dead",
            Self::Quarantined => "quarantined",
        }
    }
}

fn field(text: &str) -> Result<(&'static str, String), String> {
    let known =
        || format!("one of {} is expected, as in status=503", FIELDS.map(|f| format!("{f}=")).join(", "));
    let (name, value) = text.split_once('=').ok_or_else(known)?;
    let field = FIELDS.into_iter().find(|field| *field == name.trim()).ok_or_else(known)?;
    if value.trim().is_empty() {
        return Err(format!("{field}= needs a value"));
    }
    Ok((field, value.trim().to_owned()))
}

impl Filter {
    /// Every message is meant.
    pub(super) fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The filter as parts of a query.
    pub(super) fn query(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(field, value)| (*field, value.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_that_nobody_knows_is_refused_with_those_that_are() {
        assert_eq!(field("status=503"), Ok(("status", "503".to_owned())));
        assert_eq!(field("key=a=b"), Ok(("key", "a=b".to_owned())));
        assert!(field("state=Queued").unwrap_err().contains("reason=, key=, status=, before=, since="));
        assert!(field("status").is_err());
        assert_eq!(field("key= "), Err("key= needs a value".to_owned()));
    }
}
