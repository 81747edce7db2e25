//! tests: an old status and what is so now in, the new status or nothing out.

use policy::name::Domain;

use super::*;

const MORNING: &str = "2026-01-31T08:00:00Z";
const NOON: &str = "2026-01-31T12:00:00Z";

fn at(generation: i64, time: &str) -> Moment<'_> {
    Moment { generation, time }
}

fn accepted(status: Truth, reason: Reason) -> Condition {
    Condition { about: ConditionType::Accepted, status, reason, message: "said".to_owned() }
}

fn parent(name: &str, port: Option<u16>) -> Entry {
    let parent = ParentRef {
        group: String::new(),
        kind: "Service".to_owned(),
        namespace: None,
        name: name.to_owned(),
        port,
        section: None,
    };
    Entry { of: (&parent).into(), conditions: vec![accepted(Truth::True, Reason::Accepted)] }
}

#[test]
fn a_first_status_says_all_and_the_same_again_is_no_write() {
    let conditions = [accepted(Truth::True, Reason::Accepted)];
    let target = Entry {
        of: (&AsyncTarget::Rule(Domain::new("orders").unwrap(), "create".to_owned())).into(),
        conditions: conditions.to_vec(),
    };
    let status = policy_status(&Value::Null, &conditions, std::slice::from_ref(&target), at(1, MORNING));
    let status = status.expect("there was none");
    let said = json!([{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "said",
        "lastTransitionTime": MORNING, "observedGeneration": 1}]);
    assert_eq!(
        status,
        json!({"observedGeneration": 1, "conditions": said, "ancestors": [{
            "ancestorRef": {"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "orders",
                "sectionName": "create"},
            "controllerName": "tidegate.dev/controller", "conditions": said}]})
    );
    assert_eq!(policy_status(&status, &conditions, &[target], at(1, NOON)), None);
}

#[test]
fn the_time_moves_when_the_status_flips_and_at_no_other_time() {
    let was = policy_status(&json!({}), &[accepted(Truth::True, Reason::Accepted)], &[], at(1, MORNING));
    let was = was.expect("a first one");
    let newer = policy_status(&was, &[accepted(Truth::True, Reason::Accepted)], &[], at(2, NOON));
    let newer = newer.expect("another generation is a change");
    assert_eq!(newer["conditions"][0]["lastTransitionTime"], MORNING);
    assert_eq!(newer["conditions"][0]["observedGeneration"], 2);
    assert_eq!(newer["observedGeneration"], 2);
    let flipped = policy_status(&newer, &[accepted(Truth::False, Reason::Conflicted)], &[], at(2, NOON));
    assert_eq!(flipped.expect("it flipped")["conditions"][0]["lastTransitionTime"], NOON);
    assert!(newer.get("ancestors").is_none(), "a kind without targets has none: {newer}");
}

#[test]
fn a_condition_that_no_longer_applies_goes_and_one_of_somebody_else_stays() {
    let partly = Condition {
        about: ConditionType::PartiallyInvalid,
        status: Truth::True,
        reason: Reason::UnsupportedValue,
        message: String::new(),
    };
    let both = [accepted(Truth::True, Reason::Accepted), partly];
    let mut was = policy_status(&json!({}), &both, &[], at(1, MORNING)).expect("a first one");
    let theirs = json!({"type": "example.com/Seen", "status": "True"});
    was["conditions"].as_array_mut().unwrap().push(theirs.clone());
    assert_eq!(policy_status(&was, &both, &[], at(1, NOON)), None);
    let now = policy_status(&was, &both[..1], &[], at(1, NOON)).expect("one went");
    assert_eq!(now["conditions"].as_array().unwrap().len(), 2);
    assert_eq!(now["conditions"][1], theirs);
}

#[test]
fn a_route_has_one_entry_for_each_parent_as_written_beside_those_of_others() {
    let theirs = json!({"parentRef": {"name": "gateway"}, "controllerName": "example.com/other",
        "conditions": [{"type": "Accepted", "status": "False"}]});
    let old = json!({"parents": [theirs]});
    let parents = [parent("orders", None), parent("orders", Some(80))];
    let status = route_status(&old, &parents, at(3, MORNING)).expect("two came");
    assert_eq!(status["parents"][0], theirs);
    assert_eq!(status["parents"][1]["parentRef"], json!({"group": "", "kind": "Service", "name": "orders"}));
    assert_eq!(
        status["parents"][2]["parentRef"],
        json!({"group": "", "kind": "Service", "name": "orders", "port": 80})
    );
    assert_eq!(route_status(&status, &parents, at(3, NOON)), None);

    // Another controller puts its entry behind ours: nothing of ours changed.
    let mut turned = status.clone();
    turned["parents"].as_array_mut().unwrap().rotate_left(1);
    assert_eq!(route_status(&turned, &parents, at(3, NOON)), None);

    // A parent that is not there any more takes its entry along, and no other's.
    let fewer = route_status(&status, &parents[..1], at(4, NOON)).expect("one went");
    assert_eq!(fewer["parents"].as_array().unwrap().len(), 2);
    assert_eq!(fewer["parents"][1]["conditions"][0]["lastTransitionTime"], MORNING);
    assert_eq!(route_status(&fewer, &[], at(4, NOON)), Some(json!({"parents": [theirs]})));
}

#[test]
fn a_route_that_is_none_of_ours_is_never_written() {
    assert_eq!(route_status(&Value::Null, &[], at(1, NOON)), None);
    let theirs = json!({"parents": [{"parentRef": {"name": "g"}, "controllerName": "example.com/other"}]});
    assert_eq!(route_status(&theirs, &[], at(1, NOON)), None);
}

#[test]
fn a_list_is_never_longer_than_the_api_server_takes_and_a_message_neither() {
    let parents: Vec<Entry> = (1..=40).map(|port| parent("orders", Some(port))).collect();
    let theirs = json!({"parents": [{"parentRef": {"name": "g"}, "controllerName": "example.com/other"}]});
    let status = route_status(&theirs, &parents, at(1, NOON)).expect("many came");
    assert_eq!(status["parents"].as_array().unwrap().len(), limits::STATUS_PARENTS_MAX);
    let long = Condition { message: "ü".repeat(40_000), ..accepted(Truth::False, Reason::Invalid) };
    let status = policy_status(&json!({}), &[long], &[], at(1, NOON)).expect("a first one");
    let message = status["conditions"][0]["message"].as_str().unwrap();
    assert_eq!(message.chars().count(), limits::CONDITION_MESSAGE_CHARS_MAX);
}
