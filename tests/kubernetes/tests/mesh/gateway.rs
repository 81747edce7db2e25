//! gateway: the Gateway API's definitions, as its own module has them.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use kubernetes::Api;
use serde_json::Value;

const MODULE: &str = "sigs.k8s.io/gateway-api@v1.6.1";

/// Applies those of the kinds that Tidegate reads.
pub(crate) fn install(api: &Api) -> Result<()> {
    let folder = definitions()?;
    for plural in ["httproutes", "grpcroutes", "referencegrants"] {
        let file = folder.join(format!("gateway.networking.k8s.io_{plural}.yaml"));
        api.apply(&std::fs::read_to_string(&file).with_context(|| file.display().to_string())?)?;
    }
    Ok(())
}

fn definitions() -> Result<PathBuf> {
    let out = Command::new("go").args(["mod", "download", "-json", MODULE]).current_dir("/").output()?;
    ensure!(out.status.success(), "go mod download {MODULE}: {}", String::from_utf8_lossy(&out.stderr));
    let said: Value = serde_json::from_slice(&out.stdout)?;
    let folder = said["Dir"].as_str().context("go names the module's folder")?;
    Ok(PathBuf::from(folder).join("config/crd/standard"))
}
