//! upgrade_check: what an upgrade to this version would meet, and what is left to do after one.

mod looks;

use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;

use crate::cluster::Kind;
use crate::install::CONTROLLER;
use crate::kubeconfig::Kubeconfig;
use crate::print::{BAD, FAINT, GOOD, HEAD, count, paint, show, table};
use crate::uninstall;

use looks::{Finding, Weight};

/// What is left to do, where nothing is in the way; 1 is an error or something in the way.
const LEFT_TO_DO: u8 = 3;

/// Compares what runs in a cluster with the version of this program: the controller, the
/// CustomResourceDefinitions, the sidecars, and the days left of certificates.
///
/// Exits 0 when nothing is to be done, 3 when something is left to do and an upgrade would work, 1 when
/// something is in an upgrade's way or the cluster could not be asked.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate upgrade-check                              before an upgrade, and after it
  tidegate upgrade-check --context production")]
pub(crate) struct UpgradeCheck {
    #[command(flatten)]
    kubeconfig: Kubeconfig,
}

impl UpgradeCheck {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let client = self.kubeconfig.client().await?;
        let kind = Kind::new("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", None);
        let binding = kind.get(&client, CONTROLLER).await?;
        let namespace = binding.as_ref().and_then(|found| found.data["subjects"][0]["namespace"].as_str());
        let namespace = namespace.context("Tidegate is not installed in this cluster: tidegate install")?;
        let deployment = Kind::new("apps/v1", "Deployment", Some(namespace)).get(&client, CONTROLLER).await?;
        let running = deployment.as_ref().and_then(looks::version);
        let mut findings = vec![looks::controller(running.as_deref())];
        let kind = Kind::new("apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
        for wanted in looks::crds()? {
            let name = wanted["metadata"]["name"].as_str().unwrap_or_default().to_owned();
            findings.push(looks::crd(&name, &wanted, kind.get(&client, &name).await?.as_ref()));
        }
        findings.push(looks::proxies(&uninstall::injected(&client).await?, running.as_deref()));
        let kind = Kind::new("v1", "Secret", Some(namespace));
        for name in ["tidegate-issuer", "tidegate-webhook-tls"] {
            findings.push(looks::certificate(name, kind.get(&client, name).await?.as_ref()));
        }
        Ok(report(&findings))
    }
}

fn report(findings: &[Finding]) -> ExitCode {
    let mut rows = table(&["", "what", "says"]);
    for finding in findings {
        let mark = match finding.weight {
            Weight::Well => paint(GOOD, "ok"),
            Weight::ToDo => paint(HEAD, "to do"),
            Weight::InTheWay => paint(BAD, "blocks"),
        };
        rows.add_row([mark, finding.subject.clone(), finding.said.clone()]);
    }
    show(&rows);
    for finding in findings.iter().filter(|finding| !finding.remedy.is_empty()) {
        println!("  {}: {}", finding.subject, finding.remedy);
    }
    let of = |weight: Weight| findings.iter().filter(|finding| finding.weight == weight).count();
    let (blocks, to_do) = (of(Weight::InTheWay), of(Weight::ToDo));
    if blocks > 0 {
        println!("{}", paint(BAD, &format!("{} in the way of an upgrade", count(blocks, "thing"))));
        return ExitCode::FAILURE;
    }
    if to_do > 0 {
        println!("{}", paint(HEAD, &format!("{} to do, nothing in the way", count(to_do, "thing"))));
        return ExitCode::from(LEFT_TO_DO);
    }
    println!("{}", paint(FAINT, &format!("all of version {}", env!("CARGO_PKG_VERSION"))));
    ExitCode::SUCCESS
}
