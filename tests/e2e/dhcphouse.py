"""A network for ISC dhcpd and dhcrelay in their jails, and the real clients in it:

    client:c0 ------ s0           192.0.2.0/24, 2001:db8:0:1::/64: served
      idle:i1 ------ i0           10.9.0.0/24: not declared, so not served
                     u0 --------- 198.51.100.0/24 -- u1:relay:d0 -- 203.0.113.0/24 -- f0:far
                  this namespace                  dhcrelay's own

All of it is in namespaces of the test: its network, and its mounts (for /run/netns, and for users that Debian's
packages do not make)."""

import contextlib
import pwd
import re
import shutil
import subprocess

import jailtest
from jailtest import REPO, wait_for

USERS = ["dhcpd", "dhcrelay"]
NAMESPACES = ("client", "idle", "relay", "far")
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


def uids():
    """Of the users in a world."""
    with jailtest.own_mounts(users=USERS):
        return [pwd.getpwnam(user).pw_uid for user in USERS]


@contextlib.contextmanager
def world():
    with jailtest.own_mounts(users=USERS):
        for namespace in NAMESPACES:
            ip("netns", "add", namespace)
        for namespace in (None, *NAMESPACES):
            setting(namespace, "ipv6/conf/default/accept_dad", 0)
        cable("s0", "c0", "client", "192.0.2.1/24")
        ip("addr", "add", "2001:db8:0:1::1/64", "dev", "s0")
        cable("i0", "i1", "idle", "10.9.0.1/24")
        cable("u0", "u1", "relay", "198.51.100.1/24", "198.51.100.2/24")
        cable("d0", "f0", "far", "203.0.113.1/24", here_namespace="relay")
        ip("route", "add", "203.0.113.0/24", "via", "198.51.100.2")
        setting("relay", "ipv4/ip_forward", 1)
        yield
        for namespace in NAMESPACES:
            ip("netns", "delete", namespace)


def lay_out(it):
    """The examples as this instance's /etc/dhcp, and as drop-ins with interfaces of ours."""
    shutil.copytree(REPO / "manifests/examples/dhcpd", it.home / "dhcp")
    shutil.copy(REPO / "manifests/examples/dhcpd6/dhcpd6.conf", it.home / "dhcp")
    config = it.home / "dhcp/dhcpd.conf"
    text = re.sub(r"^#(subnet|  |})", r"\1", config.read_text(), flags=re.M)  # the network behind a relay
    config.write_text(text + "min-lease-time 10;\n")
    (it.home / "script").write_text(SCRIPT)
    (it.home / "script").chmod(0o755)
    for name in ("dhcpd", "dhcpd6"):
        it.drop_in(name, f'[[config]]\nfrom = "{it.home}/dhcp"\nto = "/etc/dhcp"\n')
    it.drop_in("dhcrelay", drop_in("dhcrelay/servers.toml", "eth1", "d0", "eth0", "u1") + '[sandbox]\nnetwork = "netns:relay"\n')


def drop_in(file, *renames):
    """An example drop-in, with interfaces of ours."""
    text = (REPO / "manifests/examples" / file).read_text()
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


def dhclient(it, family, *words, config=""):
    folder = it.home / f"dhclient{family}"
    folder.mkdir(exist_ok=True)
    (folder / "conf").write_text(config)
    files = ["-cf", folder / "conf", "-lf", folder / "leases", "-pf", folder / "pid", "-sf", it.home / "script"]
    return ["dhclient", family, *files, *words, "c0"]


def workload(it, name):
    """What the service `name` does for a client. A generator of the steps' names, each yielded before the step is done;
    raises where one does not work."""
    yield "start"
    if name == "dhcrelay":
        it.run("start", "dhcpd")
    it.run("start", name)
    for step in ("lease", "restart"):
        yield step
        if step == "restart":
            it.run("restart", name)
        if name == "dhcpd6":
            lease_6(it)
        else:
            given = udhcpc(it, *(["far", "f0"] if name == "dhcrelay" else []))
            assert given, "no lease"
    yield "log"
    wrong = [line for line in log(it, name).splitlines() if "not permitted" in line or "ermission denied" in line]
    if name == "dhcpd6":  # which would ping in IPv4 alone, and goes on
        wrong = [line for line in wrong if "unable to create icmp socket" not in line]
    assert not wrong, wrong[0]


def lease_6(it):
    """One lease, asked for and given back by dhclient."""
    with Client(*dhclient(it, "-6", "-d", "-1")):
        given = wait_for(lambda: address(family="-6"), 30, "an address")
        assert f"iaaddr {given} {{" in leases(it, "dhcpd6")
        subprocess.run(inside("client", *dhclient(it, "-6", "-r")), capture_output=True, timeout=20)
