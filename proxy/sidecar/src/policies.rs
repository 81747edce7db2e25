//! policies: the queues hear of their policies as they change.
//!
//! A message is taken in under the policy of its rule; while it waits the policy may be edited:
//! paused, slowed down, given more attempts. So the destinations of all queues stay followed, also when
//! nobody asks for them, until their queue is removed: as many as there are queues, which
//! `limits::QUEUES_MAX` bounds.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use policy::queue::AsyncPolicy;
use policy::route::Action;
use policy::snapshot::{Destination, DestinationKey, Snapshot};

use crate::deliver::policy_and_destination;
use crate::feed::FeedHandle;
use crate::queues::Queues;

/// How often queues that are new are looked for.
const LOOK: Duration = Duration::from_secs(5);

/// Goes on until it is dropped.
pub(crate) async fn follow(queues: Arc<Queues>, feed: FeedHandle) {
    let mut snapshots = feed.snapshot();
    let mut followed = HashSet::new();
    loop {
        let now = snapshots.borrow_and_update().clone();
        // A store that does not say which queues it has may have them all still.
        let (mut held, mut all_told) = (HashSet::new(), true);
        for queue in queues.all_opened() {
            for policy in policies(&now) {
                if let Err(error) = queue.update(policy).await {
                    tracing::warn!(policy = %policy.name, %error, "a queue has not taken over its policy");
                }
            }
            let named = queue.queues().await;
            all_told &= named.is_ok();
            held.extend(named.unwrap_or_default().iter().filter_map(|named| destination(&named.name)));
        }
        for key in held.difference(&followed) {
            feed.need(key.clone()).await;
        }
        if all_told {
            for key in followed.difference(&held) {
                feed.release(key.clone()).await;
            }
            followed = held;
        } else {
            followed.extend(held);
        }
        tokio::select! {
            changed = snapshots.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

/// What the controller says of a queue's policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// It is there, and says whether it is paused.
    Paused(bool),
    /// There is none, or none any more.
    Gone,
    /// Nothing yet.
    Unheard,
}

impl Word {
    /// Of the policy of a named queue.
    pub(crate) fn on(snapshot: &Snapshot, queue: &str) -> Self {
        let of = |policy: &Arc<AsyncPolicy>| {
            queue.strip_prefix(&*policy.name)?.strip_prefix('/').map(|_| policy.paused)
        };
        let told = policies(snapshot).filter_map(of).reduce(|one, other| one || other);
        match (told, destination(queue)) {
            (Some(paused), _) => Self::Paused(paused),
            (None, Some(key)) if !snapshot.destinations.contains_key(&key) => Self::Unheard,
            // Of callbacks, or a sink: nobody looks for these by where they go.
            (None, None) if queue.contains('/') && snapshot.destinations.is_empty() => Self::Unheard,
            (None, _) => Self::Gone,
        }
    }
}

/// Where a queue's messages go.
fn destination(queue: &str) -> Option<DestinationKey> {
    policy_and_destination(queue)?.1.parse().ok()
}

/// Every policy of a snapshot.
fn policies(snapshot: &Snapshot) -> impl Iterator<Item = &Arc<AsyncPolicy>> {
    snapshot
        .destinations
        .values()
        .filter_map(|destination| match &**destination {
            Destination::Service(policy) => Some(policy),
            _ => None,
        })
        .flat_map(|policy| {
            let of_rules = policy.rules.iter().filter_map(|rule| match &*rule.action {
                Action::Forward(forward) => forward.asynchronous.as_ref(),
                Action::Redirect(_) | Action::Fail { .. } => None,
            });
            of_rules.chain(&policy.asynchronous)
        })
}

#[cfg(test)]
mod tests {
    use policy::name::ServicePort;
    use policy::snapshot::{BackendKey, Protocol, ServicePolicy};

    use super::*;

    const QUEUE: &str = "shop/orders-async/orders.shop.svc:80";

    fn told(paused: Option<bool>) -> Snapshot {
        let port: ServicePort = "orders.shop.svc:80".parse().unwrap();
        let of = |paused| Arc::new(AsyncPolicy { paused, ..AsyncPolicy::new("shop/orders-async") });
        let policy = ServicePolicy {
            service: None,
            protocol: Protocol::Http,
            rules: Vec::new(),
            backend: BackendKey::Service(port.clone()),
            asynchronous: paused.map(of),
        };
        let destination = Arc::new(Destination::Service(policy));
        let destinations = [(DestinationKey::Service(port), destination)].into();
        Snapshot { destinations, ..Snapshot::default() }
    }

    #[test]
    fn a_policy_that_is_gone_is_told_from_one_that_was_not_heard_yet() {
        assert_eq!(Word::on(&told(Some(true)), QUEUE), Word::Paused(true));
        assert_eq!(Word::on(&told(Some(false)), QUEUE), Word::Paused(false));
        assert_eq!(Word::on(&told(None), QUEUE), Word::Gone);
        assert_eq!(Word::on(&Snapshot::default(), QUEUE), Word::Unheard);
        assert_eq!(Word::on(&told(Some(true)), "shop/orders-async/callbacks"), Word::Paused(true));
        assert_eq!(Word::on(&told(None), "shop/orders-async/callbacks"), Word::Gone);
        assert_eq!(Word::on(&Snapshot::default(), "shop/orders-async/callbacks"), Word::Unheard);
        assert_eq!(Word::on(&told(Some(true)), "shop/orders-async2/orders.shop.svc:80"), Word::Gone);
        assert_eq!(Word::on(&Snapshot::default(), "lost-1"), Word::Gone, "nothing can be said of it");
    }
}
