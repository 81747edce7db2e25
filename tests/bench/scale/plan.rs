//! plan: how many of what, and which proxy needs which Service.

use std::path::PathBuf;

const USAGE: &str = "usage: scale [--proxies 10000] [--services 1000] [--each 10 endpoints] [--needs 10] \
    [--rates 10,100,1000] [--seconds 10] [--cpu 0 of the controller] [--controller PATH]";
/// Namespaces over which all is spread.
pub(crate) const NAMESPACES: usize = 10;
/// Service accounts of each namespace; proxies of one share a certificate.
pub(crate) const ACCOUNTS: usize = 2;
/// Services a proxy needs lie this far apart, so that none of two neighbours needs the same.
const STRIDE: usize = 97;

/// How many of what.
pub(crate) struct Plan {
    pub(crate) proxies: usize,
    pub(crate) services: usize,
    /// Endpoints of one Service.
    pub(crate) each: usize,
    /// Services one proxy needs.
    pub(crate) needs: usize,
    /// Changes per second.
    pub(crate) rates: Vec<u32>,
    /// For each rate.
    pub(crate) seconds: u32,
    /// The core of the controller.
    pub(crate) cpu: usize,
    pub(crate) controller: PathBuf,
}

impl Plan {
    pub(crate) fn read(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let beside = std::env::current_exe()?.parent().and_then(|path| path.parent()).map(PathBuf::from);
        let mut plan = Self {
            proxies: 10_000,
            services: 1000,
            each: 10,
            needs: 10,
            rates: vec![10, 100, 1000],
            seconds: 10,
            cpu: 0,
            controller: beside.unwrap_or_default().join("tidegate-controller"),
        };
        while let Some(flag) = arguments.next() {
            if matches!(flag.as_str(), "--help" | "-h") {
                println!("{USAGE}");
                std::process::exit(0);
            }
            let value = arguments.next().ok_or_else(|| anyhow::anyhow!(USAGE))?;
            match flag.as_str() {
                "--proxies" => plan.proxies = value.parse()?,
                "--services" => plan.services = value.parse()?,
                "--each" => plan.each = value.parse()?,
                "--needs" => plan.needs = value.parse()?,
                "--rates" => plan.rates = value.split(',').map(str::parse).collect::<Result<_, _>>()?,
                "--seconds" => plan.seconds = value.parse()?,
                "--cpu" => plan.cpu = value.parse()?,
                "--controller" => plan.controller = value.into(),
                _ => anyhow::bail!("{flag}? {USAGE}"),
            }
        }
        anyhow::ensure!(plan.services >= NAMESPACES && plan.services.is_multiple_of(NAMESPACES), USAGE);
        anyhow::ensure!(plan.needs >= 1 && plan.needs <= plan.services && plan.each >= 1, USAGE);
        Ok(plan)
    }

    /// Endpoints of all Services: as many pods.
    pub(crate) fn endpoints(&self) -> usize {
        self.services * self.each
    }

    /// The Services that proxy `proxy` needs.
    pub(crate) fn needed(&self, proxy: usize) -> impl Iterator<Item = usize> + '_ {
        (0..self.needs).map(move |nth| (proxy + nth * STRIDE) % self.services)
    }

    /// The pod in which proxy `proxy` stands.
    pub(crate) fn pod(&self, proxy: usize) -> usize {
        proxy % self.endpoints()
    }
}

/// The namespace of Service `service`, whose pods stand there too.
pub(crate) fn namespace(service: usize) -> String {
    format!("n{}", service % NAMESPACES)
}

/// The service account of pod `pod`.
pub(crate) fn account(pod: usize) -> usize {
    pod % ACCOUNTS
}
