//! grpc: Python's gRPC on a port whose protocol nobody named.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use lab::Process;
use lab::manifests::Port;
use serde_json::Value;

use super::{Pair, wait_for_count};

const RESPONSES: &str = "tidegate_request_responses_total";

fn pair() -> Result<(Pair, Vec<Process>)> {
    Pair::new(&[Port::new("calls", 9090, 9090)], |_, shop| {
        Ok(vec![shop.serve("grpc_echo.py", &["--listen", "0.0.0.0:9090", "--name", "shop"])?])
    })
}

impl Pair {
    fn call(&self, args: &[&str]) -> Result<Value> {
        self.web.ask("grpc_client.py", &[&args[..1], &["shop:9090"], &args[1..]].concat())
    }

    /// The server's sidecar saw this many calls with this status, and the client's as many.
    fn assert_calls(&self, status: &str, calls: f64) -> Result<()> {
        for (sidecar, direction) in [(&self.shop_sidecar, "inbound"), (&self.web_sidecar, "outbound")] {
            let labels = [("direction", direction), ("grpc_status", status)];
            let seen =
                wait_for_count(&format!("{direction} calls"), calls, || sidecar.metric(RESPONSES, &labels))?;
            ensure!(seen == calls, "{direction}: {seen} calls of status {status} instead of {calls}");
        }
        Ok(())
    }

    /// Nothing was carried as bytes. A client that is silent for a millisecond has the server dialled
    /// in case it speaks first; such connections reach the server's sidecar and end without a byte.
    fn assert_no_bytes(&self) -> Result<()> {
        let carried = self.web_sidecar.metric("tidegate_sidecar_tcp_connections_total", &[])?;
        ensure!(carried == 0.0, "{carried} connections were carried as bytes");
        for sidecar in [&self.shop_sidecar, &self.web_sidecar] {
            let bytes = sidecar.metric("tidegate_sidecar_tcp_received_bytes_total", &[])?;
            ensure!(bytes == 0.0, "{bytes} bytes were carried");
        }
        Ok(())
    }
}

#[test]
fn every_fresh_connection_without_a_named_protocol_is_http2() -> Result<()> {
    let (pair, _server) = pair()?;
    // Each client is a connection of its own; the first meets sidecars that never saw the port.
    for connection in 1..=6 {
        let said = pair.call(&["unary", "--count", "5"])?;
        ensure!(said["codes"]["OK"] == 5 && said["servers"]["shop"] == 5, "connection {connection}: {said}");
        ensure!(said["bad"] == serde_json::json!([]), "connection {connection}: {said}");
        pair.assert_calls("0", 5.0 * f64::from(connection))?;
    }
    pair.assert_no_bytes()?;
    pair.assert_proven(30.0)
}

#[test]
fn streams_pass_in_every_shape() -> Result<()> {
    let (pair, _server) = pair()?;
    let said = pair.call(&["streams", "--count", "200", "--bytes", "20000"])?;
    ensure!(said["down"]["code"] == "OK" && said["down"]["reply"] == 200, "{said}");
    ensure!(said["up"]["code"] == "OK" && said["up"]["reply"] == "200 4000000", "{said}");
    let said = pair.call(&["bidi", "--count", "100"])?;
    ensure!(said["code"] == "OK" && said["reply"] == 100, "{said}");
    pair.assert_calls("0", 3.0)?;
    pair.assert_no_bytes()?;
    pair.assert_proven(3.0)
}

/// grpcio keeps deadlines itself, at both ends: what is seen here is that nothing between them is in
/// the way. That the sidecars keep them is the next test's.
#[test]
fn a_call_past_its_deadline_is_given_up_at_both_ends() -> Result<()> {
    let (pair, _server) = pair()?;
    let said = pair.call(&["deadline", "--takes", "5", "--timeout", "0.5"])?;
    ensure!(said["code"] == "DEADLINE_EXCEEDED", "{said}");
    let ms = said["ms"].as_f64().unwrap_or(f64::MAX);
    ensure!((450.0..1500.0).contains(&ms), "it took {ms} ms");
    // A call within its time is answered.
    let said = pair.call(&["deadline", "--takes", "0.2", "--timeout", "5"])?;
    ensure!(said["code"] == "OK", "{said}");
    // By now the server has seen that the first was abandoned.
    ensure!(said["reply"] == "1 1", "{said}");
    pair.assert_proven(2.0)
}

/// The client never gives up and the server never answers: only the sidecars know what the time is.
#[test]
fn the_sidecars_themselves_keep_a_deadline() -> Result<()> {
    let (pair, mut servers) = Pair::new(&[Port::new("calls", 9090, 9090)], |_, shop| {
        Ok(vec![shop.serve("h2_deaf.py", &["--listen", "0.0.0.0:9090"])?])
    })?;
    let call = ["shop:9090", "--method", "POST", "--path", "/lab.Echo/Slow", "--timeout", "8"];
    let headers = ["content-type:application/grpc", "te:trailers", "grpc-timeout:600m"];
    let headers = headers.iter().flat_map(|header| ["--header", *header]);
    let began = Instant::now();
    let said = pair.web.ask("h2_client.py", &call.into_iter().chain(headers).collect::<Vec<_>>())?;
    let took = began.elapsed();
    // The interpreter's start is in it.
    ensure!((Duration::from_millis(550)..Duration::from_secs(3)).contains(&took), "it took {took:?}: {said}");
    ensure!(said["error"].is_null() && said["headers"]["grpc-status"] == "4", "DEADLINE_EXCEEDED: {said}");

    let server = &mut servers[0];
    server.wait_for("stream ended: ", Duration::from_secs(2))?;
    let log = server.log();
    let told = |before: &str, unit: &str| -> Result<f64> {
        let rest = log.lines().find_map(|line| line.strip_prefix(before)?.strip_suffix(unit));
        Ok(rest.with_context(|| log.clone())?.parse()?)
    };
    // The deadline arrives at the server as it is, or what is left of it.
    let left_ms = told("asked with grpc-timeout ", "m")?;
    ensure!((1.0..=600.0).contains(&left_ms), "{left_ms} ms of 600 were left: {log}");
    let ended_ms = told("stream ended: reset 8 after ", " ms")?;
    ensure!((400.0..900.0).contains(&ended_ms), "the server was told after {ended_ms} ms: {log}");
    pair.assert_proven(1.0)
}

#[test]
fn the_server_sees_a_cancelled_call() -> Result<()> {
    let (pair, _server) = pair()?;
    let said = pair.call(&["cancel", "--takes", "5"])?;
    ensure!(said["code"] == "CANCELLED" && said["abandoned"] == 1, "{said}");
    pair.assert_no_bytes()?;
    pair.assert_proven(2.0)
}

#[test]
fn an_error_keeps_its_words_and_details() -> Result<()> {
    let (pair, _server) = pair()?;
    for (number, name) in [("5", "NOT_FOUND"), ("14", "UNAVAILABLE"), ("16", "UNAUTHENTICATED")] {
        let said = pair.call(&["fail", "--code", number])?;
        ensure!(said["code"] == name && said["message"] == "asked to fail", "{said}");
        ensure!(said["details"] == "0064657461696c73ff", "{said}");
        pair.assert_calls(number, 1.0)?;
    }
    pair.assert_no_bytes()?;
    pair.assert_proven(3.0)
}

#[test]
fn a_call_without_identity_is_denied() -> Result<()> {
    let (pair, _server) = pair()?;
    let bare = pair.world.lab.pod("bare", "shop", "bare")?;
    let target = format!("{}:9090", pair.shop.ip());
    let said = bare.ask("grpc_client.py", &["unary", &target, "--count", "2"])?;
    ensure!(said["codes"] == serde_json::json!({ "PERMISSION_DENIED": 2 }), "{said}");
    ensure!(pair.denied()? == 2.0 && pair.unproven()? == 0.0 && pair.proven()? == 0.0);
    Ok(())
}
