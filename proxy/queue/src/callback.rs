//! callback: whoever asked to be told of an end is told by a message of its own.
//!
//! It is stored in the same write as the end: there is no moment in which a message has ended and
//! nobody will be told.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use prost::Message as _;
use store::StoreError;
use store::message::{Change, Draft};

use crate::attempt::Opened;
use crate::deliver::{CallbackOf, Response};
use crate::message::{MessageState, Reason};
use crate::named::{CALLBACKS, Named, name_of};
use crate::panics;
use crate::stored::Head;
use crate::worker::Worker;

/// A message that tells a callback, and its queue.
pub(crate) type Callback = (Arc<Named>, Draft);

fn without_result(end: Change) -> Change {
    match end {
        Change::End { position, of, record, .. } => Change::End { position, of, record, result: None },
        Change::Bury { position, history, .. } => Change::Bury { position, history, result: None },
        other => other,
    }
}

impl Worker {
    /// An end and what tells of it, as one write.
    pub(crate) async fn write_end(&self, end: Change, callback: Option<Callback>) -> Result<(), StoreError> {
        let Some(callback) = callback else { return self.write_end_alone(end).await };
        self.enter(&callback);
        match self.write(vec![end.clone(), Change::Append(callback.1.clone())]).await {
            Err(StoreError::TooLarge { bytes, bytes_max }) => {
                let about = callback.0.name.as_ref();
                tracing::warn!(bytes, bytes_max, queue = about, "nobody is told of an end: it does not fit");
                self.withdraw(&callback);
                self.write_end_alone(end).await
            }
            other => other.map(drop),
        }
    }

    /// A response that never fits is left out: it is gone, as one that had to make room.
    async fn write_end_alone(&self, end: Change) -> Result<(), StoreError> {
        match self.write(vec![end.clone()]).await {
            Err(StoreError::TooLarge { bytes, bytes_max }) => {
                tracing::warn!(bytes, bytes_max, "a response is not kept: it does not fit");
                self.write(vec![without_result(end)]).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    /// A message that an end brings has room before it is written. What a caller was promised is not
    /// refused: it may go beyond the bounds.
    pub(crate) fn enter(&self, (named, draft): &Callback) {
        named.entered((draft.head.len() + draft.body.len()) as u64);
        self.shared.total.fetch_add(1, Ordering::SeqCst);
    }

    /// It was not written.
    pub(crate) fn withdraw(&self, (named, draft): &Callback) {
        named.left((draft.head.len() + draft.body.len()) as u64);
        self.shared.total.fetch_sub(1, Ordering::SeqCst);
    }

    /// The message that tells a callback.
    pub(crate) fn callback(
        &self,
        message: &Opened,
        attempts: u32,
        state: MessageState,
        reason: Option<Reason>,
        response: Option<&Response>,
    ) -> Option<Callback> {
        let callback = message.head.callback.as_deref()?;
        let queue = name_of(message.policy(), CALLBACKS);
        let known = self.shared.names.read().unwrap_or_else(PoisonError::into_inner);
        let named = known.get(queue.as_str()).cloned();
        let at = self.shared.clock.now();
        let of = CallbackOf {
            id: self.id(&message.head, message.position()),
            queue: &name_of(message.policy(), &message.settings.destination),
            policy: message.policy(),
            callback,
            owner: &message.head.owner,
            state,
            reason,
            response,
            attempts,
            enqueued_at: message.head.enqueued_at(),
            at,
        };
        let Some((named, call)) = named.zip(panics::caught(|| self.deliver.callback(&of)).flatten()) else {
            tracing::warn!(id = %of.id, callback, "nobody is told of the end of this message");
            return None;
        };
        let head = Head {
            enqueued_at: at.0,
            call: call.call,
            owner: message.head.owner.clone(),
            about: format!("callback of {}", of.id),
            destination: Some(call.destination.to_string()),
            holder: Some(self.shared.holder.to_bits()),
            ..Head::default()
        };
        let draft = Draft {
            queue: named.id,
            lane: None,
            priority: 3,
            due_at: None,
            head: head.encode_to_vec().into(),
            body: call.body,
            dedupe: None,
        };
        Some((named, draft))
    }
}
