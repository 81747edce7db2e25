//! image: one file as the disk has it, and what becomes of it when the power goes.

use std::collections::HashMap;

use super::Keep;

pub(super) const SECTOR_BYTES: usize = 512;

/// One file.
#[derive(Debug, Clone, Default)]
pub(super) struct Image {
    pub(super) flushed: Vec<u8>,
    pub(super) since: Vec<Step>,
    /// Its name is on the disk.
    pub(super) named: bool,
    /// Flushes that failed.
    pub(super) failures: u64,
    /// Where the last write ended.
    pub(super) end: usize,
}

#[derive(Debug, Clone)]
pub(super) enum Step {
    Write(usize, Vec<u8>),
    Cut(usize),
}

impl Image {
    pub(super) fn left(&self, keep: Keep, random: &mut fastrand::Rng) -> Vec<u8> {
        let mut bytes = self.flushed.clone();
        match keep {
            Keep::Nothing => {}
            Keep::Everything => self.since.iter().for_each(|step| step.apply(&mut bytes, |_| true)),
            Keep::Torn => {
                let versions = self.versions(random);
                let size =
                    if random.u8(..10) < 7 { self.since.len() } else { random.usize(..=self.since.len()) };
                let mut end = bytes.len();
                for (number, step) in self.since.iter().enumerate() {
                    if number < size {
                        end = step.end(end);
                    } else if matches!(step, Step::Cut(_)) {
                        // What was written behind a cut that did not happen is in blocks nobody finds.
                        break;
                    }
                    step.apply(&mut bytes, |sector| {
                        versions.get(&sector).is_none_or(|steps| number < *steps)
                    });
                }
                bytes.resize(end, 0);
            }
        }
        bytes
    }

    /// For each sector that was touched, how many of the steps it has seen.
    fn versions(&self, random: &mut fastrand::Rng) -> HashMap<usize, usize> {
        let mut touched: HashMap<usize, Vec<usize>> = HashMap::new();
        for (number, step) in self.since.iter().enumerate() {
            if let Step::Write(at, data) = step {
                for sector in at / SECTOR_BYTES..(at + data.len()).div_ceil(SECTOR_BYTES) {
                    touched.entry(sector).or_default().push(number + 1);
                }
            }
        }
        // Mostly lost, mostly there, or anything between.
        let there = [0.02, 0.3, 0.7, 0.98][random.usize(..4)];
        let mut sectors: Vec<_> = touched.into_iter().collect();
        sectors.sort_unstable();
        let mut pick = |steps: &Vec<usize>| {
            if random.f64() < there {
                return steps[steps.len() - 1];
            }
            let seen = random.usize(..=steps.len());
            if seen == 0 || random.bool() { 0 } else { steps[seen - 1] }
        };
        sectors.iter().map(|(sector, steps)| (*sector, pick(steps))).collect()
    }
}

impl Step {
    /// The size behind it.
    pub(super) fn end(&self, before: usize) -> usize {
        match self {
            Self::Write(at, data) => before.max(at + data.len()),
            Self::Cut(bytes) => *bytes,
        }
    }

    fn apply(&self, bytes: &mut Vec<u8>, mut seen: impl FnMut(usize) -> bool) {
        match self {
            Self::Cut(end) => bytes.resize(*end, 0),
            Self::Write(at, data) => {
                let (at, end) = (*at, at + data.len());
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                let mut from = at;
                while from < end {
                    let sector = from / SECTOR_BYTES;
                    let to = end.min((sector + 1) * SECTOR_BYTES);
                    if seen(sector) {
                        bytes[from..to].copy_from_slice(&data[from - at..to - at]);
                    }
                    from = to;
                }
            }
        }
    }
}
