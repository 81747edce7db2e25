//! original_dst: where a redirected connection was meant to go.

use std::net::SocketAddr;

use socket2::SockRef;
use tokio::net::TcpStream;

/// The address a client dialled before nftables redirected it here (SO_ORIGINAL_DST of
/// `linux/netfilter_ipv4.h`); `None` when nothing was redirected.
#[must_use]
pub fn original_dst(tcp: &TcpStream) -> Option<SocketAddr> {
    let local = tcp.local_addr().ok()?;
    let socket = SockRef::from(tcp);
    let original = match local {
        SocketAddr::V4(_) => socket.original_dst_v4(),
        SocketAddr::V6(_) => socket.original_dst_v6(),
    };
    original.ok()?.as_socket().filter(|original| *original != local)
}
