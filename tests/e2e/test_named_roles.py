"""BIND in its jail as something else than the example's own server, from the other examples that we ship: a secondary that
has its zone from a primary's jail, and a resolver that asks a root's jail.

    root 10.53.0.1   primary .2   secondary .3   resolver .4   and this namespace, .100: a client, .66: a stranger

Each jail has a network namespace of its own; a bridge joins them. The root zone is signed, and the resolver trusts its key."""

import os
import re
import shutil
import signal
import subprocess

import pytest

import jailtest
from audit import Denials
from dhcphouse import ip
from jailtest import REPO, Instance, send, wait_for
from namehouse import BIND
from test_named_workload import CLONE3

SERVES = {"named": "dig, other name servers"}

EXAMPLES = REPO / "manifests/examples/named"
HOSTS = {"root": "10.53.0.1", "primary": "10.53.0.2", "secondary": "10.53.0.3", "resolver": "10.53.0.4"}
CLIENT, STRANGER = "10.53.0.100", "10.53.0.66"
ROOT = """$TTL 300
. IN SOA a.root. hostmaster.root. 1 3600 600 86400 300
. IN NS a.root.
a.root. IN A 10.53.0.1
www.real.test. IN A 192.0.2.81
child.test. IN NS ns.child.test.
ns.child.test. IN A 10.53.0.1
"""
CHILD = "$TTL 300\n@ IN SOA ns hostmaster 1 3600 600 86400 300\n IN NS ns\nns IN A 10.53.0.1\nwww IN A 192.0.2.82\n"


@pytest.fixture(scope="module")
def denials():
    with Denials() as log:
        log.take(BIND.pw_uid)
        yield log


@pytest.fixture(scope="module")
def world(denials):
    with jailtest.own_mounts():
        ip("link", "add", "br0", "type", "bridge")
        for number in (CLIENT, STRANGER):
            ip("addr", "add", f"{number}/24", "dev", "br0")
        ip("link", "set", "br0", "up")
        for name, number in HOSTS.items():
            ip("netns", "add", name)
            ip("link", "add", f"to-{name}", "master", "br0", "type", "veth", "peer", "name", "eth0", "netns", name)
            ip("link", "set", f"to-{name}", "up")
            ip("addr", "add", f"{number}/24", "dev", "eth0", namespace=name)
            for device in ("lo", "eth0"):
                ip("link", "set", device, "up", namespace=name)
        yield
        for name in HOSTS:
            ip("netns", "delete", name)


def house(it, name, config, *drop_ins):
    """A jail for the host `name`, started: `config` is its named.conf."""
    bind = it.home / "bind"
    bind.mkdir()
    for zone in EXAMPLES.glob("db.*"):
        shutil.copy(zone, bind)
    (bind / "named.conf").write_text(config)
    it.drop_in("named", f'[[config]]\nfrom = "{bind}"\nto = "/etc/bind"\n[sandbox]\nnetwork = "netns:{name}"\n')
    for number, text in enumerate(drop_ins):
        it.drop_in("named", text, f"6{number}-example.toml")
    it.run("build", "named")
    return bind


def swap(text, *pairs):
    for old, new in zip(pairs[::2], pairs[1::2]):
        assert old in text, old
        text = text.replace(old, new)
    return text


def dig(name, *words, source=CLIENT):
    done = subprocess.run(["dig", "-b", source, "+time=2", "+tries=2", f"@{HOSTS[name]}", *words], capture_output=True, text=True)
    return done.stdout


def status(text):
    found = re.search(r"status: (\w+)", text)
    return found and found.group(1)


def log(it):
    return it.run("logs", "named", "-n", "all").stdout


@pytest.fixture(scope="module")
def key():
    return subprocess.run(["tsig-keygen", "transfer"], check=True, capture_output=True, text=True).stdout


def give_key(bind, key):
    file = bind / "transfer.key"
    file.write_text(key)
    os.chown(file, 0, BIND.pw_gid)
    file.chmod(0o640)


@pytest.fixture(scope="module")
def primary(world, key):
    """The main example, and on top what the secondary's README says of the primary."""
    text = swap((EXAMPLES / "named.conf").read_text(), "listen-on { 127.0.0.1; }", "listen-on { any; }",
                'file "/etc/bind/db.example.test";', 'file "/etc/bind/db.example.test";\n\tallow-transfer { key transfer; };\n'
                f"\talso-notify {{ {HOSTS['secondary']}; }};")
    with Instance() as it:
        it.bind = house(it, "primary", f'include "/etc/bind/transfer.key";\nserver {HOSTS["secondary"]} {{ keys transfer; }};\n' + text)
        give_key(it.bind, key)
        it.start_jaild()
        it.run("start", "named")
        yield it


@pytest.fixture(scope="module")
def secondary(primary, key):
    text = swap((EXAMPLES / "secondary/named.conf").read_text(), "192.0.2.1 key", f"{HOSTS['primary']} key")
    with Instance() as it:
        it.bind = house(it, "secondary", text, (EXAMPLES / "secondary/secondary.toml").read_text(),
                        '[check]\ninterval = "1s"\n')
        give_key(it.bind, key)
        it.start_jaild()
        it.run("start", "named")
        yield it


def served(name="secondary", host="www"):
    return dig(name, "+short", "+norecurse", f"{host}.example.test")


def edit(primary, line):
    """A line more in the primary's zone, as its admin does it."""
    file = primary.bind / "db.example.test"
    text = file.read_text()
    serial = re.search(r"\d{10}", text).group()
    file.write_text(text.replace(serial, str(int(serial) + 1)) + line + "\n")
    primary.run("reload", "named")


def test_a_secondary_transfers_its_zone_by_its_key_and_answers_with_authority(secondary):
    wait_for(lambda: served() == "192.0.2.80\n", 10, "the zone on the secondary")
    assert re.search(r"flags:[^;]* aa", dig("secondary", "www.example.test"))
    assert "TSIG 'transfer'" in log(secondary)
    zone = secondary.home / "state/volumes/named-cache/example.test.zone"
    assert wait_for(zone.exists, 10, "the zone's file in the volume") and zone.owner() == "bind"


def test_nobody_else_gets_the_zone_and_no_version(secondary):
    for name in ("primary", "secondary"):
        assert "Transfer failed" in dig(name, "example.test", "AXFR")
        assert "9." not in dig(name, "+short", "version.bind", "CH", "TXT")
    assert status(dig("secondary", "www.real.test")) == "REFUSED"


def test_a_notify_brings_the_edit(primary, secondary):
    assert served(host="added") == ""
    edit(primary, "added IN A 192.0.2.99")
    wait_for(lambda: served(host="added") == "192.0.2.99\n", 10, "the edit on the secondary")
    assert "received notify for zone 'example.test': TSIG 'transfer'" in log(secondary)


def test_it_serves_on_without_the_primary_also_after_a_crash(primary, secondary):
    primary.run("stop", "named")
    pid = secondary.status("named")["pid"]
    send(pid, signal.SIGKILL)
    wait_for(lambda: (s := secondary.status("named"))["state"] == "ready" and s["pid"] != pid, what="named after SIGKILL")
    wait_for(lambda: served(host="added") == "192.0.2.99\n", 5, "the zone from its file")
    primary.run("start", "named")
    edit(primary, "again IN A 192.0.2.98")
    wait_for(lambda: served(host="again") == "192.0.2.98\n", 10, "the next edit")


def test_the_check_of_the_drop_in_tells_of_a_lost_zone(secondary):
    wait_for(lambda: secondary.status("named")["check"] == "ok", 5, "the check")
    kept = (secondary.bind / "transfer.key").read_text()
    (secondary.bind / "transfer.key").write_text(re.sub(r'secret "...', 'secret "AAA', kept))
    (secondary.home / "state/volumes/named-cache/example.test.zone").unlink()
    secondary.run("restart", "named")  # it gets ready all the same
    wait_for(lambda: secondary.status("named")["check"] == "failed", 10, "the check's word")
    assert "lacks" in secondary.run("status", "named", status=None).stdout
    (secondary.bind / "transfer.key").write_text(kept)
    secondary.run("restart", "named")
    wait_for(lambda: served() == "192.0.2.80\n", 10, "the zone again")


# ---- a resolver


@pytest.fixture(scope="module")
def root(world):
    zones = ('zone "." { type primary; file "root.zone"; dnssec-policy default; inline-signing yes; };\n'
             'zone "child.test" { type primary; file "child.zone"; };\n')
    text = swap((EXAMPLES / "named.conf").read_text(), "listen-on { 127.0.0.1; }", "listen-on { any; }", "recursion yes", "recursion no")
    with Instance() as it:
        it.bind = house(it, "root", text + zones)
        for name, zone in (("root", ROOT), ("child", CHILD)):
            file = it.home / f"state/volumes/named-cache/{name}.zone"
            file.write_text(zone)
            os.chown(file, BIND.pw_uid, BIND.pw_gid)
        it.start_jaild()
        it.run("start", "named")
        wait_for(lambda: "RRSIG" in dig("root", "+dnssec", ".", "SOA"), 20, "the root's signatures")
        yield it


@pytest.fixture(scope="module")
def resolver(root):
    flags, protocol, algorithm, key = dig("root", "+short", ".", "DNSKEY").split("\n")[0].split(maxsplit=3)
    trust = f'trust-anchors {{ . static-key {flags} {protocol} {algorithm} "{key}"; }};\n'
    hints = 'zone "." { type hint; file "/etc/bind/hints"; };\n'
    text = swap((EXAMPLES / "recursive-only/named.conf").read_text(), "192.0.2.0/24", f"{CLIENT}/32",
                "dnssec-validation auto", "dnssec-validation yes")
    with Instance() as it:
        it.bind = house(it, "resolver", text + trust + hints)
        (it.bind / "hints").write_text(". 3600 IN NS a.root.\na.root. 3600 IN A 10.53.0.1\n")
        it.start_jaild()
        it.run("start", "named")
        yield it


def test_a_client_is_resolved_and_the_signature_is_checked(resolver):
    answer = wait_for(lambda: "192.0.2.81" in (text := dig("resolver", "+dnssec", "www.real.test")) and text, 10, "an answer")
    assert re.search(r"flags:[^;]* ad", answer), "validated"
    assert dig("resolver", "+short", "www.child.test") == "192.0.2.82\n"
    assert status(dig("resolver", "none.real.test")) == "NXDOMAIN"


def test_a_stranger_is_refused_even_what_is_cached(resolver):
    for name in ("www.real.test", "www.child.test", "fresh.real.test", "localhost"):
        assert status(dig("resolver", name, source=STRANGER)) == "REFUSED", name
        assert status(dig("resolver", "+norecurse", name, source=STRANGER)) == "REFUSED", name
    assert status(dig("resolver", "www.real.test")) == "NOERROR"


def test_it_gives_no_version_away(resolver):
    for source in (CLIENT, STRANGER):
        for name in ("version.bind", "hostname.bind", "id.server"):
            assert ";; ANSWER SECTION" not in dig("resolver", name, "CH", "TXT", source=source)


def test_a_forged_answer_is_refused(root, resolver):
    """The same name with another key's signature, or none: whoever answers in the root's stead is not believed."""
    root.run("stop", "named")
    volume = root.home / "state/volumes/named-cache"
    for path in volume.iterdir():
        if path.name.startswith(("K.", "root.zone.")):
            path.unlink()
    (volume / "root.zone").write_text(ROOT.replace("192.0.2.81", "192.0.2.66"))
    root.run("start", "named")
    resolver.run("restart", "named")
    assert wait_for(lambda: status(dig("resolver", "www.real.test")), 10) == "SERVFAIL"
    assert "192.0.2.66" in dig("resolver", "+cdflag", "+short", "www.real.test"), "it was asked, and answered"


def test_none_of_it_was_refused_by_the_filter(denials, primary, secondary, root, resolver):
    for it in (primary, secondary, root, resolver):
        it.run("stop", "named")
    assert {call for _, call in denials.take(BIND.pw_uid)} <= {CLONE3}
