"""brokers: JetStream, RabbitMQ and Redis, each made durable as far as it says it can be."""
import contextlib, os, shutil, socket

from gauges import Refused, tree
from processes import free_port

RABBITMQ = "/usr/lib/rabbitmq/bin/rabbitmq-server"


def listens(address):
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=2):
        return True


class Broker:
    """A server of its own in a new directory, for as long as `running` lasts."""

    def __init__(self, name, kind, start):
        self.name, self.kind, self.begin = name, kind, start

    @contextlib.contextmanager
    def running(self, processes, tools):
        directory = os.path.join(processes.directory, self.kind)
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory)
        address = f"127.0.0.1:{free_port()}"
        children = self.begin(processes, tools, directory, address)
        try:
            processes.until(self.name, 60, children[-1], lambda: listens(address), pause=0.1)
            yield address, lambda: [pid for child in children for pid in tree(child.pid)]
        finally:
            for child in reversed(children):
                processes.stop(child, kill=True)
            shutil.rmtree(directory, ignore_errors=True)


def jetstream(sync):
    def start(processes, tools, directory, address):
        if not tools.get("nats-server"):
            raise Refused("nats-server cannot be had from PyPI")
        setting = f"sync_interval: {sync}" if sync else ""
        with open(os.path.join(directory, "nats.conf"), "w") as f:
            f.write(f"listen: {address}\njetstream {{ store_dir: \"{directory}\", max_file_store: 64GB\n{setting} }}\n")
        return [processes.start("nats-server", [tools["nats-server"], "-c", os.path.join(directory, "nats.conf")])]
    return start


def redis(processes, _tools, directory, address):
    if not shutil.which("redis-server"):
        raise Refused("redis-server is not installed")
    command = ["redis-server", "--bind", "127.0.0.1", "--port", address.rsplit(":", 1)[1], "--dir", directory,
               "--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0", "--save", ""]
    return [processes.start("redis", command)]


def rabbitmq(processes, _tools, directory, address):
    if not os.path.exists(RABBITMQ) or not shutil.which("epmd"):
        raise Refused("rabbitmq-server is not installed")
    # The daemon that names Erlang's nodes would outlive the broker that starts it: so it is ours.
    names = str(free_port())
    epmd = processes.start("epmd", ["epmd", "-address", "127.0.0.1", "-port", names])
    local = "-kernel inet_dist_use_interface {127,0,0,1}"
    environment = {
        "PATH": os.environ["PATH"], "HOME": directory, "LANG": "C.UTF-8", "RUNNING_UNDER_SYSTEMD": "true",
        "ERL_EPMD_ADDRESS": "127.0.0.1", "ERL_EPMD_PORT": names, "RABBITMQ_NODENAME": "bench@localhost",
        "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1", "RABBITMQ_NODE_PORT": address.rsplit(":", 1)[1],
        "RABBITMQ_DIST_PORT": str(free_port()), "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": local,
        "RABBITMQ_MNESIA_BASE": f"{directory}/mnesia", "RABBITMQ_LOG_BASE": f"{directory}/log",
        "RABBITMQ_PID_FILE": f"{directory}/pid", "RABBITMQ_CONF_ENV_FILE": f"{directory}/none",
        "RABBITMQ_CONFIG_FILE": f"{directory}/rabbitmq", "RABBITMQ_ENABLED_PLUGINS_FILE": f"{directory}/plugins",
        "RABBITMQ_GENERATED_CONFIG_DIR": f"{directory}/generated", "RABBITMQ_FEATURE_FLAGS_FILE": f"{directory}/flags"}
    # The broker stops its publishers when little of the disk is left; elsewhere that is not looked at.
    with open(f"{directory}/rabbitmq.conf", "w") as f:
        f.write("disk_free_limit.absolute = 1GB\nlog.file.level = warning\n")
    return [epmd, processes.start("rabbitmq", [RABBITMQ], env=environment)]


BROKERS = [
    Broker("JetStream, sync always", "jetstream", jetstream("always")),
    Broker("JetStream, default (not flushed at the ack)", "jetstream", jetstream(None)),
    Broker("RabbitMQ, quorum queue, confirms", "rabbitmq", rabbitmq),
    Broker("Redis stream, appendfsync always", "redis", redis),
]
