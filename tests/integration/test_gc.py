"""jail gc: what nobody needs goes, and nothing else: not what is kept, what a process lives in, what jaild has loaded, nor
what a build is at."""
import json
import os
import subprocess
import threading
import time

import pytest

from jailtest import Instance, send

MANIFEST = """
version = 1
[tree]
binaries = ["/usr/bin/sleep"]
users = ["nobody"]
files = [{{ from = "{home}/blob", to = "/usr/share/blob" }}, {{ to = "/etc/text", text = "{text}" }}]
[service]
command = ["/usr/bin/sleep", "1000"]
user = "nobody"
"""


@pytest.fixture
def it():
    with Instance() as instance:
        yield instance


def build(it, text, name="tiny"):
    (it.home / "blob").write_bytes(text.encode() * (100_000 // len(text)))
    it.manifest(name, MANIFEST.format(home=it.home, text=text))
    it.run("build", name)


def generations(it, name="tiny"):
    return sorted(int(p.name) for p in (it.home / "state/jails" / name / "gen").iterdir())


def used(it):
    """What the state takes on the disk, each inode once."""
    seen = {}
    for folder, _, files in os.walk(it.home / "state"):
        for name in [*files, "."]:
            status = os.lstat(os.path.join(folder, name))
            seen[status.st_ino] = status.st_blocks * 512
    return sum(seen.values())


def test_what_is_old_goes_and_the_bytes_are_those_of_the_disk(it):
    for text in ("AA", "BB", "CC", "DD"):
        build(it, text)
    assert generations(it) == [2, 3, 4]
    before = used(it)
    told = it.json("gc", "--dry-run", "--keep", 1)
    assert generations(it) == [2, 3, 4] and used(it) == before
    done = it.json("gc", "--keep", 1)
    assert done == {**told, "dry_run": False}
    assert [(g["name"], g["generation"]) for g in done["removed"]] == [("tiny", 2)]
    assert done["objects"] == 1 and done["complete"]
    assert generations(it) == [3, 4]
    # A file of the index may have grown or shrunk by a block.
    assert abs(before - used(it) - done["bytes"]) <= 8192, (before, used(it), done)
    assert done["bytes"] > 100_000
    it.run("verify", "tiny")
    it.run("rollback", "tiny")
    it.run("verify", "tiny")
    # What a rollback went back from stays.
    shown = it.run("gc", "--keep", 0).stdout
    assert "0 generations and 0 shared files removed" in shown and generations(it) == [3, 4]
    it.run("rollback", "tiny", 4)
    shown = it.run("gc", "--keep", 0).stdout
    assert "tiny: generation 3 removed, " in shown and "1 generations and 1 shared files removed" in shown


def test_what_a_removed_jail_and_a_dead_build_left_goes(it):
    build(it, "AA")
    build(it, "BB", "other")
    store = it.home / "state/store/objects"
    shared = len(list(store.iterdir()))
    gen = it.home / "state/jails/other/gen"
    (gen / ".new-77/tree/etc").mkdir(parents=True)
    (gen / ".new-77/tree/etc/x").write_text("x")
    (it.home / "state/jails/dead/gen/.new-1").mkdir(parents=True)
    for p in (it.home / "state/jails/dead", it.home / "state/jails/dead/gen", it.home / "state/jails/dead/gen/.new-1"):
        p.chmod(0o700)
    garbage = store / ("0" * 64 + "-0644-0-0")
    garbage.write_bytes(b"x" * 5000)
    told = it.json("gc", "--dry-run")
    assert told["objects"] == 1 and (gen / ".new-77").exists() and garbage.exists()
    done = it.json("gc")
    assert done["objects"] == 1 and done["removed"] == []
    assert not (gen / ".new-77").exists() and not garbage.exists()
    assert sorted(p.name for p in (it.home / "state/jails").iterdir()) == ["other", "tiny"]
    assert len(list(store.iterdir())) == shared
    it.run("remove", "other")
    it.run("gc")
    it.run("verify", "tiny")


def test_where_nothing_was_ever_built_nothing_is_made(it):
    assert it.json("gc")["bytes"] == 0
    assert not (it.home / "state").exists()
    done = subprocess.run(["setpriv", "--reuid=65534", "--clear-groups", *it.command("gc")], capture_output=True, text=True)
    assert done.returncode == 77, done


def test_what_runs_and_what_jaild_has_loaded_stays(it):
    build(it, "AA")
    it.start_jaild()
    it.run("start", "tiny")
    pid = it.status("tiny")["pid"]
    for text in ("BB", "CC", "DD", "EE", "FF"):
        build(it, text)
    assert generations(it) == [1, 4, 5, 6]
    done = it.json("gc", "--keep", 0)
    assert [g["generation"] for g in done["removed"]] == [4, 5]
    assert [(g["generation"], pid in g["processes"]) for g in done["used"]] == [(1, True)]
    assert "tiny: generation 1 stays: pid" in it.run("gc", "--keep", 0).stdout
    assert (it.home / "state/jails/tiny/gen/000001/tree/etc/text").read_text() == "AA"
    # Loaded, but nothing lives in it.
    it.run("stop", "tiny")
    done = it.json("gc", "--keep", 0)
    assert done["used"] == [{"name": "tiny", "generation": 1, "processes": []}] and generations(it) == [1, 6]
    assert "tiny: generation 1 stays: jaild has it loaded" in it.run("gc", "--keep", 0).stdout
    # A start takes the current one, and the old one is free.
    it.run("start", "tiny")
    assert it.status("tiny")["generation"] == 6
    assert [g["generation"] for g in it.json("gc", "--keep", 0)["removed"]] == [1]
    # Killed, jaild takes up what it had.
    send(it.supervisors()["jaild_pid"], 9)
    build(it, "GG")
    time.sleep(0.3)
    it.run("status", "tiny")
    assert it.json("gc", "--keep", 0)["used"][0]["generation"] == 6
    it.run("stop", "tiny")
    assert it.json("gc", "--keep", 0)["used"][0]["generation"] == 6


def test_gc_beside_builds_and_a_process_in_an_old_generation(it):
    build(it, "AA")
    tree = it.home / "state/jails/tiny/gen/000001/tree"
    living = subprocess.Popen(["chroot", tree, "/usr/bin/sleep", "1000"])
    names = ("tiny", "second", "third")
    problems, counts, end = [], {"build": 0, "gc": 0, "busy": 0}, time.monotonic() + 4

    def builds(name):
        number = 0
        (it.home / f"blob-{name}").write_bytes(b"")
        while time.monotonic() < end:
            number += 1
            (it.home / f"blob-{name}").write_bytes(f"{name} {number} ".encode() * 2000)
            it.manifest(name, MANIFEST.format(home=it.home, text=number).replace("/blob\"", f"/blob-{name}\"", 1))
            done = it.run("build", name, status=None)
            if done.returncode == 75:  # gc is at this jail
                counts["busy"] += 1
                continue
            verified = it.run("verify", name, status=None)
            if done.returncode != 0 or verified.returncode != 0:
                problems.append((done, verified))
            counts["build"] += 1
            time.sleep(0.02)  # builds that follow each other at once leave gc no moment

    def collects():
        while time.monotonic() < end:
            done = it.run("gc", "--keep", 0, "--json", status=None)
            if done.returncode not in (0, 75) or json.loads(done.stdout)["version"] != 1:
                problems.append(done)
            counts["gc"] += 1

    workers = [threading.Thread(target=builds, args=(name,)) for name in names]
    workers += [threading.Thread(target=collects) for _ in range(2)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert problems == []
    print(counts)
    assert counts["build"] >= 5 and counts["gc"] >= 4
    assert living.poll() is None and (tree / "etc/text").read_text() == "AA" and (tree / "usr/bin/sleep").exists()
    assert 1 in generations(it)
    living.kill()
    living.wait()
    it.run("gc", "--keep", 0)
    for name in names:
        assert len(generations(it, name)) == 1
        it.run("verify", name)
    store = it.home / "state/store"
    assert [p for p in (store / "objects").iterdir() if p.stat().st_nlink < 2] == [] and list((store / "tmp").iterdir()) == []
