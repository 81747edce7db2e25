//! main: objects in, snapshots out.

mod admin;
mod anchors;
mod asked;
mod checks;
mod cluster;
mod compile;
mod config;
mod documents;
mod identity;
mod index;
mod inject;
mod installation;
mod intake;
mod issue;
mod lease;
mod manifests;
mod metrics;
mod objects;
mod parts;
mod proxies;
mod reload;
#[cfg(test)]
mod scripted;
mod serve;
mod standalone;
mod status;
mod watch;
mod webhook_tls;

use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;
use policy::limits;
use policy::wire::operator::operator_server::OperatorServer;
use policy::wire::v1::identity_server::IdentityServer;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tracing_subscriber::EnvFilter;

use admin::Admin;
use config::{Config, Place};
use documents::Documents;
use intake::{Follow, Intake, News};
use metrics::Metrics;
use parts::Parts;
use proxies::Proxies;

fn main() -> ExitCode {
    let config = match Config::try_parse() {
        Ok(config) => config,
        Err(error) => return usage(&error),
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate-controller: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `--help` and `--version` are answers, all else is one line.
fn usage(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let text = error.to_string();
    let of_interest = |line: &&str| !line.starts_with("Usage:") && !line.starts_with("For more information");
    let said: Vec<&str> = text.lines().take_while(of_interest).map(str::trim).collect();
    let said = said.join(" ");
    eprintln!("tidegate-controller: {} (see --help)", said.trim().trim_start_matches("error: "));
    ExitCode::FAILURE
}

fn run(config: Config) -> anyhow::Result<()> {
    // What goes wrong with the API server we tell ourselves; kube's own lines may quote what it sent,
    // Secrets too.
    let filter = EnvFilter::try_new(format!("kube_client=off,{}", config.log))
        .with_context(|| format!("--log {:?} is no filter", config.log))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(serve_until_told(config));
    // A read of the manifests may be on its way; nothing waits for it.
    runtime.shutdown_background();
    result
}

/// What is the same wherever the objects come from.
pub(crate) struct Shared {
    admin: Arc<Admin>,
    metrics: Arc<Metrics>,
    documents: Arc<Documents>,
    proxies: Arc<Proxies>,
    stop: CancellationToken,
}

/// Who signs, whose tokens count, and our own certificate.
pub(crate) struct Trust {
    authority: Arc<issue::Authority>,
    owners: issue::Owners,
    tls: Arc<serve::Tls>,
}

/// What differs with the place the objects come from.
pub(crate) struct Standing {
    trust: Trust,
    follow: Box<dyn Follow>,
    news: mpsc::Receiver<News>,
    parts: Parts,
}

async fn serve_until_told(config: Config) -> anyhow::Result<()> {
    let place = config.place()?;
    let listener = bind(config.listen, "--listen").await?;
    let admin_listener = bind(config.admin, "--admin").await?;
    let shared = Shared::new(&config);
    let mut parts = Parts::new(shared.stop.clone());
    parts.add("the signals", told_to_stop(shared.stop.clone())?);
    parts.add("the admin port", admin::serve(admin_listener, shared.admin.clone()));

    let standing = async {
        match place {
            Place::Standalone { manifests, state } => standalone::open((manifests, state), &config, &shared),
            Place::Kubernetes(place) => cluster::open(place, &config, &shared).await,
        }
    };
    let Some(Standing { trust, follow, news, parts: more }) = parts.during(standing).await? else {
        return Ok(());
    };
    parts.join(more);

    // From here on it is all the same: changes come in, documents and certificates go out.
    let Shared { admin, metrics, documents, proxies, .. } = shared;
    let intake = Intake::new(documents.clone(), follow, (admin, metrics.clone()));
    parts.add("the intake of changes", intake.run(news));
    let operator = status::Operator::new(documents.clone(), proxies.clone(), config.identity()?);
    let watcher = watch::Watcher::new(documents, proxies, metrics.clone(), config.trust_domain.clone());
    let tls = trust.tls.clone();
    let routes = routes(&config, trust, (watcher, operator), &metrics);
    parts.add("the port for proxies", serve::serve(listener, tls.clone(), routes, metrics));
    parts.add("our own certificate", async move { tls.run().await });
    tracing::info!(listen = %config.listen, admin = %config.admin, "tidegate-controller serves");
    parts.run().await
}

impl Shared {
    fn new(config: &Config) -> Self {
        let metrics = Arc::new(Metrics::new());
        let documents = Arc::new(Documents::new(config.mesh(), config.sidecars()));
        let proxies = Arc::new(Proxies::new(documents.clone(), metrics.clone()));
        let admin = Arc::new(Admin::new(config.trust_domain.to_string(), metrics.clone(), proxies.clone()));
        Self { admin, metrics, documents, proxies, stop: CancellationToken::new() }
    }
}

/// Certificates and policy for proxies, and answers for other replicas.
fn routes(
    config: &Config,
    trust: Trust,
    (watcher, operator): (watch::Watcher, status::Operator),
    metrics: &Arc<Metrics>,
) -> Routes {
    let certifier = issue::Certifier::new(
        trust.authority,
        trust.owners,
        (config.trust_domain.clone(), config.leaf_lifetime),
        metrics.clone(),
    );
    let certify = IdentityServer::new(certifier).max_decoding_message_size(2 * limits::CERTIFY_BYTES_MAX);
    let policy = watch::PolicyService::new(watcher);
    Routes::new(certify).add_service(policy).add_service(OperatorServer::new(operator)).prepare()
}

/// Turns SIGTERM and SIGINT into `stop`.
fn told_to_stop(stop: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
        tracing::info!("told to stop");
        stop.cancel();
    })
}

async fn bind(address: SocketAddr, option: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} ({option})"))
}
