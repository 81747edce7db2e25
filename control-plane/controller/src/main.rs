//! main: objects in, snapshots out.

mod admin;
mod compile;
mod config;
mod documents;
mod index;
mod issue;
mod manifests;
mod metrics;
mod proxies;
mod reload;
mod serve;
mod watch;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Parser as _;
use policy::identity::Identity;
use policy::limits;
use policy::name::{Domain, Label};
use policy::wire::v1::identity_server::IdentityServer;
use policy::wire::v1::policy_server::PolicyServer;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tonic::service::Routes;
use tracing_subscriber::EnvFilter;

use config::Config;

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
    let filter =
        EnvFilter::try_new(&config.log).with_context(|| format!("--log {:?} is no filter", config.log))?;
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false).init();
    let directory = &config.manifests;
    let found = std::fs::metadata(directory)
        .with_context(|| format!("cannot read the directory of manifests {}", directory.display()))?;
    anyhow::ensure!(found.is_dir(), "--manifests {} is not a directory", directory.display());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let result = runtime.block_on(serve_until_told(config));
    // A read of the manifests may be on its way; nothing waits for it.
    runtime.shutdown_background();
    result
}

async fn serve_until_told(config: Config) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let listener = bind(config.listen, "--listen").await?;
    let admin_listener = bind(config.admin, "--admin").await?;

    let authority = Arc::new(issue::Authority::open(&config.state, config.trust_domain.as_str())?);
    let tokens = Arc::new(issue::Tokens::open(&config.state)?);
    let identity = own_identity(&config.trust_domain)?;
    let tls = Arc::new(serve::Tls::new(authority.clone(), identity, limits::LEAF_LIFETIME)?);
    let metrics = Arc::new(metrics::Metrics::new());
    let proxies = Arc::new(proxies::Proxies::new(metrics.clone()));
    let admin =
        Arc::new(admin::Admin::new(config.trust_domain.to_string(), metrics.clone(), proxies.clone()));
    let (current, seen) = tokio::sync::watch::channel(None);

    let certifier = issue::Certifier::new(
        authority.clone(),
        tokens.clone(),
        (config.trust_domain.clone(), config.leaf_lifetime),
        metrics.clone(),
    );
    let watcher = watch::Watcher::new(seen, proxies, metrics.clone(), config.trust_domain.clone());
    let bytes = limits::CONTROL_MESSAGE_BYTES_MAX;
    let certify = IdentityServer::new(certifier).max_decoding_message_size(2 * limits::CERTIFY_BYTES_MAX);
    let policy = PolicyServer::new(watcher).max_decoding_message_size(bytes).max_encoding_message_size(bytes);
    let routes = Routes::new(certify).add_service(policy).prepare();
    let reload = reload::Reload {
        mesh: config.mesh(),
        manifests: manifests::Manifests::new(config.manifests.clone()),
        authority,
        tokens,
        tls: tls.clone(),
        admin: admin.clone(),
        metrics: metrics.clone(),
        current,
        logged: HashSet::new(),
        behind: false,
    };
    tracing::info!(listen = %config.listen, admin = %config.admin, "tidegate-controller serves");
    tokio::select! {
        () = serve::serve(listener, tls.clone(), routes, metrics) => {}
        () = admin::serve(admin_listener, admin) => {}
        () = reload.run(&config.manifests) => anyhow::bail!("the manifests are not read any more"),
        () = renew(&tls) => {}
        _ = terminate.recv() => tracing::info!("told to stop"),
        _ = interrupt.recv() => tracing::info!("told to stop"),
    }
    Ok(())
}

async fn bind(address: SocketAddr, option: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address} ({option})"))
}

fn own_identity(trust_domain: &Domain) -> anyhow::Result<Identity> {
    Ok(Identity {
        trust_domain: trust_domain.clone(),
        namespace: Label::new("tidegate")?,
        service_account: Domain::new("tidegate-controller")?,
    })
}

/// Keeps our own certificate young.
async fn renew(tls: &serve::Tls) {
    let mut pause = tls.renew_after();
    loop {
        tokio::time::sleep(pause).await;
        pause = match tls.renew() {
            Ok(()) => tls.renew_after(),
            Err(error) => {
                tracing::error!(error = format!("{error:#}"), "cannot renew our own certificate");
                limits::CONTROL_BACKOFF_MAX
            }
        };
    }
}
