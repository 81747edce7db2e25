//! demo: a mesh on one machine: started, asked, disturbed, judged, ended.

mod evidence;
mod messages;
mod pods;
mod processes;
mod story;
mod traffic;
mod verdict;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use indicatif::ProgressBar;
use policy::limits;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use evidence::Evidence;
use pods::{
    CONTROLLER, CONTROLLER_ADMIN, HOST, INTRUDER, MAIL, NAMESPACE, ORDERS_2, PODS, Pod, RECEIVERS, WEB,
};
use processes::Processes;
use story::Story;
use traffic::{CLIENTS, Plan, SPREAD};

/// The whole run ends within this; on an idle machine it takes about seven seconds.
const RUN_TIMEOUT: Duration = Duration::from_secs(28);
/// The share of the traffic's time after which orders-2's application is stopped.
const STOP_AT: f64 = 0.3;
/// How long it stays away.
const AWAY: Duration = Duration::from_millis(800);
/// How long it may be left out after the traffic: `policy::limits::CONNECT_BACKOFF_MAX` and a little.
const BACK_TIMEOUT: Duration = limits::CONNECT_BACKOFF_MAX.saturating_add(Duration::from_secs(2));
/// Requests sent at a time while it is.
const MORE: u64 = 100;
/// The time those are spread over.
const MORE_SPREAD: Duration = Duration::from_millis(250);
/// The directory of web's queue, in the demo's own.
const QUEUE: &str = "web.queue";

/// Runs a small mesh on this machine, without root, and shows that it works.
///
/// Starts the controller and five pods on 127.0.1.x, each with its own sidecar; sends requests
/// through web's sidecar to the two pods of orders, and by an HTTPRoute to prices; stops and restarts
/// orders-2's application in the middle. Then sends asynchronous requests to mail, whose application
/// is stopped, kills and restarts web's sidecar, and starts mail again. At last prints what the
/// sidecars' metrics, the receivers and the controller say. Ends by itself; exits 1 when anything was
/// not as it should be.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate demo                            about seven seconds, then exit code 0 or 1
  tidegate demo --keep                     leave it running, with addresses to try, until Ctrl-C
  tidegate demo --fault wrong-identity     break it on purpose and see it noticed

The manifests are those of manifests/demo.")]
pub(crate) struct Demo {
    /// Leave all running afterwards, until Ctrl-C.
    #[arg(long)]
    keep: bool,
    /// How many requests are sent.
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u64).range(50..=20_000))]
    requests: u64,
    /// Break it on purpose: the run is to notice and exit 1.
    #[arg(long, value_name = "FAULT")]
    fault: Option<Fault>,
    /// Where tidegate-controller and tidegate-proxy are; beside this program by default.
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Fault {
    /// The sidecar of orders-2 takes the certificate of another service account.
    WrongIdentity,
    /// The application of orders-2 is never started.
    UnusedEndpoint,
    /// One request of twenty is sent where the answer is 500.
    FailedRequest,
    /// The directory of web's queue is removed while its sidecar is down.
    LoseMessage,
}

impl Demo {
    pub(crate) async fn run(self) -> anyhow::Result<ExitCode> {
        let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
        let mut processes = Processes::new(self.bin_dir.clone())?;
        processes::all_free(&pods::addresses())?;
        let story = Story::begin();
        let told = tokio::select! {
            told = self.whole(&mut processes, &story) => told,
            _ = terminate.recv() => Err(anyhow::anyhow!("told to stop")),
            _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
        };
        let code = match told {
            Ok(good) => {
                if self.keep {
                    story.addresses(&processes.path("manifests"));
                    tokio::select! {
                        ended = watch(&mut processes) => ended?,
                        _ = terminate.recv() => {}
                        _ = interrupt.recv() => {}
                    }
                }
                if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
            }
            Err(error) => {
                story.failed(&format!("{error:#}"));
                ExitCode::FAILURE
            }
        };
        processes.end().await;
        Ok(code)
    }

    async fn whole(&self, processes: &mut Processes, story: &Story) -> anyhow::Result<bool> {
        tokio::time::timeout(RUN_TIMEOUT, self.walk(processes, story))
            .await
            .with_context(|| format!("the demo did not end within {} s", RUN_TIMEOUT.as_secs()))?
    }

    /// Start, ask and disturb, judge. Returns whether all was as it should be.
    async fn walk(&self, processes: &mut Processes, story: &Story) -> anyhow::Result<bool> {
        start_controller(processes, story).await?;
        self.start_pods(processes, story).await?;
        let mut evidence = Evidence { requests: self.requests, ..Evidence::default() };
        let plan = Plan {
            outbound: WEB.outbound(),
            ids: 0..self.requests,
            spread: SPREAD,
            failing: self.fault == Some(Fault::FailedRequest),
        };
        let said = format!("{} requests by {CLIENTS} clients to http://{HOST}", self.requests);
        story.step("traffic", &said);
        let bar = story.bar(self.requests);
        let sending = plan.clone().send(bar);
        let (sent, before_restart) = tokio::try_join!(sending, self.disturb(processes, story))?;
        story.traffic_ended();
        (evidence.sent, evidence.before_restart) = (sent, before_restart);
        until_back(&mut evidence, plan, story).await?;
        processes.none_ended()?;
        let unstarted = (self.fault == Some(Fault::UnusedEndpoint)).then_some(ORDERS_2);
        evidence::collect(&mut evidence, unstarted).await?;
        if self.fault.is_none_or(|fault| fault == Fault::LoseMessage) {
            let lose = self.fault == Some(Fault::LoseMessage);
            evidence.messages = Some(messages::walk(processes, story, lose).await?);
            processes.none_ended()?;
        }
        story.tables(&evidence);
        Ok(story.verdicts(&verdict::verdicts(&evidence)))
    }

    async fn start_pods(&self, processes: &mut Processes, story: &Story) -> anyhow::Result<()> {
        let unstarted = (self.fault == Some(Fault::UnusedEndpoint)).then_some(ORDERS_2);
        let applications = || RECEIVERS.into_iter().chain([MAIL]).filter(|pod| Some(*pod) != unstarted);
        for pod in applications() {
            start_workload(processes, pod)?;
        }
        for pod in PODS {
            let wrong = self.fault == Some(Fault::WrongIdentity) && pod == ORDERS_2;
            start_sidecar(processes, pod, if wrong { INTRUDER } else { pod.account })?;
        }
        for pod in PODS {
            processes.ready(&pod.sidecar(), pod.admin(), "/ready").await?;
            let identity = evidence::identities().await?.remove(pod.name).unwrap_or_default();
            story.step(pod.name, &format!("sidecar ready, certified as {identity}"));
        }
        for pod in applications() {
            processes.ready(&pod.workload(), pod.application(), "/counts").await?;
        }
        Ok(())
    }

    /// Stops orders-2's application in the middle and starts it again. Returns how many requests it
    /// had answered by then; a fault is left alone, so that it alone shows.
    async fn disturb(&self, processes: &mut Processes, story: &Story) -> anyhow::Result<Option<u64>> {
        if self.fault.is_some() {
            return Ok(None);
        }
        tokio::time::sleep(SPREAD.mul_f64(STOP_AT)).await;
        story.step(ORDERS_2.name, "application told to stop; its sidecar stays");
        processes.stop(&ORDERS_2.workload()).await?;
        story.step(ORDERS_2.name, "application gone");
        tokio::time::sleep(AWAY).await;
        let before = evidence::successes(ORDERS_2).await?;
        start_workload(processes, ORDERS_2)?;
        processes.ready(&ORDERS_2.workload(), ORDERS_2.application(), "/counts").await?;
        story.step(ORDERS_2.name, "application started again");
        Ok(Some(before))
    }
}

/// Asks on until orders-2 took a request after its restart, or the longest backoff is over: how long
/// it is left out depends on how many attempts were under way when it went.
async fn until_back(evidence: &mut Evidence, mut plan: Plan, story: &Story) -> anyhow::Result<()> {
    let Some(before) = evidence.before_restart else { return Ok(()) };
    let end = Instant::now() + BACK_TIMEOUT;
    let mut said = false;
    while evidence::successes(ORDERS_2).await? <= before && Instant::now() < end {
        if !said {
            story.step(ORDERS_2.name, "still left out (web's sidecar backs off); asking on until it is back");
            said = true;
        }
        plan.ids = plan.ids.end..plan.ids.end + MORE;
        plan.spread = MORE_SPREAD;
        evidence.requests += MORE;
        evidence.sent.add(plan.clone().send(ProgressBar::hidden()).await?);
    }
    if said {
        story.step("traffic", &format!("{} requests in all", evidence.requests));
    }
    Ok(())
}

async fn start_controller(processes: &mut Processes, story: &Story) -> anyhow::Result<()> {
    let (manifests, state) = (processes.path("manifests"), processes.path("state"));
    pods::write_manifests(&manifests).context("cannot write the manifests")?;
    let arguments = [
        ("--manifests", manifests.display().to_string()),
        ("--state", state.display().to_string()),
        ("--listen", CONTROLLER.to_string()),
        ("--admin", CONTROLLER_ADMIN.to_string()),
        ("--trust-domain", "cluster.local".to_owned()),
    ];
    processes.start("controller", "tidegate-controller", &flags(&arguments))?;
    processes.ready("controller", CONTROLLER_ADMIN, "/ready").await?;
    story.step("controller", &format!("ready on {CONTROLLER}, the manifests taken without problems"));
    Ok(())
}

fn start_workload(processes: &mut Processes, pod: Pod) -> anyhow::Result<()> {
    let counts = processes.path(&format!("{}.counts", pod.name)).display().to_string();
    let arguments =
        [("--name", pod.name.to_owned()), ("--listen", pod.application().to_string()), ("--counts", counts)];
    let arguments = [vec!["demo-workload".to_owned()], flags(&arguments)].concat();
    processes.start(&pod.workload(), "tidegate", &arguments)
}

fn start_sidecar(processes: &mut Processes, pod: Pod, account: &str) -> anyhow::Result<()> {
    let state = processes.path("state");
    let token = state.join("tokens").join(format!("{NAMESPACE}.{account}.token"));
    let arguments = [
        ("--controller", CONTROLLER.to_string()),
        ("--anchors", state.join("anchors.pem").display().to_string()),
        ("--token-file", token.display().to_string()),
        ("--namespace", NAMESPACE.to_owned()),
        ("--service-account", account.to_owned()),
        ("--pod", pod.name.to_owned()),
        ("--outbound", pod.outbound().to_string()),
        ("--inbound", pod.inbound().to_string()),
        ("--admin", pod.admin().to_string()),
        ("--log", "warn".to_owned()),
    ];
    let mut arguments = flags(&arguments);
    if pod == WEB {
        let queue = processes.path(QUEUE).display().to_string();
        // The system's temporary directory may be a tmpfs.
        arguments.extend(["--queue-directory".to_owned(), queue, "--queue-allow-volatile".to_owned()]);
    }
    processes.start(&pod.sidecar(), "tidegate-proxy", &arguments)
}

fn flags(arguments: &[(&str, String)]) -> Vec<String> {
    arguments.iter().flat_map(|(flag, value)| [(*flag).to_owned(), value.clone()]).collect()
}

/// Ends when a program does, which none should.
async fn watch(processes: &mut Processes) -> anyhow::Result<()> {
    loop {
        processes.none_ended()?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
