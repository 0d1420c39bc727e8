"""Postfix in its jail, from the manifest and the example that we ship, against real clients: SMTP, STARTTLS, AUTH by a
real Dovecot, a thousand messages counted while things are killed."""

import contextlib
import os
import pathlib
import pwd
import re
import signal
import socket
import subprocess
import time

import pytest

from jailtest import REPO, Instance, send, wait_for
from mailhouse import (ALICE, BOB, LOGIN, PASSWORD, SENDER, SUBMISSION, Client, Dovecot, ids, lay_out, log, mailbox, messages,
                       own_port_25, processes, swaks, take_away)

SERVES = {"smtpd": "swaks, smtp-source, smtplib"}

RELAY_DENIED, USER_UNKNOWN = "554 5.7.1", "550 5.1.1"


def host_state():
    """What of the host's own Postfix a jail must leave alone."""
    seen = []
    for top in ("/var/spool/postfix", "/var/lib/postfix", "/etc/postfix", "/etc/aliases", "/var/mail"):
        for path in [pathlib.Path(top), *sorted(pathlib.Path(top).rglob("*"))]:
            info = path.lstat()
            seen.append((str(path), info.st_ino, info.st_mode, info.st_uid, info.st_size, info.st_mtime_ns))
    return seen


@pytest.fixture(scope="module")
def house():
    before = host_state()
    with Instance() as it:
        it.conf = lay_out(it)
        it.run("build", "smtpd")
        it.dovecot = Dovecot(it, {ALICE: PASSWORD})
        try:
            it.start_jaild()
            it.run("start", "smtpd")
            yield it
        finally:
            it.dovecot.stop()
    assert host_state() == before, "the host's queue, data and configuration"


def ready(it):
    return wait_for(lambda: (s := it.status("smtpd"))["state"] == "ready" and s, 15, "smtpd ready")


def delivered(it, word, user="bob", seconds=15):
    return wait_for(lambda: [text for text in messages(it, user) if word in text], seconds, f"a message with {word}")


def test_mail_by_starttls_arrives_once(house):
    code, talk = swaks("-tls", "--tls-protocol", "tlsv1_2", "--from", SENDER, "--to", BOB, "--body", "token-starttls")
    assert code == 0 and "TLS started with cipher TLSv1.2" in talk, talk
    assert len(delivered(house, "token-starttls")) == 1
    code, talk = swaks("-tls", "--tls-protocol", "tlsv1_1", "--from", SENDER, "--to", BOB)
    assert code == 29 and "TLS startup failed" in talk, talk


def test_no_version_in_the_banner(house):
    banner = re.search(r"^<-  220 (.*)$", swaks("--quit-after", "BANNER")[1], re.M).group(1)
    assert banner == "mail.example.test ESMTP"


def test_relaying_and_unknown_recipients_are_refused(house):
    for recipient, answer in (("x@elsewhere.example", RELAY_DENIED), ("nobody@example.test", USER_UNKNOWN)):
        code, talk = swaks("--from", SENDER, "--to", recipient, "--quit-after", "RCPT")
        assert code == 24 and f"<** {answer}" in talk, talk
    # The negative of the negative: the same conversation about somebody who is here.
    assert swaks("--from", SENDER, "--to", BOB, "--quit-after", "RCPT")[0] == 0


def test_login_is_by_tls_alone_and_with_the_right_password(house):
    words = ["--from", ALICE, "--to", BOB]
    code, talk = swaks(*LOGIN, "-ap", PASSWORD, *words, "--body", "token-auth", server=SUBMISSION)
    assert code == 0 and "235 2.7.0" in talk, talk
    delivered(house, "token-auth")
    code, talk = swaks(*LOGIN, "-ap", "wrong", *words, server=SUBMISSION)
    assert code == 28 and "535 5.7.8" in talk, talk
    code, talk = swaks(*LOGIN[1:], "-ap", PASSWORD, *words, server=SUBMISSION)
    assert code == 28 and "did not advertise authentication" in talk, talk
    code, talk = swaks("-tls", *words, server=SUBMISSION)
    assert code == 24 and "554 5.7.1" in talk, talk
    code, talk = swaks(*LOGIN, "-ap", PASSWORD, *words)
    assert code == 28 and "did not advertise authentication" in talk, "no login on port 25"


def test_who_has_logged_in_may_relay(house):
    code, talk = swaks(*LOGIN, "-ap", PASSWORD, "--from", ALICE, "--to", "x@elsewhere.example", "--quit-after", "RCPT",
                       server=SUBMISSION)
    assert code == 0, talk


def test_an_alias_leads_to_its_mailbox(house):
    swaks("--from", SENDER, "--to", "postmaster@example.test", "--body", "token-alias")
    delivered(house, "token-alias", "alice")


def test_privileges(house):
    ready(house)
    swaks("-tls", "--from", SENDER, "--to", BOB, "--body", "token-proc")
    delivered(house, "token-proc")
    postfix = pwd.getpwnam("postfix").pw_uid
    granted = sum(1 << number for number in (2, 6, 7, 10))  # dac_read_search setgid setuid net_bind_service
    running = processes(house)
    # virtual waits as postfix with root behind it, and becomes mail for a delivery.
    for name, uids, permitted in (
        ("master", [0] * 4, granted),
        ("virtual", [0, postfix, 0, postfix], granted),
        ("smtpd", [postfix] * 4, 0),
        ("qmgr", [postfix] * 4, 0),
    ):
        for pid in running[name]:
            lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
            found = {key: value.split() for key, value in (line.split(":", 1) for line in lines)}
            assert [int(uid) for uid in found["Uid"]] == uids, name
            assert int(found["CapPrm"][0], 16) == permitted, name
            assert int(found["CapBnd"][0], 16) == granted, name
            assert int(found["CapAmb"][0], 16) == int(found["CapInh"][0], 16) == 0, name
            assert found["NoNewPrivs"] == ["1"] and found["Seccomp"] == ["2"], name
    owner = pwd.getpwnam("mail").pw_uid
    assert all(path.stat().st_uid == owner for path in (mailbox(house) / "new").iterdir())


def test_logs_of_several_users_are_stamped_by_the_kernel(house):
    running = processes(house)
    lines = log(house)
    for name in ("master", "qmgr", "smtpd"):
        stamps = {f"smtpd[{pid}] mail.info postfix/{name}[" for pid in running[name]}
        assert any(stamp in line for stamp in stamps for line in lines), name


def test_the_queue_can_be_seen_from_inside(house):
    pid = ready(house)["pid"]
    shown = subprocess.run(["nsenter", f"--target={pid}", "--mount", "--root", "--", "/usr/sbin/postqueue", "-p"],
                           capture_output=True, text=True, timeout=20)
    assert "Mail queue is empty" in shown.stdout, shown.stdout + shown.stderr


def test_reload_takes_a_service_away_and_brings_it_back(house):
    master = house.conf / "master.cf"
    text = master.read_text()
    pid = ready(house)["pid"]
    swaks("--quit-after", "EHLO", server=SUBMISSION)
    before = processes(house)["smtpd"]
    master.write_text(take_away(text, "submission"))
    house.run("reload", "smtpd")
    wait_for(lambda: swaks("--quit-after", "EHLO", server=SUBMISSION)[0] == 2, 10, "587 closed")
    wait_for(lambda: not set(processes(house).get("smtpd", [])) & set(before), 10, "the old smtpd gone")
    assert swaks("--quit-after", "EHLO")[0] == 0
    master.write_text(text)
    house.run("reload", "smtpd")
    wait_for(lambda: swaks("--quit-after", "EHLO", server=SUBMISSION)[0] == 0, 10, "587 open again")
    assert house.status("smtpd")["pid"] == pid
    assert not [line for line in log(house) if "Operation not permitted" in line]


# ---- a thousand messages


class Source:
    """smtp-source, which counts what was accepted; each message has a Message-Id of its own."""

    def __init__(self, count):
        self.process = subprocess.Popen(
            ["smtp-source", "-c", "-s", "5", "-l", "500", "-m", str(count), "-f", SENDER, "-t", BOB, "127.0.0.1:25"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        )
        self.prefix = f"<{self.process.pid:04x}."

    def finish(self):
        """(exit status, number of messages that were accepted)"""
        out, _ = self.process.communicate(timeout=120)
        counts = [int(word) for word in out.split() if word.isdigit()]
        return self.process.returncode, counts[-1] if counts else 0


def ids_of(it, source):
    return {key: count for key, count in ids(it).items() if key.startswith(source.prefix)}


def queued(it):
    queue = it.home / "state/volumes/smtpd-queue"
    return [p for part in ("incoming", "active", "deferred") for p in (queue / part).rglob("*")
            # Without the x bit it is a message that was never accepted.
            if p.is_file() and p.stat().st_mode & 0o100]


def settle(it):
    wait_for(lambda: not queued(it), 60, "an empty queue")


def some_arrived(it, source, count):
    wait_for(lambda: len(ids_of(it, source)) >= count, 60, f"{count} messages")


def test_a_thousand_messages_and_jaild_is_killed(house):
    master = ready(house)["pid"]
    source = Source(1000)
    for share in (100, 300, 600):
        some_arrived(house, source, share)
        send(house.supervisors()["jaild_pid"], signal.SIGKILL)
    assert source.finish() == (0, 1000)
    settle(house)
    found = ids_of(house, source)
    print(f"jaild killed three times: {len(found)} of 1000 messages, {sum(found.values())} copies")
    assert len(found) == 1000 and set(found.values()) == {1}
    assert house.status("smtpd")["pid"] == master


def test_a_thousand_messages_and_master_is_killed(house):
    master = ready(house)["pid"]
    clients = [Client(f"c{number}", 200) for number in range(5)]
    wait_for(lambda: sum(len(client.accepted) for client in clients) >= 400, 60, "400 messages")
    flying = len(processes(house).get("virtual", []))
    send(master, signal.SIGKILL)
    for client in clients:
        client.join()
    assert ready(house)["pid"] != master
    settle(house)
    accepted = {ident for client in clients for ident in client.accepted}
    unknown = {ident for client in clients for ident in client.unknown}
    found = {ident: count for ident, count in ids(house).items() if ident.endswith("@kill>")}
    lost, doubled = accepted - set(found), [ident for ident, count in found.items() if count > 1]
    print(f"master killed: {len(accepted)} accepted, {len(lost)} lost, {len(doubled)} doubled ({flying} in delivery at the"
          f" kill), {len(unknown & set(found))} of {len(unknown)} that were cut off arrived")
    assert len(accepted) == 1000 and unknown and not lost
    assert set(found) <= accepted | unknown
    # Between the file in new/ and the mark in the queue a kill makes a delivery happen again: so Postfix promises.
    assert len(doubled) <= flying and max(found.values()) <= 2


def test_a_stop_leaves_nothing_behind(house):
    pid = ready(house)["pid"]
    everyone = [pid for pids in processes(house).values() for pid in pids]
    house.run("stop", "smtpd")
    assert not [pid for pid in everyone if os.path.exists(f"/proc/{pid}")]
    assert swaks("--quit-after", "EHLO")[0] == 2
    house.run("start", "smtpd")
    assert swaks("--quit-after", "EHLO")[0] == 0


# ---- what the check proves

IMPATIENT = """[service]
ready_timeout = "6s"
restart = { limit = "0/60s" }
[check]
timeout = "2s"
"""
# Without urandom port 25 accepts, and no banner ever comes.
NO_RANDOM = "[remove]\ntree.devices = [\"urandom\"]\n"


@contextlib.contextmanager
def apart(*drop_ins):
    """A house of its own, with a port 25 of its own, built with drop-ins, Dovecot and jaild running, smtpd not started."""
    with own_port_25(), Instance() as it:
        it.conf = lay_out(it)
        for number, text in enumerate(drop_ins):
            it.drop_in("smtpd", text, f"6{number}-test.toml")
        it.run("build", "smtpd")
        dovecot = Dovecot(it, {ALICE: PASSWORD})
        try:
            it.start_jaild()
            yield it
        finally:
            dovecot.stop()


def never_ready(it, words):
    """Starts what cannot serve: it must not become ready, by the word of the check, and log `words`."""
    it.run("start", "smtpd", status=1)
    status = it.status("smtpd")
    assert status["state"] == "failed" and "waiting for the check (no result within 2s)" in status["reason"], status
    assert [line for line in log(it) if words in line], log(it)


def test_a_port_that_accepts_and_never_answers_is_not_ready():
    with apart(IMPATIENT, NO_RANDOM) as it:
        never_ready(it, "cannot open entropy device /dev/urandom")


# ---- Postfix's own chroot, inside of the jail


def with_inner_chroots(it):
    """As Debian ships master.cf: all but proxymap and virtual."""
    master = it.conf / "master.cf"
    master.write_text(re.sub(r"^((?!proxy|virtual)[a-z]+ +(?:inet|unix) +\S+ +\S+ +)n", r"\1y", master.read_text(), flags=re.M))


def test_inner_chroots_are_refused_unless_granted():
    with apart(IMPATIENT) as it:
        with_inner_chroots(it)
        never_ready(it, "chroot(/var/spool/postfix): Operation not permitted")


def test_inner_chroots_work_with_the_drop_in():
    with apart((REPO / "manifests/examples/smtpd/chroot.toml").read_text()) as it:
        with_inner_chroots(it)
        it.run("start", "smtpd")
        assert swaks(*LOGIN, "-ap", PASSWORD, "--from", ALICE, "--to", BOB, "--body", "token-chroot", server=SUBMISSION)[0] == 0
        delivered(it, "token-chroot")
        queue = (it.home / "state/volumes/smtpd-queue").stat()
        running = processes(it)
        for name in ("smtpd", "qmgr", "cleanup"):
            for pid in running[name]:
                root = os.stat(f"/proc/{pid}/root/")
                assert (root.st_dev, root.st_ino) == (queue.st_dev, queue.st_ino), name
        assert os.stat(f"/proc/{running['virtual'][0]}/root/").st_ino != queue.st_ino
        # Whoever opens the log in there reaches the relay: one socket, seen twice.
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as inner:
            inner.connect(f"/proc/{running['smtpd'][0]}/root/dev/log")
            inner.send(b"<22>postfix/smtpd: token-inner-log")
        wait_for(lambda: [line for line in log(it) if "token-inner-log" in line], 5, "the line in the log")

