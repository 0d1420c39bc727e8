"""The snippet for logrotate in jail-admin(7), as it stands there: nothing is lost, and all go on in new files."""

import pathlib
import re
import subprocess

from jailtest import REPO, Instance, own_network, wait_for

MANIFEST = """
version = 1
[tree]
binaries = ["/bin/sh", "/bin/sleep"]
users = ["nobody"]
[service]
command = ["/bin/sh", "-c", "n=0; while :; do n=$((n+1)); echo count $n; sleep 0.02; done"]
user = "nobody"
[sandbox]
syscalls = ["@default", "@process"]
"""


def counts(file):
    return [int(number) for number in re.findall(r"count (\d+)$", file.read_text(), re.M)]


def test_rotation_loses_nothing(tmp_path):
    own_network()
    with Instance() as it:
        it.manifest("counter", MANIFEST)
        it.run("build", "counter")
        it.start_jaild()
        it.run("start", "counter")
        log = it.home / "log/counter.log"
        own = it.home / "log/jaild.log"
        wait_for(lambda: log.exists() and len(counts(log)) > 10, 10, "some lines")
        page = (REPO / "contrib/man/jail-admin.7").read_text()
        snippet = re.search(r"^/var/log/jail/\*\.log \{\n.*?^\}$", page, re.M | re.S).group(0)
        config = tmp_path / "jail"
        signal = "systemctl kill --kill-whom=main --signal=HUP jaild.service"
        assert signal in snippet
        # The unit's main process is the keeper.
        config.write_text(snippet.replace("/var/log/jail/", f"{it.home}/log/").replace(signal, f"kill -HUP {it.keeper.pid}") + "\n")
        config.chmod(0o644)
        done = subprocess.run(["logrotate", "--force", "--state", tmp_path / "state", config], capture_output=True, text=True)
        assert done.returncode == 0 and not done.stderr, done.stdout + done.stderr
        old = pathlib.Path(f"{log}.1")
        wait_for(lambda: log.exists() and len(counts(log)) > 10, 10, "lines in a new file")
        it.run("stop", "counter")
        wait_for(lambda: own.exists() and "counter" in own.read_text(), 10, "jaild's own words in its new log")
        found = counts(old) + counts(log)
        assert found == list(range(1, len(found) + 1))
