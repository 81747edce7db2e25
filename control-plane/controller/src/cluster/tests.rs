//! tests: a source on a scripted API server.

pub(crate) mod api;

use std::sync::Arc;
use std::time::Duration;

use resources::Problem;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::timeout;

use self::api::Api;
use super::*;
use crate::documents::Documents;
use crate::index::Sidecars;
use crate::metrics::Metrics;
use crate::objects::{Change, Objects};
use crate::proxies::Proxies;

const SERVICES: &str = "/api/v1/services";
const NAMESPACES: &str = "/api/v1/namespaces";
const SECRETS: &str = "/api/v1/secrets";
const ROUTES: &str = "/apis/gateway.networking.k8s.io/v1/httproutes";
const POLICIES: &str = "/apis/tidegate.dev/v1alpha1/accesspolicies";
const ASYNC: &str = "/apis/tidegate.dev/v1alpha1/asyncpolicies";
const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// A source on a scripted server, and what it told.
struct World {
    api: Api,
    admin: Arc<Admin>,
    news: mpsc::Receiver<News>,
    objects: Objects,
    problems: Vec<Problem>,
    removed: Vec<String>,
    _source: tokio::task::JoinHandle<()>,
}

impl World {
    /// On `api` as it is.
    fn on(api: Api) -> Self {
        let metrics = Arc::new(Metrics::new());
        let documents = Arc::new(Documents::new(crate::index::tests::mesh(), Sidecars::Asked));
        let proxies = Arc::new(Proxies::new(documents, metrics.clone()));
        let admin = Arc::new(Admin::new("cluster.local".to_owned(), metrics, proxies));
        let (tell, news) = mpsc::channel(1);
        let source = Source::new(api.client(), admin.clone(), tell);
        let _source = tokio::spawn(source.run());
        let (objects, problems, removed) = (Objects::default(), Vec::new(), Vec::new());
        Self { api, admin, news, objects, problems, removed, _source }
    }

    /// Takes in what is told until `done`, or panics.
    async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        while !done(self) {
            let told = timeout(Duration::from_secs(300), self.news.recv()).await;
            let Ok(Some(News::Some { changes, problems })) = told else {
                panic!("{what}: {:?}, {:?}", self.names(), self.said());
            };
            for change in &changes {
                if let Change::Remove(id) = change {
                    self.removed.push(id.to_string());
                }
            }
            self.objects.take(changes);
            self.problems = problems.unwrap_or(std::mem::take(&mut self.problems));
        }
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = self.objects.list().iter().map(|o| o.value.id().to_string()).collect();
        names.sort();
        names
    }

    fn said(&self) -> Vec<String> {
        self.problems.iter().map(ToString::to_string).collect()
    }

    fn says(&self, text: &str) -> bool {
        self.said().iter().any(|problem| problem.contains(text))
    }

    /// How often `request` was asked.
    fn asked(&self, request: &str) -> usize {
        self.api.requests().iter().filter(|asked| *asked == request).count()
    }
}

/// A server with our own definitions.
fn api() -> Api {
    let api = Api::new();
    for plural in ["accesspolicies", "asyncpolicies", "backendpolicies", "meshtrusts"] {
        api.put(DEFINITIONS, definition(plural, "tidegate.dev", &["v1alpha1"]));
    }
    api
}

fn definition(plural: &str, group: &str, versions: &[&str]) -> Value {
    let versions: Vec<Value> =
        versions.iter().map(|version| json!({"name": version, "served": true, "storage": true})).collect();
    let meta = json!({"name": format!("{plural}.{group}")});
    json!({"metadata": meta, "spec": {"group": group, "versions": versions}})
}

fn service(name: &str, port: u32) -> Value {
    let meta = json!({"namespace": "shop", "name": name, "managedFields": [{"manager": "kubectl"}]});
    json!({"metadata": meta, "spec": {"ports": [{"port": port}]}})
}

fn route(name: &str) -> Value {
    let parent = json!({"kind": "Service", "group": "", "name": "orders"});
    json!({"metadata": {"namespace": "shop", "name": name}, "spec": {"parentRefs": [parent], "rules": []}})
}

fn access(default: &str) -> Value {
    let spec = json!({"selector": {"matchLabels": {"app": "orders"}}, "default": default, "rules": []});
    json!({"metadata": {"namespace": "shop", "name": "orders"}, "spec": spec})
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_before_every_kind_was_listed() {
    let api = api();
    api.put(SERVICES, service("orders", 80));
    api.refuse(NAMESPACES, Some(403));
    let mut world = World::on(api);
    assert!(timeout(Duration::from_secs(5), world.news.recv()).await.is_err());
    let reason = world.admin.not_ready().unwrap();
    assert!(reason.starts_with("Namespace objects were not listed yet"), "{reason}");
    assert!(reason.contains("grant get, list and watch on namespaces in the ClusterRole"), "{reason}");

    world.api.refuse(NAMESPACES, None);
    world.api.put(NAMESPACES, json!({"metadata": {"name": "shop"}}));
    world.until("all", |world| world.names() == ["Namespace shop", "Service shop/orders"]).await;
    assert_eq!(world.said(), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_list_comes_in_pages_and_changes_one_by_one() {
    let api = api();
    api.page(2);
    for name in ["a", "b", "c", "d", "e"] {
        api.put(SERVICES, service(name, 80));
    }
    let mut world = World::on(api);
    world.until("five", |world| world.objects.len() == 5).await;
    assert_eq!(world.asked(&format!("GET {SERVICES}")), 3);
    world.api.put(SERVICES, service("f", 80));
    world.api.remove(SERVICES, "shop/a");
    world.until("others", |world| world.objects.len() == 5 && world.removed == ["Service shop/a"]).await;
    assert_eq!(world.asked(&format!("GET {SERVICES}")), 3);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_ended_goes_on_where_it_was() {
    let mut world = World::on(api());
    world.until("the first news", |world| world.asked(&format!("GET {SERVICES}")) == 1).await;
    world.api.end_watches();
    world.api.put(SERVICES, service("orders", 80));
    world.until("it", |world| world.objects.len() == 1).await;
    assert_eq!(world.asked(&format!("GET {SERVICES}")), 1);
}

#[tokio::test(start_paused = true)]
async fn what_was_missed_is_found_by_a_new_list() {
    let api = api();
    api.put(SERVICES, service("a", 80));
    api.put(SERVICES, service("b", 80));
    let mut world = World::on(api);
    world.until("both", |world| world.objects.len() == 2).await;
    world.api.end_watches();
    world.api.remove(SERVICES, "shop/a");
    world.api.put(SERVICES, service("c", 80));
    world.api.forget();
    world.until("the new ones", |world| world.names() == ["Service shop/b", "Service shop/c"]).await;
    assert_eq!(world.removed, ["Service shop/a"]);
    assert_eq!(world.asked(&format!("GET {SERVICES}")), 2);
}

#[tokio::test(start_paused = true)]
async fn while_the_server_is_away_the_last_objects_hold_and_one_problem_says_so() {
    let api = api();
    api.put(SERVICES, service("orders", 80));
    let mut world = World::on(api);
    world.until("it", |world| world.objects.len() == 1).await;
    world.api.away(true);
    world.until("the problem", |world| world.says("the API server cannot be reached")).await;
    assert_eq!(world.said().len(), 1, "{:?}", world.said());
    let asked = world.api.requests().len();
    assert!(timeout(Duration::from_secs(600), world.news.recv()).await.is_err(), "nothing new to tell");
    // Six watches, each every 5 to 10 s.
    let asked = world.api.requests().len() - asked;
    assert!((300..1500).contains(&asked), "{asked}");

    world.api.away(false);
    world.api.put(SERVICES, service("later", 80));
    world.until("it is back", |world| world.objects.len() == 2 && world.said().is_empty()).await;
    assert_eq!(world.removed, [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn a_permission_taken_away_leaves_objects_in_force_and_says_what_to_grant() {
    let api = api();
    api.put(SERVICES, service("orders", 80));
    let mut world = World::on(api);
    world.until("it", |world| world.objects.len() == 1).await;
    world.api.refuse(SERVICES, Some(403));
    world.until("the problem", |world| world.says("services may not be watched")).await;
    assert!(world.says("grant get, list and watch on services"), "{:?}", world.said());
    assert_eq!(world.names(), ["Service shop/orders"]);
    world.api.refuse(SERVICES, None);
    world.until("no problem", |world| world.said().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_is_installed_later_is_watched_and_gone_with_its_definition() {
    let mut world = World::on(api());
    world.until("the first news", |_| true).await;
    world.api.put(ROUTES, route("early"));
    world.api.put(DEFINITIONS, definition("httproutes", "gateway.networking.k8s.io", &["v1beta1", "v1"]));
    world.until("the route", |world| world.names() == ["HTTPRoute shop/early"]).await;
    world.api.put(ROUTES, route("later"));
    world.until("another", |world| world.objects.len() == 2).await;

    world.api.remove(DEFINITIONS, "httproutes.gateway.networking.k8s.io");
    world.until("none", |world| world.objects.len() == 0).await;
    world.api.put(ROUTES, route("unseen"));
    world.api.put(SERVICES, service("orders", 80));
    world.until("only it", |world| world.names() == ["Service shop/orders"]).await;
}

#[tokio::test(start_paused = true)]
async fn a_definition_of_another_version_and_one_that_is_missing_are_problems_and_the_rest_goes_on() {
    let api = api();
    api.remove(DEFINITIONS, "accesspolicies.tidegate.dev");
    api.put(DEFINITIONS, definition("grpcroutes", "gateway.networking.k8s.io", &["v2"]));
    api.put(SERVICES, service("orders", 80));
    let mut world = World::on(api);
    world.until("it", |world| world.objects.len() == 1).await;
    assert!(world.says("grpcroutes.gateway.networking.k8s.io: serves v2, and this controller reads v1 or"));
    assert!(world.says("accesspolicies.tidegate.dev: is not installed, so no AccessPolicy is in force"));
    assert_eq!(world.said().len(), 2, "{:?}", world.said());

    world.api.put(POLICIES, access("Deny"));
    world.api.put(DEFINITIONS, definition("accesspolicies", "tidegate.dev", &["v1alpha1"]));
    world.api.put(DEFINITIONS, definition("grpcroutes", "gateway.networking.k8s.io", &["v2", "v1"]));
    world.until("both", |world| world.objects.len() == 2 && world.said().is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn an_object_that_is_wrong_keeps_its_last_good_version_in_force() {
    let api = api();
    api.put(POLICIES, access("Deny"));
    let mut world = World::on(api);
    world.until("it", |world| world.objects.len() == 1).await;
    world.api.put(POLICIES, access("Perhaps"));
    world.until("the problem", |world| !world.problems.is_empty()).await;
    let said = world.said().concat();
    assert!(said.starts_with("kubernetes: AccessPolicy shop/orders: spec.default: \"Perhaps\""), "{said}");
    assert_eq!(world.names(), ["AccessPolicy shop/orders"]);

    // A new list does not take it out either; its end does.
    world.api.end_watches();
    world.api.forget();
    world.api.put(SERVICES, service("orders", 80));
    world.until("a new list", |world| world.objects.len() == 2).await;
    assert_eq!(world.removed, [""; 0]);
    world.api.remove(POLICIES, "shop/orders");
    world.until("its end", |world| world.objects.len() == 1 && world.problems.is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn only_secrets_that_policies_name_are_read() {
    let api = api();
    let callback = json!({"allowedHosts": ["example.com"], "secretRef": {"name": "hooks"}});
    let target = json!({"kind": "Service", "name": "orders"});
    let meta = json!({"namespace": "shop", "name": "orders"});
    api.put(ASYNC, json!({"metadata": meta, "spec": {"targetRefs": [target], "callback": callback}}));
    let secret = |key: &str| {
        let meta = json!({"namespace": "shop", "name": "hooks"});
        json!({"metadata": meta, "data": {"secret": key}})
    };
    api.put(SECRETS, secret("bWZrZXloZXJlbWZrZXloZXJlbWZrZXloZXJl"));
    let mut world = World::on(api);
    world.until("both", |world| world.names() == ["AsyncPolicy shop/orders", "Secret shop/hooks"]).await;

    // Taken up within a minute.
    let before = world.objects.list();
    world.api.put(SECRETS, secret("b3RoZXJrZXlvdGhlcmtleW90aGVya2V5b3Ro"));
    world.until("the new key", |world| world.objects.list() != before).await;
    world.api.refuse("/api/v1/namespaces/shop/secrets", Some(403));
    world.until("the problem", |world| world.says("Secret shop/hooks: may not be read")).await;
    assert!(world.says("grant get on secrets in namespace shop"), "{:?}", world.said());
    assert_eq!(world.objects.len(), 2);
    assert!(!world.api.requests().iter().any(|asked| asked.contains(SECRETS)), "a list of Secrets");
}
