//! message: messages as a list, and one of them with its attempts.

use super::documents::{Attempt, Message};
use crate::print::{HEAD, bytes, cut, paint, plain, show, span, table};

/// Letters of a column whose text anybody may have written.
const COLUMN_MAX: usize = 48;

/// Prints a line for each.
pub(super) fn list(messages: &[Message]) {
    if messages.is_empty() {
        println!("no messages");
        return;
    }
    let mut rows = table(&["id", "state", "age", "attempts", "last attempt", "key", "size", "call"]);
    for message in messages {
        let last = message.attempts.last().map(Attempt::ended).unwrap_or_default();
        rows.add_row([
            plain(&message.id),
            state(message),
            message.age_seconds.map(span).unwrap_or_default(),
            message.attempts_used.to_string(),
            cut(&plain(&last), COLUMN_MAX),
            cut(&plain(message.key.as_deref().unwrap_or("-")), COLUMN_MAX),
            message.bytes.map(bytes).unwrap_or_default(),
            cut(&plain(message.about.as_deref().unwrap_or_default()), COLUMN_MAX),
        ]);
    }
    show(&rows);
}

fn state(message: &Message) -> String {
    match &message.reason {
        Some(reason) => format!("{} ({})", plain(&message.state), plain(reason)),
        None => plain(&message.state),
    }
}

/// Prints all that is known of one; `why` its queue does not go.
pub(super) fn whole(message: &Message, why: Option<String>) {
    let line = |name: &str, value: Option<String>| {
        if let Some(value) = value {
            println!("{name:<14}{value}");
        }
    };
    line("id", Some(plain(&message.id)));
    line("state", Some(state(message)));
    line("waits", why);
    line("call", message.about.as_deref().map(plain));
    line("to", message.authority.as_deref().map(plain));
    line("queue", Some(plain(&message.queue)));
    line("kept", Some(plain(&message.durability)));
    line("accepted", Some(plain(&message.enqueued_at)));
    line("next attempt", message.next_attempt_at.as_deref().map(plain));
    line("expires", message.expires_at.as_deref().map(plain));
    line("ended", message.ended_at.as_deref().map(plain));
    line("ordering key", message.key.as_deref().map(plain));
    line("priority", message.priority.map(|priority| format!("u={priority}")));
    line("body", message.body_bytes.map(bytes));
    line("headers", message.headers.as_ref().map(|names| plain(&names.join(", "))));
    line("attempts", Some(message.attempts_used.to_string()));
    if message.attempts.is_empty() {
        return;
    }
    println!("\n{}", paint(HEAD, "Attempts"));
    let mut rows = table(&["began", "took", "ended"]);
    for attempt in &message.attempts {
        rows.add_row([plain(&attempt.at), format!("{} ms", attempt.duration_ms), plain(&attempt.ended())]);
    }
    show(&rows);
}
