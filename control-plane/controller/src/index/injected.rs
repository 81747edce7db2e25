//! injected: which namespaces have pods with a sidecar, or will have.

use std::collections::BTreeSet;

use resources::{Meta, Pod};

use super::{Index, inject};

/// What the injector leaves on a pod that it gave one: its version.
pub(super) const INJECTED: &str = "tidegate.dev/injected";

impl Index {
    /// The namespaces that ask for injection, and those with a pod that asks or that has a sidecar.
    pub(crate) fn injected(&self) -> BTreeSet<String> {
        let pods = self.pods.iter().filter(|(_, pod)| has_sidecar(pod)).map(|((namespace, _), _)| namespace);
        let asking = self.namespaces.iter().filter(|(_, namespace)| asks(&namespace.meta));
        asking.map(|(name, _)| name).chain(pods).cloned().collect()
    }
}

/// Whether a pod asks for a sidecar, or has one.
pub(super) fn has_sidecar(pod: &Pod) -> bool {
    asks(&pod.meta) || pod.meta.annotations.contains_key(INJECTED)
}

fn asks(meta: &Meta) -> bool {
    inject(meta) == Some("enabled")
}

#[cfg(test)]
mod tests {
    use crate::index::tests::index;

    fn object(kind: &str, name: &str, meta: &str) -> String {
        format!(
            "---\napiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}, {meta}}}\nspec: {{containers: []}}\n"
        )
    }

    #[test]
    fn namespaces_that_ask_or_hold_a_pod_with_a_sidecar_are_told_and_no_others() {
        let all = [
            object("Namespace", "by-label", "labels: {tidegate.dev/inject: enabled}"),
            object("Namespace", "by-annotation", "annotations: {tidegate.dev/inject: enabled}"),
            object(
                "Namespace",
                "out",
                "labels: {tidegate.dev/inject: enabled}, annotations: {tidegate.dev/inject: disabled}",
            ),
            object("Namespace", "by-pod", "labels: {}"),
            object("Namespace", "plain", "labels: {}"),
            object("Pod", "a", "namespace: by-pod, annotations: {tidegate.dev/injected: '1'}"),
            object("Pod", "b", "namespace: plain"),
        ];
        let found: Vec<String> = index(&all.concat()).injected().into_iter().collect();
        assert_eq!(found, ["by-annotation", "by-label", "by-pod"]);
    }
}
