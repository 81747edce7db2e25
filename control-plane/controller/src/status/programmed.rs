//! programmed: whether the proxies that need something have it, as a status says it.
//!
//! Proxies come and go and acknowledge all the time; a status is for people. So what is said stands for
//! [`limits::STATUS_PATIENCE`] while some are behind, and a count is not corrected more often than that.

use policy::limits;
use resources::conditions::{Condition, ConditionType, Reason, Truth};
use tokio::time::Instant;

use crate::proxies::Progress;

/// Pods whose refusal a message tells.
const REJECTED_MAX: usize = 3;

/// What is heard of the proxies of all replicas.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) progress: Progress,
    /// Other replicas that do not say what their proxies have.
    pub(super) silent: usize,
}

impl Heard {
    /// Adds what another replica says; `None` where it says nothing.
    pub(super) fn add(&mut self, other: Option<&Progress>) {
        let Some(other) = other else {
            self.silent += 1;
            return;
        };
        self.progress.needing += other.needing;
        self.progress.current += other.current;
        self.progress.rejected.extend(other.rejected.iter().cloned());
    }

    fn is_whole(&self) -> bool {
        self.silent == 0 && self.progress.current == self.progress.needing
    }
}

/// What was said last of one object's part.
#[derive(Debug, Default)]
pub(super) struct Said {
    last: Option<Last>,
    /// Since when some are behind.
    behind: Option<Instant>,
}

#[derive(Debug)]
struct Last {
    generation: i64,
    condition: Condition,
    at: Instant,
}

impl Said {
    /// What to say now of `generation`.
    pub(super) fn say(&mut self, generation: i64, heard: &Heard, now: Instant) -> Condition {
        let last = self.last.take().filter(|last| last.generation == generation);
        if last.is_none() || heard.is_whole() {
            self.behind = None;
        }
        let condition = if heard.is_whole() && heard.progress.needing == 0 {
            condition(Truth::True, Reason::NoSubscribers, "No connected proxy needs it.".to_owned())
        } else if heard.is_whole() {
            let said = "Every connected proxy that needs it has acknowledged it.";
            condition(Truth::True, Reason::Programmed, said.to_owned())
        } else {
            let behind = *self.behind.get_or_insert(now);
            match &last {
                // A proxy that has just come needs a moment; who was told of as missing stays so.
                Some(Last { condition, at, .. })
                    if now < behind + limits::STATUS_PATIENCE
                        || (condition.status == Truth::False && now < *at + limits::STATUS_PATIENCE) =>
                {
                    condition.clone()
                }
                None => {
                    condition(Truth::Unknown, Reason::Pending, "It was sent to proxies just now.".to_owned())
                }
                Some(_) => condition(Truth::False, Reason::Pending, missing(heard)),
            }
        };
        let at = match &last {
            Some(last) if last.condition == condition => last.at,
            _ => now,
        };
        self.last = Some(Last { generation, condition: condition.clone(), at });
        condition
    }
}

fn condition(status: Truth, reason: Reason, message: String) -> Condition {
    Condition { about: ConditionType::Programmed, status, reason, message }
}

fn missing(heard: &Heard) -> String {
    let Heard { progress: Progress { needing, current, rejected }, silent } = heard;
    let mut message = format!(
        "{} of {needing} connected proxies that need it have not acknowledged it after {} s",
        needing.saturating_sub(*current),
        limits::STATUS_PATIENCE.as_secs()
    );
    if *silent > 0 {
        message.push_str(&format!("; {silent} other replicas of the controller do not say what theirs have"));
    }
    for (pod, reason) in rejected.iter().take(REJECTED_MAX) {
        message.push_str(&format!("; the one in pod {pod} refused it: {reason}"));
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(current: usize, needing: usize) -> Heard {
        Heard { progress: Progress { needing, current, rejected: Vec::new() }, silent: 0 }
    }

    fn word(condition: &Condition) -> (Truth, Reason) {
        (condition.status, condition.reason)
    }

    #[test]
    fn nobody_who_needs_it_is_as_good_as_everybody_who_has_it() {
        let (mut said, now) = (Said::default(), Instant::now());
        assert_eq!(word(&said.say(1, &progress(0, 0), now)), (Truth::True, Reason::NoSubscribers));
        assert_eq!(word(&said.say(1, &progress(3, 3), now)), (Truth::True, Reason::Programmed));
    }

    #[test]
    fn those_that_are_behind_have_their_time_and_are_then_counted() {
        let (mut said, now) = (Said::default(), Instant::now());
        let later = |seconds: u64| now + std::time::Duration::from_secs(seconds);
        assert_eq!(word(&said.say(1, &progress(1, 3), now)), (Truth::Unknown, Reason::Pending));
        assert_eq!(said.say(1, &progress(2, 3), later(29)).status, Truth::Unknown);
        let first = said.say(1, &progress(2, 3), later(30));
        assert_eq!(word(&first), (Truth::False, Reason::Pending));
        assert!(first.message.starts_with("1 of 3 "), "{}", first.message);
        assert_eq!(said.say(1, &progress(1, 3), later(40)), first, "not corrected with each that comes");
        assert!(said.say(1, &progress(1, 3), later(60)).message.starts_with("2 of 3 "));
        assert_eq!(said.say(1, &progress(3, 3), later(61)).status, Truth::True);
    }

    #[test]
    fn a_proxy_that_comes_takes_nothing_back_and_a_new_spec_does() {
        let (mut said, now) = (Said::default(), Instant::now());
        said.say(1, &progress(3, 3), now);
        assert_eq!(said.say(1, &progress(3, 4), now).status, Truth::True);
        assert_eq!(said.say(2, &progress(3, 4), now).status, Truth::Unknown);
    }

    #[test]
    fn proxies_of_other_replicas_count_and_a_replica_that_is_silent_is_none_without_proxies() {
        let (mut said, now) = (Said::default(), Instant::now());
        let mut heard = progress(1, 1);
        heard.add(Some(&progress(1, 2).progress));
        assert_eq!((heard.progress.current, heard.progress.needing), (2, 3));
        let mut heard = progress(0, 0);
        heard.add(None);
        assert_eq!(said.say(1, &heard, now).status, Truth::Unknown);
        let message = said.say(1, &heard, now + limits::STATUS_PATIENCE).message;
        assert!(message.contains("1 other replicas of the controller do not say"), "{message}");
    }

    #[test]
    fn who_refused_it_is_named_with_the_reason() {
        let (mut said, now) = (Said::default(), Instant::now());
        let mut refused = progress(0, 1);
        refused.progress.rejected.push(("web-0".to_owned(), "no such field".to_owned()));
        said.say(1, &refused, now);
        let message = said.say(1, &refused, now + limits::STATUS_PATIENCE).message;
        assert!(message.ends_with("the one in pod web-0 refused it: no such field"), "{message}");
    }
}
