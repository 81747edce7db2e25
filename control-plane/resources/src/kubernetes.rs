//! kubernetes: the core kinds, as far as a mesh reads them.

use std::collections::BTreeMap;
use std::net::IpAddr;

use policy::name::Domain;
use policy::snapshot::GRPC_PROBE_PATH;

use crate::inject::{PROXY_CONTAINER, REDIRECT_CONTAINER};
use crate::node::{Node, Read};
use crate::object::Meta;

/// A namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Namespace {
    /// Name, labels, annotations.
    pub meta: Meta,
}

/// A pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Name, labels, annotations.
    pub meta: Meta,
    /// The service account; `default` where none is written.
    pub service_account: Domain,
    /// Its containers, sidecars included (init containers, which may be sidecars, after the others) but
    /// for Tidegate's own.
    pub containers: Vec<Container>,
    /// Its addresses; none on the host's network.
    pub addresses: Vec<IpAddr>,
}

/// One container of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// Ports it says it listens on.
    pub ports: Vec<ContainerPort>,
    /// Its HTTP and gRPC probes: liveness, readiness, startup.
    pub probes: Vec<Probe>,
}

/// One port of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContainerPort {
    /// Its name.
    pub name: Option<String>,
    /// Its number.
    pub port: u16,
}

/// An HTTP probe, or a gRPC one, which is a call of [`GRPC_PROBE_PATH`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The path, `/` where none is written.
    pub path: String,
    /// The port.
    pub port: PortRef,
}

/// A port by number or by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PortRef {
    /// By number.
    Number(u16),
    /// By the name of a container's port.
    Name(String),
}

impl Pod {
    /// The number of the port `port` of this pod.
    #[must_use]
    pub fn resolve(&self, port: &PortRef) -> Option<u16> {
        match port {
            PortRef::Number(number) => Some(*number),
            PortRef::Name(name) => {
                self.ports().find(|port| port.name.as_ref() == Some(name)).map(|port| port.port)
            }
        }
    }

    /// All ports its containers name.
    pub fn ports(&self) -> impl Iterator<Item = &ContainerPort> {
        self.containers.iter().flat_map(|container| &container.ports)
    }
}

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Name, labels, annotations.
    pub meta: Meta,
    /// Labels of the pods behind it; empty selects none.
    pub selector: BTreeMap<String, String>,
    /// Its cluster addresses; none when headless.
    pub addresses: Vec<IpAddr>,
    /// The name it stands for (type ExternalName).
    pub external_name: Option<Domain>,
    /// Its TCP ports.
    pub ports: Vec<ServicePortSpec>,
}

/// One port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePortSpec {
    /// Its name; empty when it is the only one.
    pub name: String,
    /// Its number.
    pub port: u16,
    /// The pods' port.
    pub target: PortRef,
    /// How it is spoken to, `kubernetes.io/h2c`.
    pub app_protocol: Option<String>,
}

/// Some endpoints of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointSlice {
    /// Name, labels, annotations.
    pub meta: Meta,
    /// The Service (label `kubernetes.io/service-name`); without, the slice serves none.
    pub service: Option<String>,
    /// The endpoints.
    pub endpoints: Vec<SliceEndpoint>,
    /// The ports every endpoint has.
    pub ports: Vec<SlicePort>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SliceEndpoint {
    /// Its addresses, all of one machine.
    pub addresses: Vec<IpAddr>,
    /// Takes requests. Absent in the object means yes.
    pub ready: bool,
    /// Still answers. Absent means as `ready`.
    pub serving: bool,
    /// On its way out.
    pub terminating: bool,
    /// The pod.
    pub pod: Option<String>,
    /// The zone.
    pub zone: Option<String>,
}

/// One port of a slice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlicePort {
    /// The Service port's name.
    pub name: String,
    /// The endpoints' port number.
    pub port: u16,
}

impl Namespace {
    pub(crate) fn read(root: &Node<'_>) -> Read<Self> {
        Ok(Self { meta: Meta::read(root)? })
    }
}

impl Pod {
    pub(crate) fn read(root: &Node<'_>) -> Read<Self> {
        let spec = root.need("spec")?;
        let account = spec.get("serviceAccountName")?.or(spec.get("serviceAccount")?);
        let service_account = match account {
            Some(node) => node.parsed()?,
            None => Domain::new("default").map_err(|error| spec.fault(error.to_string()))?,
        };
        let mut containers = Vec::new();
        for node in spec.items("containers")?.into_iter().chain(spec.items("initContainers")?) {
            // The sidecar's own ports are none of the workload's.
            if !matches!(node.text_or("name", "")?.as_str(), PROXY_CONTAINER | REDIRECT_CONTAINER) {
                containers.push(Container::read(&node)?);
            }
        }
        let mut addresses: Vec<IpAddr> = Vec::new();
        if let Some(status) = root.get("status")? {
            let more = status.each("podIPs", |node| node.need("ip")?.parsed())?;
            for address in status.get("podIP")?.map(|node| node.parsed()).transpose()?.into_iter().chain(more)
            {
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        // On the host's network the address is the node's, which says nothing of one pod.
        if spec.get("hostNetwork")?.map_or(Ok(false), |node| node.flag())? {
            addresses.clear();
        }
        Ok(Self { meta: Meta::read(root)?, service_account, containers, addresses })
    }
}

impl Container {
    fn read(node: &Node<'_>) -> Read<Self> {
        let mut container = Self::default();
        for port in node.items("ports")? {
            if is_tcp(&port)? {
                let name = port.text_of("name")?;
                container.ports.push(ContainerPort { name, port: port.need("containerPort")?.port()? });
            }
        }
        for key in ["livenessProbe", "readinessProbe", "startupProbe"] {
            let Some(probe) = node.get(key)? else { continue };
            if let Some(get) = probe.get("httpGet")? {
                let path = get.text_or("path", "/")?;
                container.probes.push(Probe { path, port: port_ref(&get.need("port")?)? });
            }
            if let Some(grpc) = probe.get("grpc")? {
                let port = PortRef::Number(grpc.need("port")?.port()?);
                container.probes.push(Probe { path: GRPC_PROBE_PATH.to_owned(), port });
            }
        }
        Ok(container)
    }
}

impl Service {
    pub(crate) fn read(root: &Node<'_>) -> Read<Self> {
        let spec = root.need("spec")?;
        let mut addresses = Vec::new();
        let single = spec.get("clusterIP")?;
        for node in single.into_iter().chain(spec.items("clusterIPs")?) {
            if !matches!(node.text()?, "" | "None") {
                let address = node.parsed()?;
                if !addresses.contains(&address) {
                    addresses.push(address);
                }
            }
        }
        let external = spec.text_or("type", "ClusterIP")? == "ExternalName";
        let external_name = match external {
            true => {
                let node = spec.need("externalName")?;
                let name = node.text()?.trim_end_matches('.').to_ascii_lowercase();
                Some(Domain::new(&name).map_err(|error| node.fault(error.to_string()))?)
            }
            false => None,
        };
        let mut ports = Vec::new();
        for port in spec.items("ports")? {
            if is_tcp(&port)? {
                ports.push(ServicePortSpec::read(&port)?);
            }
        }
        let selector = spec.text_map("selector")?;
        Ok(Self { meta: Meta::read(root)?, selector, addresses, external_name, ports })
    }
}

impl ServicePortSpec {
    fn read(node: &Node<'_>) -> Read<Self> {
        let port = node.need("port")?.port()?;
        let target = match node.get("targetPort")? {
            // 0 is what an unset field looks like after a round through a typed client.
            Some(target) if target.value.as_u64() != Some(0) => port_ref(&target)?,
            _ => PortRef::Number(port),
        };
        Ok(Self { name: node.text_or("name", "")?, port, target, app_protocol: node.text_of("appProtocol")? })
    }
}

impl EndpointSlice {
    pub(crate) fn read(root: &Node<'_>) -> Read<Self> {
        let meta = Meta::read(root)?;
        let service = meta.labels.get("kubernetes.io/service-name").cloned();
        // An endpoint by name has no address a proxy could dial.
        let named = root.text_or("addressType", "IPv4")? == "FQDN";
        let endpoints = if named { Vec::new() } else { root.each("endpoints", SliceEndpoint::read)? };
        let mut ports = Vec::new();
        for port in root.items("ports")? {
            // A port without a number means every port; no proxy can dial that.
            let number = port.port_of("port")?;
            if let (true, Some(number)) = (is_tcp(&port)?, number) {
                ports.push(SlicePort { name: port.text_or("name", "")?, port: number });
            }
        }
        Ok(Self { meta, service, endpoints, ports })
    }
}

impl SliceEndpoint {
    fn read(node: &Node<'_>) -> Read<Self> {
        let conditions = node.get("conditions")?;
        let condition = |key: &str| match &conditions {
            Some(conditions) => conditions.get(key)?.map(|node| node.flag()).transpose(),
            None => Ok(None),
        };
        let ready = condition("ready")?.unwrap_or(true);
        let target = node.get("targetRef")?;
        let pod = match target {
            Some(target) if target.text_or("kind", "")? == "Pod" => target.text_of("name")?,
            _ => None,
        };
        Ok(Self {
            addresses: node.each("addresses", |node| node.parsed())?,
            ready,
            serving: condition("serving")?.unwrap_or(ready),
            terminating: condition("terminating")?.unwrap_or(false),
            pod,
            zone: node.text_of("zone")?,
        })
    }
}

fn is_tcp(port: &Node<'_>) -> Read<bool> {
    Ok(port.text_or("protocol", "TCP")? == "TCP")
}

fn port_ref(node: &Node<'_>) -> Read<PortRef> {
    if node.value.is_number() {
        return Ok(PortRef::Number(node.port()?));
    }
    let text = node.text()?;
    Ok(match policy::name::parse_port(text) {
        Ok(number) => PortRef::Number(number),
        Err(_) => PortRef::Name(text.to_owned()),
    })
}
