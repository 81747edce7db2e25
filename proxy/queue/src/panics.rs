//! panics: a step that panics ends alone, and whoever waits for it hears so.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// What `step` gives; `None` if it panicked. The panic itself is told by the process's hook.
pub(crate) fn caught<T>(step: impl FnOnce() -> T) -> Option<T> {
    // Every borrow ends with the unwinding.
    catch_unwind(AssertUnwindSafe(step)).ok()
}

/// Whether `steps` ended, rather than panicked.
pub(crate) async fn ended(steps: impl Future<Output = ()>) -> bool {
    let mut steps = pin!(steps);
    poll_fn(|cx| match caught(|| steps.as_mut().poll(cx)) {
        Some(Poll::Ready(())) => Poll::Ready(true),
        Some(Poll::Pending) => Poll::Pending,
        None => Poll::Ready(false),
    })
    .await
}
