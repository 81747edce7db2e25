//! manifest: the objects of an installation: the chart's defaults, rendered, with what was chosen put in.

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

use super::CONTROLLER;

/// `helm template` of the chart with its defaults; a test keeps it so.
const MANIFEST: &str = include_str!("../../../../manifests/install.yaml");
/// The namespace it was rendered for.
const NAMESPACE: &str = "tidegate";

/// What may be chosen; for everything else there is the chart.
#[derive(Debug, Clone, Args)]
pub(crate) struct Choices {
    /// Where the controller runs; made when it is not there.
    #[arg(short, long, value_name = "NAME", default_value = NAMESPACE, value_parser = label)]
    pub(crate) namespace: String,
    /// The image of the controller and of injected sidecars.
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// How many controllers run.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub(crate) replicas: u8,
}

/// A name as Kubernetes takes it for a namespace (RFC 1123).
fn label(text: &str) -> Result<String, String> {
    let inside = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    let right = (1..=63).contains(&text.len())
        && text.bytes().all(inside)
        && !text.starts_with('-')
        && !text.ends_with('-');
    if right {
        Ok(text.to_owned())
    } else {
        Err("no namespace may be called so: a-z, 0-9 and - inside".to_owned())
    }
}

/// The objects, in the order in which they are to be applied.
///
/// # Errors
/// When the embedded manifest is not as this program expects; a test keeps that from happening.
pub(crate) fn objects(choices: &Choices) -> anyhow::Result<Vec<Value>> {
    let mut objects: Vec<Value> =
        serde_saphyr::from_multiple(MANIFEST).context("the embedded manifest is no YAML")?;
    objects.retain(Value::is_object);
    let image = controller(&mut objects)?["spec"]["template"]["spec"]["containers"][0]["image"].clone();
    let image = image.as_str().context("the embedded controller has an image")?.to_owned();
    // The controller's name in DNS, and its identity.
    let named = |namespace: &str| {
        [format!("{CONTROLLER}.{namespace}.svc"), format!("/ns/{namespace}/sa/{CONTROLLER}")]
    };
    for object in &mut objects {
        if object["kind"] == "Namespace" {
            object["metadata"]["name"] = json!(choices.namespace);
        }
        move_to(object, &choices.namespace);
        for (default, chosen) in named(NAMESPACE).iter().zip(&named(&choices.namespace)) {
            replace(object, default, chosen);
        }
        replace(object, &image, choices.image.as_deref().unwrap_or(&image));
    }
    controller(&mut objects)?["spec"]["replicas"] = json!(choices.replicas);
    Ok(objects)
}

fn controller(objects: &mut [Value]) -> anyhow::Result<&mut Value> {
    let mut deployments = objects.iter_mut().filter(|object| object["kind"] == "Deployment");
    deployments.next().context("the embedded manifest has a Deployment")
}

/// Puts the namespace where the default one stands: as the place of an object or a reference, and among
/// the namespaces that the webhooks spare.
fn move_to(value: &mut Value, namespace: &str) {
    match value {
        Value::Object(map) => {
            if map.get("namespace").is_some_and(|it| it == NAMESPACE) {
                map.insert("namespace".to_owned(), json!(namespace));
            }
            if map.get("key").is_some_and(|key| key == "kubernetes.io/metadata.name")
                && let Some(spared) = map.get_mut("values").and_then(Value::as_array_mut)
            {
                spared.iter_mut().filter(|it| *it == NAMESPACE).for_each(|it| *it = json!(namespace));
            }
            map.values_mut().for_each(|inner| move_to(inner, namespace));
        }
        Value::Array(all) => all.iter_mut().for_each(|inner| move_to(inner, namespace)),
        _ => {}
    }
}

/// Puts `to` in the place of `from` in every text.
fn replace(value: &mut Value, from: &str, to: &str) {
    match value {
        Value::String(text) if text.contains(from) => *text = text.replace(from, to),
        Value::Object(map) => map.values_mut().for_each(|inner| replace(inner, from, to)),
        Value::Array(all) => all.iter_mut().for_each(|inner| replace(inner, from, to)),
        _ => {}
    }
}

/// The objects as one file.
///
/// # Errors
/// When one cannot be written as YAML.
pub(crate) fn yaml(objects: &[Value]) -> anyhow::Result<String> {
    let mut text = String::new();
    for object in objects {
        text.push_str("---\n");
        text.push_str(&serde_saphyr::to_string(object).context("an object cannot be written as YAML")?);
    }
    Ok(text)
}
