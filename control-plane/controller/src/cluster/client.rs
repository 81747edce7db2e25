//! client: a way to the API server, which notices when the other side is gone.

use std::time::Duration;

use anyhow::Context as _;
use hyper_util::client::legacy::Client as Http;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kube::client::ConfigExt as _;
use kube::config::{Config, KubeConfigOptions, KubeconfigError};
use kube::{Client, client};
use tower::{BoxError, ServiceBuilder};

/// How long a TCP handshake with the API server may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// A watch may be silent for a minute: the kernel asks after this whether the other side is there,
const KEEPALIVE_IDLE: Duration = Duration::from_secs(15);
/// asks again this often,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// and this many times: a machine that vanished is noticed after half a minute.
const KEEPALIVE_RETRIES: u32 = 3;

/// The pod's own access, else that of `KUBECONFIG` or `~/.kube/config`.
///
/// kube's own client is not used as it comes: it keeps no connection alive, tries again by itself for
/// minutes where our watches have to know what is the matter, and writes a line for each try.
///
/// # Errors
/// When there is no access, or it cannot be used. That the API server answers is not asked.
pub(super) async fn connect() -> anyhow::Result<Client> {
    // A process has one provider; kube asks for the default.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let access = match Config::incluster() {
        Ok(access) => access,
        Err(_) => Config::from_kubeconfig(&KubeConfigOptions::default())
            .await
            .map_err(|error| unreadable(&files(), &error))?,
    };
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    tcp.set_keepalive(Some(KEEPALIVE_IDLE));
    tcp.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    tcp.set_keepalive_retries(Some(KEEPALIVE_RETRIES));
    let unusable = || format!("cannot use the access to the Kubernetes API at {}", access.cluster_url);
    let tls = access.rustls_https_connector_with_connector(tcp).with_context(unusable)?;
    let http = Http::builder(TokioExecutor::new()).build::<_, client::Body>(tls);
    let service = ServiceBuilder::new()
        .layer(access.base_uri_layer())
        .option_layer(access.auth_layer().with_context(unusable)?)
        .map_err(BoxError::from)
        .service(http);
    Ok(Client::new(service, access.default_namespace))
}

/// Where a kubeconfig is looked for, as kube does.
fn files() -> String {
    let named = std::env::var("KUBECONFIG").unwrap_or_default();
    if named.is_empty() { "~/.kube/config".to_owned() } else { named }
}

/// One line: a parser goes on with the lines around its place, in a file that may hold keys and tokens.
fn unreadable(files: &str, error: &KubeconfigError) -> anyhow::Error {
    let told = error.to_string();
    let told = told.lines().next().unwrap_or_default();
    anyhow::anyhow!(
        "no access to a Kubernetes API by {files}: {told}; run in a pod, or name a right file in KUBECONFIG"
    )
}

#[cfg(test)]
mod tests {
    use kube::config::Kubeconfig;

    use super::*;

    #[test]
    fn a_broken_kubeconfig_is_told_in_one_line_without_what_stands_in_it() {
        let text = "users:\n- name: us\n  user: {token: swordfish, exec: 7}\n";
        let error = Kubeconfig::from_yaml(text).unwrap_err();
        let told = format!("{:#}", unreadable("/etc/broken", &error));
        assert_eq!(told.lines().count(), 1, "{told}");
        assert!(told.contains("/etc/broken: failed to parse") && told.contains("KUBECONFIG"), "{told}");
        assert!(!told.contains("swordfish"), "{told}");
    }
}
