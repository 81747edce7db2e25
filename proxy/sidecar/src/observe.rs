//! observe: the access log and traces; both off unless asked for.
//!
//! A request that nobody observes costs nothing here. The access log is a line of JSON, handed to a
//! thread of its own through a bounded queue; when that is full lines are dropped and counted, and
//! requests never wait. Spans follow OpenTelemetry's HTTP semantic conventions and W3C Trace
//! Context; they leave by OTLP from the control thread.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{
    Link, Span as _, SpanKind, Status, TraceContextExt as _, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::WithExportConfig as _;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use policy::limits;
use prometheus_client::metrics::counter::Counter;
use request::body::{Body, End};
use request::forward::Way;
use request::metrics::Direction;
use serde::Serialize;

use crate::config::Config;
use crate::telemetry::Metrics;

/// Who looks at requests.
#[derive(Clone, Default)]
pub(crate) struct Observer {
    log: Option<AccessLog>,
    tracer: Option<SdkTracer>,
}

#[derive(Clone)]
struct AccessLog {
    lines: SyncSender<Box<Line>>,
    dropped: Counter,
}

/// One line of the access log.
#[derive(Debug, Serialize)]
struct Line {
    time: String,
    direction: &'static str,
    method: String,
    authority: String,
    path: String,
    version: String,
    /// Inbound: whom the client's certificate names.
    client: Option<String>,
    status: u16,
    grpc_status: Option<u8>,
    bytes: u64,
    duration_ms: f64,
    complete: bool,
    route: Option<String>,
    backend: Option<String>,
    endpoint: Option<String>,
    attempts: Option<u32>,
    proxy_status: Option<String>,
}

/// A request somebody looks at.
pub(crate) struct Observation {
    line: Option<Box<Line>>,
    log: Option<AccessLog>,
    span: Option<opentelemetry_sdk::trace::Span>,
}

impl Observer {
    /// As the command line says. Call it on the control thread: the exporter lives there.
    pub(crate) fn new(
        config: &Config,
        metrics: &Metrics,
    ) -> anyhow::Result<(Self, Option<SdkTracerProvider>)> {
        let dropped = Counter::default();
        metrics.with(|registry| {
            registry.register(
                "tidegate_sidecar_access_log_dropped_lines",
                "Lines of the access log that were dropped because its reader is slow",
                dropped.clone(),
            );
        });
        let log = if config.access_log { Some(AccessLog { lines: write_lines()?, dropped }) } else { None };
        let provider = match &config.otlp_endpoint {
            None => None,
            Some(endpoint) => Some(provider(endpoint, config)?),
        };
        let tracer = provider.as_ref().map(|provider| provider.tracer("tidegate"));
        Ok((Self { log, tracer }, provider))
    }

    /// Whether anybody looks.
    pub(crate) fn is_on(&self) -> bool {
        self.log.is_some() || self.tracer.is_some()
    }

    /// Looks at a request as it comes, and puts the trace's context into it.
    pub(crate) fn begin<B>(
        &self,
        direction: Direction,
        client: Option<&str>,
        request: &mut Request<B>,
    ) -> Option<Observation> {
        self.observe(direction, Parent::Above, client, request)
    }

    /// Looks at a message that goes out: its span is linked to the one it was taken in under, which
    /// has long ended.
    pub(crate) fn begin_delivery<B>(&self, request: &mut Request<B>) -> Option<Observation> {
        self.observe(Direction::outbound, Parent::Linked, None, request)
    }

    fn observe<B>(
        &self,
        direction: Direction,
        parent: Parent,
        client: Option<&str>,
        request: &mut Request<B>,
    ) -> Option<Observation> {
        if !self.is_on() {
            return None;
        }
        let name = match direction {
            Direction::outbound => "outbound",
            Direction::inbound => "inbound",
        };
        let line = self.log.as_ref().map(|_| Box::new(Line::new(name, client, request)));
        let span = self.tracer.as_ref().map(|tracer| span(tracer, direction, parent, request));
        Some(Observation { line, log: self.log.clone(), span })
    }
}

impl Observation {
    /// Looks at the response, and at its end.
    pub(crate) fn end(self, response: &mut Response<Body>) {
        let status = response.status().as_u16();
        let Self { mut line, log, mut span } = self;
        let proxy_status = response.headers().get("proxy-status").and_then(|v| v.to_str().ok());
        if let Some(line) = &mut line {
            line.proxy_status = proxy_status.map(str::to_owned);
        }
        if let Some(span) = &mut span {
            span.set_attribute(KeyValue::new("http.response.status_code", i64::from(status)));
            if let Some(told) = proxy_status {
                span.set_attribute(KeyValue::new("error.type", told.to_owned()));
            }
        }
        if let Some(way) = response.extensions_mut().remove::<Way>() {
            if let Some(line) = &mut line {
                line.route = Some(format!("{}/{}/{}", way.rule.namespace, way.rule.route, way.rule.rule));
                line.backend = Some(way.backend.clone());
                line.endpoint = Some(way.endpoint.to_string());
                line.attempts = Some(way.attempts);
            }
            if let Some(span) = &mut span {
                span.set_attribute(KeyValue::new("server.address", way.backend));
                span.set_attribute(KeyValue::new("network.peer.address", way.endpoint.ip().to_string()));
                let resent = i64::from(way.attempts.saturating_sub(1));
                span.set_attribute(KeyValue::new("http.request.resend_count", resent));
            }
        }
        response.body_mut().on_end(Box::new(move |end: &End| {
            if let (Some(mut line), Some(log)) = (line, log) {
                line.status = status;
                line.grpc_status = end.grpc_status;
                line.bytes = end.bytes;
                line.duration_ms = end.duration.as_secs_f64() * 1000.0;
                line.complete = end.complete;
                log.write(line);
            }
            if let Some(mut span) = span {
                if let Some(grpc) = end.grpc_status {
                    span.set_attribute(KeyValue::new("rpc.grpc.status_code", i64::from(grpc)));
                }
                if status >= 500 || !end.complete {
                    span.set_status(Status::error(""));
                }
                span.end();
            }
        }));
    }
}

impl Line {
    fn new<B>(direction: &'static str, client: Option<&str>, request: &Request<B>) -> Self {
        let host = request.headers().get(http::header::HOST).and_then(|host| host.to_str().ok());
        let authority = request.uri().authority().map(http::uri::Authority::as_str).or(host);
        Self {
            time: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            direction,
            method: request.method().to_string(),
            authority: authority.unwrap_or("").to_owned(),
            path: request.uri().path().to_owned(),
            version: format!("{:?}", request.version()),
            client: client.map(str::to_owned),
            status: 0,
            grpc_status: None,
            bytes: 0,
            duration_ms: 0.0,
            complete: false,
            route: None,
            backend: None,
            endpoint: None,
            attempts: None,
            proxy_status: None,
        }
    }
}

impl AccessLog {
    fn write(&self, line: Box<Line>) {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = self.lines.try_send(line) {
            self.dropped.inc();
        }
    }
}

fn write_lines() -> std::io::Result<SyncSender<Box<Line>>> {
    let (sender, lines) = sync_channel::<Box<Line>>(limits::ACCESS_LOG_QUEUE);
    std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
        while let Ok(line) = lines.recv() {
            let Ok(mut text) = serde_json::to_vec(&line) else { continue };
            text.push(b'\n');
            if std::io::stdout().write_all(&text).is_err() {
                // Nobody reads: from here on lines are dropped and counted.
                return;
            }
        }
    })?;
    Ok(sender)
}

fn provider(endpoint: &str, config: &Config) -> anyhow::Result<SdkTracerProvider> {
    let exporter =
        opentelemetry_otlp::SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?;
    let resource = Resource::builder()
        .with_service_name(config.service_account.to_string())
        .with_attributes([
            KeyValue::new("service.namespace", config.namespace.to_string()),
            KeyValue::new("k8s.namespace.name", config.namespace.to_string()),
            KeyValue::new("k8s.pod.name", config.pod.clone()),
        ])
        .build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// How a span stands to the one the request names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Parent {
    Above,
    Linked,
}

/// Begins a span for a request, and names it in the request.
fn span<B>(
    tracer: &SdkTracer,
    direction: Direction,
    parent: Parent,
    request: &mut Request<B>,
) -> opentelemetry_sdk::trace::Span {
    let propagator = TraceContextPropagator::new();
    let named = propagator.extract(&Headers(request.headers()));
    let kind = match direction {
        Direction::outbound => SpanKind::Client,
        Direction::inbound => SpanKind::Server,
    };
    let builder = tracer.span_builder(request.method().to_string()).with_kind(kind).with_attributes([
        KeyValue::new("http.request.method", request.method().to_string()),
        KeyValue::new("url.path", request.uri().path().to_owned()),
    ]);
    let span = match parent {
        Parent::Above => builder.start_with_context(tracer, &named),
        Parent::Linked => {
            let links = vec![Link::with_context(named.span().span_context().clone())];
            builder.with_links(links).start_with_context(tracer, &Context::new())
        }
    };
    let context = Context::new().with_remote_span_context(span.span_context().clone());
    propagator.inject_context(&context, &mut HeadersMut(request.headers_mut()));
    span
}

struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }
    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct HeadersMut<'a>(&'a mut HeaderMap);

impl Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(key), HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

/// Kept by workers so that the observer is cloned once per connection and not per request.
pub(crate) type SharedObserver = Arc<Observer>;
