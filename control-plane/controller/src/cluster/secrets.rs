//! secrets: the Secrets that policies name, read one by one, and no others.
//!
//! A list of Secrets would be a list of all of them: the controller asks for none, and an operator
//! grants it `get` only where policies name one.

use std::collections::BTreeSet;
use std::time::Duration;

use kube::Client;
use resources::{ObjectId, Problem};
use tokio::sync::{mpsc, watch};

use super::backoff::Backoff;
use super::kind::{PLACE, Raw, Refused, SECRETS, Said};
use super::watching::{Event, Health, Heard, health};

/// Read again after this: nobody tells that one changed.
const AGAIN: Duration = Duration::from_secs(60);

/// Reads the `wanted` when they are others, and every minute, until nobody listens.
pub(super) async fn run(
    client: Client,
    mut wanted: watch::Receiver<Option<BTreeSet<ObjectId>>>,
    tell: mpsc::Sender<Heard>,
) {
    let mut backoff = Backoff::new();
    loop {
        let names = wanted.borrow_and_update().clone();
        let pause = match names {
            None => None,
            Some(names) => match read_all(&client, &names, &tell).await {
                Ok(Ok(())) => {
                    backoff.reset();
                    Some(AGAIN)
                }
                // What is the matter the watches tell.
                Ok(Err(_)) => Some(backoff.pause()),
                Err(Unheard) => return,
            },
        };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(pause.unwrap_or(AGAIN)) => {}
        }
    }
}

/// Nobody listens.
struct Unheard;

/// Reads them as a list is read: those that it does not name any more are gone.
async fn read_all(
    client: &Client,
    names: &BTreeSet<ObjectId>,
    tell: &mpsc::Sender<Heard>,
) -> Result<Result<(), Health>, Unheard> {
    let say =
        |event| async { tell.send(Heard { kind: &SECRETS, watch: 0, event }).await.map_err(|_| Unheard) };
    say(Event::Begin).await?;
    for id in names {
        match read(client, id).await {
            Ok(Some(said)) => say(Event::Put(id.clone(), said)).await?,
            Ok(None) => {}
            Err(health) => return Ok(Err(health)),
        }
    }
    say(Event::Listed).await?;
    say(Event::Health(Health::Good)).await?;
    Ok(Ok(()))
}

/// One Secret; `None` where there is none.
async fn read(client: &Client, id: &ObjectId) -> Result<Option<Said>, Health> {
    let path = format!("/api/v1/namespaces/{}/secrets/{}", id.namespace, id.name);
    let request = http::Request::get(path).body(Vec::new());
    let request = request.map_err(|error| Health::Refused(error.to_string()))?;
    let text = match client.request_text(request).await {
        Ok(text) => text,
        Err(error) => {
            return match health(error) {
                None | Some(Health::NotServed) => Ok(None),
                Some(Health::Forbidden(_)) => {
                    Ok(Some(Said::Bad(Refused { generation: 0, problem: forbidden(id) })))
                }
                Some(health) => Err(health),
            };
        }
    };
    // What is wrong with the text is not told: it may quote the secret.
    let unreadable = |_| Health::Refused("a Secret cannot be read".to_owned());
    let raw: Raw = serde_json::from_str(&text).map_err(unreadable)?;
    Ok(Some(raw.read(&SECRETS, "v1")))
}

fn forbidden(id: &ObjectId) -> Problem {
    let message = format!(
        "may not be read, and an AsyncPolicy names it: grant get on secrets in namespace {} to the \
         ServiceAccount tidegate-controller by a Role and a RoleBinding",
        id.namespace
    );
    Problem { file: PLACE.clone(), line: 0, object: id.to_string(), field: None, message }
}
