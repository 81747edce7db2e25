//! refused: why an incoming connection is ended before anything of it was delivered.

use policy::limits;

use crate::authorize::Denied;

/// Why a connection is ended before anything of it was delivered.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("the TLS handshake failed")]
    Tls(#[source] transport::tls::TlsError),
    #[error("its transport header is unusable")]
    Header(#[source] transport::header::HeaderError),
    #[error("it came to the sidecar's own port without being for this workload")]
    NotForUs,
    #[error("it asks for port {0}, which is this proxy's own")]
    OwnPort(u16),
    #[error("it asks for a gateway's service, which this proxy is not")]
    Gateway,
    #[error("port {0} is spoken to by HTTP and this is not HTTP")]
    NotHttp(u16),
    #[error("{0}")]
    Denied(Denied),
    #[error("this proxy has no policy yet")]
    NoPolicy,
    #[error("the first bytes did not come")]
    FirstWord(#[source] crate::first_word::FirstWordError),
    #[error("nothing came within {:?}", limits::DETECT_TIMEOUT)]
    Silent,
    #[error("the application is not reached")]
    Application(#[source] transport::connect::ConnectError),
}

impl Refused {
    /// Its token in metrics.
    pub(crate) fn token(&self) -> &'static str {
        match self {
            Self::Tls(_) => "tls_protocol_error",
            Self::Header(_) | Self::NotHttp(_) | Self::Gateway => "http_protocol_error",
            Self::NotForUs | Self::OwnPort(_) => "relay_denied",
            Self::Denied(_) => "http_request_denied",
            Self::NoPolicy => "destination_unavailable",
            Self::FirstWord(_) | Self::Silent => "connection_read_timeout",
            Self::Application(error) => error.token(),
        }
    }
}
