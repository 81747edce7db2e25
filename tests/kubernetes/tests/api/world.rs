//! world: one control plane for all cases, and controllers that ask it with the rights the chart grants.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use kubernetes::cases::Shared;
use kubernetes::{Api, Cluster, chart};
use lab::{Pod, Process, SIDECAR_UID, until};
use resources::crd_files;

/// A cold start reads large programs from the disk, and the machine may be busy.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// Whom workloads' tokens are made out to.
pub(crate) const AUDIENCE: &str = "identity.tidegate.dev";
/// What the controller is and may do, of the chart.
const RIGHTS: [&str; 3] =
    ["templates/serviceaccount.yaml", "templates/clusterrole.yaml", "templates/role.yaml"];
const SHOP: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {tidegate.dev/inject: enabled}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: web, namespace: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web-0, namespace: shop}
spec: {serviceAccountName: web, containers: [{name: web, image: nothing.test/web}]}
";

/// A control plane, and the release that stands in it now.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    /// The namespace of the release; cases have one each, since an ending namespace takes its time.
    pub(crate) namespace: &'static str,
}

impl Shared for World {
    fn raise() -> Result<Self> {
        Ok(Self { cluster: Cluster::control_plane()?, namespace: "default" })
    }
}

impl World {
    pub(crate) fn api(&self) -> &Api {
        self.cluster.api()
    }

    /// Goes over to a release of its own, with the chart's rights.
    pub(crate) fn enter(&mut self, namespace: &'static str) -> Result<()> {
        self.leave()?;
        self.namespace = namespace;
        self.cluster.kubectl(&["create", "namespace", namespace])?;
        self.grant()
    }

    /// Takes away what the release left, that of a case that failed too.
    pub(crate) fn leave(&mut self) -> Result<()> {
        let everywhere = [
            "mutatingwebhookconfiguration/tidegate-injector",
            "validatingwebhookconfiguration/tidegate-validator",
            "clusterrolebinding/tidegate-controller",
            "clusterrole/tidegate-controller",
        ];
        self.cluster.kubectl(&[&["delete", "--ignore-not-found"], &everywhere[..]].concat())?;
        if self.namespace != "default" {
            let namespace = ["delete", "namespace", "--ignore-not-found", self.namespace, "--wait=false"];
            self.cluster.kubectl(&namespace)?;
            self.namespace = "default";
        }
        let made = "--selector=app.kubernetes.io/managed-by=tidegate-controller";
        self.cluster.kubectl(&["delete", "configmap", "--all-namespaces", made]).map(drop)
    }

    /// Gives the controller its rights.
    pub(crate) fn grant(&self) -> Result<()> {
        self.cluster.apply(&self.render(&RIGHTS)?).map(drop)
    }

    /// Templates of the chart, rendered for this release.
    pub(crate) fn render(&self, templates: &[&str]) -> Result<String> {
        let only = templates.iter().flat_map(|template| ["--show-only", template]);
        let args: Vec<&str> = ["--namespace", self.namespace].into_iter().chain(only).collect();
        chart::render(&args)
    }

    /// Makes our kinds known.
    pub(crate) fn define(&self) -> Result<()> {
        let files: Vec<String> = crd_files().into_iter().map(|(_, text)| text).collect();
        self.cluster.apply(&files.join("---\n"))?;
        self.cluster
            .kubectl(&["wait", "--for=condition=Established", "crd", "--all", "--timeout=30s"])
            .map(drop)
    }

    /// Makes namespace `shop`, whose pods ask for sidecars, with pod `web-0` of account `web`.
    pub(crate) fn shop(&self) -> Result<()> {
        // The service account's own controller must have seen the namespace before a pod is taken.
        until("a namespace with a pod", PATIENCE, || Ok(self.cluster.apply(SHOP).ok().map(drop)))
    }

    /// Starts a controller in a pod of the lab, with the rights of its service account.
    pub(crate) fn controller(&self, name: &str) -> Result<(Pod, Process)> {
        let access = self.access(name)?;
        self.controller_with(name, &access, &[])
    }

    /// As [`World::controller`], with other access and more arguments.
    pub(crate) fn controller_with(&self, name: &str, access: &Path, args: &[&str]) -> Result<(Pod, Process)> {
        let pod = self.cluster.lab().pod(name, self.namespace, "tidegate-controller")?;
        let mut command = pod.binary("tidegate-controller", None)?;
        command.env("KUBECONFIG", access);
        command.args(["--kubernetes", "--namespace", self.namespace, "--pod", name]).args(args);
        let process = pod.spawn("controller", &mut command)?;
        Ok((pod, process))
    }

    /// Waits until a controller serves proxies.
    pub(crate) fn serves(&self, process: &mut Process) -> Result<()> {
        process.wait_for("tidegate-controller serves", PATIENCE)
    }

    /// How the controller's service account finds the API server and proves itself.
    pub(crate) fn access(&self, name: &str) -> Result<PathBuf> {
        let token =
            self.cluster.kubectl(&["create", "token", "tidegate-controller", "-n", self.namespace])?;
        let admin = std::fs::read_to_string(self.cluster.kubeconfig())?;
        let user = format!("users: [{{name: us, user: {{token: {}}}}}]", token.trim());
        let lines = admin.lines().map(|line| if line.starts_with("users:") { &user } else { line });
        let text: Vec<&str> = lines.collect();
        self.file(&format!("{name}.kubeconfig"), &text.join("\n"))
    }

    /// A token of an account in `shop`, bound to a pod of it, in a file.
    pub(crate) fn token(&self, account: &str, pod: &str, audience: &str) -> Result<PathBuf> {
        let args = ["create", "token", account, "-n", "shop", "--audience", audience];
        let bound = ["--bound-object-kind", "Pod", "--bound-object-name", pod];
        let token = self.cluster.kubectl(&[&args[..], &bound].concat())?;
        self.file(&format!("{}-shop.{account}.token", audience.replace([':', '/'], "-")), &token)
    }

    /// What is trusted, as a pod of `shop` would mount it.
    pub(crate) fn anchors(&self) -> Result<PathBuf> {
        let text = until("ConfigMap tidegate-anchors in shop", PATIENCE, || {
            Ok(self.text("shop", "configmap/tidegate-anchors", "anchors.pem").ok())
        })?;
        self.file("anchors.pem", &text)
    }

    /// A file that the sidecar's user may read.
    pub(crate) fn file(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.cluster.lab().folder().join(format!("{}-{name}", self.namespace));
        std::fs::write(&path, text)?;
        Ok(path)
    }

    /// Whom proxies take the controller for.
    pub(crate) fn identity(&self) -> String {
        format!("spiffe://cluster.local/ns/{}/sa/tidegate-controller", self.namespace)
    }

    /// Starts a proxy of pod `web-0`, of service account `web` in namespace `shop`, that asks this
    /// controller with this token for the identity of `account`.
    pub(crate) fn proxy(
        &self,
        (pod, controller): (&Pod, &Pod),
        account: &str,
        token: &Path,
        anchors: &Path,
    ) -> Result<Process> {
        let mut command = pod.binary("tidegate-proxy", Some(SIDECAR_UID))?;
        command.arg("--controller").arg(format!("{}:8086", controller.ip()));
        command.args(["--controller-identity", &self.identity(), "--namespace", "shop", "--pod", "web-0"]);
        command.args(["--service-account", account]).arg("--token-file").arg(token);
        command.arg("--anchors").arg(anchors);
        pod.spawn("sidecar", &mut command)
    }

    /// Runs our command line as the administrator; how it ended is the caller's to judge.
    pub(crate) fn tidegate(&self, args: &[&str]) -> Result<Output> {
        let program = lab::program("tidegate", self.cluster.lab().folder())?;
        let program = program.to_str().context("a temporary folder has a readable name")?;
        Ok(self.api().command(program).args(args).output()?)
    }

    /// A field of a Secret or ConfigMap as text; of a Secret it is decoded.
    pub(crate) fn text(&self, namespace: &str, object: &str, key: &str) -> Result<String> {
        let found = self.cluster.get(&[object, "-n", namespace])?;
        let value = found["data"][key].as_str().with_context(|| format!("{object} has no {key}"))?;
        if !object.starts_with("secret/") {
            return Ok(value.to_owned());
        }
        Ok(String::from_utf8(base64::engine::general_purpose::STANDARD.decode(value)?)?)
    }
}

pub(crate) fn an_object_that_is_wrong_is_refused_in_the_servers_words(world: &mut World) -> Result<()> {
    let wrong =
        world.cluster.apply("{apiVersion: v1, kind: Service, metadata: {name: x, namespace: default}}");
    let told = format!("{:#}", wrong.err().context("a Service without ports is refused")?);
    ensure!(told.contains("spec.ports: Required value"), "{told}");
    Ok(())
}
