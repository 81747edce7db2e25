//! stops: told to end, a sidecar finishes what it has begun, or ends at once when told twice.

use std::time::Instant;

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::app::App;
use crate::client::{answer, ask, within};
use crate::frames::{Connection, GOAWAY, HEADERS, get};
use crate::mesh::{ADMIN, APPLICATION, Mesh, OUTBOUND, Plan, host, until};

async fn shop(flags: &[&str]) -> (Mesh, App) {
    let mesh = Plan::of(&["web", "orders"]).flags("web", flags).start().await;
    let app = App::start(mesh.at("orders", APPLICATION)).await;
    (mesh, app)
}

/// A request that the application holds.
async fn held(mesh: &Mesh, app: &App) -> TcpStream {
    let mut stream = TcpStream::connect(mesh.at("web", OUTBOUND)).await.unwrap();
    let head = format!("GET /hold HTTP/1.1\r\nHost: {}\r\n\r\n", host("orders"));
    stream.write_all(head.as_bytes()).await.unwrap();
    app.has(1).await;
    stream
}

async fn is_draining(mesh: &Mesh) {
    let ready = until("draining", || mesh.admin("web", "/ready"), |answer| answer.status == 503).await;
    assert!(ready.text().contains("draining"), "{ready:?}");
}

#[tokio::test]
async fn a_sidecar_told_to_stop_is_not_ready_sends_clients_away_and_finishes_what_it_has_begun() {
    let (mut mesh, app) = shop(&[]).await;
    let mut first = held(&mesh, &app).await;
    let mut http2 = Connection::open(mesh.at("web", OUTBOUND)).await;
    http2.send(&get(1, &host("orders"), "/hold", &[])).await;
    app.has(2).await;
    mesh.sidecars["web"].signal("-TERM");
    is_draining(&mesh).await;
    let goaway = http2.next_of(GOAWAY).await.expect("a GOAWAY");
    assert_eq!(goaway.code(), 0, "in peace");
    let late = mesh.get("web", "orders", "/").await;
    assert_eq!((late.status, late.header("connection").as_deref()), (200, Some("close")), "{late:?}");
    app.let_go();
    within(answer(&mut first)).await.expect("the held request is answered").seen();
    assert_eq!(http2.next_of(HEADERS).await.expect("the held stream too").status(), Some(200));
    drop((first, http2));
    let began = Instant::now();
    assert!(mesh.sidecars.get_mut("web").unwrap().ended().await.success());
    println!("ended {:?} after the last request", began.elapsed());
}

#[tokio::test]
async fn a_second_sigterm_ends_it_at_once() {
    let (mut mesh, app) = shop(&[]).await;
    let mut first = held(&mesh, &app).await;
    mesh.sidecars["web"].signal("-TERM");
    is_draining(&mesh).await;
    assert!(mesh.sidecars.get_mut("web").unwrap().is_running());
    let began = Instant::now();
    mesh.sidecars["web"].signal("-TERM");
    mesh.sidecars.get_mut("web").unwrap().ended().await;
    // Without the second it would wait for the held request: the grace is 25 s.
    assert!(began.elapsed().as_secs_f64() < 5.0, "{:?}", began.elapsed());
    assert!(within(answer(&mut first)).await.is_none(), "the held request was cut");
}

#[tokio::test]
async fn what_outlasts_the_grace_is_cut() {
    let (mut mesh, app) = shop(&["--drain-grace", "1s"]).await;
    let mut first = held(&mesh, &app).await;
    let began = Instant::now();
    mesh.sidecars["web"].signal("-TERM");
    mesh.sidecars.get_mut("web").unwrap().ended().await;
    let took = began.elapsed().as_secs_f64();
    assert!((0.9..6.0).contains(&took), "{took} s");
    assert!(within(answer(&mut first)).await.is_none(), "the held request was cut");
    assert!(mesh.sidecars["web"].log().contains("the grace is over"));
}

#[tokio::test]
async fn shutdown_is_asked_for_by_post_on_loopback() {
    let (mut mesh, _app) = shop(&[]).await;
    let admin = mesh.at("web", ADMIN);
    assert_eq!(mesh.admin("web", "/shutdown").await.status, 405);
    let told =
        ask(admin, "POST /shutdown HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n").await.unwrap();
    assert_eq!((told.status, told.text().as_str()), (202, "draining\n"));
    assert!(mesh.sidecars.get_mut("web").unwrap().ended().await.success());
}
