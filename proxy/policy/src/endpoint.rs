//! endpoint: one address that serves a backend, and how it is spoken to.

use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::identity::Identity;

/// One address that serves a backend.
///
/// Unknown fields are let through: an endpoint carries hints, never a restriction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Where the application listens.
    pub address: SocketAddr,
    /// The pod, for metrics and `explain`; empty when the address belongs to none.
    #[serde(default, skip_serializing_if = "str_is_empty")]
    pub pod: Arc<str>,
    /// The zone of its node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<Arc<str>>,
    /// Its sidecar; `None` is spoken to in plaintext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<Peer>,
    /// Still serving but on its way out: used only when no other endpoint is left.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub terminating: bool,
}

impl Endpoint {
    /// An address of no pod, spoken to in plaintext.
    #[must_use]
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, pod: "".into(), zone: None, peer: None, terminating: false }
    }
}

fn str_is_empty(text: &Arc<str>) -> bool {
    text.is_empty()
}

/// The sidecar beside an endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Peer {
    /// Whom its certificate must name.
    pub identity: Identity,
    /// Its inbound port. `None`: TLS goes straight to the endpoint's address and redirection
    /// brings it to the sidecar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbound_port: Option<u16>,
}
