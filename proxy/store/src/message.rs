//! message: the words for a message on disk, and for each step that changes one.

use std::fmt;

use bytes::Bytes;

/// Milliseconds since the Unix epoch. The store has no clock: whoever calls says when it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub u64);

/// Where a message stands in the order of acceptance: ascending, never used twice in a directory's
/// life, below 2⁴⁰.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position(pub u64);

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A queue's number in its directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(pub u16);

/// A queue as it is known to the disk, so that its messages can be handled before anybody has said
/// again what it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueRow {
    /// Its number.
    pub id: QueueId,
    /// Its name.
    pub name: String,
    /// Whatever its owner wants to find again.
    pub settings: Bytes,
}

/// A message to be stored.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Where it belongs.
    pub queue: QueueId,
    /// The hash of its ordering key.
    pub lane: Option<u64>,
    /// 0, the most urgent, to 7 (RFC 9218).
    pub priority: u8,
    /// Not handed out before.
    pub due_at: Option<Timestamp>,
    /// What its owner wants to know of it without the body.
    pub head: Bytes,
    /// The body.
    pub body: Bytes,
    /// Refuse it if one of the same key is known.
    pub dedupe: Option<Dedupe>,
}

/// How a repetition is recognised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dedupe {
    /// Scope and key, hashed.
    pub key: [u8; 16],
    /// The content, hashed.
    pub fingerprint: [u8; 16],
    /// When it is taken in: a row of the same key is looked for among those still valid now.
    pub now: Timestamp,
    /// How long it is remembered.
    pub until: Timestamp,
}

/// Where a stored message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// To be delivered.
    Waiting,
    /// In the dead letter.
    Dead,
    /// What is stored does not fit its checksum: kept for an operator, never delivered.
    Quarantined,
}

/// What an index holds of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// Its position, by which it is found.
    pub position: Position,
    /// Its rank in its lane and queue: the position, or a later number after a redrive.
    pub order: u64,
    /// Its queue.
    pub queue: QueueId,
    /// The hash of its ordering key.
    pub lane: Option<u64>,
    /// 0 to 7.
    pub priority: u8,
    /// Not handed out before.
    pub due_at: Option<Timestamp>,
    /// Attempts used up, a begun one included.
    pub attempts: u16,
    /// An attempt was begun and nobody knows how it ended.
    pub begun: bool,
    /// A history is kept with it: an attempt of this life has ended, be it one that was free. A redrive
    /// begins another life.
    pub tried: bool,
    /// Bytes of head and body.
    pub bytes: u32,
    /// Where it stands.
    pub state: State,
}

/// A message, read and checked.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// As in the index.
    pub entry: Entry,
    /// Its head.
    pub head: Bytes,
    /// Its body.
    pub body: Bytes,
    /// What [`Change::Retry`] or [`Change::Bury`] last said of its attempts; empty before.
    pub history: Bytes,
    /// The response kept with a dead letter; `None` also if it is damaged.
    pub result: Option<Bytes>,
}

/// What is left of a message that has ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// What [`Change::End`] said.
    pub record: Bytes,
    /// The result kept with it; `None` if there was none, it had to make room, or it is damaged.
    pub result: Option<Bytes>,
    /// How long it is kept.
    pub keep_until: Timestamp,
}

/// One step of one message. Steps given together are one write: all of them or none.
#[derive(Debug, Clone)]
pub enum Change {
    /// Store it.
    Append(Draft),
    /// An attempt begins: `attempts` goes up by one and `begun` is set.
    Begin(Position),
    /// An attempt has failed: `begun` is cleared, the message waits until `due_at`.
    Retry {
        /// The message.
        position: Position,
        /// Not handed out before; `None`: at once.
        due_at: Option<Timestamp>,
        /// The attempt was none: `attempts` goes down by one again.
        free: bool,
        /// Replaces the history; `None` leaves it as it is.
        history: Option<Bytes>,
    },
    /// It is over: the message goes, a record may stay.
    End {
        /// The message.
        position: Position,
        /// Where it must stand: one that has moved since stays, and is answered [`Changed::Missing`].
        of: State,
        /// What stays, and until when. `None`: nothing.
        record: Option<(Bytes, Timestamp)>,
        /// The result kept with the record.
        result: Option<Bytes>,
    },
    /// It goes to the dead letter: `begun` is cleared.
    Bury {
        /// The message.
        position: Position,
        /// Replaces the history.
        history: Bytes,
        /// The response kept with it.
        result: Option<Bytes>,
    },
    /// It comes back from the dead letter: at the tail, with no attempts, history or result.
    Redrive {
        /// The message.
        position: Position,
        /// Not handed out before.
        due_at: Option<Timestamp>,
    },
    /// Its bytes are wrong: set aside.
    Quarantine(Position),
}

/// What became of one [`Change`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changed {
    /// Stored here.
    Stored(Position),
    /// One of the same key is known: nothing was stored.
    Duplicate {
        /// The message of that key, which may have ended since.
        position: Position,
        /// Their contents are equal.
        same: bool,
    },
    /// Done. For a redrive: its new rank.
    Done {
        /// The rank after a redrive, 0 otherwise.
        order: u64,
    },
    /// There is no such message, or it does not stand where the step begins: nothing was done.
    Missing,
}
