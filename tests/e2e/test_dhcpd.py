"""ISC dhcpd and dhcrelay in their jails, from the manifests and the example configuration that we ship, against real
clients: udhcpc, dhclient and perfdhcp."""

import os
import pathlib
import re
import signal
import subprocess

import pytest

import dhcphouse
from dhcphouse import (Client, address, dhclient, drop_in, ends, inside, ip, leases, log, new_mac, ready, said, states,
                       udhcpc)
from jailtest import Instance, send, wait_for

SERVES = {"dhcpd": "udhcpc, dhclient, perfdhcp", "dhcpd6": "dhclient -6", "dhcrelay": "udhcpc, perfdhcp"}

NET_BIND, NET_RAW = 1 << 10, 1 << 13


@pytest.fixture(scope="module")
def instance():
    with dhcphouse.world(), Instance() as it:
        dhcphouse.lay_out(it)
        for name in ("dhcpd", "dhcpd6", "dhcrelay"):
            it.run("build", name)
        it.start_jaild()
        it.run("start", "dhcpd", "dhcpd6", "dhcrelay")
        yield it


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
        given = wait_for(address, 30, "an address")
        wait_for(lambda: log(instance).count(f"DHCPACK on {given} to {mac}") == 1)
        send(client.pid, signal.SIGUSR1)
        wait_for(lambda: log(instance).count(f"DHCPACK on {given} to {mac}") == 2, 10, "the renewal")
        assert log(instance).count(f"DHCPDISCOVER from {mac}") == 1, "renewed, not asked anew"
        send(client.pid, signal.SIGUSR2)
        said(instance, f"DHCPRELEASE of {given} from {mac}")
        wait_for(lambda: states(instance, given)[-1] == "free", what="the lease free again")
        assert "active" in states(instance, given)


def test_dhclient_is_served_renews_by_itself_and_releases(instance):
    mac = new_mac("client", "c0", 4)
    # It asks for ten seconds, and so renews after some five.
    with Client(*dhclient(instance, "-4", "-d", "-1", config="send dhcp-lease-time 10;\n")) as client:
        given = wait_for(address, 30, "an address")
        first = ends(instance, given)[-1]
        wait_for(lambda: log(instance).count(f"DHCPACK on {given} to {mac}") >= 2, 15, "the renewal")
        wait_for(lambda: ends(instance, given)[-1] > first, what="the later end of the lease in the file")
        assert client.poll() is None
        subprocess.run(inside("client", *dhclient(instance, "-4", "-r")), capture_output=True, timeout=20)
        said(instance, f"DHCPRELEASE of {given} from {mac}")


def test_dhcpv6(instance):
    duid = re.search(r'server-duid "(.+)";', leases(instance, "dhcpd6")).group(1)
    with Client(*dhclient(instance, "-6", "-d", "-1")) as client:
        given = wait_for(lambda: address(family="-6"), 30, "an address")
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
    config = instance.home / "dhcp/dhcpd.conf"
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


def test_a_mistake_in_the_configuration_is_not_reloaded(instance):
    """In the daemon's own words; test_bad_config.py has what a start or a crash makes of it."""
    config = instance.home / "dhcp/dhcpd.conf"
    text = config.read_text()
    before = ready(instance)["pid"]
    config.write_text(text.replace("option routers 192.0.2.1;", "option routers 192.0.2.1"))
    try:
        said = instance.run("reload", "dhcpd", status=78).stderr
        assert re.search(r"/etc/dhcp/dhcpd.conf line \d+: semicolon expected", said), said
        assert instance.status("dhcpd")["pid"] == before and udhcpc(instance)
    finally:
        config.write_text(text)
    instance.run("reload", "dhcpd")
    assert ready(instance)["pid"] != before


def test_named_interfaces_are_served_and_no_other(instance):
    instance.drop_in("dhcpd", drop_in("dhcpd/interfaces.toml", "eth1", "s0"), "60-interfaces.toml")
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
    kept = (folder / "50-test.toml").read_text()
    (folder / "50-test.toml").write_text('[service]\nrestart = { on = "never" }\n')
    instance.run("build", "dhcrelay")
    assert instance.run("restart", "dhcrelay", status=None).returncode != 0
    assert any("No servers specified." in line for line in instance.status("dhcrelay")["last_lines"])
    (folder / "50-test.toml").write_text(kept)
    instance.run("build", "dhcrelay")
    instance.run("start", "dhcrelay")
