"""jail.lock as its manual page has it, by a reader of its own that knows nothing but that page: the tree hash, the seal, the
order, the keys, and that the tree is what it says."""
import hashlib
import json
import os
import re
import shutil
import stat
import subprocess

import pytest

from jailtest import REPO, Instance

PAGE = (REPO / "contrib/man/jail.lock.5").read_text()
ALL = {"path", "type", "mode", "uid", "gid", "why"}
OF_TYPE = {"directory": set(), "symlink": {"target"}, "character_device": {"major", "minor"}, "block_device": {"major", "minor"},
           "file": {"size", "sha256"}}
OPTIONAL = {"source", "package", "package_version", "package_architecture", "secret", "xattrs"}

ATTRIBUTES = {"user.b": b"", "user.a": b"\0a\xff", "security.capability": bytes.fromhex("0100000200040000000000000000000000000000")}

MANIFEST = r"""
version = 1
[tree]
binaries = ["/usr/bin/true", "/bin/sh"]
users = ["nobody"]
devices = ["null"]
files = [{ from = "@HOME@/odd", to = "/usr/share/odd" }, { from = "@HOME@/key", to = "/etc/key", secret = true, mode = "0400" },
         { from = "@HOME@/tool", to = "/usr/bin/tool", mode = "0711", xattrs = ["user.b", "user.a", "security.capability"] }]
[[volume]]
name = "v"
path = "/var/lib/v"
owner = "nobody"
[service]
command = ["/usr/bin/true"]
user = "nobody"
"""


@pytest.fixture(scope="module")
def it():
    with Instance() as instance:
        odd = instance.home / "odd"
        odd.mkdir()
        for name in (b"caf\xc3\xa9", b"latin\xe9", b"back\\slash", b"quote\"", b"new\nline"):
            with open(os.path.join(os.fsencode(odd), name), "wb") as file:
                file.write(name)
        os.symlink(b"caf\xe9\\", os.path.join(os.fsencode(odd), b"link"))
        (instance.home / "key").write_text("hunter2")
        (instance.home / "tool").write_bytes((b"#!/bin/sh\n" + b"#" * 6000))
        (instance.home / "tool").chmod(0o6755)
        for name, value in ATTRIBUTES.items():
            os.setxattr(instance.home / "tool", name, value)
        instance.manifest("tiny", MANIFEST.replace("@HOME@", str(instance.home)))
        instance.run("build", "tiny")
        yield instance


def lock_text(it, name="tiny"):
    return (it.home / "state/jails" / name / "current/jail.lock").read_bytes()


def unquoted(text):
    """Text of the lock to bytes, as the page says."""
    return re.sub(rb"\\(\\|x([0-9a-f]{2}))", lambda m: b"\\" if m[1] == b"\\" else bytes([int(m[2], 16)]), text.encode())


def tree_hash(lock):
    hashed = hashlib.sha256(b"jail-tree-v1\0")
    for entry in lock["entries"]:
        fields = [unquoted(entry["path"]), entry["type"], f"{int(entry['mode'], 8):o}", str(entry["uid"]), str(entry["gid"])]
        if entry["type"] == "file":
            fields += ["secret"] if entry.get("secret") else [str(entry["size"]), entry["sha256"]]
            for name, value in sorted(entry.get("xattrs", {}).items()):
                fields += [name, value]
        elif entry["type"] == "symlink":
            fields += [unquoted(entry["target"])]
        elif entry["type"] != "directory":
            fields += [str(entry["major"]), str(entry["minor"])]
        for field in fields:
            hashed.update((field if isinstance(field, bytes) else field.encode()) + b"\0")
    return hashed.hexdigest()


def test_the_tree_hash_and_the_seal_can_be_computed_from_the_page_alone(it):
    for said in ("jail-tree-v1", "jail-lock-v1", "in octal without leading zeros", "followed by a NUL byte"):
        assert said in PAGE
    text = lock_text(it)
    lock = json.loads(text)
    assert tree_hash(lock) == lock["tree_hash"]
    without = text.replace(f'"seal": "{lock["seal"]}"'.encode(), b'"seal": ""')
    assert without != text and hashlib.sha256(b"jail-lock-v1\0" + without).hexdigest() == lock["seal"]
    # And it is a hash of something: another mode is another hash.
    lock["entries"][1]["mode"] = "0700"
    assert tree_hash(lock) != lock["tree_hash"]
    lock = json.loads(text)
    tool = next(entry for entry in lock["entries"] if entry["path"] == "/usr/bin/tool")
    assert list(tool["xattrs"].items()) == [(name, "0x" + value.hex()) for name, value in sorted(ATTRIBUTES.items())]
    del tool["xattrs"]["user.a"]
    assert tree_hash(lock) != lock["tree_hash"]


def test_keys_order_and_lines_are_as_the_page_says(it):
    text = lock_text(it).decode()
    lock = json.loads(text)
    assert set(lock) == {"version", "name", "distribution", "entries", "tree_hash", "frozen", "volumes", "seal"} and lock["version"] == 1
    assert all(re.search(rf"^\.It Cm .*\b{key}\b", PAGE, re.M) for key in set(lock) | ALL | OPTIONAL)
    paths = [unquoted(e["path"]) for e in lock["entries"]]
    assert paths == sorted(set(paths)) and paths[0] == b"/"
    kinds = set()
    for entry in lock["entries"]:
        must = ALL | (OF_TYPE[entry["type"]] if not (entry["type"] == "file" and entry.get("secret")) else set())
        assert must <= set(entry) <= must | OPTIONAL, entry
        assert re.fullmatch("[0-7]{4}", entry["mode"]) and entry["why"]
        kinds |= {reason["kind"] for reason in entry["why"]}
        line = json.dumps(entry, separators=(",", ":"), sort_keys=True, ensure_ascii=False)
        assert f"\n  {line}" in text, line
    assert all(re.search(rf"\b{kind}\b", PAGE[PAGE.index(".It Cm why"):]) for kind in kinds), kinds
    assert {"binary", "needed", "link", "device", "user", "mount", "parent"} <= kinds
    assert lock["volumes"] == [{"name": "v", "path": "/var/lib/v", "uid": 65534, "gid": 65534, "mode": "0750"}]
    # Stable: the same again, and of a store and of indexes that know nothing.
    it.run("build", "--force", "tiny")
    assert lock_text(it).decode() == text
    shutil.rmtree(it.home / "state")
    it.run("build", "tiny")
    assert lock_text(it).decode() == text


def test_every_entry_is_what_stands_in_the_tree_and_nothing_else_stands_there(it):
    lock = json.loads(lock_text(it))
    tree = os.fsencode(it.tree("tiny"))
    there = {b"/"}
    for folder, folders, files in os.walk(tree):
        there |= {os.path.join(folder, name)[len(tree):] for name in folders + files}
    assert there == {unquoted(e["path"]) for e in lock["entries"]}
    types = {"directory": stat.S_ISDIR, "file": stat.S_ISREG, "symlink": stat.S_ISLNK, "character_device": stat.S_ISCHR}
    for entry in lock["entries"]:
        path = tree + unquoted(entry["path"])
        status = os.lstat(path)
        assert types[entry["type"]](status.st_mode) and (status.st_uid, status.st_gid) == (entry["uid"], entry["gid"])
        assert entry["type"] == "symlink" or stat.S_IMODE(status.st_mode) == int(entry["mode"], 8), entry
        if entry["type"] == "symlink":
            assert os.readlink(path) == unquoted(entry["target"])
        elif entry["type"] == "character_device":
            assert status.st_rdev == os.makedev(entry["major"], entry["minor"])
        elif entry["type"] == "file" and not entry.get("secret"):
            with open(path, "rb") as file:
                content = file.read()
            assert (len(content), hashlib.sha256(content).hexdigest()) == (entry["size"], entry["sha256"])
            there = {name: "0x" + os.getxattr(path, name).hex() for name in os.listxattr(path)}
            assert there == entry.get("xattrs", {}), path
    modes = {unquoted(e["path"]): e["mode"] for e in lock["entries"]}
    assert modes[b"/usr/bin/tool"] == "0711"
    assert [path for path, mode in modes.items() if int(mode, 8) & 0o6000] == []


def test_packages_are_dpkgs_own_answers(it):
    lock = json.loads(lock_text(it))
    asked = {e["source"]: (e.get("package"), e.get("package_version")) for e in lock["entries"] if e.get("source", "").startswith("/usr/")}
    assert "/usr/bin/dash" in asked and len(asked) >= 4
    for source, (package, version) in asked.items():
        # dpkg knows one spelling of a merged /usr only.
        found = {}
        for spelling in (source, source[4:]):
            said = subprocess.run(["dpkg-query", "-S", spelling], capture_output=True, text=True).stdout
            for line in said.splitlines():
                if not line.startswith("diversion"):
                    found[line.rsplit(": ", 1)[0].split(":")[0]] = True
        assert list(found) == [package], (source, found, package)
        said = subprocess.run(["dpkg-query", "-W", "-f", "${Version}\n", package], capture_output=True, text=True).stdout
        assert version in said.splitlines()
