//! setup: a named queue comes, changes its settings, and goes.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use policy::limits;
use policy::queue::AsyncPolicy;
use store::StoreError;
use store::message::QueueRow;
use tokio::sync::oneshot;

use crate::enqueue::Refused;
use crate::handle::Failed;
use crate::named::{Named, SINK, callbacks_policy, sink_policy};
use crate::recover::Found;
use crate::schedule::Limits;
use crate::stored::Settings;
use crate::worker::Worker;

/// What holds for a queue whose settings cannot be read: it stands still until its policy is heard.
fn unheard(name: &str) -> Settings {
    let mut parts = name.splitn(3, '/');
    let policy = format!("{}/{}", parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let policy = AsyncPolicy { paused: true, ..AsyncPolicy::new(policy) };
    let destination = parts.next().unwrap_or_default().into();
    Settings { policy: Arc::new(policy), destination, paused: false, callbacks: false }
}

impl Worker {
    /// The queues that were found, as they were left.
    pub(crate) fn take_over(&self, rows: &[QueueRow], found: &HashMap<u16, Found>) {
        for row in rows {
            let settings = Settings::read(&row.settings).unwrap_or_else(|error| {
                tracing::error!(%error, queue = row.name, "a queue stands still until its policy is heard");
                unheard(&row.name)
            });
            let known = self.lines.borrow().get(&row.id).copied();
            let line = known.unwrap_or_else(|| self.free_line());
            let named = self.add(row.name.as_str().into(), row.id, line, settings);
            let found = found.get(&line).copied().unwrap_or_default();
            named.messages.store(found.messages, Ordering::SeqCst);
            named.bytes.store(found.bytes, Ordering::SeqCst);
            named.dead_messages.store(found.dead_messages, Ordering::SeqCst);
            named.dead_bytes.store(found.dead_bytes, Ordering::SeqCst);
            named.quarantined.store(found.quarantined, Ordering::SeqCst);
            self.shared.total.fetch_add(found.messages, Ordering::SeqCst);
        }
        let known = |line: u16| self.named.borrow().get(usize::from(line)).is_some_and(Option::is_some);
        let rowless = self.lines.borrow().values().filter(|line| !known(**line)).count();
        if rowless > 0 {
            tracing::error!(queues = rowless, "messages stand still: the rows of their queues are lost");
        }
        // When all are known: a queue's dead letters may go to another.
        self.shared.named().iter().for_each(|named| self.look_at_dead(named));
    }

    /// A number that no queue has, neither one that is known nor one whose messages were found.
    fn free_line(&self) -> u16 {
        let named = self.named.borrow();
        let lines = self.lines.borrow();
        let taken = |line: &u16| {
            named.get(usize::from(*line)).is_some_and(Option::is_some) || lines.values().any(|at| at == line)
        };
        (0..u16::MAX).find(|line| !taken(line)).expect("fewer queues than numbers: QUEUES_MAX")
    }

    fn add(&self, name: Arc<str>, id: store::message::QueueId, line: u16, settings: Settings) -> Arc<Named> {
        let (limits, paused) = (Limits::of(&settings.policy), settings.paused);
        let series = self.shared.metrics.series(&name);
        let named = Arc::new(Named::new(name.clone(), id, line, settings, series));
        let mut all = self.named.borrow_mut();
        if all.len() <= usize::from(line) {
            all.resize(usize::from(line) + 1, None);
        }
        all[usize::from(line)] = Some(named.clone());
        self.lines.borrow_mut().insert(id, line);
        self.state.borrow_mut().set_line(line, limits, paused);
        let mut names = self.shared.names.write().unwrap_or_else(PoisonError::into_inner);
        names.insert(name, named.clone());
        named
    }

    /// Makes a named queue, or tells it its policy's words again; stored before it answers.
    pub(crate) fn set_up(
        self: &Rc<Self>,
        name: Arc<str>,
        policy: Arc<AsyncPolicy>,
        destination: Arc<str>,
        callbacks: bool,
        answer: oneshot::Sender<Result<Arc<Named>, Refused>>,
    ) {
        let worker = self.clone();
        self.spawn(async move {
            let _one = worker.setting_up.lock().await;
            let of = match (callbacks, &*destination == SINK) {
                (true, _) => Arc::new(callbacks_policy(&policy)),
                (false, true) => Arc::new(sink_policy(&policy)),
                (false, false) => policy.clone(),
            };
            let known = worker.find(&name);
            let paused = known.as_ref().is_some_and(|named| named.settings().paused);
            let settings = Settings { policy: of, destination, paused, callbacks };
            let done = match known {
                Some(named) if named.knows(&policy) => Ok(named),
                Some(named) => worker.change(&named, settings).await.map(|()| named).map_err(Failed::from),
                None => worker.make(&name, settings).await,
            };
            let done = done.inspect(|named| named.set_heard(policy)).map_err(Refused::from);
            let _ = answer.send(done);
        });
    }

    pub(crate) fn find(&self, name: &str) -> Option<Arc<Named>> {
        self.shared.names.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Other settings for a queue that exists: stored, then heeded.
    pub(crate) async fn change(&self, named: &Arc<Named>, settings: Settings) -> Result<(), StoreError> {
        let stored = settings.bytes();
        if named.settings().bytes() != stored {
            self.shared.store.put_queue(named.name.to_string(), stored).await?;
        }
        let (limits, paused) = (Limits::of(&settings.policy), settings.paused);
        named.set_settings(settings);
        self.state.borrow_mut().set_line(named.line, limits, paused);
        self.look_at_dead(named);
        Ok(())
    }

    /// Makes a queue while `setting_up` is held.
    pub(crate) async fn make(&self, name: &Arc<str>, settings: Settings) -> Result<Arc<Named>, Failed> {
        let count = self.shared.names.read().unwrap_or_else(PoisonError::into_inner).len();
        if count >= limits::QUEUES_MAX && !self.remove_an_empty_one().await? {
            return Err(Failed::Refused(Box::new(Refused::TooManyQueues)));
        }
        let id = self.shared.store.put_queue(name.to_string(), settings.bytes()).await?;
        let named = self.add(name.clone(), id, self.free_line(), settings);
        self.look_at_dead(&named);
        Ok(named)
    }

    /// Makes room for another queue.
    async fn remove_an_empty_one(&self) -> Result<bool, StoreError> {
        let all = self.shared.named();
        let Some(named) = all.iter().find(|named| self.closes(named, &all)) else {
            return Ok(false);
        };
        if let Err(error) = self.shared.store.remove_queue(named.id).await {
            named.reopen();
            return Err(error);
        }
        self.shared.names.write().unwrap_or_else(PoisonError::into_inner).remove(&named.name);
        self.lines.borrow_mut().remove(&named.id);
        self.samples.borrow_mut().remove(&named.line);
        self.redrives.borrow_mut().remove(&named.line);
        self.state.borrow_mut().remove_line(named.line);
        self.named.borrow_mut()[usize::from(named.line)] = None;
        Ok(true)
    }

    /// Closes a queue that is empty and will not be needed: what ends appends to the queues of its policy's
    /// callbacks and sink, which must be there. Whoever takes a message in takes room first and then looks
    /// whether they are closed; here it is the other way round, so that one of both sees the other.
    fn closes(&self, named: &Named, all: &[Arc<Named>]) -> bool {
        if !named.close_if_empty() {
            return false;
        }
        let settings = named.settings();
        let serves = settings.callbacks || named.is_sink;
        let of_its_policy = |other: &Arc<Named>| !other.is_empty() && other.is_of(&settings.policy.name);
        let needed = serves && all.iter().any(of_its_policy);
        if needed {
            named.reopen();
        }
        !needed
    }

    /// An operator stops a queue.
    pub(crate) fn pause(self: &Rc<Self>, named: Arc<Named>, answer: oneshot::Sender<Result<(), Failed>>) {
        let worker = self.clone();
        self.spawn(async move {
            let _one = worker.setting_up.lock().await;
            let settings = Settings { paused: true, ..(*named.settings()).clone() };
            let _ = answer.send(worker.change(&named, settings).await.map_err(Failed::from));
        });
    }

    /// An operator lets a queue go on; also against the word of a policy that is gone.
    pub(crate) fn resume(
        self: &Rc<Self>,
        named: Arc<Named>,
        no_policy: bool,
        answer: oneshot::Sender<Result<(), Failed>>,
    ) {
        let worker = self.clone();
        self.spawn(async move {
            let _one = worker.setting_up.lock().await;
            let mut settings = Settings { paused: false, ..(*named.settings()).clone() };
            if no_policy && settings.policy.paused {
                settings.policy = Arc::new(AsyncPolicy { paused: false, ..(*settings.policy).clone() });
                // Should it come back with the same words, they are to be taken over.
                named.forget_heard();
            }
            let _ = answer.send(worker.change(&named, settings).await.map_err(Failed::from));
        });
    }
}
