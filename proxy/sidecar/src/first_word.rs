//! first_word: who speaks first on a connection whose protocol nobody named.
//!
//! The bytes of a client tell its protocol. But in some protocols (MySQL, SMTP, SSH) the client
//! waits for the server's banner, so waiting for the client alone would stall for ever. After
//! [`limits::DETECT_SILENCE`] the other side is dialled too, and both are watched:
//!
//! - the client speaks: its bytes decide as usual, and a connection already dialled is kept in
//!   case it can be used as it is;
//! - the server speaks: the protocol is server-first, unless the bytes are an HTTP/2 SETTINGS
//!   frame, which servers may send before the client's preface (RFC 9113 §3.4) and every gRPC
//!   server does: then the client's preface is waited for.

use std::future::Future;
use std::io;
use std::time::Duration;

use bytes::BytesMut;
use policy::limits;
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use transport::detect::{Detected, begins_with_http2_settings, detect};
use transport::io::Io;

/// What the first bytes said. Nothing that was heard is lost: it is read again from the `Io`s.
pub(crate) enum FirstWord {
    /// The client spoke. The server was perhaps dialled already, and has not spoken.
    Client(Detected, Option<Io>),
    /// The server spoke first.
    Server(Io),
    /// One side went away before either had said a word.
    Nobody,
}

/// Why no protocol could be told.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FirstWordError {
    /// The client's side failed.
    #[error("the client's connection failed while its protocol was told")]
    Client(#[source] io::Error),
    /// The client began to speak and did not go on.
    #[error("the client began a message and did not go on within {:?}", limits::DETECT_TIMEOUT)]
    Stalled,
    /// Neither side said a word.
    #[error("neither side said anything within {:?}", limits::SERVER_IDLE)]
    Silent,
}

/// Watches both sides until one has spoken.
///
/// `dial` is called at most once, and only when the client is silent. A dial that fails is not an
/// error here: the client's bytes then decide what it is told.
pub(crate) async fn first_word<D, F, E>(client: &mut Io, dial: D) -> Result<FirstWord, FirstWordError>
where
    D: FnOnce() -> F,
    F: Future<Output = Result<Io, E>>,
{
    let watched = watch(client, dial, limits::DETECT_SILENCE);
    timeout(limits::SERVER_IDLE, watched).await.map_err(|_| FirstWordError::Silent)?
}

/// The same for a client that had time to speak already: after `waited`, half of the silence or more, the
/// server is dialled at once. A timer for the rest would take longer: its ticks are whole milliseconds.
pub(crate) async fn first_word_after<D, F, E>(
    client: &mut Io,
    waited: Duration,
    dial: D,
) -> Result<FirstWord, FirstWordError>
where
    D: FnOnce() -> F,
    F: Future<Output = Result<Io, E>>,
{
    let is_silent = waited >= limits::DETECT_SILENCE / 2;
    let watched = watch(client, dial, if is_silent { Duration::ZERO } else { limits::DETECT_SILENCE });
    timeout(limits::SERVER_IDLE, watched).await.map_err(|_| FirstWordError::Silent)?
}

async fn watch<D, F, E>(client: &mut Io, dial: D, silence: Duration) -> Result<FirstWord, FirstWordError>
where
    D: FnOnce() -> F,
    F: Future<Output = Result<Io, E>>,
{
    let mut heard = BytesMut::with_capacity(1024);
    // No timer for no time: it would be rounded up to the next tick.
    if !silence.is_zero() {
        match timeout(silence, client.read_buf(&mut heard)).await {
            Ok(read) => return decide(client, read, heard, None).await,
            Err(_silent) => {}
        }
    }
    let dialled = tokio::select! {
        biased;
        read = client.read_buf(&mut heard) => return decide(client, read, heard, None).await,
        dialled = dial() => dialled,
    };
    let Ok(mut server) = dialled else {
        let read = client.read_buf(&mut heard).await;
        return decide(client, read, heard, None).await;
    };
    let mut said = BytesMut::with_capacity(1024);
    loop {
        tokio::select! {
            biased;
            read = client.read_buf(&mut heard) => {
                server.rewind(said.freeze());
                return decide(client, read, heard, Some(server)).await;
            }
            read = server.read_buf(&mut said) => match (read, begins_with_http2_settings(&said)) {
                (Ok(n), None) if n > 0 => {}
                (Ok(_), Some(true)) => {
                    drop(server);
                    let read = client.read_buf(&mut heard).await;
                    return decide(client, read, heard, None).await;
                }
                // Gone without a word: it says nothing of its protocol, and nothing can be carried.
                (Ok(0) | Err(_), _) if said.is_empty() => return Ok(FirstWord::Nobody),
                _ => {
                    server.rewind(said.freeze());
                    return Ok(FirstWord::Server(server));
                }
            }
        }
    }
}

/// Goes on reading what the client began until it can be told.
async fn decide(
    client: &mut Io,
    mut read: io::Result<usize>,
    mut heard: BytesMut,
    server: Option<Io>,
) -> Result<FirstWord, FirstWordError> {
    let deadline = tokio::time::Instant::now() + limits::DETECT_TIMEOUT;
    loop {
        let ended = read.map_err(FirstWordError::Client)? == 0;
        if ended && heard.is_empty() {
            return Ok(match server {
                Some(server) => FirstWord::Client(Detected::Opaque, Some(server)),
                None => FirstWord::Nobody,
            });
        }
        let detected = match detect(&heard) {
            None if ended => Some(Detected::Opaque),
            detected => detected,
        };
        if let Some(detected) = detected {
            client.rewind(heard.freeze());
            return Ok(FirstWord::Client(detected, server));
        }
        read = tokio::time::timeout_at(deadline, client.read_buf(&mut heard))
            .await
            .map_err(|_| FirstWordError::Stalled)?;
    }
}

#[cfg(test)]
mod tests;
