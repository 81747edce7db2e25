//! kill: a process that writes to a real directory is killed at any moment, again and again.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use store::Store;
use store::message::{Change, Changed, Draft, Position, QueueId, State};

use crate::child::{command, work};
use crate::client::{Client, open, options};
use crate::model::number_of;
use crate::seeds::{is_long, seeds, with_seed};

const NAME: &str = "kill::what_was_acknowledged_survives_every_kill";

#[test]
fn what_was_acknowledged_survives_every_kill() {
    if let Some(work) = work() {
        let (first, directory) = work.split_once(' ').expect("a number and a directory");
        return write_until_killed(first.parse().expect("a number"), Path::new(directory));
    }
    for seed in seeds(1, 1) {
        with_seed("what_was_acknowledged", seed, async || rounds(seed).await);
    }
}

/// What the other process said before it was killed.
#[derive(Default)]
struct Heard {
    stored: BTreeMap<u64, Position>,
    /// It was about to end these.
    ending: BTreeSet<u64>,
    ended: BTreeSet<u64>,
}

async fn rounds(seed: u64) {
    let directory = tempfile::tempdir().expect("a directory can be made");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut heard = Heard::default();
    for round in 0..if is_long() { 500 } else { 50 } {
        let work = format!("{} {}", (round + 1) * 1_000_000, directory.path().display());
        let mut child = command(NAME, &work).stdout(Stdio::piped()).spawn().expect("it starts");
        let mut lines = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let wanted = random.usize(1..400);
        let mut alive = true;
        let mut told = 0;
        // What it said before it died is in the pipe.
        while let Some(Ok(line)) = lines.next() {
            told += usize::from(heard.hears(&line));
            if alive && told >= wanted {
                child.kill().expect("it is killed");
                alive = false;
            }
        }
        let status = child.wait().expect("it is waited for");
        assert!(!alive, "it ended by itself: {status}");
        heard.check(directory.path()).await;
    }
    println!("{} stored, {} ended", heard.stored.len(), heard.ended.len());
}

impl Heard {
    /// One line: a word, a number, a position.
    fn hears(&mut self, line: &str) -> bool {
        let Some((_, said)) = line.split_once("told: ") else { return false };
        let mut words = said.split(' ');
        let (word, number, position) = (words.next(), words.next(), words.next());
        let (Some(word), Some(Ok(number)), Some(Ok(position))) =
            (word, number.map(str::parse), position.map(str::parse))
        else {
            // Cut by the kill.
            return false;
        };
        match word {
            "stored" => {
                let last = self.stored.values().max().copied().unwrap_or_default();
                assert!(
                    Position(position) > last || !self.is_new_life(number),
                    "position {position} is given again"
                );
                self.stored.insert(number, Position(position));
            }
            "ending" => drop(self.ending.insert(number)),
            "ended" => drop(self.ended.insert(number)),
            other => panic!("{other}?"),
        }
        true
    }

    /// The first of a process: the positions of its own come in the order of their answers.
    fn is_new_life(&self, number: u64) -> bool {
        self.stored.keys().next_back().is_none_or(|last| last / 1_000_000 != number / 1_000_000)
    }

    /// Looks into a copy, so that the next process finds what the kill left.
    async fn check(&mut self, directory: &Path) {
        let copy = copy_of(directory);
        let held = open(options(copy.path())).expect("it opens");
        let mut found = BTreeSet::new();
        for entry in &held.entries {
            let loaded =
                held.opened.store.load(entry.position).await.expect("it is read").expect("it is there");
            let number = number_of(&loaded.head).expect("a head of ours");
            assert_eq!(loaded.body, body(number), "message {number} has other bytes");
            assert!(found.insert(number), "message {number} is there twice");
            assert!(!self.ended.contains(&number), "message {number} has ended");
            let position = self.stored.entry(number).or_insert(entry.position);
            assert_eq!(*position, entry.position, "message {number} has moved");
        }
        for number in self.stored.keys() {
            assert!(found.contains(number) || self.ending.contains(number), "message {number} is lost");
        }
        // An unheard end is known now.
        let over = self.ending.iter().filter(|number| !found.contains(number));
        self.ended.extend(over);
    }
}

/// What somebody would find who opened it after a kill.
fn copy_of(directory: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().expect("a directory can be made");
    for name in ["messages.db", "messages.db-wal"] {
        // The first kill may come before there is anything. By another program: this process closing a
        // descriptor of the database would let go the locks of a store that it has open.
        let _ = Command::new("cp").arg(directory.join(name)).arg(copy.path()).stderr(Stdio::null()).status();
    }
    copy
}

fn body(number: u64) -> Bytes {
    let size = [30, 1_000, 5_000, 80_000][usize::try_from(number % 17 / 5).unwrap_or(0)];
    Bytes::from(vec![u8::try_from(number % 251).unwrap_or(0); size])
}

/// The other process: four at a time store and end messages, and say so.
fn write_until_killed(first: u64, directory: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("it starts");
    runtime.block_on(async {
        let held = open(options(directory)).expect("it opens");
        let there: Vec<(u64, Position)> = {
            let mut there = Vec::new();
            for entry in &held.entries {
                let loaded =
                    held.opened.store.load(entry.position).await.expect("it is read").expect("it is there");
                there.push((number_of(&loaded.head).expect("a head of ours"), entry.position));
            }
            there
        };
        let store = held.opened.store;
        let tasks: Vec<_> = (0..4)
            .map(|task| {
                let mine = there.iter().skip(task).step_by(4).copied().collect();
                tokio::spawn(write_on(store.clone(), first + task as u64 * 100_000, mine))
            })
            .collect();
        for task in tasks {
            task.await.expect("it never ends by itself");
        }
    });
}

async fn write_on(store: Store, first: u64, mut there: Vec<(u64, Position)>) {
    for number in first.. {
        let head = Bytes::copy_from_slice(&number.to_le_bytes());
        let (queue, lane, due_at, dedupe) = (QueueId(1), Some(number % 7), None, None);
        let draft = Draft { queue, lane, priority: 3, due_at, head, body: body(number), dedupe };
        match store.write(vec![Change::Append(draft)]).await.as_deref() {
            Ok([Changed::Stored(position)]) => {
                tell("stored", number, *position);
                there.push((number, *position));
            }
            other => panic!("{other:?}"),
        }
        if there.len() > 12 {
            let (number, position) = there.remove(usize::try_from(number % 5).unwrap_or(0));
            tell("ending", number, position);
            let end = Change::End { position, of: State::Waiting, record: None, result: None };
            store.write(vec![end]).await.expect("it is ended");
            tell("ended", number, position);
        }
    }
}

/// One write to the pipe for each.
fn tell(word: &str, number: u64, position: Position) {
    let line = format!("told: {word} {number} {position}\n");
    std::io::stdout().write_all(line.as_bytes()).expect("the pipe takes it");
}

const OUTSIDER: &str = "kill::an_outsider_that_reads_and_closes_takes_nothing_away";

/// The machine's SQLite, mostly an older one.
const OLDER_OUTSIDER: &str = "
import sqlite3, sys
outsider = sqlite3.connect(sys.argv[1] + '/messages.db')
outsider.execute('SELECT count(*) FROM messages').fetchone()
outsider.close()";

#[test]
fn an_outsider_that_reads_and_closes_takes_nothing_away() {
    if let Some(directory) = work() {
        let database = Path::new(&directory).join("messages.db");
        let outsider = rusqlite::Connection::open(database).expect("it opens");
        outsider.query_row("SELECT count(*) FROM messages", [], |_| Ok(())).expect("it reads");
        return outsider.close().expect("it closes");
    }
    with_seed("an_outsider", 1, async || {
        let directory = tempfile::tempdir().expect("a directory can be made");
        let mut client = Client::new(1);
        // The second opening finds a database.
        for opening in 0..2 {
            let held = open(options(directory.path())).expect("it opens");
            held.settle(vec![client.model.clone()]).await.expect("all is there");
            let store = held.opened.store;
            for _ in 0..5 {
                let asks = client.asks();
                client.round(&store, asks).await.expect("it is written");
            }
            let path = directory.path().to_string_lossy().into_owned();
            let mut python = Command::new("python3");
            python.args(["-c", OLDER_OUTSIDER, &path]);
            for mut outsider in [command(OUTSIDER, &path), python] {
                assert!(outsider.status().expect("it starts").success());
                for _ in 0..5 {
                    let asks = client.asks();
                    client.round(&store, asks).await.expect("it is written");
                }
                let held = open(options(copy_of(directory.path()).path())).expect("it opens");
                let settled = held.settle(vec![client.model.clone()]).await;
                settled
                    .unwrap_or_else(|e| panic!("opening {opening}, after {:?}: {e}", outsider.get_program()));
            }
            store.close().await;
        }
        let held = open(options(directory.path())).expect("it opens");
        held.settle(vec![client.model.clone()]).await.expect("all is there");
    });
}
