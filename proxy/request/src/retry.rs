//! retry: whether there is another try, when, and by when all must be over.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, Method, header};
use policy::limits;
use policy::retry::RetryBudget;
use tokio::time::Instant;

pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// Slots the budget's window is cut into.
const SLOTS: usize = 10;

/// The share of requests that may be retries, over a sliding window (GEP-3388; the bookkeeping is
/// that of Finagle's `RetryBudget`, cut into slots of a tenth of the window).
pub(crate) struct Budget {
    policy: RetryBudget,
    /// Among whom the floor is shared; the ratio is of each one's own requests.
    workers: u32,
    state: Mutex<Window>,
}

struct Window {
    slots: [(u32, u32); SLOTS],
    at: usize,
    slot_ends: Instant,
}

impl Budget {
    pub(crate) fn new(policy: RetryBudget, workers: u32) -> Self {
        let slot_ends = Instant::now() + policy.interval / 10;
        Self {
            policy,
            workers: workers.max(1),
            state: Mutex::new(Window { slots: [(0, 0); SLOTS], at: 0, slot_ends }),
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Window) -> T) -> T {
        let mut window = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let slot = (self.policy.interval / 10).max(Duration::from_millis(1));
        let mut turned = 0;
        while window.slot_ends <= now && turned < SLOTS {
            window.at = (window.at + 1) % SLOTS;
            let at = window.at;
            window.slots[at] = (0, 0);
            window.slot_ends += slot;
            turned += 1;
        }
        if window.slot_ends <= now {
            window.slot_ends = now + slot;
        }
        act(&mut window)
    }

    /// A request came.
    pub(crate) fn deposit(&self) {
        self.with(|window| {
            let at = window.at;
            window.slots[at].0 += 1;
        });
    }

    /// Takes a retry, if one is left.
    pub(crate) fn withdraw(&self) -> bool {
        self.with(|window| {
            let (requests, retries) = window.slots.iter().fold((0u32, 0u32), |(a, b), (c, d)| (a + c, b + d));
            let seconds = self.policy.interval.as_secs_f64();
            let floor = f64::from(self.policy.min_per_second) * seconds / f64::from(self.workers);
            let allowed = f64::from(requests) * self.policy.ratio + floor;
            let left = f64::from(retries) + 1.0 <= allowed;
            if left {
                let at = window.at;
                window.slots[at].1 += 1;
            }
            left
        })
    }
}

/// The wait before retry number `retry` (from 1): doubled each time, with full jitter (AWS
/// Architecture Blog, "Exponential Backoff And Jitter").
pub(crate) fn backoff(retry: u32, shortest: Duration) -> Duration {
    let ceiling =
        shortest.saturating_mul(1 << retry.min(10).saturating_sub(1)).min(limits::RETRY_BACKOFF_MAX);
    ceiling.mul_f64(fastrand::f64())
}

/// How long a response asks to wait (RFC 9110 §10.2.3); only the seconds form is heeded.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Methods that may be repeated without asking (RFC 9110 §9.2.2).
pub(crate) fn is_idempotent(method: &Method) -> bool {
    matches!(
        *method,
        Method::GET | Method::HEAD | Method::PUT | Method::DELETE | Method::OPTIONS | Method::TRACE
    )
}

/// The deadline a gRPC client sends along (gRPC over HTTP/2, `Timeout`): at most 8 digits and a
/// unit.
pub(crate) fn grpc_timeout(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(GRPC_TIMEOUT)?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let count: u64 = digits.parse().ok()?;
    Some(match unit {
        "H" => Duration::from_secs(count * 3600),
        "M" => Duration::from_secs(count * 60),
        "S" => Duration::from_secs(count),
        "m" => Duration::from_millis(count),
        "u" => Duration::from_micros(count),
        "n" => Duration::from_nanos(count),
        _ => return None,
    })
}

/// A seed for what must differ between processes.
pub(crate) fn seed() -> u64 {
    let nanos =
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    fastrand::u64(..) ^ u64::from(nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_budget_is_a_share_of_the_window_and_a_floor() {
        let budget =
            Budget::new(RetryBudget { ratio: 0.2, interval: Duration::from_secs(10), min_per_second: 2 }, 2);
        for _ in 0..100 {
            budget.deposit();
        }
        let taken = (0..100).filter(|_| budget.withdraw()).count();
        assert_eq!(taken, 30, "20 % of 100 and 10 for the floor");
        tokio::time::advance(Duration::from_secs(30)).await;
        let taken = (0..100).filter(|_| budget.withdraw()).count();
        assert_eq!(taken, 10, "the window has passed: the floor alone is left");
    }

    #[test]
    fn grpc_timeouts_are_read_as_the_protocol_writes_them() {
        let read = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_TIMEOUT, text.parse().unwrap());
            grpc_timeout(&headers)
        };
        assert_eq!(read("200m"), Some(Duration::from_millis(200)));
        assert_eq!(read("1H"), Some(Duration::from_secs(3600)));
        for bad in ["", "m", "123456789S", "5x", "-1S"] {
            assert_eq!(read(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn the_wait_grows_to_its_ceiling_and_never_beyond() {
        for retry in 1..40 {
            assert!(backoff(retry, limits::RETRY_BACKOFF_MIN) <= limits::RETRY_BACKOFF_MAX);
        }
    }
}
