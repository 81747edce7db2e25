//! choose: which proxy is asked: one at an address, one in a pod, the one that keeps a message, or all.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{bail, ensure};
use clap::Args;

use super::{At, Output};
use crate::ask::{AdminPort, address};
use crate::kubeconfig::Kubeconfig;
use crate::pods;

/// Where a proxy beside us answers.
const BESIDE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 4191);

/// Which proxy is asked, and how it is told.
#[derive(Debug, Args)]
pub(crate) struct Which {
    /// The admin address of the proxy; default: 127.0.0.1:4191.
    #[arg(long, value_name = "IP:PORT", env = "TIDEGATE_PROXY", global = true, value_parser = address)]
    proxy: Option<SocketAddr>,
    /// The pod of the proxy, reached through the API server. Goes before --proxy.
    #[arg(long, value_name = "[NAMESPACE/]NAME", global = true)]
    pod: Option<String>,
    /// The pod's namespace; default: that of the context.
    #[arg(short, long, value_name = "NAME", global = true)]
    namespace: Option<String>,
    #[command(flatten)]
    cluster: Kubeconfig,
    /// A table for people, or JSON for programs.
    #[arg(short, long, value_enum, default_value_t = Output::Table, global = true)]
    output: Output,
}

impl Which {
    fn at(&self, port: AdminPort) -> At {
        At { port, output: self.output }
    }

    /// The one that was named.
    ///
    /// # Errors
    /// When a cluster was named and no pod; when the pod has no proxy or is not there.
    pub(super) async fn one(&self) -> anyhow::Result<At> {
        if let Some(pod) = &self.pod {
            let client = self.cluster.client().await?;
            let (namespace, name) = self.name(pod, client.default_namespace())?;
            let sidecar = pods::find(&client, namespace, name).await?;
            return Ok(self.at(sidecar.port(&client)));
        }
        ensure!(
            self.namespace.is_none() && !self.cluster.is_given(),
            "which pod? --pod names it; --all-pods asks all, where a command has it"
        );
        Ok(self.at(AdminPort::At(self.proxy.unwrap_or(BESIDE))))
    }

    /// The one that keeps the message of this id, unless one was named. The id names the pod by its
    /// address, which is looked up where there is a cluster; one on loopback is of no cluster.
    ///
    /// # Errors
    /// As [`Which::one`]; also when no pod has that address now.
    pub(super) async fn keeping(&self, id: &str) -> anyhow::Result<At> {
        let holder = holder(id).filter(|holder| !holder.is_loopback());
        let (None, None, Some(holder), true) = (&self.pod, self.proxy, holder, self.cluster.is_there())
        else {
            return self.one().await;
        };
        let client = self.cluster.client().await?;
        let sidecar = pods::at_address(&client, &holder.to_string()).await?;
        Ok(self.at(sidecar.port(&client)))
    }

    /// Every one of the namespace, or of the mesh where none was named.
    ///
    /// # Errors
    /// When one was named; when there is none; when pods may not be listed.
    pub(super) async fn all(&self) -> anyhow::Result<Vec<(String, At)>> {
        ensure!(self.pod.is_none(), "--pod names one, --all-pods asks all: give one of them");
        let client = self.cluster.client().await?;
        let sidecars = pods::all(&client, self.namespace.as_deref()).await?;
        if sidecars.is_empty() {
            let place =
                self.namespace.as_ref().map_or("the cluster".to_owned(), |name| format!("namespace {name}"));
            bail!("no pod of {place} runs with a sidecar");
        }
        let named = |sidecar: pods::Sidecar| (sidecar.named(), self.at(sidecar.port(&client)));
        Ok(sidecars.into_iter().map(named).collect())
    }

    pub(super) fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    fn name<'a>(&'a self, pod: &'a str, default: &'a str) -> anyhow::Result<(&'a str, &'a str)> {
        let Some((namespace, name)) = pod.split_once('/') else {
            return Ok((self.namespace.as_deref().unwrap_or(default), pod));
        };
        let other = self.namespace.as_deref().filter(|other| *other != namespace);
        ensure!(other.is_none(), "--pod {pod} names another namespace than --namespace does");
        Ok((namespace, name))
    }
}

/// The address of the pod that keeps the message of this id, which its last 32 bits are.
pub(super) fn holder(id: &str) -> Option<Ipv4Addr> {
    let (_, last) = id.rsplit_once('-').filter(|_| id.len() == 36)?;
    let bits = u64::from_str_radix(last, 16).ok().filter(|_| last.len() == 12)?;
    u32::try_from(bits & u64::from(u32::MAX)).ok().map(Ipv4Addr::from_bits)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        which: Which,
    }

    fn which(args: &str) -> Which {
        Command::parse_from(std::iter::once("tidegate").chain(args.split_whitespace())).which
    }

    #[test]
    fn an_id_names_the_address_of_its_holder() {
        assert_eq!(holder("01900000-0001-7400-8000-00050a000007"), Some(Ipv4Addr::new(10, 0, 0, 7)));
        assert_eq!(holder("shop/orders"), None);
        assert_eq!(holder("01900000-0001-7400-8000-00050a00000"), None);
    }

    #[test]
    fn what_is_no_address_is_refused_with_one_that_is() {
        for wrong in ["nonsense", "localhost:4191", "127.0.0.1"] {
            let parsed = Command::try_parse_from(["tidegate", "--proxy", wrong]);
            let said = parsed.err().unwrap().to_string();
            assert!(said.contains("IP:PORT is expected, such as 127.0.0.1:4191"), "{said}");
        }
    }

    #[test]
    fn a_pod_is_named_with_its_namespace_once() {
        assert_eq!(which("").name("web-0", "of-context").unwrap(), ("of-context", "web-0"));
        assert_eq!(which("-n shop").name("web-0", "default").unwrap(), ("shop", "web-0"));
        assert_eq!(which("").name("shop/web-0", "default").unwrap(), ("shop", "web-0"));
        assert!(which("-n other").name("shop/web-0", "default").is_err());
    }

    #[tokio::test]
    async fn a_namespace_without_a_pod_is_no_address() {
        let error = which("-n shop").one().await.err().unwrap().to_string();
        assert!(error.contains("--pod names it"), "{error}");
        let at = which("--proxy 127.0.0.1:9").keeping("01900000-0001-7400-8000-00050a000007").await.unwrap();
        assert_eq!(at.port.to_string(), "127.0.0.1:9");
    }
}
