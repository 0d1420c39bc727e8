"""A BIND jail for a test: the shipped manifest and the shipped example, with a zone that takes updates and one that named
signs."""

import os
import pwd
import re
import shutil
import subprocess

from jailtest import REPO, wait_for

BIND = pwd.getpwnam("bind")
WRONG = re.compile("not permitted|ermission denied")
KEY = "c2VjcmV0IG9mIHRoZSB0ZXN0IGFsb25lLCAzMiBieXRlcyE="
ZONES = f"""
key "update" {{ algorithm hmac-sha256; secret "{KEY}"; }};
zone "dynamic.test" {{
	type primary;
	file "dynamic.test.zone";
	allow-update {{ key "update"; }};
}};
zone "signed.test" {{
	type primary;
	file "signed.test.zone";
	dnssec-policy default;
	inline-signing yes;
}};
"""
ZONE = "$TTL 60\n@ IN SOA ns1 hostmaster 1 3600 600 86400 60\n IN NS ns1\nns1 IN A 127.0.0.1\nwww IN A 192.0.2.80\n"


def lay_out(it):
    """The example as this instance's /etc/bind, live in the jail; two more zones in it. Builds the jail."""
    shutil.copytree(REPO / "manifests/examples/named", it.home / "bind")
    with open(it.home / "bind/named.conf", "a") as config:
        config.write(ZONES)
    it.drop_in("named", f'[[config]]\nfrom = "{it.home}/bind"\nto = "/etc/bind"\n')
    it.run("build", "named")
    for name in ("dynamic.test", "signed.test"):
        zone = it.home / "state/volumes/named-cache" / f"{name}.zone"
        zone.write_text(ZONE)
        os.chown(zone, BIND.pw_uid, BIND.pw_gid)


def dig(*words):
    return subprocess.run(["dig", "+time=2", "+tries=2", "@127.0.0.1", *words], capture_output=True, text=True).stdout


def update(text, key=f"hmac-sha256:update:{KEY}"):
    command = ["nsupdate", *(["-y", key] if key else [])]
    text = f"server 127.0.0.1\nzone dynamic.test\n{text}\nsend\n"
    return subprocess.run(command, input=text, capture_output=True, text=True, timeout=20)


def workload(it):
    """What a name server does. A generator of the steps' names, each yielded before the step is done; raises where one does
    not work."""
    yield "start"
    it.run("start", "named")
    yield "questions"
    assert dig("+short", "www.example.test", "AAAA") == "2001:db8::80\n"
    assert dig("+short", "+tcp", "www.example.test", "A") == "192.0.2.80\n"
    yield "signatures"
    wait_for(lambda: "RRSIG" in dig("+dnssec", "www.signed.test", "A"), 10, "the zone's signatures")
    yield "update"
    for number in range(3):
        done = update(f"update add new{number}.dynamic.test 60 A 192.0.2.{number}")
        assert done.returncode == 0, done.stderr
    yield "reload"
    with open(it.home / "bind/named.conf", "a") as config:
        config.write('zone "second.test" { type primary; file "/etc/bind/db.example.test"; };\n')
    it.run("reload", "named")
    wait_for(lambda: dig("+short", "www.second.test", "A") == "192.0.2.80\n", 10, "the new zone")
    yield "restart"  # writes the zone, reads the journal
    it.run("restart", "named")
    assert dig("+short", "new2.dynamic.test") == "192.0.2.2\n"
    yield "log"
    wrong = [line for line in it.run("logs", "named", "-n", "all").stdout.splitlines() if WRONG.search(line)]
    assert not wrong, wrong[0]
