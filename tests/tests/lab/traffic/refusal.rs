//! refusal: what is not let through, and what is told about it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::manifests::{self, Port};
use lab::{Pod, Process, SIDECAR_UID, SidecarOptions, until};
use serde_json::{Value, json};

use super::{Pair, curl, curl_ok};
use crate::world::World;

/// A destination is waited for three seconds; this long until the client knows.
const ANSWER_PATIENCE: Duration = Duration::from_millis(3500);

fn told_why(response: &str) -> bool {
    response.to_lowercase().contains("\nproxy-status: tidegate; error=")
}

fn pair() -> Result<(Pair, Vec<Process>)> {
    Pair::new(&[Port::new("http", 80, 8080)], |_, shop| {
        Ok(vec![shop.serve("http_echo.py", &["--listen", "0.0.0.0:8080", "--name", "shop"])?])
    })
}

#[test]
fn plaintext_without_a_sidecar_is_refused() -> Result<()> {
    let (pair, _server) = pair()?;
    let bare = pair.world.lab.pod("bare", "shop", "bare")?;
    let said = curl_ok(&bare, &["-i", &format!("http://{}:8080/secret", pair.shop.ip())])?;
    ensure!(said.starts_with("HTTP/1.1 403 "), "{said}");
    ensure!(told_why(&said), "{said}");
    // Neither is anything that is not HTTP.
    let said = bare.run(bare.command("python3").args(["-c", PLAIN, &pair.shop.ip().to_string()]))?;
    ensure!(said.trim() == "refused", "{said}");

    let counts = curl_ok(&pair.web, &["http://shop/counts"])?;
    ensure!(counts.contains("\"requests\": 0"), "the application was asked: {counts}");
    ensure!(pair.proven()? == 1.0 && pair.denied()? == 2.0 && pair.unproven()? == 0.0);
    Ok(())
}

#[test]
fn strict_refuses_plaintext_but_for_probes() -> Result<()> {
    let world = World::new()?;
    let web = world.pod("web", "web", &[])?;
    let shop = world.pod("shop", "shop", &[("http", 8080)])?;
    let mut pod: Value = serde_json::from_str(&manifests::pod(&shop, &[("app", "shop")], &[("http", 8080)]))?;
    pod["spec"]["containers"][0]["readinessProbe"] = json!({"httpGet": {"path": "/healthz", "port": "http"}});
    world.put("pod-shop", &pod.to_string())?;
    world.service("shop", 10, &[Port::new("http", 80, 8080)], &[&shop])?;
    let _server = shop.serve("http_echo.py", &["--listen", "0.0.0.0:8080", "--name", "shop"])?;
    // Whoever comes is let in, but for strict.
    let options = SidecarOptions::of(&world.controller).arg("--inbound-default").arg("Allow");
    let lenient = shop.sidecar(&options)?;
    let _web_sidecar = world.sidecar(&web)?;
    let bare = world.lab.pod("bare", "shop", "bare")?;
    let url = |path: &str| format!("http://{}:8080/{path}", shop.ip());
    ensure!(bare.get(&url("lenient"))?.0 == 200, "the default lets nobody in");
    drop(lenient);

    let _strict = shop.sidecar(&options.arg("--strict"))?;
    let probed = bare.get(&url("healthz"))?;
    ensure!(probed.0 == 200 && probed.1.contains("\"server\": \"shop\""), "the probe: {probed:?}");
    let cases: [&[&str]; 5] = [
        &["-i", &url("secret")],
        &["-i", &url("healthz/secret")],
        &["-i", "-X", "POST", &url("healthz")],
        &["-i", "-d", "more", "-X", "GET", &url("healthz")],
        &["-i", "--http2-prior-knowledge", &url("secret")],
    ];
    for args in cases {
        let said = curl_ok(&bare, args)?;
        ensure!(said.split(' ').nth(1) == Some("403") && told_why(&said), "{args:?}: {said}");
    }
    let said = bare.run(bare.command("python3").args(["-c", PLAIN, &shop.ip().to_string()]))?;
    ensure!(said.trim() == "refused", "{said}");

    let said = curl_ok(&web, &["http://shop/meshed"])?;
    ensure!(said.contains("\"path\": \"/meshed\""), "{said}");
    let counts: Value = serde_json::from_str(&curl_ok(&web, &["http://shop/counts"])?)?;
    let seen = json!({"/lenient": 1, "/healthz": 1, "/meshed": 1});
    ensure!(counts["paths"] == seen, "the application was asked: {counts}");
    Ok(())
}

/// Says whether the port answers anything at all to bytes that are no HTTP.
const PLAIN: &str = "
import socket, sys
s = socket.create_connection((sys.argv[1], 8080), timeout=4)
s.sendall(b'\\x01\\x02 no protocol at all\\r\\n' * 4)
try:
    print('answered' if s.recv(100) else 'refused')
except ConnectionError:
    print('refused')
";

/// A sidecar that is not expected to get ready; its token is this text.
fn stranger(world: &World, pod: &Pod, account: &str, token: &str) -> Result<Process> {
    let controller = &world.controller;
    let tokens = world.lab.folder().join(format!("token-{}", pod.name()));
    std::fs::write(&tokens, token)?;
    let mut command = pod.binary("tidegate-proxy", Some(SIDECAR_UID))?;
    command.args(["--controller", &controller.address(), "--namespace", "shop", "--pod", pod.name()]);
    command.args(["--service-account", account]).arg("--token-file").arg(&tokens);
    // The controller's folder may be closed to the sidecar's user.
    let anchors = world.lab.folder().join("anchors.pem");
    std::fs::copy(controller.state().join("anchors.pem"), &anchors)?;
    pod.spawn("stranger", command.arg("--anchors").arg(&anchors))
}

#[test]
fn a_wrong_token_or_account_never_gets_ready_and_says_why() -> Result<()> {
    let world = World::new()?;
    let web = world.pod("web", "web", &[])?;
    let shop = world.pod("shop", "shop", &[])?;
    let token = world.controller.state().join("tokens/shop.web.token");
    let token =
        until("the token of web", Duration::from_secs(10), || Ok(std::fs::read_to_string(&token).ok()))?;
    let cases = [(&web, "web", "wrong"), (&shop, "shop", token.as_str())];
    for (pod, account, token) in cases {
        pod.run(pod.binary("tidegate-proxy", None)?.arg("redirect"))?;
        let mut sidecar = stranger(&world, pod, account, token)?;
        let ready = || pod.get("http://127.0.0.1:4191/ready");
        let why = sidecar.until("its /ready to tell why", Duration::from_secs(10), |_| {
            Ok(ready().ok().filter(|(_, why)| why.contains("certificate") && why.contains("token")))
        })?;
        println!("{account}: {why:?}");
        ensure!(why.0 == 503, "{why:?}");
        // It goes on trying, and stays refused.
        let end = Instant::now() + Duration::from_secs(3);
        let (status, _) = until("three seconds to pass", Duration::from_secs(10), || {
            let now = ready()?;
            Ok((now.0 == 200 || Instant::now() > end).then_some(now))
        })?;
        ensure!(status == 503, "the sidecar of {account} got ready with a wrong token");
        // What its workload asks does not leave as plaintext either.
        let began = Instant::now();
        let said = curl_ok(pod, &["-i", "http://10.96.0.10/"])?;
        ensure!(said.starts_with("HTTP/1.1 503 ") && told_why(&said), "{said}");
        ensure!(began.elapsed() < ANSWER_PATIENCE, "it took {:?}", began.elapsed());
    }
    let issued = world.controller.metrics()?;
    let refused = issued.lines().find_map(|line| {
        line.strip_prefix("tidegate_controller_certificates_refused_total ")?.trim().parse::<f64>().ok()
    });
    ensure!(refused.is_some_and(|refused| refused >= 2.0), "{issued}");
    Ok(())
}

#[test]
fn an_unknown_address_of_the_cluster_is_never_asked_in_plaintext() -> Result<()> {
    let (pair, _server) = pair()?;
    // Counts what leaves the pod for that address; what the sidecar takes in does not.
    let rules = "add table ip watch
        add chain ip watch out { type filter hook postrouting priority 300; }
        add rule ip watch out ip daddr 10.96.9.9 counter";
    pair.web.run(pair.web.command("nft").arg(rules))?;
    let began = Instant::now();
    let said = curl_ok(&pair.web, &["-i", "http://10.96.9.9/"])?;
    let took = began.elapsed();
    println!("{took:?}: {said}");
    ensure!(said.starts_with("HTTP/1.1 503 "), "{said}");
    ensure!(told_why(&said), "{said}");
    ensure!(took < ANSWER_PATIENCE, "it took {took:?}");
    // HTTP/2 and TLS are refused too.
    let said = curl_ok(&pair.web, &["-i", "--http2-prior-knowledge", "http://10.96.9.9/"])?;
    ensure!(said.starts_with("HTTP/2 503"), "{said}");
    let refused = curl(&pair.web, &["-k", "--max-time", "8", "https://10.96.9.9/"])?;
    ensure!(!refused.status.success() && refused.status.code() != Some(28), "TLS: {}", refused.status);
    let counted = pair.web.run(pair.web.command("nft").args(["list", "table", "ip", "watch"]))?;
    ensure!(counted.contains("counter packets 0 "), "{counted}");

    // The counter counts: the sidecar's user may leave.
    let mut direct = pair.web.command_as(SIDECAR_UID, "curl");
    let _ = direct.args(["-s", "--max-time", "1", "http://10.96.9.9/"]).output()?;
    let counted = pair.web.run(pair.web.command("nft").args(["list", "table", "ip", "watch"]))?;
    ensure!(!counted.contains("counter packets 0 "), "{counted}");
    Ok(())
}

#[test]
fn an_address_never_seen_is_refused_while_the_controller_is_away() -> Result<()> {
    let (mut pair, _server) = pair()?;
    curl_ok(&pair.web, &["http://shop/"])?;
    pair.world.controller.process.kill()?;
    let began = Instant::now();
    let said = curl_ok(&pair.web, &["-i", "http://10.96.9.10/"])?;
    let took = began.elapsed();
    println!("{took:?}: {said}");
    ensure!(said.starts_with("HTTP/1.1 503 ") && told_why(&said), "{said}");
    ensure!(took < ANSWER_PATIENCE, "it took {took:?}");
    // What is known goes on.
    let said = curl_ok(&pair.web, &["http://shop/known"])?;
    ensure!(said.contains("\"path\": \"/known\""), "{said}");
    pair.assert_proven(2.0)
}

#[test]
fn a_workload_reaches_itself_by_its_service() -> Result<()> {
    let (pair, _server) = pair()?;
    for url in ["http://shop/me", "http://shop.shop.svc.cluster.local/me"] {
        let said = curl_ok(&pair.shop, &[url])?;
        ensure!(said.contains("\"server\": \"shop\""), "{url}: {said}");
    }
    let own = [("client", "spiffe://cluster.local/ns/shop/sa/shop"), ("tls", "true")];
    let asked = pair.shop_sidecar.metric("tidegate_sidecar_peer_requests_total", &own)?;
    ensure!(asked == 2.0, "{asked} requests of itself came over mTLS");
    Ok(())
}

#[test]
fn an_address_outside_the_mesh_is_reached_as_it_is() -> Result<()> {
    let (pair, _server) = pair()?;
    let bare = pair.world.lab.pod("bare", "shop", "bare")?;
    bare.run(bare.command("ip").args(["addr", "add", "192.0.2.5/32", "dev", "eth0"]))?;
    pair.web.run(pair.web.command("ip").args([
        "route",
        "add",
        "192.0.2.5",
        "via",
        &bare.ip().to_string(),
    ]))?;
    let _outside = bare.serve("http_echo.py", &["--listen", "0.0.0.0:80", "--name", "outside"])?;
    let said = curl_ok(&pair.web, &["http://192.0.2.5/out"])?;
    let said: Value = serde_json::from_str(&said).with_context(|| said.clone())?;
    ensure!(said["server"] == "outside" && said["path"] == "/out", "{said}");
    // A sidecar's identity is not told to strangers.
    let headers = said["headers"].to_string();
    ensure!(!headers.contains("l5d-") && !headers.contains("spiffe"), "{headers}");
    let requests =
        pair.web_sidecar.metric("tidegate_request_responses_total", &[("direction", "outbound")])?;
    ensure!(requests == 1.0, "{requests} requests were seen");
    Ok(())
}
