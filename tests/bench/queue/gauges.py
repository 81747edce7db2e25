"""gauges: what a run costs: processor time, memory, bytes on the device; and the device's own rate."""
import os, re, statistics, time

TICKS = os.sysconf("SC_CLK_TCK")
SECTOR = 512
FORGETFUL = {"tmpfs", "ramfs", "devtmpfs", "overlay", "nfs", "nfs4", "9p", "fuse", "virtiofs"}


class Refused(Exception):
    """What cannot be measured here, and why."""


def tree(pid):
    """A process and all that came of it, as they stand."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as f:
                    parents.setdefault(int(f.read().rsplit(")", 1)[1].split()[1]), []).append(int(name))
            except OSError:
                pass  # it ended meanwhile
    found, look = [], [pid]
    while look:
        found.append(look.pop())
        look += parents.get(found[-1], [])
    return found


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/stat") as f:
                fields = f.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def busy_share():
    """The part of all cores that was not idle during a second."""
    def look():
        with open("/proc/stat") as f:
            ticks = [int(word) for word in f.readline().split()[1:9]]
        return sum(ticks), ticks[3] + ticks[4]

    before = look()
    time.sleep(1)
    now = look()
    return 1 - (now[1] - before[1]) / max(now[0] - before[0], 1)


def memory_mib(pids, field="VmRSS"):
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/status") as f:
                total += int(re.search(field + r":\s+(\d+)", f.read()).group(1))
        except (OSError, AttributeError):
            continue
    return total / 1024


def quantiles(seconds):
    """Microseconds at p50, p99, p999 and the longest."""
    took = sorted(seconds)
    at = lambda permille: round(took[(len(took) - 1) * permille // 1000] * 1e6)
    return {"p50_us": at(500), "p99_us": at(990), "p999_us": at(999), "max_us": at(1000)}


class Disk:
    """The file system under a directory, and the device under that."""

    def __init__(self, directory):
        self.directory = directory
        device = os.stat(directory).st_dev
        self.number = f"{os.major(device)}:{os.minor(device)}"
        self.kind, self.source = "unknown", "?"
        with open("/proc/self/mountinfo") as f:
            for line in f:
                left, right = line.split(" - ")
                if left.split()[2] == self.number:
                    self.kind, self.source = right.split()[:2]
        if self.kind in FORGETFUL:
            raise Refused(f"{directory} is on {self.kind}: a flush there says nothing about a disk")
        self.stat = f"/sys/dev/block/{self.number}/stat"
        self.counted = os.path.exists(self.stat)

    def written(self):
        """Bytes the device was given so far, by everybody."""
        if not self.counted:
            return 0
        with open(self.stat) as f:
            return int(f.read().split()[6]) * SECTOR

    def settle(self):
        """What is dirty now is written before the next one is charged for it."""
        os.sync()
        return self.written()

    def floor(self, seconds, grown, flush=os.fdatasync):
        """Writes 4 KiB and flushes, one after the other: into a growing file, or where was written before."""
        path, block, blocks = os.path.join(self.directory, "floor"), b"f" * 4096, 16384
        fd = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_RDWR, 0o600)
        try:
            if not grown:
                for _ in range(blocks // 256):
                    os.write(fd, block * 256)
                os.fsync(fd)
            before, cpu = self.settle(), time.process_time()
            took, begun = [], time.monotonic()
            while (sent := time.monotonic()) - begun < seconds:
                os.pwrite(fd, block, (len(took) if grown else len(took) % blocks) * len(block))
                flush(fd)
                took.append(time.monotonic() - sent)
            lasted, cpu = time.monotonic() - begun, time.process_time() - cpu
            written = self.settle() - before
        finally:
            os.close(fd)
            os.unlink(path)
        return {"accepted": len(took), "seconds": lasted, "rate": len(took) / lasted, **quantiles(took),
                "cpu_us": cpu / len(took) * 1e6, "device_bytes": written / len(took) if self.counted else None}


def medians(rows):
    """One row of many: the median of every figure that all of them have."""
    figures = {}
    for name, value in rows[0].items():
        values = [row.get(name) for row in rows]
        if isinstance(value, (int, float)) and all(isinstance(v, (int, float)) for v in values):
            figures[name] = statistics.median(values)
    return figures
