//! main: the sidecar, started, kept ready and stopped.
//!
//! The program has a control thread (this one) and a thread for each worker. The control thread
//! asks for the certificate ([`certify`]), follows the controller ([`feed`]), answers operators
//! ([`admin`]) and hears signals. A worker ([`worker`]) takes connections in; [`outbound`] and
//! [`inbound`] are the two ways of a connection, to be read top to bottom.
//!
//! Stopping ([`drain`]) has an order: not ready first, so that nobody new is sent here, and nothing
//! asynchronous taken in; then GOAWAY and `connection: close` to those who are connected, while late
//! connections are still taken; then the end, when nothing is under way or the grace is over. A second
//! signal ends it at once.

mod admin;
mod admit;
mod authority;
mod authorize;
mod callback;
mod carry;
mod certify;
mod config;
mod deliver;
mod discovery;
mod drain;
mod feed;
mod first_word;
mod health;
mod inbound;
mod link;
mod messages;
mod observe;
mod operate;
mod outbound;
mod page;
mod policies;
mod queues;
mod refused;
mod sink;
mod telemetry;
mod worker;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use policy::name::Domain;
use request::backend::Shared;
use request::drain::Drain;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use transport::redirect::{self, Rules};
use transport::resolve::Resolver;
use transport::tls::{Tls, warm_up};

use admin::Admin;
use admit::Admit;
use certify::Certifier;
use config::{Cli, Command, Config, Redirect};
use deliver::{Deliveries, Job};
use drain::Told;
use feed::Feed;
use health::Health;
use link::Link;
use messages::Messages;
use observe::Observer;
use operate::Operate;
use queues::{Keys, Owner, Queues};
use telemetry::{LogLevel, Metrics};
use worker::Parts;

/// The DNS suffix of Services until the controller has named another.
const CLUSTER_DOMAIN: &str = "cluster.local";

fn main() -> ExitCode {
    let cli = Cli::read(std::env::args_os()).unwrap_or_else(|error| error.exit());
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&error.into()),
    };
    let done = match (cli.command, cli.config) {
        (Some(Command::Redirect(redirect)), _) => runtime.block_on(write_rules(&redirect)),
        (Some(Command::Drain(now)), _) => runtime.block_on(drain::ask(now.admin)),
        (None, Some(config)) => runtime.block_on(run(config)),
        (None, None) => Err(anyhow::anyhow!(
            "--anchors, --token-file, --namespace, --service-account and --pod are needed: see --help"
        )),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("tidegate-proxy: {}", transport::errors::chain(error.as_ref()));
    ExitCode::FAILURE
}

async fn write_rules(redirect: &Redirect) -> anyhow::Result<()> {
    let rules = Rules {
        outbound_port: redirect.outbound_port,
        inbound_port: redirect.inbound_port,
        proxy_uid: redirect.proxy_uid,
        skip_inbound_ports: redirect.skip_inbound_ports.clone(),
        skip_outbound_ports: redirect.skip_outbound_ports.clone(),
    };
    if redirect.dry_run {
        print!("{}", redirect::script(&rules));
        return Ok(());
    }
    if redirect.undo {
        redirect::undo()?;
        eprintln!("tidegate-proxy: the rules are gone");
        return Ok(());
    }
    redirect::apply(&rules)?;
    if redirect.self_check {
        redirect::self_check(&rules).await?;
    }
    eprintln!(
        "tidegate-proxy: outgoing connections go to port {}, incoming ones to port {}, but for those of uid {}{}",
        rules.outbound_port,
        rules.inbound_port,
        rules.proxy_uid,
        if redirect.self_check { "; proven with a connection" } else { "" }
    );
    Ok(())
}

async fn run(config: Config) -> anyhow::Result<()> {
    config.check().map_err(anyhow::Error::msg)?;
    let log_level = LogLevel::init(&config.log).map_err(anyhow::Error::msg)?;
    warm_up();
    let admin_listener = TcpListener::bind(config.admin)
        .await
        .with_context(|| format!("--admin {} cannot be listened on", config.admin))?;
    let (health, metrics, drain, tls) =
        (Arc::new(Health::default()), Metrics::new(), Drain::new(), Tls::new());
    let (observer, traces) = Observer::new(&config, &metrics)?;
    let resolver =
        Resolver::from_system().map_err(|error| anyhow::anyhow!("the system's resolver: {error}"))?;
    let resolver = Arc::new(resolver);
    let link = Link {
        controller: config.controller.clone(),
        identity: config.controller_identity()?,
        resolver: resolver.clone(),
    };
    let (feed, handle) =
        Feed::new(link.clone(), tls.clone(), health.clone(), config.pod.clone(), config.inbound);
    let certifier = Certifier {
        identity: config.identity(),
        anchors: config.anchors.clone(),
        token_file: config.token_file.clone(),
        link,
        tls: tls.clone(),
        health: health.clone(),
    };
    let (handed, jobs) = deliver::handed(config.workers);
    let place = config.queues();
    let keys = Keys::new(&place);
    let deliveries = Arc::new(Deliveries::new(handed, keys.clone(), &metrics));
    let owner = Owner { identity: config.identity().to_string().into(), address: config.holder() };
    let queues = Queues::new(place, owner, keys, deliveries, &metrics, health.clone(), drain.clone());
    let messages = Arc::new(Messages::new(queues.clone(), config.holder()));
    let (told, hears) = watch::channel(Told::Nothing);
    let admin = Arc::new(Admin {
        config: config.clone(),
        health: health.clone(),
        metrics: metrics.clone(),
        snapshot: handle.snapshot(),
        log_level,
        told,
        operate: Operate::new(queues.clone(), messages.clone(), handle.snapshot(), config.pod.clone()),
    });
    let shared = Shared::new(tls.clone(), metrics.with(request::metrics::Metrics::new), config.workers)
        .beside(&config.pod, config.identity(), config.inbound.port());
    let admit = Arc::new(Admit::new(queues.clone(), &metrics));
    let parts = Parts {
        config: config.clone(),
        feed: handle,
        tls,
        shared,
        resolver,
        drain: drain.clone(),
        metrics,
        observer: Arc::new(observer),
        cluster_domain: Domain::new(CLUSTER_DOMAIN)?,
        admit,
        messages: messages.clone(),
    };
    let policies = policies::follow(queues.clone(), parts.feed.clone());
    start_workers(&parts, jobs).await?;
    queues.open_what_was_left().await;
    tracing::info!(identity = %config.identity(), outbound = %config.outbound, inbound = %config.inbound, admin = %config.admin, "started");
    let background = [
        tokio::spawn(certifier.run()),
        tokio::spawn(feed.run()),
        tokio::spawn(admin.serve(admin_listener)),
        tokio::spawn(policies),
        tokio::spawn(queues.clone().retry_what_was_left()),
    ];
    drain::stop(&config, &health, &drain, &queues, hears).await?;
    for task in background {
        task.abort();
    }
    if let Some(traces) = traces {
        // Waits for the exporter, whose tasks run here: not on this thread.
        let flushed = tokio::task::spawn_blocking(move || traces.shutdown()).await;
        if let Ok(Err(error)) = flushed {
            tracing::warn!(%error, "the last traces were not exported");
        }
    }
    Ok(())
}

async fn start_workers(parts: &Parts, jobs: Vec<mpsc::Receiver<Job>>) -> anyhow::Result<()> {
    if parts.config.workers > 1 {
        // Workers share their addresses, which would hide that somebody else has one already.
        for (flag, address) in [("--outbound", parts.config.outbound), ("--inbound", parts.config.inbound)] {
            std::net::TcpListener::bind(address)
                .with_context(|| format!("{flag} {address} cannot be listened on"))?;
        }
    }
    for (number, jobs) in (0..).zip(jobs) {
        let started = worker::start(parts.clone(), number, jobs)?;
        started.await?.map_err(anyhow::Error::msg)?;
    }
    Ok(())
}
