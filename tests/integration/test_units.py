"""The units that are installed: systemd reads them without a complaint, and the timer's service does what it says. On layers that
are gone when this process ends."""

import pathlib
import subprocess

import pytest

from packages import jail_installed

UNITS = pathlib.Path("/usr/local/lib/systemd/system")


@pytest.fixture(scope="module")
def installed():
    with jail_installed():
        yield


def test_systemd_reads_them(installed):
    files = sorted(UNITS.glob("jail*"))
    assert [file.name for file in files] == ["jail-refresh.service", "jail-refresh.timer", "jaild.service"]
    read = subprocess.run(["systemd-analyze", "verify", "--man=no", *files], capture_output=True, text=True)
    assert (read.returncode, read.stdout + read.stderr) == (0, "")


def test_the_timers_service_refreshes_what_may_be_and_there_is_nothing_yet(installed):
    command, = (line.removeprefix("ExecStart=") for line in (UNITS / "jail-refresh.service").read_text().splitlines() if line.startswith("ExecStart="))
    assert command == "/usr/local/bin/jail refresh --automatic"
    done = subprocess.run(command.split(), capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
