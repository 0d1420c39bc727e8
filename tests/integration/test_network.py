"""[sandbox] network: named namespaces as ip-netns(8) makes them, shared by two jails, and what none and private give. The
test has a mount namespace and a /run/netns of its own."""

import os
import pathlib
import signal
import subprocess

import pytest

import jailtest
from jailtest import Instance, send, wait_for

WEB = """
version = 1
[tree]
binaries = ["/bin/busybox"]
users    = ["nobody"]
files    = [{ to = "/srv/index.html", text = "served\\n" }]
[service]
command  = ["/bin/busybox", "httpd", "-f", "-p", "PORT", "-h", "/srv"]
user     = "nobody"
ready    = ["listen", "check"]
ready_timeout = "1s"
restart  = { on = "never" }
[sandbox]
network  = "NETWORK"
syscalls = ["@default", "@network-server"]
ports    = { listen = [LISTEN] }
[check]
command  = ["busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:PORT/"]
expect   = "served"
"""
NETNS = pathlib.Path("/run/netns")


@pytest.fixture(scope="module", autouse=True)
def world():
    jailtest.own_network()
    with jailtest.own_mounts():
        yield


@pytest.fixture
def instance():
    with Instance() as it:
        it.start_jaild()
        yield it


@pytest.fixture
def blue():
    yield from namespace("blue")


def namespace(name):
    subprocess.run(["ip", "netns", "add", name], check=True)
    subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
    yield NETNS / name
    subprocess.run(["ip", "netns", "delete", name], check=True)


def web(it, name, network, port=8080, listen=()):
    """Serves at `port`; its manifest names `listen`, that port alone by default."""
    ports = ", ".join(f'"tcp:{number}"' for number in listen or [port])
    text = WEB.replace("NETWORK", network).replace("LISTEN", ports).replace("PORT", str(port))
    it.manifest(name, text)
    it.run("build", name)


def network_of(pid):
    return os.stat(f"/proc/{pid}/ns/net").st_ino


def fetch(port=8080, namespace=None):
    enter = ["nsenter", f"--net={namespace}"] if namespace else []
    done = subprocess.run(
        [*enter, "busybox", "wget", "-q", "-O", "-", f"http://127.0.0.1:{port}/"],
        capture_output=True, text=True, env={"PATH": os.environ["PATH"]},  # without a proxy
    )
    return done.stdout if done.returncode == 0 else None


def test_it_serves_in_the_namespace_and_nowhere_else(instance, blue):
    web(instance, "web", "netns:blue")
    instance.run("start", "web")
    status = instance.status("web")
    assert status["state"] == "ready"
    assert network_of(status["pid"]) == os.stat(blue).st_ino != network_of(os.getpid())
    assert fetch(namespace=blue) == "served\n"
    assert fetch() is None
    # It is there after jaild's death, and in the namespace of that name after a restart.
    old = instance.supervisors()["jaild_pid"]
    send(old, signal.SIGKILL)
    wait_for(lambda: instance.supervisors().get("jaild_pid") not in (None, 0, old), what="a new jaild")
    assert instance.status("web")["pid"] == status["pid"]
    subprocess.run(["ip", "netns", "delete", "blue"], check=True)
    again = namespace("blue")
    next(again)
    instance.run("restart", "web")
    assert network_of(instance.status("web")["pid"]) == os.stat(blue).st_ino
    assert fetch(namespace=blue) == "served\n"


def test_two_jails_share_it_but_not_their_readiness(instance, blue):
    web(instance, "one", "netns:blue", 8080)
    web(instance, "two", "netns:blue", 8081)
    web(instance, "liar", "netns:blue", 8082, listen=[8080, 8082])  # waits for a port that only "one" has
    instance.run("start", "one", "two")
    one, two = (instance.status(name) for name in ("one", "two"))
    assert one["state"] == two["state"] == "ready"
    assert network_of(one["pid"]) == network_of(two["pid"])
    assert [fetch(port, blue) for port in (8080, 8081)] == ["served\n"] * 2
    assert instance.run("start", "liar", status=None).returncode != 0
    liar = instance.status("liar")
    assert liar["state"] == "failed"
    assert "tcp:8080" in liar["reason"]


def test_a_port_that_the_manifest_does_not_name_is_not_opened(instance, blue):
    features = instance.json("doctor", status=None)["features"]
    if not next(line["present"] for line in features if line["name"] == "landlock-net"):
        pytest.skip("this kernel has no rules for ports")
    web(instance, "web", "netns:blue", 8083, listen=[8080])
    assert instance.run("start", "web", status=None).returncode != 0
    status = instance.status("web")
    assert status["reason"].startswith("exited") and any("ermission denied" in line for line in status["last_lines"])
    web(instance, "web", "netns:blue", 8083)
    instance.run("start", "web")
    assert fetch(8083, blue) == "served\n"
    assert "ports of udp" in instance.run("status", "web", "--verbose").stdout
    instance.run("stop", "web")


def test_a_missing_namespace_is_an_error_that_says_what_to_do(instance):
    web(instance, "web", "netns:green")
    done = instance.run("start", "web", status=None)
    assert done.returncode != 0
    assert "ip netns add green" in done.stderr
    status = instance.status("web")
    assert status["state"] == "failed" and "ip netns add green" in status["reason"]
    green = namespace("green")
    next(green)
    instance.run("start", "web")
    assert instance.status("web")["state"] == "ready"
    instance.run("stop", "web")
    next(green, None)


def plain_file():
    (NETNS / "red").write_text("")


def fifo():
    os.mkfifo(NETNS / "red")


def link():
    (NETNS / "red").symlink_to("/proc/self/ns/net")


def other_namespace():
    (NETNS / "red").write_text("")
    subprocess.run(["mount", "--bind", "/proc/self/ns/uts", NETNS / "red"], check=True)


@pytest.mark.parametrize("make", [plain_file, fifo, link, other_namespace])
def test_what_is_no_network_namespace_is_not_entered(instance, make):
    NETNS.mkdir(exist_ok=True)
    make()
    try:
        web(instance, "web", "netns:red")
        assert instance.run("start", "web", status=None).returncode != 0
        assert "/run/netns/red is not a network namespace" in instance.status("web")["reason"]
    finally:
        subprocess.run(["umount", NETNS / "red"], capture_output=True)
        (NETNS / "red").unlink()


def test_a_directory_that_others_may_change_is_not_trusted(instance, blue):
    web(instance, "web", "netns:blue")
    NETNS.chmod(0o777)
    try:
        assert instance.run("start", "web", status=None).returncode != 0
        assert "/run/netns: others than root may change it" in instance.status("web")["reason"]
    finally:
        NETNS.chmod(0o755)
    instance.run("start", "web")
    assert instance.status("web")["state"] == "ready"


def test_private_has_a_loopback_and_none_has_nothing(instance):
    web(instance, "own", "private")
    instance.run("start", "own")
    status = instance.status("own")
    assert status["state"] == "ready"
    assert network_of(status["pid"]) != network_of(os.getpid())
    assert fetch() is None
    up = subprocess.run(["nsenter", f"--net=/proc/{status['pid']}/ns/net", "ip", "-o", "link", "show", "up"], capture_output=True, text=True)
    assert [line.split(":")[1].strip() for line in up.stdout.splitlines()] == ["lo"]

    web(instance, "dark", "none")
    assert instance.run("start", "dark", status=None).returncode != 0
    assert "the check" in instance.status("dark")["reason"], "nothing is up: not even itself is reached"
