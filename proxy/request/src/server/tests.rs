//! The clocks of a connection, on a clock of the tests' own, with real sockets.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::client::conn::http2 as client;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::*;

/// A served connection: the client's end, and how serving it ended.
async fn served(version: HttpVersion, drain: &Drain) -> (TcpStream, JoinHandle<Result<(), ServeError>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, _) = listener.accept().await.unwrap();
    let drain = drain.clone();
    let handler = |_| async { Ok(Response::new(Body::full("hello"))) };
    let ended = tokio::spawn(async move { serve(Io::tcp(accepted), version, &drain, handler).await });
    (client, ended)
}

async fn answer(client: &mut TcpStream) -> String {
    let mut text = String::new();
    while !text.ends_with("hello") {
        let mut bytes = [0; 1024];
        let count = client.read(&mut bytes).await.unwrap();
        assert!(count > 0, "ended after {text:?}");
        text.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
    }
    text
}

async fn is_closed(client: &mut TcpStream) -> bool {
    matches!(client.read(&mut [0; 64]).await, Ok(0) | Err(_))
}

#[tokio::test(start_paused = true)]
async fn a_head_that_was_begun_must_be_whole_in_time() {
    let (mut client, ended) = served(HttpVersion::Http1, &Drain::new()).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    answer(&mut client).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost:").await.unwrap();
    let began = Instant::now();
    let mut said = String::new();
    client.read_to_string(&mut said).await.unwrap();
    assert!(said.starts_with("HTTP/1.1 408 ") && said.contains("error=http_request_timeout;"), "{said}");
    assert!(matches!(ended.await.unwrap(), Err(ServeError::HeadTimeout)));
    let took = began.elapsed();
    assert!(took >= limits::HEADER_TIMEOUT && took <= limits::HEADER_TIMEOUT * 3, "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_never_asks_is_closed_and_one_that_rests_is_kept_until_it_is_idle() {
    for version in [HttpVersion::Http1, HttpVersion::Http2] {
        let (mut client, ended) = served(version, &Drain::new()).await;
        // What an HTTP/2 server says of its own accord is not waited for.
        while !is_closed(&mut client).await {
            if ended.is_finished() {
                break;
            }
        }
        assert!(matches!(ended.await.unwrap(), Err(ServeError::HeadTimeout)), "{version:?}");
    }
    let (mut client, ended) = served(HttpVersion::Http1, &Drain::new()).await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    answer(&mut client).await;
    let began = Instant::now();
    assert!(is_closed(&mut client).await);
    assert!(ended.await.unwrap().is_ok());
    assert!(began.elapsed() >= limits::SERVER_IDLE - limits::HEADER_TIMEOUT);
}

#[tokio::test]
async fn a_drain_closes_resting_connections_and_lets_late_ones_ask_once() {
    let drain = Drain::new();
    let (mut resting, resting_ended) = served(HttpVersion::Http1, &drain).await;
    resting.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(!answer(&mut resting).await.to_lowercase().contains("connection: close"));
    drain.begin();
    assert!(is_closed(&mut resting).await);
    assert!(resting_ended.await.unwrap().is_ok());
    let (mut late, late_ended) = served(HttpVersion::Http1, &drain).await;
    late.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(answer(&mut late).await.to_lowercase().contains("connection: close"));
    assert!(is_closed(&mut late).await);
    assert!(late_ended.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_drain_says_goaway_and_a_late_http2_connection_is_answered_too() {
    let drain = Drain::new();
    for begun in [false, true] {
        let (tcp, ended) = served(HttpVersion::Http2, &drain).await;
        let (mut sender, connection) =
            client::handshake(TokioExecutor::new(), TokioIo::new(tcp)).await.unwrap();
        tokio::spawn(connection);
        let request = || Request::get("http://a/").body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request()).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
        if !begun {
            drain.begin();
        }
        assert!(ended.await.unwrap().is_ok());
        assert!(sender.send_request(request()).await.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_asks_now_and_then_is_not_idle() {
    let (mut client, ended) = served(HttpVersion::Http1, &Drain::new()).await;
    let began = Instant::now();
    while began.elapsed() < limits::SERVER_IDLE * 2 {
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        answer(&mut client).await;
        tokio::time::sleep(limits::HEADER_TIMEOUT * 3 / 2).await;
    }
    assert!(!ended.is_finished());
}
