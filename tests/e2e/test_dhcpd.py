"""ISC dhcpd and dhcrelay in their jails, from the manifests and the example configuration that we ship, against real
clients: udhcpc, dhclient and perfdhcp.

    client:c0 ------ s0           192.0.2.0/24, 2001:db8:0:1::/64: served
      idle:i1 ------ i0           10.9.0.0/24: not declared, so not served
                     u0 --------- 198.51.100.0/24 -- u1:relay:d0 -- 203.0.113.0/24 -- f0:far
                  this namespace                  dhcrelay's own

All of it is in namespaces of this test: its network, and its mounts (for /run/netns, and for users that Debian's
packages do not make)."""

import os
import pathlib
import re
import signal
import subprocess
import time

import pytest

import jailtest
from jailtest import REPO, Instance, send, wait_for

NET_BIND, NET_RAW = 1 << 10, 1 << 13
SCRIPT = """#!/bin/sh
# For udhcpc (its word is $1) and dhclient (its is $reason): gives the interface its address, and nothing else.
case ${1:-$reason} in
  bound | renew) ip addr replace "$ip/24" dev "$interface" ;;
  BOUND | RENEW | REBIND | REBOOT) ip addr replace "$new_ip_address/24" dev "$interface" ;;
  BOUND6 | RENEW6 | REBIND6) ip addr replace "$new_ip6_address/128" dev "$interface" ;;
  deconfig | RELEASE | EXPIRE | STOP) ip -4 addr flush dev "$interface" ;;
  RELEASE6 | EXPIRE6 | STOP6) ip -6 addr del "$old_ip6_address/128" dev "$interface" ;;
esac
exit 0
"""


def ip(*words, namespace=None):
    subprocess.run(["ip", *(["-n", namespace] if namespace else []), *words], check=True)


def inside(namespace, *words):
    return ["nsenter", f"--net=/run/netns/{namespace}", *map(str, words)]


def setting(namespace, name, value):
    """A sysctl of the network namespace."""
    enter = inside(namespace) if namespace else []
    subprocess.run([*enter, "sh", "-c", f"echo {value} > /proc/sys/net/{name}"], check=True)


def cable(here, there, namespace, address=None, peer_address=None, here_namespace=None):
    ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", namespace, namespace=here_namespace)
    for name, where, number in ((here, here_namespace, address), (there, namespace, peer_address)):
        if number:
            ip("addr", "add", number, "dev", name, namespace=where)
        ip("link", "set", name, "up", namespace=where)


@pytest.fixture(scope="module")
def world():
    with jailtest.own_mounts(users=["dhcpd", "dhcrelay"]):
        for namespace in ("client", "idle", "relay", "far"):
            ip("netns", "add", namespace)
        for namespace in (None, "client", "idle", "relay", "far"):
            setting(namespace, "ipv6/conf/default/accept_dad", 0)
        cable("s0", "c0", "client", "192.0.2.1/24")
        ip("addr", "add", "2001:db8:0:1::1/64", "dev", "s0")
        cable("i0", "i1", "idle", "10.9.0.1/24")
        cable("u0", "u1", "relay", "198.51.100.1/24", "198.51.100.2/24")
        cable("d0", "f0", "far", "203.0.113.1/24", here_namespace="relay")
        ip("route", "add", "203.0.113.0/24", "via", "198.51.100.2")
        setting("relay", "ipv4/ip_forward", 1)
        yield
        for namespace in ("client", "idle", "relay", "far"):
            ip("netns", "delete", namespace)


@pytest.fixture(scope="module")
def instance(world):
    with Instance() as it:
        it.config = it.init("dhcpd") / "dhcpd.conf"
        it.init("dhcpd6")
        text = re.sub(r"^#(subnet|  |})", r"\1", it.config.read_text(), flags=re.M)  # the network behind a relay
        it.config.write_text(text + "min-lease-time 10;\n")
        (it.home / "script").write_text(SCRIPT)
        (it.home / "script").chmod(0o755)
        it.run("init", "dhcrelay")
        relay = it.home / "manifests/dhcrelay.toml.d/50-init.toml"
        relay.write_text(with_names(relay.read_text(), "eth1", "d0", "eth0", "u1") + '[sandbox]\nnetwork = "netns:relay"\n')
        for name in ("dhcpd", "dhcpd6", "dhcrelay"):
            it.run("build", name)
        it.start_jaild()
        it.run("start", "dhcpd", "dhcpd6", "dhcrelay")
        yield it


def with_names(text, *renames):
    """An example drop-in, with interfaces of ours."""
    for old, new in zip(renames[::2], renames[1::2]):
        assert f'"{old}"' in text
        text = text.replace(f'"{old}"', f'"{new}"')
    return text


def log(it, name="dhcpd"):
    return it.run("logs", name, "-n", "all").stdout


def said(it, text, name="dhcpd"):
    return wait_for(lambda: text in log(it, name), 5, f"{text!r} in the log of {name}")


def leases(it, name="dhcpd"):
    return (it.home / f"state/volumes/{name}-leases/{name}.leases").read_text()


def states(it, given):
    """The states that the lease of this address went through."""
    return re.findall(rf"lease {re.escape(given)} {{[^}}]*?\n  binding state (\w+);", leases(it))


def ends(it, given):
    return re.findall(rf"lease {re.escape(given)} {{[^}}]*?\n  ends ([^;]+);", leases(it))


def new_mac(namespace, interface, number):
    """The interface becomes another client."""
    mac = f"02:00:00:00:01:{number:02x}"
    ip("link", "set", interface, "down", namespace=namespace)
    ip("link", "set", interface, "address", mac, "up", namespace=namespace)
    return mac


def udhcpc(it, namespace="client", interface="c0", tries=3):
    """The address that one run of busybox udhcpc was given, or None."""
    words = ["busybox", "udhcpc", "-i", interface, "-n", "-q", "-f", "-t", tries, "-T", 2, "-s", it.home / "script"]
    done = subprocess.run(inside(namespace, *words), capture_output=True, text=True, timeout=30)
    ip("-4", "addr", "flush", "dev", interface, namespace=namespace)
    found = re.search(r"lease of (\S+) obtained", done.stdout + done.stderr)
    assert (done.returncode == 0) == bool(found), done.stdout + done.stderr
    return found and found.group(1)


class Client:
    """A client that stays: udhcpc or dhclient in the foreground."""

    def __init__(self, *words, namespace="client"):
        self.process = subprocess.Popen(
            inside(namespace, *words), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def __enter__(self):
        return self.process

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        ip("-4", "addr", "flush", "dev", "c0", namespace="client")


def address(interface="c0", namespace="client", family="-4"):
    shown = subprocess.run(
        ["ip", family, "-o", "-n", namespace, "addr", "show", "dev", interface, "scope", "global"],
        capture_output=True, text=True,
    ).stdout
    found = re.search(r"inet6? ([^/ ]+)", shown)
    return found and found.group(1)


def ready(it, name="dhcpd"):
    return wait_for(lambda: (s := it.status(name))["state"] == "ready" and s, what=f"{name} ready")


# ---- privileges --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name,user,capabilities", [("dhcpd", "dhcpd", NET_RAW | NET_BIND), ("dhcpd6", "dhcpd", NET_BIND), ("dhcrelay", "dhcrelay", NET_RAW | NET_BIND)]
)
def test_privileges_are_exactly_the_manifests(instance, name, user, capabilities):
    status = pathlib.Path(f"/proc/{ready(instance, name)['pid']}/status").read_text()
    found = {key: value.split() for key, value in (line.split(":", 1) for line in status.splitlines())}
    account = next(line.split(":") for line in pathlib.Path("/etc/passwd").read_text().splitlines() if line.startswith(user + ":"))
    assert found["Uid"] == [account[2]] * 4 and account[2] != "0"
    assert found["Gid"] == [account[3]] * 4
    assert found["Groups"] == []
    for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert found[key] == [f"{capabilities:016x}"], key
    assert found["NoNewPrivs"] == ["1"]
    assert found["Seccomp"] == ["2"]


def test_the_leases_are_in_a_volume_of_the_daemons(instance):
    for name in ("dhcpd", "dhcpd6"):
        file = instance.home / f"state/volumes/{name}-leases/{name}.leases"
        assert (file.owner(), file.group()) == ("dhcpd", "dhcpd")
    assert not list(instance.tree("dhcpd").rglob("dhcpd.leases")), "state is apart from code"


# ---- clients -----------------------------------------------------------------------------------------------------


def test_discover_offer_request_ack(instance):
    mac = new_mac("client", "c0", 1)
    given = udhcpc(instance)
    assert given and given.startswith("192.0.2.") and 20 <= int(given.split(".")[3]) <= 249
    for line in (f"DHCPDISCOVER from {mac} via s0", f"DHCPOFFER on {given} to {mac}", f"DHCPACK on {given} to {mac}"):
        said(instance, line)
    assert f"lease {given} {{" in leases(instance) and mac in leases(instance)


def test_a_network_that_is_not_declared_gets_no_answer(instance):
    mac = new_mac("idle", "i1", 2)
    assert udhcpc(instance, "idle", "i1", tries=2) is None
    assert mac not in log(instance)
    assert "Ignoring requests on i0" in log(instance)


def test_renewal_and_release_with_udhcpc(instance):
    mac = new_mac("client", "c0", 3)
    words = ["busybox", "udhcpc", "-i", "c0", "-f", "-t", 3, "-T", 2, "-s", instance.home / "script"]
    with Client(*words) as client:
        given = wait_for(address, 10, "an address")
        wait_for(lambda: log(instance).count(f"DHCPACK on {given} to {mac}") == 1)
        send(client.pid, signal.SIGUSR1)
        wait_for(lambda: log(instance).count(f"DHCPACK on {given} to {mac}") == 2, 10, "the renewal")
        assert log(instance).count(f"DHCPDISCOVER from {mac}") == 1, "renewed, not asked anew"
        send(client.pid, signal.SIGUSR2)
        said(instance, f"DHCPRELEASE of {given} from {mac}")
        wait_for(lambda: states(instance, given)[-1] == "free", what="the lease free again")
        assert "active" in states(instance, given)


def dhclient(it, family, *words, config=""):
    folder = it.home / f"dhclient{family}"
    folder.mkdir(exist_ok=True)
    (folder / "conf").write_text(config)
    files = ["-cf", folder / "conf", "-lf", folder / "leases", "-pf", folder / "pid", "-sf", it.home / "script"]
    return ["dhclient", family, *files, *words, "c0"]


def test_dhclient_is_served_renews_by_itself_and_releases(instance):
    mac = new_mac("client", "c0", 4)
    # It asks for ten seconds, and so renews after some five.
    with Client(*dhclient(instance, "-4", "-d", "-1", config="send dhcp-lease-time 10;\n")) as client:
        given = wait_for(address, 15, "an address")
        first = ends(instance, given)[-1]
        wait_for(lambda: log(instance).count(f"DHCPACK on {given} to {mac}") >= 2, 15, "the renewal")
        wait_for(lambda: ends(instance, given)[-1] > first, what="the later end of the lease in the file")
        assert client.poll() is None
        subprocess.run(inside("client", *dhclient(instance, "-4", "-r")), capture_output=True, timeout=20)
        said(instance, f"DHCPRELEASE of {given} from {mac}")


def test_dhcpv6(instance):
    duid = re.search(r'server-duid "(.+)";', leases(instance, "dhcpd6")).group(1)
    with Client(*dhclient(instance, "-6", "-d", "-1")) as client:
        given = wait_for(lambda: address(family="-6"), 15, "an address")
        assert given.startswith("2001:db8:0:1::")
        assert client.poll() is None
        assert f"iaaddr {given} {{" in leases(instance, "dhcpd6")
        subprocess.run(inside("client", *dhclient(instance, "-6", "-r")), capture_output=True, timeout=20)
        said(instance, "Release message", "dhcpd6")
    # Who the server is survives, as a client renews with no other.
    instance.run("build", "dhcpd6", "--force")
    instance.run("restart", "dhcpd6")
    assert re.findall(r'server-duid "(.+)";', leases(instance, "dhcpd6"))[-1] == duid


def test_through_the_relay(instance):
    mac = new_mac("far", "f0", 5)
    relay = ready(instance, "dhcrelay")
    assert os.stat(f"/proc/{relay['pid']}/ns/net").st_ino == os.stat("/run/netns/relay").st_ino
    given = udhcpc(instance, "far", "f0")
    assert given and given.startswith("203.0.113.")
    said(instance, f"DHCPACK on {given} to {mac}")
    assert re.search(rf"DHCPDISCOVER from {mac} .*via 203\.0\.113\.1", log(instance))
    instance.run("stop", "dhcrelay")
    new_mac("far", "f0", 6)
    assert udhcpc(instance, "far", "f0", tries=2) is None, "without the relay nobody is there"
    instance.run("start", "dhcrelay")
    assert udhcpc(instance, "far", "f0")


def test_two_hundred_clients_in_a_row(instance):
    ip("addr", "add", "192.0.2.2/24", "dev", "c0", namespace="client")
    before = len(re.findall("DHCPACK", log(instance)))
    # As a relay on the client's side (perfdhcp knows no other way); each OFFER waits a second for dhcpd's ping.
    done = subprocess.run(
        inside("client", "perfdhcp", "-4", "-l", "c0", "-r", 50, "-R", 200, "-n", 200, "-d", 10, "-W", 5000000, "192.0.2.1"),
        capture_output=True, text=True, timeout=120,
    )
    ip("-4", "addr", "flush", "dev", "c0", namespace="client")
    counts = [(int(sent), int(received)) for sent, received in re.findall(r"sent packets: (\d+)\s+received packets: (\d+)", done.stdout)]
    print(f"perfdhcp, 200 clients: (sent, received) of DISCOVER-OFFER and REQUEST-ACK: {counts}")
    assert counts == [(200, 200), (200, 200)], done.stdout + done.stderr
    acks = re.findall(r"DHCPACK on (\S+) to (\S+)", log(instance))[before:]
    assert len(acks) == 200 and len({address for address, _ in acks}) == len({mac for _, mac in acks}) == 200
    active = set(re.findall(r"lease (\S+) {[^}]*?\n  binding state active;", leases(instance)))
    assert {address for address, _ in acks} <= active


# ---- life --------------------------------------------------------------------------------------------------------


def test_a_lease_survives_a_crash_and_a_rebuild(instance):
    mac = new_mac("client", "c0", 7)
    given = udhcpc(instance)
    binding = re.compile(rf"lease {re.escape(given)} {{[^}}]*binding state active;[^}}]*{mac}")
    assert binding.search(leases(instance))
    first = ready(instance)["pid"]
    send(first, signal.SIGKILL)
    wait_for(lambda: (s := instance.status("dhcpd"))["state"] == "ready" and s["pid"] not in (0, first), what="dhcpd after SIGKILL")
    assert binding.search(leases(instance))
    assert udhcpc(instance) == given
    generation = instance.status("dhcpd")["current_generation"]
    instance.run("build", "dhcpd", "--force")
    instance.run("restart", "dhcpd")
    assert ready(instance)["generation"] == generation + 1
    assert binding.search(leases(instance))
    assert udhcpc(instance) == given
    # And so that this is no accident: without its leases dhcpd does not know the client.
    instance.run("stop", "dhcpd")
    file = instance.home / "state/volumes/dhcpd-leases/dhcpd.leases"
    kept = file.read_text()
    for old in file.parent.iterdir():
        old.unlink()
    assert instance.run("start", "dhcpd", status=None).returncode != 0
    assert any("dhcpd.leases" in line for line in instance.status("dhcpd")["last_lines"])
    instance.run("build", "dhcpd")  # makes it again
    instance.run("start", "dhcpd")
    assert mac not in leases(instance)
    instance.run("stop", "dhcpd")
    file.write_text(kept)
    instance.run("start", "dhcpd")


def test_reload_is_a_restart_and_sees_the_edit(instance):
    mac = new_mac("client", "c0", 8)
    config = instance.config
    text = config.read_text()
    assert udhcpc(instance) != "192.0.2.15"
    config.write_text(text + f"host new {{ hardware ethernet {mac}; fixed-address 192.0.2.15; }}\n")
    assert udhcpc(instance) != "192.0.2.15", "not yet read"
    before = ready(instance)
    instance.run("reload", "dhcpd")
    after = ready(instance)
    assert after["pid"] != before["pid"]
    assert udhcpc(instance) == "192.0.2.15"
    config.write_text(text)
    instance.run("reload", "dhcpd")


def test_a_mistake_in_the_configuration_is_told_in_the_daemons_words(instance):
    config = instance.config
    text = config.read_text()
    ready(instance)
    starts = log(instance).count("Configuration file errors encountered")
    config.write_text(text.replace("option routers 192.0.2.1;", "option routers 192.0.2.1"))
    begin = time.monotonic()
    reload = subprocess.Popen(instance.command("reload", "dhcpd"), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    lines = wait_for(
        lambda: (s := instance.status("dhcpd"))["state"] in ("backoff", "failed") and any("/etc/dhcp/dhcpd.conf line" in line for line in s["last_lines"]) and s["last_lines"],
        5, "dhcpd's words in jail status",
    )
    took = time.monotonic() - begin
    shown = instance.run("status", "dhcpd", status=1).stdout
    print(f"after {took * 1000:.0f} ms jail status says:\n{shown}")
    assert took < 1
    assert any("semicolon expected" in line for line in lines)
    assert "/etc/dhcp/dhcpd.conf line" in shown
    assert reload.wait(30) != 0
    wait_for(lambda: instance.status("dhcpd")["state"] == "failed", 20, "it gives up")
    tried = log(instance).count("Configuration file errors encountered") - starts
    assert 1 <= tried <= 6, "the limit of the manifest: five restarts"
    time.sleep(1)
    assert log(instance).count("Configuration file errors encountered") - starts == tried
    assert udhcpc(instance, tries=1) is None
    config.write_text(text)
    instance.run("start", "dhcpd")
    assert udhcpc(instance)


def test_named_interfaces_are_served_and_no_other(instance):
    instance.drop_in("dhcpd", with_names((REPO / "manifests/examples/dhcpd/interfaces.toml").read_text(), "eth1", "s0"), "60-interfaces.toml")
    instance.run("build", "dhcpd")
    instance.run("restart", "dhcpd")
    assert udhcpc(instance)
    new_mac("far", "f0", 9)
    assert udhcpc(instance, "far", "f0", tries=2) is None, "the relay's packets come in by u0"
    (instance.home / "manifests/dhcpd.toml.d/60-interfaces.toml").unlink()
    instance.run("build", "dhcpd")
    instance.run("restart", "dhcpd")
    assert udhcpc(instance, "far", "f0")


def test_stopped_it_answers_nobody(instance):
    pid = ready(instance)["pid"]
    instance.run("stop", "dhcpd")
    assert not pathlib.Path(f"/proc/{pid}").exists()
    assert udhcpc(instance, tries=1) is None
    instance.run("start", "dhcpd")
    assert udhcpc(instance)


def test_a_relay_without_a_server_says_so(instance):
    folder = instance.home / "manifests/dhcrelay.toml.d"
    kept = (folder / "50-init.toml").read_text()
    (folder / "50-init.toml").write_text('[service]\nrestart = { on = "never" }\n')
    instance.run("build", "dhcrelay")
    assert instance.run("restart", "dhcrelay", status=None).returncode != 0
    assert any("No servers specified." in line for line in instance.status("dhcrelay")["last_lines"])
    (folder / "50-init.toml").write_text(kept)
    instance.run("build", "dhcrelay")
    instance.run("start", "dhcrelay")


LOST = "unable to commit, fsync(): Operation not permitted"


# ---- nothing is given that is not needed -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name,less",
    [
        ("dhcpd", 'capabilities = ["net_raw"]'),
        ("dhcpd", 'capabilities = ["net_bind_service"]'),
        ("dhcpd", 'syscalls = ["@file-write"]'),
        ("dhcpd", 'syscalls = ["@network-client"]'),
        ("dhcpd6", 'capabilities = ["net_bind_service"]'),
        ("dhcpd6", 'syscalls = ["@file-write"]'),
        ("dhcpd6", 'syscalls = ["@network-client"]'),
        ("dhcrelay", 'capabilities = ["net_raw"]'),
        ("dhcrelay", 'capabilities = ["net_bind_service"]'),
        ("dhcrelay", 'syscalls = ["@network-client"]'),
    ],
)
def test_with_one_privilege_less_it_does_not_serve(instance, name, less):
    extra = f'[remove]\nsandbox.{less}\n[service]\nready_timeout = "2s"\nrestart = {{ on = "never" }}\n'
    instance.drop_in(name, extra, "70-less.toml")
    instance.run("build", name)
    try:
        before = log(instance, name).count(LOST)
        done = instance.run("restart", name, status=None)
        if "@file-write" in less:  # it serves, and its leases are lost in the next crash of the machine
            new_mac("client", "c0", 10)
            with Client(*dhclient(instance, "-6" if name == "dhcpd6" else "-4", "-d", "-1")):
                wait_for(lambda: log(instance, name).count(LOST) > before, 10, "a lease that is not safe")
        else:
            assert done.returncode != 0
            assert instance.status(name)["state"] == "failed"
    finally:
        (instance.home / f"manifests/{name}.toml.d/70-less.toml").unlink()
        instance.run("build", name)
        instance.run("start", name)
    assert ready(instance, name)
