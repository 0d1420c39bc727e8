"""From nothing to service by the commands that `jail init` names, as an admin types them: jail installed, no --home. All on
layers over /etc, /usr and /var that are gone when this process ends."""

import imaplib
import os
import pathlib
import signal
import ssl
import subprocess

import pytest

from jailtest import wait_for
from packages import jail_installed

USER, PASSWORD = "alice@example.test", "correct horse"
UNITS = {"named": ["named.service"], "imapd": ["dovecot.service", "dovecot.socket"], "smtpd": ["postfix.service"]}


def jail(*words, status=0):
    done = subprocess.run(["/usr/local/bin/jail", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == status, f"jail {' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def jaild():
    with jail_installed():
        keeper = subprocess.Popen(["/usr/local/sbin/jaild"], stdin=subprocess.DEVNULL, stderr=open("/run/jaild.err", "w"))
        try:
            wait_for(lambda: os.path.exists("/run/jail/control"), what="jaild's control socket")
            yield keeper
        finally:
            keeper.send_signal(signal.SIGTERM)
            keeper.wait(30)


def commands(said, verb):
    """Those that init says come next: ["build named"]."""
    return [line.split("#")[0].removeprefix("  jail ").strip() for line in said.splitlines() if line.startswith(f"  jail {verb} ")]


def follow(said):
    """Types them, but for enable."""
    for verb in ("build", "start"):
        (command,) = commands(said, verb)
        jail(*command.split())


def test_named_answers(jaild):
    follow(jail("init", "named"))
    answer = subprocess.run(["dig", "+norec", "@127.0.0.1", "www.example.test", "A"], capture_output=True, text=True).stdout
    assert "flags: qr aa" in answer and "192.0.2.80" in answer, answer
    # The directory is live.
    zone = pathlib.Path("/etc/jail/named/db.example.test")
    zone.write_text(zone.read_text().replace("192.0.2.80", "192.0.2.81").replace("2026010101", "2026010102"))
    jail("reload", "named")
    short = ["dig", "+short", "@127.0.0.1", "www.example.test", "A"]
    wait_for(lambda: subprocess.run(short, capture_output=True, text=True).stdout == "192.0.2.81\n", 10, "the edit")


def test_mail_is_sent_and_read(jaild):
    said = jail("init", "--test-certificate", "imapd")
    users = pathlib.Path("/etc/jail/imapd/users")
    assert f">> {users}" in said
    scheme = ["-s", "SHA512-CRYPT", "-r", "5000"]  # cheap
    password = subprocess.run(["doveadm", "pw", *scheme, "-p", PASSWORD], check=True, capture_output=True, text=True).stdout
    with users.open("a") as file:
        file.write(f"{USER}:{password}")
    follow(said)
    said = jail("init", "--test-certificate", "smtpd")
    follow(said)
    cert = "/etc/jail/smtpd/tls/cert.pem"
    sent = subprocess.run(
        ["swaks", "--server", "127.0.0.1:587", "--timeout", "20", "-tls", "--tls-verify", "--tls-ca-path", cert, "-a", "PLAIN",
         "-au", USER, "-ap", PASSWORD, "--from", USER, "--to", USER, "--body", "token-init"], capture_output=True, text=True)
    assert sent.returncode == 0, sent.stdout + sent.stderr

    def found():
        trust = ssl.create_default_context(cafile="/etc/jail/imapd/tls/cert.pem")
        with imaplib.IMAP4_SSL("localhost", 993, ssl_context=trust, timeout=20) as client:
            client.login(USER, PASSWORD)
            client.select()
            return client.search(None, "BODY", "token-init")[1][0].split()

    assert len(wait_for(found, 30, "the message")) == 1


def test_the_distributions_units_are_masked(jaild):
    for unit in sum(UNITS.values(), []):
        words = ["systemctl", "is-enabled", unit]
        assert subprocess.run(words, capture_output=True, text=True).stdout == "masked\n", unit


def test_undo_waits_for_the_service_and_gives_all_back(jaild):
    done = subprocess.run(["/usr/local/bin/jail", "init", "--undo", "named"], capture_output=True, text=True)
    assert done.returncode == 75 and "run: jail stop named" in done.stderr
    for name, units in UNITS.items():
        jail("stop", name)
        said = jail("init", "--undo", name)
        (remove,) = commands(said, "remove")
        jail(*remove.split(), "--purge")
        for unit in units:
            assert not os.path.lexists(f"/etc/systemd/system/{unit}")
    # What was edited.
    left = [str(path) for path in sorted(pathlib.Path("/etc/jail").rglob("*")) if path.is_file()]
    assert left == ["/etc/jail/imapd/users", "/etc/jail/named/db.example.test"]
    assert jail("list", "--json").count('"name"') == 0
