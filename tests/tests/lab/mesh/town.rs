//! town: two versions of an echo server, a Service for each and one for both, and clients.

use anyhow::Result;
use lab::manifests::Port;
use lab::{Pod, Process, Sidecar};

use crate::world::World;

/// The ports of every pod here, as the conformance suite has them.
const PORTS: [(&str, u16); 3] = [("http", 80), ("http-alt", 8080), ("grpc", 7070)];

/// A cluster with the Services `echo`, `echo-v1` and `echo-v2`.
pub(super) struct Town {
    pub(super) v1: Pod,
    pub(super) v2: Pod,
    pub(super) client: Pod,
    pub(super) sidecars: Vec<Sidecar>,
    pub(super) servers: Vec<Process>,
    pub(super) world: World,
}

impl Town {
    /// A town whose servers speak HTTP on 80 and 8080.
    pub(super) fn new() -> Result<Self> {
        let mut town = Self::silent()?;
        for pod in [town.v1.clone(), town.v2.clone()] {
            for port in [80, 8080] {
                town.serve(&pod, "http_echo.py", port)?;
            }
        }
        Ok(town)
    }

    /// A town whose servers speak gRPC on 7070 through this program.
    pub(super) fn grpc(script: &str) -> Result<Self> {
        let mut town = Self::silent()?;
        for pod in [town.v1.clone(), town.v2.clone()] {
            town.serve(&pod, script, 7070)?;
        }
        Ok(town)
    }

    fn silent() -> Result<Self> {
        let world = World::new()?;
        let v1 = world.pod("echo-v1", "echo-v1", &PORTS)?;
        let v2 = world.pod("echo-v2", "echo-v2", &PORTS)?;
        let client = world.pod("client", "client", &[])?;
        let ports = ports();
        world.service("echo", 1, &ports, &[&v1, &v2])?;
        world.service("echo-v1", 11, &ports, &[&v1])?;
        world.service("echo-v2", 12, &ports, &[&v2])?;
        let sidecars = [&v1, &v2, &client].map(|pod| world.sidecar(pod));
        let sidecars = sidecars.into_iter().collect::<Result<_>>()?;
        Ok(Self { v1, v2, client, sidecars, servers: Vec::new(), world })
    }

    fn serve(&mut self, pod: &Pod, script: &str, port: u16) -> Result<()> {
        let listen = format!("0.0.0.0:{port}");
        self.servers.push(pod.serve(script, &["--listen", &listen, "--name", pod.name()])?);
        Ok(())
    }

    /// Whom each case is asked from.
    pub(super) fn clients(&self) -> [&Pod; 2] {
        [&self.client, &self.v1]
    }

    /// Puts a route in force, or replaces it: its spec below `parentRefs`, attached to `parent`.
    pub(super) fn route(&self, name: &str, parent: &str, rules: &str) -> Result<()> {
        self.world.put(&format!("route-{name}"), &route("HTTPRoute", "shop", name, parent, rules))
    }

    /// The same for a GRPCRoute.
    pub(super) fn grpc_route(&self, name: &str, parent: &str, rules: &str) -> Result<()> {
        self.world.put(&format!("route-{name}"), &route("GRPCRoute", "shop", name, parent, rules))
    }

    /// How many requests the server of a pod's port 80 took on this path.
    pub(super) fn taken(&self, pod: &Pod, path: &str) -> Result<u64> {
        let (_, counts) = pod.get("http://127.0.0.1:80/counts")?;
        let counts: serde_json::Value = serde_json::from_str(&counts)?;
        Ok(counts["paths"][path].as_u64().unwrap_or(0))
    }

    /// Whether everything that the town began with still runs: nothing here is started again.
    pub(super) fn runs_on(&mut self) -> Result<bool> {
        let sidecars = self.sidecars.iter_mut().map(|sidecar| &mut sidecar.process);
        let mut processes = sidecars.chain([&mut self.world.controller.process]);
        processes.try_fold(true, |all, process| Ok(all && process.is_running()?))
    }
}

/// The ports of each Service.
pub(super) fn ports() -> Vec<Port> {
    PORTS
        .iter()
        .map(|(name, port)| {
            Port::new(name, *port, *port).speaking(if *name == "grpc" { "grpc" } else { "http" })
        })
        .collect()
}

/// A route. `parent` is flow YAML such as `name: echo, port: 80`; `rules` is the list below `rules:`.
pub(super) fn route(kind: &str, namespace: &str, name: &str, parent: &str, rules: &str) -> String {
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: {kind}
metadata: {{ name: {name}, namespace: {namespace} }}
spec:
  parentRefs:
  - {{ group: '', kind: Service, {parent} }}
  rules:
{rules}
"
    )
}
