//! inject: a pod as it was asked for, given its sidecar, or told why not.
//!
//! Pure: one object and what is known around it in, one [`Verdict`] out. The webhook and
//! `tidegate inject` both come here, so that a file and a cluster give the same pod.
//!
//! Two containers go in front of the pod's own init containers:
//!
//! 1. `tidegate-redirect` writes the network namespace's rules as uid 0 with NET_ADMIN and nothing
//!    else, proves them with a connection, and ends.
//! 2. `tidegate-proxy`, a native sidecar (an init container with `restartPolicy: Always`, Kubernetes
//!    1.29), is started next. From its startup probe's first success on, the pod's own init
//!    containers have the network through it; it goes after the application has gone, and a Job ends
//!    without it.
//!
//! The application's own fields are left as they are; the one exception is asked for by name
//! (`tidegate.dev/prestop-sleep`).
//!
//! Who asks decides how loud a no is. A pod that itself says `tidegate.dev/inject: enabled` and cannot
//! be given a sidecar is refused; one that only lies in a namespace that says so runs without, with a
//! warning and the annotation `tidegate.dev/not-injected`, because a node agent on the host's network
//! must not be lost to a label.

mod annotations;
mod containers;
mod file;
mod obstacle;
mod settings;
mod template;

use serde_json::{Map, Value, json};

use annotations::Wishes;
pub use file::{FileError, InjectedFile, inject_file};
pub use settings::{Settings, SettingsError};
pub use template::{InjectedDocument, inject_document};

/// Asks for a sidecar, or wants none: on a pod, or on its namespace; as an annotation or a label.
pub const INJECT: &str = "tidegate.dev/inject";
/// Set on a pod with a sidecar: the version that was put in.
pub const INJECTED: &str = "tidegate.dev/injected";
/// Set on a pod whose namespace asked for a sidecar that it cannot have: why.
pub const NOT_INJECTED: &str = "tidegate.dev/not-injected";
/// The sidecar's container.
pub const PROXY_CONTAINER: &str = "tidegate-proxy";
/// The init container that writes the rules.
pub const REDIRECT_CONTAINER: &str = "tidegate-redirect";
/// The ConfigMap of trust anchors, in every namespace with sidecars.
pub const ANCHORS_CONFIG_MAP: &str = "tidegate-anchors";

/// What the kubelet sets on the mirror of a static pod.
const MIRROR: &str = "kubernetes.io/config.mirror";

/// What is known around a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// What its namespace says under [`INJECT`], as an annotation or else a label.
    pub namespace_says: Option<String>,
    /// The API server's minor version, when it is known: 36 of 1.36.
    pub server_minor: Option<u32>,
}

impl Surroundings {
    /// Around a pod in a namespace with these `metadata`.
    #[must_use]
    pub fn of_namespace(metadata: &Value, server_minor: Option<u32>) -> Self {
        Self { namespace_says: word(metadata), server_minor }
    }
}

/// What became of a pod.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// It has a sidecar now.
    Injected {
        /// As it is to be.
        pod: Value,
        /// What whoever asked for it should know.
        warnings: Vec<String>,
    },
    /// Its namespace asked for a sidecar that it cannot have: it runs without.
    LeftOut {
        /// As it is to be: with the annotation that says why.
        pod: Value,
        /// Why.
        why: String,
    },
    /// It stays as it is.
    Unchanged(Unchanged),
    /// It asked for what cannot be, and is not to run: why, and what helps.
    Refused(String),
}

/// Why a pod stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unchanged {
    /// Nobody asked.
    #[error("nobody asked for a sidecar")]
    NotAsked,
    /// It said that it wants none.
    #[error("it says tidegate.dev/inject: disabled")]
    Disabled,
    /// It has one.
    #[error("it has a sidecar already")]
    Already,
    /// The kubelet started it from a file, and only tells of it.
    #[error("it is the mirror of a static pod, which runs already")]
    Mirror,
}

/// Who asked for a sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    Pod,
    Namespace,
}

/// Gives `pod` its sidecar, if somebody asked for one and it can be.
#[must_use]
pub fn inject(pod: &Value, around: &Surroundings, settings: &Settings) -> Verdict {
    if !pod["spec"].is_object() {
        return Verdict::Refused("it has no spec".to_owned());
    }
    if pod["metadata"]["annotations"].get(MIRROR).is_some() {
        return Verdict::Unchanged(Unchanged::Mirror);
    }
    let asked = match asked(pod, around) {
        Ok(Ok(asked)) => asked,
        Ok(Err(why)) => return Verdict::Unchanged(why),
        Err(wrong) => return Verdict::Refused(wrong),
    };
    if has_sidecar(pod) {
        return Verdict::Unchanged(Unchanged::Already);
    }
    let wishes = match Wishes::read(pod, settings) {
        Ok(wishes) => wishes,
        Err(wrong) => return Verdict::Refused(wrong.join("; ")),
    };
    match obstacle::find(pod, &wishes, around) {
        None => {
            let warnings = wishes.warnings.iter().cloned().chain(obstacle::warnings(pod, &wishes));
            let warnings = warnings.collect();
            Verdict::Injected { pod: containers::put(pod, &wishes, settings), warnings }
        }
        Some(why) if asked == Asked::Pod => Verdict::Refused(format!("cannot be given a sidecar: {why}")),
        Some(why) => {
            let mut pod = pod.clone();
            annotate(&mut pod, NOT_INJECTED, &why);
            Verdict::LeftOut { pod, why }
        }
    }
}

/// The pod's own word goes before its namespace's.
fn asked(pod: &Value, around: &Surroundings) -> Result<Result<Asked, Unchanged>, String> {
    match word(&pod["metadata"]).as_deref() {
        Some("enabled") => return Ok(Ok(Asked::Pod)),
        Some("disabled") => return Ok(Err(Unchanged::Disabled)),
        Some(other) => return Err(format!("{INJECT}: {other:?} is not known: write enabled or disabled")),
        None => {}
    }
    Ok(match around.namespace_says.as_deref() {
        Some("enabled") => Ok(Asked::Namespace),
        _ => Err(Unchanged::NotAsked),
    })
}

/// What is said under [`INJECT`]: an annotation goes before a label, which webhooks select by.
fn word(metadata: &Value) -> Option<String> {
    let said = ["annotations", "labels"].into_iter().find_map(|map| metadata[map][INJECT].as_str());
    said.map(str::to_owned)
}

fn has_sidecar(pod: &Value) -> bool {
    containers_of(pod).any(|container| container["name"] == PROXY_CONTAINER)
}

/// All containers of a pod, init containers first.
fn containers_of(pod: &Value) -> impl Iterator<Item = &Value> {
    let of = |key: &str| pod["spec"][key].as_array().into_iter().flatten();
    of("initContainers").chain(of("containers"))
}

/// Sets an annotation; a pod without metadata gets some.
fn annotate(pod: &mut Value, key: &str, value: &str) {
    map_in(map_in(pod, "metadata"), "annotations")[key] = json!(value);
}

/// The map under `key` of a map, made where there is none.
fn map_in<'a>(value: &'a mut Value, key: &str) -> &'a mut Value {
    let inner = &mut value[key];
    if !inner.is_object() {
        *inner = Value::Object(Map::new());
    }
    inner
}

#[cfg(test)]
mod tests;
