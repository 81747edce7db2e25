//! websocket: messages, pings and closes of Python's websockets.

use anyhow::{Result, ensure};
use lab::manifests::Port;

use super::Pair;

#[test]
fn messages_pings_and_closes_pass() -> Result<()> {
    let ports = [Port::new("http", 80, 8765).speaking("http"), Port::new("other", 81, 8765)];
    let (pair, _server) =
        Pair::new(&ports, |_, shop| Ok(vec![shop.serve("ws_echo.py", &["--listen", "0.0.0.0:8765"])?]))?;
    for target in ["shop:80", "shop:81"] {
        for args in [&["--text"][..], &[], &["--bytes", "1048576", "--count", "5"]] {
            let said = pair.web.ask("ws_client.py", &[&[target], args].concat())?;
            let told = format!("{target} {args:?}: {said}");
            ensure!(said["error"].is_null() && said["echoed"] == said["messages"], "{told}");
            ensure!(said["pong_ms"].as_f64().is_some_and(|ms| ms < 1000.0), "{told}");
            ensure!(said["close_code"] == 1000, "{told}");
        }
        // The server's own close, with a code of its own.
        let said = pair.web.ask("ws_client.py", &[target, "--count", "1", "--ask-close", "4001"])?;
        ensure!(said["close_code"] == 4001 && said["close_reason"] == "as asked", "{target}: {said}");
    }
    pair.assert_proven(8.0)
}

#[test]
fn a_silent_websocket_stays_open() -> Result<()> {
    let (pair, _server) = Pair::new(&[Port::new("http", 80, 8765).speaking("http")], |_, shop| {
        Ok(vec![shop.serve("ws_echo.py", &["--listen", "0.0.0.0:8765"])?])
    })?;
    // Longer than the ten seconds a request's head may take.
    let args = ["shop:80", "--count", "2", "--idle", "11", "--timeout", "15"];
    let said = pair.web.ask("ws_client.py", &args)?;
    ensure!(said["error"].is_null() && said["echoed"] == 2, "{said}");
    pair.assert_proven(1.0)
}
