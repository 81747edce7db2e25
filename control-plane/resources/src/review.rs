//! review: one object that is about to be stored, looked at alone.
//!
//! For a webhook: what the schema of a kind cannot say. Our own kinds are refused for what would keep
//! them out of force; what others may have written for others (routes, Services) is let through with a
//! word of warning.

use std::time::Duration;

use serde_json::Value;

use crate::async_policy::{AsyncPolicy, AsyncTarget};
use crate::document::Located;
use crate::duration::print_iso;
use crate::node::Node;
use crate::object::{GROUP, Object};
use crate::validate::validate_all;

/// What is to be said of an object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Review {
    /// Why it must not be stored.
    pub refused: Option<String>,
    /// What is right, but does not do what one may think.
    pub warnings: Vec<String>,
    /// What it does nothing without.
    pub targets: Vec<ReviewTarget>,
}

/// An object that another is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReviewTarget {
    /// The field that names it, `spec.targetRefs[0]`.
    pub field: String,
    /// `Service` or `HTTPRoute`.
    pub kind: &'static str,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// Looks at one object; `drain_grace` is what a sidecar has to deliver in when its pod ends.
#[must_use]
pub fn review(value: &Value, drain_grace: Duration) -> Review {
    let group = value["apiVersion"].as_str().and_then(|api| api.split('/').next());
    let object = match Object::read(&Node::root(value)) {
        Ok(Some(object)) => object,
        Ok(None) => return Review::default(),
        Err(fault) => {
            let said = match fault.field.as_str() {
                "" => fault.message,
                field => format!("{field}: {}", fault.message),
            };
            return match group {
                Some(GROUP) => Review { refused: Some(said), ..Review::default() },
                _ => Review {
                    warnings: vec![format!("Tidegate does not read this: {said}")],
                    ..Review::default()
                },
            };
        }
    };
    let mut review = Review { targets: targets(&object), ..Review::default() };
    if let Object::AsyncPolicy(policy) = &object {
        review.warnings.extend(too_much_to_drain(policy, drain_grace));
    }
    review.warnings.extend(bad_expressions(object));
    review
}

fn targets(object: &Object) -> Vec<ReviewTarget> {
    let namespace = object.meta().namespace.to_string();
    let target = |(i, (kind, name)): (usize, (&'static str, String))| ReviewTarget {
        field: format!("spec.targetRefs[{i}]"),
        kind,
        namespace: namespace.clone(),
        name,
    };
    match object {
        Object::BackendPolicy(policy) => {
            let named = policy.targets.iter().map(|name| ("Service", name.to_string()));
            named.enumerate().map(target).collect()
        }
        Object::AsyncPolicy(policy) => {
            let named = policy.targets.iter().map(|wanted| match wanted {
                AsyncTarget::Service(name) => ("Service", name.to_string()),
                AsyncTarget::Route(name) | AsyncTarget::Rule(name, _) => ("HTTPRoute", name.to_string()),
            });
            named.enumerate().map(target).collect()
        }
        _ => Vec::new(),
    }
}

/// What a full queue holds against what a paced dispatch can deliver before the pod is gone. Without a
/// pace nothing is said: the receivers set it.
fn too_much_to_drain(policy: &AsyncPolicy, grace: Duration) -> Option<String> {
    let says = &policy.says;
    let per_second = says.rate.per_second?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "saturating, and not negative"
    )]
    let can = (per_second * grace.as_secs_f64()) as u64 + u64::from(says.rate.burst_max);
    let grace = print_iso(grace);
    if says.queue_bytes_max > can.saturating_mul(says.body_bytes_max) {
        return Some(format!(
            "queue.maxBytes: at {per_second} per second at most {can} messages ({} bytes of {}) leave a pod \
             within its drain grace of {grace}",
            can.saturating_mul(says.body_bytes_max),
            says.queue_bytes_max
        ));
    }
    (says.queue_messages_max > can).then(|| {
        format!(
            "queue.maxMessages: at {per_second} per second at most {can} of {} messages leave a pod within its \
             drain grace of {grace}",
            says.queue_messages_max
        )
    })
}

/// Of what shows between objects only this shows in one.
fn bad_expressions(object: Object) -> Vec<String> {
    if !matches!(object, Object::HttpRoute(_) | Object::GrpcRoute(_)) {
        return Vec::new();
    }
    let alone = Located { value: object, file: "".into(), line: 0 };
    let problems = validate_all(std::slice::from_ref(&alone)).into_iter();
    let found = problems.filter_map(|problem| Some((problem.field?, problem.message)));
    let of_match = found.filter(|(field, _)| field.contains("].matches["));
    of_match.map(|(field, message)| format!("{field}: {message}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const GRACE: Duration = Duration::from_secs(25);

    fn policy(kind: &str, spec: &Value) -> Value {
        json!({
            "apiVersion": "tidegate.dev/v1alpha1", "kind": kind,
            "metadata": {"name": "orders", "namespace": "shop"}, "spec": spec
        })
    }

    #[test]
    fn our_own_kinds_are_refused_with_the_field_and_what_is_allowed() {
        let targets = json!([{"group": "", "kind": "Service", "name": "orders"}]);
        let wrong = policy("BackendPolicy", &json!({"targetRefs": targets, "retrys": {}}));
        let refused = review(&wrong, GRACE).refused.unwrap();
        assert!(refused.starts_with("spec.retrys: is no field here; known are targetRefs"), "{refused}");
    }

    #[test]
    fn a_route_of_others_is_let_through_with_a_warning() {
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "orders", "namespace": "shop"}, "spec": {"rules": "none"}
        });
        let review = review(&route, GRACE);
        assert_eq!(review.refused, None);
        assert!(review.warnings[0].starts_with("Tidegate does not read this: spec.rules: "), "{review:?}");
    }

    #[test]
    fn a_bad_expression_of_a_route_is_told() {
        let path = json!({"type": "RegularExpression", "value": "/a("});
        let route = json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
            "metadata": {"name": "orders", "namespace": "shop"},
            "spec": {"rules": [{"matches": [{"path": path}]}]}
        });
        let warnings = review(&route, GRACE).warnings;
        assert!(warnings[0].starts_with("spec.rules[0].matches[0].path: "), "{warnings:?}");
    }

    #[test]
    fn what_a_policy_is_for_is_named_with_its_field() {
        let service = json!({"group": "", "kind": "Service", "name": "orders"});
        let route = json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "create"});
        let named = review(&policy("AsyncPolicy", &json!({"targetRefs": [service, route]})), GRACE).targets;
        let target = |field: &str, kind, name: &str| ReviewTarget {
            field: field.to_owned(),
            kind,
            namespace: "shop".to_owned(),
            name: name.to_owned(),
        };
        let expected = [
            target("spec.targetRefs[0]", "Service", "orders"),
            target("spec.targetRefs[1]", "HTTPRoute", "create"),
        ];
        assert_eq!(named, expected);
    }

    #[test]
    fn a_queue_that_cannot_leave_the_pod_in_time_is_told_with_the_number() {
        let with = |rate: Value, queue: Value| {
            let targets = json!([{"group": "", "kind": "Service", "name": "orders"}]);
            let spec = json!({"targetRefs": targets, "rateLimits": rate, "queue": queue});
            review(&policy("AsyncPolicy", &spec), GRACE).warnings
        };
        let slow = json!({"maxDispatchesPerSecond": 2, "maxBurstSize": 10});
        let bytes = with(slow.clone(), json!({"maxBytes": "1Gi"}));
        assert!(bytes[0].contains("at 2 per second at most 60 messages"), "{bytes:?}");
        let messages = with(slow.clone(), json!({"maxBytes": "64Mi", "maxMessages": 1000}));
        assert!(messages[0].contains("at most 60 of 1000 messages"), "{messages:?}");
        assert_eq!(with(slow, json!({"maxBytes": "64Mi", "maxMessages": 60})), Vec::<String>::new());
        assert_eq!(with(json!({}), json!({"maxBytes": "1Gi"})), Vec::<String>::new());
    }
}
