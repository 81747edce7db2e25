//! tests: replicas and one Lease on a scripted API server, on a paused clock.

use serde_json::json;
use tokio::time::advance;

use super::*;
use crate::cluster::tests::api::Api as Server;
use crate::documents::Documents;
use crate::index::Sidecars;
use crate::proxies::Proxies;

const LEASES: &str = "/apis/coordination.k8s.io/v1/leases";
const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/tidegate/leases";
const KEY: &str = "tidegate/tidegate-controller";
const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";

struct Replica {
    may: watch::Receiver<bool>,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<anyhow::Result<()>>,
    name: String,
}

impl Replica {
    fn start(server: &Server, pod: &str) -> Self {
        let metrics = Arc::new(Metrics::new());
        let documents = Arc::new(Documents::new(crate::index::tests::mesh(), Sidecars::Asked));
        let proxies = Arc::new(Proxies::new(documents, metrics.clone()));
        let admin = Arc::new(Admin::new("cluster.local".to_owned(), metrics.clone(), proxies));
        let client = server.client();
        let owned = (client.clone(), Arc::new(Installation::new(client)));
        let lease = Lease::new(owned, ("tidegate", pod), (admin, metrics));
        let (may, stop, name) = (lease.may_write(), CancellationToken::new(), lease.holder.clone());
        let task = tokio::spawn(lease.run(stop.clone()));
        Self { may, stop, task, name }
    }

    fn may(&self) -> bool {
        *self.may.borrow()
    }

    async fn until(&mut self, may: bool) {
        let waited = timeout(Duration::from_secs(60), self.may.wait_for(|now| *now == may)).await;
        waited.expect("it changes in time").expect("the replica runs");
    }
}

fn holder(server: &Server) -> String {
    let record = server.get(LEASES, KEY).unwrap_or_default();
    record["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test(start_paused = true)]
async fn one_of_two_writes_and_the_other_follows_at_once_when_it_stops() {
    let server = Server::new();
    let mut one = Replica::start(&server, "one");
    one.until(true).await;
    let mut two = Replica::start(&server, "two");
    advance(Duration::from_secs(300)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(one.may() && !two.may());
    assert_eq!(holder(&server), one.name);

    let began = Instant::now();
    one.stop.cancel();
    one.task.await.unwrap().unwrap();
    assert!(!*one.may.borrow());
    two.until(true).await;
    assert!(began.elapsed() <= RETRY, "{:?}", began.elapsed());
    let record = server.get(LEASES, KEY).unwrap();
    assert_eq!(record["spec"]["leaseTransitions"], 1, "{record}");
}

#[tokio::test(start_paused = true)]
async fn a_holder_that_cannot_renew_stops_writing_before_another_begins() {
    let server = Server::new();
    let mut one = Replica::start(&server, "one");
    one.until(true).await;
    let mut two = Replica::start(&server, "two");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(one.may() && !two.may());
    // It is cut off; nobody hears of its end.
    one.task.abort();
    let began = Instant::now();
    two.until(true).await;
    let took = began.elapsed();
    assert!(took > DURATION - RENEW && took < DURATION + 2 * RETRY, "{took:?}");

    // The same with one that lives: it stops by itself.
    let began = Instant::now();
    server.refuse(PATH, Some(503));
    two.until(false).await;
    assert!(began.elapsed() <= GIVE_UP, "{:?}", began.elapsed());
    server.refuse(PATH, None);
    two.until(true).await;
}

#[tokio::test(start_paused = true)]
async fn a_record_with_a_strange_clock_is_judged_by_when_it_changes() {
    let server = Server::new();
    let record = |renewed: &str| {
        json!({"metadata": {"namespace": "tidegate", "name": NAME}, "spec": {
            "holderIdentity": "other", "leaseDurationSeconds": 15, "renewTime": renewed}})
    };
    // An hour ago by its clock, and yet it is renewed.
    server.put(LEASES, record("2020-01-01T00:00:00.000000Z"));
    let mut one = Replica::start(&server, "one");
    for second in 1..6 {
        tokio::time::sleep(Duration::from_secs(10)).await;
        assert!(!one.may());
        server.put(LEASES, record(&format!("2020-01-01T00:00:0{second}.000000Z")));
    }
    // A time to come does not keep it for ever.
    server.put(LEASES, record("2099-01-01T00:00:00.000000Z"));
    let began = Instant::now();
    one.until(true).await;
    assert!(began.elapsed() > DURATION && began.elapsed() < DURATION + 2 * RETRY, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn of_two_that_take_at_once_one_is_refused() {
    let server = Server::new();
    let (one, two) = (Replica::start(&server, "one"), Replica::start(&server, "two"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_ne!(one.may(), two.may());
    let holds = if one.may() { &one.name } else { &two.name };
    assert_eq!(holder(&server), *holds);
}

#[tokio::test(start_paused = true)]
async fn the_lease_belongs_to_the_role_and_is_not_made_anew_once_that_is_gone() {
    let server = Server::new();
    server.put(ROLES, json!({"metadata": {"name": "tidegate-controller", "uid": "7"}}));
    let mut one = Replica::start(&server, "one");
    one.until(true).await;
    assert_eq!(server.get(LEASES, KEY).unwrap()["metadata"]["ownerReferences"][0]["uid"], "7");
    server.remove(ROLES, "tidegate-controller");
    server.remove(LEASES, KEY);
    one.until(false).await;
    assert!(server.get(LEASES, KEY).is_none());
}
