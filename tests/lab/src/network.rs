//! network: namespaces, the bridge between them, and their end.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The network of the pods' own addresses.
pub const POD_NETWORK: &str = "10.77.0.0/16";
/// The network of the services' addresses.
pub const CLUSTER_NETWORK: &str = "10.96.0.0/16";
/// The bridge's address, every pod's way out.
const GATEWAY: &str = "10.77.255.254";

/// Runs a program to its end and gives what it printed.
///
/// # Errors
/// When it cannot be started or fails; the error holds what it printed.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let out = command.output().with_context(|| format!("{command:?} cannot be started"))?;
    if !out.status.success() {
        let said = [out.stdout, out.stderr].concat();
        bail!("{command:?}: {}\n{}", out.status, String::from_utf8_lossy(&said).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// Runs `ip` with these words.
pub(crate) fn ip(words: &str) -> Result<String> {
    run(Command::new("ip").args(words.split_whitespace()))
}

/// The address of the pod with this number.
pub(crate) fn address(number: u16) -> Ipv4Addr {
    let [high, low] = number.to_be_bytes();
    Ipv4Addr::new(10, 77, high, low)
}

/// The folder that `ip netns exec` lays over `/etc`.
pub(crate) fn etc(ns: &str) -> PathBuf {
    Path::new("/etc/netns").join(ns)
}

/// Makes the namespace with the bridge.
pub(crate) fn make_bridge(ns: &str) -> Result<()> {
    ip(&format!("netns add {ns}"))?;
    ip(&format!("-n {ns} link set lo up"))?;
    ip(&format!("-n {ns} link add br0 type bridge forward_delay 0 stp_state 0"))?;
    ip(&format!("-n {ns} addr add {GATEWAY}/16 dev br0"))?;
    ip(&format!("-n {ns} link set br0 up"))?;
    // A service's address is nobody's: refused at once instead of asked for until a timeout.
    ip(&format!("-n {ns} route add unreachable {CLUSTER_NETWORK}"))?;
    ip(&format!("netns exec {ns} sysctl -q -w net.ipv4.ip_forward=1"))?;
    Ok(())
}

/// Makes a pod's namespace and plugs it into the bridge.
pub(crate) fn make_pod(ns: &str, switch: &str, number: u16) -> Result<()> {
    let address = address(number);
    ip(&format!("netns add {ns}"))?;
    ip(&format!("-n {ns} link set lo up"))?;
    ip(&format!("-n {ns} link add eth0 type veth peer name v{number} netns {switch}"))?;
    ip(&format!("-n {switch} link set v{number} master br0 up"))?;
    ip(&format!("-n {ns} addr add {address}/16 dev eth0"))?;
    up(ns)?;
    std::fs::create_dir_all(etc(ns))?;
    std::fs::write(etc(ns).join("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")?;
    Ok(())
}

/// Brings a pod's link up, and the route that went away with it.
pub(crate) fn up(ns: &str) -> Result<()> {
    ip(&format!("-n {ns} link set eth0 up"))?;
    ip(&format!("-n {ns} route replace default via {GATEWAY}"))?;
    Ok(())
}

/// Ends everything in a namespace, and the namespace. What is gone already is no trouble.
pub(crate) fn remove(ns: &str) {
    let pids = ip(&format!("netns pids {ns}")).unwrap_or_default();
    for pid in pids.split_whitespace() {
        let _ = signal("KILL", pid);
    }
    let _ = ip(&format!("netns del {ns}"));
    let _ = std::fs::remove_dir_all(etc(ns));
    // Only when no other lab, nor anybody else, has one.
    let _ = std::fs::remove_dir("/etc/netns");
}

/// Sends a signal through the shell, whose `kill` is always there.
pub(crate) fn signal(name: &str, pid: &str) -> Result<()> {
    run(Command::new("sh").args(["-c", "kill -s \"$1\" \"$2\"", "sh", name, pid])).map(drop)
}

/// Removes the namespaces of labs whose process is no more.. One that is dead and not buried has no program.
pub(crate) fn sweep() -> Result<()> {
    for ns in ip("netns list")?.lines().filter_map(|line| line.split_whitespace().next()) {
        let pid = ns.strip_prefix("tg").and_then(|rest| rest.split('x').next());
        let Some(pid) = pid.filter(|pid| !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit())) else {
            continue;
        };
        if Path::new("/proc").join(pid).join("exe").read_link().is_err() {
            remove(ns);
        }
    }
    Ok(())
}
