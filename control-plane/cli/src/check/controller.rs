//! controller: its Deployment, its replicas, and who of them leads.

use std::time::SystemTime;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};

use super::definitions::{OF_VERSION, OURS};
use super::finding::Finding;
use crate::answer::{answered, every};
use crate::ask::{AdminPort, PodPort};
use crate::pods::trouble;
use crate::print::{count, span};

/// The Deployment, the Service, the Lease and the ClusterRoleBinding are all called so.
pub(super) const NAME: &str = "tidegate-controller";
/// Its admin port's name, and its number where it has none.
const ADMIN: (&str, u16) = ("admin", 8087);
/// What the clocks of the cluster and of whoever asks may differ by, seconds.
const CLOCKS_DIFFER: i64 = 30;

/// One replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Replica {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) version: String,
    pub(super) is_ready: bool,
    trouble: Option<String>,
    admin: u16,
}

impl Replica {
    fn of(pod: &Pod) -> Self {
        let containers = || pod.spec.iter().flat_map(|spec| &spec.containers);
        let mut ports = containers().flat_map(|container| container.ports.iter().flatten());
        let admin = ports.find(|port| port.name.as_deref() == Some(ADMIN.0));
        let statuses = || pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let image = containers().next().and_then(|container| container.image.as_deref()).unwrap_or_default();
        Self {
            name: pod.name_any(),
            namespace: pod.namespace().unwrap_or_default(),
            version: pod.labels().get(OF_VERSION).map_or(image, String::as_str).to_owned(),
            is_ready: statuses().next().is_some() && statuses().all(|status| status.ready),
            trouble: statuses().find_map(trouble),
            admin: admin.and_then(|port| u16::try_from(port.container_port).ok()).unwrap_or(ADMIN.1),
        }
    }

    /// Where its admin port is reached.
    pub(super) fn port(&self, client: &Client) -> AdminPort {
        let (namespace, name) = (self.namespace.clone(), self.name.clone());
        AdminPort::In(PodPort { client: client.clone(), namespace, name, port: self.admin })
    }
}

/// Looks at all of it; gives the replicas too.
pub(super) async fn look(client: &Client, namespace: &str, now: SystemTime) -> (Vec<Finding>, Vec<Replica>) {
    let object = format!("Deployment {namespace}/{NAME}");
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let deployment = match answered(deployments.get_opt(NAME)).await {
        Ok(Some(deployment)) => deployment,
        Ok(None) => return (vec![absent(client, object).await], Vec::new()),
        Err(error) => return (vec![Finding::unknown(object, error.to_string())], Vec::new()),
    };
    let mut replicas = Vec::new();
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let which = ListParams::default().labels(&format!("app.kubernetes.io/name={NAME}"));
    let looked = every(&pods, which, |pod: Pod| replicas.push(Replica::of(&pod))).await;
    let mut findings = vec![ready(object, &deployment, &replicas)];
    match looked {
        Ok(()) => findings.extend(versions(namespace, &replicas)),
        Err(error) => findings.push(Finding::unknown(format!("pods of {NAME}"), error.to_string())),
    }
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let object = format!("Lease {namespace}/{NAME}");
    findings.push(match answered(leases.get_opt(NAME)).await {
        Ok(lease) => leads(object, lease.as_ref(), now),
        Err(error) => Finding::unknown(object, error.to_string()),
    });
    (findings, replicas)
}

/// It is not in this namespace; perhaps in another.
async fn absent(client: &Client, object: String) -> Finding {
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    let binding = answered(bindings.get_opt(NAME)).await.ok().flatten();
    let elsewhere = binding.and_then(|binding| binding.subjects?.into_iter().find_map(|who| who.namespace));
    let remedy = match elsewhere.filter(|elsewhere| !object.contains(&format!(" {elsewhere}/"))) {
        Some(elsewhere) => format!("it is installed in namespace {elsewhere}: --namespace {elsewhere}"),
        None => "tidegate install, or helm install".to_owned(),
    };
    Finding::failed(object, "is not there", remedy)
}

fn ready(object: String, deployment: &Deployment, replicas: &[Replica]) -> Finding {
    let wanted = deployment.spec.as_ref().and_then(|spec| spec.replicas).unwrap_or(1);
    let status = deployment.status.clone().unwrap_or_default();
    let ready = status.ready_replicas.unwrap_or(0);
    let said = format!("{ready} of {} ready", count(u64::try_from(wanted).unwrap_or(0), "replica"));
    if wanted == 0 {
        let remedy = format!("kubectl -n {} scale deployment {NAME} --replicas 1", namespace(deployment));
        return Finding::failed(object, "is scaled to none: proxies keep what they last heard", remedy);
    }
    if ready >= wanted {
        return Finding::ok(object, said);
    }
    let failing = status.conditions.iter().flatten().find(|condition| condition.type_ == "ReplicaFailure");
    let why = replicas.iter().find_map(|replica| replica.trouble.clone());
    let why = why.or_else(|| failing.and_then(|condition| condition.message.clone()));
    let said = why.map_or(said.clone(), |why| format!("{said}: {why}"));
    let remedy = format!("kubectl -n {} logs deployment/{NAME}", namespace(deployment));
    if ready == 0 {
        return Finding::failed(object, said, remedy);
    }
    Finding::warning(object, said, remedy)
}

fn namespace(deployment: &Deployment) -> String {
    deployment.namespace().unwrap_or_default()
}

/// Whether all replicas are of one version, and of this program's.
fn versions(namespace: &str, replicas: &[Replica]) -> Option<Finding> {
    let object = format!("replicas of {namespace}/{NAME}");
    let mut versions: Vec<&str> = replicas.iter().map(|replica| replica.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    match versions.as_slice() {
        [] => None,
        [one] if *one == OURS => Some(Finding::ok(object, format!("of version {one}"))),
        [one] => Some(Finding::warning(
            object,
            format!("of version {one}, this tidegate of {OURS}"),
            "use the tidegate of the controller's version",
        )),
        more => Some(Finding::warning(
            object,
            format!("of versions {}", more.join(", ")),
            "an upgrade is under way, or stuck: kubectl rollout status",
        )),
    }
}

fn leads(object: String, lease: Option<&Lease>, now: SystemTime) -> Finding {
    let remedy = "statuses, anchors and webhook certificates stand still: see the controllers' logs";
    let Some(spec) = lease.and_then(|lease| lease.spec.as_ref()) else {
        return Finding::failed(object, "is not there: no replica has led yet", remedy);
    };
    let Some(holder) = spec.holder_identity.as_deref().filter(|holder| !holder.is_empty()) else {
        return Finding::failed(object, "is held by no replica", remedy);
    };
    let now = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let renewed = spec.renew_time.as_ref().map_or(0, |time| time.0.as_second());
    let age = i64::try_from(now).unwrap_or(i64::MAX).saturating_sub(renewed);
    if age > i64::from(spec.lease_duration_seconds.unwrap_or(0)) + CLOCKS_DIFFER {
        #[expect(clippy::cast_precision_loss, reason = "shown to the minute")]
        let age = span(age as f64);
        return Finding::failed(object, format!("{holder} has not renewed it for {age}"), remedy);
    }
    Finding::ok(object, format!("{holder} leads"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::super::finding::Level;
    use super::*;

    fn lease(holder: &str) -> Lease {
        let renewed = "2026-01-31T12:00:00.000000Z";
        let spec = json!({"holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": renewed});
        serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap()
    }

    #[test]
    fn a_lease_that_nobody_renews_is_told_with_its_age() {
        let renewed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_769_860_800);
        let at =
            |seconds| leads("lease".to_owned(), Some(&lease("a")), renewed + Duration::from_secs(seconds));
        assert_eq!(at(40).level, Level::Ok);
        assert_eq!(at(300).says, "a has not renewed it for 5 min 0 s");
        assert_eq!(leads("lease".to_owned(), Some(&lease("")), renewed).says, "is held by no replica");
        assert_eq!(leads("lease".to_owned(), None, renewed).level, Level::Failed);
    }

    fn replica(version: &str, status: serde_json::Value) -> Replica {
        let mut status = status;
        for (key, value) in [("name", json!("controller")), ("image", json!("")), ("imageID", json!(""))] {
            status[key] = value;
        }
        status["restartCount"] = 0.into();
        let pod = json!({
            "metadata": {"name": "c-1", "namespace": "tidegate", "labels": {OF_VERSION: version}},
            "spec": {"containers": [{"name": "controller", "ports": [{"name": "admin", "containerPort": 9000}]}]},
            "status": {"containerStatuses": [status]},
        });
        Replica::of(&serde_json::from_value(pod).unwrap())
    }

    #[test]
    fn a_deployment_says_why_none_is_ready() {
        let deployment: Deployment = serde_json::from_value(json!({
            "metadata": {"name": NAME, "namespace": "tidegate"},
            "spec": {"replicas": 2, "selector": {}, "template": {}}, "status": {},
        }))
        .unwrap();
        let waiting = json!({"ready": false, "state": {"waiting": {"reason": "ImagePullBackOff"}}});
        let finding = ready("d".to_owned(), &deployment, &[replica("1", waiting)]);
        assert_eq!(finding.says, "0 of 2 replicas ready: waits: ImagePullBackOff");
        assert_eq!(finding.level, Level::Failed);
    }

    #[test]
    fn replicas_of_two_versions_are_an_upgrade_under_way() {
        let ready = json!({"ready": true});
        let of = |versions: &[&str]| {
            let all: Vec<Replica> = versions.iter().map(|version| replica(version, ready.clone())).collect();
            versions_level(&all)
        };
        fn versions_level(all: &[Replica]) -> Level {
            versions("tidegate", all).unwrap().level
        }
        assert_eq!(of(&[OURS, OURS]), Level::Ok);
        assert_eq!(of(&[OURS, "0.0.1"]), Level::Warning);
        assert_eq!(of(&["0.0.1"]), Level::Warning);
        assert_eq!(replica(OURS, ready.clone()).admin, 9000);
        assert!(versions("tidegate", &[]).is_none());
    }
}
