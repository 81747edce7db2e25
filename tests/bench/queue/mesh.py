"""mesh: a controller on a directory of manifests, one sidecar as the client's proxy, and a receiver."""
import json, os, shutil, threading, time

from gauges import Refused, cpu_seconds
from processes import ask, free_port

HOST, RECEIVER = "orders.shop.svc.cluster.local:8080", "127.0.3.1"
MESSAGES_MAX = 2_000_000
QUEUE = {"maxBytes": "12Gi", "maxMessages": MESSAGES_MAX}
QUIET_CPU_SHARE = 0.05


def objects(port, spec):
    annotations = {"tidegate.dev/inject": "enabled"}
    meta = lambda name, **more: {"name": name, "namespace": "shop", **more}
    pod = lambda name, ip, annotations: {
        "apiVersion": "v1", "kind": "Pod", "metadata": meta(name, labels={"app": name}, annotations=annotations),
        "spec": {"serviceAccountName": name, "containers": [{"name": "app"}]},
        "status": {"podIP": ip, "conditions": [{"type": "Ready", "status": "True"}]}}
    ports = [{"name": "http", "port": port, "protocol": "TCP"}]
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}},
        pod("web", "127.0.3.2", annotations), pod("orders", RECEIVER, {}),
        {"apiVersion": "v1", "kind": "Service", "metadata": meta("orders"),
         "spec": {"clusterIP": "10.96.0.9", "ports": [{**ports[0], "port": 8080, "targetPort": port}]}},
        {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "ports": ports,
         "metadata": meta("orders-1", labels={"kubernetes.io/service-name": "orders"}),
         "endpoints": [{"addresses": [RECEIVER], "conditions": {"ready": True},
                        "targetRef": {"kind": "Pod", "name": "orders", "namespace": "shop"}}]},
        {"apiVersion": "tidegate.dev/v1alpha1", "kind": "AsyncPolicy", "metadata": meta("orders-async"),
         "spec": {"targetRefs": [{"group": "", "kind": "Service", "name": "orders"}], "mode": "Always",
                  "queue": QUEUE, "rateLimits": {"maxConcurrentDispatches": 100}, **spec}}]


class Sidecar:
    """The sidecar of web, while it runs."""

    def __init__(self, child, outbound, admin):
        self.child, self.outbound, self.admin = child, outbound, admin
        self.begun = time.monotonic()

    def pids(self):
        return [self.child.pid]

    def post(self):
        """One message: whether it was accepted."""
        status, _ = ask(self.outbound, "POST", "/", {"Host": HOST}, b"b" * 1024)
        return status == 202 or None

    def overview(self):
        """The only queue, as an operator sees it; None before there is one."""
        status, body = ask(self.admin, "GET", "/queues")
        queues = json.loads(body)["queues"] if status == 200 else []
        return queues[0] if queues else None

    def depth(self):
        view = self.overview()
        return view["depth"] if view else 0


class Mesh:
    def __init__(self, processes, bin_dir):
        self.processes, self.bin_dir = processes, bin_dir
        self.directory = os.path.join(processes.directory, "mesh")
        os.makedirs(os.path.join(self.directory, "manifests"))
        self.port = free_port(RECEIVER)
        self.receiver = None
        self.say({"paused": True})
        self.controller, self.admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        self.command = [self.program("tidegate-controller"), "--manifests", f"{self.directory}/manifests",
                        "--state", f"{self.directory}/state", "--listen", self.controller, "--admin", self.admin]
        child = processes.start("controller", self.command)
        processes.until("the controller", 20, child, lambda: ask(self.admin, "GET", "/ready")[0] == 200 or None)

    def program(self, name):
        return os.path.join(self.bin_dir, name)

    def say(self, spec):
        """The policy's words, from now on."""
        path = os.path.join(self.directory, "manifests", "all.yaml")
        with open(path + ".new", "w") as f:
            f.write("\n---\n".join(json.dumps(o) for o in objects(self.port, spec)))
        os.rename(path + ".new", path)

    def pause(self, sidecar, paused):
        """Stops or begins deliveries, and waits until the sidecar has heard of it."""
        self.say({"paused": paused})
        heard = lambda: (sidecar.overview() or {}).get("paused", False) == ("policy" if paused else None) or None
        self.processes.until("the policy", 20, sidecar.child, heard)

    def receive(self):
        """An nginx that answers 200, and at /blocked 503 to come again in ten minutes."""
        if not shutil.which("nginx"):
            raise Refused("nginx is not installed")
        conf = os.path.join(self.directory, "receiver.conf")
        with open(conf, "w") as f:
            f.write(f"""worker_processes 1; daemon off; pid {self.directory}/nginx.pid; error_log stderr error;
                events {{ worker_connections 4096; }}
                http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {self.directory}/b;
                  proxy_temp_path {self.directory}/p; fastcgi_temp_path {self.directory}/f;
                  uwsgi_temp_path {self.directory}/u; scgi_temp_path {self.directory}/s;
                  server {{ listen {RECEIVER}:{self.port} backlog=4096; location / {{ return 200 'taken'; }}
                    location /blocked {{ add_header Retry-After 600 always; return 503 'later'; }} }} }}""")
        self.receiver = self.processes.start("receiver", ["nginx", "-c", conf, "-p", self.directory, "-e", "stderr"])
        address = f"{RECEIVER}:{self.port}"
        self.processes.until("the receiver", 10, self.receiver, lambda: ask(address, "GET", "/")[0] == 200 or None)

    def receive_no_more(self):
        if self.receiver:
            self.processes.stop(self.receiver)
            self.receiver = None

    def queue_directory(self, name, fresh=True):
        path = os.path.join(self.processes.directory, name)
        if fresh:
            shutil.rmtree(path, ignore_errors=True)
            os.makedirs(path)
        return path

    def start(self, queue_directory):
        """A sidecar that was only just started."""
        outbound, admin = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
        return Sidecar(self.processes.start("sidecar", [
            self.program("tidegate-proxy"), "--controller", self.controller, "--anchors", f"{self.directory}/state/anchors.pem",
            "--token-file", f"{self.directory}/state/tokens/shop.web.token", "--namespace", "shop",
            "--service-account", "web", "--pod", "web", "--outbound", outbound, "--admin", admin,
            "--inbound", f"127.0.3.2:{free_port('127.0.3.2')}", "--queue-directory", queue_directory,
            "--queue-bytes-max", "16Gi", "--drain-grace", "1s", "--workers", "1", "--log", "warn"]), outbound, admin)

    def accepting(self, sidecar):
        self.processes.until("the first 202", 60, sidecar.child, sidecar.post, pause=0.002)
        return time.monotonic() - sidecar.begun

    def reopened(self, queue_directory, depth):
        """Starts a sidecar on what is there: it, and the milliseconds to its first 202 and to `/queues`."""
        sidecar, found = self.start(queue_directory), {}

        def look():
            view = lambda: sidecar.depth() >= depth or None
            try:
                self.processes.until("/queues", 60, sidecar.child, view, pause=0.002)
                found["queues_ms"] = (time.monotonic() - sidecar.begun) * 1e3
            except Refused as error:
                found["error"] = str(error)

        watcher = threading.Thread(target=look)
        watcher.start()
        found["accept_ms"] = self.accepting(sidecar) * 1e3
        watcher.join()
        if "error" in found:
            raise Refused(found["error"])
        return sidecar, found

    def quiet(self, sidecar, seconds=20):
        """Waits until the sidecar has nothing to do: what an opening leaves to the background is over."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            cpu = cpu_seconds(sidecar.pids())
            time.sleep(0.5)
            if cpu_seconds(sidecar.pids()) - cpu < QUIET_CPU_SHARE * 0.5:
                return

    def stop(self, sidecar, kill=False):
        self.processes.stop(sidecar.child, seconds=30, kill=kill)
