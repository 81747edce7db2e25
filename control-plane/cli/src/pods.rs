//! pods: the pods that have a sidecar, found by name, by address, or all of them.

use anyhow::bail;
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt as _};

use crate::answer::{answered, every};
use crate::ask::{AdminPort, PodPort};
use crate::kubeconfig::listed;

/// The sidecar's container.
pub(crate) const CONTAINER: &str = "tidegate-proxy";
/// Its admin port's name there, and its number where it has none.
const ADMIN: (&str, u16) = ("tidegate-admin", 4191);
/// Set on a pod with a sidecar: the version that was put in.
const INJECTED: &str = "tidegate.dev/injected";
/// Names that an answer to a wrong one holds.
const NEAR_MAX: usize = 5;

/// A pod with a sidecar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sidecar {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// The version that was injected, where that is written down.
    pub(crate) version: Option<String>,
    /// Its admin port.
    admin: u16,
    /// Whether its container runs.
    pub(crate) is_running: bool,
    /// Whether it is ready.
    pub(crate) is_ready: bool,
    /// Why its container does not run, as kubelet says it.
    pub(crate) trouble: Option<String>,
}

impl Sidecar {
    /// The sidecar of a pod; none where it has none.
    pub(crate) fn of(pod: &Pod) -> Option<Self> {
        let container = containers(pod).find(|container| container.name == CONTAINER)?;
        let named = container.ports.iter().flatten().find(|port| port.name.as_deref() == Some(ADMIN.0));
        let status = statuses(pod).find(|status| status.name == CONTAINER);
        let state = status.and_then(|status| status.state.as_ref());
        Some(Self {
            namespace: pod.namespace().unwrap_or_default(),
            name: pod.name_any(),
            version: pod.annotations().get(INJECTED).cloned(),
            admin: named.and_then(|port| u16::try_from(port.container_port).ok()).unwrap_or(ADMIN.1),
            is_running: state.is_some_and(|state| state.running.is_some()),
            is_ready: status.is_some_and(|status| status.ready),
            trouble: status.and_then(trouble),
        })
    }

    /// `shop/web-0`.
    pub(crate) fn named(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }

    /// Where its admin port is reached.
    pub(crate) fn port(&self, client: &Client) -> AdminPort {
        let (namespace, name) = (self.namespace.clone(), self.name.clone());
        AdminPort::In(PodPort { client: client.clone(), namespace, name, port: self.admin })
    }
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.iter();
    spec.flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.iter();
    status.flat_map(|status| {
        let native = status.init_container_statuses.iter().flatten();
        native.chain(status.container_statuses.iter().flatten())
    })
}

/// Why a container does not run; none where it does.
pub(crate) fn trouble(status: &ContainerStatus) -> Option<String> {
    let state = status.state.as_ref()?;
    let said = |reason: &Option<String>, message: &Option<String>| {
        let words: Vec<&str> = reason.iter().chain(message).map(String::as_str).collect();
        words.join(": ")
    };
    let restarts = match status.restart_count {
        0 => String::new(),
        times => format!(" (restarted {times} times)"),
    };
    if let Some(waiting) = &state.waiting {
        return Some(format!("waits: {}{restarts}", said(&waiting.reason, &waiting.message)));
    }
    let ended = state.terminated.as_ref()?;
    Some(format!("ended with {}: {}{restarts}", ended.exit_code, said(&ended.reason, &ended.message)))
}

/// Whether it has come to its end.
pub(crate) fn has_ended(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// The sidecar of the pod of that name.
///
/// # Errors
/// When there is none, with the names of those that are meant perhaps; when the user may not look.
pub(crate) async fn find(client: &Client, namespace: &str, name: &str) -> anyhow::Result<Sidecar> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let pod = match answered(pods.get(name)).await {
        Ok(pod) => pod,
        Err(error) if error.is_absent() => bail!("{}", absent(&pods, namespace, name).await),
        Err(error) => bail!("{}", forbidden(error.to_string(), error.is_forbidden(), namespace)),
    };
    let Some(sidecar) = Sidecar::of(&pod) else {
        let names: Vec<String> = containers(&pod).map(|container| container.name.clone()).collect();
        bail!(
            "pod {namespace}/{name} has no sidecar of Tidegate's, its containers are {}: is its namespace \
             labelled tidegate.dev/inject=enabled? then make the pod anew",
            listed(&names)
        );
    };
    Ok(sidecar)
}

/// The sidecar of the pod that has this address now.
///
/// # Errors
/// When there is none; when the user may not look at every pod.
pub(crate) async fn at_address(client: &Client, address: &str) -> anyhow::Result<Sidecar> {
    let mut found = None;
    let which = ListParams::default().fields(&format!("status.podIP={address}"));
    let pods: Api<Pod> = Api::all(client.clone());
    let looked = every(&pods, which, |pod: Pod| {
        if !has_ended(&pod) {
            found = Sidecar::of(&pod).or(found.take());
        }
    });
    if let Err(error) = looked.await {
        bail!("cannot look for the pod with address {address}: {error}; name it with --pod NAMESPACE/NAME");
    }
    let Some(sidecar) = found else {
        bail!(
            "no pod with a sidecar has address {address} now: the pod that took this in is gone, or has \
             another address since; name it with --pod NAMESPACE/NAME where you know it"
        );
    };
    Ok(sidecar)
}

/// Every sidecar that runs, of a namespace or of the cluster, by name.
///
/// # Errors
/// When the user may not look, or the server does not answer.
pub(crate) async fn all(client: &Client, namespace: Option<&str>) -> anyhow::Result<Vec<Sidecar>> {
    let pods: Api<Pod> = match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    };
    let mut all = Vec::new();
    let looked = every(&pods, ListParams::default(), |pod: Pod| {
        all.extend(Sidecar::of(&pod).filter(|sidecar| sidecar.is_running));
    });
    if let Err(error) = looked.await {
        bail!("cannot list pods: {error}");
    }
    all.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    Ok(all)
}

fn forbidden(said: String, is_forbidden: bool, namespace: &str) -> String {
    if !is_forbidden {
        return said;
    }
    format!(
        "{said}: a Role in namespace {namespace} with {{apiGroups: [\"\"], resources: [pods], verbs: [get, list]}} \
         lets you"
    )
}

/// That there is no such pod, with the names that begin like it or contain it.
async fn absent(pods: &Api<Pod>, namespace: &str, name: &str) -> String {
    let mut names = Vec::new();
    let looked = every(pods, ListParams::default(), |pod: Pod| names.push(pod.name_any())).await;
    let near = if looked.is_ok() { near(name, names) } else { Vec::new() };
    let hint = match near.as_slice() {
        [] => "another namespace is named with -n".to_owned(),
        near => format!("near ones are {}", near.join(", ")),
    };
    format!("there is no pod {name} in namespace {namespace}; {hint}")
}

/// The names that somebody meant perhaps: those that have the longest beginning in common.
fn near(wanted: &str, names: Vec<String>) -> Vec<String> {
    let common = |name: &str| name.bytes().zip(wanted.bytes()).take_while(|(a, b)| a == b).count();
    let least = (wanted.len() / 2).max(1);
    let close = |name: &String| common(name) >= least || name.contains(wanted);
    let mut near: Vec<String> = names.into_iter().filter(close).collect();
    near.sort_by_key(|name| (std::cmp::Reverse(common(name)), name.clone()));
    near.truncate(NEAR_MAX);
    near
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::scripted;

    fn shop() -> Client {
        scripted::client(|path| match path {
            "/api/v1/namespaces/shop/pods/web-0" => (200, scripted::pod("shop", "web-0")),
            "/api/v1/namespaces/shop/pods/db-0" => {
                let spec = json!({"containers": [{"name": "postgres"}]});
                (200, json!({"metadata": {"namespace": "shop", "name": "db-0"}, "spec": spec}))
            }
            "/api/v1/namespaces/shop/pods/web-1" => (404, json!({})),
            "/api/v1/namespaces/shop/pods?&limit=500" => {
                scripted::list(&[scripted::pod("shop", "web-0"), scripted::pod("shop", "mail-0")])
            }
            "/api/v1/pods?&fieldSelector=status.podIP%3D10.0.0.7&limit=500" => {
                let mut ended = scripted::pod("shop", "job-1");
                ended["status"]["phase"] = "Succeeded".into();
                scripted::list(&[ended, scripted::pod("shop", "web-0")])
            }
            path if path.starts_with("/api/v1/pods?") => scripted::list(&[]),
            _ => (403, json!({"message": "pods is forbidden"})),
        })
    }

    #[tokio::test]
    async fn a_pod_that_is_not_there_is_answered_with_those_that_are() {
        let error = find(&shop(), "shop", "web-1").await.unwrap_err().to_string();
        assert_eq!(error, "there is no pod web-1 in namespace shop; near ones are web-0");
        let error = find(&shop(), "other", "web-1").await.unwrap_err().to_string();
        assert!(error.contains("pods is forbidden: a Role in namespace other with"), "{error}");
    }

    #[tokio::test]
    async fn a_pod_without_a_sidecar_says_what_it_has() {
        let error = find(&shop(), "shop", "db-0").await.unwrap_err().to_string();
        assert!(error.contains("its containers are postgres"), "{error}");
        assert_eq!(find(&shop(), "shop", "web-0").await.unwrap().named(), "shop/web-0");
    }

    #[tokio::test]
    async fn a_pod_is_found_by_the_address_it_has_now() {
        assert_eq!(at_address(&shop(), "10.0.0.7").await.unwrap().named(), "shop/web-0");
        let error = at_address(&shop(), "10.0.0.8").await.unwrap_err().to_string();
        assert!(error.contains("no pod with a sidecar has address 10.0.0.8 now"), "{error}");
    }

    #[test]
    fn near_names_begin_alike_or_hold_what_was_asked() {
        let names = || ["web-7d4-abc", "web-7d4-xyz", "old-web", "mail"].map(str::to_owned).to_vec();
        assert_eq!(near("web", names()), ["web-7d4-abc", "web-7d4-xyz", "old-web"]);
        assert_eq!(near("web-7d4-abd", names()), ["web-7d4-abc", "web-7d4-xyz"]);
        assert!(near("queue", names()).is_empty());
    }

    #[test]
    fn a_sidecar_that_does_not_run_says_why() {
        let mut pod = scripted::pod("shop", "web-0");
        let status = &mut pod["status"]["initContainerStatuses"][0];
        status["ready"] = false.into();
        status["restartCount"] = 3.into();
        status["state"] = json!({"waiting": {"reason": "CrashLoopBackOff"}});
        let sidecar = Sidecar::of(&serde_json::from_value(pod).unwrap()).unwrap();
        assert!(!sidecar.is_running && !sidecar.is_ready);
        assert_eq!(sidecar.trouble.as_deref(), Some("waits: CrashLoopBackOff (restarted 3 times)"));
    }
}
