"""jail build --into DIR: a plain tree that stands alone, for chroot(8): of copies, with device nodes, made whole or not at all,
replaced only where it is ours and nobody's, verified by the lock beside it."""
import json
import os
import pathlib
import re
import subprocess

import pytest

from jailtest import BIN
from treehome import Home, own_mounts, snapshot  # noqa: F401

TREE = pathlib.Path("/mnt/plain/tree")


@pytest.fixture
def home():
    with Home("size=200m") as it:
        TREE.parent.mkdir()
        yield it


def into(home, *words, status=0, tree=TREE):
    return home.run("build", "tiny", "--into", str(tree), *words, status=status)


def test_it_stands_alone_and_a_chroot_into_it_runs(home):
    manifest = home.path / "manifests/tiny.toml"
    manifest.write_text(manifest.read_text().replace('binaries = [', 'binaries = ["/bin/sh", "/usr/bin/dd", '))
    said = json.loads(into(home, "--json").stdout)["jails"][0]
    assert said["into"] == str(TREE) and said["changed"] and said["files"] > 5
    shell = ["chroot", TREE, "/bin/sh", "-c"]
    # A program, and a device node.
    assert subprocess.run([*shell, "dd if=/dev/null of=/tmp-not 2> /dev/null; echo > /dev/null && echo runs"],
                          capture_output=True, text=True).stdout == "runs\n"
    (TREE / "tmp-not").unlink()
    null = (TREE / "dev/null").stat()
    assert null.st_rdev == os.makedev(1, 3) and null.st_mode & 0o7777 == 0o666
    # No inode of it is anybody else's: not the store's, not the host's.
    for folder, _, files in os.walk(TREE):
        for name in files:
            assert os.lstat(os.path.join(folder, name)).st_nlink == 1, name
    # Volumes are its own directories.
    volume = (TREE / "var/lib/tiny").stat()
    assert (volume.st_uid, volume.st_mode & 0o7777) == (65534, 0o750)
    # Nothing of it is needed any more.
    subprocess.run(["rm", "-r", home.path / "state"], check=True)
    assert subprocess.run([*shell, "echo runs"], capture_output=True, text=True).stdout == "runs\n"
    home.run("verify", str(TREE))
    assert sorted(os.listdir(TREE.parent)) == ["tree", "tree.jail"]
    assert (TREE.parent / "tree.jail").stat().st_mode & 0o7777 == 0o700


def test_named_runs_in_it(home):
    done = subprocess.run(home.command("build", "named", "--into", str(TREE)), capture_output=True, text=True)
    assert done.returncode == 0, done
    assert "/etc/bind" in done.stderr and "live configuration" in done.stderr
    shown = subprocess.run(["chroot", TREE, "/usr/sbin/named", "-V"], capture_output=True, text=True)
    assert shown.returncode == 0 and shown.stdout.startswith("BIND 9"), shown
    assert (TREE / "var/cache/bind").is_dir()
    home.run("verify", str(TREE))


def test_verify_finds_what_differs_and_building_again_mends_it(home):
    into(home)
    assert "up to date" in into(home).stdout
    text = TREE / "etc/text"
    for spoil in (lambda: text.write_text("B"), lambda: text.chmod(0o666), text.unlink, lambda: (TREE / "etc/more").touch()):
        spoil()
        done = home.run("verify", str(TREE), status=1)
        assert "/etc/" in done.stdout and f"--into {TREE}" in done.stderr
        assert "up to date" not in into(home).stdout
        home.run("verify", str(TREE))
    assert "only a tree" in home.run("verify", "/mnt/home/manifests", status=66).stderr
    # What the daemon has put into its volumes is no difference, and is not thrown away.
    state = TREE / "var/lib/tiny/state"
    state.write_text("precious")
    home.run("verify", str(TREE))
    assert "up to date" in into(home).stdout
    home.change("B")
    assert "/var/lib/tiny/state" in into(home, status=78).stderr and state.read_text() == "precious"
    into(home, "--force")
    assert not state.exists() and text.read_text() == "B"
    home.run("verify", str(TREE))


def test_what_is_not_its_own_is_refused_and_left_as_it_is(home):
    def refused(word, status=73, tree=TREE):
        before = snapshot(TREE.parent)
        done = into(home, status=status, tree=tree)
        assert word in done.stderr, done.stderr
        assert snapshot(TREE.parent) == before

    TREE.mkdir()
    into(home)  # an empty one is as good as none
    (TREE / "more").mkdir()
    refused("'more', which jail build --into has not made")
    (TREE / "more").rmdir()
    lock = TREE.parent / "tree.jail/jail.lock"
    good = lock.read_bytes()
    lock.write_bytes(good.replace(b'"mode":"0644"', b'"mode":"0666"', 1))
    refused("is not empty, and no tree")
    lock.unlink()
    refused("is not empty, and no tree")
    lock.write_bytes(good)
    other = home.path / "manifests/other.toml"
    other.write_text((home.path / "manifests/tiny.toml").read_text())
    assert "a tree of the jail 'tiny'" in home.run("build", "other", "--into", str(TREE), status=73).stderr
    # Something is mounted in it; it is being built.
    home.change("B")
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", TREE / "etc"], check=True)
    assert "something is mounted on '/etc'" in into(home, status=75).stderr
    subprocess.run(["umount", TREE / "etc"], check=True)
    staging = TREE.parent / ".tree.jail-new"
    holder = subprocess.Popen(["sh", "-c", f"mkdir -m 700 {staging} && exec flock {staging} sh -c 'echo held; read x'"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "held\n"
    assert "another command builds this tree" in into(home, status=75).stderr
    holder.communicate("\n")
    for path, word, status in (("/", "not an absolute path", 64), ("/mnt/plain/none/tree", "cannot open", 66),
                               ("/mnt/home/blob", "is no directory", 73)):
        assert word in into(home, status=status, tree=path).stderr
    link = TREE.parent / "link"
    link.symlink_to(TREE)
    refused("is no directory", tree=link)
    TREE.parent.chmod(0o777)
    refused("others than root may write", status=78)
    assert "--into takes one jail" in home.run("build", "tiny", "other", "--into", "/mnt/plain/x", status=64).stderr


def test_a_tree_that_somebody_lives_in_is_not_replaced(home):
    manifest = home.path / "manifests/tiny.toml"
    manifest.write_text(manifest.read_text().replace('binaries = [', 'binaries = ["/usr/bin/sleep", '))
    into(home)
    living = subprocess.Popen(["chroot", TREE, "/usr/bin/sleep", "1000"])
    while os.readlink(f"/proc/{living.pid}/exe").rpartition("/")[2] != "sleep":
        pass
    (home.path / "blob").write_bytes(b"C" * 10000)
    assert f"pid {living.pid} lives in it" in into(home, status=75).stderr
    living.kill()
    living.wait()
    into(home)
    assert (TREE / "usr/share/blob").read_bytes() == b"C" * 10000


@pytest.mark.parametrize("options, word", [("size=2m", "No space left on device"), ("size=64m,nr_inodes=25", "No space left on device")])
def test_in_want_nothing_is_half_done(home, options, word):
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=755,{options}", "tmpfs", "/mnt/plain"], check=True)
    done = into(home, status=73)
    assert re.search(f"'/[^']+': cannot [^:]*: {word}", done.stderr), done.stderr
    assert os.listdir("/mnt/plain") == []
    subprocess.run(["umount", "/mnt/plain"], check=True)


def test_where_two_names_cannot_be_exchanged_it_is_done_in_two_steps(home):
    into(home)
    home.change("B")
    done = subprocess.run([str(BIN / "refuser"), "renameat2", "22", *home.command("build", "tiny", "--into", str(TREE))], capture_output=True, text=True)
    assert done.returncode == 0, done
    assert (TREE / "etc/text").read_text() == "B"
    home.run("verify", str(TREE))
    assert sorted(os.listdir(TREE.parent)) == ["tree", "tree.jail"]
