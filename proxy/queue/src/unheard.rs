//! unheard: work that goes on when nobody waits for it any more.
//!
//! A client may hang up between a write and its answer; what the write means for the books must still
//! be entered. The future runs on its caller's task, which costs nothing, and moves to the queue's own
//! runtime only if it is dropped in the middle.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::runtime::Handle;

type Work<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A future that is finished by `runtime` if it is dropped after it was begun.
pub(crate) struct Unheard<T: Send + 'static> {
    work: Option<Work<T>>,
    begun: bool,
    runtime: Handle,
}

impl<T: Send + 'static> Unheard<T> {
    pub(crate) fn new(runtime: Handle, work: impl Future<Output = T> + Send + 'static) -> Self {
        Self { work: Some(Box::pin(work)), begun: false, runtime }
    }
}

impl<T: Send + 'static> Future for Unheard<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        self.begun = true;
        let work = self.work.as_mut().expect("not polled after it was ready");
        let output = ready!(work.as_mut().poll(cx));
        self.work = None;
        Poll::Ready(output)
    }
}

impl<T: Send + 'static> Drop for Unheard<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take().filter(|_| self.begun) {
            self.runtime.spawn(work);
        }
    }
}
