//! pieces: bodies that come in many small frames, as streams of short messages do.

use crate::app::App;
use crate::client::ask;
use crate::frames::{Connection, GOAWAY, HEADERS, RST_STREAM, data, get, post};
use crate::mesh::{APPLICATION, OUTBOUND, Plan, host};

#[tokio::test]
async fn a_burst_of_small_frames_neither_ends_the_connection_nor_cuts_the_requests_on_it() {
    for frames in [90, 200, 1000] {
        let mesh = Plan::of(&["web", "orders", "plain"]).plain("plain").start().await;
        let app = App::start(mesh.at("orders", APPLICATION)).await;
        let mut connection = Connection::open(mesh.at("web", OUTBOUND)).await;
        connection.send(&get(1, &host("orders"), "/hold", &[])).await;
        app.has(1).await;
        // As a gRPC client streams short messages: one DATA frame each, many in one write.
        let body = [data(3, b"x", false).repeat(frames - 1), data(3, b"x", true)].concat();
        connection.send(&[post(3, &host("orders"), "/"), body].concat()).await;
        let first = async {
            loop {
                let frame = connection.next().await.expect("an answer");
                if [HEADERS, GOAWAY, RST_STREAM].contains(&frame.kind) {
                    return frame;
                }
            }
        };
        let first = first.await;
        let text = String::from_utf8_lossy(&first.payload).into_owned();
        assert_eq!((first.kind, first.stream), (HEADERS, 3), "{frames} frames: {first:?} {text}");
        assert_eq!(first.status(), Some(200), "{frames} frames");
        app.let_go();
        assert_eq!(connection.next_of(HEADERS).await.map(|frame| frame.stream), Some(1), "{frames} frames");
    }
}

#[tokio::test]
async fn a_response_in_a_thousand_small_pieces_is_whole() {
    let mesh = Plan::of(&["web", "orders", "plain"]).plain("plain").start().await;
    let orders = App::start(mesh.at("orders", APPLICATION)).await;
    let plain = App::start(mesh.at("plain", APPLICATION)).await;
    let outbound = mesh.at("web", OUTBOUND);
    for (way, address, named) in [
        ("straight", orders.address, host("orders")),
        ("through one sidecar", outbound, plain.address.to_string()),
        ("through two sidecars", outbound, host("orders")),
    ] {
        for round in 0..10 {
            let answer = ask(address, &format!("GET /pieces HTTP/1.1\r\nHost: {named}\r\n")).await;
            let seen = answer.map(|answer| (answer.status, answer.body.len()));
            assert_eq!(seen, Some((200, 1000)), "{way}, round {round}");
        }
    }
}
