//! tests: what is said of objects, and what becomes of it on an API server.

mod replicas;
mod verdicts;

use serde_json::{Value, json};

use super::*;
use crate::cluster::Refused;
use crate::index::tests::{SHOP, put};
use crate::issue::{Authority, Counts};
use crate::metrics::Metrics;
use crate::objects::Change;
use crate::scripted::Scripted;
use crate::serve::Tls;

const ROUTE: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/r";
const POLICY: &str = "/apis/tidegate.dev/v1alpha1/namespaces/shop/backendpolicies/p";

struct Rig {
    server: Scripted,
    documents: Arc<Documents>,
    statuses: Statuses,
    leads: watch::Sender<bool>,
    seen: watch::Sender<Arc<Seen>>,
    troubles: Arc<Troubles>,
}

fn rig() -> Rig {
    let server = Scripted::default();
    let metrics = Arc::new(Metrics::new());
    let documents = crate::documents::tests::documents(SHOP);
    let proxies = Arc::new(Proxies::new(documents.clone(), metrics.clone()));
    let leads = watch::Sender::new(true);
    let seen = watch::Sender::new(Arc::new(seen(BTreeMap::new())));
    let troubles = Arc::new(Troubles::new(Counts::default()));
    let told = Told { seen: seen.subscribe(), leads: leads.subscribe(), troubles: troubles.clone() };
    let replicas = Replicas::new(documents.clone(), tls(), ("tidegate", "controller-1"));
    let known = (documents.clone(), proxies, replicas);
    let statuses = Statuses::new(server.client(), known, told, metrics.statuses.clone());
    Rig { server, documents, statuses, leads, seen, troubles }
}

const OWN: &str = "spiffe://cluster.local/ns/tidegate/sa/tidegate-controller";

/// Our own certificate, of an issuer made for this test.
fn tls() -> Arc<Tls> {
    let state = tempfile::tempdir().unwrap();
    let authority = Arc::new(Authority::open(state.path(), "cluster.local").unwrap());
    Arc::new(Tls::new(authority, OWN.parse().unwrap(), limits::LEAF_LIFETIME).unwrap())
}

fn seen(refused: BTreeMap<ObjectId, Refused>) -> Seen {
    let versions = [("HTTPRoute", "v1".to_owned()), ("BackendPolicy", "v1alpha1".to_owned())];
    Seen { refused, versions: versions.into() }
}

fn route(generation: i64) -> Value {
    json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "r", "namespace": "shop", "generation": generation},
        "spec": {"parentRefs": [{"group": "", "kind": "Service", "name": "orders"}],
            "rules": [{"backendRefs": [{"name": "orders", "port": 80}]}]}})
}

fn policy() -> Value {
    json!({"apiVersion": "tidegate.dev/v1alpha1", "kind": "BackendPolicy",
        "metadata": {"name": "p", "namespace": "shop", "generation": 1},
        "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "orders"}]}})
}

impl Rig {
    /// An object of the cluster that is in force.
    fn put(&self, path: &str, object: Value) {
        self.documents.apply(put(&object.to_string()));
        self.server.put(path, object);
    }

    /// One look, and what it writes.
    async fn turn(&mut self) {
        let due = self.statuses.look(Instant::now()).await;
        self.statuses.write(due).await;
    }

    fn asked(&self) -> Vec<String> {
        self.server.asked()
    }

    fn status(&self, path: &str) -> Value {
        self.server.get(path).unwrap()["status"].clone()
    }
}

/// Each condition of a list as `Type=Status/Reason`.
fn said(conditions: &Value) -> Vec<String> {
    let text = |condition: &Value, field: &str| condition[field].as_str().unwrap_or_default().to_owned();
    let one = |condition: &Value| {
        format!("{}={}/{}", text(condition, "type"), text(condition, "status"), text(condition, "reason"))
    };
    conditions.as_array().into_iter().flatten().map(one).collect()
}

fn writes(asked: &[String]) -> usize {
    asked.iter().filter(|one| one.starts_with("PUT")).count()
}

#[tokio::test]
async fn a_status_is_written_once_and_what_stands_there_is_not_asked_for_again() {
    let mut rig = rig();
    rig.put(ROUTE, route(1));
    rig.put(POLICY, policy());
    rig.turn().await;
    let parents = rig.status(ROUTE)["parents"].clone();
    let good = ["Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs", "Programmed=True/NoSubscribers"];
    assert_eq!(said(&parents[0]["conditions"]), good);
    assert_eq!(parents[0]["parentRef"], json!({"group": "", "kind": "Service", "name": "orders"}));
    assert_eq!(parents[0]["conditions"][0]["observedGeneration"], 1);
    let of_policy = ["Accepted=True/Accepted", "Programmed=True/NoSubscribers"];
    assert_eq!(said(&rig.status(POLICY)["conditions"]), of_policy);
    assert_eq!(said(&rig.status(POLICY)["ancestors"][0]["conditions"]), of_policy);
    assert_eq!(writes(&rig.asked()), 2);
    rig.turn().await;
    assert_eq!(rig.asked(), [""; 0]);
}

#[tokio::test]
async fn a_new_leader_reads_and_writes_nothing_where_the_same_stands() {
    let mut rig = rig();
    rig.put(ROUTE, route(1));
    rig.turn().await;
    rig.asked();
    rig.statuses.known.clear();
    rig.turn().await;
    assert_eq!(rig.asked(), [format!("GET {ROUTE}")]);
}

#[tokio::test]
async fn an_entry_of_another_controller_stays_and_one_that_came_between_too() {
    let mut rig = rig();
    let theirs = |name: &str| json!({"parentRef": {"name": name}, "controllerName": "example.com/other", "conditions": []});
    let with = |entries: Vec<Value>| {
        let mut object = route(1);
        object["status"] = json!({"parents": entries});
        object
    };
    rig.put(ROUTE, with(vec![theirs("one")]));
    rig.server.write_between(with(vec![theirs("one"), theirs("two")]));
    rig.turn().await;
    let parents = rig.status(ROUTE)["parents"].clone();
    assert_eq!((&parents[0], &parents[1]), (&theirs("one"), &theirs("two")));
    assert_eq!(parents[2]["controllerName"], "tidegate.dev/controller");
    assert_eq!(writes(&rig.asked()), 2, "the first is told that somebody was faster");
}

#[tokio::test]
async fn a_spec_that_is_newer_in_the_cluster_gets_no_word_on_the_old_one() {
    let mut rig = rig();
    rig.put(ROUTE, route(1));
    rig.server.put(ROUTE, route(2));
    rig.turn().await;
    assert_eq!(rig.asked(), [format!("GET {ROUTE}")]);
    assert_eq!(rig.status(ROUTE), Value::Null);
}

#[tokio::test(start_paused = true)]
async fn who_does_not_lead_writes_nothing_and_who_does_writes_by_itself() {
    let rig = rig();
    rig.leads.send_replace(false);
    rig.put(ROUTE, route(1));
    let (server, leads) = (rig.server.clone(), rig.leads.clone());
    let running = tokio::spawn(rig.statuses.run());
    sleep(Duration::from_secs(60)).await;
    assert_eq!(server.asked(), [""; 0]);
    leads.send_replace(true);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(writes(&server.asked()), 1);
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn a_status_that_somebody_took_away_comes_back_at_the_next_comparison() {
    let mut rig = rig();
    rig.put(ROUTE, route(1));
    rig.turn().await;
    rig.server.put(ROUTE, route(1));
    rig.turn().await;
    assert_eq!(rig.status(ROUTE), Value::Null);
    tokio::time::advance(limits::STATUS_RECHECK).await;
    rig.turn().await;
    assert!(rig.status(ROUTE)["parents"].is_array());
}

#[tokio::test(start_paused = true)]
async fn a_missing_permission_is_told_once_with_what_to_grant_and_others_go_on() {
    let mut rig = rig();
    rig.put(ROUTE, route(1));
    rig.put(POLICY, policy());
    rig.server.refuse(&format!("PUT {ROUTE}"), 403, "httproutes is forbidden");
    rig.turn().await;
    let standing = rig.troubles.list();
    let told = &standing["statuses of all HTTPRoutes"];
    assert!(told.contains("grant update on httproutes/status of gateway.networking.k8s.io"), "{told}");
    assert!(rig.status(POLICY)["conditions"].is_array());
    rig.server.allow();
    tokio::time::advance(limits::API_BACKOFF_MAX).await;
    rig.turn().await;
    assert!(rig.status(ROUTE)["parents"].is_array());
    assert!(rig.troubles.list().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_is_away_is_asked_again_later_and_of_no_other_object_meanwhile() {
    let mut rig = rig();
    rig.put(ROUTE, route(1));
    rig.put(POLICY, policy());
    rig.server.refuse("GET ", 503, "away");
    rig.turn().await;
    assert_eq!(rig.asked().len(), 1);
    rig.server.allow();
    tokio::time::advance(limits::API_BACKOFF_MAX).await;
    rig.turn().await;
    assert_eq!(writes(&rig.asked()), 2);
}

#[tokio::test]
async fn a_version_that_cannot_be_read_is_told_to_each_parent_as_it_is_written() {
    let mut rig = rig();
    rig.put(ROUTE, route(1));
    rig.turn().await;
    rig.server.put(ROUTE, {
        let mut object = route(2);
        object["status"] = rig.status(ROUTE);
        object
    });
    let problem = resources::Problem {
        file: "kubernetes".into(),
        line: 0,
        object: "HTTPRoute shop/r".to_owned(),
        field: Some("spec.rules[0]".to_owned()),
        message: "is wrong".to_owned(),
    };
    let id = ObjectId { kind: "HTTPRoute", namespace: "shop".to_owned(), name: "r".to_owned() };
    rig.seen.send_replace(Arc::new(seen(BTreeMap::from([(id, Refused { generation: 2, problem })]))));
    rig.turn().await;
    let parents = rig.status(ROUTE)["parents"].clone();
    assert_eq!(said(&parents[0]["conditions"]), ["Accepted=False/Invalid"]);
    let message = "spec.rules[0]: is wrong; the last version that was right is in force";
    assert_eq!(parents[0]["conditions"][0]["message"], message);
    assert_eq!(parents[0]["conditions"][0]["observedGeneration"], 2);
}

#[tokio::test]
async fn an_object_that_is_gone_is_forgotten() {
    let mut rig = rig();
    rig.put(ROUTE, route(1));
    rig.turn().await;
    let id = ObjectId { kind: "HTTPRoute", namespace: "shop".to_owned(), name: "r".to_owned() };
    rig.documents.apply(vec![Change::Remove(id)]);
    rig.turn().await;
    assert!(rig.statuses.known.is_empty());
}
