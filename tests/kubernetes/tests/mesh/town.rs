//! town: two nodes, the installation, and the namespaces and pods that the cases share.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kubernetes::cases::Shared;
use kubernetes::{Api, Ground, chart};
use lab::until;
use serde_json::{Value, json};

use crate::objects;

/// How long anything may take that takes a second or two where nothing else runs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The namespace with sidecars that most cases are in.
pub(crate) const SHOP: &str = "shop";
/// Another one with sidecars.
pub(crate) const EDGE: &str = "edge";
/// One without.
pub(crate) const PLAIN: &str = "plain";
/// Lines of each log that the account of a failed case shows.
const TAIL: &str = "--tail=25";

/// The cluster.
pub(crate) struct Town {
    pub(crate) ground: Ground,
    /// All objects from before the installation.
    before: BTreeSet<String>,
}

impl Shared for Town {
    /// Starts the cluster, installs the chart, and waits until the pods that the cases share are ready.
    fn raise() -> Result<Self> {
        let ground = Ground::with_nodes(2)?;
        let api = ground.api().clone();
        crate::gateway::install(&api)?;
        api.kubectl(&["create", "namespace", chart::NAMESPACE])?;
        let before = everything(&api)?;
        let town = Self { ground, before };
        town.helm("install", &[])?;
        for (name, inject) in [(SHOP, true), (EDGE, true), (PLAIN, false)] {
            api.apply(&objects::namespace(name, inject))?;
        }
        let server = objects::deployment(SHOP, "orders", &objects::nginx());
        let list = [
            objects::account(SHOP, "web"),
            objects::account(SHOP, "orders"),
            objects::account(EDGE, "web"),
            server,
            objects::service(SHOP, "orders", "orders"),
            objects::deployment(SHOP, "web", &objects::client()),
            objects::deployment(EDGE, "web", &objects::client()),
            objects::pod(PLAIN, "web", &objects::client()),
        ];
        town.apply(&list)?;
        for (namespace, name) in [(SHOP, "orders"), (SHOP, "web"), (EDGE, "web")] {
            if let Err(why) = town.rolled_out(namespace, name) {
                return Err(why.context(town.account()));
            }
        }
        Ok(town)
    }

    /// What the controller and the sidecars say.
    fn account(&self) -> String {
        let ask = |args: &[&str]| self.api().kubectl(args).unwrap_or_else(|why| format!("{why:#}\n"));
        let mut said = ask(&["get", "pods", "--all-namespaces", "-o", "wide"]);
        said += &ask(&["get", "events", "--all-namespaces", "--field-selector", "type=Warning"]);
        let controllers = "app.kubernetes.io/name=tidegate-controller";
        said += &ask(&["logs", "-n", chart::NAMESPACE, "-l", controllers, "--prefix", TAIL]);
        for namespace in [SHOP, EDGE] {
            let pods = ask(&["get", "pods", "-n", namespace, "-o", "name"]);
            for pod in pods.lines().filter(|line| line.starts_with("pod/")) {
                said += &ask(&["logs", "-n", namespace, pod, "-c", "tidegate-proxy", "--prefix", TAIL]);
            }
        }
        said
    }
}

impl Town {
    /// `helm install` or `helm upgrade`, and waits until it is rolled out.
    pub(crate) fn helm(&self, verb: &str, more: &[&str]) -> Result<()> {
        let folder = chart::folder();
        let (name, tag) = self.ground.image().rsplit_once(':').context("an image has a tag")?;
        let image = format!("image.repository={name},image.tag={tag},image.pullPolicy=IfNotPresent");
        let own = [verb, "tidegate", &folder, "--namespace", chart::NAMESPACE, "--set-string", &image];
        // Of the kinds too nothing is to be left.
        let all = [&own[..], &["--set", "crds.keep=false", "--wait", "--timeout", "180s"], more].concat();
        match self.api().helm(&all) {
            Ok(_) => Ok(()),
            Err(why) => Err(why.context(self.account())),
        }
    }

    /// How the cluster is asked.
    pub(crate) fn api(&self) -> &Api {
        self.ground.api()
    }

    /// Applies objects, once the webhook and the namespace's service account are there.
    pub(crate) fn apply(&self, list: &[Value]) -> Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": list}).to_string();
        let mut last = None;
        let applied = until("the objects to be taken", PATIENCE, || match self.api().apply(&list) {
            Ok(_) => Ok(Some(())),
            Err(why) => {
                last = Some(why);
                Ok(None)
            }
        });
        applied.map_err(|waited| last.map_or(waited, |why| why))
    }

    /// Waits until a Deployment or StatefulSet has all of its newest pods ready.
    pub(crate) fn rolled_out(&self, namespace: &str, name: &str) -> Result<()> {
        let name = if name.contains('/') { name.to_owned() } else { format!("deployment/{name}") };
        self.api().kubectl(&["rollout", "status", &name, "-n", namespace, "--timeout=120s"]).map(drop)
    }

    /// Sets how many pods a Deployment has, and waits for it.
    pub(crate) fn scale(&self, namespace: &str, name: &str, count: u8) -> Result<()> {
        let replicas = format!("--replicas={count}");
        self.api().kubectl(&["scale", &format!("deployment/{name}"), "-n", namespace, &replicas])?;
        self.rolled_out(namespace, name)?;
        until(&format!("{count} pods of {name}"), PATIENCE, || {
            Ok((self.pods(namespace, name)?.len() == usize::from(count)).then_some(()))
        })
    }

    /// The pods of this `app` there are, those that end included.
    pub(crate) fn pods(&self, namespace: &str, app: &str) -> Result<Vec<Value>> {
        let list = self.api().get(&["pods", "-n", namespace, "-l", &format!("app={app}")])?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// The name of the one pod of this `app` that does not end.
    pub(crate) fn pod(&self, namespace: &str, app: &str) -> Result<String> {
        let pods = self.pods(namespace, app)?;
        let mut live = pods.iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let pod = live.next().with_context(|| format!("no pod of {app} in {namespace}"))?;
        Ok(pod["metadata"]["name"].as_str().context("a pod has a name")?.to_owned())
    }

    /// Runs a command in the application's container.
    pub(crate) fn exec(&self, namespace: &str, of: &str, command: &[&str]) -> Result<String> {
        self.api().kubectl(&[&["exec", "-n", namespace, of, "-c", "app", "--"], command].concat())
    }

    /// What a sidecar counts.
    pub(crate) fn metrics(&self, namespace: &str, pod: &str) -> Result<String> {
        let path = format!("/api/v1/namespaces/{namespace}/pods/{pod}:4191/proxy/metrics");
        self.api().kubectl(&["get", "--raw", &path])
    }

    /// The sum of the counters whose line begins with `name` and holds all these words.
    pub(crate) fn counted(&self, namespace: &str, pod: &str, name: &str, words: &[&str]) -> Result<f64> {
        let text = self.metrics(namespace, pod)?;
        let lines = text.lines().filter(|line| line.starts_with(name));
        let meant = lines.filter(|line| words.iter().all(|word| line.contains(word)));
        Ok(meant.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
    }

    /// Every object that was not there before the installation.
    pub(crate) fn added(&self) -> Result<BTreeSet<String>> {
        Ok(everything(self.api())?.difference(&self.before).cloned().collect())
    }
}

/// The name of every object there is, but for those that come and go by themselves.
pub(crate) fn everything(api: &Api) -> Result<BTreeSet<String>> {
    let kinds = api.kubectl(&["api-resources", "--verbs=list", "--output=name"])?;
    let kinds: Vec<&str> = kinds.split_whitespace().filter(|kind| !kind.starts_with("events")).collect();
    ensure!(!kinds.is_empty(), "the server has no kinds");
    let list = api.get(&[&kinds.join(","), "--all-namespaces"])?;
    let items = list["items"].as_array().context("a list has items")?;
    let name = |item: &Value| {
        let meta = &item["metadata"];
        format!("{} {} {}", item["kind"], meta["namespace"], meta["name"])
    };
    Ok(items.iter().map(name).collect())
}
