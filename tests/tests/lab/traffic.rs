//! traffic: what real clients and servers say passes two sidecars as it was said.

use std::fs;
use std::path::PathBuf;
use std::process::Output;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::manifests::Port;
use lab::{Pod, Process, Sidecar, SidecarOptions, until};

use crate::world::World;

mod bulk;
mod grpc;
mod http1;
mod http2;
mod httpx;
mod redirect;
mod refusal;
mod straight;
mod tcp;
mod tls;
mod websocket;

/// Who asks in these tests.
const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

/// What `web` asks at this port goes straight there, to compare with.
const DIRECT_PORT: u16 = 9999;

/// A client `web` and a server `shop`, each with a sidecar, and the server's Service.
struct Pair {
    world: World,
    web: Pod,
    shop: Pod,
    web_sidecar: Sidecar,
    shop_sidecar: Sidecar,
}

impl Pair {
    /// The server's ports are the service's too; `start` runs its programs before any sidecar is there.
    fn new(
        ports: &[Port],
        start: impl FnOnce(&World, &Pod) -> Result<Vec<Process>>,
    ) -> Result<(Self, Vec<Process>)> {
        let world = World::new()?;
        let web = world.pod("web", "web", &[])?;
        let named: Vec<(&str, u16)> = ports.iter().map(|port| (port.name.as_str(), port.target)).collect();
        let shop = world.pod("shop", "shop", &named)?;
        world.service("shop", 10, ports, &[&shop])?;
        let servers = start(&world, &shop)?;
        let shop_sidecar = world.sidecar(&shop)?;
        let mut options = SidecarOptions::of(&world.controller);
        options.redirect_args = vec!["--skip-outbound-ports".to_owned(), DIRECT_PORT.to_string()];
        let web_sidecar = web.sidecar(&options)?;
        Ok((Self { world, web, shop, web_sidecar, shop_sidecar }, servers))
    }

    /// How many requests the server's sidecar had from `web` over mTLS.
    fn proven(&self) -> Result<f64> {
        self.shop_sidecar.metric("tidegate_sidecar_peer_requests_total", &[("client", WEB), ("tls", "true")])
    }

    /// How many requests were let in any other way.
    fn unproven(&self) -> Result<f64> {
        self.shop_sidecar.metric("tidegate_sidecar_peer_requests_total", &[("tls", "false")])
    }

    /// How many requests the server's sidecar turned away.
    fn denied(&self) -> Result<f64> {
        let labels = [("direction", "inbound"), ("error", "http_request_denied")];
        self.shop_sidecar.metric("tidegate_request_errors_total", &labels)
    }

    /// Whatever was asked came from `web`, over mTLS: this many requests at least.
    fn assert_proven(&self, requests: f64) -> Result<()> {
        let (proven, unproven) = (self.proven()?, self.unproven()?);
        ensure!(proven >= requests, "{proven} requests of {requests} came over mTLS from {WEB}");
        ensure!(unproven == 0.0, "{unproven} requests came without TLS");
        Ok(())
    }
}

/// Runs curl to its end, whatever that is.
fn curl(pod: &Pod, args: &[&str]) -> Result<Output> {
    Ok(pod.command("curl").args(["-sS", "--max-time", "20"]).args(args).output()?)
}

/// Runs curl, which must succeed, and gives what it printed.
fn curl_ok(pod: &Pod, args: &[&str]) -> Result<String> {
    let output = curl(pod, args)?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    ensure!(
        output.status.success(),
        "curl {args:?}: {}: {said}{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(said)
}

/// Starts nginx with these `server` blocks; its files are in the folder that is given back.
fn nginx(world: &World, pod: &Pod, servers: &str) -> Result<(Process, PathBuf)> {
    let folder = world.lab.folder().join(format!("nginx-{}", pod.name()));
    fs::create_dir_all(folder.join("www"))?;
    let config = format!(
        "user root; daemon off; worker_processes 1; pid {at}/pid; error_log stderr warn;
         events {{ worker_connections 1024; }}
         http {{
           access_log off; default_type text/plain; sendfile on;
           client_max_body_size 0; large_client_header_buffers 8 64k;
           client_body_temp_path {at}/body; proxy_temp_path {at}/proxy; fastcgi_temp_path {at}/fastcgi;
           uwsgi_temp_path {at}/uwsgi; scgi_temp_path {at}/scgi; root {at}/www;
           {servers}
         }}",
        at = folder.display(),
    );
    fs::write(folder.join("nginx.conf"), config)?;
    let mut command = pod.command("nginx");
    command.arg("-e").arg("stderr").arg("-c").arg(folder.join("nginx.conf")).arg("-p").arg(&folder);
    let mut process = pod.spawn("nginx", &mut command)?;
    let pid = folder.join("pid");
    // The file is written after the sockets are open.
    process
        .until("its pid file", Duration::from_secs(10), |_| Ok(pid.is_file().then_some(())))
        .context("nginx")?;
    Ok((process, folder))
}

/// Waits until a number that a program counts is this large.
fn wait_for_count(what: &str, at_least: f64, count: impl Fn() -> Result<f64>) -> Result<f64> {
    let mut last = 0.0;
    until(&format!("{what} to be {at_least}"), Duration::from_secs(5), || {
        last = count()?;
        Ok((last >= at_least).then_some(last))
    })
    .with_context(|| format!("it was {last}"))
}
