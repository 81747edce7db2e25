//! document: one file cut into documents, each read on its own.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use policy::limits;
use serde_json::Value;

use crate::node::Node;
use crate::object::Object;
use crate::problem::{Fault, Problem};

/// An object and where it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Located<T> {
    /// The object.
    pub value: T,
    /// The file.
    pub file: Arc<str>,
    /// The line its document begins on, counted from 1; 0 where the object stands in no file.
    pub line: usize,
}

impl<T> Located<T> {
    /// Where it stands, `mesh.yaml:3`; without lines, `kubernetes`.
    pub(crate) fn place(&self) -> Place<'_> {
        Place(&self.file, self.line)
    }
}

/// A file and a line, as they are told.
pub(crate) struct Place<'a>(pub(crate) &'a str, pub(crate) usize);

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(file, 0) => f.write_str(file),
            Self(file, line) => write!(f, "{file}:{line}"),
        }
    }
}

/// Reads every document of a file: the objects that are right, and what is wrong with the others.
///
/// Kinds that are none of ours (Deployment, ConfigMap, ...) are skipped silently. `kind: List` is
/// read item by item. A name that stands twice is not looked for here, see
/// [`validate_all`](crate::validate_all).
#[must_use]
pub fn parse_file(path: &str, text: &str) -> (Vec<Located<Object>>, Vec<Problem>) {
    let mut reader = Reader { file: path.into(), objects: Vec::new(), problems: Vec::new() };
    if text.len() as u64 > limits::MANIFEST_BYTES_MAX {
        let message = format!(
            "the file has {} bytes, {} are allowed: split it",
            text.len(),
            limits::MANIFEST_BYTES_MAX
        );
        reader.problem(1, String::new(), Fault::new("", message));
        return (reader.objects, reader.problems);
    }
    for (line, document) in split(text) {
        reader.document(line, &document);
    }
    (reader.objects, reader.problems)
}

/// The documents of a file with the line each begins on; empty ones are left out. Lines in front of
/// a document's first word are kept out of it, so that the line is that word's.
pub(crate) fn split(text: &str) -> Vec<(usize, String)> {
    let mut documents = Vec::new();
    let mut current: Option<(usize, String)> = None;
    for (i, line) in text.lines().enumerate() {
        let marker =
            line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t']));
        if marker || line == "..." {
            documents.extend(current.take());
            let rest = line.trim_start_matches(['-', '.']).trim();
            if !rest.is_empty() && !rest.starts_with('#') {
                current = Some((i + 1, format!("{rest}\n")));
            }
        } else if let Some((_, document)) = &mut current {
            document.push_str(line);
            document.push('\n');
        } else if !line.trim().is_empty() && !line.trim_start().starts_with(['#', '%']) {
            current = Some((i + 1, format!("{line}\n")));
        }
    }
    documents.extend(current);
    documents
}

struct Reader {
    file: Arc<str>,
    objects: Vec<Located<Object>>,
    problems: Vec<Problem>,
}

impl Reader {
    fn problem(&mut self, line: usize, object: String, fault: Fault) {
        self.problems.push(problem((&self.file, line), object, fault));
    }

    fn document(&mut self, line: usize, text: &str) {
        match serde_saphyr::from_str::<Value>(text) {
            Ok(Value::Null) => {}
            Ok(value) => self.value(line, &value),
            Err(error) => {
                let within = error.location().map_or(0, |at| usize::try_from(at.line()).unwrap_or(0));
                let message = error.without_snippet().to_string();
                let first = message.lines().next().unwrap_or_default();
                // What is said of a Secret may quote it.
                let is_secret = text.contains("Secret") || text.contains("whsec_");
                let what = if is_secret {
                    "what is wrong is not told, for it may quote the secret"
                } else {
                    strip_location(first)
                };
                let message = format!("this document is not YAML: {what}");
                self.problem(line + within.saturating_sub(1), name_in_text(text), Fault::new("", message));
            }
        }
    }

    fn value(&mut self, line: usize, value: &Value) {
        let list = value.get("kind").and_then(Value::as_str) == Some("List");
        match value.get("items").and_then(Value::as_array) {
            Some(items) if list => items.iter().for_each(|item| self.object(line, item)),
            _ => self.object(line, value),
        }
    }

    fn object(&mut self, line: usize, value: &Value) {
        match read_at((&self.file, line), value) {
            Ok(None) => {}
            Ok(Some(object)) => self.objects.push(object),
            Err(problem) => self.problems.push(problem),
        }
    }
}

/// Reads one object that stands in no file: `place` says where, in the place of one. `None` for kinds
/// that are none of ours.
///
/// # Errors
/// What is wrong with it, as [`parse_file`] tells.
pub fn read_object(place: &Arc<str>, value: &Value) -> Result<Option<Located<Object>>, Problem> {
    read_at((place, 0), value)
}

fn read_at((file, line): (&Arc<str>, usize), value: &Value) -> Result<Option<Located<Object>>, Problem> {
    match Object::read(&Node::root(value)) {
        Ok(read) => Ok(read.map(|value| Located { value, file: file.clone(), line })),
        Err(fault) => Err(problem((file, line), name_in_value(value), fault)),
    }
}

fn problem((file, line): (&Arc<str>, usize), object: String, fault: Fault) -> Problem {
    let field = (!fault.field.is_empty()).then_some(fault.field);
    Problem { file: file.clone(), line, object, field, message: fault.message }
}

/// `kind namespace/name` as far as a document that is wrong still says it, in the spelling of
/// [`ObjectId`](crate::ObjectId).
fn name_in_value(value: &Value) -> String {
    let text = |node: Option<&Value>| node.and_then(Value::as_str).unwrap_or_default().to_owned();
    let meta = value.get("metadata");
    spell(
        &text(value.get("kind")),
        &text(meta.and_then(|meta| meta.get("namespace"))),
        &text(meta.and_then(|meta| meta.get("name"))),
    )
}

/// The same from text that is not even YAML: block style as people write it.
fn name_in_text(text: &str) -> String {
    let field = |prefix: &str| {
        let found = text.lines().find_map(|line| line.strip_prefix(prefix)).unwrap_or_default();
        found.split('#').next().unwrap_or_default().trim().trim_matches(['"', '\'']).to_owned()
    };
    spell(&field("kind:"), &field("  namespace:"), &field("  name:"))
}

fn spell(kind: &str, namespace: &str, name: &str) -> String {
    let cluster_wide: BTreeSet<&str> = ["Namespace", "MeshTrust"].into();
    match (kind, namespace, name) {
        (kind, _, "") => kind.to_owned(),
        (kind, _, name) if cluster_wide.contains(kind) => format!("{kind} {name}"),
        (kind, "", name) => format!("{kind} default/{name}"),
        (kind, namespace, name) => format!("{kind} {namespace}/{name}"),
    }
}

/// The parser counts lines from the document's first; ours are the file's.
fn strip_location(message: &str) -> &str {
    match message.find(" at line ") {
        Some(at) => &message[..at],
        None => {
            message.split_once(": ").filter(|(head, _)| head.starts_with("line ")).map_or(message, |(_, m)| m)
        }
    }
}
