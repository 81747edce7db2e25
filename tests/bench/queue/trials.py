"""trials: what each system of a run goes through, and the questions that are asked once."""
import os, re, shutil, signal, subprocess, threading, time

import mesh as mesh_
from gauges import Refused, cpu_seconds, memory_mib
from report import FLOOR, PRODUCERS

KEYED = ["--lane", "own", "--idempotency"]
KINDS = {"plain": [], "lane and key": KEYED}
# How the room that a backlog leaves below the queue's bound is shared by the cells of one round.
SHARES = {1: 0.10, 16: 0.35, 128: 0.55}
# The seconds that one cell of the store's example lasts.
STORE_SECONDS = 4
STORE_LINE = re.compile(r"^(?P<kind>.+?)\s+(?P<producers>\d+) producers\s+(?P<rate>\d+)/s\s+p50\s+(?P<p50>[\d.]+) ms\s+"
                        r"p99\s+(?P<p99>[\d.]+) ms\s+p99\.9\s+(?P<p999>[\d.]+) ms\s+max\s+(?P<max>[\d.]+) ms\s+rss (?P<rss>\d+) MiB")


class Trials:
    def __init__(self, args, processes, disk, tools, note):
        self.args, self.processes, self.disk, self.tools, self.note = args, processes, disk, tools, note
        self.mesh = mesh_.Mesh(processes, args.bin_dir)
        self.depths, self.seconds = {}, args.seconds

    # ---- one system, measured at each number of producers -----------------------------------

    def floor(self, _round):
        self.note.row(FLOOR, 1, self.disk.floor(self.seconds, True))
        self.note.row("disk: 4 KiB and fdatasync, space already written", 1, self.disk.floor(self.seconds, False))
        self.note.row("disk: 4 KiB and fsync, space already written", 1, self.disk.floor(self.seconds, False, os.fsync))

    def broker(self, broker):
        def trial(_round):
            if "load" not in self.tools:
                raise Refused("the load in Go is not built")
            with broker.running(self.processes, self.tools) as (address, pids):
                self.warm(broker, address)
                for producers in PRODUCERS:
                    command = [self.tools["load"], broker.kind, address, str(producers), str(self.seconds)]
                    self.note.row(broker.name, producers, self.processes.load(command, pids(), self.disk, self.seconds))
        return trial

    def warm(self, broker, address):
        """A port that listens need not be a broker that works yet: it is asked until it does."""
        end = time.monotonic() + 30
        while True:
            try:
                command = [self.tools["load"], broker.kind, address, "1", "0.2"]
                return self.processes.load(command, [], self.disk, 1)
            except Refused:
                if time.monotonic() > end:
                    raise
                time.sleep(0.5)

    def empty(self, kind):
        def trial(_round):
            directory = self.mesh.queue_directory("empty")
            sidecar = self.mesh.start(directory)
            self.note.once("begin", kind="empty", accept_ms=self.mesh.accepting(sidecar) * 1e3)
            for producers in PRODUCERS:
                self.note.row(f"sidecar, {kind}", producers, self.produce(sidecar, producers, KINDS[kind], self.seconds))
            self.mesh.stop(sidecar)
            shutil.rmtree(directory)
        return trial

    def backlog(self, kind):
        def trial(round_):
            if kind not in self.depths:
                self.fill(kind)
            directory = self.mesh.queue_directory("backlog " + kind, fresh=False)
            sidecar = self.reopen(kind, "clean")
            room = (mesh_.MESSAGES_MAX - sidecar.depth()) * 0.95 / (self.args.rounds - round_)
            for producers in PRODUCERS:
                count = max(int(room * SHARES[producers]), 1)
                row = self.produce(sidecar, producers, KINDS[kind], self.seconds, count)
                self.note.row(f"sidecar, {kind}, at {self.args.backlog:,}", producers, row)
            self.depths[kind] = sidecar.depth()
            self.mesh.stop(sidecar, kill=True)
            sidecar = self.reopen(kind, "killed")
            self.mesh.stop(sidecar)
            if round_ == self.args.rounds - 1:
                shutil.rmtree(directory)
        return trial

    def store(self, round_):
        """The store's own example; a cell's cost is taken when its line comes."""
        directory = self.mesh.queue_directory("store")
        child = subprocess.Popen([self.mesh.program("examples/accepts"), str(self.args.backlog)], text=True,
                                 stdout=subprocess.PIPE, env={**os.environ, "ACCEPTS_DIR": directory})
        self.processes.children.append(child)
        bound = threading.Timer(max(self.processes.left(), 30), child.kill)
        bound.start()
        section, lines, rows = "", [], 0
        cost = lambda: (cpu_seconds([child.pid]), self.disk.written())
        cpu, written = cost()
        for line in child.stdout:
            lines.append(line.rstrip())
            now = cost()
            if line.startswith("-- "):
                section = "" if line.startswith("-- empty") else f", at {self.args.backlog:,}"
                # Openings are timed once.
                if "opening alone" in line and (round_ > 0 or self.processes.left() < 60):
                    break
            elif match := STORE_LINE.match(line):
                rows, count = rows + 1, max(int(match["rate"]) * STORE_SECONDS, 1)
                row = {name + "_us": float(match[name]) * 1e3 for name in ("p50", "p99", "p999", "max")}
                self.note.row(f"store, {match['kind']}{section}", int(match["producers"]), {
                    **row, "rate": int(match["rate"]), "rss_mib": int(match["rss"]), "cpu_us": (now[0] - cpu) / count * 1e6,
                    "device_bytes": (now[1] - written) / count if self.disk.counted else None})
            elif line.startswith("opened cold"):
                self.note.say("store" + section + ": " + line.strip())
            cpu, written = now
        bound.cancel()
        self.processes.stop(child, kill=True)
        shutil.rmtree(directory, ignore_errors=True)
        self.note.once("store", lines=lines)
        if not rows:
            raise Refused("the example accepts printed no line that can be read:\n" + "\n".join(lines[:5]))

    # ---- a sidecar, filled and opened again ---------------------------------------------------

    def produce(self, sidecar, producers, flags, seconds, count=None, path="/"):
        command = [self.mesh.program("examples/producers"), sidecar.outbound, mesh_.HOST, path, str(producers), *flags]
        if seconds:
            command += ["--seconds", str(seconds)]
        if count is not None:
            command += ["--count", str(count)]
        lasts = seconds or max(self.processes.left(), 30)
        row = self.processes.load(command, sidecar.pids(), self.disk, lasts, sidecar.depth)
        if refused := row.pop("refused", None):
            self.note.say(f"refused: { {status: many for status, (many, _) in refused.items()} }")
            self.note.once("refused", **refused)
            if not row["accepted"]:
                raise Refused(f"nothing was accepted: {refused}")
        return row

    def fill(self, kind):
        directory = self.mesh.queue_directory("backlog " + kind)
        sidecar = self.mesh.start(directory)
        self.mesh.accepting(sidecar)
        row = self.top_up(sidecar, kind)
        self.mesh.quiet(sidecar)
        self.note.once("memory", kind=kind, messages=sidecar.depth(), filled_per_second=row["rate"], **self.memory(sidecar))
        try:
            self.drain(sidecar, kind)
        except Refused as error:
            self.note.skip("latency while a backlog drains, " + kind, error)
        if sidecar.depth() < self.args.backlog:
            self.top_up(sidecar, kind)
        self.mesh.quiet(sidecar)
        self.depths[kind] = sidecar.depth()
        self.mesh.stop(sidecar)

    def top_up(self, sidecar, kind):
        missing = self.args.backlog - sidecar.depth()
        self.note.say(f"filling with {missing:,}, {kind}")
        return self.produce(sidecar, 128, KINDS[kind], None, missing)

    def memory(self, sidecar):
        return {"rss_mib": memory_mib(sidecar.pids()), "peak_mib": memory_mib(sidecar.pids(), "VmHWM")}

    def reopen(self, kind, end):
        directory = self.mesh.queue_directory("backlog " + kind, fresh=False)
        sidecar, found = self.mesh.reopened(directory, self.depths[kind])
        self.mesh.quiet(sidecar)
        self.note.once("reopen", kind=kind, end=end, messages=self.depths[kind], **found, **self.memory(sidecar))
        return sidecar

    # ---- asked once ----------------------------------------------------------------------------

    def drain(self, sidecar, kind):
        """Accepts while what waits is delivered as fast as it goes."""
        self.mesh.receive()
        try:
            self.mesh.pause(sidecar, False)
            time.sleep(0.5)
            for producers in (1, 16):
                row = self.produce(sidecar, producers, KINDS[kind], self.seconds)
                before, after = row["seen"]
                told = {name: row[name] for name in ("p50_us", "p99_us", "p999_us", "max_us", "rss_mib")}
                self.note.once("drain", kind=kind, producers=producers, left=after, accepted_per_second=row["rate"],
                               delivered_per_second=(before + row["accepted"] - after) / row["seconds"], **told)
        finally:
            self.mesh.pause(sidecar, True)
            self.mesh.receive_no_more()

    def blocked(self, _round):
        """Most messages behind one key whose head is told to come again later; the others must pass."""
        behind, free = self.args.backlog * 9 // 10, self.args.backlog // 10
        self.mesh.receive()
        directory = self.mesh.queue_directory("blocked")
        self.mesh.say({"paused": False})
        sidecar = self.mesh.start(directory)
        try:
            self.mesh.accepting(sidecar)
            row = self.produce(sidecar, 128, ["--lane", "stuck"], None, behind, "/blocked")
            self.note.say(f"{behind:,} behind one key, {row['rate']:.0f}/s; {free:,} with other keys follow")
            begun = time.monotonic()
            self.produce(sidecar, 128, KINDS["lane and key"], None, free)
            gone = lambda: sidecar.depth() <= behind or None
            self.processes.until("the free lanes' end", 120, sidecar.child, gone, pause=0.1)
            passed = free / (time.monotonic() - begun)
            self.mesh.quiet(sidecar)
            self.note.once("blocked", messages=sidecar.depth(), filled_per_second=row["rate"],
                           others_delivered_per_second=passed, **self.memory(sidecar))
        finally:
            self.mesh.stop(sidecar, kill=True)
            self.mesh.say({"paused": True})
            self.mesh.receive_no_more()
            shutil.rmtree(directory)

    def flushed_first(self, _round):
        """strace: between the request and its 202 stands a flush that came back well."""
        if not shutil.which("strace"):
            raise Refused("strace is not installed")
        sidecar = self.mesh.start(self.mesh.queue_directory("strace"))
        out = os.path.join(self.processes.directory, "strace.txt")
        try:
            self.mesh.accepting(sidecar)
            calls = "fdatasync,fsync,pwrite64,pwritev,write,writev,sendto,sendmsg,read,readv,recvfrom,recvmsg"
            tracer = self.processes.start("strace", ["strace", "-f", "-y", "-tt", "-s", "24", "-e", "trace=" + calls,
                                                     "-o", out, "-p", str(sidecar.child.pid)])
            traced = lambda: all_traced(sidecar.child.pid, tracer.pid)
            self.processes.until("strace", 10, tracer, traced)
            self.processes.until("a 202", 10, sidecar.child, sidecar.post)
            tracer.send_signal(signal.SIGINT)
            tracer.wait(10)
        finally:
            self.mesh.stop(sidecar)
        with open(out, errors="replace") as f:
            self.note.once("strace", **order_of(f.read().splitlines()))


def all_traced(pid, tracer):
    """Whether the tracer has every thread of a process; None if not yet."""
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/status") as f:
            if f"TracerPid:\t{tracer}\n" not in f.read():
                return None
    return True


def order_of(lines):
    """The calls between a request that came and its 202, and whether a flush ended well among them."""
    answered = next((at for at, line in enumerate(lines) if "HTTP/1.1 202" in line), None)
    if answered is None:
        raise Refused("strace saw no 202")
    asked = max((at for at in range(answered) if "POST / HTTP" in lines[at]), default=0)
    between = lines[asked:answered + 1]
    kept = [line for line in between if re.search(r"POST / HTTP|HTTP/1.1 202|fdatasync|fsync|pwrite|pwritev", line)]
    flush = [at for at, line in enumerate(kept) if re.search(r"(fdatasync|fsync).*= 0$", line)]
    write = [at for at, line in enumerate(kept) if "pwrite" in line]
    return {"flushed_before_202": bool(flush and write and write[0] < flush[-1]), "calls": kept}
