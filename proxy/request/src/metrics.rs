//! metrics: what this room counts, with bounded labels.
//!
//! A series belongs to what it describes: a rule and backend, or an endpoint. It is looked up once,
//! when that comes into a snapshot, and dropped with it, so the way of a request touches counters
//! alone. At most [`limits::METRIC_SERIES_MAX`] series of a kind exist; further ones are counted
//! together under `other`.

mod endpoint;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::Hash;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::Duration;

use policy::limits;
use policy::route::{RouteKind, RuleName};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

pub(crate) use self::endpoint::{AttemptResult, EndpointSeries};
use self::endpoint::{EndpointLabels, EndpointResultLabels};

/// A label's value, shared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Text(pub Arc<str>);

impl EncodeLabelValue for Text {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> std::fmt::Result {
        encoder.write_str(&self.0)
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

/// Which way requests go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelValue)]
#[allow(non_camel_case_types, reason = "the names are the label's values")]
pub enum Direction {
    /// From the workload beside the proxy.
    outbound,
    /// To the workload beside the proxy.
    inbound,
}

/// A rule and one of its backends.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabels {
    /// Which way.
    pub direction: Direction,
    /// `HTTPRoute`, `GRPCRoute` or `default`.
    pub route_kind: Text,
    /// The route's namespace.
    pub route_namespace: Text,
    /// The route's name.
    pub route: Text,
    /// The rule's name or index.
    pub rule: Text,
    /// The backend; inbound, the application's port.
    pub backend: Text,
}

impl RouteLabels {
    /// The labels of `name` and `backend`.
    #[must_use]
    pub fn new(direction: Direction, name: &RuleName, backend: &str) -> Self {
        let kind = match name.kind {
            RouteKind::Http => "HTTPRoute",
            RouteKind::Grpc => "GRPCRoute",
            RouteKind::Default => "default",
        };
        Self {
            direction,
            route_kind: kind.into(),
            route_namespace: Text(name.namespace.clone()),
            route: Text(name.route.clone()),
            rule: Text(name.rule.clone()),
            backend: backend.into(),
        }
    }

    fn other(&self) -> Self {
        let other = || Text::from("other");
        Self {
            direction: self.direction,
            route_kind: other(),
            route_namespace: other(),
            route: other(),
            rule: other(),
            backend: other(),
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResponseLabels {
    #[prometheus(flatten)]
    route: RouteLabels,
    status: &'static str,
    grpc_status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ErrorLabels {
    direction: Direction,
    error: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RetryLabels {
    reason: &'static str,
}

/// Why a request was tried again, or was not although it could have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RetryReason {
    Connect,
    Refused,
    Broken,
    Response,
    BudgetExhausted,
}

/// The counters of this room.
#[derive(Clone)]
pub struct Metrics(Arc<Inner>);

struct Inner {
    responses: Family<ResponseLabels, Counter>,
    durations: Family<RouteLabels, Histogram, fn() -> Histogram>,
    endpoints: Family<EndpointResultLabels, Counter>,
    in_flight: Family<EndpointLabels, Gauge>,
    errors: Family<ErrorLabels, Counter>,
    retries: Family<RetryLabels, Counter>,
    dropped: Counter,
    routes_known: Mutex<HashMap<RouteLabels, Weak<Series>>>,
    endpoints_known: Mutex<HashMap<EndpointLabels, Weak<EndpointSeries>>>,
}

fn histogram() -> Histogram {
    // Seconds, by factors of about two: a hop costs microseconds, a slow report minutes.
    Histogram::new([
        0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0,
    ])
}

impl Metrics {
    /// Registers everything under `registry`.
    #[must_use]
    pub fn new(registry: &mut Registry) -> Self {
        let inner = Inner {
            responses: Family::default(),
            durations: Family::new_with_constructor(histogram),
            endpoints: Family::default(),
            in_flight: Family::default(),
            errors: Family::default(),
            retries: Family::default(),
            dropped: Counter::default(),
            routes_known: Mutex::default(),
            endpoints_known: Mutex::default(),
        };
        registry.register(
            "tidegate_request_responses",
            "Responses by route, backend and status",
            inner.responses.clone(),
        );
        registry.register(
            "tidegate_request_duration_seconds",
            "From a request's head to the end of its response",
            inner.durations.clone(),
        );
        registry.register(
            "tidegate_request_endpoint_attempts",
            "Attempts by endpoint and result",
            inner.endpoints.clone(),
        );
        registry.register(
            "tidegate_request_endpoint_in_flight",
            "Requests on their way by endpoint",
            inner.in_flight.clone(),
        );
        registry.register(
            "tidegate_request_errors",
            "Responses made by this proxy, by the error token of RFC 9209",
            inner.errors.clone(),
        );
        registry.register("tidegate_request_retries", "Further attempts by reason", inner.retries.clone());
        registry.register(
            "tidegate_request_series_dropped",
            "Label sets counted under other because too many exist",
            inner.dropped.clone(),
        );
        Self(Arc::new(inner))
    }

    /// The series of a rule and backend.
    #[must_use]
    pub fn series(&self, labels: RouteLabels) -> Arc<Series> {
        let mut known = self.0.routes_known.lock().unwrap_or_else(PoisonError::into_inner);
        let labels = bounded(&known, labels, RouteLabels::other, &self.0.dropped);
        if let Some(series) = known.get(&labels).and_then(Weak::upgrade) {
            return series;
        }
        let series = Arc::new(Series {
            labels: labels.clone(),
            metrics: self.clone(),
            responses: Default::default(),
            duration: OnceLock::new(),
        });
        known.insert(labels, Arc::downgrade(&series));
        series
    }

    pub(crate) fn endpoint(
        &self,
        backend: &str,
        endpoint: &policy::endpoint::Endpoint,
    ) -> Arc<EndpointSeries> {
        let labels = EndpointLabels {
            backend: backend.into(),
            endpoint: endpoint.address.to_string().as_str().into(),
            pod: Text(endpoint.pod.clone()),
        };
        let mut known = self.0.endpoints_known.lock().unwrap_or_else(PoisonError::into_inner);
        let other = |_: &EndpointLabels| EndpointLabels {
            backend: "other".into(),
            endpoint: "other".into(),
            pod: "other".into(),
        };
        let labels = bounded(&known, labels, other, &self.0.dropped);
        if let Some(series) = known.get(&labels).and_then(Weak::upgrade) {
            return series;
        }
        let series = Arc::new(EndpointSeries {
            labels: labels.clone(),
            metrics: self.clone(),
            results: Default::default(),
            in_flight: self.0.in_flight.get_or_create(&labels).clone(),
        });
        known.insert(labels, Arc::downgrade(&series));
        series
    }

    /// Counts a response made here.
    pub fn error(&self, direction: Direction, error: &'static str) {
        self.0.errors.get_or_create(&ErrorLabels { direction, error }).inc();
    }

    pub(crate) fn retry(&self, reason: RetryReason) {
        let reason = match reason {
            RetryReason::Connect => "connect",
            RetryReason::Refused => "refused",
            RetryReason::Broken => "broken",
            RetryReason::Response => "response",
            RetryReason::BudgetExhausted => "budget_exhausted",
        };
        self.0.retries.get_or_create(&RetryLabels { reason }).inc();
    }
}

fn bounded<L: Eq + Hash + Clone, S>(
    known: &HashMap<L, Weak<S>>,
    labels: L,
    other: impl Fn(&L) -> L,
    dropped: &Counter,
) -> L {
    if known.len() < limits::METRIC_SERIES_MAX || known.contains_key(&labels) {
        return labels;
    }
    dropped.inc();
    other(&labels)
}

/// The counters of one rule and backend.
pub struct Series {
    labels: RouteLabels,
    metrics: Metrics,
    /// By status class, then, for gRPC with HTTP status 200, by gRPC status.
    responses: [OnceLock<Counter>; 24],
    duration: OnceLock<Histogram>,
}

const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
const GRPC: [&str; 18] =
    ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10", "11", "12", "13", "14", "15", "16", "unknown"];

impl Series {
    /// Counts a response of this proxy's own doing.
    pub(crate) fn error(&self, error: &'static str) {
        self.metrics.error(self.labels.direction, error);
    }

    /// Counts a response that ended. `grpc_status`: `None` unless it is gRPC, where `Some(None)` is
    /// one that ended without a status.
    pub fn record(&self, status: u16, grpc_status: Option<Option<u8>>, duration: Duration) {
        let class = usize::from(status / 100).min(5);
        let (at, grpc) = match grpc_status {
            None => (Some(class), ""),
            Some(grpc) => {
                let grpc = grpc.map_or(17, |grpc| usize::from(grpc).min(17));
                // gRPC has status 200; another one comes from something between, seldom.
                ((status == 200).then_some(6 + grpc), GRPC[grpc])
            }
        };
        let counter = || {
            let labels =
                ResponseLabels { route: self.labels.clone(), status: CLASSES[class], grpc_status: grpc };
            self.metrics.0.responses.get_or_create(&labels).clone()
        };
        match at {
            Some(at) => self.responses[at].get_or_init(counter).inc(),
            None => counter().inc(),
        };
        let duration_of = || self.metrics.0.durations.get_or_create(&self.labels).clone();
        self.duration.get_or_init(duration_of).observe(duration.as_secs_f64());
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        let inner = &self.metrics.0;
        let mut known = inner.routes_known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(&self.labels).is_some_and(|weak| weak.strong_count() > 0) {
            return;
        }
        known.remove(&self.labels);
        inner.durations.remove(&self.labels);
        for status in CLASSES {
            for grpc_status in GRPC.into_iter().chain([""]) {
                let labels = ResponseLabels { route: self.labels.clone(), status, grpc_status };
                inner.responses.remove(&labels);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(route: &str) -> RouteLabels {
        let name = RuleName {
            kind: RouteKind::Http,
            namespace: "shop".into(),
            route: route.into(),
            rule: "0".into(),
        };
        RouteLabels::new(Direction::outbound, &name, "orders.shop.svc:80")
    }

    fn text(registry: &Registry) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn a_series_is_shared_while_somebody_uses_it_and_gone_afterwards() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let (one, two) = (metrics.series(labels("a")), metrics.series(labels("a")));
        one.record(200, None, Duration::from_millis(1));
        drop(one);
        two.record(200, None, Duration::from_millis(1));
        assert!(
            text(&registry)
                .contains("rule=\"0\",backend=\"orders.shop.svc:80\",status=\"2xx\",grpc_status=\"\"} 2")
        );
        drop(two);
        assert!(!text(&registry).contains("orders.shop"));
    }

    #[test]
    fn a_grpc_response_counts_in_the_class_of_its_own_status_whichever_came_first() {
        for order in [[200, 502], [502, 200]] {
            let mut registry = Registry::default();
            let series = Metrics::new(&mut registry).series(labels("a"));
            for status in order {
                series.record(status, Some(None), Duration::ZERO);
            }
            for class in ["2xx", "5xx"] {
                let line = format!("status=\"{class}\",grpc_status=\"unknown\"}} 1");
                assert!(text(&registry).contains(&line), "{order:?}: {}", text(&registry));
            }
        }
    }

    #[test]
    fn label_sets_beyond_the_bound_are_counted_together() {
        let mut registry = Registry::default();
        let metrics = Metrics::new(&mut registry);
        let kept: Vec<_> =
            (0..limits::METRIC_SERIES_MAX + 5).map(|i| metrics.series(labels(&i.to_string()))).collect();
        for series in &kept {
            series.record(200, Some(Some(14)), Duration::ZERO);
        }
        let text = text(&registry);
        assert!(text.contains(
            "route=\"other\",rule=\"other\",backend=\"other\",status=\"2xx\",grpc_status=\"14\"} 5"
        ));
        assert!(text.contains("tidegate_request_series_dropped_total 5"));
    }
}
