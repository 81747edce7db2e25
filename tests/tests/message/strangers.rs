//! strangers: whoever is at the address that an id names is asked only as our own workload.

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::json;

use crate::receiver::{Act, Receiver};
use crate::shop::{Setup, is_problem};

/// Where sidecars ask each other for messages.
const HOLDER_PORT: u16 = 4180;

#[tokio::test]
async fn an_address_that_is_not_of_our_workload_is_neither_asked_nor_believed() {
    let setup = Setup::of(json!({})).pod("cart").pod("plain").plain("plain").by_address();
    let shop = setup.start().await;
    let known = shop.enqueue("/", &[]).await;
    let credentials = [("authorization", "Bearer hunter2"), ("cookie", "a=b")];
    for pod in ["plain", "cart"] {
        let address = shop.mesh.at(pod, HOLDER_PORT);
        let lie =
            Act::Answer(200, vec![("content-type", "application/json".into())], "{\"state\":\"Succeeded\"}");
        let stranger = Receiver::start(address, Arc::new(move |_| lie.clone())).await;
        let IpAddr::V4(ip) = address.ip() else { unreachable!("all are IPv4") };
        let id = format!("{}{:08x}", &known[..28], u32::from(ip));
        for (method, rest) in [("GET", ""), ("GET", "/result"), ("DELETE", ""), ("POST", ":redrive")] {
            let answer = shop.resource(method, &format!("{id}{rest}"), &credentials).await;
            is_problem(&format!("{pod}: {method} {rest}"), &answer, 404, &["no pod of this workload"]);
        }
        assert!(stranger.seen().is_empty(), "{pod}: {:?}", stranger.seen());
    }
}
