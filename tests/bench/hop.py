#!/usr/bin/env python3
"""hop: what one hop costs, side by side in one run.

Starts an nginx that answers 1 KiB (named below as direct), and in front of it by turns: a bare
hyper forwarder, nginx as a proxy, Tidegate's outbound hop in plaintext, and Tidegate's two hops
with mTLS. Each is loaded by wrk with 32 connections; the variants alternate, and the medians of the
rounds are printed. CPU is that of the proxy's own processes (utime + stime from /proc) divided by
the requests that wrk counted; ratios are to the bare forwarder.

    cargo build --release --bins -p sidecar -p controller && cargo build --release -p tests --examples
    tests/bench/hop.py [--rounds 3] [--seconds 8] [--connections 32] [--bin-dir target/release]

Needs wrk and nginx (Debian packages wrk, nginx-light). Runs on loopback, ends what it started.
"""
import argparse, json, os, re, shutil, signal, socket, statistics, subprocess, sys, tempfile, time, urllib.request

TICKS = os.sysconf("SC_CLK_TCK")
BACKEND, HOST = "127.0.3.1", "orders.shop.svc.cluster.local:8080"


def free_port(address="127.0.0.1"):
    with socket.socket() as s:
        s.bind((address, 0))
        return s.getsockname()[1]


class Bench:
    def __init__(self, args):
        self.args, self.children = args, []
        self.dir = tempfile.mkdtemp(prefix="tidegate-hop-")

    def start(self, name, command, **kwargs):
        log = open(os.path.join(self.dir, name + ".log"), "w")
        child = subprocess.Popen(command, stdout=log, stderr=log, **kwargs)
        self.children.append((name, child))
        return child

    def write(self, name, text):
        path = os.path.join(self.dir, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as f:
            f.write(text)
        return path

    def program(self, name):
        path = os.path.join(self.args.bin_dir, name)
        if not os.path.exists(path):
            sys.exit(f"hop: {path} is missing: build it first (see --help)")
        return path

    def nginx(self, name, listen, location):
        conf = self.write(name + ".conf", f"""
            worker_processes 1; daemon off; pid {self.dir}/{name}.pid; error_log stderr error;
            events {{ worker_connections 4096; }}
            http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {self.dir}/b;
              proxy_temp_path {self.dir}/p; fastcgi_temp_path {self.dir}/f; uwsgi_temp_path {self.dir}/u;
              scgi_temp_path {self.dir}/s;
              upstream backend {{ server {BACKEND}:8080; keepalive 128; keepalive_requests 1000000000; }}
              server {{ listen {listen} backlog=4096; {location} }} }}""")
        return self.start(name, ["nginx", "-c", conf, "-p", self.dir, "-e", "stderr"])

    def wait_http(self, url, seconds=20, host=None):
        end = time.monotonic() + seconds
        while True:
            try:
                request = urllib.request.Request(url, headers={"Host": host} if host else {})
                with urllib.request.urlopen(request, timeout=2) as response:
                    return response.read()
            except OSError as error:
                if time.monotonic() > end:
                    for name, child in self.children:
                        with open(os.path.join(self.dir, name + ".log")) as f:
                            print(f"--- {name}\n{f.read()[-2000:]}", file=sys.stderr)
                    sys.exit(f"hop: {url} did not answer within {seconds} s: {error}")
                time.sleep(0.05)

    def sidecar(self, name, outbound, inbound, admin, account, pod):
        return self.start(name, [
            self.program("tidegate-proxy"), "--controller", self.controller, "--anchors",
            f"{self.dir}/state/anchors.pem", "--token-file", f"{self.dir}/state/tokens/shop.{account}.token",
            "--namespace", "shop", "--service-account", account, "--pod", pod, "--outbound", outbound,
            "--inbound", inbound, "--admin", admin, "--log", "warn"])

    def manifests(self, inbound_port, meshed):
        annotations = {"tidegate.dev/inject": "enabled", "tidegate.dev/proxy-inbound-port": str(inbound_port)}
        def pod(name, ip, annotations):
            return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "shop",
                    "labels": {"app": name}, "annotations": annotations},
                    "spec": {"serviceAccountName": name, "containers": [{"name": "app"}]},
                    "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]}}
        def service(name):
            return [{"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"},
                     "spec": {"clusterIP": "10.96.0.9" if name == "orders" else "10.96.0.8",
                              "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}]}},
                    {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                     "metadata": {"name": name + "-1", "namespace": "shop",
                                  "labels": {"kubernetes.io/service-name": name}},
                     "addressType": "IPv4", "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
                     "endpoints": [{"addresses": [BACKEND], "conditions": {"ready": True},
                                    "targetRef": {"kind": "Pod", "name": name, "namespace": "shop"}}]}]
        objects = [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
                   pod("web", "127.0.3.2", annotations), pod("orders", BACKEND, annotations if meshed else {})]
        return "\n---\n".join(json.dumps(o) for o in objects + service("orders"))

    def mesh(self, meshed):
        """A controller and the sidecars of web and orders; returns the outbound address and the sidecars."""
        tag = "mtls" if meshed else "plain"
        self.dir_before, inbound = self.dir, free_port(BACKEND)
        self.dir = os.path.join(self.dir, tag)
        os.makedirs(self.dir)
        self.write("manifests/all.yaml", self.manifests(inbound, meshed))
        self.controller = f"127.0.0.1:{free_port()}"
        controller_admin = f"127.0.0.1:{free_port()}"
        self.start("controller", [self.program("tidegate-controller"), "--manifests", f"{self.dir}/manifests",
                   "--state", f"{self.dir}/state", "--listen", self.controller, "--admin", controller_admin])
        self.wait_http(f"http://{controller_admin}/ready")
        outbound, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        proxies = [self.sidecar("web-proxy", outbound, f"127.0.3.2:{free_port('127.0.3.2')}", admin, "web", "web")]
        self.wait_http(f"http://{admin}/ready")
        if meshed:
            admin = f"127.0.0.1:{free_port()}"
            proxies.append(self.sidecar("orders-proxy", f"127.0.0.1:{free_port()}", f"{BACKEND}:{inbound}", admin,
                                        "orders", "orders"))
            self.wait_http(f"http://{admin}/ready")
        self.wait_http(f"http://{outbound}/", host=HOST)
        self.dir = self.dir_before
        return outbound, proxies

    def load(self, address, host):
        command = ["wrk", "-t1", f"-c{self.args.connections}", f"-d{self.args.seconds}s", "--latency",
                   "-H", f"Host: {host}", f"http://{address}/"]
        out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        if "Non-2xx" in out or "Socket errors" in out:
            sys.exit(f"hop: the load on {address} was not answered cleanly:\n{out}")
        requests = int(re.search(r"(\d+) requests in", out).group(1))
        p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", out)
        scale = {"us": 1, "ms": 1e3, "s": 1e6}[p99.group(2)]
        return requests, float(p99.group(1)) * scale

    def close(self):
        for _, child in self.children:
            child.send_signal(signal.SIGTERM)
        for _, child in self.children:
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
        shutil.rmtree(self.dir, ignore_errors=True)


def cpu_seconds(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as f:
            fields = f.read().rsplit(")", 1)[1].split()
        total += int(fields[11]) + int(fields[12])
    return total / TICKS


def rss_mib(pids):
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/status") as f:
            total += int(re.search(r"VmRSS:\s+(\d+)", f.read()).group(1))
    return total / 1024


def workers(child):
    """An nginx works in the child of the process that was started."""
    with open(f"/proc/{child.pid}/task/{child.pid}/children") as f:
        return [child.pid] + [int(pid) for pid in f.read().split()]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=8)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--bin-dir", default="target/release")
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--only", help="comma-separated names of variants to run")
    args = parser.parse_args()
    bench = Bench(args)
    try:
        bench.nginx("backend", f"{BACKEND}:8080", f"location / {{ return 200 '{'x' * 1024}'; }}")
        bench.wait_http(f"http://{BACKEND}:8080/")
        variants = {"direct": (f"{BACKEND}:8080", [])}
        bare = f"127.0.0.1:{free_port()}"
        child = bench.start("bare", [bench.program("examples/bare_forwarder"), bare, f"{BACKEND}:8080"])
        bench.wait_http(f"http://{bare}/")
        variants["bare hyper forwarder"] = (bare, [child.pid])
        front = f"127.0.0.1:{free_port()}"
        child = bench.nginx("front", front, "location / { proxy_pass http://backend; proxy_http_version 1.1;"
                            " proxy_set_header Connection ''; proxy_set_header Host $host; }")
        bench.wait_http(f"http://{front}/")
        variants["nginx"] = (front, workers(child))
        outbound, proxies = bench.mesh(meshed=False)
        variants["tidegate, outbound hop"] = (outbound, [p.pid for p in proxies])
        outbound, proxies = bench.mesh(meshed=True)
        variants["tidegate, two hops, mTLS"] = (outbound, [p.pid for p in proxies])
        if args.only:
            variants = {name: v for name, v in variants.items() if name in args.only.split(",")}
        idle = {name: rss_mib(pids) for name, (_, pids) in variants.items()}
        rows = {name: [] for name in variants}
        for round_ in range(args.rounds):
            for name, (address, pids) in variants.items():
                before = cpu_seconds(pids)
                requests, p99 = bench.load(address, HOST)
                cpu = (cpu_seconds(pids) - before) / requests * 1e6
                rows[name].append((requests / args.seconds, cpu, p99, rss_mib(pids)))
                print(f"round {round_ + 1}: {name}: {requests / args.seconds:.0f}/s, {cpu:.1f} µs", file=sys.stderr)
        figures = {name: [statistics.median(c) for c in zip(*measured)] for name, measured in rows.items()}
        base = figures.get("bare hyper forwarder", [0, 0])[1]
        print(f"| {'in front of nginx':26} | requests/s | CPU µs/request | × bare | p99 µs | MiB idle | MiB loaded |")
        print("|---|---|---|---|---|---|---|")
        for name, (rate, cpu, p99, loaded) in figures.items():
            ratio = f"{cpu / base:.2f}" if base and cpu else "-"
            print(f"| {name:26} | {rate:.0f} | {cpu:.1f} | {ratio} | {p99:.0f} | {idle[name]:.1f} | {loaded:.1f} |")
        if args.json:
            with open(args.json, "w") as f:
                json.dump({"figures": figures, "idle": idle}, f, indent=1)
    finally:
        bench.close()


if __name__ == "__main__":
    main()
