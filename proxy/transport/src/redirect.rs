//! redirect: the kernel's rules that bring a pod's traffic to its sidecar, and the proof that they do.
//!
//! Two chains of type nat in one table of our own, so that they are written, replaced and taken
//! away whole and nobody else's rules are touched. What the sidecar itself sends (by its uid) and
//! what stays on loopback passes untouched. IPv4. The rules are handed to the program `nft`
//! (Debian package nftables) on its standard input.

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

const TABLE: &str = "table ip tidegate";

/// What to redirect, and what not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Where outgoing connections go.
    pub outbound_port: u16,
    /// Where incoming connections go.
    pub inbound_port: u16,
    /// Whose connections are left alone: the sidecar's own.
    pub proxy_uid: u32,
    /// Ports whose incoming connections are left alone: the sidecar's admin port among them.
    pub skip_inbound_ports: Vec<u16>,
    /// Ports to which outgoing connections are left alone.
    pub skip_outbound_ports: Vec<u16>,
}

/// Why there are no rules.
#[derive(Debug, thiserror::Error)]
pub enum RedirectError {
    /// No `nft`.
    #[error("the program nft was not found: install nftables (Debian package nftables) where this runs")]
    NoNft,
    /// No right to.
    #[error(
        "writing nftables rules is not permitted: run as uid 0 with the capability NET_ADMIN in this network \
         namespace (nft said: {0})"
    )]
    NotPermitted(String),
    /// The kernel cannot.
    #[error(
        "the kernel lacks what the rules need: load the modules nf_tables, nft_chain_nat, nft_redir and \
         nf_conntrack (nft said: {0})"
    )]
    Kernel(String),
    /// `nft` did not run.
    #[error("nft could not be run")]
    Run(#[source] io::Error),
    /// Written, but no connection comes.
    #[error(
        "the rules are written but a connection to {0} did not arrive at port {1}: is another program's \
         rule in front of them (nft list ruleset)?"
    )]
    NotEffective(SocketAddr, u16),
    /// The proof itself failed.
    #[error("the rules could not be tried: {0} (is the sidecar running already? then skip --self-check)")]
    SelfCheck(&'static str, #[source] io::Error),
}

fn ports(rule: &str, ports: &[u16]) -> String {
    if ports.is_empty() {
        return String::new();
    }
    let list: Vec<String> = ports.iter().map(u16::to_string).collect();
    format!("    tcp dport {{ {} }} {rule}\n", list.join(", "))
}

/// The rules as `nft` reads them; they replace what an earlier run wrote.
#[must_use]
pub fn script(rules: &Rules) -> String {
    let Rules { outbound_port, inbound_port, proxy_uid, skip_inbound_ports, skip_outbound_ports } = rules;
    let mut own = vec![*inbound_port];
    own.extend(skip_inbound_ports);
    own.sort_unstable();
    own.dedup();
    let skip_inbound = ports("return", &own);
    let skip_outbound = ports("return", skip_outbound_ports);
    format!(
        "{TABLE} {{}}\ndelete {TABLE}\n{TABLE} {{\n  chain inbound {{\n    type nat hook prerouting priority \
         dstnat; policy accept;\n    fib daddr type != local return\n{skip_inbound}    meta l4proto tcp \
         redirect to :{inbound_port}\n  }}\n  chain outbound {{\n    type nat hook output priority -100; \
         policy accept;\n    meta skuid {proxy_uid} return\n    ip daddr 127.0.0.0/8 \
         return\n{skip_outbound}    meta l4proto tcp redirect to :{outbound_port}\n  }}\n}}\n"
    )
}

/// Writes the rules.
///
/// # Errors
/// [`RedirectError`] says what is missing; nothing was written then.
pub fn apply(rules: &Rules) -> Result<(), RedirectError> {
    nft(&script(rules))
}

/// Takes the rules away; also when there are none.
///
/// # Errors
/// [`RedirectError`] says what is missing.
pub fn undo() -> Result<(), RedirectError> {
    nft(&format!("{TABLE} {{}}\ndelete {TABLE}\n"))
}

fn nft(script: &str) -> Result<(), RedirectError> {
    // Where a minimal image's PATH does not name it.
    let programs = ["nft", "/usr/sbin/nft", "/sbin/nft"];
    let spawned = programs.iter().find_map(|program| {
        let child = Command::new(program)
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        match child {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            other => Some(other),
        }
    });
    let mut child = spawned.ok_or(RedirectError::NoNft)?.map_err(RedirectError::Run)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(script.as_bytes()).map_err(RedirectError::Run)?;
    }
    let output = child.wait_with_output().map_err(RedirectError::Run)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().next().unwrap_or("nothing").trim().to_owned();
    Err(if said.contains("not permitted") || said.contains("Permission denied") {
        RedirectError::NotPermitted(said)
    } else {
        RedirectError::Kernel(said)
    })
}

/// Proves the rules: a connection to an address that does not exist (192.0.2.1, RFC 5737) must
/// arrive at the outbound port and still name that address.
///
/// # Errors
/// [`RedirectError::NotEffective`] when it does not arrive.
pub async fn self_check(rules: &Rules) -> Result<(), RedirectError> {
    let away: SocketAddr = ([192, 0, 2, 1], 1).into();
    let tell = |what| move |error| RedirectError::SelfCheck(what, error);
    let listener = TcpListener::bind(("127.0.0.1", rules.outbound_port))
        .await
        .map_err(tell("its outbound port cannot be bound"))?;
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))
        .map_err(tell("a socket cannot be opened"))?;
    socket.set_nonblocking(true).map_err(tell("a socket cannot be opened"))?;
    // In progress, or unreachable when there is no route: the wait below tells.
    let _ = socket.connect(&away.into());
    match tokio::time::timeout(Duration::from_secs(2), listener.accept()).await {
        Ok(Ok((tcp, _))) if crate::original_dst::original_dst(&tcp) == Some(away) => Ok(()),
        _ => Err(RedirectError::NotEffective(away, rules.outbound_port)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_script_leaves_the_proxy_loopback_and_skipped_ports_alone() {
        let rules = Rules {
            outbound_port: 4140,
            inbound_port: 4143,
            proxy_uid: 2102,
            skip_inbound_ports: vec![4191],
            skip_outbound_ports: vec![5432, 25],
        };
        let script = script(&rules);
        for line in [
            "meta skuid 2102 return",
            "ip daddr 127.0.0.0/8 return",
            "tcp dport { 4143, 4191 } return",
            "tcp dport { 5432, 25 } return",
            "meta l4proto tcp redirect to :4140",
            "meta l4proto tcp redirect to :4143",
        ] {
            assert!(script.contains(line), "{line:?} is missing in:\n{script}");
        }
        let none = Rules { skip_outbound_ports: Vec::new(), ..rules };
        assert!(!super::script(&none).contains("{  }"));
    }
}
