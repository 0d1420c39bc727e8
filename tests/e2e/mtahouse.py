"""The alternatives to Postfix for a test: the shipped manifest and example of one in an instance, and the work that each has
to do: mail counted while things are killed, and what is missing where a privilege is."""

import contextlib
import pathlib
import pwd
import re
import shutil
import signal

from jailtest import REPO, Instance, send, wait_for
from mailhouse import BOB, SENDER, Client, ids, messages, own_port_25, processes, swaks


class House:
    """One mail server's jail."""

    def __init__(self, it, name, etc, prepare=None, drop_ins=()):
        self.it, self.name = it, name
        self.conf = it.home / "conf"
        shutil.copytree(REPO / "manifests/examples" / name, self.conf)
        if prepare:
            prepare(self.conf)
        it.drop_in(name, f'[remove]\nconfig = ["{etc}"]\n[[config]]\nfrom = "{self.conf}"\nto = "{etc}"\n')
        for number, text in enumerate(drop_ins):
            it.drop_in(name, text, f"6{number}-test.toml")
        it.run("build", name)
        it.start_jaild()

    def start(self):
        self.it.run("start", self.name)

    def ready(self):
        status = lambda: self.it.status(self.name)
        return wait_for(lambda: (s := status())["state"] == "ready" and s, 15, f"{self.name} ready")

    def status_pid(self):
        return self.it.status(self.name)["pid"]

    def log(self):
        return self.it.run("logs", self.name, "-n", "all", status=None).stdout.splitlines()

    def volume(self, name):
        return self.it.home / "state/volumes" / name

    def delivered(self, word, user="bob", seconds=15):
        found = lambda: [text for text in messages(self.it, user) if word in text]
        return wait_for(found, seconds, f"a message with {word}")


@contextlib.contextmanager
def opened(name, etc, *drop_ins, prepare=None):
    with Instance() as it:
        yield House(it, name, etc, prepare, drop_ins)


@contextlib.contextmanager
def apart(name, etc, *drop_ins, prepare=None):
    """Beside the test's main one, on a port 25 of its own; built, with jaild running, not started."""
    with own_port_25(), opened(name, etc, *drop_ins, prepare=prepare) as house:
        yield house


# ---- refusals


def excludes_smtpd(house):
    """By `provides`: it takes no Postfix, only a service of that name."""
    house.it.manifest("smtpd", 'version = 1\n[tree]\nbinaries = ["/usr/bin/sleep"]\nusers = ["nobody"]\n'
                               '[service]\ncommand = ["/usr/bin/sleep", "infinity"]\nuser = "nobody"\n')
    house.it.run("build", str(house.it.home / "manifests/smtpd.toml"))
    done = house.it.run("start", "smtpd", status=75)
    assert f"cannot run beside {house.name}, which runs" in done.stderr and f"jail stop {house.name}" in done.stderr


def refused_recipients(answers):
    """`answers`: {recipient: answer}. Another one is taken in the same conversation: who says no to everybody is found."""
    for recipient, answer in answers.items():
        code, talk = swaks("--from", SENDER, "--to", recipient, "--quit-after", "RCPT")
        assert code == 24 and f"<** {answer}" in talk, talk
    assert swaks("--from", SENDER, "--to", BOB, "--quit-after", "RCPT")[0] == 0


# ---- a thousand messages


def flood(house, kill, shares, total=1000):
    """Five clients get `total` messages accepted; when so many as in `shares` were, kill() is called. Returns the ids of
    those that were accepted, and of those that were cut off before an answer."""
    prefix = f"c{house.it.supervisors()['jaild_pid']}-"
    clients = [Client(f"{prefix}{number}", total // 5) for number in range(5)]
    for share in shares:
        wait_for(lambda: sum(len(client.accepted) for client in clients) >= share, 60, f"{share} messages")
        kill()
    for client in clients:
        client.join()
    return ({ident for client in clients for ident in client.accepted},
            {ident for client in clients for ident in client.unknown})


def count(house, accepted, unknown, idle):
    """(lost, doubled) once every message has arrived, or the server is idle()."""
    try:
        wait_for(lambda: accepted <= set(ids(house.it)) and idle(), 60)
    except AssertionError:
        pass
    found = {ident: number for ident, number in ids(house.it).items() if ident in accepted | unknown}
    return accepted - set(found), [ident for ident, number in found.items() if number > 1]


def a_thousand_while_jaild_is_killed(house, idle):
    pid = house.ready()["pid"]
    kill = lambda: send(house.it.supervisors()["jaild_pid"], signal.SIGKILL)
    accepted, unknown = flood(house, kill, (100, 400, 700))
    lost, doubled = count(house, accepted, unknown, idle)
    print(f"jaild killed three times: {len(accepted)} accepted, {len(lost)} lost, {len(doubled)} doubled")
    assert len(accepted) == 1000 and not lost and not doubled
    assert house.ready()["pid"] == pid


def a_thousand_while_the_daemon_is_killed(house, idle, at_once):
    """`at_once`: so many deliveries the daemon has under way at most. What is between a mailbox and the mark in the queue when
    it is cut off is delivered again: every mail server prefers that to a loss."""
    pid = house.ready()["pid"]
    accepted, unknown = flood(house, lambda: send(pid, signal.SIGKILL), (400,))
    assert house.ready()["pid"] != pid
    lost, doubled = count(house, accepted, unknown, idle)
    print(f"daemon killed: {len(accepted)} accepted, {len(lost)} lost, {len(doubled)} doubled, {len(unknown)} cut off")
    assert len(accepted) == 1000 and unknown and not lost
    assert len(doubled) <= at_once


# ---- privileges


def capabilities(pid):
    """({set: mask}, {uid}) of a process, and whether it is confined, by the kernel's word."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    found = {key: value.split() for key, value in (line.split(":", 1) for line in lines)}
    assert found["NoNewPrivs"] == ["1"] and found["Seccomp"] == ["2"], pid
    return {key: int(found[key][0], 16) for key in ("CapPrm", "CapBnd", "CapAmb", "CapInh")}, {*map(int, found["Uid"])}


def denied(denials, programs, users):
    """{(program, system call)} that were refused to those programs as those users."""
    return {entry for user in users for entry in denials.take(pwd.getpwnam(user).pw_uid) if entry[0] in programs}


def without(fewer):
    """The drop-in that takes one privilege away: a capability, a group of system calls, or one call."""
    key, word = fewer.split(".")
    return f'[remove]\nsandbox.{key} = ["{word}"]\n' if word else ""


def granted(house):
    sandbox = house.it.json("show", house.name)["sandbox"]
    return {f"{key}.{word}" for key in ("capabilities", "syscalls") for word in sandbox[key]}


def lines_with(house, pattern):
    return [line for line in house.log() if re.search(pattern, line)]
