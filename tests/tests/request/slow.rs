//! slow: who does not finish what he began is ended in time, told so where there is a way to, and counted.
//!
//! Real time and the real limits: each of these tests takes the ten seconds of one, or twice that.

use std::time::{Duration, Instant};

use policy::limits;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use transport::tls::Tls;

use crate::app::App;
use crate::client::answer;
use crate::mesh::{APPLICATION, INBOUND, Mesh, OUTBOUND, Plan, host};
use crate::peer::{certified, connect, header, identity};

/// Each way is gone by so many at once.
const CLIENTS: usize = 50;

/// web has served as many connections at once as will be slow: what it grew by is grown already.
async fn shop() -> (Mesh, App) {
    let mesh = Plan::of(&["web", "orders"]).start().await;
    let app = App::start(mesh.at("orders", APPLICATION)).await;
    let head = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", host("orders"));
    let mut open = Vec::new();
    for _ in 0..2 * CLIENTS {
        let mut stream = TcpStream::connect(mesh.at("web", OUTBOUND)).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        answer(&mut stream).await.unwrap().seen();
        open.push(stream);
    }
    (mesh, app)
}

/// The same for orders and connections of its peer.
async fn wire() -> (Mesh, App, Tls) {
    let mesh = Plan::of(&["web", "orders"]).start().await;
    let app = App::start(mesh.at("orders", APPLICATION)).await;
    let web = certified(&mesh.dir.path().join("state"), identity("web"), Duration::from_secs(3600));
    let mut open = Vec::new();
    for _ in 0..3 * CLIENTS {
        let mut io = connect(&web, mesh.at("orders", INBOUND), "orders", true).await.unwrap();
        io.write_all(&header(APPLICATION, None)).await.unwrap();
        io.write_all(b"GET / HTTP/1.1\r\nHost: orders\r\n\r\n").await.unwrap();
        io.flush().await.unwrap();
        answer(&mut io).await.unwrap().seen();
        open.push(io);
    }
    (mesh, app, web)
}

/// Sends a byte twice a second until the other side ends, and gives what it said and when it ended.
async fn dribble(mut io: impl AsyncRead + AsyncWrite + Unpin, bytes: &'static [u8]) -> (Vec<u8>, Duration) {
    let began = Instant::now();
    let mut said = Vec::new();
    let mut left = bytes.iter().cycle();
    loop {
        let next = tokio::time::sleep(Duration::from_millis(500));
        tokio::select! {
            read = io.read_buf(&mut said) => if matches!(read, Ok(0) | Err(_)) {
                return (said, began.elapsed());
            },
            () = next => {
                let byte = *left.next().expect("it begins anew");
                // What was said is still to be read from a connection that takes nothing more.
                let _ = io.write_all(&[byte]).await;
                let _ = io.flush().await;
            }
        }
    }
}

fn is_in_time(took: Duration, most: u32) {
    // What a slow machine may take on top is less than until the next look.
    let (bound, early, late) = (limits::HEADER_TIMEOUT, Duration::from_secs(1), limits::HEADER_TIMEOUT / 2);
    assert!(took >= bound - early && took <= bound * most + late, "{took:?}");
}

/// It ended in time with a 408, and nothing after it.
fn is_408((said, took): &(Vec<u8>, Duration), most: u32) {
    let said = String::from_utf8_lossy(said);
    assert!(said.starts_with("HTTP/1.1 408 ") && said.matches("HTTP/1.1").count() == 1, "{said}");
    assert!(said.contains("proxy-status: tidegate; error=http_request_timeout;"), "{said}");
    is_in_time(*took, most);
}

/// It ended in time without a word.
fn is_cut((said, took): &(Vec<u8>, Duration)) {
    assert!(said.is_empty(), "{}", String::from_utf8_lossy(said));
    is_in_time(*took, 1);
}

/// Runs slow clients, then says how much the sidecar beside `pod` has grown by them, in KiB.
async fn all<T: 'static>(mesh: &Mesh, pod: &str, mut clients: JoinSet<T>) -> (Vec<T>, i64) {
    let before = mesh.rss_kib(pod);
    let mut ended = Vec::new();
    while let Some(client) = clients.join_next().await {
        ended.push(client.unwrap());
    }
    let grown = mesh.rss_kib(pod) - before;
    println!("{} slow clients: {pod} grew by {grown} KiB", ended.len());
    (ended, grown)
}

/// So many, and no more.
async fn are_counted(mesh: &Mesh, pod: &str, direction: &str, token: &str, count: usize) {
    #[allow(clippy::cast_precision_loss, reason = "a hundred")]
    let count = count as f64;
    mesh.counts(pod, direction, token, count).await;
    assert_eq!(mesh.errors(pod, direction, token).await, count, "{token}");
}

#[tokio::test]
async fn a_head_that_dribbles_is_answered_408_in_time() {
    let (mesh, app) = shop().await;
    let outbound = mesh.at("web", OUTBOUND);
    let begun = format!("GET / HTTP/1.1\r\nHost: {}\r\nx-slow: ", host("orders"));
    let whole = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", host("orders"));
    let mut clients = JoinSet::new();
    for number in 0..2 * CLIENTS {
        let (begun, whole) = (begun.clone(), whole.clone());
        clients.spawn(async move {
            let mut stream = TcpStream::connect(outbound).await.unwrap();
            // Every other one has asked before on its connection.
            let is_second = number % 2 == 1;
            if is_second {
                stream.write_all(whole.as_bytes()).await.unwrap();
                answer(&mut stream).await.unwrap().seen();
            }
            stream.write_all(begun.as_bytes()).await.unwrap();
            // From the second request on it is looked at every ten seconds.
            is_408(&dribble(stream, b"x").await, if is_second { 3 } else { 2 });
        });
    }
    let (_, grown) = all(&mesh, "web", clients).await;
    assert_eq!(app.arrived(), 2 * CLIENTS + CLIENTS);
    are_counted(&mesh, "web", "outbound", "http_request_timeout", 2 * CLIENTS).await;
    assert!(grown < 2 * 1024, "grew by {grown} KiB");
    mesh.get("web", "orders", "/").await.seen();
}

#[tokio::test]
async fn a_first_line_that_dribbles_or_never_comes_ends_the_connection_in_time() {
    let (mesh, _app) = shop().await;
    let outbound = mesh.at("web", OUTBOUND);
    let mut clients = JoinSet::new();
    for number in 0..2 * CLIENTS {
        clients.spawn(async move {
            let mut stream = TcpStream::connect(outbound).await.unwrap();
            if number % 2 == 1 {
                is_cut(&dribble(stream, b"GET /a/long/path/that/never/comes/to/its/end").await);
                return;
            }
            let began = Instant::now();
            let said = tokio::time::timeout(2 * limits::HEADER_TIMEOUT, stream.read(&mut [0; 64])).await;
            assert!(matches!(said.unwrap(), Ok(0) | Err(_)));
            is_in_time(began.elapsed(), 1);
        });
    }
    let (_, grown) = all(&mesh, "web", clients).await;
    are_counted(&mesh, "web", "outbound", "http_request_timeout", 2 * CLIENTS).await;
    assert!(grown < 2 * 1024, "grew by {grown} KiB");
}

#[tokio::test]
async fn a_slow_peer_is_ended_in_time_at_every_step_of_the_wire() {
    let (mesh, app, web) = wire().await;
    let inbound = mesh.at("orders", INBOUND);
    let mut clients = JoinSet::new();
    for number in 0..3 * CLIENTS {
        let web = web.clone();
        clients.spawn(async move {
            match number % 3 {
                // A ClientHello that does not end: a record of 512 bytes is announced.
                0 => {
                    let mut stream = TcpStream::connect(inbound).await.unwrap();
                    stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await.unwrap();
                    is_cut(&dribble(stream, b"\x00").await);
                }
                // A transport header that does not end.
                1 => {
                    let io = connect(&web, inbound, "orders", true).await.unwrap();
                    is_cut(&dribble(io, b"transport.l5d.io/v1\r\n\r\n\x00\x00\x03\xff").await);
                }
                // A head in a session that was announced.
                _ => {
                    let mut io = connect(&web, inbound, "orders", true).await.unwrap();
                    io.write_all(&header(APPLICATION, None)).await.unwrap();
                    io.write_all(b"GET / HTTP/1.1\r\nHost: orders\r\nx-slow: ").await.unwrap();
                    io.flush().await.unwrap();
                    is_408(&dribble(io, b"x").await, 2);
                }
            }
        });
    }
    let (_, grown) = all(&mesh, "orders", clients).await;
    for (token, ways) in [("connection_read_timeout", 2), ("http_request_timeout", 1)] {
        are_counted(&mesh, "orders", "inbound", token, ways * CLIENTS).await;
    }
    assert_eq!(app.arrived(), 3 * CLIENTS);
    assert!(grown < 2 * 1024, "grew by {grown} KiB");
    mesh.get("web", "orders", "/").await.seen();
}
