//! redirect: the rules themselves, proven, passed by and taken away.

use anyhow::{Result, ensure};
use lab::{Pod, SidecarOptions};

use super::curl_ok;
use crate::world::World;

/// Runs `tidegate-proxy redirect` in a pod; it must succeed.
fn redirect(pod: &Pod, args: &[&str]) -> Result<String> {
    pod.run(pod.binary("tidegate-proxy", None)?.arg("redirect").args(args))
}

fn tables(pod: &Pod) -> Result<String> {
    pod.run(pod.command("nft").args(["list", "tables"]))
}

#[test]
fn redirection_is_proved_skipped_and_undone() -> Result<()> {
    let world = World::new()?;
    let shop = world.pod("shop", "shop", &[("http", 8080)])?;
    let bare = world.lab.pod("bare", "shop", "bare")?;
    // Somebody else's table, which nothing here may touch.
    shop.run(shop.command("nft").arg("add table ip other"))?;
    let mut servers = Vec::new();
    for port in ["8080", "8081"] {
        let listen = format!("0.0.0.0:{port}");
        servers.push(shop.serve("http_echo.py", &["--listen", &listen, "--name", port])?);
    }

    let rules = redirect(&shop, &["--dry-run"])?;
    ensure!(rules.contains("redirect to :4143"), "{rules}");
    ensure!(!tables(&shop)?.contains("tidegate"), "--dry-run wrote rules");
    redirect(&shop, &["--self-check"])?;
    ensure!(tables(&shop)?.contains("table ip tidegate"), "there are no rules");
    // The proof fails when somebody else takes the connections first.
    shop.run(shop.command("nft").arg(
        "add chain ip other first { type nat hook output priority -150; }
         add rule ip other first meta l4proto tcp redirect to :1",
    ))?;
    let mut proof = shop.binary("tidegate-proxy", None)?;
    let proof = proof.args(["redirect", "--self-check"]).output()?;
    let why = String::from_utf8_lossy(&proof.stderr).into_owned();
    ensure!(!proof.status.success() && why.contains("did not arrive"), "{}: {why}", proof.status);
    shop.run(shop.command("nft").arg("flush chain ip other first"))?;

    let mut options = SidecarOptions::of(&world.controller);
    options.redirect_args = vec!["--skip-inbound-ports".to_owned(), "4191,8081".to_owned()];
    let sidecar = shop.sidecar(&options)?;
    let url = |port: u16| format!("http://{}:{port}/", shop.ip());
    let status = |port: u16| bare.get(&url(port)).map(|(status, _)| status);
    ensure!(status(8080)? == 403, "a port that is redirected answers {}", status(8080)?);
    let said = curl_ok(&bare, &[&url(8081)])?;
    ensure!(said.contains("\"server\": \"8081\""), "{said}");
    // The application sees who asked, not the sidecar.
    ensure!(said.contains(&format!("\"peer\": \"{}\"", bare.ip())), "{said}");
    let accepted =
        || sidecar.metric("tidegate_transport_connections_accepted_total", &[("direction", "inbound")]);
    let before = accepted()?;
    ensure!(status(8081)? == 200 && accepted()? == before, "a skipped port came to the sidecar");

    for time in ["first", "second"] {
        redirect(&shop, &["--undo"])?;
        let left = tables(&shop)?;
        ensure!(!left.contains("tidegate") && left.contains("table ip other"), "{time} --undo: {left}");
    }
    ensure!(status(8080)? == 200 && accepted()? == before, "what is undone still redirects");
    Ok(())
}
