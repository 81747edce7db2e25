//! chart: what it renders and refuses, without a cluster.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use kubernetes::chart;
use resources::inject::Settings;

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

/// What the controller would read of the ConfigMap, with these values.
fn injection(values: &[&str]) -> Result<Settings> {
    let rendered = chart::render(&[&["--show-only", "templates/injection.yaml"], values].concat())?;
    let (_, block) = rendered.split_once("  injection.yaml: |\n").context("it has a key injection.yaml")?;
    let lines: Vec<&str> = block.lines().map_while(|line| line.strip_prefix("    ")).collect();
    let text = lines.join("\n");
    Settings::parse(&text).with_context(|| format!("with {values:?}:\n{text}"))
}

#[test]
fn controller_reads_the_settings_of_injection_as_the_values_have_them() -> Result<()> {
    // Without a value it is what is built in, but for what the built-in ones cannot know of a cluster.
    let chart = injection(&[])?;
    let (controller, image_pull_policy) = (chart.controller.clone(), chart.image_pull_policy.clone());
    let built_in = Settings { controller, image_pull_policy, ..Settings::built_in()? };
    ensure!(chart == built_in, "{chart:#?}\nis not\n{built_in:#?}");

    let set = "image.repository=registry.test/tidegate,image.tag=v7,image.pullPolicy=Always,trustDomain=a.test,\
               clusterDomain=b.test,controller.tokenAudience=c.test,proxy.imagePullSecrets={one,two},\
               proxy.log=warn\\,h2=debug,proxy.resources.limits.cpu=2m,proxy.workers=3,proxy.strict=true,\
               proxy.inboundDefault=Deny,proxy.drainGrace=40s,proxy.queueSize=2Gi,proxy.skipInboundPorts={22,23},\
               proxy.tokenLifetime=2h,proxy.accessLog=true,proxy.otlpEndpoint=http://otel:4318";
    let all = injection(&["--set", set])?;
    ensure!(all.image == "registry.test/tidegate:v7" && all.image_pull_policy.as_deref() == Some("Always"));
    ensure!(all.image_pull_secrets == ["one", "two"] && all.log == "warn,h2=debug", "{all:#?}");
    ensure!(all.controller == "tidegate-controller.tidegate.svc.b.test:8086", "{}", all.controller);
    let identity = all.controller_identity.to_string();
    ensure!(identity == "spiffe://a.test/ns/tidegate/sa/tidegate-controller", "{identity}");
    ensure!(all.token_audience == "c.test" && all.token_lifetime == Duration::from_secs(7200), "{all:#?}");
    ensure!(all.cpu_limit.as_deref() == Some("2m") && all.workers == 3 && all.strict, "{all:#?}");
    ensure!(all.inbound_default == "Deny" && all.drain_grace == Duration::from_secs(40), "{all:#?}");
    ensure!(all.queue_bytes == 2 << 30 && all.skip_inbound_ports == [22, 23].into(), "{all:#?}");
    ensure!(all.access_log && all.otlp_endpoint.as_deref() == Some("http://otel:4318"), "{all:#?}");

    let free = injection(&["--set", "proxy.resources.limits.memory=null"])?;
    ensure!(free.memory_limit.is_none() && free.cpu_limit.is_none(), "{free:#?}");
    injection(&["--values", &chart::repository(HA).display().to_string()])?;
    Ok(())
}
