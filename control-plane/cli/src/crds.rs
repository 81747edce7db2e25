//! crds: the definitions of Tidegate's kinds, to be applied by hand.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Args;
use resources::crd_files;

/// Prints the CustomResourceDefinitions of Tidegate's kinds, to apply by hand.
///
/// They are those the chart installs, made for this version. Apply them before a newer controller.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidegate crds | kubectl apply --server-side -f -
  tidegate crds | kubectl diff --server-side -f -      what an upgrade would change")]
pub(crate) struct Crds {}

impl Crds {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let documents: Vec<String> = crd_files().into_iter().map(|(_, text)| text).collect();
        // Whoever reads may have seen enough (`| head`).
        match std::io::stdout().write_all(documents.join("---\n").as_bytes()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
            Err(error) => Err(error.into()),
            Ok(()) => Ok(ExitCode::SUCCESS),
        }
    }
}
