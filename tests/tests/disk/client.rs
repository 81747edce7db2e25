//! client: random writes on the way together, their answers, and the store opened again after a crash.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use store::message::{Change, Changed, Dedupe, Draft, Position, QueueId, State, Timestamp};
use store::{Event, OpenError, Options, Store, StoreError};
use tempfile::TempDir;

use crate::disk::{Disk, Files};
use crate::model::{Ask, Held, Model, Said, after};
use crate::vfs;

/// Where the real files stand: in memory if there is such a place, since nothing is flushed for real.
pub(crate) fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a directory can be made")
}

/// A directory that is watched.
pub(crate) struct Home {
    pub(crate) disk: Arc<Disk>,
    directory: TempDir,
    failures: Arc<AtomicU64>,
}

impl Home {
    pub(crate) fn with(files: &Files, seed: u64) -> Self {
        let directory = directory();
        Self { disk: Disk::with(directory.path(), files, seed), directory, failures: Arc::default() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// How often the store told of a failure.
    pub(crate) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    pub(crate) fn open(&self, bytes_max: u64) -> Result<Held, OpenError> {
        let failures = Arc::clone(&self.failures);
        let told = Box::new(move |event: Event<'_>| {
            failures.fetch_add(u64::from(matches!(event, Event::Failed)), Ordering::Relaxed);
        });
        open(Options { bytes_max, vfs: Some(vfs::NAME.to_owned()), told, ..options(self.path()) })
    }
}

/// A directory without faults.
pub(crate) fn options(directory: &Path) -> Options {
    let directory = Some(directory.canonicalize().expect("it is there"));
    Options { directory, bytes_max: SMALL, allow_volatile: true, ..Options::default() }
}

pub(crate) fn open(options: Options) -> Result<Held, OpenError> {
    let mut entries = Vec::new();
    let opened = Store::open(options, &mut |entry| entries.push(entry))?;
    Ok(Held { opened, entries })
}

/// The smallest store: its file for writing ahead begins again every 2 MiB.
pub(crate) const SMALL: u64 = store::limits::STORE_BYTES_MIN;

/// Who asks.
pub(crate) struct Client {
    pub(crate) random: fastrand::Rng,
    pub(crate) model: Model,
    now: u64,
    next: u64,
    /// Settles only.
    drains: bool,
    /// Up to 16 bodies are small, up to 21 of some pages, up to 23 of two pieces, beyond of more.
    pub(crate) sizes: u8,
}

impl Client {
    pub(crate) fn new(seed: u64) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        let mut model = Model::default();
        model.evicts = true;
        Self { random, model, now: 1_000, next: 1, drains: false, sizes: 24 }
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp(self.now)
    }

    /// One to four writes.
    pub(crate) fn asks(&mut self) -> Vec<Ask> {
        self.now += self.random.u64(..5);
        (0..self.random.usize(1..=4)).map(|_| self.ask()).collect()
    }

    fn ask(&mut self) -> Ask {
        match self.random.u8(..20) {
            0 => Ask::Queue(format!("q{}", self.random.u8(..4)), self.bytes(40)),
            1 => Ask::Sweep(self.now()),
            _ => Ask::Changes((0..self.random.usize(1..=4)).map(|_| self.change()).collect()),
        }
    }

    fn change(&mut self) -> (u64, Change) {
        let there = self.model.messages.len();
        self.drains |= there > 60;
        self.drains &= there > 8;
        let appends = if self.drains { 1 } else { 6 };
        if there == 0 || self.random.u8(..12) < appends {
            return self.append();
        }
        let index = self.random.usize(..there);
        let (number, message) = self.model.messages.iter().nth(index).expect("it is one of them");
        let (number, state) = (*number, message.state);
        let position = message.position.expect("whoever stored it was told");
        let due_at = self.random.bool().then_some(Timestamp(self.now + 50));
        let change = match (self.random.u8(..10), state) {
            (0..2, _) => Change::Begin(position),
            (2..4, _) => {
                let history = self.random.bool().then(|| self.bytes(300));
                Change::Retry { position, due_at, free: self.random.bool(), history }
            }
            (4..6, State::Waiting) => {
                Change::Bury { position, history: self.bytes(200), result: self.result() }
            }
            (4..7, _) => Change::Redrive { position, due_at },
            (7, _) if self.random.u8(..8) == 0 => Change::Quarantine(position),
            _ => {
                let until = Timestamp(self.now + self.random.u64(..60));
                let record = self.random.bool().then(|| (self.bytes(120), until));
                let result = if record.is_some() { self.result() } else { None };
                Change::End { position, of: state, record, result }
            }
        };
        (number, change)
    }

    pub(crate) fn append(&mut self) -> (u64, Change) {
        let (number, random) = (self.next, &mut self.random);
        self.next += 1;
        let mut head = number.to_le_bytes().to_vec();
        head.extend((0..random.usize(..60)).map(|_| random.u8(..)));
        let dedupe = (random.u8(..3) == 0).then(|| Dedupe {
            key: [random.u8(..12); 16],
            fingerprint: [random.u8(..2); 16],
            now: Timestamp(self.now),
            until: Timestamp(self.now + random.u64(1..80)),
        });
        let size = match random.u8(..self.sizes) {
            0..16 => random.usize(..200),
            16..21 => random.usize(..6_000),
            21..23 => random.usize(60_000..70_000),
            _ => random.usize(100_000..200_000),
        };
        let draft = Draft {
            queue: QueueId(random.u16(1..4)),
            lane: random.bool().then(|| random.u64(..5)),
            priority: random.u8(..8),
            due_at: (random.u8(..4) == 0).then(|| Timestamp(self.now + 20)),
            head: Bytes::from(head),
            body: self.bytes_of(size),
            dedupe,
        };
        (number, Change::Append(draft))
    }

    fn result(&mut self) -> Option<Bytes> {
        let size = if self.random.u8(..12) == 0 { 70_000 } else { 600 };
        self.random.bool().then(|| self.bytes(size))
    }

    fn bytes(&mut self, below: usize) -> Bytes {
        let size = self.random.usize(..below);
        self.bytes_of(size)
    }

    fn bytes_of(&mut self, size: usize) -> Bytes {
        let mut bytes = vec![0; size];
        self.random.fill(&mut bytes);
        Bytes::from(bytes)
    }

    /// Asks all of it at once and takes over the answers; returns what nobody answered, with all that
    /// was asked beside it.
    pub(crate) async fn round(
        &mut self,
        store: &Store,
        asks: Vec<Ask>,
    ) -> Result<Option<Vec<(Ask, Said)>>, String> {
        let asked = self.ask_all(store, asks).await?;
        if asked.iter().any(|(_, said)| matches!(said, Said::Unknown(_))) {
            return Ok(Some(asked));
        }
        if let Some(refused) =
            asked.iter().find(|(ask, said)| !ask.appends() && matches!(said, Said::Full(_)))
        {
            return Err(format!("it refuses what needs no room: {refused:?}"));
        }
        self.model = after(&self.model, &asked)?.swap_remove(0);
        Ok(None)
    }

    /// Asks all of it at once.
    pub(crate) async fn ask_all(&self, store: &Store, asks: Vec<Ask>) -> Result<Vec<(Ask, Said)>, String> {
        ask_all(store, asks).await
    }

    /// Every key that must be known is.
    pub(crate) async fn check_keys(&self, store: &Store) -> Result<(), String> {
        for (dedupe, position) in self.model.keys(self.now()) {
            let dedupe = Dedupe { now: self.now(), ..dedupe };
            let (queue, head, body) = (QueueId(1), Bytes::new(), Bytes::new());
            let draft =
                Draft { queue, lane: None, priority: 0, due_at: None, head, body, dedupe: Some(dedupe) };
            match store.write(vec![Change::Append(draft)]).await {
                Ok(changed) if changed == [Changed::Duplicate { position, same: true }] => {}
                other => return Err(format!("the key of {position} is forgotten: {other:?}")),
            }
        }
        Ok(())
    }

    /// Some messages are read back as they were taken in; or the store says why not.
    ///
    /// # Errors
    /// It says something else.
    pub(crate) async fn check_some(&mut self, store: &Store) -> Result<Result<(), StoreError>, String> {
        for _ in 0..3.min(self.model.messages.len()) {
            let index = self.random.usize(..self.model.messages.len());
            let message = self.model.messages.values().nth(index).expect("it is one of them");
            let position: Position = message.position.expect("whoever stored it was told");
            match store.load(position).await {
                Ok(Some(loaded)) => message.check_bytes(&loaded).map_err(|e| format!("{position}: {e}"))?,
                Ok(None) => return Err(format!("{position} is said to be missing")),
                Err(e) => return Ok(Err(e)),
            }
        }
        Ok(Ok(()))
    }
}

async fn ask_all(store: &Store, asks: Vec<Ask>) -> Result<Vec<(Ask, Said)>, String> {
    let on_their_way: Vec<_> = asks
        .into_iter()
        .map(|ask| {
            let store = store.clone();
            // Tasks of this runtime begin in the order they are made, and so do their writes.
            tokio::spawn(async move {
                let said = tell(&store, &ask).await;
                (ask, said)
            })
        })
        .collect();
    let mut asked = Vec::new();
    for answer in on_their_way {
        let (ask, said) = answer.await.map_err(|e| format!("a write panicked: {e}"))?;
        asked.push((ask, said?));
    }
    Ok(asked)
}

async fn tell(store: &Store, ask: &Ask) -> Result<Said, String> {
    let said = match ask {
        Ask::Changes(changes) => {
            let changes = changes.iter().map(|(_, change)| change.clone()).collect();
            store.write(changes).await.map(Said::Changed)
        }
        Ask::Queue(name, settings) => {
            store.put_queue(name.clone(), settings.clone()).await.map(|_| Said::Done)
        }
        Ask::Sweep(now) => store.sweep(*now).await.map(|_| Said::Done),
    };
    match said {
        Ok(said) => Ok(said),
        Err(StoreError::Full(reason)) => Ok(Said::Full(reason.to_string())),
        Err(StoreError::Poisoned(reason)) if reason.contains("without a word") => {
            Err(format!("a thread of the store panicked: {reason}"))
        }
        Err(StoreError::Poisoned(reason)) => Ok(Said::Unknown(reason.to_string())),
        Err(other) => Err(format!("{ask:?} is answered {other}")),
    }
}
