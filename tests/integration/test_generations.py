"""jail files, history, diff and rollback: what is kept of the builds of a jail, and the way back."""

import re
import subprocess

import pytest

from jailtest import Instance

MANIFEST = """
version = 1
[tree]
binaries = ["/usr/bin/sleep"]
users = ["nobody"]
files = [{{ to = "/etc/text", text = "{text}"{mode} }}{more}]
[[volume]]
name = "state"
path = "/var/lib/tiny"
owner = "nobody"
mode = "0750"
[service]
command = ["/usr/bin/sleep", "{text}"]
user = "nobody"
"""


@pytest.fixture
def it():
    with Instance() as instance:
        build(instance, "1000")
        build(instance, "2000", mode=', mode = "0600"')
        build(instance, "3000", more=', { to = "/etc/more", text = "" }')
        yield instance


def build(it, text, mode="", more=""):
    it.manifest("tiny", MANIFEST.format(text=text, mode=mode, more=more))
    it.run("build", "tiny")


def test_files_are_those_of_the_tree_and_no_others(it):
    shown = it.run("files", "tiny").stdout.splitlines()
    found = subprocess.run(["find", "."], cwd=it.tree("tiny"), capture_output=True, text=True, check=True).stdout.splitlines()
    assert sorted(shown) == sorted(path[1:] or "/" for path in found)
    assert "/etc/more" in shown and "/etc/more" not in it.run("files", "tiny", 2).stdout.splitlines()
    assert "-0600     0:0              4  /etc/text\n" in it.run("files", "tiny", 2, "-l").stdout
    assert re.search(r"/usr/bin/sleep  \[coreutils \S+\]\n", it.run("files", "tiny", "-l").stdout)
    entry = next(e for e in it.json("files", "tiny")["files"] if e["path"] == "/usr/bin/sleep")
    assert entry["package"] == "coreutils" and len(entry["sha256"]) == 64
    it.run("files", "tiny", 9, status=66)
    it.run("files", "nothing", status=66)


def test_diff_names_what_changed_and_nothing_else(it):
    def diff(*generations):
        return it.run("diff", "tiny", *generations, status=1).stdout.splitlines()

    assert diff() == ["+ /etc/more", "~ /etc/text (content, mode 0600 -> 0644)", "~ launch.json (policy)", "~ manifest.json (policy)"]
    assert diff(1) == ["+ /etc/more", "~ /etc/text (content)", "~ launch.json (policy)", "~ manifest.json (policy)"]
    assert diff(3, 2)[0] == "- /etc/more"
    same = it.run("diff", "tiny", 2, 2)
    assert same.stdout == "" and "generations 2 and 2 are the same" in same.stderr
    values = it.run("diff", "tiny", "--verbose", status=1).stdout
    assert '\n    /service/command/1: "2000" -> "3000"\n' in values
    assert '\n    /tree/files/-: (not there) -> {' in values
    answer = it.json("diff", "tiny", status=1)
    assert (answer["before"], answer["after"]) == (2, 3) and answer["entries"][0] == {"path": "/etc/more", "change": "+", "what": []}
    assert "jail history tiny" in it.run("diff", "tiny", 1, 7, status=66).stderr


def test_history_has_the_newest_first_and_says_what_runs(it):
    it.start_jaild()
    it.run("start", "tiny")
    rows = it.json("history", "tiny")["generations"]
    assert [(row["generation"], row["current"], row["processes"] > 0) for row in rows] == [
        (3, True, True), (2, False, False), (1, False, False)]
    assert rows[0]["changes"] == "+1 -0 ~1, policy" and rows[2]["changes"] == ""
    assert rows[0]["built"] >= rows[2]["built"] > 1_700_000_000
    print(it.run("history", "tiny").stdout)
    assert re.search(r"^ +3  \d{4}-\d\d-\d\d \d\d:\d\d  .* current\*  \+1 -0 ~1, policy$", it.run("history", "tiny").stdout, re.M)


def test_rollback_brings_back_files_and_policy(it):
    it.start_jaild()
    it.run("start", "tiny")
    done = it.run("rollback", "tiny")
    assert "generation 2 is the current one, no longer 3" in done.stdout
    assert "jail restart tiny" in done.stderr
    assert (it.tree("tiny") / "etc/text").read_text() == "2000"
    assert it.status("tiny")["generation"] == 3
    it.run("restart", "tiny")
    assert it.status("tiny")["generation"] == 2
    command = subprocess.run(["ps", "-o", "args=", "-p", str(it.status("tiny")["pid"])], capture_output=True, text=True).stdout
    assert command.split() == ["/usr/bin/sleep", "2000"]
    # Forward again, by number; and what a build makes next has a number of its own.
    assert it.json("rollback", "tiny", 3)["to"] == 3
    build(it, "4000")
    assert it.json("history", "tiny")["generations"][0]["generation"] == 4


def test_rollback_refuses_what_is_not_there_or_not_whole(it):
    it.run("rollback", "tiny", 1)
    assert "no generation before 1 is kept" in it.run("rollback", "tiny", status=66).stderr
    it.run("rollback", "tiny", 8, status=66)
    (it.home / "state/jails/tiny/gen/000002/tree/etc/text").write_text("evil")
    refused = it.run("rollback", "tiny", 2, status=1).stderr
    assert "/etc/text: content differs" in refused and "jail history tiny" in refused
    # A volume that is somebody else's now.
    (it.home / "state/volumes/state").chmod(0o700)
    assert "the manifest says 0750" in it.run("rollback", "tiny", 3, status=78).stderr
    assert it.json("files", "tiny")["generation"] == 1
