//! http2: HTTP/2 with prior knowledge, from curl and from Python, to nginx and to nghttpd.

use anyhow::{Result, ensure};
use lab::manifests::Port;
use serde_json::json;

use super::{Pair, curl_ok, nginx};

#[test]
fn curl_speaks_http2_to_nginx() -> Result<()> {
    // One port with its protocol named, and one without.
    let ports = [Port::new("h2c", 80, 8080).speaking("kubernetes.io/h2c"), Port::new("other", 81, 8080)];
    let (pair, _server) = Pair::new(&ports, |world, shop| {
        let (nginx, folder) = nginx(world, shop, "server { listen 8080 http2; }")?;
        std::fs::write(folder.join("www/page.txt"), "a page\n")?;
        Ok(vec![nginx])
    })?;
    // One request per curl: 7.88 cannot use such a connection twice, not even without us.
    for url in ["http://shop/page.txt", "http://shop:81/page.txt", "http://shop:81/page.txt"] {
        let args = ["--http2-prior-knowledge", "-w", "%{http_version} %{http_code}", url];
        let said = curl_ok(&pair.web, &args)?;
        ensure!(said == "a page\n2 200", "{url}: {said}");
    }
    pair.assert_proven(3.0)
}

#[test]
fn many_streams_and_trailers_pass() -> Result<()> {
    let ports = [Port::new("other", 80, 8080)];
    let (pair, _server) = Pair::new(&ports, |world, shop| {
        let folder = world.lab.folder().join("nghttpd");
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join("page.txt"), "a page\n")?;
        let mut command = shop.command("nghttpd");
        command.args(["-v", "--no-tls", "-a", "0.0.0.0", "--trailer", "x-answer: answered", "--echo-upload"]);
        let mut server = shop.spawn("nghttpd", command.arg("-d").arg(&folder).arg("8080"))?;
        server.wait_for("listen 0.0.0.0:8080", std::time::Duration::from_secs(10))?;
        Ok(vec![server])
    })?;
    let said = pair.web.ask("h2_client.py", &["shop:80", "--path", "/page.txt", "--count", "500"])?;
    ensure!(said["statuses"] == json!({ "200": 500 }) && said["bytes"] == 3500, "{said}");
    ensure!(said["trailers"]["x-answer"] == "answered", "{said}");
    ensure!(said["resets"] == json!([]) && said["error"].is_null(), "{said}");

    // Bodies larger than a stream's window, and trailers behind them.
    let args = ["shop:80", "--method", "POST", "--path", "/page.txt", "--count", "40", "--concurrency", "20"];
    let said = pair.web.ask("h2_client.py", &[&args[..], &["--bytes", "200000", "--trailers"]].concat())?;
    ensure!(said["statuses"] == json!({ "200": 40 }) && said["bytes"] == 8_000_000, "{said}");
    ensure!(said["resets"] == json!([]) && said["error"].is_null(), "{said}");
    pair.assert_proven(540.0)
}
