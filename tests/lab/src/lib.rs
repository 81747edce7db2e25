//! lab: pods without Kubernetes, each a network namespace with an application and a sidecar in it.
//!
//! A [`Lab`] is one small cluster. Its network is a bridge in a namespace of its own, so that the
//! host's networking sees nothing of it: pods have addresses in 10.77.0.0/16, services in
//! 10.96.0.0/16. Nobody routes a service's address; a packet to one leaves the application,
//! meets the redirection in its own namespace and arrives at the sidecar. Without a sidecar it is
//! refused by the bridge.
//!
//! ```text
//!   tgP-net            tgP-1-web             tgP-2-orders
//!   bridge 10.77.255.254 ── eth0 10.77.0.1    eth0 10.77.0.2
//!        └──────────────────────┴──────────────────┘
//! ```
//!
//! Names are written into each pod's `hosts` file (`/etc/netns/NAMESPACE`, which `ip netns exec`
//! lays over `/etc`). Everything made is unmade when the last handle is dropped; what a killed run
//! left behind, the next [`Lab::new`] sweeps. The logs stay, and their folder is printed, when a test
//! panics or `TIDEGATE_LAB_KEEP` is set; an error holds the end of the log it is about.
//!
//! Everything here is synchronous and asks the ordinary programs: `ip`, `nft`, `curl`.

mod binaries;
mod controller;
pub mod manifests;
mod network;
mod pod;
mod process;
mod sidecar;
mod until;

use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};

pub use crate::binaries::{app, place as program, python};
pub use crate::controller::Controller;
pub use crate::network::{CLUSTER_NETWORK, POD_NETWORK};
pub use crate::pod::{Pod, Shape};
pub use crate::process::Process;
pub use crate::sidecar::{SIDECAR_UID, Sidecar, SidecarOptions};
pub use crate::until::until;

/// One cluster of pods.
#[derive(Clone)]
pub struct Lab {
    ground: Arc<Ground>,
}

/// What all pods of a lab stand on.
pub(crate) struct Ground {
    prefix: String,
    folder: Option<tempfile::TempDir>,
    path: PathBuf,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pods: u16,
    processes: u32,
    hosts: Vec<(String, Ipv4Addr)>,
    namespaces: Vec<String>,
    disks: Vec<tempfile::TempDir>,
}

/// Whether this process may make a lab.
#[must_use]
pub fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

impl Lab {
    /// Makes the network of an empty cluster.
    ///
    /// # Errors
    /// Without root, or when the kernel or the programs `ip` and `nft` cannot do it.
    pub fn new() -> Result<Self> {
        static LABS: AtomicU32 = AtomicU32::new(0);
        ensure!(is_root(), "the lab makes network namespaces and needs root");
        network::sweep()?;
        let lab = LABS.fetch_add(1, Ordering::Relaxed);
        let folder = tempfile::Builder::new().prefix("tidegate-lab-").tempdir()?;
        // The sidecar reads here under a user of its own.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        std::fs::create_dir(folder.path().join("logs"))?;
        std::fs::create_dir(folder.path().join("bin"))?;
        let ground = Ground {
            prefix: format!("tg{}x{lab}", std::process::id()),
            path: folder.path().to_owned(),
            folder: Some(folder),
            state: Mutex::default(),
        };
        network::make_bridge(&ground.switch())?;
        Ok(Self { ground: Arc::new(ground) })
    }

    /// Makes a pod: a namespace with its own address, and nothing running in it.
    ///
    /// # Errors
    /// When the namespace cannot be made.
    pub fn pod(&self, name: &str, namespace: &str, account: &str) -> Result<Pod> {
        Pod::make(&self.ground, name, namespace, account)
    }

    /// Starts a controller in a pod of its own and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready, with the end of its log.
    pub fn controller(&self) -> Result<Controller> {
        self.controller_with(&[])
    }

    /// As [`Lab::controller`], with more arguments, which a restart has too.
    ///
    /// # Errors
    /// When it does not get ready, with the end of its log.
    pub fn controller_with(&self, args: &[&str]) -> Result<Controller> {
        Controller::start(self, args)
    }

    /// Gives a name an address in every pod, those there are and those to come.
    ///
    /// # Errors
    /// When a pod's `hosts` file cannot be written.
    pub fn host(&self, name: &str, ip: Ipv4Addr) -> Result<()> {
        let namespaces = self.ground.with(|state| {
            state.hosts.push((name.to_owned(), ip));
            state.namespaces.clone()
        });
        namespaces.iter().try_for_each(|ns| self.ground.write_hosts(ns))
    }

    /// Gives a service its name in every pod, in the ways a cluster spells it.
    ///
    /// # Errors
    /// When a pod's `hosts` file cannot be written.
    pub fn service(&self, name: &str, namespace: &str, ip: Ipv4Addr) -> Result<()> {
        let long = format!("{name}.{namespace}.svc.cluster.local");
        self.host(&format!("{long} {name}.{namespace}.svc {name}.{namespace} {name}"), ip)
    }

    /// A new folder that the sidecars may write, for what must be on a disk: `/tmp` may be memory. It lies
    /// under `target/tmp` and goes with the lab.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn disk(&self) -> Result<PathBuf> {
        let under = binaries::target().join("tmp");
        std::fs::create_dir_all(&under)?;
        let folder = tempfile::Builder::new().prefix("tidegate-lab-").tempdir_in(under)?;
        std::os::unix::fs::chown(folder.path(), Some(SIDECAR_UID), Some(SIDECAR_UID))?;
        let path = folder.path().to_owned();
        self.ground.with(|state| state.disks.push(folder));
        Ok(path)
    }

    /// The folder of this lab: logs, manifests, the controller's state.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.ground.path
    }
}

impl Ground {
    /// The namespace of the bridge.
    pub(crate) fn switch(&self) -> String {
        format!("{}-net", self.prefix)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The next pod's number and the name of its namespace.
    pub(crate) fn next_pod(&self, name: &str) -> (u16, String) {
        self.with(|state| {
            state.pods += 1;
            let ns = format!("{}-{}-{name}", self.prefix, state.pods);
            state.namespaces.push(ns.clone());
            (state.pods, ns)
        })
    }

    pub(crate) fn forget(&self, ns: &str) {
        self.with(|state| state.namespaces.retain(|other| other != ns));
    }

    /// A new file for what a process says.
    pub(crate) fn next_log(&self, pod: &str, label: &str) -> PathBuf {
        let number = self.with(|state| {
            state.processes += 1;
            state.processes
        });
        self.path.join("logs").join(format!("{number:03}-{pod}-{label}.log"))
    }

    /// Writes in place: running processes see the file through a bind mount of its inode.
    pub(crate) fn write_hosts(&self, ns: &str) -> Result<()> {
        let mut text = "127.0.0.1 localhost\n".to_owned();
        self.with(|state| {
            for (name, ip) in &state.hosts {
                text.push_str(&format!("{ip} {name}\n"));
            }
        });
        std::fs::write(network::etc(ns).join("hosts"), text).with_context(|| format!("hosts of {ns}"))
    }

    fn with<T>(&self, ask: impl FnOnce(&mut State) -> T) -> T {
        ask(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        network::remove(&self.switch());
        let keep = std::thread::panicking() || std::env::var_os("TIDEGATE_LAB_KEEP").is_some();
        if let Some(folder) = self.folder.take().filter(|_| keep) {
            eprintln!("the lab's logs are kept in {}", folder.keep().display());
        }
        let disks = self.with(|state| std::mem::take(&mut state.disks));
        for folder in disks.into_iter().filter(|_| keep) {
            eprintln!("and a disk in {}", folder.keep().display());
        }
    }
}
