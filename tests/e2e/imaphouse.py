"""What the tests of the IMAP and POP3 servers share: clients, what they do, and what a jail's processes may."""

import imaplib
import os
import pathlib
import poplib
import socket
import ssl
import subprocess
import threading
import time

import pytest

from jailtest import wait_for

USER, PASSWORD = "alice@example.test", "correct horse"


def make_certificate(folder, gid):
    """A certificate for localhost, its key readable for root and the group."""
    folder.mkdir(exist_ok=True)
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost", "-addext",
         "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True)
    os.chown(folder / "key.pem", 0, gid)
    (folder / "key.pem").chmod(0o640)


def message(ident, body="Hello"):
    return f"From: bob@example.test\r\nTo: {USER}\r\nSubject: {ident}\r\nMessage-ID: <{ident}@example.test>\r\n\r\n{body}\r\n".encode()


def ok(answer):
    assert answer[0] == "OK", answer
    return answer[1]


# ---- clients


def imap(it, timeout=20):
    return imaplib.IMAP4_SSL("localhost", 993, ssl_context=it.trust, timeout=timeout)


def logged_in(it, timeout=20):
    client = imap(it, timeout)
    assert client.login(USER, PASSWORD)[0] == "OK"
    return client


def pop(it):
    return poplib.POP3_SSL("localhost", 995, context=it.trust, timeout=20)


def pop_logged_in(it):
    client = pop(it)
    client.user(USER)
    client.pass_(PASSWORD)
    return client


class FromElsewhere(imaplib.IMAP4):
    """Not from the address that it connects to: Dovecot takes such a client's connection for a safe one."""

    def _create_socket(self, timeout):
        return socket.create_connection((self.host, self.port), timeout, source_address=("127.0.0.2", 0))


def s_client(it, *words, port=993):
    return subprocess.run(["openssl", "s_client", "-connect", f"localhost:{port}", "-verify_return_error", *map(str, words)],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)


# ---- what they do


def found(it, subject):
    """The numbers of the messages of that subject, asked for in a session of its own."""
    client = logged_in(it)
    try:
        ok(client.select())
        return ok(client.search(None, "SUBJECT", subject))[0].split()
    finally:
        client.shutdown()


def text_of(it, subject):
    """The one message of that subject, when it has come."""
    number = wait_for(lambda: found(it, subject), 20, f"{subject} in IMAP")
    assert len(number) == 1
    client = logged_in(it)
    ok(client.select())
    text = ok(client.fetch(number[0], "(BODY[])"))[0][1]
    client.logout()
    return text


def the_certificate_verifies_and_old_tls_is_refused(it, cert, port):
    trusted = ["-CAfile", cert, "-verify_hostname", "localhost"]
    good = s_client(it, *trusted, port=port)
    assert good.returncode == 0 and "Verification: OK" in good.stdout
    assert s_client(it, port=port).returncode != 0, "nobody else trusts it"
    assert s_client(it, *trusted[:2], "-verify_hostname", "example.org", port=port).returncode != 0
    assert s_client(it, *trusted, "-tls1_2", port=port).returncode == 0
    assert s_client(it, *trusted, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0", port=port).returncode != 0


def idle_sees(it, deliver, patience=20):
    """How many seconds after `deliver` IDLE tells of a message."""
    client = logged_in(it)
    before = int(ok(client.select())[0])
    client.send(b"x1 IDLE\r\n")
    assert client.readline().startswith(b"+ ")
    client.sock.settimeout(0.5)
    with pytest.raises(TimeoutError):
        client.sock.recv(1)  # silence until something happens
    client.sock.settimeout(patience)
    begin = time.monotonic()
    deliver()
    heard = b""
    while b"EXISTS" not in heard:
        heard += client.sock.recv(1000)
    assert f"* {before + 1} EXISTS".encode() in heard
    client.shutdown()
    return time.monotonic() - begin


# ---- what the jail's processes are


def processes(it, name):
    """All of the jail: those in the pid namespace of its daemon."""
    space = os.readlink(f"/proc/{it.status(name)['pid']}/ns/pid")
    pids = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "ns/pid") == space:
                pids.append(int(entry.name))
        except OSError:
            continue
    return pids


def unprivileged(it, name, user, capabilities=0):
    """The names of the jail's processes, after a look at each: of that user from the start, with these capabilities."""
    names = set()
    for pid in processes(it, name):
        try:
            lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        status = {key: value.split() for key, value in (line.split(":", 1) for line in lines)}
        comm = status["Name"][0]
        names.add(comm)
        assert status["NoNewPrivs"] == ["1"], comm
        assert status["Groups"] in ([], [str(user.pw_gid)]), comm
        held = 0 if comm == "jail-init" else capabilities
        for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[key][0], 16) == held, (comm, key)
        if comm == "jail-init":
            continue
        assert status["Seccomp"] == ["2"], comm
        assert status["Uid"] == [str(user.pw_uid)] * 4, comm
        assert status["Gid"] == [str(user.pw_gid)] * 4, comm
    return names


class Load:
    """A client that logs in every 50 ms, come what may."""

    def __init__(self, it, login=logged_in):
        self.it, self.login = it, login

    def __enter__(self):
        self.served, self.lost, self.refused, self.threads = [], [], [], []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def one(self):
        begin = time.monotonic()
        try:
            self.login(self.it, 30).logout()
            self.served.append((begin, time.monotonic() - begin))
        except ConnectionRefusedError:
            self.refused.append(begin)
        except (OSError, ssl.SSLError, imaplib.IMAP4.error) as error:
            self.lost.append((begin, error))

    def run(self):
        while not self.stopping.wait(0.05):
            thread = threading.Thread(target=self.one)
            thread.start()
            self.threads.append(thread)

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()
        for thread in self.threads:
            thread.join()

    def report(self, what):
        print(f"{what}: {len(self.threads)} logins, {len(self.served)} served, {len(self.refused)} refused, {len(self.lost)} lost; "
              f"the longest took {max(taken for _, taken in self.served) * 1000:.0f} ms")
