//! silence: clients that connect and do not speak at once, as Go's do when a connection was made
//! that another request made unnecessary.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::until;

use super::orders::Orders;

const PATIENCE: Duration = Duration::from_secs(5);

/// The sidecars dial ahead for a client that is silent; what they dialled must go when the client turns
/// out to speak HTTP. Go's Shutdown waits five seconds for a connection on which nothing came.
#[test]
fn a_client_that_hesitates_does_not_hold_up_a_stop() -> Result<()> {
    let mut orders = Orders::new()?;
    let mut server = orders.servers.remove(0);
    orders.announce(&[&server.pod])?;
    server.wait_until_alone(&orders.web)?;
    let mut client =
        orders.web.spawn("hesitant", orders.web.app("load_hesitant.py").args(["--to", "orders:80"]))?;
    client.wait_for("answered: HTTP/1.1 200", PATIENCE)?;
    let began = Instant::now();
    server.app.terminate()?;
    server.app.wait(Duration::from_secs(10))?;
    let app = began.elapsed();
    let began = Instant::now();
    server.sidecar.process.terminate()?;
    server.sidecar.process.wait(Duration::from_secs(30))?;
    let sidecar = began.elapsed();
    eprintln!("the application stopped in {app:.1?}, its sidecar in {sidecar:.1?}");
    // Held up, the application would stop after Go's five seconds, and the sidecar after its grace of 25.
    ensure!(app < Duration::from_secs(4), "the application was held up for {app:?}");
    ensure!(sidecar < Duration::from_secs(7), "the sidecar was held up for {sidecar:?}");
    Ok(())
}

#[test]
fn a_server_that_ends_a_silent_connection_does_not_make_its_service_opaque() -> Result<()> {
    let mut orders = Orders::new()?;
    let mut server = orders.servers.remove(0);
    orders.announce(&[&server.pod])?;
    server.wait_until_alone(&orders.web)?;
    let mute = ["--to", "orders:80", "--mute"];
    let mut client = orders.web.spawn("mute", orders.web.app("load_hesitant.py").args(mute))?;
    client.wait_for("connected", PATIENCE)?;
    let open = [("direction", "inbound")];
    until("the mute connection at the server's sidecar", PATIENCE, || {
        Ok((server.sidecar.metric("tidegate_transport_connections_accepted_total", &open)? >= 2.0)
            .then_some(()))
    })?;
    server.app.terminate()?;
    server.app.wait(Duration::from_secs(10))?;
    client.wait_for("the end", PATIENCE)?;
    orders.announce(&orders.servers.iter().map(|server| &server.pod).collect::<Vec<_>>())?;
    let carried =
        || orders.web_sidecar.metric("tidegate_sidecar_tcp_connections_total", &[("direction", "outbound")]);
    let before = carried()?;
    until("an answer of the other servers", PATIENCE, || {
        Ok(orders.web.get("http://orders/").ok().filter(|(status, _)| *status == 200).map(drop))
    })?;
    for _ in 0..5 {
        orders.web.get("http://orders/")?;
    }
    let after = carried()?;
    eprintln!("carried as bytes: {before} before, {after} after six requests");
    ensure!(after == before, "HTTP is carried as bytes: {before} connections, then {after}");
    Ok(())
}
