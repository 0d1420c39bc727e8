"""A town: named, dhcpd, smtpd and imapd in a jail each, from the manifests and examples that we ship, under one jaild; and
clients that go on asking, whatever happens to the servers.

    client:c0 ------ s0           192.0.2.0/24: served by dhcpd
                     lo           the other three

All of it is in namespaces of the process that calls: its network, and its mounts."""

import collections
import contextlib
import imaplib
import re
import shutil
import signal
import smtplib
import socket
import subprocess
import sys
import threading
import time

from jailtest import REPO, Instance, dns_answer, dns_question, own_mounts, send, wait_for
from mailhouse import lay_out
from dhcphouse import cable, ip, new_mac, setting, udhcpc
from imaphouse import PASSWORD, USER
from test_imapd import configure

SERVICES = ("named", "dhcpd", "imapd", "smtpd")
KILLED = (*SERVICES, "relay", "jaild", "keeper")
PATIENCE = 30  # seconds after which what a client has not got yet counts as lost


@contextlib.contextmanager
def town():
    with own_mounts(users=["dhcpd"]):
        ip("netns", "add", "client")
        setting("client", "ipv6/conf/default/accept_dad", 0)
        cable("s0", "c0", "client", "192.0.2.1/24")
        try:
            with Instance() as it:
                settle_in(it)
                yield it
        finally:
            ip("netns", "delete", "client")


def settle_in(it):
    for name, folder, to in (("named", "named", "/etc/bind"), ("dhcpd", "dhcpd", "/etc/dhcp")):
        shutil.copytree(REPO / "manifests/examples" / folder, it.home / folder)
        it.drop_in(name, f'[[config]]\nfrom = "{it.home / folder}"\nto = "{to}"\n')
    # A ping and a second before each address is lent: right in an office, slow in a town where everybody is new.
    config = it.home / "dhcpd/dhcpd.conf"
    config.write_text(config.read_text().replace("ping-check true;", "ping-check false;"))
    script = it.home / "script"
    script.write_text("#!/bin/sh\nexit 0\n")
    script.chmod(0o755)
    configure(it)
    it.conf = lay_out(it)
    it.run("build", *SERVICES)
    it.start_jaild()
    it.run("start", *SERVICES, timeout=120)


class Client(threading.Thread):
    """Does `once` over and over until told to stop. What fails is tried again, as real clients do; what is not done after
    PATIENCE is `lost`. `pauses` are the longest times between two successes, by what was killed last."""

    every = 0.1
    kills = None  # the Killer, once there is one

    def __init__(self, it):
        super().__init__(daemon=True)
        self.it = it
        self.done, self.again, self.lost, self.unsure = 0, 0, [], []
        self.last = time.monotonic()
        self.pauses = collections.Counter()
        self.stopping = threading.Event()

    def run(self):
        number = 0
        while not self.stopping.is_set():
            number += 1
            self.insist(number)
            self.stopping.wait(self.every)

    def insist(self, number):
        end = time.monotonic() + PATIENCE
        while True:
            try:
                self.once(number)
                break
            except (OSError, EOFError, smtplib.SMTPException, imaplib.IMAP4.abort) as error:
                self.again += 1
                if time.monotonic() > end:
                    self.lost.append((number, repr(error)))
                    return
                time.sleep(0.02)
            except Exception as error:  # a wrong answer is worse than none
                self.lost.append((number, repr(error)))
                return
        now = time.monotonic()
        cause = self.kills.last if self.kills else ""
        self.pauses[cause] = max(self.pauses[cause], now - self.last)
        self.last = now
        self.done += 1

    def stop(self):
        self.stopping.set()
        self.join(PATIENCE + 10)
        assert not self.is_alive(), f"{type(self).__name__} hangs"


class Resolver(Client):
    """Asks named for an address. No answer within 0.3 s: asks again, as a stub resolver does, if less patiently."""

    every = 0.01

    def once(self, number):
        ident, packet = dns_question("www.example.test", ident=number & 0xFFFF)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
            s.settimeout(0.3)
            s.connect(("127.0.0.1", 53))
            s.send(packet)
            while (reply := dns_answer(s.recv(4096)))[0] != ident:
                pass
        # SERVFAIL: named listens a moment before it has loaded its zones.
        if reply[1] == 2:
            raise OSError("SERVFAIL")
        assert reply[1:] == (0, True, 1), reply


class Visitor(Client):
    """busybox udhcpc, each time on a machine that the network has not seen; it asks ten times by itself."""

    every = 0

    def __init__(self, it):
        super().__init__(it)
        self.leases = {}

    def once(self, number):
        mac = new_mac("client", "c0", number % 200)
        given = udhcpc(self.it, tries=10)
        if given is None:
            raise OSError("no lease")
        assert self.leases.setdefault(mac, given) == given, "another address than the last time"


class Sender(Client):
    """A mail server that has messages for alice: what is not accepted is offered again; an answer that never came to the
    end of a message leaves it open whether it was, as RFC 5321 has it (4.5.4.1): such a message may arrive twice."""

    every = 0.03

    def __init__(self, it):
        super().__init__(it)
        self.smtp = None

    def once(self, number):
        try:
            if self.smtp is None:
                self.smtp = smtplib.SMTP("127.0.0.1", 25, "client.example.org", timeout=10)
                self.smtp.ehlo()
            self.smtp.mail("someone@example.org")
            if self.smtp.rcpt(USER)[0] != 250:
                raise smtplib.SMTPException("not taken")
            self.unsure.append(number)
            code = self.smtp.data(f"Subject: town\r\nMessage-ID: <{number}@town>\r\n\r\nHello\r\n")[0]
            if code == 250:
                self.unsure.pop()
                return
            raise smtplib.SMTPException(code)
        except (OSError, smtplib.SMTPException):
            if self.smtp is not None:
                self.smtp.close()
                self.smtp = None
            raise


class Reader(Client):
    """Alice, who logs in, looks for mail and logs out."""

    every = 0.1

    def once(self, number):
        client = imaplib.IMAP4_SSL("localhost", 993, ssl_context=self.it.trust, timeout=10)
        try:
            client.login(USER, PASSWORD)
            assert client.select(readonly=True)[0] == "OK"
        except imaplib.IMAP4.error as error:
            # A login that Dovecot could not get to the end of is not a wrong password.
            if not isinstance(error, imaplib.IMAP4.abort) and "UNAVAILABLE" in str(error):
                raise imaplib.IMAP4.abort(str(error)) from error
            raise
        finally:
            client.shutdown()


class Killer:
    """Kills one after another, each by SIGKILL, and sees all four ready and all clients served before the next."""

    def __init__(self, it, clients):
        self.it, self.clients = it, clients
        self.last = ""
        self.killed = collections.Counter()
        self.slowest = collections.Counter()
        for client in clients:
            client.kills = self

    def pid(self, what):
        return self.it.status(what)["pid"] if what in SERVICES else self.it.supervisors()[f"{what}_pid"]

    def ready(self):
        answer = self.it.json("status", status=None)
        return len(answer["services"]) == len(SERVICES) and all(s["state"] == "ready" for s in answer["services"])

    def kill(self, what):
        victim = self.pid(what)
        others = {name: self.pid(name) for name in SERVICES if name != what}
        self.last = what
        begin = time.monotonic()
        before = [client.done for client in self.clients]
        send(victim, signal.SIGKILL)
        self.killed[what] += 1
        wait_for(lambda: self.alive_again(what, victim), PATIENCE, f"{what} again")
        wait_for(self.ready, PATIENCE, f"all ready after {what} was killed")
        wait_for(lambda: all(c.done > b + 1 or c.lost for c, b in zip(self.clients, before)), PATIENCE, f"service after {what}")
        self.slowest[what] = max(self.slowest[what], time.monotonic() - begin)
        # Nobody else was restarted for it.
        assert {name: self.pid(name) for name in others} == others, f"{what} was not alone"

    def alive_again(self, what, victim):
        try:
            return self.pid(what) not in (0, None, victim)
        except (AssertionError, KeyError, StopIteration, ValueError):
            return False


def live(it, seconds, pace=3.0, say=print):
    """Lets the town live for so long, kills in turn, at least each once. Returns (clients, killer)."""
    clients = [Resolver(it), Visitor(it), Sender(it), Reader(it)]
    killer = Killer(it, clients)
    for client in clients:
        client.start()
    try:
        wait_for(lambda: all(client.done or client.lost for client in clients), PATIENCE + 10, "everybody served once")
        assert not [client.lost for client in clients if client.lost], [client.lost for client in clients]
        end = time.monotonic() + seconds
        turn = 0
        while time.monotonic() < end or turn < len(KILLED):
            begin = time.monotonic()
            killer.kill(KILLED[turn % len(KILLED)])
            turn += 1
            if turn % len(KILLED) == 0:
                say(count(clients, killer))
            time.sleep(max(0.0, pace - (time.monotonic() - begin)))
    finally:
        for client in clients:
            client.stopping.set()
        for client in clients:
            client.stop()
    return clients, killer


def count(clients, killer):
    lines = ["killed: " + ", ".join(f"{name} {number}" for name, number in killer.killed.items())]
    for client in clients:
        cause, pause = max(client.pauses.items(), key=lambda entry: entry[1])
        lines.append(
            f"  {type(client).__name__:9} {client.done} served, {len(client.lost)} lost, {client.again} tried again;"
            f" longest pause {pause:.2f} s ({cause or 'nothing'} killed)"
        )
    return "\n".join(lines)


def audit(it, clients, killer, patience=60):
    """What is wrong after all: a list, empty if nothing is."""
    wrong = [f"{type(client).__name__}: lost {client.lost[:3]}" for client in clients if client.lost]
    _, visitor, sender, _ = clients
    found = collections.Counter(arrived(it, sender.done, patience))
    doubled = [number for number, copies in found.items() if copies > 1]
    accepted = set(range(1, sender.done + len(sender.lost) + 1)) - {number for number, _ in sender.lost}
    if missing := accepted - set(found):
        wrong.append(f"messages accepted and not found: {sorted(missing)[:10]}")
    # Besides the sender's, Postfix itself may deliver again what it had not marked as delivered when it was killed.
    if len(extra := set(doubled) - set(sender.unsure)) > 2 * killer.killed["smtpd"]:
        wrong.append(f"messages doubled: {sorted(extra)[:10]}")
    if odd := set(found) - set(range(1, sender.done + len(sender.lost) + 1)):
        wrong.append(f"messages that nobody sent: {sorted(odd)[:10]}")
    leases = (it.home / "state/volumes/dhcpd-leases/dhcpd.leases").read_text()
    for mac, given in visitor.leases.items():
        if not re.search(rf"lease {re.escape(given)} {{[^}}]*hardware ethernet {mac};", leases):
            wrong.append(f"no lease on disk: {given} for {mac}")
    return wrong


def arrived(it, at_least, patience):
    """The numbers of the messages in alice's mailbox, read by IMAP once all are there, or after `patience` seconds."""
    end = time.monotonic() + patience
    while True:
        with imaplib.IMAP4_SSL("localhost", 993, ssl_context=it.trust, timeout=20) as client:
            client.login(USER, PASSWORD)
            client.select(readonly=True)
            data = client.fetch("1:*", "(BODY.PEEK[HEADER.FIELDS (MESSAGE-ID)])")[1]
        numbers = [int(n) for part in data if isinstance(part, tuple) for n in re.findall(rb"<(\d+)@town>", part[1])]
        if len(set(numbers)) >= at_least or time.monotonic() > end:
            return numbers
        time.sleep(0.5)


# Who does not run for a minute between two ends is started later each time, and not at all after five in that minute: so
# the manifests have it. A soak that lasts leaves each that minute.
LASTING_PACE = 9.5


def main():
    ip("link", "set", "lo", "up")
    with town() as it:
        clients, killer = live(it, float(sys.argv[1]), LASTING_PACE, say=lambda text: print(text, flush=True))
        wrong = audit(it, clients, killer)
    print(count(clients, killer))
    print("\n".join(wrong) or "nothing lost, nothing doubled that should not be")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
