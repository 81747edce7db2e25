//! resolve: names to addresses, kept for as long as their TTL says, the negative ones too.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use hickory_resolver::TokioResolver;
use hickory_resolver::net::{DnsError, NetError};
use policy::limits;
use tokio::time::timeout;

/// Looks names up by the system's configuration (`/etc/resolv.conf`, `/etc/hosts`). Made once: its
/// cache is shared.
pub struct Resolver {
    dns: TokioResolver,
}

/// The addresses of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// At least one.
    pub addresses: Vec<IpAddr>,
    /// When to ask again; at least [`limits::DNS_TTL_MIN`] away.
    pub valid_until: Instant,
}

/// Why a name has no address.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{name} has no address: {reason}")]
pub struct ResolveError {
    /// The name.
    pub name: String,
    /// What the resolver said.
    pub reason: String,
    /// When to ask again; at least [`limits::DNS_TTL_MIN`] away.
    pub retry_at: Instant,
}

impl Resolver {
    /// Reads the system's configuration.
    ///
    /// # Errors
    /// `/etc/resolv.conf` is unusable; the text says why.
    pub fn from_system() -> Result<Self, String> {
        let mut builder = TokioResolver::builder_tokio().map_err(|error| error.to_string())?;
        let options = builder.options_mut();
        options.timeout = limits::DNS_TIMEOUT;
        options.attempts = 1;
        options.cache_size = limits::DNS_CACHE_MAX as u64;
        options.positive_min_ttl = Some(limits::DNS_TTL_MIN);
        options.negative_min_ttl = Some(limits::DNS_TTL_MIN);
        options.negative_max_ttl = Some(limits::DNS_NEGATIVE_TTL_MAX);
        Ok(Self { dns: builder.build().map_err(|error| error.to_string())? })
    }

    /// The addresses of `name`, which may be one itself.
    ///
    /// # Errors
    /// [`ResolveError`] says why and when to ask again.
    pub async fn lookup(&self, name: &str) -> Result<Resolved, ResolveError> {
        if let Ok(address) = name.parse() {
            let valid_until = Instant::now() + Duration::from_secs(24 * 3600);
            return Ok(Resolved { addresses: vec![address], valid_until });
        }
        let soonest = Instant::now() + limits::DNS_TTL_MIN;
        let failed = |reason: String, retry_at| ResolveError { name: name.to_owned(), reason, retry_at };
        let answer = match timeout(limits::DNS_TIMEOUT, self.dns.lookup_ip(name)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => return Err(failed(reason(&error), soonest + negative_ttl(&error))),
            Err(_) => return Err(failed(format!("no answer within {:?}", limits::DNS_TIMEOUT), soonest)),
        };
        let addresses: Vec<IpAddr> = answer.iter().collect();
        if addresses.is_empty() {
            return Err(failed("the answer is empty".to_owned(), soonest));
        }
        Ok(Resolved { addresses, valid_until: answer.valid_until().max(soonest) })
    }
}

fn reason(error: &NetError) -> String {
    match error {
        NetError::Dns(DnsError::NoRecordsFound(_)) => "the name does not exist".to_owned(),
        error => error.to_string(),
    }
}

fn negative_ttl(error: &NetError) -> Duration {
    let seconds = match error {
        NetError::Dns(DnsError::NoRecordsFound(none)) => none.negative_ttl.unwrap_or(0),
        _ => 0,
    };
    Duration::from_secs(seconds.into()).min(limits::DNS_NEGATIVE_TTL_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_is_its_own_answer() {
        let resolver = Resolver::from_system().unwrap();
        let resolved = resolver.lookup("127.0.0.7").await.unwrap();
        assert_eq!(resolved.addresses, ["127.0.0.7".parse::<IpAddr>().unwrap()]);
    }

    #[tokio::test]
    async fn localhost_comes_from_the_hosts_file_and_a_nonsense_name_waits_at_least_a_second() {
        let resolver = Resolver::from_system().unwrap();
        assert!(resolver.lookup("localhost").await.unwrap().addresses.iter().all(IpAddr::is_loopback));
        let asked = Instant::now();
        let error = resolver.lookup("no-such-host.invalid").await.unwrap_err();
        assert!(error.retry_at >= asked + limits::DNS_TTL_MIN, "{error}");
    }
}
