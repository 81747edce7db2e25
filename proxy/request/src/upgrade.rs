//! upgrade: requests that turn their connection into something else (WebSocket, CONNECT).
//!
//! They keep HTTP/1 and have a connection of their own, also between sidecars. Once both sides have
//! agreed, bytes are carried until both ends have closed.

use std::sync::Arc;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use policy::limits;
use tokio::sync::OwnedSemaphorePermit;
use transport::errors::chain;
use transport::header::SessionProtocol;

use crate::backend::{BackendClient, InFlight};
use crate::body::Body;
use crate::client::Pool;
use crate::drain::Drain;
use crate::forward::Passage;
use crate::headers::{PeerWords, strip_for_upgrade, to_http1};
use crate::metrics::AttemptResult;
use crate::outcome::{Cause, Failure};

/// Sends a request that wants to upgrade to an endpoint of `backend`.
pub(crate) async fn forward(
    backend: &Arc<BackendClient>,
    mut request: Request<Incoming>,
    passage: &Passage<'_>,
    permit: OwnedSemaphorePermit,
) -> Result<Response<Body>, Failure> {
    to_http1(&mut request, passage.authority, passage.absolute_form);
    let mut tried = Vec::new();
    loop {
        let endpoint = backend.choose(&tried).await?;
        let opened = match endpoint.pool.open(Some(SessionProtocol::Http1)).await {
            Ok(opened) => opened,
            Err(error) => {
                endpoint.not_connected();
                tried.push(endpoint);
                let total = backend.endpoints_total();
                if tried.len() >= limits::CONNECT_ATTEMPTS_MAX as usize || tried.len() >= total {
                    let details = format!(
                        "{}: {}; total={total} tried={}",
                        backend.label(),
                        error.reason(),
                        tried.len()
                    );
                    return Err(Failure::new(Cause::Connect(error.token()), details));
                }
                continue;
            }
        };
        endpoint.load.connected();
        let held = (InFlight::new(&endpoint), permit);
        let (mut response, words) =
            exchange(opened, request, passage.drain, held).await.inspect_err(|_| {
                endpoint.series.record(AttemptResult::Broken);
            })?;
        endpoint.answered(&mut response, words);
        return Ok(response);
    }
}

/// The same for the application beside the proxy.
pub(crate) async fn deliver(
    pool: &Pool,
    request: Request<Incoming>,
    drain: &Drain,
    held: impl Send + 'static,
) -> Result<Response<Body>, Failure> {
    let opened =
        pool.open(None).await.map_err(|error| Failure::new(Cause::Connect(error.token()), error.reason()))?;
    // The application cannot speak as a sidecar.
    let (response, _) = exchange(opened, request, drain, held).await?;
    Ok(response)
}

/// Sends `request` on a fresh connection; when both sides agree to change, carries what follows
/// and holds `held` until it ends.
async fn exchange(
    io: transport::io::Io,
    mut request: Request<Incoming>,
    drain: &Drain,
    held: impl Send + 'static,
) -> Result<(Response<Body>, PeerWords), Failure> {
    let broken = |error: hyper::Error| Failure::new(Cause::Terminated, chain(&error));
    strip_for_upgrade(request.headers_mut());
    let near = hyper::upgrade::on(&mut request);
    let connects = request.method() == Method::CONNECT;
    let (mut sender, connection) = http1::Builder::new()
        .max_headers(limits::HEADER_COUNT_MAX)
        .max_buf_size(limits::HTTP1_BUFFER_BYTES)
        .handshake::<_, Body>(TokioIo::new(io))
        .await
        .map_err(broken)?;
    drain.spawn(connection.with_upgrades());
    let mut response = sender.send_request(request.map(Body::incoming)).await.map_err(broken)?;
    let words = PeerWords::take(response.headers_mut());
    let agreed =
        response.status() == StatusCode::SWITCHING_PROTOCOLS || (connects && response.status().is_success());
    if !agreed {
        return Ok((response.map(Body::incoming), words));
    }
    let far = hyper::upgrade::on(&mut response);
    drain.spawn(async move {
        if let (Ok(near), Ok(far)) = tokio::join!(near, far) {
            carry(near, far).await;
        }
        drop(held);
    });
    Ok((response.map(|_| Body::empty()), words))
}

async fn carry(near: Upgraded, far: Upgraded) {
    let (mut near, mut far) = (TokioIo::new(near), TokioIo::new(far));
    let size = limits::DUPLEX_BUFFER_BYTES;
    // Either end may go at any time; there is nobody left to tell.
    let _ = tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, size, size).await;
}
