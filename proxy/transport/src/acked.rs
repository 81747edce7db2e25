//! acked: how much of what was written the peer's kernel has taken.

use std::os::fd::AsRawFd as _;

use tokio::net::TcpStream;

/// Where `tcpi_bytes_acked` stands in Linux' `struct tcp_info` (`linux/tcp.h`, since 4.1).
const BYTES_ACKED_AT: usize = 120;

/// Bytes of the connection that the peer's kernel has acknowledged, the SYN counted as one
/// (`tcpEStatsAppHCThruOctetsAcked` of RFC 4898). Answered also after a reset. `None` where the
/// kernel does not say.
#[must_use]
pub fn bytes_acked(tcp: &TcpStream) -> Option<u64> {
    let mut info = [0u8; 256];
    let mut length = libc::socklen_t::try_from(info.len()).ok()?;
    #[allow(unsafe_code, reason = "no crate reads this socket option")]
    // SAFETY: the descriptor is open for as long as `tcp` is borrowed; the kernel writes at most
    // `length` bytes into `info`, which is that long, and says in `length` how many it wrote.
    let failed = unsafe {
        libc::getsockopt(
            tcp.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    } != 0;
    let end = BYTES_ACKED_AT + 8;
    if failed || usize::try_from(length).ok()? < end {
        return None;
    }
    let bytes = info[BYTES_ACKED_AT..end].try_into().ok()?;
    Some(u64::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn what_a_closed_socket_never_took_is_not_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut far, _) = listener.accept().await.unwrap();
        near.write_all(b"taken").await.unwrap();
        far.read_exact(&mut [0; 5]).await.unwrap();
        assert_eq!(bytes_acked(&near), Some(6));
        drop(far);
        near.write_all(b"too late").await.unwrap();
        let _ = near.read(&mut [0; 1]).await;
        assert_eq!(bytes_acked(&near), Some(6));
    }
}
