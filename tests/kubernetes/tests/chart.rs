//! chart: what it renders and refuses, without a cluster.

use anyhow::{Context, Result, ensure};
use kubernetes::chart;

const INSTALLED: &str = "manifests/install.yaml";
const HA: &str = "charts/tidegate/values-ha.yaml";

#[test]
fn installed_manifest_is_what_the_chart_renders() -> Result<()> {
    let head = "# The default installation: kubectl apply --server-side -f manifests/install.yaml
# Rendered from charts/tidegate: TIDEGATE_BLESS=1 cargo test -p kubernetes --test chart writes it anew.
---
apiVersion: v1
kind: Namespace
metadata:
  name: tidegate
  labels:
    app.kubernetes.io/part-of: tidegate
    app.kubernetes.io/managed-by: tidegate
";
    let rendered = chart::render(&[])?.replace("managed-by: Helm", "managed-by: tidegate");
    let wanted = format!("{head}{rendered}");
    let file = chart::repository(INSTALLED);
    if std::env::var_os("TIDEGATE_BLESS").is_some() {
        std::fs::write(&file, &wanted)?;
    }
    let found = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
    ensure!(found == wanted, "{INSTALLED} is not what the chart renders; TIDEGATE_BLESS=1 writes it anew");
    Ok(())
}

#[test]
fn chart_has_nothing_to_complain_about_and_names_a_value_that_is_wrong() -> Result<()> {
    let folder = chart::folder();
    let ha = chart::repository(HA).display().to_string();
    chart::helm(&["lint", "--strict", &folder])?;
    chart::helm(&["lint", "--strict", &folder, "--values", &ha])?;
    for (set, name) in [
        ("controller.replikas=3", "replikas"),
        ("controller.replicas=many", "/controller/replicas"),
        ("injection.failurePolicy=Perhaps", "/injection/failurePolicy"),
        ("proxy.skipInboundPorts={70000}", "/proxy/skipInboundPorts"),
    ] {
        let told = chart::render(&["--set", set]).err().with_context(|| format!("{set} is taken"))?;
        ensure!(format!("{told:#}").contains(name), "{set}: {told:#}");
    }
    Ok(())
}
