//! network: two pods of the lab reach each other, nothing else, and leave nothing behind.

use std::time::Duration;

use anyhow::{Context, Result};
use lab::{Lab, Shape};

fn namespaces() -> Result<String> {
    let out = std::process::Command::new("ip").args(["netns", "list"]).output()?;
    Ok(String::from_utf8(out.stdout)?)
}

#[test]
fn two_pods_reach_each_other_and_leave_nothing_behind() -> Result<()> {
    let lab = Lab::new()?;
    let (web, orders) = (lab.pod("web", "shop", "web")?, lab.pod("orders", "shop", "orders")?);
    lab.service("orders", "shop", "10.96.0.1".parse()?)?;
    lab.host("orders-pod", orders.ip())?;
    let mut server = orders.serve("http_echo.py", &["--listen", "0.0.0.0:8080", "--name", "orders"])?;

    web.run(web.command("ping").args(["-c", "1", "-W", "2", &orders.ip().to_string()]))?;
    let (status, body) = web.get("http://orders-pod:8080/a")?;
    assert_eq!(status, 200);
    let body: serde_json::Value = serde_json::from_str(&body)?;
    assert_eq!(body["server"], "orders");
    assert_eq!(body["peer"], web.ip().to_string());
    assert!(server.rss_bytes()? > 1024 * 1024);

    // A service has no address without a sidecar, and the lab no way to anywhere else.
    assert!(web.get("http://orders.shop.svc.cluster.local:8080/").is_err());
    assert!(web.run(web.command("ping").args(["-c", "1", "-W", "1", "192.0.2.1"])).is_err());

    // The sidecar's user is another one.
    let uid = web.run(web.command_as(lab::SIDECAR_UID, "id").arg("-u"))?;
    assert_eq!(uid.trim(), lab::SIDECAR_UID.to_string());

    server.terminate()?;
    assert!(server.wait(Duration::from_secs(5))?.success());

    let made = web.ns().to_owned();
    assert!(namespaces()?.contains(&made));
    drop((server, web, orders, lab));
    assert!(!namespaces()?.contains(made.split('-').next().context("a prefix")?));
    assert!(!std::path::Path::new("/etc/netns").join(&made).exists());
    Ok(())
}

#[test]
fn a_link_can_be_slow_and_broken_and_mended() -> Result<()> {
    let lab = Lab::new()?;
    let (web, orders) = (lab.pod("web", "shop", "web")?, lab.pod("orders", "shop", "orders")?);
    let _server = orders.serve("tcp_banner.py", &["--listen", "0.0.0.0:2525"])?;
    let target = format!("{}:2525", orders.ip());
    let median = |answer: &serde_json::Value| answer["median_ms"].as_f64();

    let quick = web.ask("banner_client.py", &[&target, "--bytes", "100000"])?;
    assert_eq!(quick["failed"], 0, "{quick}");
    orders.shape(Shape { delay: Duration::from_millis(20), loss_ratio: 0.0 })?;
    let slow = web.ask("banner_client.py", &[&target, "--count", "3", "--bytes", "1000000"])?;
    assert_eq!(slow["failed"], 0, "{slow}");
    // A handshake and a banner: two ways there, two ways back.
    assert!(median(&slow) >= Some(80.0) && median(&slow) < Some(200.0), "{slow}");
    orders.mend()?;
    let mended = web.ask("banner_client.py", &[&target, "--count", "3"])?;
    assert!(median(&mended) < Some(20.0), "{mended}");

    orders.link_down()?;
    let broken = web.ask("banner_client.py", &[&target, "--count", "1", "--timeout", "0.3"])?;
    assert_eq!(broken["failed"], 1, "{broken}");
    orders.link_up()?;
    lab::until("the mended link", Duration::from_secs(5), || {
        let mended = web.ask("banner_client.py", &[&target, "--count", "1", "--timeout", "1"])?;
        Ok((mended["failed"] == 0).then_some(()))
    })
}
