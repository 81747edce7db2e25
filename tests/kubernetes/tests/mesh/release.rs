//! release: an upgrade leaves pods and certificates alone, and the end of the installation leaves nothing.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kubernetes::chart;
use lab::until;

use crate::town::{EDGE, PLAIN, SHOP, Town};

/// What of the pods and the webhooks an upgrade must not touch.
fn standing(town: &Town) -> Result<String> {
    let pods =
        "jsonpath={range .items[*]}{.metadata.uid} {.status.initContainerStatuses[*].restartCount}\n{end}";
    let mut all =
        town.api().kubectl(&["get", "pods", "-n", SHOP, "-l", "app in (web, orders)", "-o", pods])?;
    for kind in [
        "mutatingwebhookconfiguration/tidegate-injector",
        "validatingwebhookconfiguration/tidegate-validator",
    ] {
        let bundle =
            town.api().kubectl(&["get", kind, "-o", "jsonpath={.webhooks[*].clientConfig.caBundle}"])?;
        ensure!(!bundle.trim().is_empty(), "{kind} has no caBundle");
        all += &bundle;
    }
    Ok(all)
}

pub(crate) fn an_upgrade_by_helm_keeps_the_ca_bundle_and_every_pod(town: &mut Town) -> Result<()> {
    let before = standing(town)?;
    town.helm("upgrade", &["--set", "controller.log=debug"])?;
    let after = standing(town)?;
    ensure!(before == after, "before:\n{before}\nafter:\n{after}");
    town.expect((SHOP, "deploy/web"), &["http://orders/"], |reply| reply.is_of("orders"))?;
    // The webhook of the new controller is trusted.
    town.scale(SHOP, "orders", 2)?;
    town.scale(SHOP, "orders", 1)
}

/// The last case: nothing is installed after it.
pub(crate) fn the_end_of_the_installation_leaves_nothing(town: &mut Town) -> Result<()> {
    // Finalizers and pods that end take their time.
    town.api().kubectl(&["delete", "namespace", SHOP, EDGE, PLAIN, "--timeout=120s"])?;
    town.api().helm(&[
        "uninstall",
        "tidegate",
        "--namespace",
        chart::NAMESPACE,
        "--wait",
        "--timeout",
        "120s",
    ])?;
    let mut left = Default::default();
    let waited = until("all that was installed to be gone", Duration::from_secs(60), || {
        left = town.added()?;
        Ok(left.is_empty().then_some(()))
    });
    waited.with_context(|| format!("left: {left:#?}"))
}
