//! parts: what runs side by side until the program is told to stop.

use std::future::Future;
use std::time::Duration;

use anyhow::Context as _;
use futures_util::StreamExt as _;
use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::CancellationToken;

/// How long parts have to hand back what they hold, once told to stop: the Lease takes one request.
/// A pod is given 30 s by default.
const STOP_MAX: Duration = Duration::from_secs(5);

/// What runs side by side. None of it ends by itself: one that does ends the program.
pub(crate) struct Parts {
    running: FuturesUnordered<LocalBoxFuture<'static, (&'static str, anyhow::Result<()>)>>,
    stop: CancellationToken,
}

impl Parts {
    /// Without any; `stop` is what tells them.
    pub(crate) fn new(stop: CancellationToken) -> Self {
        Self { running: FuturesUnordered::new(), stop }
    }

    /// A part that is dropped where it stands when the program stops.
    pub(crate) fn add(&mut self, name: &'static str, part: impl Future<Output = ()> + 'static) {
        let stop = self.stop.clone();
        self.add_closing(name, async move {
            tokio::select! { () = part => {}, () = stop.cancelled() => {} }
            Ok(())
        });
    }

    /// A part that listens to the token itself, since it has something to do at the end.
    pub(crate) fn add_closing(
        &mut self,
        name: &'static str,
        part: impl Future<Output = anyhow::Result<()>> + 'static,
    ) {
        self.running.push(Box::pin(async move { (name, part.await) }));
    }

    /// Takes those of `other` in.
    pub(crate) fn join(&mut self, other: Self) {
        self.running.extend(other.running);
    }

    /// Runs them while `work` is done, which may take its time; `None` when the program is told to
    /// stop before that.
    ///
    /// # Errors
    /// Those of `work`, and when a part ends before it.
    pub(crate) async fn during<T>(
        &mut self,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<Option<T>> {
        tokio::select! {
            done = work => done.map(Some),
            Some((name, ended)) = self.running.next() => self.ended(name, ended).map(|()| None),
        }
    }

    /// Right when the program was told to stop.
    fn ended(&self, name: &str, ended: anyhow::Result<()>) -> anyhow::Result<()> {
        if self.stop.is_cancelled() {
            return Ok(());
        }
        ended.with_context(|| name.to_owned())?;
        anyhow::bail!("{name} ended")
    }

    /// Runs them all until the program is told to stop, and then until they have stopped.
    ///
    /// # Errors
    /// When a part ends before that; its name says which.
    pub(crate) async fn run(mut self) -> anyhow::Result<()> {
        tokio::select! {
            Some((name, ended)) = self.running.next() => self.ended(name, ended)?,
            () = self.stop.cancelled() => {}
        }
        let rest = async { while self.running.next().await.is_some() {} };
        if tokio::time::timeout(STOP_MAX, rest).await.is_err() {
            tracing::warn!("not everything stopped in {} s: left as it is", STOP_MAX.as_secs());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_part_that_ends_by_itself_ends_the_program_with_its_name() {
        let mut parts = Parts::new(CancellationToken::new());
        parts.add("the admin port", std::future::pending());
        parts.add("the manifests", async {});
        assert_eq!(parts.run().await.unwrap_err().to_string(), "the manifests ended");
    }

    #[tokio::test]
    async fn a_closing_part_is_waited_for() {
        let stop = CancellationToken::new();
        let mut parts = Parts::new(stop.clone());
        parts.add("the admin port", std::future::pending());
        let handed_back = Arc::new(AtomicBool::new(false));
        let (told, said) = (stop.clone(), handed_back.clone());
        parts.add_closing("the lease", async move {
            told.cancelled().await;
            tokio::task::yield_now().await;
            said.store(true, Ordering::Relaxed);
            Ok(())
        });
        stop.cancel();
        parts.run().await.unwrap();
        assert!(handed_back.load(Ordering::Relaxed));
    }
}
