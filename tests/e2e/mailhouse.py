"""A Postfix jail for a test: the shipped manifest and the shipped example, with a certificate and a Dovecot for AUTH."""

import collections
import contextlib
import ctypes
import json
import os
import pathlib
import re
import shutil
import signal
import smtplib
import subprocess
import threading
import time
import tomllib

from jailtest import CLONE_NEWNET, REPO, own_network, send, wait_for

PASSWORD = "correct horse"
SENDER, ALICE, BOB = "someone@example.org", "alice@example.test", "bob@example.test"
LOGIN = ["-tls", "-a", "PLAIN", "-au", ALICE]
SUBMISSION = "127.0.0.1:587"
# What Postfix says of what it was refused.
WRONG = re.compile("not permitted|ermission denied| warning: | fatal: | panic: ")
DOVECOT = """
base_dir = {run}
log_path = {run}/log
protocols =
ssl = no
auth_mechanisms = plain login
passdb {{
  driver = passwd-file
  args = {run}/users
}}
userdb {{
  driver = static
  args = uid=mail gid=mail home=/nonexistent
}}
service auth {{
  unix_listener {socket} {{
    mode = 0666
  }}
}}
"""


class Dovecot:
    """The real Dovecot, for AUTH alone, outside of any jail: its socket lies in the volume mail-auth."""

    def __init__(self, it, users):
        self.run = it.home / "dovecot"
        self.run.mkdir(mode=0o755)
        (self.run / "users").write_text("".join(f"{user}:{{PLAIN}}{password}\n" for user, password in users.items()))
        socket = it.home / "state/volumes/mail-auth/smtp"
        config = it.home / "dovecot.conf"  # not in base_dir, where Dovecot puts a link of that name
        config.write_text(DOVECOT.format(run=self.run, socket=socket))
        self.process = subprocess.Popen(["dovecot", "-F", "-c", str(config)], stdin=subprocess.DEVNULL)
        wait_for(socket.exists, 10, "Dovecot's socket")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(10)


@contextlib.contextmanager
def own_port_25():
    """A network namespace for one Postfix, beside that which the test process lives in. master sets SO_REUSEPORT: a second
    one on the same port does not fail, but gets every other connection."""
    before = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        own_network()
        yield
    finally:
        assert ctypes.CDLL(None).setns(before, CLONE_NEWNET) == 0
        os.close(before)


def certificate(folder, name="mail.example.test"):
    folder.mkdir()
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}",
         "-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")],
        check=True, capture_output=True,
    )
    (folder / "key.pem").chmod(0o600)


def lay_out(it, example="smtpd"):
    """The example as this instance's /etc/postfix, live in the jail."""
    folder = it.home / "postfix"
    shutil.copytree(REPO / "manifests/examples" / example, folder)
    certificate(folder / "tls")
    # The shipped check reads the host's /etc/postfix/main.cf, as every program of Postfix does. Here it is elsewhere.
    manifest = tomllib.loads((REPO / "manifests/smtpd.toml").read_text())
    check = ["/usr/bin/env", f"MAIL_CONFIG={folder}", *manifest["check"]["command"]]
    it.drop_in(
        "smtpd",
        f'[remove]\nconfig = ["/etc/postfix"]\n[check]\ncommand = {json.dumps(check)}\n'
        f'[[config]]\nfrom = "{folder}"\nto = "/etc/postfix"\n',
    )
    return folder


def swaks(*words, server="127.0.0.1:25"):
    """(exit status, transcript)"""
    done = subprocess.run(["swaks", "--server", server, "--helo", "client.example.org", "--timeout", "20", *words],
                          capture_output=True, text=True, timeout=90)
    return done.returncode, done.stdout + done.stderr


def mailbox(it, user="bob"):
    return it.home / f"state/volumes/mail/example.test/{user}/Maildir"


def messages(it, user="bob"):
    """The text of every message that `user` has."""
    folder = mailbox(it, user) / "new"
    return [path.read_text(errors="replace") for path in sorted(folder.iterdir())] if folder.is_dir() else []


def processes(it, name="smtpd"):
    """{comm: [pid]} of the jail `name`."""
    main = it.status(name)["pid"]
    space = os.readlink(f"/proc/{main}/ns/pid")
    found = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "ns/pid") == space:
                found.setdefault((entry / "comm").read_text().strip(), []).append(int(entry.name))
        except OSError:
            continue
    return found


def log(it):
    return it.run("logs", "smtpd", "-n", "all").stdout.splitlines()


def take_away(text, service):
    """The text of a master.cf without one service."""
    return re.sub(rf"^{service} inet.*\n(  -o .*\n)*", "", text, flags=re.M)


def ends_are_collected(it):
    """Whether master learns that a daemon has ended: it is gone, not a zombie, and the next client gets a new one."""
    ended = processes(it)["smtpd"]
    for pid in ended:
        send(pid, signal.SIGTERM)
    wait_for(lambda: not [pid for pid in ended if os.path.exists(f"/proc/{pid}")], 5, "smtpd's end is seen")
    assert swaks("--quit-after", "EHLO", "--timeout", "5")[0] == 0, "a new smtpd"


def workload(it):
    """What a mail server does all day. A generator of the steps' names, each yielded before the step is done; raises
    where one does not work."""
    yield "start"
    it.run("start", "smtpd")
    yield "STARTTLS"
    code, talk = swaks("-tls", "--from", SENDER, "--to", BOB, "--body", "token-rich", "--timeout", "10")
    assert code == 0, talk
    yield "login"
    code, talk = swaks(*LOGIN, "-ap", PASSWORD, "--from", ALICE, "--to", BOB, "--timeout", "10", server=SUBMISSION)
    assert code == 0, talk
    yield "delivery"
    wait_for(lambda: len(messages(it)) == 2, 15, "two messages")
    yield "reload"
    master = it.home / "postfix/master.cf"
    master.write_text(take_away(master.read_text(), "submission"))
    it.run("reload", "smtpd")
    wait_for(lambda: swaks("--quit-after", "EHLO", "--timeout", "5", server=SUBMISSION)[0] == 2, 10, "587 closed")
    assert swaks("--quit-after", "EHLO", "--timeout", "5")[0] == 0
    yield "log"
    wrong = [line for line in log(it) if WRONG.search(line)]
    assert not wrong, wrong[0]
    yield "a child's end"
    ends_are_collected(it)


def ids(it):
    """How often each Message-Id is in bob's mailbox."""
    found = (re.search(r"^Message-Id: (<\S+>)", text, re.M | re.I) for text in messages(it))
    return collections.Counter(match.group(1) for match in found if match)


class Client(threading.Thread):
    """Sends messages with ids of its own until `quota` are accepted; what a lost connection left open is not sent again."""

    def __init__(self, name, quota):
        super().__init__(name=name)
        self.quota, self.accepted, self.unknown = quota, [], []
        self.start()

    def run(self):
        number, end = 0, time.monotonic() + 60
        while len(self.accepted) < self.quota and time.monotonic() < end:
            try:
                with smtplib.SMTP("127.0.0.1", 25, "client.example.org", timeout=20) as smtp:
                    while len(self.accepted) < self.quota:
                        number += 1
                        ident = f"<{self.name}.{number}@kill>"
                        self.unknown.append(ident)
                        smtp.sendmail(SENDER, [BOB], f"Message-Id: {ident}\r\n\r\nx\r\n")
                        self.accepted.append(self.unknown.pop())
            except (OSError, smtplib.SMTPException):
                time.sleep(0.02)
