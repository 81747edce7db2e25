//! passing: a request that goes on, and one that asks for what was taken in.

use std::net::SocketAddr;

use http::uri::Authority;
use http::{Request, Response};
use hyper::body::Incoming;
use policy::snapshot::DestinationKey;
use request::body::{Body, Received};
use request::deliver::authority_of;
use request::forward::{Passage, forward};
use request::outcome::Failure;

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
}

impl Outbound {
    /// What became of a message: known here, or to the sidecar that keeps it.
    pub(super) async fn reserved(&self, request: Request<Incoming>) -> Result<Response<Body>, Failure> {
        let Some(holder) = self.messages.kept_elsewhere(&request) else {
            return Ok(self.messages.answer(request, &Asker::Ourselves).await);
        };
        let address = SocketAddr::new(holder.into(), messages::PORT);
        let (authority, key) = (authority_of(address), DestinationKey::Address(address));
        let gone = || {
            let detail = format!("the pod {holder} that kept this request is not of the mesh");
            Ok(Problem::new(problem::UNKNOWN, detail).into_response())
        };
        let cell = match self.find(&key).await {
            Ok(cell) => cell,
            Err(Unreachable::Unknown(_)) => return gone(),
            Err(unreachable) => return Err(Failure::from(&unreachable)),
        };
        let now = cell.now();
        let reached = match now.as_ref() {
            Ok(reached) if reached.outside => return gone(),
            Ok(reached) => reached,
            Err(Unreachable::Unknown(_)) => return gone(),
            Err(unreachable) => return Err(Failure::from(unreachable)),
        };
        let passing = Passing { outbound: self, authority: &authority, reached, redirected: false };
        passing.forward(request.map(Received::from)).await
    }
}
