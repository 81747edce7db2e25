//! bulk: a gibibyte each way, and a slow reader, at a fair part of the direct speed and within a few
//! mebibytes of memory.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use lab::manifests::Port;
use lab::{Process, until};

use super::{DIRECT_PORT, Pair, curl_ok, nginx};
use crate::world::World;

const MIB: u64 = 1024 * 1024;
const LARGE_BYTES: u64 = 1024 * MIB;
/// What a sidecar may take more than when it was idle.
const MORE_BYTES_MAX: u64 = 8 * MIB;
/// The part of the direct speed that is left through two sidecars, at least. They encrypt, decrypt and
/// copy on the same cores as the two ends.
const SPEED_RATIO_MIN: f64 = 0.25;

/// Files that do not compress and cost little to make: zeros under a cipher. Gives the digest.
fn make_file(world: &World, at: &Path, bytes: u64) -> Result<String> {
    let script = format!(
        "set -e; head -c {bytes} /dev/zero |
         openssl enc -aes-128-ctr -K 000102030405060708090a0b0c0d0e0f -iv 00000000000000000000000000000000 |
         tee '{at}' | sha256sum",
        at = at.display()
    );
    let said = world.controller.pod().run(world.controller.pod().command("bash").args(["-c", &script]))?;
    ensure!(std::fs::metadata(at)?.len() == bytes, "the file is not whole");
    Ok(said.split_whitespace().next().context("sha256sum prints a digest")?.to_owned())
}

const PATIENCE: Duration = Duration::from_secs(200);

struct Bulk {
    pair: Pair,
    file: PathBuf,
    digest: String,
    idle: [u64; 2],
    _servers: Vec<Process>,
}

/// What a transfer said, and what the sidecars took while it ran.
struct Ran {
    said: String,
    more_mib: [f64; 2],
}

impl Bulk {
    fn new(bytes: u64) -> Result<Self> {
        let (mut file, mut digest) = (PathBuf::new(), String::new());
        let ports = [
            Port::new("http", 80, 8080),
            Port::new("echo", 81, 8081),
            Port::new("http2", 82, 8082),
            Port::new("bytes", 90, 8090).speaking("tcp"),
            Port::new("echo-bytes", 91, 8091).speaking("tcp"),
        ];
        let (pair, servers) = Pair::new(&ports, |world, shop| {
            let listening = "server { listen 8080; listen 8090; } server { listen 8082 http2; }";
            let (nginx, folder) = nginx(world, shop, listening)?;
            std::fs::write(folder.join("www/small"), vec![b'x'; 10_000])?;
            file = folder.join("www/large");
            digest = make_file(world, &file, bytes)?;
            let echo = |port: u16| shop.serve("http_echo.py", &["--listen", &format!("0.0.0.0:{port}")]);
            Ok(vec![nginx, echo(8081)?, echo(8091)?])
        })?;
        curl_ok(&pair.web, &["-o", "/dev/null", "http://shop/small"])?;
        curl_ok(&pair.web, &["-d", "small", "http://shop:81/small"])?;
        let mut bulk = Self { pair, file, digest, idle: [0; 2], _servers: servers };
        bulk.idle = bulk.memory()?;
        Ok(bulk)
    }

    fn memory(&self) -> Result<[u64; 2]> {
        Ok([self.pair.web_sidecar.process.rss_bytes()?, self.pair.shop_sidecar.process.rss_bytes()?])
    }

    /// Runs a script in `web` to its end and watches the memory of both sidecars.
    fn run(&self, script: &str, patience: Duration) -> Result<Ran> {
        let script = format!("set -euo pipefail; {script}");
        let mut process =
            self.pair.web.spawn("transfer", self.pair.web.command("bash").args(["-c", &script]))?;
        let mut most = self.idle;
        until(&format!("the end of {script}"), patience, || {
            for (most, now) in most.iter_mut().zip(self.memory()?) {
                *most = now.max(*most);
            }
            Ok((!process.is_running()?).then_some(()))
        })?;
        let (status, said) = (process.wait(Duration::from_secs(1))?, process.log());
        ensure!(status.success(), "{script}: {status}: {said}");
        let mib = |bytes: u64| f64::from(u32::try_from(bytes / 1024).unwrap_or(u32::MAX)) / 1024.0;
        let more_mib = [mib(most[0] - self.idle[0]), mib(most[1] - self.idle[1])];
        for (most, idle) in most.iter().zip(self.idle) {
            ensure!(most - idle <= MORE_BYTES_MAX, "the sidecars took {more_mib:?} MiB more: {said}");
        }
        Ok(Ran { said, more_mib })
    }

    fn download(&self, url: &str, options: &str) -> Result<Ran> {
        let script =
            format!("curl -sS -f {options} -w '%{{stderr}}speed %{{speed_download}}\\n' {url} | sha256sum");
        let ran = self.run(&script, PATIENCE)?;
        ensure!(ran.said.contains(&self.digest), "other bytes came: {}", ran.said);
        Ok(ran)
    }

    fn upload(&self, url: &str) -> Result<Ran> {
        let file = self.file.display();
        let script = format!("curl -sS -f -T {file} -w '\\nspeed %{{speed_upload}}\\n' {url}");
        let ran = self.run(&script, PATIENCE)?;
        ensure!(ran.said.contains(&self.digest), "other bytes came: {}", ran.said);
        Ok(ran)
    }
}

impl Ran {
    /// Prints the speed, and gives it in MiB/s.
    fn tell(&self, what: &str) -> Result<f64> {
        let speed = self.said.lines().find_map(|line| line.strip_prefix("speed ")).context("no speed")?;
        let mib_per_second = speed.trim().parse::<f64>()? / (1024.0 * 1024.0);
        println!("{what}: {mib_per_second:.0} MiB/s, memory +{:.1?} MiB", self.more_mib);
        Ok(mib_per_second)
    }
}

#[test]
fn a_gibibyte_passes_each_way_in_little_memory_at_a_quarter_of_the_direct_speed() -> Result<()> {
    let bulk = Bulk::new(LARGE_BYTES)?;
    let bare = bulk.pair.world.lab.pod("bare", "shop", "bare")?;
    let servers = format!("server {{ listen {DIRECT_PORT}; }}");
    let (_nginx, folder) = nginx(&bulk.pair.world, &bare, &servers)?;
    std::fs::hard_link(&bulk.file, folder.join("www/large"))?;
    let second = bulk.pair.world.lab.pod("second", "shop", "bare")?;
    let _echo = second.serve("http_echo.py", &["--listen", &format!("0.0.0.0:{DIRECT_PORT}")])?;

    let direct = bulk.download(&format!("http://{}:{DIRECT_PORT}/large", bare.ip()), "")?;
    let direct = direct.tell("download, direct")?;
    for (what, url, options) in [
        ("download, HTTP/1.1", "http://shop/large", ""),
        ("download, HTTP/2", "http://shop:82/large", "--http2-prior-knowledge"),
        ("download, bytes", "http://shop:90/large", ""),
    ] {
        is_fair(what, bulk.download(url, options)?.tell(what)?, direct)?;
    }
    let direct = bulk.upload(&format!("http://{}:{DIRECT_PORT}/up", second.ip()))?.tell("upload, direct")?;
    for (what, url) in [("upload, HTTP/1.1", "http://shop:81/up"), ("upload, bytes", "http://shop:91/up")] {
        is_fair(what, bulk.upload(url)?.tell(what)?, direct)?;
    }
    let carried = [("direction", "inbound")];
    let carried = bulk.pair.shop_sidecar.metric("tidegate_sidecar_tcp_connections_total", &carried)?;
    ensure!(carried >= 2.0, "{carried} connections were carried as bytes");
    bulk.pair.assert_proven(5.0)
}

fn is_fair(what: &str, meshed: f64, direct: f64) -> Result<()> {
    let fair = meshed >= SPEED_RATIO_MIN * direct;
    ensure!(fair, "{what}: {meshed:.0} MiB/s, where {direct:.0} come without sidecars");
    Ok(())
}

#[test]
fn a_slow_reader_costs_no_memory() -> Result<()> {
    let bulk = Bulk::new(64 * MIB)?;
    bulk.download("http://shop/large", "--limit-rate 4M")?.tell("a client that reads 4 MiB/s")?;
    bulk.upload("http://shop:81/sip/4")?.tell("a server that reads 4 MiB/s")?;
    bulk.pair.assert_proven(4.0)
}
