//! form: what a text of our own kinds must look like, one expression for the reader and the schema.

use std::sync::OnceLock;

use regex::Regex;

/// One DNS label (RFC 1123), as [`policy::name::Label`] checks it.
const LABEL_EXPRESSION: &str = "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?";

/// A form that texts have. The expression is written in what RE2 (Go, CEL) and `regex` read alike.
#[derive(Debug)]
pub(crate) struct Form {
    /// Over the whole text.
    expression: &'static str,
    /// Characters of the text.
    pub(crate) chars_max: usize,
    /// What a text that has another form is not, and what helps.
    pub(crate) wrong: &'static str,
    compiled: OnceLock<Option<Regex>>,
}

impl Form {
    pub(crate) const fn new(expression: &'static str, chars_max: usize, wrong: &'static str) -> Self {
        Self { expression, chars_max, wrong, compiled: OnceLock::new() }
    }

    /// The expression over the whole text.
    pub(crate) fn pattern(&self) -> String {
        format!("^(?:{})$", self.expression)
    }

    /// Whether `text` has the form, its length apart.
    pub(crate) fn holds(&self, text: &str) -> bool {
        let compiled = self.compiled.get_or_init(|| Regex::new(&self.pattern()).ok());
        compiled.as_ref().is_some_and(|expression| expression.is_match(text))
    }
}

/// One DNS label: a Service, a namespace.
pub(crate) static LABEL: Form = Form::new(LABEL_EXPRESSION, 63, "is not a DNS label");
/// A DNS name: a route, a service account, a Secret.
pub(crate) static DOMAIN: Form = Form::new(
    "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*",
    253,
    "is not a DNS name",
);
/// A name of a part, of a rule or a port of a Gateway API object.
pub(crate) static SECTION: Form = Form::new(
    "[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?([.][a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*",
    253,
    "is not the name of a rule: lower-case letters, digits, '-' and '.'",
);
/// A label's name in Kubernetes, with its prefix.
pub(crate) static LABEL_KEY: Form = Form::new(
    "([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?",
    317,
    "is not a label's name, as in \"app\" or \"app.kubernetes.io/name\"",
);
/// A label's value in Kubernetes.
pub(crate) static LABEL_VALUE: Form = Form::new(
    "([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?",
    63,
    "is not a label's value: letters, digits, '-', '_' and '.', at most 63",
);
/// A container port: its number as text, or its name (IANA service name, RFC 6335 §5.1).
pub(crate) static PORT_NAME: Form = Form::new(
    "[0-9]{1,5}|[a-z0-9]([a-z0-9-]*[a-z0-9])?",
    15,
    "is neither a port nor a port's name: at most 15 lower-case letters, digits and '-'",
);
/// A method that a message can have.
pub(crate) static METHOD: Form =
    Form::new("[A-Z_-]+", 32, "is not a method: upper-case letters, as in \"POST\"");
/// The key of an order or a rate: the header whose value it is (RFC 9110 §5.6.2, token).
pub(crate) static HEADER_KEY: Form = Form::new(
    "header:[A-Za-z0-9!#$%&'*+.^_`|~-]+",
    policy::limits::HEADER_KEY_CHARS_MAX,
    "is not known: write \"header:NAME\"",
);
/// What a rate is bounded by.
pub(crate) static RATE_KEY: Form = Form::new(
    "destination|header:[A-Za-z0-9!#$%&'*+.^_`|~-]+",
    policy::limits::HEADER_KEY_CHARS_MAX,
    "is not known: write destination or \"header:NAME\"",
);
/// A host that callbacks may go to.
pub(crate) static HOST: Form = Form::new(
    "([*][.])?[A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?([.][A-Za-z0-9]([-A-Za-z0-9]{0,61}[A-Za-z0-9])?)*",
    255,
    "is not a DNS name; \"*.\" may stand in front",
);
/// A path with its query (RFC 3986 §4.2, a relative reference from the root).
pub(crate) static PATH: Form = Form::new(
    "/([A-Za-z0-9._~%!$&'()*+,;=:@?-][A-Za-z0-9._~%!$&'()*+,;=:@/?-]*)?",
    policy::limits::MESSAGE_KEY_BYTES_MAX,
    "is no path: name the Service under ref, and write a path of it, as in \"/dead-letters\"",
);
/// Whom an access rule lets in, as [`policy::identity::IdentityPattern`] checks it.
pub(crate) static IDENTITY: Form = Form::new(
    "[*]|spiffe://[^*]*/[*]|spiffe://[a-z0-9.-]+/ns/[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?/sa/[a-z0-9.-]+",
    586,
    "is not an identity of the form spiffe://TRUSTDOMAIN/ns/NAMESPACE/sa/SERVICEACCOUNT",
);

#[cfg(test)]
mod tests {
    use policy::identity::IdentityPattern;
    use policy::name::{Domain, Label};

    use super::*;

    #[test]
    fn every_form_is_an_expression() {
        for form in [
            &LABEL,
            &DOMAIN,
            &SECTION,
            &LABEL_KEY,
            &LABEL_VALUE,
            &PORT_NAME,
            &METHOD,
            &HEADER_KEY,
            &RATE_KEY,
            &HOST,
            &PATH,
            &IDENTITY,
        ] {
            assert!(Regex::new(&form.pattern()).is_ok(), "{form:?}");
        }
    }

    #[test]
    fn names_have_the_form_that_their_types_check() {
        let long = "a".repeat(63);
        let longer = "a".repeat(64);
        for text in
            ["a", "a-1", "0", &long, &longer, "", "-a", "a-", "A", "a_b", "a.b", "a..b", ".a", "a.b-c.d"]
        {
            assert_eq!(LABEL.holds(text), Label::new(text).is_ok(), "{text:?}");
            assert_eq!(DOMAIN.holds(text), Domain::new(text).is_ok(), "{text:?}");
        }
        for text in [
            "*",
            "spiffe://d/ns/edge/sa/*",
            "spiffe://d/*",
            "spiffe://a.b/ns/shop/sa/orders.v2",
            "",
            "web",
            "spiffe://d/ns/edge/sa/web*",
            "spiffe://d/ns/A/sa/b",
            "spiffe://d/ns/a/sa/b/c",
        ] {
            assert_eq!(IDENTITY.holds(text), text.parse::<IdentityPattern>().is_ok(), "{text:?}");
        }
    }
}
