"""All four services under one jaild, each killed in turn while the clients of all go on; then the relay, jaild and the keeper.
contrib/soak does the same for as long as one likes."""

import pytest

import town
from mailhouse import mailbox

SERVES = {"named": "plain questions over UDP", "dhcpd": "udhcpc", "smtpd": "smtplib", "imapd": "imaplib"}


@pytest.fixture(scope="module")
def it():
    with town.town() as it:
        yield it


def test_each_is_killed_in_turn_and_nothing_is_lost(it):
    clients, killer = town.live(it, 25)
    print(town.count(clients, killer))
    assert set(killer.killed) == set(town.KILLED)
    assert town.audit(it, clients, killer) == []
    # What is lost would be seen.
    victim = next(file for folder in ("new", "cur") for file in (mailbox(it, "alice") / folder).iterdir())
    victim.unlink()
    leases = it.home / "state/volumes/dhcpd-leases/dhcpd.leases"
    leases.write_text(leases.read_text().replace("02:00:00:00:01:02", "02:00:00:00:01:ff"))
    assert [line.split(":")[0] for line in town.audit(it, clients, killer, patience=1)] == [
        "messages accepted and not found", "no lease on disk"]


def test_the_status_of_all_four_is_one_readable_screen(it):
    shown = it.run("status").stdout
    print(shown)
    lines = shown.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 80
    for name in town.SERVICES:
        assert [line for line in lines if line.startswith(name)]
