"""jail export: archives that GNU tar and bsdtar unpack to what the lock says, the same bytes wherever they are made, and
specifications that mtree verifies."""

import hashlib
import io
import os
import pathlib
import pty
import shutil
import stat
import subprocess
import tarfile

import pytest

from jailtest import Instance

LONG = "long-" + "x" * 80
MANIFEST = """
version = 1
[tree]
binaries = ["/usr/bin/sleep", "/usr/bin/dash"]
users = ["nobody"]
devices = ["null", "urandom"]
files = [
  {{ from = "{source}", to = "/data" }},
  {{ from = "{key}", to = "/etc/key", secret = true }},
  {{ to = "/etc/text", text = "text", owner = "nobody", mode = "0640" }},
]
[service]
command = ["/usr/bin/sleep", "1"]
user = "nobody"
"""


def build(instance):
    source = instance.home / "source"
    deep = source / LONG / LONG / LONG
    deep.mkdir(parents=True)
    (deep / "file").write_text("deep")
    (source / "link").symlink_to("/".join([LONG] * 3) + "/file")
    (source / os.fsdecode(b"odd \xff\n #name")).write_text("odd")
    (source / ("ä" * 70)).write_text("umlauts")
    (source / "empty").write_bytes(b"")
    (source / "block").write_bytes(b"b" * 512)
    (source / "big").write_bytes(bytes(range(256)) * 3000)
    (instance.home / "key").write_text("a key")
    instance.manifest("tiny", MANIFEST.format(source=source, key=instance.home / "key"))
    instance.run("build", "tiny")


@pytest.fixture(scope="module")
def it():
    with Instance() as instance:
        build(instance)
        yield instance


def export(it, *words, status=0, **environment):
    done = subprocess.run(it.command("export", "tiny", *words), capture_output=True, env={**os.environ, **environment})
    assert done.returncode == status, done.stderr
    return done.stdout if status == 0 else done.stderr.decode()


def seen(top):
    """Every entry below `top`, as a lock has it."""
    found = {}
    for folder, folders, files in os.walk(os.fsencode(top)):
        for name in [b".", *folders, *files]:
            path = os.path.normpath(os.path.join(folder, name))
            status = os.lstat(path)
            entry = [stat.S_IFMT(status.st_mode), status.st_uid, status.st_gid]
            if stat.S_ISLNK(status.st_mode):
                entry.append(os.readlink(path))
            else:
                entry.append(stat.S_IMODE(status.st_mode))
            if stat.S_ISREG(status.st_mode):
                with open(path, "rb") as file:
                    entry += [status.st_nlink, hashlib.sha256(file.read()).hexdigest()]
            if stat.S_ISCHR(status.st_mode):
                entry.append(status.st_rdev)
            found[b"/" + os.path.relpath(path, os.fsencode(top))] = entry
    return found


def without_links(entries):
    return {path: entry[:4] + entry[5:] if len(entry) == 6 else entry for path, entry in entries.items()}


@pytest.mark.parametrize("tar", [["tar", "--numeric-owner", "-p"], ["bsdtar", "--numeric-owner", "-p"]])
def test_unpacked_it_is_the_tree(it, tar, tmp_path):
    archive = export(it, "--with-secrets")
    assert len(archive) % 10240 == 0
    done = subprocess.run([*tar, "-x", "-f", "-", "-C", str(tmp_path)], input=archive, capture_output=True)
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    unpacked, tree = seen(tmp_path), seen(it.tree("tiny"))
    assert without_links(unpacked) == without_links(tree)
    assert all(entry[4] == 1 for entry in unpacked.values() if len(entry) == 6)
    assert {path for path in unpacked} >= {b"/data/odd \xff\n #name", b"/dev/null", b"/etc/key", b"/data/" + "/".join([LONG] * 3).encode() + b"/file"}
    assert all(os.lstat(path).st_mtime == 315532800 for path in tmp_path.rglob("*"))
    ran = subprocess.run(["chroot", tmp_path, "/usr/bin/dash", "-c", "echo inside > /dev/null && echo $(( 6 * 7 ))"], capture_output=True, text=True)
    assert ran.stdout == "42\n", ran.stderr


def test_python_reads_it_too_in_order_and_by_numbers(it):
    with tarfile.open(fileobj=io.BytesIO(export(it))) as archive:
        members = archive.getmembers()
        names = [member.name for member in members]
        paths = ["/" + name.removeprefix("./").removeprefix(".") for name in names]
        assert paths == sorted(paths, key=lambda path: path.encode("utf-8", "surrogateescape"))
        assert all(member.uname == "" and member.gname == "" and member.mtime == 315532800 for member in members)
        text = archive.getmember("./etc/text")
        assert (text.mode, text.uid) == (0o640, 65534)


def test_the_same_tree_gives_the_same_bytes_elsewhere(it):
    first = export(it)
    with Instance() as other:
        build(other)
        assert export(other) == first
        assert export(other, "--format", "mtree") == export(it, "--format", "mtree")
    assert export(it, SOURCE_DATE_EPOCH="1700000000") != first
    with tarfile.open(fileobj=io.BytesIO(export(it, SOURCE_DATE_EPOCH="1700000000"))) as archive:
        assert {member.mtime for member in archive} == {1700000000}
    assert "SOURCE_DATE_EPOCH" in export(it, status=64, SOURCE_DATE_EPOCH="-1")


def test_secrets_are_in_it_only_when_asked_for(it):
    for form in ("tar", "mtree"):
        assert b"etc/key" not in export(it, "--format", form)
        assert b"etc/key" in export(it, "--format", form, "--with-secrets")
    assert b"a key" not in export(it)


def test_mtree_verifies_the_tree_and_finds_what_changed(it, tmp_path):
    for entry in it.tree("tiny").iterdir():
        subprocess.run(["cp", "-a", entry, tmp_path], check=True)
    subprocess.run(["chmod", "--reference", it.tree("tiny"), tmp_path], check=True)
    spec = tmp_path.parent / "spec"
    spec.write_bytes(export(it, "--format", "mtree", "--with-secrets"))
    mtree = lambda: subprocess.run(["mtree", "-p", tmp_path, "-f", spec], capture_output=True)
    done = mtree()
    assert done.returncode == 0 and done.stdout == b"", done.stdout + done.stderr
    # bsdtar reads it, and packs what it describes.
    listed = subprocess.run(["bsdtar", "-tf", spec], capture_output=True, check=True).stdout.splitlines()
    assert len(listed) == len(seen(it.tree("tiny")))
    with open(tmp_path / "data/big", "r+b") as file:
        file.write(b"?")
    (tmp_path / "dev/null").unlink()
    os.mknod(tmp_path / "dev/null", 0o666 | stat.S_IFCHR, os.makedev(1, 5))
    (tmp_path / "etc/text").chmod(0o666)
    (tmp_path / "data/link").unlink()
    (tmp_path / "data/link").symlink_to("empty")
    (tmp_path / "added").touch()
    said = mtree()
    assert said.returncode == 2
    for word in (b"big", b"null", b"text", b"link", b"added"):
        assert word in said.stdout, said.stdout


def test_what_is_not_as_locked_ends_the_archive_before_its_end(it):
    tree = it.tree("tiny")
    path = tree / "data/big"
    before = path.read_bytes()

    def refused(words):
        done = subprocess.run(it.command("export", "tiny"), capture_output=True)
        assert done.returncode == 1 and words in done.stderr.decode() and "jail verify" in done.stderr.decode(), done.stderr
        cut = subprocess.run(["tar", "-t"], input=done.stdout, capture_output=True)
        assert cut.returncode != 0 or not done.stdout.endswith(bytes(1024))

    path.write_bytes(b"?" + before[1:])
    refused("'/data/big': its content is not as locked")
    path.write_bytes(before + b"more")
    refused("'/data/big': its type, mode, owner or size is not as locked")
    path.unlink()
    refused("'/data/big': is missing in the tree")
    os.mkfifo(path)
    refused("'/data/big': its type")
    path.unlink()
    path.symlink_to("/etc/shadow")
    refused("'/data/big': its type")
    path.unlink()
    it.run("build", "--force", "tiny")
    export(it)


def test_an_archive_is_nothing_for_a_terminal(it):
    ours, theirs = pty.openpty()
    done = subprocess.run(it.command("export", "tiny"), stdout=theirs, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 64 and "jail export tiny > tiny.tar" in done.stderr
    os.close(theirs), os.close(ours)
    with open("/dev/full", "wb") as full:
        done = subprocess.run(it.command("export", "tiny"), stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 74 and "No space left" in done.stderr
