//! sink: the Service an AsyncPolicy's dead letters are sent on to, a Destination as Knative writes it.

use policy::name::{Label, ServicePort};
use policy::queue::Sink;

use crate::form::{LABEL, PATH};
use crate::kubernetes::Service;
use crate::node::{Node, Read};
use crate::schema::Schema;

const SINK: [&str; 2] = ["ref", "uri"];
const REF: [&str; 5] = ["apiVersion", "kind", "name", "namespace", "port"];
const KINDS: [(&str, ()); 1] = [("Service", ())];
const VERSIONS: [(&str, ()); 1] = [("v1", ())];
/// Where nothing else is written.
const ROOT: &str = "/";

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
        node.only(&SINK, &[])?;
        let to = node.need("ref")?;
        to.only(&REF, &[])?;
        to.need("kind")?.one_of(&KINDS, &["Topic"])?;
        if let Some(version) = to.get("apiVersion")? {
            version.one_of(&VERSIONS, &[])?;
        }
        Ok(Self {
            namespace: to.label_of("namespace")?.unwrap_or_else(|| own.clone()),
            name: to.need("name")?.parsed()?,
            port: to.port_of("port")?,
            uri: node.get("uri")?.map_or(Ok(ROOT), |uri| uri.formed(&PATH))?.to_owned(),
        })
    }

    /// The schema of `deadLetterSink`.
    pub(crate) fn schema() -> Schema {
        let to = Schema::object(
            &REF,
            [
                ("apiVersion", Schema::one_of(&VERSIONS).or("v1").says("The Service's API version.")),
                ("kind", Schema::one_of(&KINDS).says("The kind: Service.")),
                ("name", Schema::form(&LABEL).says("The Service's name.")),
                ("namespace", Schema::form(&LABEL).says(
                    "Its namespace; the policy's own where none is written. Another one needs a ReferenceGrant there.",
                )),
                ("port", Schema::port().says("Its port; needed where it has several.")),
            ],
        );
        let uri = Schema::form(&PATH).or(ROOT).says("Path and query there. Example: /dead-letters.");
        Schema::object(&SINK, [("ref", to.need(&["kind", "name"]).says("The Service.")), ("uri", uri)])
            .need(&["ref"])
            .says(
                "The Service that dead letters are sent on to. Without one, and while it cannot be found, the \
                 built-in dead letter keeps them on the volume of the queue.",
            )
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
