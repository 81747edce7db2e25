//! sink: a dead letter whose policy names a sink is sent on to it.
//!
//! What is sent is a message of its own, in one queue for each policy, stored in the same write as the end
//! of the one that died: there is no moment in which it is in neither or in both. It goes where its policy
//! says now, so that a sink that was misspelled can be put right. What the sink refuses is buried in the
//! dead letter of that queue and stays there: nothing is sunk twice.

use std::sync::Arc;

use policy::queue::AsyncPolicy;
use prost::Message as _;
use store::StoreError;
use store::message::{Change, Draft};

use crate::attempt::Opened;
use crate::callback::Callback;
use crate::deliver::{Response, SunkOf};
use crate::message::Reason;
use crate::named::{Named, SINK, name_of, sink_policy};
use crate::panics;
use crate::stored::{Head, Settings};
use crate::worker::Worker;

impl Opened {
    /// Where it goes: a dead letter to the sink its policy names now, if it still names one.
    pub(crate) fn destination(&self) -> Arc<str> {
        let sink = self.policy().delivery.sink.as_ref().filter(|_| self.settings.is_sink());
        match (sink, &self.head.destination) {
            (Some(sink), _) => sink.service.to_string().into(),
            (None, Some(own)) => own.as_str().into(),
            (None, None) => self.settings.destination.clone(),
        }
    }
}

impl Worker {
    /// Sends a message that died on to its policy's sink: `end`, `callback` and what is sent are one write.
    /// `false`: it has no sink, or the store has no room for another message, so the built-in dead letter
    /// takes it.
    pub(crate) async fn sink(
        &self,
        message: &Opened,
        (reason, response): (Reason, Option<&Response>),
        end: Change,
        callback: Option<&Callback>,
    ) -> Result<bool, StoreError> {
        let Some(sunk) = self.sunk(message, reason, response).await else { return Ok(false) };
        callback.into_iter().for_each(|callback| self.enter(callback));
        let brought: Vec<&Callback> = callback.into_iter().chain([&sunk]).collect();
        let appends = brought.iter().map(|(_, draft)| Change::Append(draft.clone()));
        let changes = [end].into_iter().chain(appends).collect();
        match self.shared.store.write(changes).await {
            Ok(_) => {
                if sunk.0.full() {
                    self.look_at_dead(&sunk.0);
                }
                Ok(true)
            }
            Err(error @ (StoreError::Full(_) | StoreError::TooLarge { .. })) => {
                tracing::warn!(%error, queue = %sunk.0.name, "a message stays in the built-in dead letter");
                brought.into_iter().for_each(|brought| self.withdraw(brought));
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The message that is sent, and its queue, which has room for it already.
    async fn sunk(&self, message: &Opened, reason: Reason, response: Option<&Response>) -> Option<Callback> {
        let policy = message.policy();
        let sink = policy.delivery.sink.as_ref().filter(|_| message.settings.sinks())?;
        let id = self.id(&message.head, message.position());
        let last = message.history.attempts().pop();
        let of = SunkOf { id, sink, call: &message.head.call, reason, last: last.as_ref(), response };
        let Some(call) = panics::caught(|| self.deliver.sunk(&of)).flatten() else {
            tracing::warn!(%id, "a message stays in the built-in dead letter: it is no call");
            return None;
        };
        let head = Head {
            enqueued_at: self.shared.clock.now().0,
            call,
            owner: message.head.owner.clone(),
            about: format!("{} (dead letter {id})", message.head.about),
            destination: Some(sink.service.to_string()),
            holder: Some(self.shared.holder.to_bits()),
            ..Head::default()
        };
        let (head, body) = (head.encode_to_vec().into(), message.loaded.body.clone());
        // While this is held no queue is removed, and one that has a message is not.
        let _one = self.setting_up.lock().await;
        let named = self.sink_queue(policy).await?;
        let priority = message.loaded.entry.priority;
        let draft = Draft { queue: named.id, lane: None, priority, due_at: None, head, body, dedupe: None };
        let sunk = (named, draft);
        self.enter(&sunk);
        Some(sunk)
    }

    /// The queue of a policy's sink, made if need be.
    async fn sink_queue(&self, policy: &AsyncPolicy) -> Option<Arc<Named>> {
        let name: Arc<str> = name_of(policy, SINK).into();
        if let Some(known) = self.find(&name) {
            return Some(known);
        }
        let policy = Arc::new(sink_policy(policy));
        let settings = Settings { policy, destination: SINK.into(), paused: false, callbacks: false };
        match self.make(&name, settings).await {
            Ok(named) => Some(named),
            Err(error) => {
                tracing::warn!(%error, queue = %name, "a message stays in the built-in dead letter");
                None
            }
        }
    }

    /// Whether what dies in a queue has no place, as of now: in the sink's queue, where there is one, or in
    /// the built-in dead letter.
    pub(crate) fn look_at_dead(&self, named: &Named) {
        let settings = named.settings();
        let sink = || self.find(&name_of(&settings.policy, SINK));
        let full = named.dead_full() || settings.sinks() && sink().is_some_and(|sink| sink.full());
        self.state.borrow_mut().line_mut(named.line).dead_full = full;
        if named.is_sink {
            let of = |source: &Arc<Named>| source.settings().policy.name == settings.policy.name;
            let sources = self.shared.named().into_iter().filter(|source| !source.is_sink && of(source));
            sources.for_each(|source| self.look_at_dead(&source));
        }
        self.changed.notify_one();
    }
}
