//! request: one request, routed, balanced, retried.
//!
//! The way of a request through a sidecar is two calls. On the client's side [`forward::forward`]:
//! the rule is chosen ([`route`]), one of its backends is drawn by weight, an endpoint is chosen by
//! two random choices over peak EWMA ([`balance`]), the request goes out on a pooled connection
//! ([`client`]), and what became of it ([`outcome`]) decides whether it is tried again ([`retry`],
//! [`replay`]). On the server's side [`deliver::deliver`]: headers restored as the application
//! knows them, and on to the application.
//!
//! Both are called by a [`server`], which takes requests from one connection and knows idleness,
//! slow headers and the end ([`drain`]).
//!
//! # What is said when something fails
//! Every response made here carries `Proxy-Status` (RFC 9209) with an error token and details, is
//! counted under the same token, and is a gRPC status for gRPC. See [`outcome::Failure`].
//!
//! # Bodies
//! Bodies pass as frames, with the back-pressure of both sides. A request's body is kept for a
//! retry up to a bound of its backend and a bound of the process; beyond it is sent once.
//!
//! # Threads
//! Nothing here is shared between workers but counters: every worker has its own backends, pools
//! and budgets, and a configured bound is divided among them.

pub mod backend;
mod balance;
pub mod body;
mod client;
pub mod deliver;
pub mod drain;
mod exchange;
pub mod forward;
pub mod headers;
pub mod metrics;
pub mod outcome;
mod replay;
mod retry;
mod rewrite;
mod route;
pub mod server;
mod track;
mod unread;
mod upgrade;
