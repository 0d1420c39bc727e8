"""OpenSMTPD in its jail, from the manifest and the example that we ship, in the place of Postfix: real clients, a thousand
messages counted while things are killed, and each privilege taken away once."""

import os
import pwd
import signal
import socket

import pytest

import mtahouse
from audit import Denials
from jailtest import send, wait_for
from mailhouse import BOB, SENDER, mailbox, messages, processes, swaks
from mtahouse import capabilities, lines_with, without
from packages import installed

SERVES = {"smtpd-opensmtpd": "swaks, smtplib"}

NAME, ETC = "smtpd-opensmtpd", "/etc/opensmtpd"
USERS = ("root", "mail", "opensmtpd", "opensmtpq")
PROGRAMS = ("smtpd", "sh", "mail.maildir")


@pytest.fixture(scope="module", autouse=True)
def packages():
    with installed("opensmtpd"):
        yield


@pytest.fixture(scope="module")
def house(packages):
    with mtahouse.opened(NAME, ETC) as house:
        house.start()
        yield house


def spool(house):
    return house.volume("smtpd-opensmtpd-spool")


def idle(house, *parts):
    """No message in the queue, and none on its way in (where one stays that a kill has cut off)."""
    return not [path for part in parts or ("queue", "incoming") for path in (spool(house) / part).rglob("*") if path.is_file()]


def cut_off_in_the_middle():
    """A message that its client does not finish."""
    with socket.create_connection(("127.0.0.1", 25), 10) as client:
        file = client.makefile("rwb", buffering=0)
        for line in (b"", b"HELO client.example.org", f"MAIL FROM:<{SENDER}>".encode(), f"RCPT TO:<{BOB}>".encode(), b"DATA"):
            if line:
                file.write(line + b"\r\n")
            assert file.readline()[:1] in b"23"
        file.write(b"Subject: half\r\n\r\nhalf a mess")


def test_mail_arrives_once_and_is_the_mailbox_owners(house):
    code, talk = swaks("--from", SENDER, "--to", BOB, "--body", "token-plain")
    assert code == 0, talk
    assert len(house.delivered("token-plain")) == 1
    owner = pwd.getpwnam("mail").pw_uid
    assert {path.stat().st_uid for path in (mailbox(house.it) / "new").iterdir()} == {owner}
    swaks("--from", SENDER, "--to", "postmaster@example.test", "--body", "token-alias")
    house.delivered("token-alias", "alice")


def test_relaying_and_unknown_recipients_are_refused(house):
    mtahouse.refused_recipients({"x@elsewhere.example": "550 Invalid recipient", "nobody@example.test": "550 Invalid recipient",
                                 # A user of the tree who has no mailbox.
                                 "root@example.test": "550 Invalid recipient"})


def test_a_password_cannot_be_sent_in_the_clear(house):
    code, talk = swaks("-tls", "--from", SENDER, "--to", BOB)
    assert code == 29 and "STARTTLS" in talk, talk
    code, talk = swaks("-a", "PLAIN", "-au", "bob", "-ap", "x", "--from", SENDER, "--to", BOB)
    assert code == 28, talk


def test_a_message_that_is_cut_off_is_none(house):
    before = len(messages(house.it))
    cut_off_in_the_middle()
    wait_for(lambda: idle(house), 10, "an empty queue")
    assert len(messages(house.it)) == before


def test_privileges(house):
    granted = sum(1 << number for number in (2, 6, 7, 10, 18))  # dac_read_search setgid setuid net_bind_service sys_chroot
    main = house.ready()["pid"]
    empty, queue = [os.stat(path) for path in (house.it.tree(NAME) / "var/lib/opensmtpd/empty", spool(house))]
    uids = {pwd.getpwnam(user).pw_uid for user in ("opensmtpd", "opensmtpq")}
    roots = set()
    for pid in (pid for pids in processes(house.it, NAME).values() for pid in pids):
        if not os.readlink(f"/proc/{pid}/exe").endswith("/smtpd"):
            continue  # the jail's init
        sets, who = capabilities(pid)
        assert sets["CapBnd"] == granted and sets["CapAmb"] == sets["CapInh"] == 0
        root = os.stat(f"/proc/{pid}/root/")
        roots.add((root.st_dev, root.st_ino))
        if pid == main or who == {0}:
            continue
        assert sets["CapPrm"] == 0 and who <= uids
    assert {(empty.st_dev, empty.st_ino), (queue.st_dev, queue.st_ino)} & roots


def test_a_reload_is_a_restart_with_the_new_tables(house):
    table = house.conf / "mailboxes"
    text = table.read_text()
    pid = house.ready()["pid"]
    table.write_text(text + "carol 8:8:/var/lib/opensmtpd/empty\n")
    house.it.run("reload", NAME)
    assert house.ready()["pid"] != pid
    assert swaks("--from", SENDER, "--to", "carol@example.test", "--quit-after", "RCPT")[0] == 0
    table.write_text(text)
    house.it.run("reload", NAME)
    mtahouse.refused_recipients({"carol@example.test": "550 Invalid recipient"})


def test_mail_that_waits_outlives_a_restart(house):
    """A mailbox that cannot be written now is no reason to lose mail."""
    folder = mailbox(house.it).parent
    folder.rename(folder.with_name("away"))
    folder.touch()
    swaks("--from", SENDER, "--to", BOB, "--body", "token-waits")
    wait_for(lambda: lines_with(house, "result=TempFail"), 10, "a delivery that failed for now")
    house.it.run("restart", NAME)
    folder.unlink()
    folder.with_name("away").rename(folder)
    house.it.run("restart", NAME)
    assert len(house.delivered("token-waits")) == 1


def test_nothing_is_refused_to_it(house):
    with Denials() as denials:
        house.it.run("restart", NAME)
        swaks("--from", SENDER, "--to", BOB, "--body", "token-denials")
        house.delivered("token-denials")
        cut_off_in_the_middle()
        wait_for(lambda: idle(house), 10, "an empty queue")
        house.it.run("stop", NAME)
        assert not mtahouse.denied(denials, PROGRAMS, USERS)
    house.start()


def test_a_thousand_messages_and_jaild_is_killed(house):
    mtahouse.a_thousand_while_jaild_is_killed(house, lambda: idle(house))


def test_a_thousand_messages_and_the_daemon_is_killed(house):
    mtahouse.a_thousand_while_the_daemon_is_killed(house, lambda: idle(house, "queue"), 50)


def test_the_end_of_one_process_is_the_end_of_all_and_of_nothing_else(house):
    pid = house.ready()["pid"]
    child = next(pid for pid in children(house) if pid != house.ready()["pid"])
    send(child, signal.SIGKILL)
    wait_for(lambda: house.it.status(NAME)["pid"] not in (0, pid) and house.ready(), 15, "another life")
    swaks("--from", SENDER, "--to", BOB, "--body", "token-again")
    house.delivered("token-again")


def children(house):
    return [pid for pids in processes(house.it, NAME).values() for pid in pids
            if os.readlink(f"/proc/{pid}/exe").endswith("/smtpd")]


def test_it_does_not_run_beside_postfix(house):
    mtahouse.excludes_smtpd(house)


# ---- what it cannot do without

IMPATIENT = '[service]\nready_timeout = "4s"\nrestart = { limit = "0/60s" }\n'
# What is taken away, where that shows, and OpenSMTPD's own words about it.
NEEDED = {
    "capabilities.setuid": ("start", ""),
    "capabilities.setgid": ("start", ""),
    "capabilities.sys_chroot": ("start", "chroot"),
    "capabilities.net_bind_service": ("start", "bind: Permission denied"),
    "capabilities.dac_read_search": ("purge", "purge_task: opendir: Permission denied"),
    "syscalls.@default": ("start", ""),
    "syscalls.@network-server": ("start", ""),
    "syscalls.@file-write": ("start", ""),
    "syscalls.@credentials": ("start", ""),
    "syscalls.wait4": ("queue", ""),
    "syscalls.setsid": ("delivery", ""),
    "syscalls.vfork": ("delivery", "Cannot fork"),
}


def lacks(house):
    """(stage, detail): the first thing that does not work of what the tests above do; (None, "") where all does."""
    left = spool(house) / "purge/0a/1b"
    left.mkdir(parents=True)
    for path in (left, left.parent):
        os.chown(path, pwd.getpwnam("opensmtpq").pw_uid, 0)
        path.chmod(0o700)
    if house.it.run("start", NAME, status=None).returncode != 0:
        return "start", str(house.it.status(NAME)["reason"])
    code, talk = swaks("--from", SENDER, "--to", BOB, "--body", "token-rich", "--timeout", "5")
    if code != 0:
        return "SMTP", talk
    for stage, done in (("delivery", lambda: len(messages(house.it)) == 1), ("purge", lambda: not left.parent.exists()),
                        ("queue", lambda: idle(house))):
        try:
            wait_for(done, 3)
        except AssertionError:
            return stage, ""
    wrong = lines_with(house, WRONG)
    return ("log", wrong[0]) if wrong else (None, "")


WRONG = r"not permitted|ermission denied|warn: |fatal: |Cannot fork|result=(Perm|Temp)Fail"


@pytest.mark.parametrize("fewer", [None, *NEEDED])
def test_each_privilege_is_needed(fewer):
    stage, words = NEEDED.get(fewer, (None, ""))
    with mtahouse.apart(NAME, ETC, IMPATIENT, *([without(fewer)] if fewer else [])) as house:
        found, detail = lacks(house)
        said = lines_with(house, WRONG)
        print(f"without {fewer}: {found}: {detail}", *said[:5], sep="\n  ")
        assert found == stage, detail
        assert not words or [line for line in [detail, *said] if words in line]


def test_nothing_else_is_granted(house):
    assert mtahouse.granted(house) == set(NEEDED)
