"""The tools that people know, at the daemons of the shipped manifests: rndc, doveadm, postqueue by `jail exec`."""

import imaplib
import pathlib
import re
import shutil
import subprocess

import pytest

from jailtest import REPO, Instance, wait_for
from mailhouse import lay_out, messages, swaks
from test_imapd import PASSWORD, USER, configure
from test_named import answers

SERVES = {"named": "rndc", "imapd": "doveadm", "smtpd": "postqueue"}


@pytest.fixture(scope="module")
def house():
    with Instance() as it:
        it.bind = it.home / "bind"
        shutil.copytree(REPO / "manifests/examples/named", it.bind)
        subprocess.run(["rndc-confgen", "-a", "-c", it.bind / "rndc.key"], check=True, capture_output=True)
        shutil.chown(it.bind / "rndc.key", "root", "bind")  # as Debian's package leaves it
        (it.bind / "rndc.key").chmod(0o640)
        it.drop_in("named", f'[[config]]\nfrom = "{it.bind}"\nto = "/etc/bind"\n')
        configure(it)
        conf = lay_out(it)
        with open(conf / "main.cf", "a") as main:
            main.write("defer_transports = virtual\n")  # so that something waits in the queue
        it.run("build", "named", "imapd", "smtpd")
        it.start_jaild()
        it.run("start", "named", "imapd", "smtpd")
        yield it


def run(it, name, *command, status=0):
    return it.run("exec", name, "--", *command, status=status)


def test_rndc_asks_named(house):
    assert "server is up and running" in run(house, "named", "rndc", "status").stdout
    assert "server reload successful" in run(house, "named", "rndc", "reload").stdout
    assert "zone reload" in run(house, "named", "rndc", "reload", "example.test").stdout
    run(house, "named", "rndc", "dumpdb", "-zones")
    wait_for((house.home / "state/volumes/named-cache/named_dump.db").exists, 5, "the dump")
    done = run(house, "named", "rndc", "no-such-command", status=None)
    assert done.returncode not in (0, 125) and "unknown command" in done.stderr, done.stderr
    assert "zone example.test/IN: loaded" in run(house, "named", "named-checkconf", "-z").stdout, "where the jail's files are"
    assert answers()


def test_rndc_works_from_the_host_as_ever(house):
    key = house.bind / "rndc.key"
    done = subprocess.run(["rndc", "-k", key, "status"], capture_output=True, text=True)
    assert done.returncode == 0 and "server is up and running" in done.stdout, done.stderr
    other = house.home / "other.key"
    subprocess.run(["rndc-confgen", "-a", "-c", other], check=True, capture_output=True)
    done = subprocess.run(["rndc", "-k", other, "status"], capture_output=True, text=True)
    assert done.returncode != 0


def test_doveadm_sees_who_is_logged_in(house):
    assert "alice" not in run(house, "imapd", "doveadm", "who").stdout
    client = imaplib.IMAP4_SSL("localhost", 993, ssl_context=house.trust, timeout=20)
    try:
        client.login(USER, PASSWORD)
        line = next(line for line in run(house, "imapd", "doveadm", "who").stdout.splitlines() if line.startswith(USER))
        assert "imap" in line and ("(127.0.0.1)" in line or "(::1)" in line), line
        assert "passdb: alice@example.test auth succeeded" in run(house, "imapd", "doveadm", "auth", "test", USER, PASSWORD).stdout
        # It reads master.pid, where "2" stands: Dovecot in its jail, and never the host's process 2.
        run(house, "imapd", "doveadm", "reload")
        wait_for(lambda: "SIGHUP received" in house.run("logs", "imapd", "-n", "all").stdout, 10, "Dovecot's reload")
        assert client.noop()[0] == "OK"
        run(house, "imapd", "doveadm", "kick", USER)
        with pytest.raises(imaplib.IMAP4.abort):
            for _ in range(100):
                client.noop()
    finally:
        client.shutdown()
    assert "alice" not in run(house, "imapd", "doveadm", "who").stdout


def deferred(it, body):
    """The id of a message that waits in the queue."""
    code, talk = swaks("--from", "someone@example.org", "--to", "bob@example.test", "--body", body)
    assert code == 0, talk

    def listed():
        text = run(it, "smtpd", "postqueue", "-p").stdout
        ident = re.search(r"^([0-9A-F]+)  +.*someone@example.org\n +\(deferred transport\)\n +bob@example.test$", text, re.M)
        return ident and ident.group(1)

    return wait_for(listed, 15, "the message in the queue")


def test_the_queue_is_looked_after(house):
    empty = lambda: run(house, "smtpd", "postqueue", "-p").stdout == "Mail queue is empty\n"
    assert empty()
    run(house, "smtpd", "postqueue", "-i", deferred(house, "token-now"))
    wait_for(lambda: any("token-now" in text for text in messages(house)), 15, "the message")
    wait_for(empty, 5, "an empty queue")
    done = run(house, "smtpd", "postsuper", "-d", deferred(house, "token-never"))
    assert "Deleted: 1 message" in done.stderr
    assert empty() and not any("token-never" in text for text in messages(house))


def test_nothing_of_it_is_left_on_the_host(house):
    for path in ("/run/mail-auth", "/var/mail/vhosts", "/run/dovecot/master.pid"):
        assert not pathlib.Path(path).exists(), path
