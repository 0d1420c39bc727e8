"""What jail-admin(7) says to back up is enough to have everything again, on a host that has nothing else."""

import os
import pathlib
import re
import shlex
import subprocess

from jailtest import REPO, Instance, own_network, wait_for

MANIFEST = """
version = 1
[tree]
binaries = ["/bin/sh", "/bin/sleep"]
users = ["mail"]
[[config]]
from = "{home}/etc-b"
to = "/etc/b"
[[volume]]
name = "data"
path = "/srv"
owner = "mail"
mode = "0750"
[service]
command = ["/bin/sh", "-c", "echo life >> /srv/lives; exec sleep 1000"]
user = "mail"
[sandbox]
syscalls = ["@default", "@file-write", "@process"]
"""


def command(word):
    """The tar of the manual that begins with `word`, as words."""
    text = (REPO / "contrib/man/jail-admin.7").read_text().replace("\\e\n", "")
    return shlex.split(re.search(rf"^tar .*{word}.*$", text, re.M).group(0))


def test_a_backup_restores_the_service(tmp_path):
    own_network()
    saved = tmp_path / "backup.tar"
    with Instance() as it:
        home = it.home
        (home / "etc-b").mkdir()
        (home / "etc-b/conf").write_text("mine\n")
        it.manifest("b", MANIFEST.format(home=home))
        it.run("build", "b")
        it.start_jaild()
        it.run("enable", "--now", "b")
        lives = home / "state/volumes/data/lives"
        wait_for(lives.exists, 5, "the first life")
        it.run("stop", "b")
        place = {"backup.tar": str(saved), "/etc/jail": f"{home}/manifests", "/etc/bind": f"{home}/etc-b", "/etc/postfix": f"{home}/etc-b"}
        words = [place.get(word, word.replace("/var/lib/jail", f"{home}/state")) for word in command("-cpf")]
        subprocess.run(words, check=True, capture_output=True)
        owner = lives.stat().st_uid, lives.stat().st_gid, lives.stat().st_mode
    assert not home.exists()

    with Instance() as other:
        home.mkdir(mode=0o755)  # at the place of the first, for the manifest names it
        nothing, other.home = other.home, home
        try:
            subprocess.run([str(saved) if word == "backup.tar" else word for word in command("-xpf")], check=True, capture_output=True)
            other.run("build", "b")
            other.start_jaild()
            wait_for(lambda: other.status("b")["state"] == "ready", 10, "what was enabled runs")
            wait_for(lambda: lives.read_text() == "life\nlife\n", 5, "the second life, on the first's volume")
            assert (lives.stat().st_uid, lives.stat().st_gid, lives.stat().st_mode) == owner
            assert pathlib.Path(f"/proc/{other.status('b')['pid']}/root/etc/b/conf").read_text() == "mine\n"
        finally:
            os.rmdir(nothing)
