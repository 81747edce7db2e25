//! passing: a request that goes on, and one that asks for what was taken in.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, HeaderName};
use http::uri::Authority;
use http::{Request, Response, Uri};
use hyper::body::Incoming;
use policy::snapshot::{Backend, BackendSettings, Destination, DestinationKey, ServicePolicy};
use request::backend::BackendClient;
use request::body::{Body, Received};
use request::deliver::authority_of;
use request::forward::{Passage, Target, check_both_ways, forward};
use request::outcome::{Cause, Failure};

use super::Outbound;
use crate::admit::Proxy;
use crate::admit::problem::{self, Problem};
use crate::discovery::{Reached, Unreachable};
use crate::messages::{self, Asker};

/// A request on its synchronous way.
pub(super) struct Passing<'a> {
    pub(super) outbound: &'a Outbound,
    pub(super) authority: &'a Authority,
    pub(super) reached: &'a Reached,
    pub(super) redirected: bool,
}

impl Proxy for Passing<'_> {
    async fn forward(&self, request: Request<Received>) -> Result<Response<Body>, Failure> {
        let passage = Passage {
            shared: &self.outbound.shared,
            authority: self.authority,
            absolute_form: self.redirected,
            drain: &self.outbound.drain,
            tell_way: self.outbound.observer.is_on(),
            retries: true,
        };
        // Its state is 11 KiB, which whoever awaits it would else move along with his own.
        Box::pin(forward(&self.reached.target, request, &passage)).await
    }

    fn check(&self, head: &mut Request<()>) -> Result<(), Failure> {
        check_both_ways(head, &self.outbound.shared)
    }
}

impl Outbound {
    /// What became of a message: known here, or to the replica that keeps it.
    pub(super) async fn reserved(&self, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let elsewhere = self.messages.kept_elsewhere(request.method(), request.uri().path()).await;
        let Some(holder) = elsewhere else {
            return Ok(self.messages.answer(request, &Asker::Ourselves).await);
        };
        let address = SocketAddr::new(holder.into(), messages::PORT);
        let Some(reached) = self.replica(address).await? else {
            let detail = format!("no pod of this workload is at {holder}, which the id names");
            return Ok(Problem::new(problem::UNKNOWN, detail).into_response());
        };
        let authority = authority_of(address);
        let passing = Passing { outbound: self, authority: &authority, reached: &reached, redirected: false };
        passing.forward(asked_again(&request, &authority)).await
    }

    /// The pod of our own workload at an address; `None` where there is none. An id is what a client
    /// says, so the address may be anybody's. The way is made for this request alone, of an endpoint
    /// that must prove our identity: should the address change hands meanwhile, the handshake fails.
    async fn replica(&self, address: SocketAddr) -> Result<Option<Reached>, Failure> {
        let key = DestinationKey::Address(address);
        let cell = match self.find(&key).await {
            Ok(cell) => cell,
            Err(Unreachable::Unknown(_)) => return Ok(None),
            Err(unreachable) => return Err(Failure::from(&unreachable)),
        };
        match cell.now().as_ref() {
            Ok(reached) if reached.outside => return Ok(None),
            Err(Unreachable::Unknown(_)) => return Ok(None),
            Err(unreachable) => return Err(Failure::from(unreachable)),
            Ok(_) => {}
        }
        let snapshot = self.discovery.snapshot();
        let Some(Destination::Service(policy)) = snapshot.destinations.get(&key).map(|told| &**told) else {
            return Ok(None);
        };
        let backend = snapshot.backends.get(&policy.backend).ok_or_else(|| {
            Failure::new(Cause::NoEndpoint, "the destination has no backend in this snapshot")
        })?;
        let proven = backend.endpoints.iter().find(|endpoint| {
            let peer = endpoint.peer.as_ref();
            endpoint.address == address && peer.is_some_and(|peer| self.messages.is_ours(&peer.identity))
        });
        Ok(proven.map(|endpoint| {
            let document = Backend {
                service: None,
                protocol: backend.protocol,
                settings: BackendSettings::default(),
                endpoints: vec![endpoint.clone()],
            };
            let policy = ServicePolicy {
                service: None,
                protocol: policy.protocol,
                rules: Vec::new(),
                backend: policy.backend.clone(),
                asynchronous: None,
            };
            let client = BackendClient::new(policy.backend.clone(), Arc::new(document), &self.shared);
            let client = Arc::new(client);
            let target = Arc::new(Target::new(&policy, &self.shared, |_| Some(client.clone())));
            Reached { target, protocol: policy.protocol, outside: false, named: key }
        }))
    }
}

const PREFER: HeaderName = HeaderName::from_static("prefer");

/// The same question, with what its answer depends on and nothing else: the application wrote its
/// headers for the authority that it named.
fn asked_again<B>(request: &Request<B>, authority: &Authority) -> Request<Received> {
    let mut again = Request::new(Received::Whole(Bytes::new()));
    *again.method_mut() = request.method().clone();
    *again.version_mut() = request.version();
    let uri = Uri::builder().scheme("http").authority(authority.clone());
    if let Ok(uri) = uri.path_and_query(request.uri().path()).build() {
        *again.uri_mut() = uri;
    }
    for name in [ACCEPT, PREFER] {
        for value in request.headers().get_all(&name) {
            again.headers_mut().append(name.clone(), value.clone());
        }
    }
    again
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    #[test]
    fn a_replica_is_told_what_is_asked_and_nothing_that_was_meant_for_others() {
        let asked = Request::post("/.tidegate/requests/7:redrive?more")
            .header("host", "orders")
            .header("accept", "a/b")
            .header("prefer", "wait=3")
            .header("prefer", "b")
            .header("authorization", "Bearer hunter2")
            .header("cookie", "a=b")
            .header("x-more", "c")
            .body(())
            .unwrap();
        let again = asked_again(&asked, &Authority::from_static("10.0.0.7:4180"));
        assert_eq!(again.method(), Method::POST);
        assert_eq!(again.uri(), "http://10.0.0.7:4180/.tidegate/requests/7:redrive");
        let told = again.headers().iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap()));
        assert_eq!(told.collect::<Vec<_>>(), [("accept", "a/b"), ("prefer", "wait=3"), ("prefer", "b")]);
        assert!(matches!(again.body(), Received::Whole(body) if body.is_empty()));
    }
}
