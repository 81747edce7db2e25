//! addresses: the controller and proxies at addresses, without Kubernetes.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use http::StatusCode;

use super::finding::{Finding, Report};
use super::held::{Problem, status};
use super::stuck;
use crate::ask;
use crate::operate::Output;
use crate::print::count;

/// Where a controller on this machine answers.
const BESIDE: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 8087);

/// Asks the controller, and each of the proxies, also for its queues.
///
/// # Errors
/// When no controller is there.
pub(super) async fn check(
    controller: Option<SocketAddr>,
    proxies: &[SocketAddr],
    stuck_after: Duration,
    output: Output,
) -> anyhow::Result<ExitCode> {
    let admin = controller.unwrap_or(BESIDE);
    let ready = ask::get(admin, "/ready").await.with_context(|| {
        format!(
            "no controller on {admin}: start tidegate-controller with --admin {admin}, name its address \
             with --controller-admin, or a cluster with --kubeconfig"
        )
    })?;
    let mut findings = vec![readiness(format!("controller {admin}"), &ready)];
    let mut status = status(admin).await?;
    status.proxies.sort_by(|a, b| (&a.pod, &a.identity).cmp(&(&b.pod, &b.identity)));
    findings.push(manifests(admin, &status.problems));
    findings.extend(status.proxies.iter().map(super::held::Proxy::held));
    if status.proxies.is_empty() {
        let remedy = "start sidecars with --controller at its --listen address";
        findings.push(Finding::failed("proxies", "none is connected", remedy));
    }
    for &proxy in proxies {
        match ask::get(proxy, "/ready").await {
            Ok(answer) => {
                findings.push(readiness(format!("proxy {proxy}"), &answer));
                // Ready is whoever carries synchronous traffic, also where no message is delivered.
                findings.extend(stuck::at(proxy, stuck_after).await);
            }
            Err(error) => {
                let remedy = "is tidegate-proxy running, with --admin at this address?";
                findings.push(Finding::failed(format!("proxy {proxy}"), format!("{error:#}"), remedy));
            }
        }
    }
    let mut report = Report::new(output);
    report.tell("", findings);
    report.end()
}

fn readiness(object: String, answer: &ask::Answer) -> Finding {
    let said = answer.text().split_whitespace().collect::<Vec<_>>().join(" ");
    if answer.status == StatusCode::OK {
        return Finding::ok(object, said);
    }
    let remedy = "wait for what it names; its log says more";
    Finding::failed(object, format!("{}: {said}", answer.status.as_u16()), remedy)
}

fn manifests(admin: SocketAddr, problems: &[Problem]) -> Finding {
    let Some(first) = problems.first() else { return Finding::ok("manifests", "no problems") };
    let said = format!("{}, the first: {first}", count(problems.len(), "problem"));
    Finding::failed("manifests", said, format!("tidegate validate; all of them: curl http://{admin}/status"))
}
