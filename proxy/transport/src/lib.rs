//! transport: one connection, accepted, its protocol told, identified, made.
//!
//! A connection enters through a [`listen::Listener`], which bounds how many there are and, under
//! redirection, asks the kernel where it was meant to go ([`original_dst`]). Its first bytes tell
//! what is spoken ([`detect`]); they are put back, so whoever reads next sees the connection from
//! its beginning ([`io::Io::rewind`]).
//!
//! Between sidecars the wire is Linkerd's: TLS 1.3 with certificates on both sides ([`tls`],
//! [`identity`]) and, on a sidecar's own inbound port, a short header that says which port of the
//! application is meant ([`header`]). [`connect`] makes such a connection; [`duplex`] carries bytes
//! that are not HTTP, with half-close and reset as they come.
//!
//! [`resolve`] looks names up, [`redirect`] writes the kernel's rules that bring a pod's traffic
//! here; [`errors`] tells an error with its causes. Nothing in this room knows what a request is.

pub mod acked;
pub mod connect;
pub mod detect;
pub mod duplex;
pub mod errors;
pub mod header;
pub mod identity;
pub mod io;
pub mod listen;
pub mod original_dst;
pub mod redirect;
pub mod resolve;
pub mod tls;
