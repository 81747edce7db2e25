//! access: who is let in, and that nobody on the way can read along.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::Process;
use serde_json::json;

use crate::objects::with_spec;
use crate::town::{EDGE, PLAIN, SHOP, Town};

const WEB: (&str, &str) = (SHOP, "deploy/web");
const STRANGER: (&str, &str) = (EDGE, "deploy/web");

pub(crate) fn an_access_policy_lets_in_by_service_account_across_namespaces(town: &mut Town) -> Result<()> {
    let policy = |from: &str| {
        let spec = json!({"selector": {"matchLabels": {"app": "orders"}}, "ports": ["http"], "default": "Deny",
            "rules": [{"from": [{"identity": format!("spiffe://cluster.local/ns/{from}/sa/web")}]}]});
        with_spec("tidegate.dev/v1alpha1", "AccessPolicy", (SHOP, "orders"), spec)
    };
    for (allowed, refused, namespace) in [(WEB, STRANGER, SHOP), (STRANGER, WEB, EDGE)] {
        town.apply(&[policy(namespace)])?;
        town.expect(refused, &["http://orders.shop/"], |reply| {
            reply.status == 403 && reply.header("proxy-status").contains("tidegate")
        })?;
        town.expect(allowed, &["http://orders.shop/"], |reply| reply.is_of("orders"))?;
    }
    // Without a sidecar it has no name.
    let address =
        town.api().get(&["pod", &town.pod(SHOP, "orders")?, "-n", SHOP])?["status"]["podIP"].clone();
    let url = format!("http://{}:8080/", address.as_str().context("a running pod has an address")?);
    let nobody = town.ask(PLAIN, "pod/web", &[&url]);
    ensure!(nobody.as_ref().map_or(true, |reply| reply.status == 403), "{nobody:#?}");
    town.api().kubectl(&["delete", "accesspolicy", "orders", "-n", SHOP])?;
    town.expect(STRANGER, &["http://orders.shop/"], |reply| reply.is_of("orders"))
}

/// A capture on both nodes; what a pod without a sidecar sends shows that it sees everything.
pub(crate) fn nothing_of_a_request_between_sidecars_is_readable_on_the_wire(town: &mut Town) -> Result<()> {
    let cluster = town.ground.cluster().context("only on nodes of our own is captured")?;
    let folder = cluster.lab().folder().join("capture");
    std::fs::create_dir_all(&folder)?;
    let captures: Vec<(Process, std::path::PathBuf)> = cluster
        .nodes()
        .iter()
        .map(|node| {
            let file = folder.join(format!("{}.pcap", node.name()));
            let mut tcpdump: Command = node.pod().command("tcpdump");
            tcpdump.args(["-i", "any", "-U", "-Z", "root", "-w"]).arg(&file).arg("tcp and net 10.244.0.0/16");
            let mut process = node.pod().spawn("tcpdump", &mut tcpdump)?;
            process.wait_for("listening on", Duration::from_secs(10))?;
            Ok((process, file))
        })
        .collect::<Result<_>>()?;
    let secret = |word: &str| format!("X-Secret: {word}-on-the-wire");
    for _ in 0..3 {
        let reply =
            town.ask(EDGE, "deploy/web", &["-H", &secret("sealed"), "http://orders.shop/sealed-path"])?;
        ensure!(reply.is_of("orders"), "{reply:#?}");
        // The policy lets in who has no name, or not; what it asks is on the wire in any case.
        drop(town.ask(PLAIN, "pod/web", &["-H", &secret("open"), "http://orders.shop/open-path"]));
    }
    let mut seen = Vec::new();
    for (mut process, file) in captures {
        process.signal("INT")?;
        process.wait(Duration::from_secs(10))?;
        seen.extend(std::fs::read(file)?);
    }
    let holds = |word: &str| seen.windows(word.len()).any(|bytes| bytes == word.as_bytes());
    ensure!(holds("open-on-the-wire") && holds("open-path"), "the capture does not see what it should");
    for word in ["sealed-on-the-wire", "sealed-path", "ns/edge/sa/web"] {
        ensure!(!holds(word), "{word:?} is readable on the wire");
    }
    println!("{} bytes captured on {} nodes", seen.len(), cluster.nodes().len());
    Ok(())
}
