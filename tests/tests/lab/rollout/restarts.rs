//! restarts: twenty servers stopped and started again, one after the other.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use lab::Pod;

use super::load::wait_until;
use super::orders::{Orders, Server};

const RESTARTS: u32 = 20;
/// Requests per second of all protocols together.
const RATE: u32 = 2000;
/// How far the slice is behind a pod's SIGTERM.
const SLICE_LAG: Duration = Duration::from_secs(1);
const END_PATIENCE: Duration = Duration::from_secs(20);

/// The application ends first, as it does when nothing holds it: for half of the second in which the
/// slice still names the pod, the sidecar refuses for it, and then the kernel for both. It ends well
/// (`stop.go`): Go's `Shutdown` alone loses requests that it has read but not begun, and a mesh cannot
/// mend that, because nobody can know that a POST it acknowledged did not run.
#[test]
fn a_rollout_of_twenty_restarts_loses_no_request_and_executes_no_post_twice() -> Result<()> {
    let mut orders = Orders::new()?;
    let load = orders.load(RATE)?;
    for server in &orders.servers {
        server.wait_for_work()?;
    }
    let mut slowest = [Duration::ZERO; 3];
    for restart in 0..RESTARTS {
        let began = Instant::now();
        let old = orders.servers.remove(0);
        let (pod, app, sidecar) = stop(&orders, old)?;
        let pod = if restart % 2 == 0 { pod } else { replace(&orders, pod, 4 + restart)? };
        let new = orders.start(pod)?;
        orders.servers.push(new);
        announce(&orders)?;
        for server in &orders.servers {
            server.wait_for_work()?;
        }
        for (slowest, took) in slowest.iter_mut().zip([began.elapsed(), app, sidecar]) {
            *slowest = took.max(*slowest);
        }
    }
    let [restart, app, sidecar] = slowest;
    eprintln!("at most: a restart {restart:.1?}, an application's stop {app:.1?}, a sidecar's {sidecar:.1?}");
    let outcome = load.finish()?;
    let (lost, retried) = (outcome.check(), orders.check_retries());
    outcome.check_orders(&orders.executed()?)?;
    lost.and(retried)?;
    outcome.check_offered()?;
    orders.check_was_refused()
}

/// Ends the application, then its sidecar; meanwhile the slice follows, a second late. Gives the pod, and
/// how long each took to end.
fn stop(orders: &Orders, mut old: Server) -> Result<(Pod, Duration, Duration)> {
    let began = Instant::now();
    let late = began + SLICE_LAG;
    old.app.terminate()?;
    let (app, sidecar) = std::thread::scope(|scope| {
        let slice = scope.spawn(|| {
            wait_until(late);
            announce(orders)
        });
        let ended = old.app.wait(END_PATIENCE)?;
        ensure!(ended.success(), "the application ended with {ended}");
        let (app, began) = (began.elapsed(), Instant::now());
        old.sidecar.process.terminate()?;
        let ended = old.sidecar.process.wait(Duration::from_secs(30))?;
        ensure!(ended.success(), "the sidecar ended with {ended}");
        let sidecar = began.elapsed();
        slice.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        Ok::<_, anyhow::Error>((app, sidecar))
    })?;
    Ok((old.pod, app, sidecar))
}

/// A new pod, with an address of its own, for one that goes.
fn replace(orders: &Orders, old: Pod, number: u32) -> Result<Pod> {
    orders.world.remove(&format!("pod-{}", old.name()))?;
    Orders::pod(&orders.world, number)
}

fn announce(orders: &Orders) -> Result<()> {
    let pods: Vec<&Pod> = orders.servers.iter().map(|server| &server.pod).collect();
    orders.announce(&pods)
}
