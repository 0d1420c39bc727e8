"""`jail build` under attack and in want: killed at any system call, without space or inodes, on a read-only file system,
with links planted in its state. Each test has a small file system of its own, in a mount namespace of this process."""
import errno
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import time

import pytest

from jailtest import BIN, wait_for
from treehome import MANIFEST, Home, jail, own_mounts, refused, small_root, snapshot  # noqa: F401


# ---- killed (and see test_killed.py) -------------------------------------------------------------------------


def test_a_first_build_killed_is_no_jail_and_the_next_one_is():
    with Home() as home:
        for call in ("linkat", "mknodat", "syncfs", "symlinkat"):
            shutil.rmtree(home.path / "state", ignore_errors=True)
            done = home.run("build", "tiny", status=None,
                            before=["strace", "-f", "-qq", "-o", "/dev/null", "-e", f"inject={call}:signal=KILL:when=1"])
            assert done.returncode != 0, call
            assert not os.path.lexists(home.jail / "current")
            assert "jail build tiny" in home.run("verify", "tiny", status=66).stderr
            home.run("build", "tiny")
            home.run("verify", "tiny")
            assert home.leftovers() == []


def test_what_is_switched_to_is_on_disk_first_and_nothing_is_removed_before_the_switch_is():
    with Home() as home:
        for text in "ABC":
            home.change(text)
            home.run("build", "tiny")
        home.change("D")  # the first generation goes with this build
        trace = "/mnt/trace"
        home.run("build", "tiny", before=["strace", "-f", "-qq", "-y", "-o", trace])
        gen = re.escape(str(home.jail / "gen"))
        steps = [r"syncfs\(", rf'renameat\(\d+<{gen}>, "\.new-\d+", \d+<{gen}>, "000004"\)', rf"fsync\(\d+<{gen}>\)",
                 r'symlinkat\("gen/000004"', r'renameat\(.*"current"\)', rf"fsync\(\d+<{re.escape(str(home.jail))}>\)",
                 rf'renameat\(\d+<{gen}>, "000001"']
        calls = pathlib.Path(trace).read_text().splitlines()
        found = [next((i for i, line in enumerate(calls) if re.search(step, line)), None) for step in steps]
        assert None not in found and found == sorted(found), list(zip(steps, found))


# ---- in want --------------------------------------------------------------------------------------------------


def refused_and_unchanged(home, words, status=73):
    before = home.snapshot()
    done = home.run("build", "tiny", status=status)
    for word in words:
        assert word in done.stderr, done.stderr
    assert done.stdout == ""
    after = home.snapshot()
    assert after == before, {p for p in after.keys() | before.keys() if after.get(p) != before.get(p)}
    home.run("verify", "tiny")
    assert home.text() == "A"
    return done.stderr


def test_a_full_disk():
    with Home("size=8m") as home:
        home.run("build", "tiny")
        home.change("B" * 5000)
        (home.path / "blob").write_bytes(os.urandom(600_000))
        filler = pathlib.Path("/mnt/filler")
        stages = set()
        # From no block at all to the first amount that is enough: each write of a build is the one that fails.
        for left in [0, 4, 64, 512, *range(580, 800, 4)]:
            filler.write_bytes(b"")
            free = os.statvfs("/mnt").f_bavail * 4
            filler.write_bytes(b"\0" * ((free - left) * 1024))
            if left > 588 and home.run("build", "tiny", status=None).returncode == 0:
                break
            message = refused_and_unchanged(home, ["No space left on device", "df -i"])
            stages.add(re.sub(r"\d+-\d+", "N", message.split(": No space")[0]))
        print(f"enough with {left} KiB; without:", *sorted(stages), sep="\n  ")
        assert 600 < left < 790 and len(stages) >= 4
        filler.unlink()
        home.run("build", "--force", "tiny")
        home.run("verify", "tiny")
        assert home.leftovers() == []


def test_no_inodes():
    with Home("size=64m,nr_inodes=400") as home:
        home.run("build", "tiny")
        home.change("B")
        pathlib.Path("/mnt/fill").mkdir()
        tried = 0
        for left in (20, 8, 5, 3, 2, 1, 0):
            shutil.rmtree("/mnt/fill")
            os.mkdir("/mnt/fill")
            while os.statvfs("/mnt").f_ffree > left:
                open(f"/mnt/fill/{tried}", "x").close()
                tried += 1
            refused_and_unchanged(home, ["No space left on device", "df -i"])
        shutil.rmtree("/mnt/fill")
        home.run("build", "tiny")
        home.run("verify", "tiny")
        assert home.leftovers() == []


def test_a_first_build_without_space_leaves_no_jail():
    with Home("size=1m") as home:
        assert "No space left on device" in home.run("build", "tiny", status=73).stderr
        assert home.run("list").stdout == ""
        assert list((home.path / "state/jails").iterdir()) == []
        assert list((home.path / "state/store/objects").iterdir()) == []


def test_a_read_only_file_system():
    with Home() as home:
        home.run("build", "tiny")
        home.change("B")
        subprocess.run(["mount", "-o", "remount,ro", "/mnt"], check=True)
        refused_and_unchanged(home, ["Read-only file system", "--home DIR"])
        for words in (["gc"], ["build", "--into", "/mnt/tree", "tiny"], ["rollback", "tiny"], ["remove", "tiny"]):
            done = home.run(*words, status=None)
            assert done.returncode in (66, 73) and ("Read-only file system" in done.stderr or "no generation before" in done.stderr), done
        subprocess.run(["mount", "-o", "remount,rw", "/mnt"], check=True)
        home.run("build", "tiny")


def test_no_more_threads_to_be_had():
    with Home() as home:
        # Limits on processes do not bind root: the call itself is refused.
        home.run("build", "tiny", before=["strace", "-f", "-qq", "-o", "/dev/null", "-e",
                                          "inject=clone,clone3:error=EAGAIN"])
        home.run("verify", "tiny")


# ---- links ----------------------------------------------------------------------------------------------------


def test_an_object_that_has_all_the_links_that_its_file_system_allows_is_renewed():
    with Home("size=400m") as home:
        state = home.path / "state"
        state.mkdir()
        subprocess.run(["truncate", "-s", "200M", "/mnt/image"], check=True)
        subprocess.run(["mkfs.ext4", "-q", "-O", "^has_journal", "/mnt/image"], check=True)
        if subprocess.run(["mount", "-o", "loop", "/mnt/image", state]).returncode != 0:
            pytest.skip("no loop device here: no file system with a limit on links can be made")
        home.run("build", "tiny")
        victim = max((state / "store/objects").iterdir(), key=lambda p: p.stat().st_size)
        before = victim.stat()
        (state / "links").mkdir()
        made = 0
        try:
            while True:
                os.link(victim, state / f"links/{made}")
                made += 1
        except OSError as error:
            assert error.errno == errno.EMLINK, error
        print(f"{before.st_nlink + made} links")
        assert made > 60_000
        (home.path / "manifests/other.toml").write_text((home.path / "manifests/tiny.toml").read_text().replace("tiny", "other"))
        home.run("build", "other")
        assert victim.stat().st_ino != before.st_ino and victim.stat().st_nlink >= 2
        home.change("B")
        home.run("build", "tiny")
        for name in ("tiny", "other"):
            home.run("verify", name)
        subprocess.run(["umount", "-l", state], check=True)


def test_where_the_file_system_can_files_share_their_blocks_with_their_sources():
    with Home("size=400m") as home:
        house = pathlib.Path("/mnt/cow")
        house.mkdir()
        subprocess.run(["truncate", "-s", "200M", "/mnt/image"], check=True)
        made = subprocess.run(["mkfs.btrfs", "-q", "/mnt/image"]).returncode == 0
        if not made or subprocess.run(["mount", "-o", "loop", "/mnt/image", house]).returncode != 0:
            pytest.skip("no btrfs here: blocks cannot be shared")
        shutil.move(home.path, house / "home")
        blob = house / "home/blob"
        text = os.urandom(2_000_000)
        blob.write_bytes(text)
        manifest = house / "home/manifests/tiny.toml"
        manifest.write_text(manifest.read_text().replace(str(home.path), str(house / "home")))

        def run(*words):
            return subprocess.run(jail(house / "home", *words), check=True, capture_output=True, text=True).stdout

        def shares(path):
            return "shared" in subprocess.run(["filefrag", "-v", path], check=True, capture_output=True, text=True).stdout

        os.sync()
        assert not shares(blob)
        run("build", "tiny")
        run("build", "tiny", "--into", str(house / "plain"))
        inside = house / "home/state/jails/tiny/current/tree/usr/share/blob"
        for copy in (inside, house / "plain/usr/share/blob"):
            assert shares(copy) and copy.stat().st_ino != blob.stat().st_ino and copy.read_bytes() == text
        # What is shared is what it was: who writes to the source writes elsewhere.
        with open(blob, "r+b") as file:
            file.write(b"other")
        run("verify", "tiny", str(house / "plain"))
        assert inside.read_bytes() == text
        assert "generation 2" in run("build", "tiny")
        run("verify", "tiny")
        subprocess.run(["umount", "-l", house], check=True)


def test_where_the_store_is_on_another_file_system_files_are_copied():
    with Home("size=200m") as home:
        store = home.path / "state/store"
        store.mkdir(parents=True)
        for folder in (store.parent, store):
            folder.chmod(0o755)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "tmpfs", store], check=True)
        home.run("build", "tiny")
        home.run("verify", "tiny")
        assert {p.stat().st_nlink for p in (home.jail / "current/tree").rglob("*") if p.is_file() and not p.is_symlink()} == {1}
        assert "up to date" in home.run("build", "tiny").stdout
        home.change("B")
        assert "generation 2" in home.run("build", "tiny").stdout
        home.run("build", "--force", "tiny")
        home.run("verify", "tiny")
        libc = next((home.jail / "current/tree").rglob("libc.so.6")).resolve()
        assert libc.stat().st_mode & 0o7777 == 0o755 and libc.read_bytes() == pathlib.Path("/usr/lib/x86_64-linux-gnu/libc.so.6").read_bytes()
        assert home.leftovers() == []
        subprocess.run(["umount", store], check=True)


def test_a_kernel_that_says_again_and_again_is_not_asked_for_ever():
    with Home() as home:
        begin = time.monotonic()
        done = subprocess.run([str(BIN / "refuser"), "openat2", str(errno.EAGAIN), *home.command("build", "tiny")],
                              capture_output=True, text=True, timeout=60)
        print(f"{time.monotonic() - begin:.1f} s")
        assert done.returncode == 0, done
        home.run("verify", "tiny")


# ---- damage ---------------------------------------------------------------------------------------------------


def test_a_flipped_byte_in_the_store_is_noticed_and_healed_by_the_next_build_of_any_jail():
    with Home() as home:
        (home.path / "manifests/other.toml").write_text(
            MANIFEST.format(text="A", home=home.path).replace("tiny", "other"))
        for name in ("tiny", "other"):
            manifest = home.path / f"manifests/{name}.toml"
            manifest.write_text(manifest.read_text().replace('"/usr/bin/true"]\nusers', '"/usr/bin/true", "/usr/bin/sleep"]\nusers'))
        home.run("build", "tiny", "other")
        victim = max((home.path / "state/store/objects").iterdir(), key=lambda p: p.stat().st_size)
        times = victim.stat()
        with open(victim, "r+b") as file:
            file.seek(100_000)
            byte = file.read(1)[0]
            file.seek(100_000)
            file.write(bytes([byte ^ 1]))
        os.utime(victim, ns=(times.st_atime_ns, times.st_mtime_ns))
        for name in ("tiny", "other"):
            done = home.run("verify", name, status=1)
            assert "content differs" in done.stdout and "libc.so.6" in done.stdout
            assert f"jail build --force {name}" in done.stderr
        kept = home.path / "state/jails/tiny/gen/000001"
        living = subprocess.Popen(["chroot", kept / "tree", "/usr/bin/sleep", "1000"])
        wait_for(lambda: os.path.basename(os.readlink(f"/proc/{living.pid}/exe")) == "sleep", what="chroot")
        for name in ("tiny", "other"):
            done = home.run("build", name)
            assert "generation 2" in done.stdout and "was not as built, is made anew: /usr/lib" in done.stderr
            home.run("verify", name)
            if name == "tiny":
                assert f"what runs (pid {living.pid}) still has the damage; run: jail restart tiny" in done.stderr
        # Who lives in the old one keeps the old inode, bad as it is; nobody gets back to it unawares.
        assert living.poll() is None and (kept / "tree/usr/bin/sleep").exists()
        assert "content differs" in home.run("rollback", "tiny", "1", status=1).stderr
        living.kill()
        living.wait()
        home.run("gc", "--keep", "0")
        assert not kept.exists()
        assert "up to date" in home.run("build", "tiny").stdout


def test_verify_finds_what_was_added_to_a_tree():
    with Home() as home:
        def finds(path, what, change, undo, times=1):
            change()
            done = home.run("verify", "tiny", "--json", status=1)
            differences = json.loads(done.stdout)["jails"][0]["differences"]
            assert [(d["path"], d["what"]) for d in differences] == [(path, what)] * times
            undo()
            home.run("verify", "tiny")

        home.run("build", "tiny")
        tree = home.jail / "current/tree"
        gen = home.jail / "current"
        capability = bytes.fromhex("0100000200040000000000000000000000000000")
        text = tree / "etc/text"

        finds("/etc/text", "xattr", lambda: os.setxattr(text, "security.capability", capability),
              lambda: os.removexattr(text, "security.capability"))
        acl = bytes.fromhex("02000000" "01000600ffffffff" "0200060039300000" "04000600ffffffff" "10000600ffffffff"
                            "20000600ffffffff")
        null = tree / "dev/null"
        finds("/dev/null", "xattr", lambda: os.setxattr(null, "system.posix_acl_access", acl),
              lambda: os.removexattr(null, "system.posix_acl_access"))
        folder = tree / "etc"
        finds("/etc", "xattr", lambda: os.setxattr(folder, "security.capability", capability),
              lambda: os.removexattr(folder, "security.capability"))

        # Behind a list of names that is longer than a page.
        many = [f"trusted.{i:03}{'x' * 200}" for i in range(40)]

        def hide():
            for name in many:
                os.setxattr(text, name, b"")
            os.setxattr(text, "security.capability", capability)

        def show():
            for name in [*many, "security.capability"]:
                os.removexattr(text, name)
        finds("/etc/text", "xattr", hide, show, 41)

        def device(minor):
            null.unlink()
            os.mknod(null, 0o20666, os.makedev(1, minor))
            null.chmod(0o666)
        finds("/dev/null", "device", lambda: device(5), lambda: device(3))

        for name in ("launch.json", "filter.bpf", "manifest.json"):
            good = (gen / name).read_bytes()
            finds(name, "content", lambda: (gen / name).write_bytes(good[:-1] + b"?"),
                  lambda: (gen / name).write_bytes(good))
            finds(name, "missing", lambda: (gen / name).unlink(), lambda: (gen / name).write_bytes(good))
        lock = (gen / "jail.lock").read_bytes()
        (gen / "jail.lock").write_bytes(lock.replace(b'"mode":"0755"', b'"mode":"4755"', 1))
        assert "edited since the build" in home.run("verify", "tiny", status=65).stderr
        (gen / "jail.lock").unlink()
        done = home.run("verify", "tiny", status=66)
        assert "gen/000001" in done.stderr and "jail build --force" in done.stderr
        (gen / "jail.lock").write_bytes(lock)
        home.run("verify", "tiny")


# ---- hostile places -------------------------------------------------------------------------------------------


# user::rwx user:nobody:rwx group::r-x mask::rwx other::r-x
NOBODY_MAY_WRITE = bytes.fromhex("02000000" "01000700ffffffff" "02000700feff0000" "04000500ffffffff" "10000700ffffffff"
                                 "20000500ffffffff")


def test_sources_and_manifests_that_others_may_replace_are_refused():
    with Home() as home:
        root = pathlib.Path("/mnt/above/root")
        root.parent.mkdir()
        small_root().rename(root)
        shutil.copy(home.path / "blob", root / "home/blob")
        home.run("--root", str(root), "build", "tiny")
        home.run("build", "tiny")

        def refused_naming(path, *words):
            done = home.run(*words, "build", "tiny", status=78)
            assert f"'{path}'" in done.stderr and "chmod go-w" in done.stderr, done.stderr

        for directory in (root, root.parent):
            directory.chmod(0o777)
            refused_naming(directory, "--root", str(root))
            directory.chmod(0o755)
            os.setxattr(directory, "system.posix_acl_access", NOBODY_MAY_WRITE)
            refused_naming(directory, "--root", str(root))
            os.removexattr(directory, "system.posix_acl_access")
            directory.chmod(0o755)
        home.run("--root", str(root), "build", "tiny")
        manifests = home.path / "manifests"
        drop_ins = manifests / "tiny.toml.d"
        drop_ins.mkdir()
        (drop_ins / "10.toml").write_text('version = 1\ndescription = "x"\n')
        home.run("build", "tiny")
        for place in (manifests, manifests / "tiny.toml", drop_ins, drop_ins / "10.toml"):
            mode = place.stat().st_mode & 0o777
            place.chmod(0o777)
            refused_naming(place)
            place.chmod(mode)
            os.chown(place, 1000, 0)
            refused_naming(place)
            os.chown(place, 0, 0)
        home.run("build", "tiny")
        # A path is the caller's word.
        manifests.chmod(0o777)
        home.run("--manifests", str(manifests), "build", "tiny", status=None)


def test_a_home_that_others_may_replace_is_refused():
    with Home() as home:
        cases = {
            "writable by all": lambda p: p.chmod(0o777),
            "writable by the group": lambda p: p.chmod(0o775),
            "of another user": lambda p: os.chown(p, 1000, 0),
            "writable by one, by an ACL": lambda p: os.setxattr(p, "system.posix_acl_access", NOBODY_MAY_WRITE),
            "sticky, but of another user": lambda p: (p.chmod(0o1777), os.chown(p, 1000, 0)),
        }
        for case, make in cases.items():
            top = pathlib.Path(tempfile.mkdtemp(dir="/mnt"))
            top.chmod(0o755)
            above = top / "above"
            inner = above / "home"
            inner.mkdir(parents=True)
            shutil.copytree(home.path / "manifests", inner / "manifests")
            make(above)
            done = subprocess.run(jail(inner, "build", "tiny"), capture_output=True, text=True)
            assert done.returncode == 78, (case, done.stderr)
            assert f"'{above}'" in done.stderr and "chmod go-w" in done.stderr, done.stderr
            assert sorted(p.name for p in inner.iterdir()) == ["manifests"], case
        # The state directory itself.
        home.run("build", "tiny")
        (home.path / "state").chmod(0o777)
        assert "others than root may write" in home.run("build", "tiny", status=78).stderr


def test_a_link_of_somebody_else_in_a_sticky_directory_does_not_choose_the_place():
    with Home() as home:
        sticky = pathlib.Path("/mnt/sticky")
        sticky.mkdir()
        sticky.chmod(0o1777)
        target = pathlib.Path("/mnt/elsewhere")
        target.mkdir()
        shutil.copytree(home.path / "manifests", target / "manifests")
        (sticky / "home").symlink_to(target)
        command = jail(sticky / "home", "build", "tiny")
        os.chown(sticky / "home", 1000, 1000, follow_symlinks=False)
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 78, done.stderr
        assert "'/mnt/sticky/home'" in done.stderr and "a link that belongs to uid 1000" in done.stderr
        assert sorted(p.name for p in target.iterdir()) == ["manifests"]
        # One of root's own is root's word.
        os.chown(sticky / "home", 0, 0, follow_symlinks=False)
        assert subprocess.run(command, capture_output=True).returncode == 0


PLANTED = [
    "state", "state/jails", "state/store", "state/volumes", "state/store/objects", "state/store/tmp",
    "state/store/index", "state/store/.lock", "state/store/.index.lock", "state/store/.index.new",
    "state/jails/tiny", "state/jails/tiny/gen", "state/jails/tiny/.lock", "state/jails/tiny/current",
    "state/jails/tiny/.current.new", "state/jails/tiny/gen/000001", "state/jails/tiny/gen/000002",
    "state/jails/tiny/gen/.new-1", "state/jails/tiny/gen/000001/tree", "state/jails/tiny/gen/000001/jail.lock",
    "state/jails/tiny/gen/000001/index.json", "state/jails/tiny/gen/000001/tree/etc",
    "state/jails/tiny/gen/000001/tree/etc/text", "state/jails/tiny/gen/000001/tree/usr",
    "state/jails/tiny/gen/000001/tree/dev/null", "state/volumes/tiny-data", "state/volumes/.new",
]


@pytest.mark.parametrize("kind", ["directory", "file"])
def test_a_planted_link_is_never_followed(kind):
    with Home() as home:
        home.run("build", "tiny")
        good = pathlib.Path("/mnt/good")
        shutil.move(home.path / "state", good)
        canary = pathlib.Path("/mnt/canary")
        (canary / "tree/etc").mkdir(parents=True)
        for name in ("text", "tree/etc/text", "jail.lock"):
            (canary / name).write_text("canary")
        (canary / "text").chmod(0o751)
        os.chown(canary / "text", 7, 8)
        target = canary if kind == "directory" else canary / "text"
        before = snapshot(canary)
        for path in PLANTED:
            shutil.rmtree(home.path / "state", ignore_errors=True)
            if os.path.islink(home.path / "state"):
                os.unlink(home.path / "state")
            subprocess.run(["cp", "-a", good, home.path / "state"], check=True)
            place = home.path / path
            if os.path.isdir(place) and not os.path.islink(place):
                shutil.move(place, f"/mnt/aside-{path.replace('/', '-')}-{kind}")
            elif os.path.lexists(place):
                place.unlink()
            place.symlink_to(target)
            home.change("B")
            if path == "state" and kind == "directory":
                # The one place that may be root's own link: it is followed as the word of root.
                continue
            for words in (["build", "tiny"], ["build", "--force", "tiny"], ["verify", "tiny"],
                          ["remove", "--purge", "tiny"]):
                done = home.run(*words, status=None)
                assert done.returncode in (0, 1, 65, 66, 73, 74, 77, 78), (path, words, done)
                assert snapshot(canary) == before, (path, words)


def test_what_is_mounted_in_an_old_tree_is_not_removed_with_it():
    with Home() as home:
        treasure = pathlib.Path("/mnt/treasure")
        treasure.mkdir()
        (treasure / "gold").write_text("gold")
        home.run("build", "tiny")
        mounted = home.jail / "gen/000001/tree/usr/share"
        subprocess.run(["mount", "--bind", treasure, mounted], check=True)
        done = home.run("remove", "tiny", status=75)
        assert "something is mounted in it" in done.stderr and "'share'" in done.stderr
        assert (treasure / "gold").read_text() == "gold"
        subprocess.run(["umount", mounted], check=True)
        for text in "BCDEF":
            home.change(text)
            home.run("build", "tiny")
        home.run("remove", "tiny")
        assert (treasure / "gold").read_text() == "gold"


def test_of_two_builds_at_once_one_is_told_to_wait():
    with Home() as home:
        home.run("build", "tiny")
        home.change("B")
        slow = subprocess.Popen(["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=syncfs:delay_enter=3000000",
                                 *home.command("build", "tiny")])
        end = time.monotonic() + 20
        while not any(p.name.startswith(".new") for p in (home.jail / "gen").iterdir()):
            assert time.monotonic() < end
            time.sleep(0.005)
        done = home.run("build", "tiny", status=75)
        assert "another command builds or removes this jail" in done.stderr and "try again" in done.stderr
        assert home.text() == "A"
        home.run("verify", "tiny")
        assert slow.wait(60) == 0
        assert home.text() == "B"
        home.run("verify", "tiny")


# ---- what a tree is made of -----------------------------------------------------------------------------------


def test_set_id_bits_stay_behind_and_no_inode_is_shared_with_the_host():
    with Home() as home:
        tool = home.path / "tool"
        shutil.copy("/usr/bin/true", tool)
        small = home.path / "small"
        small.write_text("#!/usr/bin/true\n")
        for file in (tool, small):
            file.chmod(0o6755)
            os.setxattr(file, "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
            os.setxattr(file, "system.posix_acl_access", NOBODY_MAY_WRITE)
        manifest = home.path / "manifests/tiny.toml"
        manifest.write_text(manifest.read_text().replace("files = [", 'files = [{ from = "/mnt/home/tool", to = '
                            '"/usr/bin/tool" }, { from = "/mnt/home/small", to = "/usr/bin/small" }, '))
        home.run("build", "tiny")
        tree = home.jail / "current/tree"
        sources = {(s.st_dev, s.st_ino) for s in (os.stat(p) for p in (tool, small, home.path / "blob", "/usr/bin/true"))}
        seen = 0
        for folder, _, files in os.walk(tree):
            for name in files:
                status = os.lstat(os.path.join(folder, name))
                assert status.st_mode & 0o6000 == 0, name
                assert os.listxattr(os.path.join(folder, name), follow_symlinks=False) == [], name
                assert (status.st_dev, status.st_ino) not in sources, name
                seen += 1
        assert seen > 5
        assert (tree / "usr/bin/tool").stat().st_mode & 0o7777 == 0o755
        assert (tree / "usr/bin/small").stat().st_mode & 0o7777 == 0o755
        assert tool.stat().st_mode & 0o6000 == 0o6000 and len(os.listxattr(tool)) == 2


def test_nothing_is_made_in_the_places_for_temporary_files_and_no_program_is_run():
    with Home() as home:
        trace = "/mnt/trace"
        home.run("build", "tiny", before=["strace", "-f", "-qq", "-s", "4096", "-y", "-o", trace])
        calls = pathlib.Path(trace).read_text().splitlines()
        assert sum(1 for line in calls if re.search(r"\bexecve(at)?\(", line)) == 1 + bool(refused())
        makers = re.compile(r"\b(creat|mkdir(at)?|mknod(at)?|link(at)?|symlink(at)?|rename(at2?|)|bind|truncate)\(|O_CREAT|O_TMPFILE")
        made = [line for line in calls if makers.search(line)]
        assert len(made) > 30
        for line in made:
            assert not re.search(r'["<](/tmp|/var/tmp|/dev/shm)(/|["> ])', line), line


@pytest.mark.parametrize("interpreter", ["/mnt/home/evil", "/../mnt/home/evil", "evil", ""])
def test_a_hostile_interpreter_is_not_run(interpreter):
    with Home() as home:
        elf = pathlib.Path("/usr/bin/true").read_bytes()
        real = b"/lib64/ld-linux-x86-64.so.2\0"
        assert elf.count(real) == 1
        target = home.path / "program"
        target.write_bytes(elf.replace(real, interpreter.encode().ljust(len(real), b"\0")))
        target.chmod(0o755)
        evil = home.path / "evil"
        evil.write_text("#!/bin/sh\necho ran > /mnt/home/marker\n")
        evil.chmod(0o755)
        manifest = home.path / "manifests/tiny.toml"
        manifest.write_text(manifest.read_text().replace('"/usr/bin/true"]\nusers', f'"/usr/bin/true", "{target}"]\nusers'))
        assert str(target) in manifest.read_text()
        done = home.run("build", "tiny", status=None,
                        before=["strace", "-f", "-qq", "-e", "trace=execve,execveat", "-o", "/mnt/trace"])
        print(done.returncode, done.stderr)
        assert done.returncode in (0, 65, 66)
        assert len(re.findall(r"\bexecve(?:at)?\(", pathlib.Path("/mnt/trace").read_text())) == 1 + bool(refused())
        assert not (home.path / "marker").exists()


def test_a_file_that_the_kernel_makes_up_is_refused_with_what_to_write_instead():
    with Home() as home:
        (home.path / "blob").unlink()
        for source in ("/proc/version", "/sys/kernel/uevent_seqnum"):
            # By its name the manifest's check knows it; a bind mount hides that.
            (home.path / "blob").touch()
            subprocess.run(["mount", "--bind", source, home.path / "blob"], check=True)
            done = home.run("build", "tiny", status=66)
            subprocess.run(["umount", home.path / "blob"], check=True)
            assert "/mnt/home/blob" in done.stderr and "text = " in done.stderr, done.stderr
