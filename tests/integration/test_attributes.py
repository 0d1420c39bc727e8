"""Extended attributes: those that the manifest names come along, are locked, verified and exported; no others ever do."""

import ctypes
import io
import json
import os
import shutil
import subprocess
import tarfile
import tempfile

import pytest

from jailtest import BIN, CLONE_NEWNS, Instance, least_manifest

CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service, effective and permitted
OTHER_CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
# user::rwx user:nobody:rwx group::r-x mask::rwx other::r-x
ACL = bytes.fromhex("02000000" "01000700ffffffff" "02000700feff0000" "04000500ffffffff" "10000700ffffffff" "20000500ffffffff")
# The same by chmod 0755.
ACL_755 = bytes.fromhex("02000000" "01000700ffffffff" "02000700feff0000" "04000500ffffffff" "10000500ffffffff" "20000500ffffffff")
NOTE = b"\0\xff=\n"

MANIFEST = """
version = 1
[tree]
binaries = ["/usr/bin/sleep"]
users = ["nobody"]
files = [
  {{ from = "{home}/big", to = "/big" {asked} }},
  {{ from = "{home}/small", to = "/small" {asked} }},
  {{ from = "{home}/folder", to = "/folder" {asked} }},
  {{ from = "{home}/key", to = "/key", secret = true {asked} }},
]
[service]
command = ["/usr/bin/sleep", "1"]
user = "nobody"
"""
ASKED = ', xattrs = ["user.note", "security.capability"]'
FILES = ("big", "small", "folder/one", "key")


def takes_attributes(folder):
    with tempfile.NamedTemporaryFile(dir=folder) as file:
        try:
            os.setxattr(file.name, "user.note", NOTE)
            os.setxattr(file.name, "security.capability", CAPABILITY)
        except OSError:
            return False
    return True


@pytest.fixture
def it(monkeypatch):
    place = next((folder for folder in (tempfile.gettempdir(), "/var/tmp", "/root") if takes_attributes(folder)), None)
    assert place, "no directory here takes user.* and security.capability"
    monkeypatch.setattr(tempfile, "tempdir", place)
    with Instance() as instance:
        home = instance.home
        (home / "folder").mkdir()
        (home / "big").write_bytes(os.urandom(20_000))
        (home / "small").write_bytes(b"small")
        (home / "key").write_bytes(b"hunter2")
        (home / "folder/one").write_bytes(b"1" * 5000)
        (home / "folder/none").write_bytes(b"0" * 5000)
        for name in FILES:
            os.setxattr(home / name, "user.note", NOTE)
            os.setxattr(home / name, "security.capability", CAPABILITY)
            os.setxattr(home / name, "user.unasked", b"stays behind")
        instance.manifest("tiny", MANIFEST.format(home=home, asked=ASKED))
        yield instance


def attributes(path):
    return {name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)}


def all_attributes(tree):
    found = {}
    for folder, folders, files in os.walk(tree):
        for name in [*folders, *files]:
            if there := attributes(os.path.join(folder, name)):
                found[os.path.relpath(os.path.join(folder, name), tree)] = there
    return found


def found(it, *words):
    answer = it.json("verify", *(words or ["tiny"]), status=None)["jails"][0]
    return {(difference["path"], difference["what"]) for difference in answer["differences"]}


def entries(it):
    lock = json.loads((it.tree("tiny").parent / "jail.lock").read_text())
    return {entry["path"]: entry for entry in lock["entries"]}


def objects(it):
    return {path.name for path in (it.home / "state/store/objects").iterdir()}


WANTED = {"user.note": NOTE, "security.capability": CAPABILITY}


def test_nothing_comes_along_that_nobody_asked_for(it):
    it.manifest("tiny", MANIFEST.format(home=it.home, asked=""))
    it.run("build", "tiny")
    assert all_attributes(it.tree("tiny")) == {}
    assert not any("xattrs" in entry for entry in entries(it).values()) and not any("-x" in name for name in objects(it))
    assert "xattrs" not in (it.tree("tiny").parent / "secrets.json").read_text()
    without = objects(it)
    # Asked for, the same bytes are another object.
    it.manifest("tiny", MANIFEST.format(home=it.home, asked=ASKED))
    assert it.json("stale", "tiny", status=1)["jails"][0]["paths"] == ["/big", "/folder/one", "/key", "/small"]
    it.run("build", "tiny")
    assert len([name for name in objects(it) - without if "-x" in name]) == 2
    assert all_attributes(it.tree("tiny")) == {name: WANTED for name in FILES}


def test_what_is_asked_for_is_in_the_tree_in_the_lock_and_as_it_should(it):
    it.run("build", "tiny")
    tree = it.tree("tiny")
    assert all_attributes(tree) == {name: WANTED for name in FILES}
    assert (tree / "big").stat().st_nlink == 2 and (tree / "small").stat().st_nlink == 1
    locked = {"security.capability": "0x" + CAPABILITY.hex(), "user.note": "0x00ff3d0a"}
    assert {path for path, entry in entries(it).items() if "xattrs" in entry} == {"/big", "/small", "/folder/one"}
    assert all(entries(it)[path]["xattrs"] == locked for path in ("/big", "/small", "/folder/one"))
    files = {file["path"]: file for file in it.json("files", "tiny")["files"]}
    assert files["/big"]["xattrs"] == locked and "xattrs" not in files["/folder/none"]
    # Of a secret the lock has nothing: a checksum in an attribute would be its hash.
    assert json.loads((tree.parent / "secrets.json").read_text())["files"]["/key"]["xattrs"] == locked
    for words in (["tiny"], ["tiny", "--quick"]):
        assert found(it, *words) == set()
    assert it.json("verify", "tiny", "--host")["jails"][0]["as_on_host"]
    it.run("stale", "tiny")
    for _ in range(2):
        assert "up to date" in it.run("build", "tiny").stdout
    ran = subprocess.run(["chroot", tree, "/usr/bin/sleep", "0"])
    assert ran.returncode == 0


def changes(path):
    """Ways in which the attributes of `path` become others, and back."""
    return (
        (lambda: os.removexattr(path, "user.note"), lambda: os.setxattr(path, "user.note", NOTE)),
        (lambda: os.setxattr(path, "security.capability", OTHER_CAPABILITY),
         lambda: os.setxattr(path, "security.capability", CAPABILITY)),
    )


@pytest.mark.parametrize("name", FILES)
def test_a_change_on_the_host_is_found_and_taken_over(it, name):
    def settle():
        """Until a witness stands: from then on a build looks at nothing but stamps."""
        for _ in range(100):
            it.run("build", "tiny")
            if (it.tree("tiny").parent / "witness").exists():
                return
        raise AssertionError("there is no witness")

    it.run("build", "tiny")
    for generation, (change, _) in enumerate(changes(it.home / name), 2):
        settle()
        change()
        assert it.json("stale", "tiny", status=1)["jails"][0]["paths"] == ["/" + name]
        for words in ([], ["--quick"]):
            host = it.json("verify", "tiny", "--host", *words, status=1)["jails"][0]["changes"]
            assert [(c["path"], c["what"]) for c in host] == [("/" + name, "xattr")]
        assert "other extended attributes" in it.run("verify", "tiny", "--host", status=1).stdout
        assert f"generation {generation}" in it.run("build", "tiny").stdout
        expected = {key: value for key, value in attributes(it.home / name).items() if key in WANTED}
        assert attributes(it.tree("tiny") / name) == expected
        assert found(it) == set()
    told = it.run("diff", "tiny", status=1).stdout
    assert f"/{name}" in told and "xattr security.capability" in told


@pytest.mark.parametrize("words", [["tiny"], ["tiny", "--quick"]], ids=["full", "quick"])
@pytest.mark.parametrize("name", FILES)
def test_verify_finds_what_was_removed_changed_and_added(it, name, words):
    it.run("build", "tiny")
    path = it.tree("tiny") / name
    added = (lambda: os.setxattr(path, "user.more", b""), lambda: os.removexattr(path, "user.more"))
    for change, back in (*changes(path), added):
        change()
        assert found(it, *words) == {("/" + name, "xattr")}
        back()
        assert found(it, *words) == set()
    changes(path)[1][0]()
    told = it.run("verify", *words, status=1).stdout
    assert f"has the attribute security.capability as 0x{OTHER_CAPABILITY.hex()}, must have it as 0x{CAPABILITY.hex()}" in told
    # And a build mends it, for all that share the object.
    assert "generation 2" in it.run("build", "tiny").stdout
    assert all_attributes(it.tree("tiny")) == {name: WANTED for name in FILES}
    assert found(it) == set()


def test_attributes_where_no_lock_can_have_any_are_found(it):
    it.run("build", "tiny")
    tree = it.tree("tiny")
    os.setxattr(tree / "folder", "user.x", b"")
    os.setxattr(tree / "folder/none", "user.x", b"")
    os.setxattr(tree / "dev/null", "trusted.x", b"")
    assert found(it) == {("/folder", "xattr"), ("/folder/none", "xattr"), ("/dev/null", "xattr")}
    assert "/folder/none: has the attribute user.x, must not" in it.run("verify", "tiny", status=1).stdout


def test_a_plain_tree_has_them_too(it):
    into = it.home / "plain"
    it.run("build", "tiny", "--into", into)
    assert all_attributes(into) == {name: WANTED for name in FILES}
    assert found(it, into) == set()
    assert "up to date" in it.run("build", "tiny", "--into", into).stdout
    os.removexattr(into / "big", "security.capability")
    assert found(it, into) == {("/big", "xattr")}
    it.run("build", "tiny", "--into", into)
    os.setxattr(it.home / "key", "user.note", b"other")
    it.run("build", "tiny", "--into", into)
    assert attributes(into / "key")["user.note"] == b"other" and found(it, into) == set()


def test_a_program_gets_its_capability_by_an_entry_of_its_own(it):
    root = it.home / "root"
    (root / "usr/bin").mkdir(parents=True)
    (root / "etc").mkdir()
    for file in ("passwd", "group"):
        shutil.copy(f"/etc/{file}", root / "etc")
    tool = root / "usr/bin/tool"
    shutil.copy(BIN / "probe", tool)  # static
    it.manifest("tiny", least_manifest("/usr/bin/tool").replace(
        "users", 'files = [{ from = "/usr/bin/tool", to = "/usr/bin/tool", xattrs = ["security.capability"] }]\nusers'))
    run = lambda *words: it.run("--root", root, *words)
    assert "'/usr/bin/tool' has no attribute security.capability that could be copied" in run("plan", "tiny").stderr
    os.setxattr(tool, "security.capability", CAPABILITY)
    assert "no attribute" not in run("plan", "tiny").stderr
    run("build", "tiny")
    assert all_attributes(it.tree("tiny")) == {"usr/bin/tool": {"security.capability": CAPABILITY}}
    os.chown(tool, 1, 1)  # takes it away
    assert "no attribute" in run("build", "tiny").stderr
    assert all_attributes(it.tree("tiny")) == {}


def test_an_acl_gives_no_more_than_the_mode_gives_the_group(it):
    it.manifest("tiny", MANIFEST.format(home=it.home, asked=', xattrs = ["system.posix_acl_access"]'))
    for name in ("big", "small"):
        (it.home / name).chmod(0o755)
        os.setxattr(it.home / name, "system.posix_acl_access", ACL)
    it.run("build", "tiny")
    tree = it.tree("tiny")
    assert all_attributes(tree) == {name: {"system.posix_acl_access": ACL_755} for name in ("big", "small")}
    assert (tree / "big").stat().st_mode & 0o7777 == 0o755
    assert found(it) == set() and it.json("verify", "tiny", "--host")["jails"][0]["as_on_host"]
    assert "up to date" in it.run("build", "tiny").stdout


@pytest.mark.parametrize("tar", [["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-p"],
                                 ["tar", "--numeric-owner", "--xattrs", "--xattrs-include=*", "--acls", "-p"],
                                 ["bsdtar", "--numeric-owner", "-p"]], ids=["tar", "tar-acls", "bsdtar"])
def test_an_archive_gives_them_back(it, tar):
    it.manifest("tiny", MANIFEST.format(home=it.home, asked=ASKED.replace("]", ', "system.posix_acl_access"]')))
    (it.home / "big").chmod(0o755)
    os.setxattr(it.home / "big", "system.posix_acl_access", ACL)
    it.run("build", "tiny")

    def archive():
        return subprocess.run(it.command("export", "tiny", "--with-secrets"), check=True, capture_output=True).stdout

    out = it.home / "out"
    out.mkdir()
    done = subprocess.run([*tar, "-x", "-f", "-", "-C", out], input=archive(), capture_output=True)
    assert done.returncode == 0 and done.stderr == b"", done.stderr
    expected = {name: dict(WANTED) for name in FILES}
    expected["big"]["system.posix_acl_access"] = ACL_755
    assert all_attributes(out) == expected == all_attributes(it.tree("tiny"))
    first = archive()
    it.run("build", "--force", "tiny")
    assert archive() == first
    with tarfile.open(fileobj=io.BytesIO(first)) as opened:
        assert opened.getmember("./big").pax_headers["SCHILY.acl.access"] == "user::rwx,user:65534:rwx,group::r-x,mask::r-x,other::r-x"
        assert opened.getmember("./folder/none").pax_headers == {}
    # What is not as locked does not get out.
    os.setxattr(it.tree("tiny") / "small", "user.note", b"?")
    done = subprocess.run(it.command("export", "tiny"), capture_output=True, text=True, errors="replace")
    assert done.returncode == 1 and "'/small': it has the attribute user.note as 0x3f" in done.stderr


@pytest.fixture
def mounts(it):
    """Mounts beside `it`, seen by this test alone."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNS) != 0:
        raise OSError(ctypes.get_errno(), "unshare(CLONE_NEWNS)")
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    made = []

    def mount(kind, path):
        path.mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", kind, "-o", "mode=755", kind, path], check=True)
        made.append(path)
        return path

    yield mount
    for path in reversed(made):
        subprocess.run(["umount", "-l", path], check=True)


def test_a_file_system_that_takes_none_is_told_with_the_way_out(it, mounts):
    plain = mounts("ramfs", it.home / "ram")
    done = it.run("build", "tiny", "--into", plain / "tree", status=73)
    assert "'/big': cannot set the attribute security.capability" in done.stderr or \
        "'/big': cannot set the attribute user.note" in done.stderr, done.stderr
    assert "Operation not supported" in done.stderr and "take the name out of the manifest's xattrs" in done.stderr
    assert list(plain.iterdir()) == []
    mounts("ramfs", it.home / "state")
    done = it.run("build", "tiny", status=73)
    assert "store/objects/" in done.stderr and "--home DIR" in done.stderr
    assert list((it.home / "state/store/tmp").iterdir()) == [] and list((it.home / "state/store/objects").iterdir()) == []


def test_a_store_on_another_file_system_is_copied_from_with_them(it, mounts):
    (it.home / "state").mkdir(mode=0o755)
    (mounts("tmpfs", it.home / "state/store")).chmod(0o700)
    if not takes_attributes(it.home / "state/store"):
        pytest.skip("tmpfs takes no user.* before Linux 6.6")
    it.run("build", "tiny")
    assert (it.tree("tiny") / "big").stat().st_nlink == 1
    assert all_attributes(it.tree("tiny")) == {name: WANTED for name in FILES}
    assert found(it) == set() and "up to date" in it.run("build", "tiny").stdout


def test_names_that_cannot_be_copied_are_refused_with_their_place(it):
    manifest = MANIFEST.format(home=it.home, asked="").replace("files = [", """files = [
  { to = "/text", text = "x", xattrs = ["user.x"] },
  { to = "/names", from = "/etc/hostname", xattrs = ["user.x", "user.x", "btrfs.compression", "user.", "user.a=b", "user.%s"] },
""" % ("x" * 251))
    it.manifest("tiny", manifest)
    told = it.run("build", "tiny", status=65).stderr
    for words in ("tree.files./text.xattrs: are copied from a source, and 'text' has none", "'user.x' is listed already",
                  "'btrfs.compression' is no attribute that is copied", "'user.' is no attribute", "'user.a=b' holds a blank, '='",
                  "is longer than 255 bytes"):
        assert words in told, told
