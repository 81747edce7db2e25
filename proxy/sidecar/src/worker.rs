//! worker: a thread that carries traffic, with listeners, pools and balancers of its own.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use policy::limits;
use request::backend::Shared;
use request::drain::Drain;
use request::metrics::Direction;
use tokio::sync::{mpsc, oneshot};
use transport::listen::{Accepted, ListenConfig, Listener};
use transport::resolve::Resolver;
use transport::tls::Tls;

use crate::admit::Admit;
use crate::authorize::Defaults;
use crate::carry::Carrier;
use crate::config::Config;
use crate::deliver::Job;
use crate::discovery::Discovery;
use crate::feed::FeedHandle;
use crate::inbound::Inbound;
use crate::messages::Messages;
use crate::observe::SharedObserver;
use crate::outbound::Outbound;
use crate::telemetry::Metrics;

/// How often idle connections and destinations are looked for.
const SWEEP: Duration = Duration::from_secs(5);

/// What a worker is made of.
#[derive(Clone)]
pub(crate) struct Parts {
    pub(crate) config: Config,
    pub(crate) feed: FeedHandle,
    pub(crate) tls: Tls,
    pub(crate) shared: Shared,
    pub(crate) resolver: Arc<Resolver>,
    pub(crate) drain: Drain,
    pub(crate) metrics: Metrics,
    pub(crate) observer: SharedObserver,
    pub(crate) cluster_domain: policy::name::Domain,
    pub(crate) admit: Arc<Admit>,
    pub(crate) messages: Arc<Messages>,
}

/// Where a worker listens.
pub(crate) struct Bound {
    pub(crate) outbound: SocketAddr,
    pub(crate) inbound: SocketAddr,
}

/// Starts worker number `number`; the answer comes when it listens, or cannot.
pub(crate) fn start(
    parts: Parts,
    number: u32,
    jobs: mpsc::Receiver<Job>,
) -> std::io::Result<oneshot::Receiver<Result<Bound, String>>> {
    let (tell, told) = oneshot::channel();
    std::thread::Builder::new().name(format!("worker-{number}")).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                let _ = tell.send(Err(error.to_string()));
                return;
            }
        };
        runtime.block_on(run(parts, jobs, tell));
    })?;
    Ok(told)
}

fn bind(parts: &Parts, direction: Direction) -> Result<Listener, String> {
    let (flag, address) = match direction {
        Direction::outbound => ("--outbound", parts.config.outbound),
        Direction::inbound => ("--inbound", parts.config.inbound),
    };
    let workers = parts.config.workers;
    let config = ListenConfig {
        address,
        connections_max: parts.config.connections_max.div_ceil(workers as usize),
        reuse_port: workers > 1,
    };
    Listener::bind(&config, parts.metrics.listener(direction))
        .map_err(|error| format!("{flag} {address} cannot be listened on: {error}"))
}

async fn run(parts: Parts, jobs: mpsc::Receiver<Job>, tell: oneshot::Sender<Result<Bound, String>>) {
    let listeners = bind(&parts, Direction::outbound)
        .and_then(|outbound| Ok((outbound, bind(&parts, Direction::inbound)?)));
    let (out_listener, in_listener) = match listeners {
        Ok(listeners) => listeners,
        Err(error) => {
            let _ = tell.send(Err(error));
            return;
        }
    };
    let address = |listener: &Listener, flag| listener.local_addr().unwrap_or(flag);
    let bound = Bound {
        outbound: address(&out_listener, parts.config.outbound),
        inbound: address(&in_listener, parts.config.inbound),
    };
    let discovery = Discovery::new(parts.feed.clone(), parts.shared.clone(), parts.resolver.clone());
    let carrier = Carrier::new(parts.metrics.clone(), parts.drain.clone());
    let outbound = Arc::new(Outbound {
        discovery: discovery.clone(),
        shared: parts.shared.clone(),
        drain: parts.drain.clone(),
        carrier: carrier.clone(),
        observer: parts.observer.clone(),
        namespace: parts.config.namespace.clone(),
        cluster_domain: parts.cluster_domain.clone(),
        own: vec![bound.outbound, bound.inbound],
        admit: parts.admit.clone(),
        messages: parts.messages.clone(),
    });
    let inbound = Arc::new(Inbound {
        snapshot: parts.feed.snapshot(),
        tls: parts.tls.clone(),
        shared: parts.shared.clone(),
        drain: parts.drain.clone(),
        carrier,
        metrics: parts.metrics.clone(),
        observer: parts.observer.clone(),
        defaults: Defaults { access: parts.config.inbound_default.into(), strict: parts.config.strict },
        application: parts.config.application,
        own_ports: vec![bound.outbound.port(), bound.inbound.port(), parts.config.admin.port()],
        locals: Mutex::default(),
        messages: parts.messages.clone(),
    });
    let _ = tell.send(Ok(bound));
    tokio::join!(
        discovery.clone().follow(),
        sweep(discovery, inbound.clone()),
        outbound.clone().deliveries(jobs),
        accept(out_listener, parts.drain.clone(), |accepted| {
            let outbound = outbound.clone();
            async move { outbound.connection(accepted).await }
        }),
        accept(in_listener, parts.drain.clone(), |accepted| {
            let inbound = inbound.clone();
            async move { inbound.connection(accepted).await }
        }),
    );
}

/// Takes connections in, also during a drain: until nobody sends any more, refusing is losing.
async fn accept<F>(listener: Listener, drain: Drain, serve: impl Fn(Accepted) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let accepting = async {
        loop {
            drain.spawn(serve(listener.accept().await));
        }
    };
    drain.door(accepting).await;
}

async fn sweep(discovery: Arc<Discovery>, inbound: Arc<Inbound>) {
    let mut tick = tokio::time::interval(SWEEP.min(limits::POOL_IDLE));
    loop {
        tick.tick().await;
        discovery.sweep().await;
        inbound.sweep();
    }
}
