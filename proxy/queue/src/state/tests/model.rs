//! state/tests/model: the same rules, said as simply as they can be, over a list of messages.

use super::*;

#[derive(Debug, Clone)]
struct Kept {
    position: u64,
    order: u64,
    priority: u8,
    lane: Option<u64>,
    due: Option<u64>,
    /// When it joined its lane, in a count of joinings.
    joined: Option<u64>,
    taken: bool,
}

#[derive(Debug, Default)]
struct Model {
    messages: Vec<Kept>,
    joinings: u64,
}

impl Model {
    fn join(&mut self, at: usize) {
        if self.messages[at].lane.is_some() && self.messages[at].joined.is_none() {
            self.joinings += 1;
            self.messages[at].joined = Some(self.joinings);
        }
    }

    fn come_due(&mut self, now: u64) {
        let is_due = |kept: &Kept| !kept.taken && kept.due.is_some_and(|due| due <= now);
        let mut due: Vec<usize> = (0..self.messages.len()).filter(|at| is_due(&self.messages[*at])).collect();
        due.sort_by_key(|at| self.messages[*at].due);
        for at in due {
            self.messages[at].due = None;
            self.join(at);
        }
    }

    fn is_head(&self, kept: &Kept) -> bool {
        let mine = kept.joined;
        let lane = self.messages.iter().filter(|other| other.lane == kept.lane && other.joined.is_some());
        mine.is_some() && lane.map(|other| other.joined).min() == Some(mine)
    }

    fn next(&mut self, now: u64) -> Option<u64> {
        self.come_due(now);
        let may =
            |kept: &&Kept| !kept.taken && kept.due.is_none() && (kept.lane.is_none() || self.is_head(kept));
        let best = self.messages.iter().filter(may).min_by_key(|kept| (kept.priority, kept.order))?;
        let position = best.position;
        self.get(position).taken = true;
        Some(position)
    }

    fn get(&mut self, position: u64) -> &mut Kept {
        self.messages.iter_mut().find(|kept| kept.position == position).unwrap()
    }

    fn pick(&self, which: usize, taken: bool) -> Option<u64> {
        let of: Vec<u64> =
            self.messages.iter().filter(|kept| kept.taken == taken).map(|kept| kept.position).collect();
        (!of.is_empty()).then(|| of[which % of.len()])
    }
}

#[derive(Debug, Clone)]
enum Step {
    Append { lane: Option<u64>, priority: u8, delay: Option<u64> },
    Redriven { lane: Option<u64>, priority: u8 },
    Next,
    Gone(usize),
    Back { which: usize, delay: Option<u64> },
    Take(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let lane = || prop_oneof![1 => Just(None), 4 => (0u64..4).prop_map(Some)];
    let delay = || prop_oneof![3 => Just(None), 1 => (1u64..60).prop_map(Some)];
    let step = prop_oneof![
        6 => (lane(), 0u8..8, delay())
            .prop_map(|(lane, priority, delay)| Step::Append { lane, priority, delay }),
        1 => (lane(), 0u8..8).prop_map(|(lane, priority)| Step::Redriven { lane, priority }),
        6 => Just(Step::Next),
        4 => (0usize..64).prop_map(Step::Gone),
        2 => (0usize..64, delay()).prop_map(|(which, delay)| Step::Back { which, delay }),
        1 => (0usize..64).prop_map(Step::Take),
        2 => (1u64..40).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 1..400)
}

/// Positions before this are those of redriven messages.
const FIRST: u64 = 1_000_000;

struct Both {
    state: State,
    model: Model,
    now: u64,
    /// Positions and orders come from the same count; so do the fractions that keep due times apart.
    count: u64,
}

impl Both {
    fn due(&self, delay: Option<u64>) -> Option<u64> {
        delay.map(|delay| self.now + delay * 1_000_000 + self.count)
    }

    fn add(&mut self, entry: Entry) {
        self.state.appended(&entry, 0, NOW, Timestamp(self.now));
        self.model.messages.push(Kept {
            position: entry.position.0,
            order: entry.order,
            priority: entry.priority,
            lane: entry.lane,
            due: entry.due_at.map(|due| due.0),
            joined: None,
            taken: false,
        });
        if entry.due_at.is_none() {
            self.model.join(self.model.messages.len() - 1);
        }
    }

    fn step(&mut self, step: Step) {
        self.count += 1;
        match step {
            Step::Append { lane, priority, delay } => {
                let due_at = self.due(delay).map(Timestamp);
                self.add(Entry { lane, priority, due_at, ..entry(FIRST + self.count) });
            }
            Step::Redriven { lane, priority } => {
                // From long ago.
                let order = FIRST + self.count;
                self.add(Entry { lane, priority, order, ..entry(self.count) });
            }
            Step::Next => {
                let next = self.state.next_at(Timestamp(self.now));
                assert_eq!(next, self.model.next(self.now));
                if next.is_none() {
                    let due = self.model.messages.iter().filter(|kept| !kept.taken);
                    let due = due.filter_map(|kept| kept.due).min().map(Timestamp);
                    assert_eq!(self.state.wake_at(Timestamp(self.now)), due);
                }
            }
            Step::Gone(which) => {
                if let Some(position) = self.model.pick(which, true) {
                    self.state.end(position);
                    self.model.messages.retain(|kept| kept.position != position);
                }
            }
            Step::Back { which, delay } => self.back(which, delay),
            Step::Take(which) => {
                if let Some(position) = self.model.pick(which, false) {
                    let due = self.model.get(position).due.map(Timestamp);
                    assert_eq!(self.state.take(Position(position)), Take::Taken(due));
                    self.model.get(position).taken = true;
                }
            }
            Step::Wait(ms) => self.now += ms * 1_000_000,
        }
    }

    fn back(&mut self, which: usize, delay: Option<u64>) {
        let Some(position) = self.model.pick(which, true) else { return };
        let due = self.due(delay);
        let behind = {
            let kept = self.model.get(position).clone();
            kept.joined.is_some() && !self.model.is_head(&kept)
        };
        self.state.back(Position(position), due.map(Timestamp), delay.is_some(), Timestamp(self.now));
        let kept = self.model.get(position);
        kept.taken = false;
        // One that is behind others waits for them, whatever it was told.
        kept.due = due.filter(|_| !behind);
        if kept.due.is_none() {
            let at = self.model.messages.iter().position(|kept| kept.position == position).unwrap();
            self.model.join(at);
        }
    }

    fn counts_agree(&self) {
        let line = self.state.line(0);
        let waiting = self.model.messages.len();
        let delayed = self.model.messages.iter().filter(|kept| !kept.taken && kept.due.is_some()).count();
        assert_eq!((self.state.len() as usize, line.waiting as usize), (waiting, waiting));
        assert_eq!((line.scheduled + line.retrying) as usize, delayed);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 400 } else { 4000 }))]
    #[test]
    fn the_index_agrees_with_a_list_of_messages(steps in steps()) {
        let mut state = state();
        // Only the order is compared here.
        state.set_line(0, Limits { concurrent_max: u32::MAX, ..limits() }, false);
        let mut both = Both { state, model: Model::default(), now: NOW.0, count: 0 };
        for step in steps {
            both.step(step);
            both.counts_agree();
        }
        // Everything comes out in the end.
        both.now += 1 << 40;
        while let Some(position) = both.model.pick(0, true) {
            both.state.end(position);
            both.model.messages.retain(|kept| kept.position != position);
        }
        while !both.model.messages.is_empty() {
            both.step(Step::Next);
            both.step(Step::Gone(0));
        }
        prop_assert_eq!(both.state.len(), 0);
        prop_assert!(both.state.next(Timestamp(both.now)).is_none());
    }
}
