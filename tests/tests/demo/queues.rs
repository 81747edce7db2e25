//! queues: `tidegate queue`, `dlq` and `request`, and the page, against web's sidecar in a kept demo.

use std::process::Output;

use serde_json::Value;

use super::kept::{ADMIN, HOST, Kept, OUTBOUND, ask, until};
use super::{alone, out, says, tidegate};

/// Every POST to orders is taken in; one that fails is dead at once. Messages lie in memory, so that
/// no directory is needed.
const POLICY: &str = "
apiVersion: tidegate.dev/v1alpha1
kind: AsyncPolicy
metadata: {name: orders-async, namespace: shop}
spec:
  targetRefs: [{group: '', kind: Service, name: orders}]
  mode: Always
  methods: [POST]
  durability: Memory
  ordering: {key: 'header:X-Tag'}
  delivery: {retry: 0, backoffDelay: PT0.1S}
  credentials: Drop
";
const QUEUE: &str = "shop/orders-async";

fn operate(arguments: &[&str]) -> Output {
    tidegate(&[arguments, &["--proxy", ADMIN]].concat())
}

fn json(arguments: &[&str]) -> Value {
    let output = operate(&[arguments, &["-o", "json"]].concat());
    assert!(output.status.success(), "{}", out(&output));
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", out(&output)))
}

/// Hands one request over; its id.
fn hand_over(path: &str) -> String {
    hand_over_as(path, "blue")
}

/// The same with another ordering key.
fn hand_over_as(path: &str, tag: &str) -> String {
    let head =
        format!("POST {path} HTTP/1.1\r\nHost: {HOST}\r\nAuthorization: Bearer hunter2\r\nX-Tag: {tag}");
    let answer = ask(OUTBOUND, &head, "the body");
    assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
    let location = answer.lines().find_map(|line| line.strip_prefix("location: /.tidegate/requests/"));
    location.expect("a 202 says where to look").trim().to_owned()
}

fn queue() -> Value {
    let all = json(&["queue", "ls"]);
    all["queues"]
        .as_array()
        .unwrap()
        .iter()
        .find(|queue| queue["policy"] == QUEUE)
        .cloned()
        .unwrap_or(Value::Null)
}

/// Waits until a figure of the queue is as it should be.
#[track_caller]
fn figure(name: &str, should: u64) {
    until(name, || {
        let queue = queue();
        if queue[name] == should { Ok(()) } else { Err(queue.to_string()) }
    });
}

fn with_policy() -> Kept {
    let kept = Kept::start();
    std::fs::write(kept.manifests().join("async.yaml"), POLICY).unwrap();
    until("the policy holds", || {
        let answer = ask(OUTBOUND, &format!("POST /orders/1 HTTP/1.1\r\nHost: {HOST}"), "");
        if answer.starts_with("HTTP/1.1 202") { Ok(()) } else { Err(answer) }
    });
    figure("depth", 0);
    kept
}

#[test]
fn a_request_is_followed_and_a_queue_is_paused_looked_into_copied_and_emptied() {
    let _alone = alone();
    let mut kept = with_policy();

    let id = hand_over("/orders/7");
    let attached = operate(&["request", "attach", &id]);
    says(
        &attached,
        0,
        &["Succeeded after 1 attempt\n", "200 OK", "\"path\":\"/orders/7\"", "\"body_bytes\":8"],
    );
    says(
        &operate(&["request", "get", &id]),
        0,
        &[&id, "Succeeded", "orders", "ATTEMPTS".to_lowercase().as_str()],
    );
    says(&operate(&["request", "cancel", &id]), 1, &["can no longer be cancelled", "Succeeded"]);

    says(&operate(&["queue", "pause", QUEUE]), 0, &["paused: it is filled and not delivered"]);
    let ids: Vec<String> = (0..3).map(|at| hand_over(&format!("/orders/{at}"))).collect();
    says(&operate(&["queue", "ls"]), 0, &["QUEUE", QUEUE, "memory", "paused by operator", " of 64.0 MiB"]);
    assert_eq!((queue()["depth"].as_u64(), queue()["paused"].as_str()), (Some(3), Some("operator")));
    let peeked = operate(&["queue", "peek", QUEUE, "--limit", "2"]);
    says(&peeked, 0, &[&ids[0], &ids[1], "Queued", "POST /orders/0", "--after"]);
    assert!(!out(&peeked).contains(&ids[2]), "the limit holds");
    let since = json(&["queue", "peek", QUEUE, "--filter", "since=1h"]);
    assert_eq!(since["messages"].as_array().map(Vec::len), Some(3));
    let before = json(&["queue", "peek", QUEUE, "--filter", "before=1h"]);
    assert_eq!((before["messages"].as_array().map(Vec::len), &before["next"]), (Some(0), &Value::Null));

    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("waiting.ndjson").display().to_string();
    says(&operate(&["queue", "export", QUEUE, "--to", &file]), 0, &["3 messages exported"]);
    says(&operate(&["queue", "export", QUEUE, "--to", &file]), 1, &["cannot make", "exists"]);
    let text = std::fs::read_to_string(&file).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        lines.iter().map(|line| line["path"].as_str().unwrap()).collect::<Vec<_>>(),
        ["/orders/0", "/orders/1", "/orders/2"]
    );
    assert_eq!(lines[0]["bodyBase64"], "dGhlIGJvZHk=");
    assert!(
        text.contains("[\"x-tag\",\"blue\"]") && !text.contains("hunter2") && !text.contains("uthorization"),
        "{text}"
    );

    says(&operate(&["request", "cancel", &ids[0]]), 0, &["cancelled, there is no further attempt"]);
    says(&operate(&["request", "attach", &ids[1], "--timeout", "100ms"]), 1, &["has not ended: Queued"]);
    let refused = operate(&["queue", "purge", QUEUE]);
    says(&refused, 1, &["this would throw away all 2 waiting messages", "--yes"]);
    let nobody = operate(&["queue", "purge", QUEUE, "--filter", "key=nobody", "--yes"]);
    says(&nobody, 0, &["no message matches the filter"]);
    says(&operate(&["queue", "purge", QUEUE, "--yes"]), 0, &["2 messages purged"]);
    figure("depth", 0);
    says(&operate(&["queue", "resume", QUEUE]), 0, &["resumed"]);
    let id = hand_over("/orders/8");
    says(&operate(&["request", "attach", &id]), 0, &["200 OK"]);
    assert_eq!(kept.stop(), Some(0));
}

#[test]
fn dead_letters_are_listed_shown_copied_and_redriven() {
    let _alone = alone();
    let mut kept = with_policy();
    let ids: Vec<String> = (0..4).map(|_| hand_over("/fail")).collect();
    figure("deadLetters", 4);
    let attached = operate(&["request", "attach", &ids[0]]);
    says(&attached, 1, &["DeadLettered (Exhausted)", "500 Internal Server Error", "\"path\":\"/fail\""]);
    says(&operate(&["dlq", "ls"]), 0, &["DEAD LETTERS", QUEUE, "4"]);
    says(
        &operate(&["dlq", "ls", QUEUE]),
        0,
        &[&ids[0], &ids[3], "DeadLettered (Exhausted)", "500", "POST /fail"],
    );
    says(&operate(&["dlq", "ls", QUEUE, "--filter", "status=503"]), 0, &["no messages"]);
    let blue = json(&["dlq", "ls", QUEUE, "--filter", "key=blue", "--filter", "reason=Exhausted"]);
    assert_eq!(blue["messages"].as_array().map(Vec::len), Some(4), "{blue}");
    let shown = operate(&["dlq", "show", &ids[1]]);
    says(&shown, 0, &["POST /fail", "x-tag", "8 B", "Attempts", "500", HOST]);
    assert!(!out(&shown).contains("hunter2") && !out(&shown).contains("authorization"), "{}", out(&shown));
    let exported = operate(&["dlq", "export", QUEUE, "--filter", "status=500"]);
    assert_eq!(exported.stdout.iter().filter(|byte| **byte == b'\n').count(), 4, "{}", out(&exported));
    assert!(out(&exported).contains("\"status\":500"), "the kept response is part of it");

    // It fails again, and is dead again: the attempts are fresh ones.
    says(&operate(&["dlq", "redrive", &ids[0]]), 0, &["back in its queue"]);
    figure("deadLetters", 4);
    says(
        &operate(&["dlq", "redrive", QUEUE, "--rate", "100", "--filter", "reason=Exhausted"]),
        0,
        &["4 of 4 dead letters redriven"],
    );
    let nothing = operate(&["dlq", "redrive", QUEUE, "--filter", "key=nobody"]);
    says(&nothing, 0, &["no dead letter matches the filter"]);
    figure("deadLetters", 4);
    says(&operate(&["queue", "purge", QUEUE, "--part", "dead", "--yes"]), 0, &["4 messages purged"]);
    figure("deadLetters", 0);
    says(&operate(&["dlq", "ls"]), 0, &["no dead letters"]);
    says(&operate(&["dlq", "redrive", &ids[0]]), 1, &[&ids[0]]);
    assert_eq!(kept.stop(), Some(0));
}

#[test]
fn mistakes_are_named_and_foreign_pages_are_refused() {
    let _alone = alone();
    let mut kept = with_policy();
    let name = queue()["name"].as_str().unwrap().to_owned();
    says(&operate(&["queue", "peek", "shop/nothing"]), 1, &["no queue \"shop/nothing\"", &name]);
    says(
        &operate(&["queue", "peek", QUEUE, "--filter", "since=soon"]),
        1,
        &["since=\"soon\"", "such as 15m"],
    );
    says(&operate(&["queue", "peek", QUEUE, "--filter", "colour=blue"]), 2, &["reason=, key=, status="]);
    says(&operate(&["request", "get", "7"]), 1, &["\"7\" is not an id"]);
    let unknown = "01900000-0001-7000-8000-00057f000102";
    says(&operate(&["request", "get", unknown]), 1, &[unknown]);
    says(&operate(&["dlq", "show", unknown]), 1, &[unknown]);
    says(
        &tidegate(&["queue", "ls", "--proxy", "127.0.1.99:9"]),
        1,
        &["127.0.1.99:9 does not answer", "--proxy"],
    );

    let get = |path: &str, headers: &str| ask(ADMIN, &format!("GET {path} HTTP/1.1\r\n{headers}"), "");
    let ours = format!("Host: {ADMIN}");
    let unknown = get("/queues/messages?queue=shop/nothing", &ours);
    assert!(unknown.contains("there is ") && unknown.contains(&name), "{unknown}");
    assert!(get("/queues/messages", &ours).contains("queue= is needed"));
    assert!(get("/queues/other", &ours).starts_with("HTTP/1.1 404"));
    // A name that somebody else's DNS answers with our address.
    assert!(get("/queues", "Host: evil.example:4191").starts_with("HTTP/1.1 403"));
    let post = |origin: &str| {
        let path = format!("/queues/pause?queue={name}");
        ask(ADMIN, &format!("POST {path} HTTP/1.1\r\n{ours}\r\nOrigin: {origin}"), "")
    };
    assert!(post("https://evil.example").starts_with("HTTP/1.1 403"));
    assert_eq!(queue()["paused"], Value::Null);
    assert!(post(&format!("http://{ADMIN}")).starts_with("HTTP/1.1 200"));
    assert_eq!(queue()["paused"], "operator");
    assert!(
        ask(ADMIN, &format!("POST /shutdown HTTP/1.1\r\n{ours}\r\nOrigin: null"), "")
            .starts_with("HTTP/1.1 403")
    );
    assert_eq!(kept.stop(), Some(0));
}

#[test]
fn the_page_shows_queues_and_its_buttons_work_without_a_script() {
    let _alone = alone();
    let mut kept = with_policy();
    hand_over_as("/fail", "<script>alert(1)</script>");
    figure("deadLetters", 1);
    let ours = format!("Host: {ADMIN}\r\nOrigin: http://{ADMIN}");
    let get = |path: &str| ask(ADMIN, &format!("GET {path} HTTP/1.1\r\n{ours}"), "");
    let page = get("/");
    for part in ["HTTP/1.1 200", "content-security-policy: default-src 'none'", QUEUE, "<svg", "memory"] {
        assert!(page.contains(part), "no {part:?} in {page}");
    }
    // The demo's own queue, mail, has links too.
    let dead = |to: &&str| to.contains("part=dead") && to.contains("orders-async");
    let dead = page.split("href=\"").filter_map(|rest| rest.split('"').next()).find(dead);
    let dead = dead.expect("the dead letters are linked").replace("&amp;", "&");
    let inside = get(&dead);
    assert!(inside.contains("Exhausted") && inside.contains("&lt;script&gt;alert(1)"), "{inside}");
    assert!(!inside.contains("<script>"), "{inside}");
    let purge =
        inside.split("action=\"").filter_map(|rest| rest.split('"').next()).find(|to| to.contains("purge"));
    let purge = purge.expect("there is a button").replace("&amp;", "&");
    let pressed = ask(ADMIN, &format!("POST {purge} HTTP/1.1\r\n{ours}"), "");
    assert!(pressed.starts_with("HTTP/1.1 303"), "{pressed}");
    let to = pressed.lines().find_map(|line| line.strip_prefix("location: ")).unwrap().trim().to_owned();
    assert!(get(&to).contains("1 purged."));
    assert!(get("/?queue=nobody").starts_with("HTTP/1.1 404"));
    assert!(get("/page/style.css").starts_with("HTTP/1.1 200"));
    assert_eq!(kept.stop(), Some(0));
}
