//! queue: one queue on the page: its figures and plots, and the messages in it.

use maud::{Markup, html};
use policy::limits;

use super::plot::plot;
use super::{Chosen, bytes, span};
use crate::operate::shown::{Listed, Point, Shown, Tried};

/// How fast a careful redrive goes, in messages a second.
const GENTLE_PER_SECOND: &str = "10";

/// A path with its query.
fn to(path: &str, listed: &Listed, more: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("queue", &listed.name).append_pair("durability", listed.durability);
    query.extend_pairs(more);
    format!("{path}?{}", query.finish())
}

fn button(action: &str, class: &str, label: &str) -> Markup {
    html! { form method="post" action=(action) { button class=(class) { (label) } } }
}

/// A queue among others.
pub(super) fn card(listed: &Listed) -> Markup {
    html! {
        article {
            h2 { a href=(to("/", listed, &[])) { (listed.name) } }
            p { (state(listed)) " " span.chip { (listed.durability) } }
            (plots(listed))
            (figures(listed))
            (switch(listed))
        }
    }
}

fn state(listed: &Listed) -> Markup {
    html! {
        @match (listed.paused, listed.blocked.as_deref()) {
            (Some("policy-gone"), _) => span.chip.bad { "paused by a policy that is gone" },
            (Some(by), _) => span.chip.bad { "paused by " (by) },
            (None, Some("rate")) => span.chip { "as fast as its policy lets it" },
            (None, Some("concurrency")) => span.chip { "as many at once as its policy lets it" },
            (None, Some(why)) => span.chip.bad { (why.replace('_', " ")) },
            (None, None) => span.chip.good { "ok" },
        }
        @if let Some(redrive) = listed.redrive.as_ref().filter(|redrive| redrive.under_way) {
            " " span.chip { "redriving: " (redrive.redriven) " of " (redrive.of) }
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "a drawing")]
fn plots(listed: &Listed) -> Markup {
    let of = |figure: fn(&Point) -> f64, now: f64| -> Vec<f64> {
        listed.history.iter().map(figure).chain([now]).collect()
    };
    let depth = of(|point| point.depth as f64, listed.depth as f64);
    let age = of(|point| point.oldest_age_seconds, listed.oldest_age_seconds.unwrap_or(0.0));
    let slots = limits::QUEUE_SAMPLES_MAX + 1;
    let minutes = limits::QUEUE_SAMPLE_INTERVAL.as_secs() * limits::QUEUE_SAMPLES_MAX as u64 / 60;
    let highest = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    html! {
        div.plots {
            figure {
                figcaption { "Depth, last " (minutes) " min" span.faint { "highest " (format!("{:.0}", highest(&depth))) } }
                (plot(&depth, slots, &format!("Depth over the last {minutes} minutes, now {}", listed.depth)))
            }
            figure.age {
                figcaption { "Oldest, last " (minutes) " min" span.faint { "highest " (span(highest(&age))) } }
                (plot(&age, slots, &format!("Age of the oldest message over the last {minutes} minutes")))
            }
        }
    }
}

fn figures(listed: &Listed) -> Markup {
    let drains = match listed.drain_estimate_seconds {
        _ if listed.depth == 0 => "-".to_owned(),
        Some(seconds) => span(seconds),
        None => "never at this rate".to_owned(),
    };
    let used = listed.utilisation.map_or_else(|| "∞".to_owned(), |used| format!("{:.0} %", used * 100.0));
    html! {
        dl {
            (figure("Depth", &listed.depth.to_string()))
            div.bad[listed.dead_letters > 0] {
                dt { "Dead" }
                dd { a href=(to("/", listed, &[("part", "dead")])) { (listed.dead_letters) } }
            }
            (figure("Size", &bytes(listed.bytes)))
            (figure("Oldest", &listed.oldest_age_seconds.map_or_else(|| "-".to_owned(), span)))
            (figure("In flight", &listed.in_flight.to_string()))
            (figure("Scheduled", &listed.scheduled.to_string()))
            (figure("Retrying", &listed.retrying.to_string()))
            (figure("In/s", &format!("{:.1}", listed.arrivals_per_second)))
            (figure("Out/s", &format!("{:.1}", listed.completions_per_second)))
            (figure("In/out", &used))
            (figure("Empty in", &drains))
        }
    }
}

fn figure(name: &str, value: &str) -> Markup {
    html! { div { dt { (name) } dd { (value) } } }
}

fn switch(listed: &Listed) -> Markup {
    let page = [("from", "page")];
    html! {
        @match listed.paused {
            Some("policy") => p.faint { "Its policy says paused: true." },
            Some(_) => (button(&to("/queues/resume", listed, &page), "", "Resume")),
            None => (button(&to("/queues/pause", listed, &page), "", "Pause")),
        }
    }
}

/// The queue that was chosen, with its messages.
pub(super) fn inside(chosen: &Chosen) -> Markup {
    let queue = &chosen.queue;
    let tabs = [
        ("waiting", "Waiting", queue.depth),
        ("dead", "Dead letters", queue.dead_letters),
        ("quarantined", "Damaged", queue.quarantined),
    ];
    html! {
        p { a href="/" { "← All queues" } }
        (card(queue))
        nav {
            @for (part, label, number) in tabs {
                a href=(to("/", queue, &[("part", part)])) aria-current=[(part == chosen.part).then_some("page")] {
                    (label) " " span.faint { (number) }
                }
            }
        }
        (actions(chosen))
        @if chosen.messages.is_empty() { p.faint { "None." } }
        div.messages { @for message in &chosen.messages { (entry(queue, chosen.part, message)) } }
        p.pages {
            @if chosen.later { a href=(to("/", queue, &[("part", chosen.part)])) { "First page" } " " }
            @if let Some(next) = chosen.next {
                a href=(to("/", queue, &[("part", chosen.part), ("after", &next.to_string())])) { "Next page" }
            }
        }
    }
}

fn actions(chosen: &Chosen) -> Markup {
    let queue = &chosen.queue;
    let (number, kind) = match chosen.part {
        "dead" => (queue.dead_letters, "dead letters"),
        "quarantined" => (queue.quarantined, "damaged messages"),
        _ => (queue.depth, "waiting messages"),
    };
    let query = [("part", chosen.part), ("from", "page")];
    let gently = [("part", chosen.part), ("from", "page"), ("rate", GENTLE_PER_SECOND)];
    html! {
        @if number > 0 {
            div.actions {
                @if chosen.part == "dead" {
                    (button(&to("/queues/redrive", queue, &query), "", &format!("Redrive all {number}")))
                    (button(&to("/queues/redrive", queue, &gently), "", &format!("Redrive {GENTLE_PER_SECOND} a second")))
                }
                details.sure {
                    summary { "Purge…" }
                    p { "This throws all " (number) " " (kind) " away for good: neither delivered nor kept." }
                    (button(&to("/queues/purge", queue, &query), "danger", &format!("Purge {number} {kind}")))
                }
            }
        }
    }
}

fn entry(queue: &Listed, part: &str, message: &Shown) -> Markup {
    let last = message.attempts.last();
    let id = [("id", message.id.as_str()), ("part", part), ("from", "page")];
    html! {
        details {
            summary {
                span.about { (message.about) }
                span.chip { (message.reason.unwrap_or(message.state)) }
                span.faint { (span(message.age_seconds)) " old, attempts: " (message.attempts_used) }
                @if let Some(last) = last { span.faint { "last: " (ended(last)) } }
            }
            dl.wide {
                (figure("Id", &message.id))
                (figure("State", message.state))
                (figure("Accepted", &message.enqueued_at))
                @if let Some(at) = &message.next_attempt_at { (figure("Next attempt", at)) }
                @if let Some(at) = &message.expires_at { (figure("Expires", at)) }
                @if let Some(key) = &message.key { (figure("Ordering key", key)) }
                @if let Some(priority) = message.priority { (figure("Priority", &format!("u={priority}"))) }
                @if let Some(number) = message.bytes { (figure("Size", &bytes(number))) }
            }
            (attempts(&message.attempts))
            @if message.state == "DeadLettered" {
                (button(&to("/queues/redrive", queue, &id), "", "Redrive this one"))
            }
        }
    }
}

fn attempts(attempts: &[Tried]) -> Markup {
    html! {
        @if attempts.is_empty() { p.faint { "No attempt yet." } }
        @else {
            div.scroll {
                table {
                    thead { tr { th { "Began" } th { "Took" } th { "Ended" } } }
                    tbody {
                        @for attempt in attempts {
                            tr {
                                td { (attempt.at) }
                                td { (attempt.duration_ms) " ms" }
                                td { (ended(attempt)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn ended(attempt: &Tried) -> String {
    let status =
        attempt.status.map(|status| if attempt.grpc { format!("gRPC {status}") } else { status.to_string() });
    match (status, &attempt.error) {
        (Some(status), Some(error)) => format!("{status}: {error}"),
        (Some(status), None) => status,
        (None, Some(error)) => error.clone(),
        (None, None) => "no answer".to_owned(),
    }
}
