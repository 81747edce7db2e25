//! ledger: what was sent, promised, delivered and given up, laid side by side.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// What an error shows of a longer list.
const SHOWN: usize = 10;

/// A message as its body names it: the key of its lane (or its sender, without one) and its number there.
type Name = (String, u64);

pub(super) struct Delivery {
    pub(super) at: u128,
    pub(super) id: String,
    pub(super) attempt: u32,
    pub(super) name: Name,
}

/// All that was written down, and the dead letter.
pub(super) struct Ledger {
    sent: HashSet<Name>,
    /// Ids by name.
    accepted: HashMap<Name, String>,
    pub(super) accepted_at: Vec<u128>,
    pub(super) deliveries: Vec<Delivery>,
    pub(super) dead: Vec<Value>,
    /// Two ids for one message.
    doubles: Vec<String>,
}

/// What came more than once.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// All.
    pub(super) total: usize,
    /// Kills that nothing was repeated after, one message, …
    pub(super) kills_by_repeats: BTreeMap<usize, usize>,
}

fn words(line: &str) -> Result<Vec<&str>> {
    let words: Vec<&str> = line.split(' ').collect();
    ensure!(words.len() >= 2, "a line is cut: {line:?}");
    Ok(words)
}

fn name(words: &[&str]) -> Result<Name> {
    let [key, number] = words else { anyhow::bail!("a line is cut: {words:?}") };
    Ok(((*key).to_owned(), number.parse()?))
}

impl Ledger {
    pub(super) fn read(folder: &Path, dead: Vec<Value>) -> Result<Self> {
        let text = |file: &str| std::fs::read_to_string(folder.join(file)).with_context(|| file.to_owned());
        let mut ledger = Self {
            sent: HashSet::new(),
            accepted: HashMap::new(),
            accepted_at: Vec::new(),
            deliveries: Vec::new(),
            dead,
            doubles: Vec::new(),
        };
        for line in text("sent")?.lines() {
            ledger.sent.insert(name(&words(line)?)?);
        }
        for line in text("accepted")?.lines() {
            let words = words(line)?;
            let id = words[1].to_owned();
            ledger.accepted_at.push(words[0].parse()?);
            if let Some(other) = ledger.accepted.insert(name(&words[2..])?, id.clone())
                && other != id
            {
                ledger.doubles.push(format!("{line} was {other} before"));
            }
        }
        for line in text("delivered")?.lines() {
            let words = words(line)?;
            ledger.deliveries.push(Delivery {
                at: words[0].parse()?,
                id: words[1].to_owned(),
                attempt: words[2].parse()?,
                name: name(&words[3..])?,
            });
        }
        Ok(ledger)
    }

    /// Fails unless every message that was accepted arrived or lies in the dead letter.
    pub(super) fn check_nothing_lost(&self) -> Result<()> {
        let delivered: HashSet<&str> = self.deliveries.iter().map(|delivery| &*delivery.id).collect();
        let dead: HashSet<&str> = self.dead.iter().filter_map(|letter| letter["id"].as_str()).collect();
        let lost: Vec<_> = self
            .accepted
            .iter()
            .filter(|(_, id)| !delivered.contains(&***id) && !dead.contains(&***id))
            .collect();
        eprintln!(
            "{} accepted, {} delivered in {} deliveries, {} dead letters",
            self.accepted.len(),
            delivered.len(),
            self.deliveries.len(),
            dead.len()
        );
        ensure!(!self.accepted.is_empty(), "nothing was accepted");
        ensure!(lost.is_empty(), "{} accepted and lost: {:?}", lost.len(), &lost[..lost.len().min(SHOWN)]);
        Ok(())
    }

    /// Fails when something arrived that nobody sent, or one message under two ids, or two under one.
    pub(super) fn check_nothing_made_up(&self) -> Result<()> {
        ensure!(self.doubles.is_empty(), "taken in twice: {:?}", &self.doubles);
        let (mut ids, mut names) = (HashMap::new(), HashMap::new());
        for Delivery { id, name, .. } in &self.deliveries {
            ensure!(self.sent.contains(name), "{name:?} ({id}) was delivered and never sent");
            let accepted = self.accepted.get(name);
            ensure!(
                accepted.is_none_or(|accepted| accepted == id),
                "{name:?} is {accepted:?} and came as {id}"
            );
            let (other_id, other_name) = (names.entry(name).or_insert(id), ids.entry(id).or_insert(name));
            ensure!(*other_id == id && *other_name == name, "{name:?} came as {id} and as {other_id}");
        }
        Ok(())
    }

    /// Fails unless first deliveries ascend in each lane. A sender without a key orders nothing.
    pub(super) fn check_order(&self) -> Result<()> {
        let (mut last, mut seen) = (HashMap::<&str, u64>::new(), HashSet::new());
        for Delivery { id, name: (key, number), at, .. } in &self.deliveries {
            if is_keyed(key) && seen.insert(id) {
                let last = last.entry(key).or_default();
                ensure!(*last < *number, "{key} {number} ({id}) first came at {at}, after {last}");
                *last = *number;
            }
        }
        ensure!(!last.is_empty(), "nothing with a key was delivered");
        Ok(())
    }

    /// Fails when after one of the kills more than one message of a lane came again, or another than the
    /// lane's last, or more than `loose_max` without a key; or one came again without a kill.
    pub(super) fn check_repeats(&self, kills: &[u128], loose_max: usize) -> Result<Repeats> {
        let (mut seen, mut last) = (HashSet::new(), HashMap::<&str, u64>::new());
        let mut after = vec![HashMap::<&str, HashSet<&str>>::new(); kills.len() + 1];
        let mut repeats = Repeats::default();
        for Delivery { at, id, attempt, name: (key, number) } in &self.deliveries {
            let kill = kills.partition_point(|kill| kill < at);
            if seen.insert(&**id) {
                last.insert(key, *number);
                continue;
            }
            repeats.total += 1;
            let of = format!("{key} {number} ({id}) came again as attempt {attempt} after kill {kill}");
            ensure!(kill > 0, "{of}: before any");
            let latest = last[&**key];
            ensure!(!is_keyed(key) || latest == *number, "{of}, and {latest} had come already");
            after[kill].entry(if is_keyed(key) { key } else { "" }).or_default().insert(id);
        }
        for (kill, lanes) in after.iter().enumerate().skip(1) {
            for (key, ids) in lanes {
                let max = if key.is_empty() { loose_max } else { 1 };
                ensure!(ids.len() <= max, "kill {kill}: {} of {key:?} came again: {ids:?}", ids.len());
            }
            *repeats.kills_by_repeats.entry(lanes.values().map(HashSet::len).sum()).or_default() += 1;
        }
        Ok(repeats)
    }

    /// Fails when a letter is dead for another reason than that its attempts were used up.
    pub(super) fn check_dead(&self, attempts: u64) -> Result<()> {
        for letter in &self.dead {
            let used = letter["reason"] == "Exhausted" && letter["attemptsUsed"] == attempts;
            ensure!(used, "it had attempts left: {letter:#}");
        }
        Ok(())
    }

    /// Deliveries per second of a span of nanoseconds.
    #[allow(clippy::cast_precision_loss, reason = "a count and a span of some seconds")]
    pub(super) fn rate(&self, from: u128, to: u128) -> f64 {
        let count = self.deliveries.iter().filter(|delivery| (from..to).contains(&delivery.at)).count();
        count as f64 / ((to - from) as f64 / 1e9)
    }
}

/// Whether the producer gave it an ordering key.
fn is_keyed(name: &str) -> bool {
    name.split_once('-').is_some_and(|(_, rest)| rest.starts_with('k'))
}

/// The ledger of these lines, `ID ATTEMPT KEY NUMBER` of each delivery; a kill came before every `!`.
fn judged(accepted: &[&str], delivered: &[&str]) -> Result<[bool; 4]> {
    let folder = tempfile::tempdir()?;
    let (mut kills, mut lines) = (Vec::new(), String::new());
    for (at, line) in (0u128..).zip(delivered) {
        if *line == "!" { kills.push(at) } else { lines += &format!("{at} {line}\n") }
    }
    let promises: String = accepted.iter().map(|line| format!("0 {line}\n")).collect();
    std::fs::write(folder.path().join("sent"), "p-k0 1\np-k0 2\np-k0 3\np-l1 1\np-l1 2\n")?;
    std::fs::write(folder.path().join("accepted"), promises)?;
    std::fs::write(folder.path().join("delivered"), lines)?;
    let ledger = Ledger::read(folder.path(), Vec::new())?;
    Ok([
        ledger.check_nothing_lost().is_ok(),
        ledger.check_nothing_made_up().is_ok(),
        ledger.check_order().is_ok(),
        ledger.check_repeats(&kills, 1).is_ok(),
    ])
}

#[test]
fn a_ledger_sees_what_is_lost_made_up_out_of_order_or_repeated_too_often() -> Result<()> {
    let promised = ["a p-k0 1", "b p-k0 2", "c p-k0 3"];
    let (a, b, c) = ("a 1 p-k0 1", "b 1 p-k0 2", "c 1 p-k0 3");
    let (again_a, again_b) = ("a 2 p-k0 1", "b 2 p-k0 2");
    let (x, y) = ("x 1 p-l1 1", "y 1 p-l1 2");
    for (delivered, judgement) in [
        (vec![a, b, c], [true, true, true, true]),
        (vec![a, b, "!", again_b, c, x, y], [true, true, true, true]),
        (vec![a, c], [false, true, true, true]),
        (vec![a, b, c, "d 1 p-k0 4"], [true, false, true, true]),
        (vec![a, b, c, "d 1 p-k0 3"], [true, false, false, true]),
        (vec![b, a, c], [true, true, false, true]),
        (vec![a, b, again_b, c], [true, true, true, false]),
        (vec![a, b, "!", again_a, c], [true, true, true, false]),
        (vec![a, b, c, "!", x, y, x, y], [true, true, true, false]),
    ] {
        assert_eq!(judged(&promised, &delivered)?, judgement, "{delivered:?}");
    }
    let twice = ["a p-k0 1", "b p-k0 1"];
    assert!(!judged(&twice, &[a, "b 1 p-k0 1"])?[1], "one message under two ids");
    Ok(())
}
