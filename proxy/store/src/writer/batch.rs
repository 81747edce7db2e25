//! batch: what has gathered becomes one transaction, one flush and many answers.

use std::sync::Arc;

use tokio::sync::mpsc;

use super::{Job, Pending, Reply, Task, Work, Writer};
use crate::Event;
use crate::checkpoint::WalState;
use crate::error::StoreError;
use crate::limits::{
    BATCH_CHANGES_MAX, EVICT_AHEAD_BYTES, PAGE_BYTES, WAL_BACKGROUND_SHARE, WAL_RESTART_SHARE, WAL_TAIL_SHARE,
};
use crate::reader::Read;
use crate::space::Growth;
use crate::sql;
use crate::trouble::{Trouble, described};

/// What each task of a batch is told, in their order.
type Outcomes = Vec<Result<Reply, StoreError>>;

impl Writer<'_> {
    /// Until it is told to close or every handle is gone.
    pub(super) fn serve(&mut self, jobs: &mut mpsc::Receiver<Job>) {
        self.say_condition();
        let mut arrived = Vec::new();
        loop {
            if self.waiting.is_empty() && jobs.blocking_recv_many(&mut arrived, BATCH_CHANGES_MAX) == 0 {
                return;
            }
            for job in arrived.drain(..) {
                self.sort(job, jobs);
            }
            while self.waiting.len() < BATCH_CHANGES_MAX
                && let Ok(job) = jobs.try_recv()
            {
                self.sort(job, jobs);
            }
            let batch = self.next_batch();
            self.write(batch);
        }
    }

    fn sort(&mut self, job: Job, jobs: &mut mpsc::Receiver<Job>) {
        match job {
            Job::Write(task) => self.waiting.push_back(task),
            Job::Read(Read::Stop) => {}
            Job::Read(read) => {
                if let Some(reader) = &mut self.reader {
                    reader.answer_one(read);
                }
            }
            Job::Close => jobs.close(),
        }
    }

    /// As many writes as fit one transaction; a sweep goes alone.
    fn next_batch(&mut self) -> Vec<Task> {
        let mut batch = Vec::with_capacity(self.waiting.len());
        let (mut steps, mut growth) = (0, Growth::default());
        while let Some(task) = self.waiting.front() {
            steps += task.work.changes().len();
            growth = growth.and(Growth::of(task.work.changes()));
            let alone = matches!(task.work, Work::Sweep { .. });
            let fits = steps <= BATCH_CHANGES_MAX
                && growth.append_bytes <= self.budget.batch_bytes
                && growth.pages() <= self.budget.batch_pages;
            if !batch.is_empty() && (alone || !fits) {
                break;
            }
            batch.extend(self.waiting.pop_front());
            if alone {
                break;
            }
        }
        batch
    }

    /// Writes a batch and answers everybody in it.
    fn write(&mut self, mut batch: Vec<Task>) {
        if batch.is_empty() {
            return;
        }
        if let Some(refusal @ StoreError::Poisoned(_)) = self.shared.refusal() {
            return answer_all(batch, &refusal);
        }
        self.shared.tell(Event::Begins);
        let growth =
            batch.iter().fold(Growth::default(), |sum, task| sum.and(Growth::of(task.work.changes())));
        match self.write_as_it_can(&batch, &growth) {
            Ok(outcomes) => {
                self.committed();
                self.say_condition();
                self.answer(batch.drain(..).zip(outcomes));
                self.copy_behind();
            }
            Err(refusal) => {
                // Poison was told when it was found.
                if !matches!(refusal, StoreError::Poisoned(_)) {
                    self.shared.tell(Event::Failed);
                }
                answer_all(batch, &refusal);
            }
        }
    }

    /// Everything; or all but the appends, when there is no room; or that with the ballast given back.
    fn write_as_it_can(&mut self, batch: &[Task], growth: &Growth) -> Result<Outcomes, StoreError> {
        if let Err(reason) = self.restart_wal(growth.pages()) {
            return Err(self.refuse(&reason));
        }
        let refused = self.full_disk(growth).map_err(|trouble| self.refuse(&trouble))?;
        match self.attempt(batch, growth, refused.as_ref()) {
            Err(Trouble::Full(_)) => {}
            other => return other.map_err(|trouble| self.refuse(&trouble)),
        }
        let reason = self.disk_is_full(growth);
        match self.attempt(batch, growth, Some(&reason)) {
            Err(Trouble::Full(_)) => {}
            other => return other.map_err(|trouble| self.refuse(&trouble)),
        }
        self.give_ballast();
        // What was written ahead goes to where it has room, and its file begins again: settles need no more
        // of the disk then. If even that does not fit, they are refused as full.
        if let Err(trouble @ Trouble::Broken(_)) = self.copy_all(sql::CHECKPOINT_RESTART) {
            return Err(self.refuse(&trouble));
        }
        self.attempt(batch, growth, Some(&reason)).map_err(|trouble| self.refuse(&trouble))
    }

    fn refuse(&mut self, trouble: &Trouble) -> StoreError {
        match trouble {
            Trouble::Full(reason) | Trouble::Busy(reason) => {
                let reason: Arc<str> = Arc::from(reason.as_str());
                self.full = Some(Arc::clone(&reason));
                self.shared.set_full(self.full.as_ref());
                StoreError::Full(reason)
            }
            Trouble::Broken(reason) => self.shared.poison(reason),
        }
    }

    /// One transaction; when it fails, everything is as it was before.
    fn attempt(
        &mut self,
        batch: &[Task],
        growth: &Growth,
        refused: Option<&Arc<str>>,
    ) -> Result<Outcomes, Trouble> {
        self.pending = Pending::default();
        let (positions, clean) = (self.positions, self.clean);
        let outcomes = self.transaction(batch, growth, refused);
        if outcomes.is_err() {
            (self.positions, self.clean) = (positions, clean);
            self.dedupe.forget(self.pending.dedupe_rows);
            // SQLite rolls back by itself on some errors.
            if !self.connection.is_autocommit() {
                self.statements.rollback.execute([]).map_err(|e| Trouble::Broken(described(&e)))?;
            }
        }
        outcomes
    }

    fn transaction(
        &mut self,
        batch: &[Task],
        growth: &Growth,
        refused: Option<&Arc<str>>,
    ) -> Result<Outcomes, Trouble> {
        self.statements.begin.execute([])?;
        let mut room = self.make_room(growth)?;
        let mut outcomes = Vec::with_capacity(batch.len());
        for task in batch {
            outcomes.push(match self.refusal_of(&task.work, &mut room, refused)? {
                Some(refusal) => Err(refusal),
                None => Ok(self.perform(&task.work)?),
            });
        }
        self.drop_known_keys()?;
        if self.clean && !batch.iter().all(|task| task.work.asks()) {
            self.statements.meta_next.execute([self.positions.reserved as i64])?;
            self.clean = false;
        }
        self.statements.commit.execute([])?;
        Ok(outcomes)
    }

    /// It is flushed: now it counts, and whoever keeps an index hears of it first.
    fn committed(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        for (queue, more) in pending.messages {
            let count = self.messages.entry(queue).or_default();
            *count = count.saturating_add_signed(more);
        }
        if let Some(last) = pending.dropped {
            self.dedupe.dropped(last);
        }
        if let Some(looked) = pending.looked {
            self.expiry.looked(looked);
        }
        self.shared.tell(Event::Committed(&pending.entries));
    }

    fn answer(&mut self, outcomes: impl Iterator<Item = (Task, Result<Reply, StoreError>)>) {
        for (mut task, outcome) in outcomes {
            if let (Work::Sweep { removed, .. }, Ok(Reply::Swept(more))) = (&mut task.work, &outcome) {
                *removed += more;
                if self.sweep_goes_on() {
                    self.waiting.push_back(task);
                    continue;
                }
                let removed = *removed;
                let _ = task.answer.send(Ok(Reply::Swept(removed)));
                continue;
            }
            // Whoever asked may have gone: it is done, unheard.
            let _ = task.answer.send(outcome);
        }
    }

    /// After a batch, before its answers: says how full the store is.
    fn say_condition(&mut self) {
        let used = match self.used_pages() {
            Ok(used) => used,
            Err(error) => return self.ask_failed(&error),
        };
        self.shared.set_bytes(self.budget.fixed_bytes + used * PAGE_BYTES);
        let room = self.budget.append_pages.saturating_sub(used);
        if !self.disk_full && room >= self.wanted.max(EVICT_AHEAD_BYTES / PAGE_BYTES) {
            self.full = None;
        }
        self.shared.set_full(self.full.as_ref());
    }

    /// After the answers: has copied what was written ahead.
    fn copy_behind(&mut self) {
        let Some(background) = self.background else { return };
        match self.statements.wal_state.query_row([], WalState::read) {
            Ok(wal) => self.wal = wal,
            Err(error) => return self.ask_failed(&error),
        }
        let bound = self.budget.wal_frames;
        // A reader of what is copied already does not keep the file from beginning again.
        self.shared.set_wal_waits(self.wal.written >= bound / WAL_RESTART_SHARE && self.wal.left() > 0);
        if self.shared.checkpoint.runs() {
            return;
        }
        if self.wal.written >= bound / WAL_RESTART_SHARE && self.wal.left() <= bound / WAL_TAIL_SHARE {
            // At its edge the next batch says what stands in the way.
            let _ = self.copy_all(sql::CHECKPOINT);
        } else if self.wal.left() >= bound / WAL_BACKGROUND_SHARE {
            background.wake(&self.shared);
        }
    }

    fn ask_failed(&self, error: &rusqlite::Error) {
        self.shared.poison(&described(error));
    }

    /// Makes sure that `pages` more fit the bound of the file for writing ahead.
    fn restart_wal(&mut self, pages: u64) -> Result<(), Trouble> {
        if self.background.is_none() || self.wal.written + pages <= self.budget.wal_frames {
            return Ok(());
        }
        self.shared.checkpoint.wait();
        match self.copy_all(sql::CHECKPOINT_RESTART) {
            Err(Trouble::Full(_)) => {
                self.give_ballast();
                self.copy_all(sql::CHECKPOINT_RESTART)?;
            }
            copied => copied?,
        }
        if self.wal.left() == 0 {
            return Ok(());
        }
        Err(Trouble::Busy(
            "the file for writing ahead is at its bound: something reads it for too long".to_owned(),
        ))
    }

    /// Copies into the database on this thread.
    pub(super) fn copy_all(&mut self, how: &str) -> Result<(), Trouble> {
        self.shared.set_wal_waits(true);
        self.shared.check.wait();
        let copied = self.connection.query_row(how, [], WalState::read).map_err(Trouble::from);
        match copied {
            Ok(wal) => {
                self.shared.set_wal_waits(wal.left() > 0);
                self.wal = wal;
                // The next frame goes to the beginning again.
                if wal.left() == 0 {
                    self.wal = WalState::default();
                }
                Ok(())
            }
            Err(Trouble::Broken(reason)) => {
                self.shared.poison(&reason);
                Err(Trouble::Broken(reason))
            }
            Err(other) => Err(other),
        }
    }
}

fn answer_all(batch: Vec<Task>, refusal: &StoreError) {
    for task in batch {
        let _ = task.answer.send(Err(refusal.clone()));
    }
}
