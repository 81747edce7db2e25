//! link: a connection to the controller, proven to be it.

use std::sync::Arc;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use policy::identity::Identity;
use policy::limits;
use tonic::transport::{Channel, Endpoint, Uri};
use tower::service_fn;
use transport::connect::dial;
use transport::identity::Anchors;
use transport::io::Io;
use transport::resolve::Resolver;
use transport::tls::{Tls, connect_without_certificate};

/// How the controller is reached.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) controller: String,
    pub(crate) identity: Identity,
    pub(crate) resolver: Arc<Resolver>,
}

/// How this workload shows itself to the controller.
#[derive(Clone)]
pub(crate) enum Credential {
    /// With its certificate.
    Certificate(Tls),
    /// Not yet.
    Nothing(Anchors),
}

impl Link {
    /// Opens a channel for gRPC.
    pub(crate) async fn channel(&self, credential: Credential) -> anyhow::Result<Channel> {
        let link = self.clone();
        let connector = service_fn(move |_: Uri| {
            let (link, credential) = (link.clone(), credential.clone());
            async move { link.open(&credential).await.map(TokioIo::new) }
        });
        let endpoint = Endpoint::from_static("http://controller")
            .connect_timeout(limits::HANDSHAKE_TIMEOUT)
            .http2_keep_alive_interval(limits::CONTROL_KEEPALIVE)
            .keep_alive_timeout(limits::CONTROL_KEEPALIVE)
            .keep_alive_while_idle(true);
        Ok(endpoint.connect_with_connector(connector).await?)
    }

    async fn open(&self, credential: &Credential) -> anyhow::Result<Io> {
        let (host, port) = self.controller.rsplit_once(':').unwrap_or((&self.controller, "8086"));
        let port: u16 = port.parse()?;
        let addresses = self.resolver.lookup(host.trim_matches(['[', ']'])).await?.addresses;
        let mut failed = anyhow::anyhow!("{host} has no address");
        for address in addresses {
            let io = match dial((address, port).into()).await {
                Ok(io) => io,
                Err(error) => {
                    failed = error.into();
                    continue;
                }
            };
            return Ok(match credential {
                Credential::Certificate(tls) => tls.connect(io, &self.identity, false).await?,
                Credential::Nothing(anchors) => {
                    connect_without_certificate(io, &self.identity, anchors).await?
                }
            });
        }
        Err(failed)
    }
}

/// Waits between attempts: doubled each time, of each a random half to all.
pub(crate) struct Backoff(Duration);

impl Backoff {
    pub(crate) fn new() -> Self {
        Self(limits::CONTROL_BACKOFF_MIN)
    }

    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.0.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
        self.0 = (self.0 * 2).min(limits::CONTROL_BACKOFF_MAX);
    }
}
