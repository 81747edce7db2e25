//! producers: posts over HTTP/1.1, each waiting for its 202, to measure durable accepts.
//!
//! Each producer has one connection of its own and one request on it. Requests are laid out before
//! and answers are read by hand, so that on a small machine the load takes little from what it
//! measures. When every connection is there it prints `ready` and waits for a line; then it runs and
//! prints one line of JSON. See tests/bench/queue.py.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

const BODY_BYTES: usize = 1024;
/// Bytes of an answer's head and body together; a longer one is a mistake.
const ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long one answer may take.
const PATIENCE: Duration = Duration::from_secs(30);
const USAGE: &str = "usage: producers ADDRESS HOST PATH PRODUCERS \
    (--seconds S | --count N | both) [--lane own|NAME] [--idempotency]";

/// What is asked, and how often.
struct Plan {
    address: String,
    host: String,
    path: String,
    producers: usize,
    time: Duration,
    count: u64,
    lane: Option<String>,
    idempotency: bool,
    /// Tells the keys of this run from those of another.
    run: u128,
}

/// What all producers share.
struct Shared {
    plan: Plan,
    begun: Cell<u64>,
    refused: RefCell<BTreeMap<u16, (u64, String)>>,
}

impl Plan {
    fn read(mut arguments: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut next = || arguments.next().ok_or_else(|| anyhow::anyhow!(USAGE));
        let run = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
        let mut plan = Self {
            address: next()?,
            host: next()?,
            path: next()?,
            producers: next()?.parse()?,
            time: Duration::MAX,
            count: u64::MAX,
            lane: None,
            idempotency: false,
            run,
        };
        while let Ok(flag) = next() {
            match flag.as_str() {
                "--seconds" => plan.time = Duration::try_from_secs_f64(next()?.parse()?)?,
                "--count" => plan.count = next()?.parse()?,
                "--lane" => plan.lane = Some(next()?),
                "--idempotency" => plan.idempotency = true,
                _ => anyhow::bail!("{flag}? {USAGE}"),
            }
        }
        anyhow::ensure!(plan.time != Duration::MAX || plan.count != u64::MAX, USAGE);
        anyhow::ensure!(plan.producers > 0, USAGE);
        Ok(plan)
    }

    /// Lays out request `number` in `out`.
    fn request(&self, number: u64, out: &mut Vec<u8>) {
        out.clear();
        let Self { path, host, .. } = self;
        let head = format!("POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-length: {BODY_BYTES}\r\n");
        out.extend_from_slice(head.as_bytes());
        match self.lane.as_deref() {
            Some("own") => {
                out.extend_from_slice(format!("tidegate-key: {:x}-{number}\r\n", self.run).as_bytes())
            }
            Some(name) => out.extend_from_slice(format!("tidegate-key: {name}\r\n").as_bytes()),
            None => {}
        }
        if self.idempotency {
            out.extend_from_slice(format!("idempotency-key: \"{:x}-{number}\"\r\n", self.run).as_bytes());
        }
        out.extend_from_slice(b"content-type: application/octet-stream\r\n\r\n");
        out.resize(out.len() + BODY_BYTES, b'b');
    }
}

/// Where the head ends, its status and the length of the whole answer.
fn head(bytes: &[u8]) -> anyhow::Result<Option<(u16, usize)>> {
    let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
    let text = std::str::from_utf8(&bytes[..end])?;
    let status = text.get(9..12).and_then(|code| code.parse().ok());
    let length = text.split("\r\n").skip(1).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
    });
    match (status, length) {
        (Some(status), Some(length)) => Ok(Some((status, end + 4 + length))),
        _ => anyhow::bail!("an answer without a status or a length: {text}"),
    }
}

/// Reads one answer: its status, and `buffer` holds it whole.
async fn answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<u16> {
    buffer.clear();
    let mut known = None;
    loop {
        if known.is_none() {
            known = head(buffer)?;
        }
        if let Some((status, whole)) = known
            && buffer.len() >= whole
        {
            anyhow::ensure!(buffer.len() == whole, "more came than one answer");
            return Ok(status);
        }
        anyhow::ensure!(buffer.len() < ANSWER_BYTES_MAX, "an answer of more than {ANSWER_BYTES_MAX} bytes");
        anyhow::ensure!(stream.read_buf(buffer).await? > 0, "the connection ended within an answer");
    }
}

/// Posts until the time or the count is over; says how many microseconds each 202 took.
async fn produce(
    mut stream: TcpStream,
    shared: Rc<Shared>,
    until: Option<Instant>,
) -> anyhow::Result<Vec<u32>> {
    let (mut request, mut buffer, mut took) = (Vec::new(), Vec::with_capacity(4096), Vec::new());
    let plan = &shared.plan;
    while shared.begun.get() < plan.count {
        let begun = Instant::now();
        if until.is_some_and(|until| begun >= until) {
            break;
        }
        let number = shared.begun.replace(shared.begun.get() + 1);
        plan.request(number, &mut request);
        stream.write_all(&request).await?;
        let status = tokio::time::timeout(PATIENCE, answer(&mut stream, &mut buffer)).await??;
        if status == 202 {
            took.push(u32::try_from(begun.elapsed().as_micros())?);
            continue;
        }
        let mut refused = shared.refused.borrow_mut();
        let entry =
            refused.entry(status).or_insert_with(|| (0, String::from_utf8_lossy(&buffer).into_owned()));
        entry.0 += 1;
    }
    Ok(took)
}

/// Seconds of processor time of this process, in hundredths.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

async fn run(plan: Plan) -> anyhow::Result<()> {
    let mut streams = Vec::new();
    for _ in 0..plan.producers {
        let stream = TcpStream::connect(&plan.address).await?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    println!("ready");
    std::io::stdout().flush()?;
    std::io::stdin().read_line(&mut String::new())?;
    let shared = Rc::new(Shared { plan, begun: Cell::new(0), refused: RefCell::default() });
    let (begun, cpu) = (Instant::now(), cpu_seconds());
    let until = begun.checked_add(shared.plan.time);
    let tasks: Vec<_> = streams
        .into_iter()
        .map(|stream| tokio::task::spawn_local(produce(stream, shared.clone(), until)))
        .collect();
    let mut took = Vec::new();
    for task in tasks {
        took.extend(task.await??);
    }
    let (seconds, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    took.sort_unstable();
    let at = |permille: usize| took.get(took.len().saturating_sub(1) * permille / 1000).copied().unwrap_or(0);
    let refused = shared.refused.borrow();
    let refused: BTreeMap<_, _> = refused.iter().map(|(status, why)| (status.to_string(), why)).collect();
    let told = serde_json::json!({"accepted": took.len(), "seconds": seconds, "p50_us": at(500), "p99_us": at(990),
        "p999_us": at(999), "max_us": at(1000), "client_cpu_seconds": cpu, "refused": refused});
    println!("{told}");
    Ok(())
}

fn main() -> anyhow::Result<()> {
    let plan = Plan::read(std::env::args().skip(1))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, run(plan))
}
