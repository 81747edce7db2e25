//! schema: OpenAPI v3 as the API server takes it for kinds of its own, put together like the reader.
//!
//! A kind's schema is made of the constants its reader uses: the same list of fields, the same table of
//! names, the same range, the same [`Form`]. What the reader refuses the API server then refuses too,
//! with two exceptions: unknown fields are refused by clients that validate strictly (`kubectl` does
//! unless told otherwise) and else pruned, and what no rule can say is left to the webhook.
//!
//! Schemas are structural: every field has a type, and what is checked of a value stands beside it.
//! Rules are CEL, whose worst case the API server bounds when a definition is applied; therefore every
//! text, list and map has a greatest length.

mod cel;

use std::ops::RangeInclusive;
use std::time::Duration;

use policy::limits;
use serde_json::{Map, Value, json};

use crate::duration::{print_go, print_iso};
use crate::form::Form;
use crate::node::PORT;
use crate::quantity::print_bytes;

pub(crate) use cel::{bytes_at_least, not_longer};

/// The schema of one value.
#[derive(Debug, Clone)]
pub(crate) struct Schema(Map<String, Value>);

impl Schema {
    fn of(kind: &str) -> Self {
        Self(Map::new()).with("type", kind)
    }

    fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.0.insert(key.to_owned(), value.into());
        self
    }

    /// A map with these fields, which are all that `known`, the reader's list, names.
    ///
    /// # Panics
    /// When the two differ, which shows whenever the definitions are made.
    pub(crate) fn object<const N: usize>(known: &[&str; N], fields: [(&str, Self); N]) -> Self {
        let properties: Map<String, Value> =
            fields.into_iter().map(|(name, schema)| (name.to_owned(), schema.value())).collect();
        assert!(
            properties.len() == N && known.iter().all(|name| properties.contains_key(*name)),
            "a schema has other fields than its reader: {known:?}"
        );
        Self::of("object").with("properties", properties)
    }

    /// A map with one field, whose reader knows no other.
    pub(crate) fn wrapper(name: &str, field: Self) -> Self {
        Self::of("object").with("properties", json!({name: field.value()})).need(&[name])
    }

    /// A map of text to `value` with so many entries at most.
    pub(crate) fn map(value: Self, most: usize) -> Self {
        Self::of("object").with("additionalProperties", value.value()).with("maxProperties", most)
    }

    /// A list of so many.
    pub(crate) fn list(item: Self, allowed: &RangeInclusive<usize>) -> Self {
        let list = Self::of("array").with("items", item.value()).with("maxItems", *allowed.end());
        // The whole list belongs to whoever writes it, as in the Gateway API's own policies.
        let list = list.with("x-kubernetes-list-type", "atomic");
        if *allowed.start() == 0 { list } else { list.with("minItems", *allowed.start()) }
    }

    /// A list without repetitions.
    pub(crate) fn set(item: Self, allowed: &RangeInclusive<usize>) -> Self {
        Self::list(item, allowed).with("x-kubernetes-list-type", "set")
    }

    /// Text of so many characters at most.
    pub(crate) fn text(chars_max: usize) -> Self {
        Self::of("string").with("maxLength", chars_max)
    }

    /// Text of this form.
    pub(crate) fn form(form: &Form) -> Self {
        Self::text(form.chars_max).with("pattern", form.pattern())
    }

    /// One of the names of a reader's table.
    pub(crate) fn one_of<T>(known: &[(&str, T)]) -> Self {
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).collect();
        Self::of("string").with("enum", names)
    }

    /// `true` or `false`.
    pub(crate) fn flag() -> Self {
        Self::of("boolean")
    }

    /// A whole number.
    pub(crate) fn number(allowed: &RangeInclusive<u64>) -> Self {
        let number = Self::of("integer").with("format", "int64");
        number.with("minimum", *allowed.start()).with("maximum", *allowed.end())
    }

    /// A number that need not be whole.
    pub(crate) fn fraction(allowed: &RangeInclusive<f64>) -> Self {
        let (least, most) = (*allowed.start(), *allowed.end());
        // The API server cuts a bound to a whole number where the value is one: 0 would not be below 0.0001.
        let number = Self::of("number").with("minimum", least).with("maximum", most);
        number.rule(&format!("self >= {least:?}"), &format!("write a number from {least} to {most}"))
    }

    /// A port's number.
    pub(crate) fn port() -> Self {
        Self::number(&PORT)
    }

    /// A whole number, or text of this form.
    pub(crate) fn number_or(allowed: &RangeInclusive<u64>, form: &Form) -> Self {
        let either = Self(Map::new()).with("x-kubernetes-int-or-string", true);
        let number = either.with("minimum", *allowed.start()).with("maximum", *allowed.end());
        number.with("maxLength", form.chars_max).with("pattern", form.pattern())
    }

    /// A number of bytes, with a unit or without.
    pub(crate) fn bytes(allowed: &RangeInclusive<u64>) -> Self {
        let (least, most) = (print_bytes(*allowed.start()), print_bytes(*allowed.end()));
        let message = format!(
            "write a number of bytes from {least} to {most}, as in \"256Mi\", with Ki, Mi, Gi, Ti, k, M, G, T or none"
        );
        let either = Self(Map::new()).with("x-kubernetes-int-or-string", true);
        either.with("maxLength", limits::QUANTITY_CHARS_MAX).rule(&cel::bytes_in(allowed), &message)
    }

    /// A duration of ISO 8601 or Go.
    pub(crate) fn duration(allowed: &RangeInclusive<Duration>) -> Self {
        let (least, most) = (print_iso(*allowed.start()), print_iso(*allowed.end()));
        let message = format!(
            "write a duration from {least} to {most}, as in \"PT30S\" (ISO 8601: weeks, days, hours, minutes, seconds) or \"30s\" (h, m, s, ms)"
        );
        Self::text(limits::DURATION_CHARS_MAX).rule(&cel::duration_in(allowed), &message)
    }

    /// A duration of the Gateway API (GEP-2257).
    pub(crate) fn gateway_duration(allowed: &RangeInclusive<Duration>) -> Self {
        let (least, most) = (print_go(*allowed.start()), print_go(*allowed.end()));
        let message = format!(
            "write a duration from {least} to {most}: whole numbers of at most 5 digits with h, m, s or ms, such as \"10s\" or \"1m30s\""
        );
        Self::text(limits::DURATION_CHARS_MAX).rule(&cel::gateway_duration_in(allowed), &message)
    }

    /// What `kubectl explain` says of it.
    pub(crate) fn says(self, description: &str) -> Self {
        self.with("description", description)
    }

    /// The fields it must have.
    pub(crate) fn need(self, fields: &[&str]) -> Self {
        self.with("required", fields.to_vec())
    }

    /// What holds where nothing is written.
    pub(crate) fn or(self, default: impl Into<Value>) -> Self {
        self.with("default", default)
    }

    /// What holds for its fields where it is not written itself.
    pub(crate) fn or_defaults(self) -> Self {
        self.or(json!({}))
    }

    /// A rule in CEL about `self`, and what to do when it does not hold.
    pub(crate) fn rule(mut self, rule: &str, message: &str) -> Self {
        let rules = self.0.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
        if let Some(rules) = rules.as_array_mut() {
            rules.push(json!({"rule": rule, "message": message}));
        }
        self
    }

    /// The same; what is wrong is told of the field at `path`, as in `.delivery.backoffMax`.
    pub(crate) fn rule_at(self, path: &str, rule: &str, message: &str) -> Self {
        let mut with = self.rule(rule, message);
        let last = with.0.get_mut("x-kubernetes-validations").and_then(Value::as_array_mut);
        if let Some(last) = last.and_then(|rules| rules.last_mut()) {
            last["fieldPath"] = path.into();
        }
        with
    }

    /// As the definition holds it.
    pub(crate) fn value(self) -> Value {
        Value::Object(self.0)
    }
}
