//! start: what keeps a controller from starting, and how it ends.

use std::path::Path;

use anyhow::{Result, ensure};

use crate::controller::{Controller, leads};
use crate::world::{PATIENCE, World};

/// What a controller that cannot start says, in its last line.
fn end(world: &World, name: &str, access: &Path) -> Result<String> {
    let (_pod, mut process) = world.controller_with(name, access, &[])?;
    let status = process.wait(PATIENCE)?;
    let log = process.log();
    ensure!(!status.success(), "it ended well: {log}");
    Ok(log.lines().last().unwrap_or_default().to_owned())
}

pub(crate) fn what_keeps_a_controller_from_starting_is_told_with_its_object_and_remedy(
    world: &mut World,
) -> Result<()> {
    world.enter("mesh-start")?;
    let good = world.access("start-0")?;
    let said = end(world, "start-1", Path::new("/nowhere/config"))?;
    ensure!(said.contains("/nowhere/config") && said.contains("KUBECONFIG"), "{said}");
    let broken = world.file("broken", "clusters: 7")?;
    let said = end(world, "start-2", &broken)?;
    ensure!(said.contains("mesh-start-broken") && said.contains("KUBECONFIG"), "{said}");
    let stranger =
        world.file("stranger", &std::fs::read_to_string(&good)?.replace("token: ey", "token: no"))?;
    let said = end(world, "start-3", &stranger)?;
    ensure!(said.contains("Secret mesh-start/tidegate-issuer") && said.contains("does not know"), "{said}");

    world.cluster.kubectl(&["delete", "rolebinding", "tidegate-controller", "-n", world.namespace])?;
    let said = end(world, "start-4", &good)?;
    ensure!(said.contains("may not get Secret mesh-start/tidegate-issuer"), "{said}");
    ensure!(said.contains("as the chart's roles do"), "{said}");
    // Rights of another namespace, and none of this name.
    let namespace = std::mem::replace(&mut world.namespace, "mesh-nowhere");
    let admin = world.cluster.kubeconfig();
    let said = end(world, "start-5", &admin);
    world.namespace = namespace;
    let said = said?;
    ensure!(said.contains("namespaces \"mesh-nowhere\" not found") && said.contains("--namespace"), "{said}");
    Ok(())
}

pub(crate) fn a_controller_told_to_stop_hands_the_lease_to_another_at_once(world: &mut World) -> Result<()> {
    world.enter("mesh-stop")?;
    let mut first = Controller::start(world, "stop-1")?;
    first.until("the Lease", leads)?;
    let second = Controller::start(world, "stop-2")?;
    let status = second.status()?;
    let holder = status["leader"]["holder"].as_str().unwrap_or_default();
    ensure!(!leads(&status) && holder.starts_with("stop-1"), "{status:#}");
    first.process.terminate()?;
    let status = first.process.wait(PATIENCE)?;
    ensure!(status.success(), "{status}: {}", first.process.log_tail());
    ensure!(first.process.log().contains("told to stop"), "{}", first.process.log_tail());
    // Not given back, it would be another's after 15 s only.
    let began = std::time::Instant::now();
    second.until("the Lease", leads)?;
    ensure!(began.elapsed().as_secs() < 10, "handed over after {:.1?}", began.elapsed());
    Ok(())
}
