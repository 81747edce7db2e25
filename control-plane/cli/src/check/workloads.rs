//! workloads: who was to have a sidecar and has none, and whose sidecar is not well.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::{StreamExt as _, stream};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};

use super::finding::Finding;
use super::meshes;
use crate::answer::{Unanswered, every};
use crate::ask::Question;
use crate::operate::AT_ONCE;
use crate::pods::{Sidecar, has_ended};
use crate::print::count;

/// Asks for a sidecar, or wants none.
const INJECT: &str = "tidegate.dev/inject";
/// Why a pod has none although its namespace asks.
const NOT_INJECTED: &str = "tidegate.dev/not-injected";
/// Sidecars that are asked why they are not ready; of further ones it is told that they are not.
const ASKED_MAX: usize = 64;

/// What there is of workloads.
#[derive(Debug, Default)]
pub(super) struct Workloads {
    /// Namespaces that ask for sidecars.
    namespaces: BTreeSet<String>,
    /// Of these, those that ask another mesh too.
    torn: Vec<(String, &'static str)>,
    /// Every sidecar.
    pub(super) sidecars: Vec<Sidecar>,
    /// Pods without, by who makes them.
    without: BTreeMap<Owner, Without>,
}

/// Who makes pods anew: its namespace, kind and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Owner {
    namespace: String,
    kind: String,
    name: String,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Without {
    pods: usize,
    /// Why, where the injector wrote it down.
    why: Option<String>,
}

impl Workloads {
    /// Looks at every namespace and pod.
    ///
    /// # Errors
    /// When they may not be listed.
    pub(super) async fn read(client: &Client) -> Result<Self, Unanswered> {
        let mut workloads = Self::default();
        let namespaces: Api<Namespace> = Api::all(client.clone());
        every(&namespaces, ListParams::default(), |found| workloads.namespace(&found)).await?;
        let pods: Api<Pod> = Api::all(client.clone());
        every(&pods, ListParams::default(), |found| workloads.pod(&found)).await?;
        workloads.sidecars.sort_by_key(Sidecar::named);
        Ok(workloads)
    }

    fn namespace(&mut self, namespace: &Namespace) {
        if said(namespace) != Some("enabled") {
            return;
        }
        self.namespaces.insert(namespace.name_any());
        self.torn.extend(meshes::asked(namespace).map(|mesh| (namespace.name_any(), mesh)));
    }

    fn pod(&mut self, pod: &Pod) {
        if has_ended(pod) {
            return;
        }
        if let Some(sidecar) = Sidecar::of(pod) {
            self.sidecars.push(sidecar);
            return;
        }
        let by_namespace = pod.namespace().is_some_and(|namespace| self.namespaces.contains(&namespace));
        let asks = said(pod).map_or(by_namespace, |said| said == "enabled");
        if asks {
            let without = self.without.entry(owner(pod)).or_default();
            without.pods += 1;
            without.why = pod.annotations().get(NOT_INJECTED).cloned();
        }
    }

    /// What is to be said of them.
    pub(super) async fn look(&self, client: &Client) -> Vec<Finding> {
        let mut findings = self.asked();
        findings.extend(self.without.iter().map(|(owner, without)| lacking(owner, without)));
        let unwell: Vec<&Sidecar> =
            self.sidecars.iter().filter(|sidecar| !(sidecar.is_running && sidecar.is_ready)).collect();
        let (asked, further) = unwell.split_at(unwell.len().min(ASKED_MAX));
        let asked = asked.iter().map(|sidecar| unready(client, sidecar));
        findings.extend(stream::iter(asked).buffered(AT_ONCE).collect::<Vec<_>>().await);
        findings.extend(further.iter().map(|sidecar| ill(sidecar, "is not ready".to_owned())));
        let well = self.sidecars.len() - unwell.len();
        if well > 0 {
            findings.push(Finding::ok("sidecars", format!("{well} of {} ready", self.sidecars.len())));
        }
        findings
    }

    fn asked(&self) -> Vec<Finding> {
        let object = "namespaces";
        let mut findings = match self.namespaces.len() {
            0 if self.sidecars.is_empty() => vec![Finding::warning(
                object,
                "none asks for sidecars",
                "kubectl label namespace NAMESPACE tidegate.dev/inject=enabled, then restart its workloads",
            )],
            number => vec![Finding::ok(object, format!("{} with sidecars", count(number, "namespace")))],
        };
        findings.extend(self.torn.iter().map(|(namespace, mesh)| {
            let said = format!("asks for sidecars of {mesh} too");
            Finding::failed(format!("Namespace {namespace}"), said, "take the label of one of them away")
        }));
        findings
    }
}

/// What it says of sidecars; its annotation goes before its label.
fn said(object: &impl kube::ResourceExt) -> Option<&str> {
    let said = object.annotations().get(INJECT).or_else(|| object.labels().get(INJECT));
    said.map(String::as_str)
}

/// Who makes the pod. A ReplicaSet is made by the Deployment whose name it continues.
fn owner(pod: &Pod) -> Owner {
    let namespace = pod.namespace().unwrap_or_default();
    let controller = pod.owner_references().iter().find(|owner| owner.controller == Some(true));
    let Some(controller) = controller else {
        return Owner { namespace, kind: "Pod".to_owned(), name: pod.name_any() };
    };
    let hash = pod.labels().get("pod-template-hash");
    let deployment = hash.and_then(|hash| controller.name.strip_suffix(&format!("-{hash}")));
    match deployment.filter(|_| controller.kind == "ReplicaSet") {
        Some(name) => Owner { namespace, kind: "Deployment".to_owned(), name: name.to_owned() },
        None => Owner { namespace, kind: controller.kind.clone(), name: controller.name.clone() },
    }
}

fn lacking(owner: &Owner, without: &Without) -> Finding {
    let Owner { namespace, kind, name } = owner;
    let object = format!("{kind} {namespace}/{name}");
    let pods = count(without.pods, "pod");
    if let Some(why) = &without.why {
        let remedy = "mend that, or say tidegate.dev/inject: disabled on it";
        return Finding::warning(object, format!("{pods} cannot have a sidecar: {why}"), remedy);
    }
    let remedy = match kind.as_str() {
        "Deployment" | "StatefulSet" | "DaemonSet" => {
            format!("kubectl -n {namespace} rollout restart {}/{name}", kind.to_lowercase())
        }
        "Job" => "its next run has one; to have it now, delete it and make it anew".to_owned(),
        _ => "delete it and make it anew".to_owned(),
    };
    let said =
        format!("{pods} without sidecar: made before the namespace asked, or while no injector answered");
    Finding::failed(object, said, remedy)
}

/// Why a sidecar is not ready: in kubelet's words, or its own.
async fn unready(client: &Client, sidecar: &Sidecar) -> Finding {
    if let Some(trouble) = &sidecar.trouble {
        return ill(sidecar, trouble.clone());
    }
    if !sidecar.is_running {
        return ill(sidecar, "has not started yet".to_owned());
    }
    let question = Question::new(http::Method::GET, "/ready");
    let said = match sidecar.port(client).ask(&question).await {
        Ok(answer) => answer.text().split_whitespace().collect::<Vec<_>>().join(" "),
        Err(error) => format!("is not ready and does not say why: {error:#}"),
    };
    ill(sidecar, said)
}

fn ill(sidecar: &Sidecar, said: String) -> Finding {
    let remedy = "kubectl logs POD -c tidegate-proxy says more";
    Finding::failed(format!("sidecar of {}", sidecar.named()), said, remedy)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::finding::Level;
    use super::*;
    use crate::scripted;

    fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Value {
        let mut pod = json!({
            "metadata": {
                "namespace": "shop", "name": name, "labels": {"pod-template-hash": "7d4"},
                "ownerReferences": [{
                    "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7d4", "uid": "1", "controller": true,
                }],
            },
            "spec": {"containers": [{"name": "application"}]},
            "status": {"phase": "Running"},
        });
        change(&mut pod);
        pod
    }

    fn cluster(pods: Vec<Value>) -> Client {
        let labels = json!({INJECT: "enabled", "istio-injection": "enabled"});
        let namespaces =
            [json!({"metadata": {"name": "shop", "labels": labels}}), json!({"metadata": {"name": "plain"}})];
        scripted::client(move |path| match path {
            path if path.starts_with("/api/v1/namespaces?") => scripted::list(&namespaces),
            path if path.starts_with("/api/v1/pods?") => scripted::list(&pods),
            path => panic!("{path} is not asked for"),
        })
    }

    #[tokio::test]
    async fn pods_without_a_sidecar_are_told_by_who_makes_them() {
        let mut waiting = scripted::pod("shop", "mail-0");
        waiting["status"]["initContainerStatuses"][0]["ready"] = false.into();
        waiting["status"]["initContainerStatuses"][0]["state"] =
            json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}});
        let client = cluster(vec![
            pod("web-7d4-a", |_| {}),
            pod("web-7d4-b", |_| {}),
            pod("done", |pod| pod["status"]["phase"] = "Succeeded".into()),
            pod("unwilling", |pod| pod["metadata"]["annotations"] = json!({INJECT: "disabled"})),
            pod("elsewhere", |pod| pod["metadata"]["namespace"] = "plain".into()),
            pod("agent", |pod| {
                pod["metadata"]["ownerReferences"] = Value::Null;
                pod["metadata"]["annotations"] = json!({NOT_INJECTED: "it is on the host's network"});
            }),
            scripted::pod("shop", "web-0"),
            waiting,
        ]);
        let workloads = Workloads::read(&client).await.unwrap();
        let findings = workloads.look(&client).await;
        let told: Vec<(Level, String)> = findings
            .iter()
            .filter(|finding| finding.level != Level::Ok)
            .map(|finding| (finding.level, format!("{}: {}", finding.object, finding.says)))
            .collect();
        let expected = [
            (Level::Failed, "Namespace shop: asks for sidecars of Istio too"),
            (
                Level::Failed,
                "Deployment shop/web: 2 pods without sidecar: made before the namespace asked, or while no \
                 injector answered",
            ),
            (Level::Warning, "Pod shop/agent: 1 pod cannot have a sidecar: it is on the host's network"),
            (Level::Failed, "sidecar of shop/mail-0: waits: ErrImagePull: no such image"),
        ];
        assert_eq!(told, expected.map(|(level, said)| (level, said.to_owned())));
        let deployment = findings.iter().find(|finding| finding.object == "Deployment shop/web").unwrap();
        let remedy = deployment.remedy.as_deref();
        assert_eq!(remedy, Some("kubectl -n shop rollout restart deployment/web"));
    }
}
