//! model: random steps, closes and stops, against plain maps.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::message::Loaded;

/// What may happen. Messages are named by a number that is taken modulo those there are.
#[derive(Debug, Clone)]
enum Happens {
    Write(Vec<Step>),
    Sweep,
    /// Closed and opened again.
    Closed,
    /// Stopped without a close, and opened again.
    Stopped,
    Later(u64),
}

#[derive(Debug, Clone)]
enum Step {
    Append { queue: u16, lane: Option<u64>, due_at: Option<u64>, key: Option<(u8, u8)>, body: usize },
    Begin(usize),
    Retry { which: usize, due_at: Option<u64>, free: bool, history: Option<u8> },
    End { which: usize, of: State, keep: Option<u64>, result: bool },
    Bury { which: usize, history: u8, result: bool },
    Redrive(usize),
    Quarantine(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let lane = proptest::option::of(0..3_u64);
    let due = || proptest::option::of(0..100_u64);
    let key = proptest::option::of((0..6_u8, 0..2_u8));
    let body = prop_oneof![0..200_usize, 3_900..4_200_usize, 65_000..140_000_usize];
    let which = || 0..1_000_usize;
    let some = proptest::option::of(any::<u8>());
    let of = prop_oneof![2 => Just(State::Waiting), 1 => Just(State::Dead), 1 => Just(State::Quarantined)];
    prop_oneof![
        4 => (1..3_u16, lane, due(), key, body)
            .prop_map(|(queue, lane, due_at, key, body)| Step::Append { queue, lane, due_at, key, body }),
        2 => which().prop_map(Step::Begin),
        2 => (which(), due(), any::<bool>(), some)
            .prop_map(|(which, due_at, free, history)| Step::Retry { which, due_at, free, history }),
        2 => (which(), of, proptest::option::of(0..40_u64), any::<bool>())
            .prop_map(|(which, of, keep, result)| Step::End { which, of, keep, result }),
        2 => (which(), any::<u8>(), any::<bool>())
            .prop_map(|(which, history, result)| Step::Bury { which, history, result }),
        1 => which().prop_map(Step::Redrive),
        1 => which().prop_map(Step::Quarantine),
    ]
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        12 => proptest::collection::vec(step(), 1..6).prop_map(Happens::Write),
        1 => Just(Happens::Sweep),
        1 => Just(Happens::Closed),
        1 => Just(Happens::Stopped),
        1 => (0..30_u64).prop_map(Happens::Later),
    ]
}

/// What the store ought to hold.
#[derive(Default)]
struct Model {
    now: u64,
    messages: BTreeMap<Position, Loaded>,
    ended: BTreeMap<Position, (u64, bool)>,
    keys: BTreeMap<u8, (u8, Position, u64)>,
    /// The highest position or rank given.
    last: u64,
}

const WINDOW: u64 = 50;
const RESULT: &[u8] = &[b'r'; 70_000];

impl Model {
    fn nth(&self, which: usize) -> Position {
        let known: Vec<_> = self.messages.keys().chain(self.ended.keys()).collect();
        known.get(which % known.len().max(1)).copied().copied().unwrap_or(Position(1 << 39))
    }

    fn change(&self, step: &Step) -> Change {
        let result = |kept: bool| kept.then(|| Bytes::from_static(RESULT));
        match step {
            Step::Append { queue, lane, due_at, key, body } => {
                let draft = Draft {
                    queue: QueueId(*queue),
                    lane: *lane,
                    due_at: due_at.map(Timestamp),
                    ..draft(&vec![b'b'; *body])
                };
                let keyed = key.map(|(key, print)| keyed(key, print, self.now, self.now + WINDOW));
                Change::Append(Draft { dedupe: keyed.and_then(|keyed| keyed.dedupe), ..draft })
            }
            Step::Begin(which) => Change::Begin(self.nth(*which)),
            Step::Retry { which, due_at, free, history } => Change::Retry {
                position: self.nth(*which),
                due_at: due_at.map(Timestamp),
                free: *free,
                history: history.map(|byte| Bytes::from(vec![byte; 9])),
            },
            Step::End { which, of, keep, result: kept } => Change::End {
                position: self.nth(*which),
                of: *of,
                record: keep.map(|keep| (Bytes::from_static(b"record"), Timestamp(self.now + keep))),
                result: result(*kept),
            },
            Step::Bury { which, history, result: kept } => Change::Bury {
                position: self.nth(*which),
                history: Bytes::from(vec![*history; 9]),
                result: result(*kept),
            },
            Step::Redrive(which) => Change::Redrive { position: self.nth(*which), due_at: None },
            Step::Quarantine(which) => Change::Quarantine(self.nth(*which)),
        }
    }

    /// Does what the store did, and says whether it should have.
    fn follow(&mut self, change: &Change, changed: Changed) {
        match change {
            Change::Append(draft) => self.follow_append(draft, changed),
            Change::Begin(position) => {
                if let Some(message) = self.expected(*position, &[State::Waiting], changed) {
                    (message.entry.attempts, message.entry.begun) = (message.entry.attempts + 1, true);
                }
            }
            Change::Retry { position, due_at, free, history } => {
                if let Some(message) = self.expected(*position, &[State::Waiting], changed) {
                    message.entry.attempts = message.entry.attempts.saturating_sub(u16::from(*free));
                    (message.entry.begun, message.entry.due_at) = (false, *due_at);
                    message.entry.tried |= history.is_some();
                    message.history = history.clone().unwrap_or_else(|| message.history.clone());
                }
            }
            Change::End { position, of, record, result } => {
                if self.expected(*position, &[*of], changed).is_some() {
                    self.messages.remove(position);
                    if let Some((_, until)) = record {
                        self.ended.insert(*position, (until.0, result.is_some()));
                    }
                }
            }
            Change::Bury { position, history, result } => {
                if let Some(message) = self.expected(*position, &[State::Waiting], changed) {
                    (message.entry.begun, message.entry.due_at) = (false, None);
                    (message.entry.state, message.entry.tried) = (State::Dead, true);
                    (message.history, message.result) = (history.clone(), result.clone());
                }
            }
            Change::Redrive { position, .. } => self.follow_redrive(*position, changed),
            Change::Quarantine(position) => {
                if let Some(message) = self.expected(*position, &[State::Waiting, State::Dead], changed) {
                    (message.entry.begun, message.entry.state) = (false, State::Quarantined);
                }
            }
        }
    }

    fn expected(&mut self, position: Position, states: &[State], changed: Changed) -> Option<&mut Loaded> {
        let stands = self.messages.get_mut(&position).filter(|found| states.contains(&found.entry.state));
        assert_eq!(changed == Changed::Missing, stands.is_none(), "{position}: {changed:?}");
        stands
    }

    fn follow_append(&mut self, draft: &Draft, changed: Changed) {
        let known = draft
            .dedupe
            .and_then(|dedupe| self.keys.get(&dedupe.key[0]).filter(|(_, _, until)| *until > dedupe.now.0));
        if let (Some((print, position, _)), Some(dedupe)) = (known, draft.dedupe) {
            let same = *print == dedupe.fingerprint[0];
            return assert_eq!(changed, Changed::Duplicate { position: *position, same });
        }
        let Changed::Stored(position) = changed else { panic!("{changed:?} of a new one") };
        assert!(position.0 > self.last, "{position} after {}", self.last);
        self.last = position.0;
        if let Some(dedupe) = draft.dedupe {
            self.keys.insert(dedupe.key[0], (dedupe.fingerprint[0], position, dedupe.until.0));
        }
        let entry = Entry {
            position,
            order: position.0,
            queue: draft.queue,
            lane: draft.lane,
            priority: draft.priority,
            due_at: draft.due_at,
            attempts: 0,
            begun: false,
            tried: false,
            bytes: u32::try_from(draft.head.len() + draft.body.len()).expect("it is small"),
            state: State::Waiting,
        };
        let (head, body) = (draft.head.clone(), draft.body.clone());
        self.messages.insert(position, Loaded { entry, head, body, history: Bytes::new(), result: None });
    }

    fn follow_redrive(&mut self, position: Position, changed: Changed) {
        let last = self.last;
        let Some(message) = self.expected(position, &[State::Dead], changed) else { return };
        let Changed::Done { order } = changed else { panic!("{changed:?}") };
        assert!(order > last, "rank {order} after {last}");
        let state = State::Waiting;
        message.entry = Entry { order, attempts: 0, tried: false, due_at: None, state, ..message.entry };
        (message.history, message.result) = (Bytes::new(), None);
        self.last = order;
    }

    fn sweep(&mut self) -> u64 {
        let before = self.ended.len();
        self.ended.retain(|_, (until, _)| *until > self.now);
        (before - self.ended.len()) as u64
    }

    async fn compare(&self, store: &Store) {
        for (position, expected) in &self.messages {
            let loaded = store.load(*position).await.expect("it is read").expect("it is there");
            assert_eq!(loaded.entry, expected.entry);
            assert_eq!(loaded.head, expected.head);
            assert_eq!(loaded.body, expected.body);
            assert_eq!(loaded.history, expected.history);
            assert_eq!(loaded.result, expected.result);
        }
        for (position, (until, result)) in &self.ended {
            assert!(store.load(*position).await.expect("it is read").is_none());
            let ended = store.ended(*position).await.expect("it is read").expect("it is there");
            assert_eq!((ended.keep_until.0, ended.result.is_some()), (*until, *result));
        }
        for state in [State::Waiting, State::Dead, State::Quarantined] {
            for queue in [QueueId(1), QueueId(2)] {
                let listed = store.list(queue, state, None, 1000).await.expect("it is listed");
                let of = |message: &&Loaded| message.entry.queue == queue && message.entry.state == state;
                let expected = self.messages.values().filter(of).map(|message| message.entry);
                assert!(listed.iter().map(|message| message.entry).eq(expected), "{queue:?} {state:?}");
            }
        }
    }
}

/// Opens a copy of the files as a stop would leave them, while the store still has its own.
fn stop(directory: &Path) -> TempDir {
    let copy = tempfile::tempdir().expect("a directory");
    for name in ["messages.db", "messages.db-wal"] {
        std::fs::copy(directory.join(name), copy.path().join(name)).expect("it is copied");
    }
    copy
}

async fn live(happening: Vec<Happens>) {
    let mut directory = tempfile::tempdir().expect("a directory");
    let (mut store, _) = open(directory.path());
    let mut model = Model::default();
    for happens in happening {
        let entries = match happens {
            Happens::Write(steps) => {
                let changes: Vec<_> = steps.iter().map(|step| model.change(step)).collect();
                let changed = store.write(changes.clone()).await.expect("it is written");
                for (change, changed) in changes.iter().zip(changed) {
                    model.follow(change, changed);
                }
                continue;
            }
            Happens::Sweep => {
                let swept = store.sweep(Timestamp(model.now)).await.expect("it is swept");
                assert_eq!(swept, model.sweep());
                continue;
            }
            Happens::Later(millis) => {
                model.now += millis;
                continue;
            }
            Happens::Closed => {
                store.close().await;
                let (opened, entries) = open(directory.path());
                store = opened;
                entries
            }
            Happens::Stopped => {
                let copy = stop(directory.path());
                let (opened, entries) = open(copy.path());
                store = opened;
                directory = copy;
                entries
            }
        };
        assert!(entries.iter().eq(model.messages.values().map(|message| &message.entry)));
        model.compare(&store).await;
    }
    model.compare(&store).await;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_it_holds_what_a_plain_map_would(happening in proptest::collection::vec(happens(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(live(happening));
    }
}
