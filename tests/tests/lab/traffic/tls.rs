//! tls: the application's own TLS stays between the applications.

use anyhow::{Result, ensure};
use lab::manifests::Port;

use super::{Pair, curl, curl_ok, nginx, wait_for_count};

#[test]
fn tls_of_the_application_is_not_opened() -> Result<()> {
    let ports = [Port::new("https", 443, 8443), Port::new("named", 8443, 8443).speaking("https")];
    let mut folder = None;
    let (pair, _server) = Pair::new(&ports, |world, shop| {
        let at = world.lab.folder().join("certificate");
        std::fs::create_dir(&at)?;
        let (key, certificate) = (at.join("key.pem"), at.join("certificate.pem"));
        let mut openssl = shop.command("openssl");
        openssl.args(["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=shop"]);
        openssl
            .args(["-addext", "subjectAltName=DNS:shop", "-keyout"])
            .arg(&key)
            .arg("-out")
            .arg(&certificate);
        shop.run(&mut openssl)?;
        let servers = format!(
            "server {{ listen 8443 ssl http2; ssl_certificate {}; ssl_certificate_key {};
               location / {{ return 200 \"$scheme $server_protocol $ssl_server_name\\n\"; }} }}",
            certificate.display(),
            key.display()
        );
        folder = Some(certificate);
        Ok(vec![nginx(world, shop, &servers)?.0])
    })?;
    let certificate = folder.unwrap_or_default().display().to_string();
    let mut connections = 0.0;
    for url in ["https://shop/", "https://shop:8443/"] {
        // That curl believes this certificate, and nobody else's, proves who answers.
        let said = curl_ok(&pair.web, &["--cacert", &certificate, "--http2", url])?;
        ensure!(said == "https HTTP/2.0 shop\n", "{url}: {said}");
        let said = curl_ok(&pair.web, &["--cacert", &certificate, "--http1.1", url])?;
        ensure!(said == "https HTTP/1.1 shop\n", "{url}: {said}");
        connections += 2.0;
    }
    // It was let in, and only who is authenticated is: around it was mTLS.
    for (sidecar, direction) in [(&pair.shop_sidecar, "inbound"), (&pair.web_sidecar, "outbound")] {
        wait_for_count(direction, connections, || {
            sidecar.metric("tidegate_sidecar_tcp_connections_total", &[("direction", direction)])
        })?;
    }
    let requests = pair.shop_sidecar.metric("tidegate_request_responses_total", &[])?;
    ensure!(requests == 0.0, "{requests} requests were seen inside TLS");

    // From a pod without a sidecar the same TLS is not let in.
    let bare = pair.world.lab.pod("bare", "shop", "bare")?;
    let resolve = format!("shop:8443:{}", pair.shop.ip());
    let refused = curl(&bare, &["--cacert", &certificate, "--resolve", &resolve, "https://shop:8443/"])?;
    ensure!(!refused.status.success(), "TLS from a pod without identity was let in");
    Ok(())
}
