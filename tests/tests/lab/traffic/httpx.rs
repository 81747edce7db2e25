//! httpx: Python's httpx, which keeps its connections, to a Python server and to nginx.

use anyhow::{Result, ensure};
use lab::manifests::Port;
use serde_json::json;

use super::{Pair, nginx};

const ACCEPTED: &str = "tidegate_transport_connections_accepted_total";

#[test]
fn httpx_keeps_one_connection_over_http1_and_over_http2() -> Result<()> {
    let ports = [Port::new("one", 80, 8080), Port::new("two", 81, 8081)];
    let (pair, _servers) = Pair::new(&ports, |world, shop| {
        let (nginx, folder) = nginx(world, shop, "server { listen 8081 http2; }")?;
        std::fs::write(folder.join("www/page.txt"), vec![b'x'; 5000])?;
        Ok(vec![nginx, shop.serve("http_echo.py", &["--listen", "0.0.0.0:8080", "--name", "shop"])?])
    })?;
    let accepted = || pair.web_sidecar.metric(ACCEPTED, &[("direction", "outbound")]);

    let said = pair.web.ask("httpx_client.py", &["http://shop/one", "--count", "50"])?;
    ensure!(said["versions"] == json!({"HTTP/1.1": 50}) && said["statuses"] == json!({"200": 50}), "{said}");
    ensure!(accepted()? == 1.0, "50 requests took {} connections", accepted()?);
    // Bodies, and several connections.
    let args = ["http://shop/two", "--count", "60", "--at-once", "6", "--bytes", "60000"];
    let said = pair.web.ask("httpx_client.py", &args)?;
    ensure!(said["statuses"] == json!({"200": 60}) && said["wrong"] == json!([]), "{said}");
    let connections = accepted()? - 1.0;
    ensure!((1.0..=6.0).contains(&connections), "60 requests, 6 at once, took {connections} connections");

    let before = accepted()?;
    let args = ["http://shop:81/page.txt", "--http2", "--count", "100", "--at-once", "20"];
    let said = pair.web.ask("httpx_client.py", &args)?;
    ensure!(said["versions"] == json!({"HTTP/2": 100}) && said["bytes"] == 500_000, "{said}");
    ensure!(said["statuses"] == json!({"200": 100}) && said["wrong"] == json!([]), "{said}");
    ensure!(accepted()? == before + 1.0, "100 streams took {} connections", accepted()? - before);
    pair.assert_proven(210.0)
}
