//! main: what an operator sees of a cluster through `tidegate`.

mod check;
mod operate;

use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context, Result, ensure};
use kubernetes::Cluster;
use serde_json::Value;

/// `tidegate` in the network of the cluster's API server.
struct Tidegate<'a> {
    cluster: &'a Cluster,
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl<'a> Tidegate<'a> {
    /// As the administrator.
    fn new(cluster: &'a Cluster) -> Result<Self> {
        let program = lab::program("tidegate", cluster.lab().folder())?;
        Ok(Self { cluster, program, kubeconfig: cluster.kubeconfig() })
    }

    /// As a service account, which may do what is given to it.
    fn of_account(&self, namespace: &str, name: &str) -> Result<Self> {
        let token = self.cluster.kubectl(&["-n", namespace, "create", "token", name])?;
        let config = std::fs::read_to_string(&self.kubeconfig)?;
        let user =
            config.lines().find(|line| line.starts_with("users:")).context("a kubeconfig has users")?;
        let config =
            config.replace(user, &format!("users: [{{name: us, user: {{token: {}}}}}]", token.trim()));
        let kubeconfig = self.cluster.lab().folder().join(format!("{name}.yaml"));
        std::fs::write(&kubeconfig, config)?;
        Ok(Self { cluster: self.cluster, program: self.program.clone(), kubeconfig })
    }

    fn run(&self, args: &[&str]) -> Result<Output> {
        let mut command = self.cluster.control().command(&self.program.to_string_lossy());
        command.env("KUBECONFIG", &self.kubeconfig).env_remove("TIDEGATE_PROXY").args(args);
        command.output().with_context(|| format!("{command:?} cannot be started"))
    }

    /// What it printed, on both ways; it must end with this status.
    fn says(&self, status: i32, args: &[&str]) -> Result<String> {
        let out = self.run(args)?;
        let said = String::from_utf8_lossy(&[out.stdout, out.stderr].concat()).into_owned();
        ensure!(out.status.code() == Some(status), "tidegate {args:?}: {}\n{said}", out.status);
        Ok(said)
    }

    /// The document it printed; it must end with this status.
    fn document(&self, status: i32, args: &[&str]) -> Result<Value> {
        let out = self.run(args)?;
        let (said, wrong) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
        ensure!(out.status.code() == Some(status), "tidegate {args:?}: {}\n{said}{wrong}", out.status);
        serde_json::from_str(&said).with_context(|| format!("tidegate {args:?} printed {said:?}{wrong}"))
    }
}

/// Whether all of these stand in the text.
fn holds(said: &str, parts: &[&str]) -> Result<()> {
    for part in parts {
        ensure!(said.contains(part), "{part:?} is not in\n{said}");
    }
    Ok(())
}
