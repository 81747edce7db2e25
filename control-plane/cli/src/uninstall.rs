//! uninstall: takes Tidegate out of a cluster, with all that its controller made.

use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use kube::Client;
use kube::api::{DeleteParams, DynamicObject, Preconditions};

use crate::cluster::{Kind, told};
use crate::install::{CONTROLLER, MANAGER};
use crate::kubeconfig::Kubeconfig;
use crate::print::{GOOD, count, paint};

/// What every object of an installation is labelled with.
const PART_OF: &str = "app.kubernetes.io/part-of=tidegate";
/// Set on a pod with a sidecar: the version that was put in.
pub(crate) const INJECTED: &str = "tidegate.dev/injected";
/// Pods that a refusal names; the others are counted.
const NAMED_MAX: usize = 10;

/// Takes Tidegate out of a cluster: its webhooks first, so that no pod waits for it, then the rest, the
/// Secrets, the Lease and the trust anchors that the controller made included.
///
/// Refuses while pods have sidecars: these would find nobody to renew their certificates. Exits 1 then,
/// and nothing was changed.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate uninstall                                  the policies stay, for another installation
  tidegate uninstall --purge-crds                     they go too
  tidegate uninstall --force                          though pods have sidecars")]
pub(crate) struct Uninstall {
    #[command(flatten)]
    kubeconfig: Kubeconfig,
    /// Where the controller runs; default: where it is found.
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
    /// Removes the CustomResourceDefinitions too, and with them every policy that was ever applied.
    #[arg(long)]
    purge_crds: bool,
    /// Goes on though pods have sidecars; these lose their certificates within a day.
    #[arg(long)]
    force: bool,
}

impl Uninstall {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let client = self.kubeconfig.client().await?;
        let binding = Kind::new("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", None);
        let found = binding.get(&client, CONTROLLER).await?;
        if let Some(release) = found.as_ref().and_then(release) {
            bail!("Helm has installed Tidegate: use helm uninstall {release}");
        }
        let namespace = self.namespace.clone().or_else(|| {
            let at = found.as_ref()?.data["subjects"][0]["namespace"].as_str()?;
            Some(at.to_owned())
        });
        let injected = injected(&client).await?;
        if !injected.is_empty() && !self.force {
            bail!("{}", refusal(&injected));
        }
        let mut removed = 0;
        for (kind, selector) in kinds(namespace.as_deref()) {
            removed += remove(&client, &kind, &selector).await?;
        }
        if self.purge_crds {
            let kind = Kind::new("apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
            removed += remove(&client, &kind, &Selector::Label).await?;
        }
        if let Some(namespace) = &namespace {
            removed += remove_namespace(&client, namespace).await?;
        }
        println!("{}", paint(GOOD, &format!("Tidegate is gone: {} removed", count(removed, "object"))));
        Ok(ExitCode::SUCCESS)
    }
}

/// `NAME -n NAMESPACE` of the Helm release that an object belongs to.
fn release(object: &DynamicObject) -> Option<String> {
    let annotations = object.metadata.annotations.as_ref()?;
    let name = annotations.get("meta.helm.sh/release-name")?;
    Some(format!("{name} -n {}", annotations.get("meta.helm.sh/release-namespace")?))
}

/// `NAMESPACE/NAME` of every pod that has a sidecar and has not ended, with the version put in.
///
/// # Errors
/// When the server does not answer or does not allow it.
pub(crate) async fn injected(client: &Client) -> anyhow::Result<Vec<(String, String)>> {
    let pods = Kind::new("v1", "Pod", None).list(client, "").await?;
    let has_ended = |pod: &DynamicObject| {
        pod.data["status"]["phase"].as_str().is_some_and(|phase| phase == "Succeeded" || phase == "Failed")
    };
    let of = |pod: DynamicObject| {
        let version = pod.metadata.annotations.as_ref()?.get(INJECTED)?.clone();
        let namespace = pod.metadata.namespace.unwrap_or_default();
        Some((format!("{namespace}/{}", pod.metadata.name.unwrap_or_default()), version))
    };
    Ok(pods.into_iter().filter(|pod| !has_ended(pod)).filter_map(of).collect())
}

fn refusal(injected: &[(String, String)]) -> String {
    let named: Vec<&str> = injected.iter().take(NAMED_MAX).map(|(pod, _)| pod.as_str()).collect();
    let more = injected.len().saturating_sub(NAMED_MAX);
    let more = if more > 0 { format!("\n  and {more} more") } else { String::new() };
    format!(
        "nothing was changed: {} with sidecars:\n  {}{more}\nTake the label or annotation tidegate.dev/inject \
         off their namespaces or pods and restart them, or go on with --force.",
        count(injected.len(), "pod"),
        named.join("\n  "),
    )
}

/// How the objects of a kind that are to go are told from others.
enum Selector {
    Label,
    Name(&'static str),
}

/// What an installation consists of, in the order in which it goes: who would make an object anew loses
/// the right to before the object goes.
fn kinds(namespace: Option<&str>) -> Vec<(Kind, Selector)> {
    let rbac = "rbac.authorization.k8s.io/v1";
    let webhooks = "admissionregistration.k8s.io/v1";
    let everywhere = |version: &str, kind: &str| (Kind::new(version, kind, None), Selector::Label);
    let mut all = vec![
        everywhere(webhooks, "MutatingWebhookConfiguration"),
        everywhere(webhooks, "ValidatingWebhookConfiguration"),
        everywhere("apps/v1", "Deployment"),
        everywhere(rbac, "ClusterRoleBinding"),
        everywhere(rbac, "RoleBinding"),
        everywhere(rbac, "Role"),
        (Kind::new("v1", "ConfigMap", None), Selector::Name("tidegate-anchors")),
    ];
    if let Some(namespace) = namespace {
        let here = Some(namespace);
        let name = Selector::Name;
        all.extend([
            (Kind::new("v1", "Secret", here), name("tidegate-issuer")),
            (Kind::new("v1", "Secret", here), name("tidegate-webhook-tls")),
            (Kind::new("coordination.k8s.io/v1", "Lease", here), name(CONTROLLER)),
            (Kind::new("v1", "Service", here), Selector::Label),
            (Kind::new("networking.k8s.io/v1", "NetworkPolicy", here), Selector::Label),
            (Kind::new("policy/v1", "PodDisruptionBudget", here), Selector::Label),
            (Kind::new("v1", "ConfigMap", here), Selector::Label),
            (Kind::new("v1", "ServiceAccount", here), Selector::Label),
        ]);
    }
    all.push(everywhere(rbac, "ClusterRole"));
    all
}

/// Removes what is selected, in whatever namespace it lies, and says so; gives how many there were.
async fn remove(client: &Client, kind: &Kind, selector: &Selector) -> anyhow::Result<usize> {
    let found = match selector {
        Selector::Label => kind.list(client, PART_OF).await?,
        Selector::Name(name) if kind.namespace.is_some() => {
            kind.get(client, name).await?.into_iter().collect()
        }
        Selector::Name(name) => kind.list_named(client, name).await?,
    };
    let mut removed = 0;
    for object in found {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let kind = Kind { namespace: object.metadata.namespace.clone(), ..kind.clone() };
        match kind.api(client).delete(name, &DeleteParams::background()).await {
            Ok(_) => println!("removed  {}", kind.named(name)),
            // Somebody was faster, such as the owner's end.
            Err(kube::Error::Api(status)) if status.code == 404 => continue,
            Err(error) => return Err(told(error).context(format!("cannot remove {}", kind.named(name)))),
        }
        removed += 1;
    }
    Ok(removed)
}

/// Removes the namespace when it was made by `tidegate install` and only our pods, which end, are in it.
async fn remove_namespace(client: &Client, name: &str) -> anyhow::Result<usize> {
    let kind = Kind::new("v1", "Namespace", None);
    let Some(namespace) = kind.get(client, name).await? else { return Ok(0) };
    let labels = namespace.metadata.labels.unwrap_or_default();
    if labels.get("app.kubernetes.io/managed-by").is_none_or(|by| by != MANAGER) {
        return Ok(0);
    }
    let others = format!("app.kubernetes.io/name!={CONTROLLER}");
    let pods = Kind::new("v1", "Pod", Some(name)).list(client, &others).await?;
    if !pods.is_empty() {
        println!("kept     {}: {} of others run there", kind.named(name), count(pods.len(), "pod"));
        return Ok(0);
    }
    // The one that was looked at, not one that has been made since.
    let exactly = Preconditions { uid: namespace.metadata.uid, ..Default::default() };
    let deletion = kind.api(client).delete(name, &DeleteParams::background().preconditions(exactly)).await;
    deletion.map_err(|error| told(error).context(format!("cannot remove {}", kind.named(name))))?;
    println!("removed  {}", kind.named(name));
    Ok(1)
}

#[cfg(test)]
mod tests;
