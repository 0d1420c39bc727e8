"""Every manifest that ships builds without a warning, and all of its probes work: what is left out, the manifest says."""

import os
import subprocess
import sys

import pytest

from jailtest import REPO, Instance, own_mounts
from packages import installed

# Those whose packages are on the machine, and what the others are fetched as.
HERE = ("named", "dhcpd", "dhcpd6", "dhcrelay", "imapd", "smtpd")
APART = {
    "imapd-cyrus": "cyrus",
    "imapd-mailutils": "mailutils",
    "popd": "mailutils",
    "smtpd-opensmtpd": "opensmtpd",
    "smtpd-sendmail": "sendmail",
}


def check(names):
    for name in names:
        with Instance() as jail:
            # The configuration need not be there for the tree: some are the admin's.
            for folder in ("imapd", "imapd-cyrus", "mailutils"):
                os.makedirs(f"/etc/jail/{folder}", exist_ok=True)
            os.makedirs("/etc/opensmtpd", exist_ok=True)
            built = jail.run("build", name)
            assert built.stderr == "", f"{name}: {built.stderr}"
            probed = jail.json("probe", name)["jails"][0]
            assert probed["works"], probed
            print(name, len(probed["probes"]))


def test_all_are_here():
    shipped = {path.stem for path in (REPO / "manifests").glob("*.toml")}
    assert shipped == set(HERE) | set(APART)


@pytest.mark.parametrize("packages", ["", *sorted(set(APART.values()))])
def test_builds_without_a_warning_and_its_probes_work(packages):
    """In a process of its own: what it installs is gone with it."""
    done = subprocess.run([sys.executable, "-B", __file__, packages], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)


if __name__ == "__main__":
    if sys.argv[1]:
        with installed(sys.argv[1]):
            check(name for name, packages in APART.items() if packages == sys.argv[1])
    else:
        from packages import layered

        with layered(), own_mounts(users=("dhcpd", "dhcrelay")):
            check(HERE)
