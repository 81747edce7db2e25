"""processes: starts programs on loopback, asks them, loads them, and ends them by pid."""
import http.client, json, os, signal, socket, subprocess, threading, time

from gauges import Refused, cpu_seconds, memory_mib, tree


def free_port(address="127.0.0.1"):
    with socket.socket() as s:
        s.bind((address, 0))
        return s.getsockname()[1]


def born(pid):
    """When a process began, which tells it from a later one of the same number; None if it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return int(f.read().rsplit(")", 1)[1].split()[19])
    except OSError:
        return None


def ask(address, method, path, headers=None, body=None, timeout=5):
    """One request on a connection of its own: status and body; OSError when nobody answers."""
    connection = http.client.HTTPConnection(address, timeout=timeout)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.read()
    except http.client.HTTPException as error:
        raise OSError(f"{address}{path}: {error!r}") from error
    finally:
        connection.close()


class Processes:
    def __init__(self, directory, deadline):
        self.directory, self.deadline, self.children = directory, deadline, []

    def left(self):
        return self.deadline - time.monotonic()

    def start(self, name, command, **kwargs):
        log = os.path.join(self.directory, name + ".log")
        with open(log, "ab") as f:
            said = f.tell()
            child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=f, stderr=f, **kwargs)
        child.log, child.said = log, said
        self.children.append(child)
        return child

    def until(self, what, seconds, child, look, pause=0.02):
        """Looks until there is an answer; an error that shows what the child said if there is none."""
        end, error = time.monotonic() + min(seconds, max(self.left(), 1)), None
        while time.monotonic() < end:
            try:
                if (found := look()) is not None:
                    return found
            except OSError as e:
                error = e
            if child.poll() is not None:
                error = f"it ended with {child.returncode}"
                break
            time.sleep(pause)
        with open(child.log, errors="replace") as f:
            f.seek(child.said)
            said = f.read()[-2000:]
        raise Refused(f"{what} is not there after {seconds} s: {error}\n{said}")

    def stop(self, child, seconds=10, kill=False):
        """Ends a child and all that came of it."""
        alive = child.poll() is None
        family = [(pid, born(pid)) for pid in tree(child.pid)[1:]] if alive else []
        if alive:
            child.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
            try:
                child.wait(seconds)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        for pid, when in family:
            if when is not None and born(pid) == when:
                os.kill(pid, signal.SIGKILL)
        if child in self.children:
            self.children.remove(child)

    def close(self):
        for child in reversed(self.children[:]):
            self.stop(child, seconds=3)

    def load(self, command, pids, disk, lasts, look=lambda: None):
        """Runs a load that says when it is ready; what it told, and what that cost the servers and the disk.
        Just before and just after it is looked at something."""
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        bound = threading.Timer(lasts + 70, child.kill)
        bound.start()
        try:
            if child.stdout.readline() != "ready\n":
                raise Refused(f"{command[0]}: {child.communicate()[1][-2000:]}")
            before, seen, cpu = disk.settle(), look(), cpu_seconds(pids)
            child.stdin.write("go\n")
            child.stdin.flush()
            text = child.stdout.readline()
            cpu, rss, seen = cpu_seconds(pids) - cpu, memory_mib(pids), (seen, look())
            _, error = child.communicate()
            if child.returncode != 0 or not text:
                raise Refused(f"{' '.join(command[:3])} ended with {child.returncode}: {error[-2000:]}")
        finally:
            bound.cancel()
            if child.poll() is None:
                child.kill()
                child.wait()
        written, told = disk.settle() - before, json.loads(text)
        accepted = max(told["accepted"], 1)
        return {**told, "rate": told["accepted"] / told["seconds"], "cpu_us": cpu / accepted * 1e6,
                "client_cpu_us": told["client_cpu_seconds"] / accepted * 1e6, "rss_mib": rss, "seen": seen,
                "device_bytes": written / accepted if disk.counted else None}
