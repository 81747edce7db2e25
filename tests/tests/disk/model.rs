//! model: what must be on the disk, as a plain map, and whether that is what is found.

use std::collections::BTreeMap;

use bytes::Bytes;
use store::message::{Change, Changed, Dedupe, Draft, Ended, Loaded, Position, QueueRow, State, Timestamp};
use store::{Opened, Store};

/// What was asked of the store in one write.
#[derive(Debug, Clone)]
pub(crate) enum Ask {
    /// Each with the number by which the test knows the message.
    Changes(Vec<(u64, Change)>),
    Queue(String, Bytes),
    Sweep(Timestamp),
}

impl Ask {
    pub(crate) fn appends(&self) -> bool {
        matches!(self, Self::Changes(changes) if changes.iter().any(|(_, change)| matches!(change, Change::Append(_))))
    }
}

/// What it said.
#[derive(Debug, Clone)]
pub(crate) enum Said {
    Changed(Vec<Changed>),
    /// Done, whatever it was.
    Done,
    Full(String),
    /// Nobody knows.
    Unknown(#[expect(dead_code, reason = "shown when a test fails")] String),
}

/// A message as it must be found.
#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) draft: Draft,
    /// `None`: nobody was told.
    pub(crate) position: Option<Position>,
    pub(crate) order: Option<u64>,
    pub(crate) state: State,
    pub(crate) attempts: u16,
    pub(crate) begun: bool,
    pub(crate) tried: bool,
    pub(crate) due_at: Option<Timestamp>,
    pub(crate) history: Bytes,
    pub(crate) result: Option<Bytes>,
}

/// What must be left of an ended one.
#[derive(Debug, Clone)]
struct Record {
    position: Position,
    record: Bytes,
    result: Option<Bytes>,
    until: Timestamp,
    /// An unanswered sweep may have removed it.
    swept: bool,
}

/// All that was answered.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    pub(crate) messages: BTreeMap<u64, Message>,
    records: BTreeMap<u64, Record>,
    keys: BTreeMap<[u8; 16], (u64, Option<Position>, Dedupe)>,
    queues: BTreeMap<String, Bytes>,
    /// Ended without a record: nothing may be found there.
    gone: Vec<Position>,
    /// The highest position or rank anybody was told of.
    highest: u64,
    /// Results and records may have made room.
    pub(crate) evicts: bool,
}

/// The number a test knows a message by stands in its head.
pub(crate) fn number_of(head: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(head.get(..8)?.try_into().ok()?))
}

type Check = Result<(), String>;

macro_rules! must {
    ($holds:expr, $($said:tt)*) => { if !$holds { return Err(format!($($said)*)); } };
}

impl Model {
    /// Does what was asked; an answer must be the right one.
    pub(crate) fn apply(&mut self, ask: &Ask, said: Option<&Said>) -> Check {
        match ask {
            Ask::Changes(changes) => {
                let answers = match said {
                    Some(Said::Changed(answers)) => Some(answers),
                    Some(other) => return Err(format!("changes were answered {other:?}")),
                    None => None,
                };
                must!(answers.is_none_or(|answers| answers.len() == changes.len()), "answers are missing");
                for (index, (number, change)) in changes.iter().enumerate() {
                    let answer = answers.map(|answers| answers[index]);
                    self.change(*number, change, answer).map_err(|e| format!("message {number}: {e}"))?;
                }
            }
            Ask::Queue(name, settings) => {
                self.queues.insert(name.clone(), settings.clone());
            }
            Ask::Sweep(now) if said.is_some() => self.records.retain(|_, record| record.until > *now),
            Ask::Sweep(now) => {
                self.records.values_mut().for_each(|record| record.swept |= record.until <= *now);
            }
        }
        Ok(())
    }

    fn change(&mut self, number: u64, change: &Change, answer: Option<Changed>) -> Check {
        if let Change::Append(draft) = change {
            return self.append(number, draft, answer);
        }
        let expected = self.step(number, change);
        let Some(answer) = answer else { return Ok(()) };
        if let (Change::Redrive { .. }, true, Changed::Done { order }) = (change, expected, answer) {
            must!(order > self.highest, "the rank {order} is not above {}", self.highest);
            self.highest = order;
            self.messages.entry(number).and_modify(|message| message.order = Some(order));
            return Ok(());
        }
        let expected = if expected { Changed::Done { order: 0 } } else { Changed::Missing };
        must!(answer == expected, "{change:?} is answered {answer:?}, not {expected:?}");
        Ok(())
    }

    fn append(&mut self, number: u64, draft: &Draft, answer: Option<Changed>) -> Check {
        if let Some(dedupe) = &draft.dedupe {
            self.keys.retain(|_, (_, _, known)| known.until > dedupe.now);
            if let Some((_, position, known)) = self.keys.get(&dedupe.key) {
                let same = known.fingerprint == dedupe.fingerprint;
                match (answer, position) {
                    (Some(Changed::Duplicate { position: at, same: said }), Some(position)) => {
                        must!(
                            at == *position && said == same,
                            "a duplicate of {position}, {same}, is {answer:?}"
                        );
                    }
                    (Some(Changed::Duplicate { same: said, .. }), None) => must!(said == same, "{answer:?}"),
                    (Some(other), _) => return Err(format!("a repetition is answered {other:?}")),
                    (None, _) => {}
                }
                return Ok(());
            }
        }
        let position = match answer {
            Some(Changed::Stored(position)) => Some(position),
            Some(other) => return Err(format!("a new draft is answered {other:?}")),
            None => None,
        };
        if let Some(position) = position {
            must!(position.0 > self.highest, "position {position} is not above {}", self.highest);
            self.highest = position.0;
        }
        if let Some(dedupe) = draft.dedupe {
            self.keys.insert(dedupe.key, (number, position, dedupe));
        }
        let message = Message {
            draft: draft.clone(),
            position,
            order: position.map(|position| position.0),
            state: State::Waiting,
            attempts: 0,
            begun: false,
            tried: false,
            due_at: draft.due_at,
            history: Bytes::new(),
            result: None,
        };
        must!(self.messages.insert(number, message).is_none(), "the test stores it twice");
        Ok(())
    }

    /// A step of a message that is there; `false` if it is missing or stands elsewhere.
    fn step(&mut self, number: u64, change: &Change) -> bool {
        let Some(message) = self.messages.get_mut(&number) else { return false };
        match change {
            Change::Append(_) => false,
            Change::Begin(_) if message.state == State::Waiting => {
                message.attempts += 1;
                message.begun = true;
                true
            }
            Change::Retry { due_at, free, history, .. } if message.state == State::Waiting => {
                message.attempts = message.attempts.saturating_sub(u16::from(*free));
                (message.begun, message.due_at) = (false, *due_at);
                message.tried |= history.is_some();
                message.history = history.clone().unwrap_or_else(|| message.history.clone());
                true
            }
            Change::Bury { history, result, .. } if message.state == State::Waiting => {
                (message.state, message.begun, message.tried) = (State::Dead, false, true);
                message.due_at = None;
                (message.history, message.result) = (history.clone(), result.clone());
                true
            }
            Change::Redrive { due_at, .. } if message.state == State::Dead => {
                (message.state, message.attempts) = (State::Waiting, 0);
                (message.begun, message.tried) = (false, false);
                (message.history, message.result) = (Bytes::new(), None);
                (message.due_at, message.order) = (*due_at, None);
                true
            }
            Change::Quarantine(_) if message.state != State::Quarantined => {
                (message.state, message.begun) = (State::Quarantined, false);
                true
            }
            Change::End { position, of, record, result } if message.state == *of => {
                self.messages.remove(&number);
                match record {
                    Some((record, until)) => {
                        let (record, result) = (record.clone(), result.clone());
                        let record =
                            Record { position: *position, record, result, until: *until, swept: false };
                        self.records.insert(number, record);
                    }
                    None => self.gone.push(*position),
                }
                true
            }
            _ => false,
        }
    }

    /// Whether a store holds this and nothing else; takes over what nobody was told.
    pub(crate) fn check(&mut self, found: &Found) -> Check {
        let mut seen = self.highest;
        for (number, message) in &mut self.messages {
            let Some(loaded) = found.messages.get(number) else {
                return Err(format!("message {number} is missing: {message:?}"));
            };
            message.check(loaded).map_err(|e| format!("message {number}: {e}"))?;
            if let Some((_, position, _)) = self.keys.values_mut().find(|(of, ..)| of == number) {
                *position = message.position;
            }
            seen = seen.max(loaded.entry.position.0).max(loaded.entry.order);
        }
        let more = found.messages.keys().find(|number| !self.messages.contains_key(number));
        must!(more.is_none(), "message {more:?} should not be there");
        for (number, record) in &self.records {
            let ended = found.ended.get(&record.position).and_then(Option::as_ref);
            record.check(ended, self.evicts).map_err(|e| format!("the record of {number}: {e}"))?;
        }
        self.records.retain(|_, record| !record.swept || found.ended[&record.position].is_some());
        self.records.values_mut().for_each(|record| record.swept = false);
        let back = self.gone.iter().find(|position| matches!(found.ended.get(position), Some(Some(_))));
        must!(back.is_none(), "{back:?} has a record and should have none");
        must!(self.queues == found.queues, "queues {:?}, not {:?}", found.queues, self.queues);
        self.highest = seen;
        Ok(())
    }

    /// Positions that may have a record.
    fn ended(&self) -> Vec<Position> {
        self.records.values().map(|record| record.position).chain(self.gone.iter().copied()).collect()
    }

    /// Keys that must be known.
    pub(crate) fn keys(&self, now: Timestamp) -> Vec<(Dedupe, Position)> {
        let valid = self.keys.values().filter(|(_, _, dedupe)| dedupe.until > now);
        valid.filter_map(|(_, position, dedupe)| Some((*dedupe, (*position)?))).collect()
    }
}

impl Message {
    fn check(&mut self, loaded: &Loaded) -> Check {
        let entry = loaded.entry;
        must!(self.position.is_none_or(|at| at == entry.position), "{entry:?}, not at {:?}", self.position);
        must!(self.order.is_none_or(|order| order == entry.order), "{entry:?}, not rank {:?}", self.order);
        self.position = Some(entry.position);
        self.order = Some(entry.order);
        self.check_bytes(loaded)?;
        let told = (entry.state, entry.attempts, entry.begun, entry.tried, entry.due_at);
        let known = (self.state, self.attempts, self.begun, self.tried, self.due_at);
        must!(told == known, "stands at {told:?}, not {known:?}");
        must!(loaded.history == self.history, "history {:?}, not {:?}", loaded.history, self.history);
        must!(loaded.result == self.result, "another result");
        Ok(())
    }

    /// What is delivered is what was taken in.
    pub(crate) fn check_bytes(&self, loaded: &Loaded) -> Check {
        let entry = loaded.entry;
        let told = (entry.queue, entry.lane, entry.priority, entry.bytes as usize);
        let Draft { queue, lane, priority, head, body, .. } = &self.draft;
        let known = (*queue, *lane, *priority, head.len() + body.len());
        must!(told == known, "is {told:?}, not {known:?}");
        must!(loaded.head == *head && loaded.body == *body, "other bytes are delivered than were taken in");
        Ok(())
    }
}

impl Record {
    fn check(&self, ended: Option<&Ended>, evicts: bool) -> Check {
        let Some(ended) = ended else {
            must!(self.swept || evicts, "missing");
            return Ok(());
        };
        must!(ended.record == self.record && ended.keep_until == self.until, "another record");
        must!(ended.result == self.result || (evicts && ended.result.is_none()), "another result");
        Ok(())
    }
}

/// What a store holds.
#[derive(Debug, Default)]
pub(crate) struct Found {
    messages: BTreeMap<u64, Loaded>,
    ended: BTreeMap<Position, Option<Ended>>,
    queues: BTreeMap<String, Bytes>,
}

impl Found {
    /// Reads all of it; `models` say whose records are to be looked for.
    pub(crate) async fn read(
        store: &Store,
        entries: &[store::message::Entry],
        queues: &[QueueRow],
        models: &[Model],
    ) -> Result<Self, String> {
        // Messages are written under numbers that nobody asked for: rows are made up for them.
        let asked_for = queues.iter().filter(|row| !row.name.starts_with("lost-"));
        let queues = asked_for.map(|row| (row.name.clone(), row.settings.clone())).collect();
        let mut found = Self { queues, ..Self::default() };
        for entry in entries {
            let loaded = store.load(entry.position).await.map_err(|e| e.to_string())?;
            let loaded = loaded.ok_or_else(|| format!("{} is listed and not there", entry.position))?;
            must_be(loaded.entry == *entry, || format!("{entry:?} is listed, {:?} is loaded", loaded.entry))?;
            let number = number_of(&loaded.head).ok_or("a head nobody wrote")?;
            must_be(found.messages.insert(number, loaded).is_none(), || {
                format!("message {number} is there twice")
            })?;
        }
        for position in models.iter().flat_map(Model::ended) {
            let ended = store.ended(position).await.map_err(|e| e.to_string())?;
            found.ended.insert(position, ended);
        }
        Ok(found)
    }
}

fn must_be(holds: bool, said: impl FnOnce() -> String) -> Check {
    if holds { Ok(()) } else { Err(said()) }
}

/// A store that was opened, and what it showed.
pub(crate) struct Held {
    pub(crate) opened: Opened,
    pub(crate) entries: Vec<store::message::Entry>,
}

impl Held {
    /// The one of these models that the store holds; the last says most if it is none.
    pub(crate) async fn settle(&self, mut models: Vec<Model>) -> Result<Model, String> {
        let found = Found::read(&self.opened.store, &self.entries, &self.opened.queues, &models).await?;
        let mut said = Vec::new();
        for model in &mut models {
            match model.check(&found) {
                Ok(()) => return Ok(model.clone()),
                Err(difference) => said.push(difference),
            }
        }
        Err(said.join("\n  or "))
    }
}

/// Every state there may be after `asked`: what was answered is done, the rest may be.
pub(crate) fn after(model: &Model, asked: &[(Ask, Said)]) -> Result<Vec<Model>, String> {
    let unknown: Vec<usize> =
        (0..asked.len()).filter(|index| matches!(asked[*index].1, Said::Unknown(_))).collect();
    assert!(unknown.len() <= 8, "few are on their way at once");
    let (mut models, mut said) = (Vec::new(), String::new());
    for done in 0..1_u32 << unknown.len() {
        let mut candidate = model.clone();
        let applied = asked.iter().enumerate().try_for_each(|(index, (ask, answer))| match answer {
            Said::Full(_) => Ok(()),
            Said::Unknown(_) => {
                let bit = unknown.iter().position(|at| *at == index).unwrap_or(0);
                if done & (1 << bit) != 0 { candidate.apply(ask, None) } else { Ok(()) }
            }
            answer => candidate.apply(ask, Some(answer)),
        });
        match applied {
            Ok(()) => models.push(candidate),
            Err(e) => said = e,
        }
    }
    if models.is_empty() { Err(said) } else { Ok(models) }
}
