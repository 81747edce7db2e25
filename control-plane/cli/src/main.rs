//! main: the operator's hand, one subcommand for each thing it does.

mod answer;
mod ask;
mod check;
mod cluster;
mod crds;
mod demo;
mod figures;
mod inject;
mod install;
mod kubeconfig;
mod operate;
mod pods;
mod print;
#[cfg(test)]
mod scripted;
mod uninstall;
mod upgrade_check;
mod validate;
mod workload;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Looks at a Tidegate mesh from outside: at its manifests, its processes, the queues and requests
/// of a proxy, or at a whole mesh that it starts on this machine; puts one into a cluster and takes it out.
#[derive(Debug, Parser)]
#[command(name = "tidegate", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Install(install::Install),
    Uninstall(uninstall::Uninstall),
    UpgradeCheck(upgrade_check::UpgradeCheck),
    Validate(validate::Validate),
    Check(check::Check),
    Inject(inject::Inject),
    Crds(crds::Crds),
    Queue(operate::Queue),
    #[command(name = "dlq")]
    DeadLetter(operate::DeadLetter),
    Request(operate::Request),
    Demo(demo::Demo),
    #[command(hide = true)]
    DemoWorkload(workload::Workload),
}

fn main() -> ExitCode {
    let command = Cli::parse().command;
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("tidegate: cannot start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let ended = runtime.block_on(async {
        match command {
            Command::Install(install) => install.run().await,
            Command::Uninstall(uninstall) => uninstall.run().await,
            Command::UpgradeCheck(check) => check.run().await,
            Command::Validate(validate) => Ok(validate.run()),
            Command::Check(check) => check.run().await,
            Command::Inject(inject) => inject.run().await,
            Command::Crds(crds) => crds.run(),
            Command::Queue(queue) => queue.run().await,
            Command::DeadLetter(dead_letter) => dead_letter.run().await,
            Command::Request(request) => request.run().await,
            Command::Demo(demo) => demo.run().await,
            Command::DemoWorkload(workload) => workload.run().await,
        }
    });
    // A read of standard input may be on its way; nothing waits for it.
    runtime.shutdown_background();
    ended.unwrap_or_else(|error| {
        eprintln!("tidegate: {error:#}");
        ExitCode::FAILURE
    })
}
