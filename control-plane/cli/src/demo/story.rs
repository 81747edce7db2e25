//! story: what the demo prints, while it happens and at its end.

use std::path::Path;

use indicatif::{ProgressBar, ProgressStyle};
use tokio::time::Instant;

use super::evidence::Evidence;
use super::pods::{CONTROLLER_ADMIN, HOST, MAIL_HOST, ORDERS_2, RECEIVERS, WEB};
use super::verdict::Verdict;
use crate::print::{BAD, FAINT, GOOD, HEAD, paint, show, table};

/// Prints, with the time since the beginning.
pub(crate) struct Story {
    begun: Instant,
    bar: std::cell::RefCell<ProgressBar>,
}

impl Story {
    /// The heading.
    pub(crate) fn begin() -> Self {
        let title = "A mesh of five pods on 127.0.1.x, each with its own sidecar";
        println!("{}\n", paint(HEAD, title));
        Self { begun: Instant::now(), bar: ProgressBar::hidden().into() }
    }

    /// One thing that happened.
    pub(crate) fn step(&self, subject: &str, said: &str) {
        let time = format!("{:6.2} s", self.begun.elapsed().as_secs_f64());
        self.bar.borrow().suspend(|| println!("{}  {subject:<10}  {said}", paint(FAINT, &time)));
    }

    /// A bar of so many requests, drawn on a terminal alone; it goes away when it is full.
    pub(crate) fn bar(&self, requests: u64) -> ProgressBar {
        let bar = ProgressBar::new(requests);
        if let Ok(style) = ProgressStyle::with_template("          {bar:40} {pos} of {len} requests") {
            bar.set_style(style);
        }
        self.bar.replace(bar.clone());
        bar
    }

    /// The requests are sent, and their bar is full.
    pub(crate) fn traffic_ended(&self) {
        self.bar.borrow().finish_and_clear();
        self.step("traffic", "ended");
    }

    /// What was counted of the synchronous requests, and by whom.
    pub(crate) fn tables(&self, evidence: &Evidence) {
        println!("\n{}", paint(HEAD, "What web's sidecar attempted, and what arrived"));
        let mut rows = table(&[
            "pod",
            "endpoint",
            "success",
            "failure",
            "refused",
            "broken",
            "not connected",
            "received",
        ]);
        for pod in RECEIVERS {
            let Some(receiver) = evidence.receivers.get(pod.name) else { continue };
            let mut row = vec![pod.name.to_owned(), pod.application().to_string()];
            let results = ["success", "failure", "refused", "broken", "not_connected"];
            row.extend(results.map(|result| receiver.attempts(result).to_string()));
            row.push(receiver.counts.requests().to_string());
            rows.add_row(row);
        }
        show(&rows);
        println!("\n{}", paint(HEAD, "Who asked, as the receivers' sidecars verified it"));
        let mut rows = table(&["pod", "client identity", "tls", "requests"]);
        for (pod, receiver) in &evidence.receivers {
            for ((client, tls), number) in &receiver.peers {
                let client = if client.is_empty() { "(none)" } else { client };
                let tls = if *tls { "yes" } else { "no" };
                rows.add_row([pod.to_string(), client.to_owned(), tls.to_owned(), number.to_string()]);
            }
        }
        show(&rows);
        let spell = |counted: &std::collections::BTreeMap<String, u64>| {
            let items: Vec<String> =
                counted.iter().map(|(what, number)| format!("{what} × {number}")).collect();
            if items.is_empty() { "none".to_owned() } else { items.join(", ") }
        };
        println!("\nResponses to web, as its sidecar counts them: {}", spell(&evidence.responses));
        println!("Retries by web's sidecar, by reason: {}\n", spell(&evidence.retries));
    }

    /// Prints each; whether all are good.
    pub(crate) fn verdicts(&self, verdicts: &[Verdict]) -> bool {
        for verdict in verdicts {
            match verdict {
                Ok(said) => println!("{}      {said}", paint(GOOD, "ok")),
                Err(said) => println!("{} {said}", paint(BAD, "FAILED:")),
            }
        }
        let failed = verdicts.iter().filter(|verdict| verdict.is_err()).count();
        let seconds = self.begun.elapsed().as_secs_f64();
        if failed == 0 {
            println!("\n{} all {} proven in {seconds:.1} s", paint(GOOD, "PASSED:"), verdicts.len());
        } else {
            println!(
                "\n{} {failed} of {} not as it should be, {seconds:.1} s",
                paint(BAD, "FAILED:"),
                verdicts.len()
            );
        }
        failed == 0
    }

    /// It could not go on.
    pub(crate) fn failed(&self, why: &str) {
        self.bar.borrow().finish_and_clear();
        println!("{} {why}", paint(BAD, "FAILED:"));
    }

    /// What to try while it is kept running.
    pub(crate) fn addresses(&self, manifests: &Path) {
        println!("\n{}", paint(HEAD, "It runs until Ctrl-C. To try:"));
        let (outbound, admin) = (WEB.outbound(), WEB.admin());
        let lines = [
            ("ask as web", format!("curl -s -H 'Host: {HOST}' http://{outbound}/orders/1")),
            ("the same by proxy", format!("curl -s -x http://{outbound} http://{HOST}/prices/1")),
            ("be refused in plaintext", format!("curl -sS -H 'Host: {HOST}' http://{}/", ORDERS_2.inbound())),
            (
                "hand a message over",
                format!(
                    "curl -si -H 'Host: {MAIL_HOST}' -H 'Prefer: respond-async' -d hello http://{outbound}/mail/1"
                ),
            ),
            ("what web's queues hold", format!("tidegate queue ls --proxy {admin}")),
            ("what web counts", format!("curl -s http://{admin}/metrics")),
            ("what web was told", format!("curl -s http://{admin}/config")),
            (
                "how the mesh is",
                format!("tidegate check --controller-admin {CONTROLLER_ADMIN} --proxy {admin}"),
            ),
            ("change what it does", format!("edit {}/routes.yaml", manifests.display())),
        ];
        for (what, how) in lines {
            println!("  {what:<26}{how}");
        }
    }
}
