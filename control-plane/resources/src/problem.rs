//! problem: what is wrong with one object, where, and what helps.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::document::Place;

/// What is wrong with one object.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Problem {
    /// The file.
    pub file: Arc<str>,
    /// The line on which the object's document begins, or the error stands; counted from 1;
    /// 0 where there is no file.
    pub line: usize,
    /// The object, `HTTPRoute shop/orders`; empty when the document does not say.
    pub object: String,
    /// The field, `spec.rules[0].filters[1]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What is wrong, and what helps where something does.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", Place(&self.file, self.line))?;
        if !self.object.is_empty() {
            write!(f, "{}: ", self.object)?;
        }
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.message)
    }
}

/// A [`Problem`] that does not know its file yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The field; empty for the whole object.
    pub(crate) field: String,
    /// What is wrong.
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }

    pub(crate) fn not_implemented(field: impl Into<String>, what: &str) -> Self {
        Self::new(field, format!("{what} is not implemented yet: remove it"))
    }
}
