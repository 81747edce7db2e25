//! tests: namespaces come and go, anchors change, somebody takes a ConfigMap away.

use super::*;
use crate::issue::Counts;
use crate::scripted::Scripted;

struct Rig {
    server: Scripted,
    anchors: Anchors,
    namespaces: watch::Sender<Option<Arc<BTreeSet<String>>>>,
    pem: watch::Sender<Arc<str>>,
    leads: watch::Sender<bool>,
    troubles: Arc<Troubles>,
}

fn rig() -> Rig {
    let server = Scripted::default();
    let (namespaces, pem, leads) =
        (watch::Sender::new(None), watch::Sender::new("one".into()), watch::Sender::new(true));
    let troubles = Arc::new(Troubles::new(Counts::default()));
    let told = (namespaces.subscribe(), pem.subscribe());
    let client = server.client();
    let owned = (client.clone(), Arc::new(Installation::new(client)));
    let anchors = Anchors::new(owned, told, leads.subscribe(), troubles.clone());
    Rig { server, anchors, namespaces, pem, leads, troubles }
}

impl Rig {
    fn want(&self, namespaces: &[&str]) {
        let all = namespaces.iter().map(|one| (*one).to_owned()).collect();
        self.namespaces.send_replace(Some(Arc::new(all)));
    }

    fn listed(&mut self, objects: Vec<ConfigMap>) {
        self.anchors.found.take(Event::Init);
        for object in objects {
            self.anchors.found.take(Event::InitApply(object));
        }
        self.anchors.found.take(Event::InitDone);
    }

    fn text(&self, namespace: &str) -> Option<String> {
        let object = self.server.get(&path(namespace))?;
        object["data"][KEY].as_str().map(str::to_owned)
    }
}

const ROLE: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles/tidegate-controller";

fn path(namespace: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/configmaps/{NAME}")
}

fn config_map(namespace: &str, text: &str, labels: BTreeMap<String, String>) -> ConfigMap {
    let object =
        json!({"metadata": {"name": NAME, "namespace": namespace, "labels": labels}, "data": {KEY: text}});
    serde_json::from_value(object).unwrap()
}

#[tokio::test]
async fn every_namespace_that_wants_anchors_gets_them_and_keeps_no_others() {
    let mut rig = rig();
    rig.listed(vec![config_map("old", "one", labels()), config_map("theirs", "x", BTreeMap::new())]);
    rig.server.put(&path("old"), json!({}));
    rig.server.put(&path("theirs"), json!({}));
    rig.want(&["shop", "edge"]);
    rig.anchors.write().await;
    assert_eq!((rig.text("shop"), rig.text("edge")), (Some("one".to_owned()), Some("one".to_owned())));
    assert!(rig.server.get(&path("old")).is_none(), "ours where nobody needs it goes");
    assert!(rig.server.get(&path("theirs")).is_some(), "somebody else's stays");
}

#[tokio::test]
async fn what_is_in_step_is_not_written_again_and_a_change_is() {
    let mut rig = rig();
    rig.listed(vec![config_map("shop", "one", labels())]);
    rig.want(&["shop"]);
    rig.anchors.write().await;
    assert_eq!(rig.server.asked(), [""; 0]);
    rig.pem.send_replace("two".into());
    rig.anchors.write().await;
    rig.anchors.write().await;
    assert_eq!(rig.server.asked(), [format!("GET {ROLE}"), format!("PATCH {}", path("shop"))]);
    assert_eq!(rig.text("shop").as_deref(), Some("two"));
}

#[tokio::test]
async fn one_that_was_deleted_or_changed_comes_back() {
    let mut rig = rig();
    rig.listed(vec![config_map("shop", "one", labels())]);
    rig.want(&["shop"]);
    rig.anchors.found.take(Event::Delete(config_map("shop", "one", labels())));
    rig.anchors.write().await;
    assert_eq!(rig.text("shop").as_deref(), Some("one"));
    rig.anchors.found.take(Event::Apply(config_map("shop", "forged", labels())));
    rig.anchors.write().await;
    let asked = rig.server.asked();
    assert_eq!(asked.iter().filter(|asked| asked.starts_with("PATCH")).count(), 2, "{asked:?}");
}

#[tokio::test]
async fn nothing_is_written_by_a_follower_or_before_the_namespaces_are_known() {
    let mut rig = rig();
    rig.anchors.write().await;
    rig.listed(vec![config_map("shop", "one", labels())]);
    rig.anchors.write().await;
    rig.leads.send_replace(false);
    rig.want(&[]);
    rig.anchors.write().await;
    assert_eq!(rig.server.asked(), [""; 0]);
    rig.leads.send_replace(true);
    rig.anchors.write().await;
    assert_eq!(rig.server.asked(), [format!("DELETE {}", path("shop"))]);
}

#[tokio::test]
async fn a_missing_permission_stands_with_its_object_until_it_is_given_and_an_ending_namespace_does_not() {
    let mut rig = rig();
    rig.listed(Vec::new());
    rig.server.refuse(&format!("PATCH {}", path("shop")), 403, "configmaps is forbidden");
    rig.server.refuse(&format!("PATCH {}", path("ends")), 403, "ends: it is being terminated");
    rig.want(&["ends", "shop", "zone"]);
    rig.anchors.write().await;
    let standing = rig.troubles.list();
    assert_eq!(standing.len(), 1, "{standing:?}");
    let told = standing
        .values()
        .next()
        .is_some_and(|trouble| trouble.contains("may not apply ConfigMap shop/tidegate-anchors"));
    assert!(told, "{standing:?}");
    assert_eq!(rig.text("zone").as_deref(), Some("one"), "the others get theirs");
    rig.server.refuse(&format!("PATCH {}", path("shop")), 503, "away");
    rig.anchors.write().await;
    rig.server.allow();
    rig.anchors.write().await;
    assert!(rig.troubles.list().is_empty());
}

#[tokio::test]
async fn every_one_belongs_to_the_role_and_none_is_made_once_that_is_gone() {
    let mut rig = rig();
    rig.server.put(ROLE, json!({"metadata": {"name": "tidegate-controller", "uid": "7"}}));
    rig.listed(Vec::new());
    rig.want(&["edge", "shop"]);
    rig.anchors.write().await;
    for namespace in ["edge", "shop"] {
        let owners = rig.server.get(&path(namespace)).unwrap()["metadata"]["ownerReferences"].clone();
        assert_eq!(owners[0]["uid"], "7", "{owners}");
    }
    let asked = rig.server.asked();
    assert_eq!(asked.iter().filter(|asked| asked.contains(ROLE)).count(), 1, "once for all: {asked:?}");

    rig.server.remove(ROLE);
    rig.want(&["edge", "shop", "zone"]);
    rig.anchors.write().await;
    assert!(rig.text("zone").is_none());
    assert!(rig.troubles.list()[OWNER].contains("ClusterRole tidegate-controller"));
}
