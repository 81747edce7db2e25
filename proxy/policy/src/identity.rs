//! identity: who a workload is, in the two spellings its certificate carries.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{Domain, Label, NameError};

/// Why a text is not an identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not `spiffe://TRUSTDOMAIN/ns/NS/sa/SA`.
    #[error("{0:?} is not an identity of the form spiffe://TRUSTDOMAIN/ns/NAMESPACE/sa/SERVICEACCOUNT")]
    Form(String),
    /// A part of it is not a name.
    #[error("a part of the identity is not a name")]
    Name(#[from] NameError),
}

const DNS_MIDDLE: &str = ".serviceaccount.identity.linkerd.";

/// The identity of a workload: its service account in a namespace of a trust domain.
///
/// Printed as its SPIFFE ID (<https://spiffe.io>, SPIFFE-ID §2). In certificates and SNI it also
/// stands as the DNS name that Linkerd's proxies use, see [`Identity::dns_name`].
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Identity {
    /// The trust domain, such as `cluster.local`.
    pub trust_domain: Domain,
    /// The namespace.
    pub namespace: Label,
    /// The service account.
    pub service_account: Domain,
}

impl Identity {
    /// The DNS spelling: `SA.NS.serviceaccount.identity.linkerd.TRUSTDOMAIN`.
    #[must_use]
    pub fn dns_name(&self) -> String {
        format!("{}.{}{DNS_MIDDLE}{}", self.service_account, self.namespace, self.trust_domain)
    }

    /// The SPIFFE spelling: `spiffe://TRUSTDOMAIN/ns/NS/sa/SA`.
    #[must_use]
    pub fn spiffe_id(&self) -> String {
        self.to_string()
    }

    /// Reads the DNS spelling.
    ///
    /// # Errors
    /// [`IdentityError`] when `text` is not of that form.
    pub fn from_dns_name(text: &str) -> Result<Self, IdentityError> {
        let wrong = || IdentityError::Form(text.to_owned());
        let (account, trust_domain) = text.split_once(DNS_MIDDLE).ok_or_else(wrong)?;
        let (service_account, namespace) = account.rsplit_once('.').ok_or_else(wrong)?;
        Ok(Self {
            trust_domain: Domain::new(trust_domain)?,
            namespace: Label::new(namespace)?,
            service_account: Domain::new(service_account)?,
        })
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.service_account)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let mut parts = text.strip_prefix("spiffe://").unwrap_or("").split('/');
        match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(trust_domain), Some("ns"), Some(namespace), Some("sa"), Some(account), None) => Ok(Self {
                trust_domain: Domain::new(trust_domain)?,
                namespace: Label::new(namespace)?,
                service_account: Domain::new(account)?,
            }),
            _ => Err(IdentityError::Form(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Identity {
    type Error = IdentityError;
    fn try_from(text: String) -> Result<Self, IdentityError> {
        text.parse()
    }
}

impl From<Identity> for String {
    fn from(identity: Identity) -> String {
        identity.to_string()
    }
}

/// Identities an access rule names: one exactly, or all below a prefix (`spiffe://d/ns/edge/sa/*`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum IdentityPattern {
    /// Any identity that the anchors vouch for: `*`.
    Any,
    /// This one.
    Exact(Identity),
    /// All whose SPIFFE ID begins so; ends with `/`, so that a name is never cut in the middle.
    Prefix(String),
}

impl IdentityPattern {
    /// Whether `identity` is one of those meant.
    #[must_use]
    pub fn matches(&self, identity: &Identity) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => exact == identity,
            Self::Prefix(prefix) => identity.to_string().starts_with(prefix.as_str()),
        }
    }
}

impl FromStr for IdentityPattern {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<Self, IdentityError> {
        match text.strip_suffix('*') {
            Some("") => Ok(Self::Any),
            Some(prefix)
                if prefix.starts_with("spiffe://")
                    && prefix.len() > 9
                    && prefix.ends_with('/')
                    && !prefix.contains('*') =>
            {
                Ok(Self::Prefix(prefix.to_owned()))
            }
            Some(_) => Err(IdentityError::Form(text.to_owned())),
            None => text.parse().map(Self::Exact),
        }
    }
}

impl TryFrom<String> for IdentityPattern {
    type Error = IdentityError;
    fn try_from(text: String) -> Result<Self, IdentityError> {
        text.parse()
    }
}

impl From<IdentityPattern> for String {
    fn from(pattern: IdentityPattern) -> String {
        match pattern {
            IdentityPattern::Any => "*".to_owned(),
            IdentityPattern::Exact(identity) => identity.to_string(),
            IdentityPattern::Prefix(prefix) => prefix + "*",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_name_the_same_workload() {
        let id: Identity = "spiffe://cluster.local/ns/shop/sa/orders".parse().unwrap();
        assert_eq!(id.dns_name(), "orders.shop.serviceaccount.identity.linkerd.cluster.local");
        assert_eq!(Identity::from_dns_name(&id.dns_name()).unwrap(), id);
    }

    #[test]
    fn a_service_account_may_hold_dots_and_still_reads_back() {
        let id: Identity = "spiffe://a.b/ns/shop/sa/orders.v2".parse().unwrap();
        assert_eq!(Identity::from_dns_name(&id.dns_name()).unwrap(), id);
    }

    #[test]
    fn what_is_not_an_identity_is_refused() {
        for bad in [
            "",
            "spiffe://",
            "spiffe://d/ns/a/sa",
            "spiffe://d/ns/a/sa/b/c",
            "https://d/ns/a/sa/b",
            "spiffe://d/ns/A/sa/b",
        ] {
            assert!(bad.parse::<Identity>().is_err(), "{bad:?} passed");
        }
    }

    #[test]
    fn a_prefix_ends_at_a_slash_so_that_web_does_not_let_website_in() {
        assert!("spiffe://d/ns/edge/sa/web*".parse::<IdentityPattern>().is_err());
        let edge: IdentityPattern = "spiffe://d/ns/edge/sa/*".parse().unwrap();
        assert!(edge.matches(&"spiffe://d/ns/edge/sa/web".parse().unwrap()));
        assert!(!edge.matches(&"spiffe://d/ns/edge2/sa/web".parse().unwrap()));
    }
}
