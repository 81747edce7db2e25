//! sink: the Service an AsyncPolicy's dead letters are sent on to, a Destination as Knative writes it.

use policy::limits;
use policy::name::{Label, ServicePort};
use policy::queue::Sink;

use crate::kubernetes::Service;
use crate::node::{Node, Read};

/// A `deadLetterSink` as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkRef {
    /// The Service's namespace.
    pub namespace: Label,
    /// The Service.
    pub name: Label,
    /// Its port; the only one where none is written.
    pub port: Option<u16>,
    /// Path and query there.
    pub uri: String,
}

impl SinkRef {
    /// Reads `deadLetterSink`; `own` is the policy's namespace.
    pub(crate) fn read(node: &Node<'_>, own: &Label) -> Read<Self> {
        node.only(&["ref", "uri"], &[])?;
        let to = node.need("ref")?;
        to.only(&["apiVersion", "kind", "name", "namespace", "port"], &[])?;
        to.need("kind")?.one_of(&[("Service", ())], &["Topic"])?;
        if let Some(version) = to.get("apiVersion")? {
            version.one_of(&[("v1", ())], &[])?;
        }
        Ok(Self {
            namespace: to.label_of("namespace")?.unwrap_or_else(|| own.clone()),
            name: to.need("name")?.parsed()?,
            port: to.port_of("port")?,
            uri: node.get("uri")?.map_or_else(|| Ok("/".to_owned()), |uri| path(&uri))?,
        })
    }

    /// Where it is: `service` is the one of its name, if there is one, `granted` whether policies of
    /// namespace `from` may refer to it.
    ///
    /// # Errors
    /// Why nothing can be sent there.
    pub fn resolve(&self, from: &Label, service: Option<&Service>, granted: bool) -> Result<Sink, String> {
        let Self { namespace, name, port, uri } = self;
        if namespace != from && !granted {
            return Err(format!(
                "namespace {namespace} does not let AsyncPolicies of {from} refer to Service {name}: it takes \
                 a ReferenceGrant there"
            ));
        }
        let what = format!("Service {namespace}/{name}");
        let service = service.ok_or_else(|| format!("there is no {what}"))?;
        if service.external_name.is_some() {
            return Err(format!("{what} is an ExternalName, which has no endpoints"));
        }
        let ports: Vec<u16> = service.ports.iter().map(|spec| spec.port).collect();
        let all = ports.iter().map(u16::to_string).collect::<Vec<_>>().join(", ");
        let port = match (*port, ports.as_slice()) {
            (_, []) => return Err(format!("{what} has no port")),
            (Some(port), ports) if ports.contains(&port) => port,
            (Some(port), _) => return Err(format!("{what} has no port {port}; it has {all}")),
            (None, [only]) => *only,
            (None, _) => return Err(format!("{what} has ports {all}: write which one (port)")),
        };
        let service = ServicePort::new(namespace.clone(), name.clone(), port);
        Ok(Sink { service: service.map_err(|error| error.to_string())?, uri: uri.clone() })
    }
}

/// A relative reference from the root of the Service (RFC 3986 §4.2, an absolute path with its query).
fn path(node: &Node<'_>) -> Read<String> {
    let text = node.text()?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:@/?".contains(&byte);
    if !text.starts_with('/') || text.starts_with("//") || !text.bytes().all(allowed) {
        let remedy = "name the Service under ref, and write a path of it, as in \"/dead-letters\"";
        return Err(node.fault(format!("{text:?} is no path: {remedy}")));
    }
    if text.len() > limits::MESSAGE_KEY_BYTES_MAX {
        return Err(node.fault(format!(
            "has {} bytes, {} are allowed",
            text.len(),
            limits::MESSAGE_KEY_BYTES_MAX
        )));
    }
    Ok(text.to_owned())
}
