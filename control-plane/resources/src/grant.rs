//! grant: ReferenceGrant of the Gateway API.

use crate::node::{Node, Read};
use crate::object::Meta;

/// Leave for objects of other namespaces to refer to objects of this one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReferenceGrant {
    /// The name; its namespace is the one that is referred into.
    pub meta: Meta,
    /// Who may: kind and namespace.
    pub from: Vec<(String, String)>,
    /// To what: kind and, where only one is meant, its name.
    pub to: Vec<(String, Option<String>)>,
}

impl ReferenceGrant {
    pub(crate) fn read(root: &Node<'_>) -> Read<Self> {
        let spec = root.need("spec")?;
        let from = spec.each("from", |node| {
            Ok((node.need("kind")?.text()?.to_owned(), node.need("namespace")?.text()?.to_owned()))
        })?;
        let to =
            spec.each("to", |node| Ok((node.need("kind")?.text()?.to_owned(), node.text_of("name")?)))?;
        Ok(Self { meta: Meta::read(root)?, from, to })
    }

    /// Whether it lets a `kind` of namespace `from` refer to Service `name` of `namespace`.
    #[must_use]
    pub fn lets(&self, kind: &str, from: &str, (namespace, name): (&str, &str)) -> bool {
        self.meta.namespace.as_str() == namespace
            && self.from.iter().any(|(k, namespace)| k == kind && namespace == from)
            && self
                .to
                .iter()
                .any(|(kind, only)| kind == "Service" && only.as_ref().is_none_or(|only| only == name))
    }
}
