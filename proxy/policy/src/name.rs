//! name: the names of namespaces, Services and ports, checked once where they enter.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Why a text is not the name it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a DNS label (RFC 1123): 1 to 63 of `a-z`, `0-9`, `-`, no dash at either end.
    #[error(
        "{0:?} is not a DNS label: 1 to 63 characters of a-z, 0-9 and '-', not beginning or ending with '-'"
    )]
    Label(String),
    /// Not a DNS name of at most 253 characters.
    #[error("{0:?} is not a DNS name: labels of a-z, 0-9 and '-' separated by dots, 253 characters at most")]
    Domain(String),
    /// Not `NAME.NAMESPACE.svc:PORT`.
    #[error("{0:?} is not a Service port of the form NAME.NAMESPACE.svc:PORT")]
    ServicePort(String),
    /// Not a port number from 1 to 65535.
    #[error("{0:?} is not a port: a number from 1 to 65535")]
    Port(String),
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    (1..=63).contains(&bytes.len())
        && bytes[0] != b'-'
        && bytes[bytes.len() - 1] != b'-'
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
}

/// One DNS label (RFC 1123 §2.1): a namespace, a Service, a service account's first part.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Label(Arc<str>);

impl Label {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`NameError::Label`] when it is not a DNS label.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if is_label(text) { Ok(Self(text.into())) } else { Err(NameError::Label(text.to_owned())) }
    }

    /// The label as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A DNS name of one or more labels: a trust domain, a cluster domain, a service account.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Domain(Arc<str>);

impl Domain {
    /// Checks `text`.
    ///
    /// # Errors
    /// [`NameError::Domain`] when it is not a DNS name.
    pub fn new(text: &str) -> Result<Self, NameError> {
        if text.len() <= 253 && text.split('.').all(is_label) {
            Ok(Self(text.into()))
        } else {
            Err(NameError::Domain(text.to_owned()))
        }
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! text_newtype {
    ($($t:ty: $new:path),*) => {$(
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { f.write_str(&self.0) }
        }
        impl fmt::Debug for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result { fmt::Debug::fmt(&*self.0, f) }
        }
        impl FromStr for $t {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> { $new(text) }
        }
        impl TryFrom<String> for $t {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> { $new(&text) }
        }
        impl From<$t> for String {
            fn from(name: $t) -> String { name.0.to_string() }
        }
        impl Borrow<str> for $t {
            fn borrow(&self) -> &str { &self.0 }
        }
    )*};
}
text_newtype!(Label: Label::new, Domain: Domain::new);

/// One port of one Service. Written `orders.shop.svc:8080`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ServicePort {
    /// The Service's namespace.
    pub namespace: Label,
    /// The Service's name.
    pub name: Label,
    /// The Service's port, 1 to 65535.
    pub port: u16,
}

impl ServicePort {
    /// Puts together what is checked already.
    ///
    /// # Errors
    /// [`NameError::Port`] for port 0.
    pub fn new(namespace: Label, name: Label, port: u16) -> Result<Self, NameError> {
        if port == 0 {
            return Err(NameError::Port("0".to_owned()));
        }
        Ok(Self { namespace, name, port })
    }
}

impl fmt::Display for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.svc:{}", self.name, self.namespace, self.port)
    }
}

impl fmt::Debug for ServicePort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl FromStr for ServicePort {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        let wrong = || NameError::ServicePort(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let (name, namespace) =
            host.strip_suffix(".svc").and_then(|h| h.split_once('.')).ok_or_else(wrong)?;
        Self::new(Label::new(namespace)?, Label::new(name)?, parse_port(port)?)
    }
}

impl TryFrom<String> for ServicePort {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

impl From<ServicePort> for String {
    fn from(port: ServicePort) -> String {
        port.to_string()
    }
}

/// Reads a port.
///
/// # Errors
/// [`NameError::Port`] for anything but 1 to 65535.
pub fn parse_port(text: &str) -> Result<u16, NameError> {
    match text.parse() {
        Ok(port) if port != 0 => Ok(port),
        _ => Err(NameError::Port(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_checked_where_they_enter() {
        for good in ["a", "orders", "x-1", "0"] {
            assert_eq!(Label::new(good).unwrap().as_str(), good);
        }
        let long = "a".repeat(64);
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", long.as_str()] {
            assert!(Label::new(bad).is_err(), "{bad:?} passed");
        }
    }

    #[test]
    fn a_service_port_reads_what_it_prints() {
        let port: ServicePort = "orders.shop.svc:8080".parse().unwrap();
        assert_eq!((port.name.as_str(), port.namespace.as_str(), port.port), ("orders", "shop", 8080));
        assert_eq!(port.to_string().parse::<ServicePort>().unwrap(), port);
        for bad in
            ["orders.shop:80", "orders.svc:80", "orders.shop.svc:0", "orders.shop.svc:65536", "a.b.c.svc:1"]
        {
            assert!(bad.parse::<ServicePort>().is_err(), "{bad:?} passed");
        }
    }
}
