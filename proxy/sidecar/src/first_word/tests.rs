//! Who speaks first, with real sockets on both sides.

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;

async fn pair() -> (Io, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (Io::tcp(listener.accept().await.unwrap().0), far)
}

async fn read_some(io: &mut Io, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    io.read_exact(&mut bytes).await.unwrap();
    bytes
}

async fn never() -> io::Result<Io> {
    std::future::pending().await
}

#[tokio::test]
async fn a_client_that_speaks_is_told_by_its_bytes_and_they_are_read_again() {
    let (mut client, mut application) = pair().await;
    application.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    let word = first_word(&mut client, never).await.unwrap();
    assert!(matches!(word, FirstWord::Client(Detected::Http1, None)));
    assert_eq!(read_some(&mut client, 5).await, b"GET /");
}

#[tokio::test]
async fn a_banner_of_the_server_makes_it_server_first() {
    let (mut client, _application) = pair().await;
    let (server, mut far_server) = pair().await;
    far_server.write_all(b"220 ready\r\n").await.unwrap();
    let word = first_word(&mut client, || async { io::Result::Ok(server) }).await.unwrap();
    let FirstWord::Server(mut server) = word else { panic!("not server-first") };
    assert_eq!(read_some(&mut server, 11).await, b"220 ready\r\n");
}

#[tokio::test]
async fn a_settings_frame_of_the_server_waits_for_the_preface_of_the_client() {
    let (mut client, mut application) = pair().await;
    let (server, mut far_server) = pair().await;
    far_server.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    let preface = async {
        // The connection to the server is given up once its SETTINGS frame was seen.
        let mut end = [0; 1];
        while tokio::io::AsyncReadExt::read(&mut far_server, &mut end).await.is_ok_and(|n| n > 0) {}
        application.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    };
    let (word, ()) = tokio::join!(first_word(&mut client, || async { io::Result::Ok(server) }), preface);
    assert!(matches!(word.unwrap(), FirstWord::Client(Detected::Http2, None)));
}

#[tokio::test]
async fn a_silent_client_whose_server_cannot_be_dialled_is_told_by_what_it_says_later() {
    let (mut client, mut application) = pair().await;
    let (dialled, was_dialled) = tokio::sync::oneshot::channel();
    let refuse = || async move {
        dialled.send(()).unwrap();
        Err::<Io, _>(io::Error::from(io::ErrorKind::ConnectionRefused))
    };
    let later = async {
        was_dialled.await.unwrap();
        application.write_all(b"POST /x HTTP/1.1\r\n").await.unwrap();
    };
    let (word, ()) = tokio::join!(first_word(&mut client, refuse), later);
    assert!(matches!(word.unwrap(), FirstWord::Client(Detected::Http1, None)));
}

#[tokio::test]
async fn a_client_that_leaves_without_a_word_is_nobody() {
    let (mut client, application) = pair().await;
    drop(application);
    assert!(matches!(first_word(&mut client, never).await.unwrap(), FirstWord::Nobody));
}

#[tokio::test]
async fn bytes_that_no_protocol_begins_with_keep_the_connection_already_dialled() {
    let (mut client, mut application) = pair().await;
    let (server, _far_server) = pair().await;
    let (dialled, was_dialled) = tokio::sync::oneshot::channel();
    let dial = || async move {
        dialled.send(()).unwrap();
        io::Result::Ok(server)
    };
    let later = async {
        was_dialled.await.unwrap();
        application.write_all(b"\x00\x01\x02\x03binary").await.unwrap();
    };
    let (word, ()) = tokio::join!(first_word(&mut client, dial), later);
    assert!(matches!(word.unwrap(), FirstWord::Client(Detected::Opaque, Some(_))));
}

#[tokio::test]
async fn a_client_that_was_silent_while_its_destination_was_asked_for_is_not_waited_for_again() {
    tokio::time::pause();
    let (mut client, _application) = pair().await;
    let (server, mut far_server) = pair().await;
    far_server.write_all(b"220 ready\r\n").await.unwrap();
    let began = tokio::time::Instant::now();
    let dialled_after = std::cell::Cell::new(None);
    let dial = || {
        dialled_after.set(Some(began.elapsed()));
        async { io::Result::Ok(server) }
    };
    let word = first_word_after(&mut client, limits::DETECT_SILENCE / 2, dial).await.unwrap();
    assert!(matches!(word, FirstWord::Server(_)));
    assert_eq!(dialled_after.get(), Some(Duration::ZERO));
}
