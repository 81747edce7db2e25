//! tests: what is installed, what is looked at first, and how a rollout is read.

use serde_json::json;

use super::manifest::{Choices, objects, yaml};
use super::{preflight, rollout};
use crate::check::finding::Finding;

fn choices(namespace: &str, image: Option<&str>) -> Choices {
    Choices { namespace: namespace.to_owned(), image: image.map(str::to_owned), replicas: 2 }
}

#[test]
fn what_was_chosen_stands_everywhere_the_default_did() {
    let text = yaml(&objects(&choices("mesh", Some("registry.example/tg:9"))).expect("it is in order"))
        .expect("it is printed");
    assert!(!text.contains("namespace: tidegate\n"), "{text}");
    assert!(!text.contains("tidegate-controller.tidegate.svc"), "{text}");
    assert!(text.contains("tidegate-controller.mesh.svc.cluster.local:8086"), "{text}");
    assert!(text.contains("spiffe://cluster.local/ns/mesh/sa/tidegate-controller"), "{text}");
    assert!(!text.contains("tidegate.dev/tidegate:"), "{text}");
    // The controller's, and what it injects.
    assert_eq!(text.matches("image: registry.example/tg:9").count(), 2, "{text}");
    let objects: Vec<serde_json::Value> = serde_saphyr::from_multiple(&text).expect("it is YAML");
    let of = |kind: &str| objects.iter().find(|object| object["kind"] == kind).expect("it is there");
    assert_eq!(of("Deployment")["spec"]["replicas"], 2);
    assert_eq!(of("Namespace")["metadata"]["name"], "mesh");
    let webhook = &of("MutatingWebhookConfiguration")["webhooks"][0];
    assert_eq!(webhook["clientConfig"]["service"]["namespace"], "mesh");
    let spared = &webhook["namespaceSelector"]["matchExpressions"][0]["values"];
    assert_eq!(*spared, json!(["kube-system", "mesh"]));
}

#[test]
fn nothing_is_left_of_helm_and_the_namespace_comes_first() {
    let objects = objects(&choices("tidegate", None)).expect("it is in order");
    assert_eq!(objects[0]["kind"], "Namespace");
    for object in &objects {
        let labels = &object["metadata"]["labels"];
        assert_eq!(labels["app.kubernetes.io/managed-by"], super::MANAGER, "{object}");
        assert_eq!(labels["app.kubernetes.io/part-of"], "tidegate", "{object}");
    }
}

#[test]
fn what_fails_is_an_obstacle_and_what_does_not_is_a_note() {
    let mut found = preflight::Found::default();
    found.take(&Finding::ok("API server", "Kubernetes v1.36.3"));
    found.take(&Finding::warning("other meshes", "Istio gives pods sidecars here too", "a pod can have one"));
    found.take(&Finding::failed("you", "may not create namespaces", "ask somebody"));
    assert_eq!(found.obstacles, ["you may not create namespaces: ask somebody"]);
    found.take(&Finding::unknown("create namespaces", "no answer in 10 s"));
    assert!(found.obstacles[1].starts_with("create namespaces no answer in 10 s"), "{:?}", found.obstacles);
    assert_eq!(found.warnings, ["other meshes Istio gives pods sidecars here too: a pod can have one"]);
}

#[test]
fn an_installation_of_helms_or_elsewhere_is_named_with_the_way_out() {
    let mut binding: kube::api::DynamicObject = serde_json::from_value(json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": {"name": "tidegate-controller"},
        "subjects": [{"kind": "ServiceAccount", "name": "tidegate-controller", "namespace": "mesh"}]}))
    .expect("it is an object");
    assert_eq!(preflight::somebody_elses(&binding, "mesh"), None);
    let told = preflight::somebody_elses(&binding, "tidegate").expect("a cluster has one");
    assert!(told.contains("--namespace mesh"), "{told}");
    binding.metadata.annotations = Some(
        [("meta.helm.sh/release-name", "mine"), ("meta.helm.sh/release-namespace", "mesh")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    );
    let told = preflight::somebody_elses(&binding, "mesh").expect("Helm keeps it");
    assert!(told.contains("release mine in namespace mesh") && told.contains("helm upgrade"), "{told}");
}

#[test]
fn a_rollout_is_done_when_every_replica_is_new_and_available() {
    let mut deployment = json!({"spec": {"replicas": 2}, "status": {
        "observedGeneration": 4, "replicas": 3, "updatedReplicas": 2, "availableReplicas": 3}});
    let said = rollout::state(&deployment, Some(4));
    assert_eq!(said, ("tidegate-controller: 2 of 2 ready, 1 of an older version left".to_owned(), false));
    deployment["status"]["replicas"] = json!(2);
    assert!(rollout::state(&deployment, Some(4)).1);
    // What the status says is about an older wish.
    assert_eq!(rollout::state(&deployment, Some(5)), ("tidegate-controller: 0 of 2 ready".to_owned(), false));
}

#[test]
fn a_pod_that_does_not_get_ready_says_why() {
    let pulling = json!({"containerStatuses": [
        {"state": {"waiting": {"reason": "ErrImagePull", "message": "no such host"}}}]});
    assert_eq!(rollout::reason(&pulling).as_deref(), Some("ErrImagePull no such host"));
    let unscheduled = json!({"conditions": [
        {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no nodes available"}]});
    assert_eq!(
        rollout::reason(&unscheduled).as_deref(),
        Some("PodScheduled: Unschedulable no nodes available")
    );
}
