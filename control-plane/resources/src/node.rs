//! node: one value in a document, and where it stands.
//!
//! Objects are read by hand through this rather than by serde's derive, so that every fault names
//! its field from the top (`spec.rules[0].from[1].network`).

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use policy::limits;
use policy::name::Label;
use serde_json::{Map, Value};

use crate::duration::{parse_duration, parse_iso_or_go, print_go, print_iso};
use crate::form::Form;
use crate::problem::Fault;
use crate::quantity::{parse_bytes, print_bytes};

/// One value and the path to it.
#[derive(Debug, Clone)]
pub(crate) struct Node<'a> {
    pub(crate) path: String,
    pub(crate) value: &'a Value,
}

/// The numbers of ports.
pub(crate) const PORT: RangeInclusive<u64> = 1..=65_535;

pub(crate) type Read<T> = Result<T, Fault>;

impl<'a> Node<'a> {
    pub(crate) fn root(value: &'a Value) -> Self {
        Self { path: String::new(), value }
    }

    pub(crate) fn fault(&self, message: impl Into<String>) -> Fault {
        Fault::new(self.path.clone(), message)
    }

    fn expected(&self, what: &str) -> Fault {
        let found = match self.value {
            Value::Null => "nothing".to_owned(),
            Value::Bool(value) => format!("{value} (a boolean: put it in quotes if text is meant)"),
            Value::Number(value) => format!("the number {value}"),
            Value::String(value) if value.starts_with("whsec_") => "a secret".to_owned(),
            Value::String(value) => format!("{value:?}"),
            Value::Array(_) => "a list".to_owned(),
            Value::Object(_) => "a map".to_owned(),
        };
        self.fault(format!("{what} is expected here, not {found}"))
    }

    fn child_path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }

    /// The field `key`; `None` when it is absent or null.
    pub(crate) fn get(&self, key: &str) -> Read<Option<Node<'a>>> {
        Ok(match self.fields()?.get(key) {
            None | Some(Value::Null) => None,
            Some(value) => Some(Node { path: self.child_path(key), value }),
        })
    }

    /// The field `key`, which must be there.
    pub(crate) fn need(&self, key: &str) -> Read<Node<'a>> {
        self.get(key)?.ok_or_else(|| Fault::new(self.child_path(key), "is missing"))
    }

    pub(crate) fn fields(&self) -> Read<&'a Map<String, Value>> {
        self.value.as_object().ok_or_else(|| self.expected("a map"))
    }

    /// Every field of a map.
    pub(crate) fn entries(&self) -> Read<Vec<(&'a str, Node<'a>)>> {
        let entry = |(key, value): (&'a String, &'a Value)| {
            (key.as_str(), Node { path: self.child_path(key), value })
        };
        Ok(self.fields()?.iter().map(entry).collect())
    }

    /// Every field of a map that has so many at most.
    pub(crate) fn entries_in(&self, most: usize) -> Read<Vec<(&'a str, Node<'a>)>> {
        match self.fields()?.len() {
            length if length > most => Err(self.fault(format!("has {length} entries, {most} are allowed"))),
            _ => self.entries(),
        }
    }

    pub(crate) fn list(&self) -> Read<Vec<Node<'a>>> {
        let items = self.value.as_array().ok_or_else(|| self.expected("a list"))?;
        let item = |(i, value)| Node { path: format!("{}[{i}]", self.path), value };
        Ok(items.iter().enumerate().map(item).collect())
    }

    /// The items of the list `key`; none when it is absent.
    pub(crate) fn items(&self, key: &str) -> Read<Vec<Node<'a>>> {
        self.get(key)?.map_or_else(|| Ok(Vec::new()), |node| node.list())
    }

    /// The items of a list that has so many.
    pub(crate) fn list_in(&self, allowed: RangeInclusive<usize>) -> Read<Vec<Node<'a>>> {
        let items = self.list()?;
        match items.len() {
            length if allowed.contains(&length) => Ok(items),
            0 => Err(self.fault("is empty: name one, or remove it")),
            length => Err(self.fault(format!("has {length} entries, {} are allowed", allowed.end()))),
        }
    }

    /// The items of the list `key`, at most so many; none when it is absent.
    pub(crate) fn items_in(&self, key: &str, most: usize) -> Read<Vec<Node<'a>>> {
        self.get(key)?.map_or_else(|| Ok(Vec::new()), |node| node.list_in(0..=most))
    }

    /// The items of the list `key`, each read by `read`.
    pub(crate) fn each<T>(&self, key: &str, read: impl Fn(&Node<'a>) -> Read<T>) -> Read<Vec<T>> {
        self.items(key)?.iter().map(read).collect()
    }

    pub(crate) fn text(&self) -> Read<&'a str> {
        self.value.as_str().ok_or_else(|| self.expected("text"))
    }

    pub(crate) fn flag(&self) -> Read<bool> {
        self.value.as_bool().ok_or_else(|| self.expected("true or false"))
    }

    pub(crate) fn number(&self) -> Read<u64> {
        self.value.as_u64().ok_or_else(|| self.expected("a whole number of 0 or more"))
    }

    /// A whole number of `allowed`.
    pub(crate) fn number_in<T: TryFrom<u64>>(&self, allowed: RangeInclusive<u64>) -> Read<T> {
        let number = self.number()?;
        let fits = if allowed.contains(&number) { T::try_from(number).ok() } else { None };
        let (least, most) = allowed.into_inner();
        fits.ok_or_else(|| self.fault(format!("{number} is out of range: {least} to {most} is allowed")))
    }

    pub(crate) fn port(&self) -> Read<u16> {
        self.number_in(PORT)
    }

    /// Text that is parsed by its type.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&self) -> Read<T> {
        self.text()?.parse().map_err(|error: T::Err| self.fault(error.to_string()))
    }

    pub(crate) fn duration(&self) -> Read<Duration> {
        parse_duration(self.text()?).map_err(|error| self.fault(error.to_string()))
    }

    /// A duration of the Gateway API, of `allowed`.
    pub(crate) fn gateway_duration_in(&self, allowed: RangeInclusive<Duration>) -> Read<Duration> {
        let duration = self.duration()?;
        if allowed.contains(&duration) {
            return Ok(duration);
        }
        let (least, most) = allowed.into_inner();
        Err(self.fault(format!("is out of range: {} to {} is allowed", print_go(least), print_go(most))))
    }

    /// A duration of ISO 8601 or Go, of `allowed`.
    pub(crate) fn duration_in(&self, allowed: RangeInclusive<Duration>) -> Read<Duration> {
        let text = self.text_within(limits::DURATION_CHARS_MAX)?;
        let (least, most) = (print_iso(*allowed.start()), print_iso(*allowed.end()));
        let wrong = |error| self.fault(format!("{error}; {least} to {most} is allowed"));
        let duration = parse_iso_or_go(text).map_err(wrong)?;
        if allowed.contains(&duration) {
            return Ok(duration);
        }
        let duration = print_iso(duration);
        Err(self.fault(format!("{duration} is out of range: {least} to {most} is allowed")))
    }

    /// A number of bytes of `allowed`: `256Mi`, or a plain number.
    pub(crate) fn bytes_in(&self, allowed: RangeInclusive<u64>) -> Read<u64> {
        let bytes = match self.value.as_u64() {
            Some(bytes) => bytes,
            None => parse_bytes(self.text()?).map_err(|error| self.fault(error.to_string()))?,
        };
        if allowed.contains(&bytes) {
            return Ok(bytes);
        }
        let (least, most) = allowed.into_inner();
        let (bytes, least, most) = (print_bytes(bytes), print_bytes(least), print_bytes(most));
        Err(self.fault(format!("{bytes} is out of range: {least} to {most} is allowed")))
    }

    /// Text that has this form.
    pub(crate) fn formed(&self, form: &Form) -> Read<&'a str> {
        let text = self.text_within(form.chars_max)?;
        if form.holds(text) { Ok(text) } else { Err(self.fault(format!("{text:?} {}", form.wrong))) }
    }

    /// Text of so many characters at most.
    pub(crate) fn text_within(&self, chars_max: usize) -> Read<&'a str> {
        let text = self.text()?;
        match text.chars().count() {
            chars if chars > chars_max => {
                Err(self.fault(format!("has {chars} characters, {chars_max} are allowed")))
            }
            _ => Ok(text),
        }
    }

    /// One of `known`, by its name; those of `later` are refused as not implemented.
    pub(crate) fn one_of<T: Copy>(&self, known: &[(&str, T)], later: &[&str]) -> Read<T> {
        let text = self.text()?;
        if let Some((_, value)) = known.iter().find(|(name, _)| *name == text) {
            return Ok(*value);
        }
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        let (names, last) = names.split_at(names.len().saturating_sub(1));
        let write = match names {
            [] => last.concat(),
            names => format!("{} or {}", names.join(", "), last.concat()),
        };
        let what = if later.contains(&text) {
            format!("{text} is not implemented yet")
        } else {
            format!("{text:?} is not known")
        };
        Err(self.fault(format!("{what}: write {write}")))
    }

    /// The field `key` as one of `known`, its default where it is absent.
    pub(crate) fn one_or<T: Copy + Default>(
        &self,
        key: &str,
        known: &[(&str, T)],
        later: &[&str],
    ) -> Read<T> {
        self.get(key)?.map_or_else(|| Ok(T::default()), |node| node.one_of(known, later))
    }

    /// A map of text to text; absent is empty.
    pub(crate) fn text_map(&self, key: &str) -> Read<BTreeMap<String, String>> {
        let Some(node) = self.get(key)? else { return Ok(BTreeMap::new()) };
        node.entries()?.into_iter().map(|(key, node)| Ok((key.to_owned(), node.text()?.to_owned()))).collect()
    }

    /// The text of field `key`, if it is there.
    pub(crate) fn text_of(&self, key: &str) -> Read<Option<String>> {
        self.get(key)?.map(|node| node.text().map(str::to_owned)).transpose()
    }

    /// The text of field `key`, or `default`.
    pub(crate) fn text_or(&self, key: &str, default: &str) -> Read<String> {
        Ok(self.text_of(key)?.unwrap_or_else(|| default.to_owned()))
    }

    /// The label of field `key`, if it is there.
    pub(crate) fn label_of(&self, key: &str) -> Read<Option<Label>> {
        self.get(key)?.map(|node| node.parsed()).transpose()
    }

    /// The port of field `key`, if it is there.
    pub(crate) fn port_of(&self, key: &str) -> Read<Option<u16>> {
        self.get(key)?.map(|node| node.port()).transpose()
    }

    /// Refuses fields that are not among `known`; those of `later` are refused as not implemented.
    pub(crate) fn only(&self, known: &[&str], later: &[(&str, &str)]) -> Read<()> {
        for key in self.fields()?.keys() {
            let path = self.child_path(key);
            if let Some((_, what)) = later.iter().find(|(name, _)| name == key) {
                return Err(Fault::not_implemented(path, what));
            }
            if !known.contains(&key.as_str()) {
                let known = known.join(", ");
                return Err(Fault::new(path, format!("is no field here; known are {known}")));
            }
        }
        Ok(())
    }
}
