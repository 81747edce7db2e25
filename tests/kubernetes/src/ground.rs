//! ground: the cluster that Tidegate is tested on, ours or one that is given, and its image there.

use std::path::PathBuf;
use std::process::Output;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::{Api, Cluster, apps, image};

/// Names the image on a given cluster, and so says that the cluster of `KUBECONFIG` is to be used.
const IMAGE: &str = "TIDEGATE_TEST_IMAGE";

/// A cluster whose nodes have Tidegate's image.
///
/// With `TIDEGATE_TEST_IMAGE` set it is the one of `KUBECONFIG`, whose nodes must have that image already
/// (`tests/kubernetes/kind.sh` makes one so); else one is started from what is built here. A kubeconfig
/// alone does not count: nobody's tests shall meet their production.
pub struct Ground {
    api: Api,
    image: String,
    cluster: Option<Cluster>,
    /// Our command line, and what Helm remembers of a given cluster.
    home: TempDir,
}

impl Ground {
    /// Takes the given cluster, or starts one with so many nodes and gives each the image. A control plane
    /// without nodes, where pods are made and do not run, is enough for what the API server alone decides.
    ///
    /// # Errors
    /// As [`Cluster::with_nodes`]; when a given cluster does not answer; when our programs are not built.
    pub fn with_nodes(count: u8) -> Result<Self> {
        let home = tempfile::tempdir()?;
        match std::env::var(IMAGE) {
            Ok(image) => Self::given(image, home),
            Err(_) if count == 0 => Ok(Self::own(Cluster::control_plane()?, home)),
            Err(_) => {
                let cluster = Cluster::with_nodes(count)?;
                for archive in [image::tidegate(home.path())?, apps::apps(home.path())?] {
                    cluster.nodes().iter().try_for_each(|node| node.load(&archive))?;
                    std::fs::remove_file(archive)?;
                }
                Ok(Self::own(cluster, home))
            }
        }
    }

    fn own(cluster: Cluster, home: TempDir) -> Self {
        let api = cluster.api().clone();
        Self { api, image: image::TIDEGATE.to_owned(), cluster: Some(cluster), home }
    }

    fn given(image: String, home: TempDir) -> Result<Self> {
        let kubeconfig = std::env::var("KUBECONFIG")
            .with_context(|| format!("{IMAGE} is set, so KUBECONFIG must name the cluster to use"))?;
        let api = Api::new(PathBuf::from(kubeconfig), home.path().to_owned(), None);
        api.kubectl(&["version"]).context("the cluster of KUBECONFIG does not answer")?;
        Ok(Self { api, image, cluster: None, home })
    }

    /// How the cluster is asked.
    #[must_use]
    pub fn api(&self) -> &Api {
        &self.api
    }

    /// The image's name, as a pod's container or `tidegate install --image` takes it.
    #[must_use]
    pub fn image(&self) -> &str {
        &self.image
    }

    /// Runs our command line on the cluster and gives what it said and how it ended.
    ///
    /// # Errors
    /// When it is not built or cannot be started.
    pub fn tidegate(&self, args: &[&str]) -> Result<Output> {
        let program = lab::program("tidegate", self.home.path())?;
        let program = program.to_str().context("a temporary folder has a readable name")?;
        Ok(self.api.command(program).args(args).output()?)
    }

    /// The cluster, for what only our own can do; none where it is given.
    #[must_use]
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// As [`Ground::cluster`], to end its parts.
    pub fn cluster_mut(&mut self) -> Option<&mut Cluster> {
        self.cluster.as_mut()
    }
}
