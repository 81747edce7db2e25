//! operate: what an operator asks of one proxy's queues, by its admin port.

mod choose;
mod dead_letter;
mod documents;
mod everywhere;
mod export;
mod filter;
mod message;
mod queue;
mod request;

pub(crate) use dead_letter::DeadLetter;
pub(crate) use documents::{Named, Queues, Store};
pub(crate) use everywhere::AT_ONCE;
pub(crate) use queue::Queue;
pub(crate) use request::Request;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use http::{Method, StatusCode};
use serde::de::DeserializeOwned;

use crate::ask::{AdminPort, Answer, Question};
use crate::print::plain;
use documents::{Message, Refusal};

/// What a command that changes many messages may take: a million are purged in well under it.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(600);

/// The proxy that is asked, and how it is told.
pub(crate) struct At {
    port: AdminPort,
    output: Output,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

/// A path with its query.
fn path(resource: &str, query: &[(&str, &str)]) -> String {
    let mut encoded = form_urlencoded::Serializer::new(String::new());
    encoded.extend_pairs(query.iter().filter(|(_, value)| !value.is_empty()));
    match encoded.finish() {
        query if query.is_empty() => resource.to_owned(),
        query => format!("{resource}?{query}"),
    }
}

impl At {
    fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    async fn ask(&self, question: &Question) -> anyhow::Result<Answer> {
        self.port.ask(question).await.with_context(|| match &self.port {
            AdminPort::At(address) => format!(
                "the proxy at {address} does not answer: name its admin address with --proxy, or its pod \
                 with --pod"
            ),
            AdminPort::In(pod) => format!("the proxy of {pod} does not answer"),
        })
    }

    /// Asks; a refusal is an error that says what the proxy says.
    async fn asked(&self, question: &Question) -> anyhow::Result<Answer> {
        let answer = self.ask(question).await?;
        if answer.status.is_success() {
            return Ok(answer);
        }
        bail!(refusal(&answer))
    }

    async fn get(&self, path: String) -> anyhow::Result<Answer> {
        self.asked(&Question::new(Method::GET, path)).await
    }

    async fn change(&self, path: String) -> anyhow::Result<Answer> {
        let timeout = CHANGE_TIMEOUT;
        self.asked(&Question { timeout, ..Question::new(Method::POST, path) }).await
    }

    /// What there is of queues.
    async fn queues(&self) -> anyhow::Result<(Queues, Answer)> {
        let answer = self.get("/queues".to_owned()).await?;
        Ok((read(&answer)?, answer))
    }

    /// What a message's queue waits for, as `queue ls` says it; `None`: for nothing, or it is not known.
    async fn why_it_waits(&self, message: &Message) -> Option<String> {
        let (queues, _) = self.queues().await.ok()?;
        let its = |queue: &&Named| queue.name == message.queue && queue.durability == message.durability;
        queues.queues.iter().find(its)?.waits_for()
    }

    /// The holder that an id names, where it is another address than the one that is asked.
    fn other_holder(&self, id: &str) -> Option<Ipv4Addr> {
        let AdminPort::At(asked) = &self.port else { return None };
        choose::holder(id).filter(|holder| IpAddr::V4(*holder) != asked.ip())
    }

    /// The queue of that name, or the only one of the policy of that name.
    async fn find(&self, name: &str) -> anyhow::Result<Named> {
        let (mut queues, _) = self.queues().await?;
        let by_name = |queue: &Named| queue.name == name;
        let by_policy = |queue: &Named| queue.policy == name;
        for is_it in [&by_name as &dyn Fn(&Named) -> bool, &by_policy] {
            let found: Vec<usize> = queues
                .queues
                .iter()
                .enumerate()
                .filter(|(_, queue)| is_it(queue))
                .map(|(at, _)| at)
                .collect();
            match found.as_slice() {
                [] => {}
                [one] => return Ok(queues.queues.swap_remove(*one)),
                more => {
                    let names: Vec<String> = more.iter().map(|at| queues.queues[*at].spelled()).collect();
                    bail!("{name:?} names more than one queue; say which:\n  {}", names.join("\n  "));
                }
            }
        }
        if let Some((name, durability)) = name.rsplit_once('@')
            && let Some(at) =
                queues.queues.iter().position(|queue| queue.name == name && queue.durability == durability)
        {
            return Ok(queues.queues.swap_remove(at));
        }
        let trouble =
            queues.trouble.map(|why| format!("\nthe queue's directory is not open: {}", plain(&why)));
        let names: Vec<String> = queues.queues.iter().map(|queue| plain(&queue.name)).collect();
        let names = if names.is_empty() { "there is none".to_owned() } else { names.join("\n  ") };
        bail!(
            "no queue {name:?} at {}; those that exist:\n  {names}{}",
            self.port,
            trouble.unwrap_or_default()
        )
    }
}

/// Reads a document.
fn read<T: DeserializeOwned>(answer: &Answer) -> anyhow::Result<T> {
    serde_json::from_slice(&answer.body).context("the proxy's answer is not as this version writes it")
}

/// What a proxy says when it refuses: a problem document (RFC 9457), or text.
fn refusal(answer: &Answer) -> String {
    if let Ok(problem) = serde_json::from_slice::<Refusal>(&answer.body) {
        return format!("{}: {}", plain(&problem.title), plain(&problem.detail));
    }
    let text = answer.text().split_whitespace().collect::<Vec<_>>().join(" ");
    let hint = match answer.status {
        StatusCode::NOT_FOUND => " (is this the admin address of a proxy with queues?)",
        StatusCode::FORBIDDEN => " (from elsewhere: --pod, or a shell in the pod)",
        _ => "",
    };
    format!("the proxy answers {}: {}{hint}", answer.status.as_u16(), plain(&text))
}

/// Prints a document of the proxy's for programs, indented.
fn print_json(answer: &Answer) -> anyhow::Result<()> {
    let document: serde_json::Value = read(answer)?;
    println!("{}", serde_json::to_string_pretty(&document)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_queues_are_encoded_into_a_query() {
        let query = [("queue", "shop/a b/svc&c:80"), ("after", ""), ("limit", "5")];
        assert_eq!(
            path("/queues/messages", &query),
            "/queues/messages?queue=shop%2Fa+b%2Fsvc%26c%3A80&limit=5"
        );
        assert_eq!(path("/queues", &[]), "/queues");
    }

    #[test]
    fn a_refusal_is_said_in_the_words_of_the_proxy_without_its_control_characters() {
        let answer = |status, body: &'static str| Answer {
            status,
            headers: http::HeaderMap::default(),
            body: body.into(),
        };
        let problem = r#"{"title":"No such queue","status":404,"detail":"there is \u001b[31mone"}"#;
        assert_eq!(refusal(&answer(StatusCode::NOT_FOUND, problem)), "No such queue: there is ·[31mone");
        let text = refusal(&answer(StatusCode::FORBIDDEN, "on loopback alone\n"));
        assert!(text.starts_with("the proxy answers 403: on loopback alone (from elsewhere"), "{text}");
    }
}
