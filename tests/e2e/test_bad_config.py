"""A mistake in a daemon's own configuration: "jail status" has the daemon's words for it within a second of a start, a restart
or a reload, and there is no storm of restarts. Each case in a process, a network and an instance of its own, side by side."""

import multiprocessing
import subprocess
import time

import pytest

import least_privilege
from jailtest import own_network, wait_for

# (service, file below the instance's home): what is appended or put in, with {} for a word of this try alone; and what the
# daemon says, with the same word.
MISTAKES = {
    ("named", "bind/named.conf"): ("{};\n", "unknown option '{}'"),
    ("named", "bind/db.example.test"): ("x IN {} 1\n", "loading from master file /etc/bind/db.example.test failed: unknown class/type"),
    ("dhcpd", "dhcp/dhcpd.conf"): ("{} 1;\n", "{} 1;"),
    ("dhcpd6", "dhcp/dhcpd6.conf"): ("{} 1;\n", "{} 1;"),
    ("smtpd", "postfix/main.cf"): ("{} has no sign\n", "missing '=' after attribute name: \"{} has no sign\""),
    ("smtpd", "postfix/master.cf"): ("smtp {} n - n - - smtpd\n", "transport type: {}"),
    ("imapd", "imapd/dovecot.conf"): ("{} = yes\n", "Unknown setting: {}"),
}
# These go on with what they had when told to reload a configuration that they cannot read.
SERVES_ON = {("named", "bind/named.conf"), ("imapd", "imapd/dovecot.conf")}
LIMIT = 2


def told(it, service, words, what):
    """How many seconds after the command `what` began the words were in jail status."""
    begin = time.monotonic()
    command = subprocess.Popen(it.command(*what, service), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: words in it.run("status", service, status=None).stdout, 5, f"{what}: {words!r} in jail status")
        took = time.monotonic() - begin
    except AssertionError as error:
        raise AssertionError(f"{error}\n{it.run('status', service, status=None).stdout}"
                             f"{it.run('logs', service, '-n', '20').stdout}") from None
    finally:
        command.wait(60)
    return took


def time_to_end(it, service):
    begin = time.monotonic()
    it.run("stop", service)
    took = time.monotonic() - begin
    it.run("start", service)
    return took


def tries(case):
    """{command: (seconds until it was told, end state, restarts)}; a text where that failed."""
    service, file = case
    line, words = MISTAKES[case]
    own_network()
    found = {}
    try:
        with least_privilege.house(service) as (it, _):
            it.drop_in(service, f'[service]\nrestart.limit = "{LIMIT}/60s"\n', "60-limit.toml")
            it.run("build", service)
            it.start_jaild()
            path = it.home / file
            good = path.read_text()
            for command in (["reload"], ["restart", "--no-wait"], ["start", "--no-wait"]):
                path.write_text(good)
                it.run("restart", service)
                word = f"mistake-{command[0]}"
                assert words.format(word) not in it.run("status", service, status=None).stdout
                if command[0] == "start":
                    it.run("stop", service)
                # In a restart the old one ends first: Dovecot takes a second for that.
                ending = time_to_end(it, service) if command[0] == "restart" else 0
                path.write_text(good + line.format(word))
                took = told(it, service, words.format(word), command)
                serves = file.startswith("bind/db") or command[0] == "reload" and case in SERVES_ON  # the other zones, too
                rest = "ready" if serves else "failed"
                end = wait_for(lambda: (s := it.status(service))["state"] == rest and s, 20, f"{command}: {rest}")
                found[command[0]] = (took - ending, rest, end["restarts"])
            path.write_text(good)
            it.run("restart", service)
            assert words.format(word) not in it.run("status", service).stdout, "told no longer than it is so"
    except Exception as error:
        return case, f"{found} {type(error).__name__}: {error}"
    return case, found


@pytest.fixture(scope="module")
def outcomes():
    with multiprocessing.get_context("fork").Pool(4, least_privilege.on_term, maxtasksperchild=1) as pool:
        found = dict(pool.imap_unordered(tries, MISTAKES, chunksize=1))
        pool.close()
        pool.join()
    return found


@pytest.mark.parametrize("case", MISTAKES, ids=" ".join)
def test_it_is_told_in_the_daemons_words(outcomes, case):
    assert isinstance(outcomes[case], dict), outcomes[case]
    for command, (took, state, restarts) in outcomes[case].items():
        print(f"{' '.join(case)}: jail {command}: told after {took * 1000:.0f} ms, then {state} after {restarts} restarts")
        assert took < 1
        assert restarts <= LIMIT
