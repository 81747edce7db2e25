//! detect: which protocol the first bytes of a connection begin.

use policy::limits;

/// What a client's first bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Detected {
    /// An HTTP/1.0 or HTTP/1.1 request line (RFC 9112 §3).
    Http1,
    /// The HTTP/2 preface (RFC 9113 §3.4).
    Http2,
    /// A TLS ClientHello.
    Tls(ClientHello),
    /// None of these.
    Opaque,
}

/// What a ClientHello asks for in the clear.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClientHello {
    /// The server's name (RFC 6066 §3), in lower case.
    pub server_name: Option<String>,
    /// Application protocols offered (RFC 7301).
    pub alpn: Vec<Vec<u8>>,
}

const HTTP2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// The longest method taken for one; the longest registered has 17 letters (RFC 9110 §16.1).
const METHOD_BYTES_MAX: usize = 32;

/// Tells what `bytes`, all that a client has sent so far, begin; `None` while it is undecided.
#[must_use]
pub fn detect(bytes: &[u8]) -> Option<Detected> {
    match bytes {
        [] => None,
        // Record type handshake, version 3.x (RFC 8446 §5.1).
        [22] => None,
        [22, 3, ..] => detect_tls(bytes),
        _ if bytes.starts_with(HTTP2_PREFACE) => Some(Detected::Http2),
        _ if HTTP2_PREFACE.starts_with(bytes) => None,
        _ => detect_http1(bytes),
    }
}

fn detect_tls(bytes: &[u8]) -> Option<Detected> {
    let mut acceptor = rustls::server::Acceptor::default();
    let mut unread = bytes;
    while !unread.is_empty() {
        match acceptor.read_tls(&mut unread) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        match acceptor.accept() {
            Ok(Some(accepted)) => {
                let hello = accepted.client_hello();
                return Some(Detected::Tls(ClientHello {
                    server_name: hello.server_name().map(str::to_ascii_lowercase),
                    alpn: hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect(),
                }));
            }
            Ok(None) => {}
            // Not a hello that rustls reads, such as one without TLS 1.2: still TLS, not ours.
            Err(_) => return Some(Detected::Tls(ClientHello::default())),
        }
    }
    (bytes.len() >= limits::DETECT_BYTES_MAX).then(|| Detected::Tls(ClientHello::default()))
}

/// METHOD SP TARGET SP HTTP/1.x, with the empty lines before it that a server should ignore
/// (RFC 9112 §2.2).
fn detect_http1(bytes: &[u8]) -> Option<Detected> {
    let start = bytes
        .iter()
        .position(|b| !matches!(b, b'\r' | b'\n'))
        .filter(|start| *start < limits::DETECT_BYTES_MAX);
    let line = match start {
        Some(start) => &bytes[start..],
        None if bytes.len() < limits::DETECT_BYTES_MAX => return None,
        None => return Some(Detected::Opaque),
    };
    let method = line.iter().take_while(|b| is_token(**b)).count();
    if method > METHOD_BYTES_MAX {
        return Some(Detected::Opaque);
    }
    match line.get(method) {
        None => return None,
        Some(b' ') if method > 0 => {}
        Some(_) => return Some(Detected::Opaque),
    }
    match line.iter().position(|b| *b == b'\n') {
        Some(end) => {
            let line = line[..end].trim_ascii_end();
            let is_http = line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0");
            Some(if is_http { Detected::Http1 } else { Detected::Opaque })
        }
        None if line.iter().any(|b| *b < b' ' && *b != b'\r' && *b != b'\t') => Some(Detected::Opaque),
        // A request line as long as this is HTTP, and the server answers it with 414 or 431.
        None if line.len() >= limits::DETECT_BYTES_MAX => Some(Detected::Http1),
        None => None,
    }
}

/// RFC 9110 §5.6.2.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// Whether `bytes` begin with an HTTP/2 SETTINGS frame, which a server may send before the client's
/// preface (RFC 9113 §3.4, §6.5); `None` while it is undecided.
#[must_use]
pub fn begins_with_http2_settings(bytes: &[u8]) -> Option<bool> {
    // Length (24 bits, a multiple of 6, below 256 in any server's first frame), type 4, no ACK
    // flag, stream 0.
    let fits = |at: usize, byte: u8| match at {
        0 | 1 | 4..=8 => byte == 0,
        2 => byte.is_multiple_of(6),
        _ => byte == 4,
    };
    if bytes.iter().take(9).enumerate().any(|(at, byte)| !fits(at, *byte)) {
        return Some(false);
    }
    (bytes.len() >= 9).then_some(true)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn hello(name: &str) -> Vec<u8> {
        let provider = crate::tls::provider();
        let mut config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let name = name.to_owned().try_into().unwrap();
        let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn every_prefix_is_undecided_until_it_can_only_be_one_thing() {
        for (bytes, is) in [
            (b"GET / HTTP/1.1\r\n".as_slice(), Detected::Http1),
            (b"\r\nPOST /x HTTP/1.0\n", Detected::Http1),
            (HTTP2_PREFACE, Detected::Http2),
            (b"PRINT / HTTP/1.1\r\n", Detected::Http1),
            (b"PING\r\n", Detected::Opaque),
            (b"SET key value\r\n", Detected::Opaque),
        ] {
            let at = (1..=bytes.len()).find(|n| detect(&bytes[..*n]).is_some()).unwrap();
            assert_eq!(detect(&bytes[..at]), Some(is.clone()), "{bytes:?}");
            assert_eq!(detect(bytes), Some(is));
        }
        assert_eq!(detect(b"\x00\x00"), Some(Detected::Opaque));
    }

    #[test]
    fn a_client_hello_of_more_than_a_segment_is_read_until_it_is_whole() {
        let bytes = hello("orders.shop.example");
        assert!(bytes.len() > 1200, "a post-quantum key share is in it: {} bytes", bytes.len());
        for cut in [1, 5, 100, 1200, bytes.len() - 1] {
            assert_eq!(detect(&bytes[..cut]), None, "{cut} bytes");
        }
        let is =
            ClientHello { server_name: Some("orders.shop.example".to_owned()), alpn: vec![b"h2".to_vec()] };
        assert_eq!(detect(&bytes), Some(Detected::Tls(is)));
    }

    #[test]
    fn a_settings_frame_is_told_from_a_banner() {
        let settings = [0, 0, 18, 4, 0, 0, 0, 0, 0, 1, 2];
        assert_eq!(begins_with_http2_settings(&settings), Some(true));
        assert_eq!(begins_with_http2_settings(&settings[..4]), None);
        assert_eq!(begins_with_http2_settings(b"220 ready"), Some(false));
        assert_eq!(begins_with_http2_settings(b"J\0\0\0\n8.0.36"), Some(false));
    }

    proptest! {
        #[test]
        fn a_verdict_never_changes_with_more_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..200) {
            let cut = cut.min(bytes.len());
            if let Some(early) = detect(&bytes[..cut]) {
                prop_assert_eq!(detect(&bytes), Some(early));
            }
        }
    }
}
