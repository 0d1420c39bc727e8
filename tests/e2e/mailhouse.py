"""A Postfix jail for a test: the shipped manifest and the shipped example, with a test certificate and a Dovecot for AUTH."""

import contextlib
import ctypes
import os
import pathlib
import signal
import subprocess

from jailtest import CLONE_NEWNET, own_network, wait_for

PASSWORD = "correct horse"
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


def lay_out(it):
    """The example as this instance's /etc/postfix, live in the jail."""
    return it.init("smtpd", "--test-certificate")


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


def processes(it):
    """{comm: [pid]} of the jail smtpd."""
    main = it.status("smtpd")["pid"]
    space = os.readlink(f"/proc/{main}/ns/pid")
    found = {}
    for entry in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if os.readlink(entry / "ns/pid") == space:
                found.setdefault((entry / "comm").read_text().strip(), []).append(int(entry.name))
        except OSError:
            continue
    return found
