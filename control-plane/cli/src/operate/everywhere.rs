//! everywhere: the same question to many proxies, and what those answered that could.

use std::process::ExitCode;

use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};

use super::choose::Which;
use super::documents::Queues;
use super::read;
use crate::ask::Answer;
use crate::print::{count, plain};

/// Proxies asked at once: each is a connection through the API server.
pub(crate) const AT_ONCE: usize = 16;

/// What all said.
#[derive(Default)]
pub(super) struct Everywhere {
    /// The queues of each pod.
    pub(super) pods: Vec<(String, Queues)>,
    documents: Vec<Value>,
    failed: Vec<(String, String)>,
}

impl Everywhere {
    /// Asks every proxy that is meant for its queues.
    ///
    /// # Errors
    /// When it is not known which those are.
    pub(super) async fn ask(which: &Which) -> anyhow::Result<Self> {
        let asked = which.all().await?.into_iter().map(|(pod, at)| async move {
            let said = at.queues().await;
            (pod, said)
        });
        let mut everywhere = Self::default();
        let mut answers = stream::iter(asked).buffered(AT_ONCE);
        while let Some((pod, said)) = answers.next().await {
            everywhere.take(pod, said);
        }
        Ok(everywhere)
    }

    fn take(&mut self, pod: String, said: anyhow::Result<(Queues, Answer)>) {
        let said = said.and_then(|(queues, answer)| Ok((queues, read::<Value>(&answer)?)));
        match said {
            Ok((queues, document)) => {
                self.documents.push(json!({ "pod": pod, "said": document }));
                self.pods.push((pod, queues));
            }
            Err(error) => self.failed.push((pod, format!("{error:#}"))),
        }
    }

    /// Leaves of each document, for programs, what `part` does.
    pub(super) fn only(&mut self, part: impl Fn(Value) -> Value) {
        for document in &mut self.documents {
            document["said"] = part(document["said"].take());
        }
    }

    /// What all said, for programs.
    ///
    /// # Errors
    /// Never: maps and texts are JSON.
    pub(super) fn print_json(&self) -> anyhow::Result<()> {
        let failed: Vec<Value> =
            self.failed.iter().map(|(pod, error)| json!({ "pod": pod, "error": error })).collect();
        let document = json!({ "pods": self.documents, "failed": failed });
        println!("{}", serde_json::to_string_pretty(&document)?);
        Ok(())
    }

    /// Says who did not answer; the exit status is 1 then, and where a directory is not open.
    pub(super) fn end(&self) -> ExitCode {
        if self.failed.is_empty() {
            let closed = self.pods.iter().any(|(_, queues)| queues.trouble.is_some());
            return if closed { ExitCode::FAILURE } else { ExitCode::SUCCESS };
        }
        for (pod, error) in &self.failed {
            eprintln!("pod {}: {}", plain(pod), plain(error));
        }
        let asked = self.failed.len() + self.pods.len();
        eprintln!("{} of {} did not answer", self.failed.len(), count(asked, "pod"));
        ExitCode::FAILURE
    }
}
