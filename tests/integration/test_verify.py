"""jail verify: what --quick and --host find, what hostile trees do to it, and that its line of progress is for terminals."""

import os
import pty
import shutil
import signal
import subprocess
import threading
import time

import pytest

from jailtest import BIN, Instance, send

MANIFEST = """
version = 1
[tree]
binaries = ["/usr/bin/sleep"]
users = ["nobody"]
files = [{{ from = "{source}", to = "/data" }}, {{ to = "/etc/text", text = "text" }}]
[service]
command = ["/usr/bin/sleep", "1"]
user = "nobody"
"""


@pytest.fixture
def it():
    with Instance() as instance:
        source = instance.home / "source"
        (source / "sub").mkdir(parents=True)
        (source / "big").write_bytes(os.urandom(200_000))
        (source / "small").write_bytes(b"small")
        (source / "sub/link").symlink_to("../small")
        instance.manifest("tiny", MANIFEST.format(source=source))
        instance.run("build", "tiny")
        instance.data = instance.tree("tiny") / "data"
        yield instance


def found(it, *words):
    answer = it.json("verify", "tiny", *words, status=None)["jails"][0]
    return {(difference["path"], difference["what"]) for difference in answer["differences"]}, answer


def replaced(path, content):
    """Writes over a file as somebody who hides it: size and time of modification stay."""
    before = path.stat()
    with open(path, "r+b") as file:
        file.write(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_quick_reads_nothing_and_finds_what_full_finds(it):
    differences, answer = found(it, "--quick")
    assert not differences and answer["files_read"] == 0 and answer["as_locked"]
    differences, answer = found(it, "--full")
    assert not differences and answer["files_read"] >= 5
    replaced(it.data / "big", b"other")
    replaced(it.data / "small", b"SMALL")
    (it.tree("tiny") / "etc/text").chmod(0o600)
    (it.data / "added").mkdir()
    (it.data / "sub/link").unlink()
    (it.data / "sub/link").symlink_to("../big")
    os.setxattr(it.tree("tiny") / "etc/group", "security.capability", bytes.fromhex("0100000200040000000000000000000000000000"))
    (it.tree("tiny") / "etc/passwd").unlink()
    expected = {("/data/big", "content"), ("/data/small", "content"), ("/etc/text", "mode"), ("/data/added", "added"),
                ("/data/sub/link", "target"), ("/etc/group", "xattr"), ("/etc/passwd", "missing")}
    quick, answer = found(it, "--quick")
    assert quick == expected and answer["files_read"] < 5
    assert found(it)[0] == expected
    assert "/data/big: content differs" in it.run("verify", "tiny", "--quick", status=1).stdout
    it.run("verify", "tiny", "--quick", "--full", status=64)


def test_quick_trusts_shared_objects_that_another_jail_has_linked_since(it):
    it.manifest("more", MANIFEST.format(source=it.home / "source"))
    it.run("build", "more")  # another link to the same objects: their time of change moves
    for answer in it.json("verify", "--quick")["jails"]:
        assert answer["as_locked"] and answer["files_read"] == 0, answer
    (it.tree("tiny").parent / "index.json").write_text("{")  # then it reads
    assert found(it, "--quick")[1]["files_read"] >= 5


def test_host_names_what_changed_there_by_package(it):
    answer = it.json("verify", "tiny", "--host")["jails"][0]
    assert answer["as_on_host"] and answer["files"] >= 5 and answer["changes"] == []
    assert "as on the host" in it.run("verify", "--host").stdout
    source = it.home / "source"
    replaced(source / "big", b"other")
    (source / "small").unlink()
    (source / "sub/new").write_text("is for jail stale to find")
    answer = it.json("verify", "tiny", "--host", status=1)["jails"][0]
    assert [(c["source"], c["path"], c["what"], c["package"]) for c in answer["changes"]] == [
        (str(source / "big"), "/data/big", "content", ""), (str(source / "small"), "/data/small", "gone", "")]
    shown = it.run("verify", "tiny", "--host", status=1).stdout
    assert "tiny: without a package\n" in shown and f"  {source}/small (as /data/small): gone\n" in shown
    (source / "small").mkdir()
    assert it.json("verify", "tiny", "--host", "--quick", status=1)["jails"][0]["changes"][1]["what"] == "type"
    it.run("verify", "tiny")  # the tree is as it was


def test_host_of_another_root_has_versions_by_its_own_dpkg(it):
    """A root of our own, in which a package is upgraded by hand."""
    root = it.home / "root"
    for folder in ("usr/share/thing", "usr/bin", "var/lib/dpkg/info", "etc"):
        (root / folder).mkdir(parents=True)
    for file in ("passwd", "group"):
        shutil.copy(f"/etc/{file}", root / "etc")
    shutil.copy(BIN / "probe", root / "usr/bin/probe")  # static
    (root / "usr/share/thing/one").write_text("one")
    (root / "var/lib/dpkg/info/thing.list").write_text("/.\n/usr/share/thing/one\n")
    status = "Package: thing\nStatus: install ok installed\nArchitecture: all\nVersion: {}\n\n"
    (root / "var/lib/dpkg/status").write_text(status.format("1:1.0-1"))
    it.manifest("thing", '''
version = 1
[tree]
users = ["nobody"]
binaries = ["/usr/bin/probe"]
files = [{ from = "/usr/share/thing/one", to = "/one" }]
[service]
command = ["/usr/bin/probe"]
user = "nobody"
''')
    it.run("--root", root, "build", "thing")
    assert "as on the host" in it.run("--root", root, "verify", "thing", "--host").stdout
    (root / "usr/share/thing/one").write_text("two")
    (root / "var/lib/dpkg/status").write_text(status.format("1:1.1-1"))
    shown = it.run("--root", root, "verify", "thing", "--host", status=1).stdout
    assert shown.startswith("thing: thing 1:1.0-1 -> 1:1.1-1\n  /usr/share/thing/one (as /one): another content\n")
    (root / "var/lib/dpkg/status").write_text("")
    (root / "usr/share/thing/one").unlink()
    assert "thing: thing 1:1.0-1 (no longer installed)\n" in it.run("--root", root, "verify", "thing", "--host", status=1).stdout


def test_no_tree_makes_it_hang_or_follow_anything(it):
    tree, data = it.tree("tiny"), it.data
    for name, make in (
        ("big", lambda path: os.mkfifo(path)),
        ("small", lambda path: os.mknod(path, 0o20666, os.makedev(1, 5))),  # /dev/zero
    ):
        (data / name).unlink()
        make(data / name)
    shutil.rmtree(data / "sub")
    (data / "sub").symlink_to("sub")
    (tree / "etc/text").unlink()
    with open(tree / "etc/text", "wb") as sparse:
        sparse.truncate(1 << 43)
    (tree / "etc/passwd").unlink()
    (tree / "etc/passwd").symlink_to("/dev/zero")
    (data / "socket").mkdir()
    for number in range(2000):
        (data / "socket" / str(number)).touch()
    begin = time.monotonic()
    differences, _ = found(it)
    assert time.monotonic() - begin < 10
    assert differences == {
        ("/data/big", "type"), ("/data/small", "type"), ("/data/sub", "type"), ("/data/sub/link", "missing"),
        ("/etc/text", "size"), ("/etc/passwd", "type"), ("/data/socket", "added")}
    shown = it.run("verify", "tiny", status=1).stdout
    assert "/data/big: is a fifo, must be a file" in shown and "/data/small: is a character device, must be a file" in shown
    it.run("verify", "tiny", "--quick", status=1)


def test_a_hundred_thousand_files_too_many_take_seconds(it):
    for number in range(100_000):
        os.close(os.open(it.data / f"extra{number}", os.O_CREAT | os.O_WRONLY))
    begin = time.monotonic()
    done = it.run("verify", "tiny", status=1)
    assert time.monotonic() - begin < 30
    assert done.stdout.count("not in the lock") == 100_000


def test_a_file_that_grows_without_end_has_an_end(it):
    path, stop = it.data / "big", threading.Event()

    def grow():
        with open(path, "ab", buffering=0) as file:
            for _ in range(4000):
                if stop.is_set():
                    return
                file.write(bytes(65536))

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        for _ in range(10):
            differences, _ = found(it)
            assert differences and {path for path, _ in differences} == {"/data/big"}
    finally:
        stop.set()
        writer.join()


def test_what_is_exchanged_while_it_looks_is_told_and_never_followed(it):
    """A thread puts a file, a fifo, a link out of the tree and a directory in each other's place."""
    path, other, stop = it.data / "small", it.home / "other", threading.Event()
    secret = it.home / "outside"
    secret.write_bytes(b"small")  # what a link that is followed would find right

    def swap():
        while not stop.is_set():
            for make in (os.mkfifo, lambda p: os.symlink(secret, p), lambda p: p.write_bytes(b"SMALL")):
                make(other)
                os.rename(other, path)

    (it.data / "small").write_bytes(b"SMALL")
    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        statuses = set()
        for _ in range(60):
            done = it.run("verify", "tiny", status=None, timeout=10)
            statuses.add(done.returncode)
            assert done.returncode in (1, 74), done.stdout + done.stderr
        assert 1 in statuses
    finally:
        stop.set()
        swapper.join()


def test_few_system_calls_for_each_file(it):
    """Linear, and no more than a handful for each of the files that are added."""
    def calls(count, *words):
        folder = it.home / "source/many"
        folder.mkdir(exist_ok=True)
        for number in range(count):
            (folder / str(number)).write_bytes(b"%d" % number)
        it.run("build", "tiny")
        out = it.home / "strace"
        subprocess.run(["strace", "-f", "-qq", "-o", out, *it.command("verify", "tiny", *words)], check=True, capture_output=True)
        return sum(1 for line in open(out, errors="replace") if "resumed>" not in line)

    few, many = calls(100), calls(1100)
    assert (many - few) / 1000 < 8.5
    assert (calls(1100, "--quick") - few) / 1000 < 2.5


def test_progress_is_drawn_on_a_terminal_and_nowhere_else(it):
    bytes_of_one = os.urandom(1 << 20)
    with open(it.home / "source/huge", "wb") as file:
        for number in range(300):
            file.write(bytes_of_one)
    it.run("build", "tiny")
    assert it.run("verify", "tiny").stderr == ""

    def on_terminal(*words):
        """Stopped in the middle for as long as it takes a line to be drawn at once."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(it.command("verify", "tiny", *words), stderr=theirs, stdout=subprocess.DEVNULL)
        os.close(theirs)
        time.sleep(0.05)
        send(process.pid, signal.SIGSTOP)
        time.sleep(1.2)
        send(process.pid, signal.SIGCONT)
        assert process.wait(60) == 0
        shown = b""
        while True:
            try:
                shown += os.read(ours, 65536)
            except OSError:  # nothing more: the other end is closed
                break
        os.close(ours)
        return shown.decode()

    shown = next((shown for shown in (on_terminal() for _ in range(5)) if shown), "")
    assert "tiny: " in shown and " MiB of 302 MiB" in shown and shown.endswith("\r\x1b[K") and "\n" not in shown, repr(shown)
    assert on_terminal("--quiet") == ""
