"""sendmail in its jail, from the manifest and the example that we ship, in the place of Postfix: real clients, STARTTLS, a
thousand messages counted while things are killed, and each privilege taken away once."""

import os
import pwd
import shutil
import smtplib
import socket
import subprocess
import threading

import pytest

import mtahouse
from audit import Denials
from jailtest import REPO, wait_for
from mailhouse import BOB, SENDER, certificate, mailbox, messages, processes, swaks
from mtahouse import capabilities, lines_with, without
from packages import installed

SERVES = {"smtpd-sendmail": "swaks, smtplib"}

NAME, ETC = "smtpd-sendmail", "/etc/mail"
USERS = ("root", "mail")
PROGRAMS = ("sendmail", "procmail", "mkdir")
RELAYING, UNKNOWN = "550 5.7.1", "550 5.1.1"


def prepare(conf):
    """The certificate, as README.md says."""
    certificate(conf / "tls")
    key = conf / "tls/key.pem"
    shutil.chown(key, "root", "mail")
    key.chmod(0o640)
    database = conf / "sasldb2"
    words = ["saslpasswd2", "-p", "-c", "-f", database, "-u", "example.test", "bob"]
    subprocess.run(words, input="secret", text=True, check=True)
    shutil.chown(database, "root", "mail")
    database.chmod(0o640)


@pytest.fixture(scope="module", autouse=True)
def packages():
    with installed("sendmail"):
        yield


@pytest.fixture(scope="module")
def house(packages):
    with mtahouse.opened(NAME, ETC, prepare=prepare) as house:
        house.start()
        yield house


def idle(house, files="[dq]f*"):
    """No message in the queue (where the text, df, of one stays that a kill has cut off)."""
    return not list(house.volume("smtpd-sendmail-queue").glob(files))


def test_sendmail_cf_is_made_from_sendmail_mc():
    example = REPO / "manifests/examples" / NAME
    made = subprocess.run("m4 sendmail.mc | sed '/^#/d; /^$/d'", shell=True, cwd=example, capture_output=True, text=True, check=True)
    assert made.stdout == (example / "sendmail.cf").read_text() and made.stderr == ""


def test_mail_by_starttls_arrives_once_and_is_the_mailbox_owners(house):
    code, talk = swaks("-tls", "--tls-protocol", "tlsv1_2", "--from", SENDER, "--to", BOB, "--body", "token-starttls")
    assert code == 0 and "TLS started with cipher TLSv1.2" in talk, talk
    text, = house.delivered("token-starttls")
    assert "version=TLSv1.2" in text
    owner = pwd.getpwnam("mail").pw_uid
    assert {path.stat().st_uid for path in (mailbox(house.it) / "new").iterdir()} == {owner}
    code, talk = swaks("-tls", "--tls-protocol", "tlsv1_1", "--from", SENDER, "--to", BOB)
    assert code == 29 and "TLS startup failed" in talk, talk
    swaks("--from", SENDER, "--to", "postmaster@example.test", "--body", "token-alias")
    house.delivered("token-alias", "alice")


def test_no_version_and_no_login_in_the_clear(house):
    talk = swaks("--quit-after", "EHLO")[1]
    assert "220 mail.example.test ESMTP\n" in talk and "AUTH" not in talk, talk


def test_who_logs_in_over_tls_may_relay_and_nobody_else(house):
    login = lambda password: ("--auth", "PLAIN", "--auth-user", BOB, "--auth-password", password)
    send = lambda *words: swaks(*words, "--from", SENDER, "--to", "x@elsewhere.example", "--quit-after", "RCPT")
    with Denials() as denials:
        code, talk = send("-tls", *login("secret"))
        assert code == 0 and "235 2.0.0" in talk, talk
        code, talk = send("-tls", *login("wrong"))
        assert code == 28 and "535 5.7.0" in talk, talk
        code, talk = send("-tls")
        assert code == 24 and RELAYING in talk, talk
        assert not mtahouse.denied(denials, PROGRAMS, USERS)
    with smtplib.SMTP("127.0.0.1", 25) as client:
        client.ehlo()
        assert client.docmd("AUTH", "PLAIN AGJvYkBleGFtcGxlLnRlc3QAc2VjcmV0")[0] != 235
        assert client.mail(SENDER)[0] == 250 and client.rcpt("x@elsewhere.example")[0] == 550


class Elsewhere(threading.Thread):
    """Another mail server, of one message, at 127.0.0.2."""

    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.2", 25))
        self.heard = []
        self.start()

    def run(self):
        peer = self.listener.accept()[0].makefile("rwb", buffering=0)
        say = lambda text: peer.write(text.encode() + b"\r\n")
        say("220 elsewhere.example ESMTP")
        for line in peer:
            self.heard.append(line.decode().rstrip())
            if line.upper().startswith(b"DATA"):
                say("354 go on")
                while (line := peer.readline()) not in (b".\r\n", b""):
                    self.heard.append(line.decode().rstrip())
            say("221 bye" if line.upper().startswith(b"QUIT") else "250 ok")


def test_what_is_for_elsewhere_gets_there(house):
    elsewhere = Elsewhere()
    with Denials() as denials:
        code, talk = swaks("-tls", "--auth", "PLAIN", "--auth-user", BOB, "--auth-password", "secret", "--from", BOB,
                           "--to", "x@[127.0.0.2]", "--body", "token-elsewhere")
        assert code == 0, talk
        wait_for(lambda: "token-elsewhere" in elsewhere.heard, 15, "the message at the other server")
        wait_for(lambda: idle(house), 15, "an empty queue")
        assert not mtahouse.denied(denials, PROGRAMS, USERS)
    assert f"MAIL From:<{BOB}>" in elsewhere.heard[1] and "RCPT To:<x@[127.0.0.2]>" in "".join(elsewhere.heard[:4])


def test_relaying_and_unknown_recipients_are_refused(house):
    """Nor is anything a way around: a route, a program, a file, a list, a user of the system."""
    unknown = ["nobody@example.test", "root@example.test", "mail", "../bob@example.test", "|/usr/bin/mkdir@example.test", "/tmp/x",
               '"|/usr/bin/mkdir /tmp/x"@example.test', ":include:/etc/mail/mailboxes@example.test", "MAILER-DAEMON@example.test",
               "x!bob@example.test", "NONE@example.test"]
    relaying = ["x@elsewhere.example", "x%elsewhere.example@example.test", "bob@[192.0.2.1]"]
    mtahouse.refused_recipients({**dict.fromkeys(unknown, UNKNOWN), **dict.fromkeys(relaying, RELAYING)})
    assert swaks("--from", SENDER, "--to", "postmaster", "--quit-after", "RCPT")[0] == 0  # RFC 5321 4.5.1


def test_who_talks_with_strangers_has_no_privilege(house):
    granted = sum(1 << number for number in (6, 7, 10))  # setgid setuid net_bind_service
    main, mail = house.ready()["pid"], pwd.getpwnam("mail").pw_uid
    with smtplib.SMTP("127.0.0.1", 25) as client:
        client.ehlo()
        child, = set(processes(house.it, NAME)["sendmail"]) - {main}
        sets, who = capabilities(child)
        assert sets == {"CapPrm": 0, "CapBnd": granted, "CapAmb": 0, "CapInh": 0} and who == {mail}
    sets, who = capabilities(main)
    assert sets == {"CapPrm": granted, "CapBnd": granted, "CapAmb": 0, "CapInh": 0} and who == {0}


def test_a_mailbox_is_there_at_once_and_a_setting_after_a_reload(house):
    table, cf = house.conf / "mailboxes", house.conf / "sendmail.cf"
    pid = house.ready()["pid"]
    table.write_text(table.read_text() + "carol bob\n")
    swaks("--from", SENDER, "--to", "carol@example.test", "--body", "token-carol")
    house.delivered("token-carol")
    text = cf.read_text()
    cf.write_text(text.replace("O MaxMessageSize=26214400", "O MaxMessageSize=4711"))
    house.it.run("reload", NAME)
    wait_for(lambda: "SIZE 4711" in swaks("--quit-after", "EHLO")[1], 10, "the new setting")
    assert house.status_pid() == pid
    assert swaks("-tls", "--from", SENDER, "--to", BOB)[0] == 0
    cf.write_text(text)
    house.it.run("reload", NAME)
    wait_for(lambda: "SIZE 26214400" in swaks("--quit-after", "EHLO")[1], 10, "the old setting")


def test_mail_that_waits_outlives_a_restart(house):
    """A mailbox that cannot be written now is no reason to lose mail."""
    folder = mailbox(house.it).parent
    folder.rename(folder.with_name("away"))
    folder.touch()
    swaks("--from", SENDER, "--to", BOB, "--body", "token-waits")
    wait_for(lambda: lines_with(house, "stat=Deferred"), 10, "a delivery that failed for now")
    house.it.run("restart", NAME)
    assert not idle(house)
    folder.unlink()
    folder.with_name("away").rename(folder)
    house.it.run("restart", NAME)
    assert len(house.delivered("token-waits")) == 1


def test_nothing_is_refused_to_it(house):
    with Denials() as denials:
        house.it.run("restart", NAME)
        swaks("-tls", "--from", SENDER, "--to", BOB, "--body", "token-denials")
        house.delivered("token-denials")
        house.it.run("reload", NAME)
        wait_for(lambda: swaks("--quit-after", "EHLO")[0] == 0, 10, "another answer")
        house.it.run("stop", NAME)
        assert not mtahouse.denied(denials, PROGRAMS, USERS)
    house.start()


def test_a_thousand_messages_and_jaild_is_killed(house):
    mtahouse.a_thousand_while_jaild_is_killed(house, lambda: idle(house))


def test_a_thousand_messages_and_the_daemon_is_killed(house):
    mtahouse.a_thousand_while_the_daemon_is_killed(house, lambda: idle(house, "qf*"), 50)


def test_a_stop_leaves_nothing_behind(house):
    everyone = [pid for pids in processes(house.it, NAME).values() for pid in pids]
    house.it.run("stop", NAME)
    assert not [pid for pid in everyone if os.path.exists(f"/proc/{pid}")]
    assert swaks("--quit-after", "EHLO")[0] == 2
    house.start()


def test_it_does_not_run_beside_postfix(house):
    mtahouse.excludes_smtpd(house)


# ---- what it cannot do without

IMPATIENT = '[service]\nready_timeout = "4s"\nrestart = { limit = "0/60s" }\n'
# What is taken away, where that shows, and sendmail's own words about it.
NEEDED = {
    "capabilities.setuid": ("start", "setuid(8) failed: Operation not permitted"),
    "capabilities.setgid": ("start", "exited with status 71"),
    "capabilities.net_bind_service": ("start", "Permission denied"),
    "syscalls.@default": ("start", "killed by SIGSEGV"),
    "syscalls.@network-server": ("start", ""),
    "syscalls.@file-write": ("SMTP", "fsync, uid=8, gid=8): Operation not permitted"),
    "syscalls.@credentials": ("start", "exited with status 71"),
    "syscalls.wait4": ("delivery", ""),
}
WRONG = r"not permitted|ermission denied|SYSERR|Deferred|refused"


def lacks(house):
    """(stage, detail): the first thing that does not work of what the tests above do; (None, "") where all does."""
    if house.it.run("start", NAME, status=None).returncode != 0:
        return "start", str(house.it.status(NAME)["reason"])
    code, talk = swaks("-tls", "--from", SENDER, "--to", BOB, "--body", "token-rich", "--timeout", "5")
    if code != 0:
        return "SMTP", talk
    try:
        wait_for(lambda: len(messages(house.it)) == 1 and idle(house), 3)
    except AssertionError:
        return "delivery", ""
    house.it.run("reload", NAME)
    try:
        wait_for(lambda: swaks("--quit-after", "EHLO", "--timeout", "2")[0] == 0, 3)
    except AssertionError:
        return "reload", ""
    wrong = lines_with(house, WRONG)
    return ("log", wrong[0]) if wrong else (None, "")


@pytest.mark.parametrize("fewer", [None, *NEEDED])
def test_each_privilege_is_needed(fewer):
    stage, words = NEEDED.get(fewer, (None, ""))
    with mtahouse.apart(NAME, ETC, IMPATIENT, *([without(fewer)] if fewer else []), prepare=prepare) as house:
        found, detail = lacks(house)
        said = lines_with(house, WRONG)
        print(f"without {fewer}: {found}: {detail}", *said[:5], sep="\n  ")
        assert found == stage, detail
        assert not words or [line for line in [detail, *said] if words in line]


def test_nothing_else_is_granted(house):
    assert mtahouse.granted(house) == set(NEEDED)
