//! world: a small cluster with a controller, filled pod by pod.

use std::net::Ipv4Addr;

use anyhow::Result;
use lab::manifests::{self, Port};
use lab::{Controller, Lab, Pod, Sidecar, SidecarOptions};

/// A cluster with the namespace `shop`.
pub(crate) struct World {
    pub(crate) lab: Lab,
    pub(crate) controller: Controller,
}

impl World {
    pub(crate) fn new() -> Result<Self> {
        Self::with(&[])
    }

    /// With more arguments of the controller.
    pub(crate) fn with(args: &[&str]) -> Result<Self> {
        let lab = Lab::new()?;
        let controller = lab.controller_with(args)?;
        let world = Self { lab, controller };
        world.put("namespace-shop", &manifests::namespace("shop"))?;
        Ok(world)
    }

    /// Puts an object in force, or replaces it.
    pub(crate) fn put(&self, name: &str, yaml: &str) -> Result<()> {
        self.controller.write_manifest(name, yaml)
    }

    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        self.controller.remove_manifest(name)
    }

    /// A pod of namespace `shop`; its service account bears the name of its application.
    pub(crate) fn pod(&self, name: &str, app: &str, ports: &[(&str, u16)]) -> Result<Pod> {
        self.pod_in("shop", name, app, ports)
    }

    pub(crate) fn pod_in(
        &self,
        namespace: &str,
        name: &str,
        app: &str,
        ports: &[(&str, u16)],
    ) -> Result<Pod> {
        let pod = self.lab.pod(name, namespace, app)?;
        self.put(&format!("pod-{name}"), &manifests::pod(&pod, &[("app", app)], ports))?;
        Ok(pod)
    }

    /// A Service of namespace `shop` with the address 10.96.0.`last` and these endpoints, all ready.
    pub(crate) fn service(&self, name: &str, last: u8, ports: &[Port], pods: &[&Pod]) -> Result<Ipv4Addr> {
        let ip = Ipv4Addr::new(10, 96, 0, last);
        self.put(&format!("service-{name}"), &manifests::service(name, "shop", ip, &[("app", name)], ports))?;
        self.endpoints(name, ports, pods)?;
        self.lab.service(name, "shop", ip)?;
        Ok(ip)
    }

    /// Replaces the endpoints of a Service.
    pub(crate) fn endpoints(&self, service: &str, ports: &[Port], pods: &[&Pod]) -> Result<()> {
        let ready: Vec<_> = pods.iter().map(|pod| (*pod, true)).collect();
        self.put(&format!("slice-{service}"), &manifests::endpoint_slice(service, "shop", ports, &ready))
    }

    /// Starts the sidecar of a pod, redirection first, and waits until it is ready.
    pub(crate) fn sidecar(&self, pod: &Pod) -> Result<Sidecar> {
        pod.sidecar(&SidecarOptions::of(&self.controller))
    }
}
