//! bare_forwarder: the least a forwarding proxy on hyper can do, to measure Tidegate against.
//!
//! One current-thread runtime, a pool of HTTP/1 connections, no policy: `bare_forwarder LISTEN
//! UPSTREAM`. What Tidegate's outbound hop costs beyond this is the price of what it does.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;

use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};

type Pool = Rc<RefCell<Vec<SendRequest<Incoming>>>>;

async fn sender(pool: &Pool, upstream: SocketAddr) -> anyhow::Result<SendRequest<Incoming>> {
    let pooled = pool.borrow_mut().pop();
    if let Some(sender) = pooled.filter(SendRequest::is_ready) {
        return Ok(sender);
    }
    let stream = TcpStream::connect(upstream).await?;
    stream.set_nodelay(true)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::task::spawn_local(connection);
    Ok(sender)
}

async fn forward(
    pool: Pool,
    upstream: SocketAddr,
    request: http::Request<Incoming>,
) -> anyhow::Result<http::Response<Incoming>> {
    let mut sender = sender(&pool, upstream).await?;
    let response = sender.send_request(request).await?;
    tokio::task::spawn_local(async move {
        if sender.ready().await.is_ok() {
            pool.borrow_mut().push(sender);
        }
    });
    Ok(response)
}

async fn serve(listen: SocketAddr, upstream: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    let pool = Pool::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let pool = pool.clone();
        let service = service_fn(move |request| forward(pool.clone(), upstream, request));
        tokio::task::spawn_local(
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
        );
    }
}

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(listen), Some(upstream)) = (arguments.next(), arguments.next()) else {
        anyhow::bail!("usage: bare_forwarder LISTEN UPSTREAM, each IP:PORT");
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let local = tokio::task::LocalSet::new();
    local.block_on(&runtime, serve(listen.parse()?, upstream.parse()?))
}
