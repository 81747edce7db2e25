//! tests: who keeps an installation, and in which order it goes.

use super::{NAMED_MAX, Selector, kinds, refusal};

#[test]
fn pods_with_sidecars_are_named_up_to_a_bound() {
    let pods: Vec<(String, String)> =
        (0..NAMED_MAX + 3).map(|number| (format!("shop/web-{number}"), "0.1.0".to_owned())).collect();
    let told = refusal(&pods);
    assert!(told.starts_with("nothing was changed: 13 pods with sidecars:\n  shop/web-0\n"), "{told}");
    assert!(told.contains("and 3 more") && told.contains("--force"), "{told}");
    assert!(!refusal(&pods[..1]).contains("more"));
}

#[test]
fn nobody_waits_for_what_is_gone_or_makes_it_anew() {
    let kinds = kinds(Some("mesh"));
    let at = |name: &str| kinds.iter().position(|(kind, _)| kind.resource.kind == name).expect("it goes");
    assert!(at("MutatingWebhookConfiguration") < at("Deployment"));
    assert!(at("ClusterRoleBinding") < at("Secret") && at("RoleBinding") < at("Secret"));
    // It owns what may have been overlooked.
    assert_eq!(at("ClusterRole"), kinds.len() - 1);
    // What anybody may have by that kind is never chosen by its kind alone.
    let secrets = kinds.iter().filter(|(kind, _)| kind.resource.kind == "Secret");
    for (kind, selector) in secrets {
        assert!(matches!(selector, Selector::Name(name) if name.starts_with("tidegate-")), "{kind:?}");
    }
}
