//! cluster: the objects of a cluster by kind and name.

use anyhow::anyhow;
use kube::Client;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams};
use serde_json::Value;

/// Objects that one answer of the server holds; more come in further answers.
const PAGE: u32 = 500;

/// A kind of object, and where it lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    pub(crate) resource: ApiResource,
    pub(crate) namespace: Option<String>,
}

impl Kind {
    /// The kind of objects of `apiVersion` in a namespace, in all of them, or in none.
    pub(crate) fn new(api_version: &str, kind: &str, namespace: Option<&str>) -> Self {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        Self { resource, namespace: namespace.map(str::to_owned) }
    }

    /// The kind and place of an object.
    pub(crate) fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let namespace = object["metadata"]["namespace"].as_str();
        Self::new(&text(&object["apiVersion"]), &text(&object["kind"]), namespace)
    }

    /// The objects of this kind.
    pub(crate) fn api(&self, client: &Client) -> Api<DynamicObject> {
        match &self.namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &self.resource),
            None => Api::all_with(client.clone(), &self.resource),
        }
    }

    /// The object of this name; none where there is none, or not even the kind.
    ///
    /// # Errors
    /// When the server does not answer or does not allow it.
    pub(crate) async fn get(&self, client: &Client, name: &str) -> anyhow::Result<Option<DynamicObject>> {
        let got = self.api(client).get_opt(name).await;
        got.map_err(|error| told(error).context(format!("cannot read {}", self.named(name))))
    }

    /// Every object of this kind that has the labels; none where there is not even the kind.
    ///
    /// # Errors
    /// When the server does not answer or does not allow it.
    pub(crate) async fn list(&self, client: &Client, labels: &str) -> anyhow::Result<Vec<DynamicObject>> {
        self.pages(client, ListParams::default().labels(labels)).await
    }

    /// Every object of this kind and name, whatever its namespace.
    ///
    /// # Errors
    /// When the server does not answer or does not allow it.
    pub(crate) async fn list_named(&self, client: &Client, name: &str) -> anyhow::Result<Vec<DynamicObject>> {
        self.pages(client, ListParams::default().fields(&format!("metadata.name={name}"))).await
    }

    async fn pages(&self, client: &Client, what: ListParams) -> anyhow::Result<Vec<DynamicObject>> {
        let mut all = Vec::new();
        let mut page = what.limit(PAGE);
        loop {
            let list = match self.api(client).list(&page).await {
                Ok(list) => list,
                Err(kube::Error::Api(status)) if status.code == 404 => return Ok(all),
                Err(error) => {
                    return Err(told(error).context(format!("cannot list {}", self.resource.plural)));
                }
            };
            let next = list.metadata.continue_.filter(|token| !token.is_empty());
            all.extend(list.items);
            let Some(next) = next else { return Ok(all) };
            page.continue_token = Some(next);
        }
    }

    /// `Deployment tidegate/tidegate-controller`.
    pub(crate) fn named(&self, name: &str) -> String {
        let namespace = self.namespace.as_ref().map(|namespace| format!("{namespace}/")).unwrap_or_default();
        format!("{} {namespace}{name}", self.resource.kind)
    }
}

/// An error of the client in the server's own words, without the client's.
pub(crate) fn told(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) => anyhow!("{}", status.message),
        error => anyhow::Error::new(error).context("the API server does not answer"),
    }
}
