//! accepts: durable accepts a second, whole lives a second, the time of an opening, and memory.
//!
//! `cargo run --release -p store --example accepts [backlog [open]]` in a directory on the disk to be measured
//! (`ACCEPTS_DIR`, else `target/tmp`). The backlog is a million messages of 1 KiB unless said
//! otherwise; `open` measures openings alone.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use store::message::{Change, Changed, Dedupe, Draft, QueueId, State, Timestamp};
use store::{Options, Store};

const SECONDS: u64 = 4;
const BODY_BYTES: usize = 1024;

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    /// With a lane and a key of its own.
    Keyed,
    /// Accepted, begun and ended, each flushed.
    Life,
}

fn draft(kind: Kind) -> Draft {
    let dedupe = Dedupe {
        key: fastrand::u128(..).to_le_bytes(),
        fingerprint: fastrand::u128(..).to_le_bytes(),
        now: Timestamp(1_000),
        until: Timestamp(86_401_000),
    };
    Draft {
        queue: QueueId(1),
        lane: (kind != Kind::Plain).then(|| fastrand::u64(..)),
        priority: 3,
        due_at: None,
        head: Bytes::from_static(&[b'h'; 128]),
        body: Bytes::from_static(&[b'b'; BODY_BYTES]),
        dedupe: (kind == Kind::Keyed).then_some(dedupe),
    }
}

fn open(directory: &Path) -> (Store, u64, Duration) {
    let begun = Instant::now();
    let mut found = 0;
    let options =
        Options { directory: Some(directory.to_owned()), bytes_max: 16 << 30, ..Options::default() };
    let opened = Store::open(options, &mut |_| found += 1).expect("it opens");
    (opened.store, found, begun.elapsed())
}

async fn life(store: &Store, kind: Kind) {
    let stored = store.write(vec![Change::Append(draft(kind))]).await.expect("it is written");
    if kind != Kind::Life {
        return;
    }
    let Changed::Stored(position) = stored[0] else { panic!("it is new") };
    store.write(vec![Change::Begin(position)]).await.expect("it is written");
    let record = Some((Bytes::from_static(&[b'r'; 64]), Timestamp(1)));
    store
        .write(vec![Change::End { position, of: State::Waiting, record, result: None }])
        .await
        .expect("it is written");
}

/// Runs `producers` for some seconds; prints how many lives, and how long one took.
async fn measure(store: &Store, producers: u64, kind: Kind, name: &str) {
    let lives = Arc::new(AtomicU64::new(0));
    let begun = Instant::now();
    let until = begun + Duration::from_secs(SECONDS);
    let tasks: Vec<_> = (0..producers)
        .map(|_| {
            let (store, lives) = (store.clone(), Arc::clone(&lives));
            tokio::spawn(async move {
                let mut took = Vec::new();
                while Instant::now() < until {
                    let begun = Instant::now();
                    life(&store, kind).await;
                    took.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
                    lives.fetch_add(1, Ordering::Relaxed);
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await.expect("it does not panic"));
    }
    took.sort_unstable();
    let at = |permille: usize| f64::from(took[(took.len() - 1) * permille / 1000]) / 1000.0;
    let rate = lives.load(Ordering::Relaxed) as f64 / begun.elapsed().as_secs_f64();
    println!(
        "{name:<34} {producers:>4} producers {rate:>9.0}/s   p50 {:>7.2} ms  p99 {:>7.2} ms  p99.9 {:>7.2} ms  max {:>7.2} ms  rss {} MiB",
        at(500),
        at(990),
        at(999),
        at(1000),
        rss_mib()
    );
}

async fn fill(store: &Store, count: u64, kind: Kind) {
    let begun = Instant::now();
    for _ in 0..count / 500 {
        let batch = (0..500).map(|_| Change::Append(draft(kind))).collect();
        store.write(batch).await.expect("it is written");
    }
    println!("filled with {count} in {:.1} s, rss {} MiB", begun.elapsed().as_secs_f64(), rss_mib());
}

/// Seconds of processor time of this process, in hundredths.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

fn rss_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap_or_default();
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
}

fn fresh(name: &str) -> PathBuf {
    let root = std::env::var_os("ACCEPTS_DIR").map_or_else(|| PathBuf::from("target/tmp"), PathBuf::from);
    let directory = root.join(format!("accepts-{name}"));
    let _ = std::fs::remove_dir_all(&directory);
    directory
}

async fn rounds(kinds: &[(Kind, &str)], backlog: u64, keyed: Kind) {
    let directory = fresh("rounds");
    let (store, _, _) = open(&directory);
    fill(&store, backlog, keyed).await;
    for (kind, name) in kinds {
        for producers in [1, 16, 128] {
            measure(&store, producers, *kind, name).await;
        }
    }
    let begun = Instant::now();
    store.close().await;
    println!("closed in {:.2} s", begun.elapsed().as_secs_f64());
    let before = cpu_seconds();
    let (store, found, took) = open(&directory);
    println!("cpu of the opening {:.2} s", cpu_seconds() - before);
    println!("opened cold with {found} messages in {:.3} s, rss {} MiB", took.as_secs_f64(), rss_mib());
    store.close().await;
    let _ = std::fs::remove_dir_all(&directory);
}

fn main() {
    let backlog = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    let opening_alone = std::env::args().nth(2).is_some_and(|what| what == "open");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.expect("a runtime").block_on(async {
        let kinds =
            [(Kind::Plain, "plain"), (Kind::Keyed, "lane and key"), (Kind::Life, "accept, begin, end")];
        if !opening_alone {
            println!("-- empty");
            rounds(&kinds, 0, Kind::Plain).await;
            println!("-- backlog of {backlog}, each with lane and key");
            rounds(&kinds, backlog, Kind::Keyed).await;
        }
        for (kind, name) in [(Kind::Plain, "plain"), (Kind::Keyed, "each with lane and key")] {
            println!("-- backlog of {backlog}, {name}, opening alone");
            rounds(&[], backlog, kind).await;
        }
    });
}
