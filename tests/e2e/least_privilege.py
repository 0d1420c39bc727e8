"""Whether a service needs each privilege that its manifest names: built with one fewer, its workload must fail.

Each trial is a process of its own, in a network namespace of its own, with an instance of its own, so that many run side by
side."""

import contextlib
import functools
import itertools
import multiprocessing
import re
import signal
import sys
import tomllib
import typing

import dhcphouse
import mailhouse
import namehouse
import test_imapd
from jailtest import REPO, Instance, own_network

# The same for all trials, the unmodified manifest's too.
IMPATIENT = """[service]
ready_timeout = "8s"
restart = { limit = "0/60s" }
"""
# Those that take longest first.
SERVICES = ("imapd", "smtpd", "named", "dhcpd", "dhcpd6", "dhcrelay")
AT_A_TIME = 10
WRONG = re.compile("not permitted|ermission denied|fatal:|panic:", re.I)


class Result(typing.NamedTuple):
    step: typing.Optional[str]  # that failed; None where all worked
    why: str
    said: list  # by the service, of what it was refused

    def __str__(self):
        told = self.said[-1] if self.said else " ".join(self.why.splitlines()[:2])
        return f"{self.step} fails: {told[:200]}" if self.step else "all works"


def privileges(service):
    """All that the shipped manifest of `service` grants."""
    sandbox = tomllib.loads((REPO / f"manifests/{service}.toml").read_text())["sandbox"]
    return [*sandbox.get("capabilities", []), *sandbox["syscalls"]]


def less(service, privilege):
    """A drop-in that takes it away."""
    sandbox = tomllib.loads((REPO / f"manifests/{service}.toml").read_text())["sandbox"]
    key = "syscalls" if privilege in sandbox["syscalls"] else "capabilities"
    return f'[remove]\nsandbox.{key} = ["{privilege}"]\n'


@contextlib.contextmanager
def house(service):
    """The instance that `service` is tried in, not built yet, and its workload."""
    with contextlib.ExitStack() as stack:
        if service.startswith("dhc"):
            stack.enter_context(dhcphouse.world())
        it = stack.enter_context(Instance())
        if service == "named":
            namehouse.lay_out(it)
            yield it, namehouse.workload(it)
        elif service == "imapd":
            test_imapd.configure(it)
            yield it, test_imapd.workload(it)
        elif service == "smtpd":
            mailhouse.lay_out(it)
            it.run("build", "smtpd")
            stack.callback(mailhouse.Dovecot(it, {mailhouse.ALICE: mailhouse.PASSWORD}).stop)
            yield it, mailhouse.workload(it)
        else:
            dhcphouse.lay_out(it)
            if service == "dhcrelay":
                it.run("build", "dhcpd")
            yield it, dhcphouse.workload(it, service)


def attempt(trial, steps=None):
    """Goes through the workload (its first `steps`) of (service, privilege that is taken away or None)."""
    service, privilege = trial
    own_network()
    step = "build"
    with house(service) as (it, workload):
        it.drop_in(service, IMPATIENT + (less(service, privilege) if privilege else ""), "60-trial.toml")
        why = ""
        try:
            it.run("build", service)
            it.start_jaild()
            for step in itertools.islice(workload, steps):
                pass
            step = None
        except Exception as error:  # whatever a client raises: the step has failed
            why = f"{type(error).__name__}: {error}"
        log = it.run("logs", service, "-n", "all", status=None).stdout.splitlines()
    return trial, Result(step, why, [line for line in log if WRONG.search(line)])


def on_term():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what was started is stopped


def attempts(trials, steps=None):
    """{trial: Result}"""
    with multiprocessing.get_context("fork").Pool(AT_A_TIME, on_term, maxtasksperchild=1) as pool:
        found = dict(pool.imap_unordered(functools.partial(attempt, steps=steps), trials, chunksize=1))
        pool.close()
        pool.join()
    return found
