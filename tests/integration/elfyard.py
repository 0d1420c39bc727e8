"""A yard of ELF fixtures built with the compiler, `jail deps` asked about them, and the real loader as the oracle.

Where a program is found through a link, the kernel's own start of it (LD_TRACE_LOADED_OBJECTS, as ldd does) is the
oracle: `ld.so --list` takes $ORIGIN from the name it is given.
"""
import json
import os
import shutil
import struct
import subprocess

import pytest

JAIL = os.path.join(os.environ.get("JAIL_BIN", "build/release/bin"), "jail")
LOADER = "/lib64/ld-linux-x86-64.so.2"


class Yard:
    """A directory with libraries and programs made on demand."""

    def __init__(self, path):
        self.path = str(path)

    def __call__(self, *parts):
        return os.path.join(self.path, *parts)

    def folder(self, name):
        os.makedirs(self(name), exist_ok=True)
        return self(name)

    def _link(self, out, needs, flags, shared, code):
        os.makedirs(os.path.dirname(self(out)), exist_ok=True)
        command = ["gcc", "-o", self(out), "-x", "c", "-", "-Wl,--no-as-needed", "-Wl,--allow-shlib-undefined"]
        command += ["-shared", "-fPIC"] if shared else []
        # -L. and -rpath-link never reach the file; needs are files, their SONAME goes into DT_NEEDED.
        command += ["-x", "none", *[self(need) for need in needs], *flags]
        subprocess.run(command, input=code, text=True, check=True, capture_output=True, cwd=self.path)
        return self(out)

    def lib(self, out, needs=(), soname=True, flags=(), code=""):
        name = os.path.basename(out) if soname is True else soname
        extra = [f"-Wl,-soname,{name}"] if name else []
        return self._link(out, needs, [*extra, *flags], True, code)

    def prog(self, out, needs=(), flags=(), code="int main(void){return 0;}"):
        return self._link(out, needs, ["-Wl,--unresolved-symbols=ignore-all", *flags], False, code)


@pytest.fixture
def yard(tmp_path):
    return Yard(tmp_path)


def rpath(*parts):
    return ["-Wl,--disable-new-dtags", "-Wl,-rpath," + ":".join(parts)]


def runpath(*parts):
    return ["-Wl,--enable-new-dtags", "-Wl,-rpath," + ":".join(parts)]


def ours(path, *options, root=None):
    command = [JAIL, "--json", *(["--root", root] if root else []), "deps", "--explain", *options, path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd="/")
    assert done.returncode in (0, 64, 65, 66, 71, 74), (done.returncode, done.stderr)
    result = json.loads(done.stdout)["files"][0]
    assert ("error" in result) == (done.returncode != 0)
    return result


def listed(result):
    return [item["path"] for item in result["objects"]][1:]


def parse(text):
    paths = []
    for line in text.splitlines():
        words = line.strip().rsplit(" (0x", 1)[0]
        if not words.startswith(("linux-vdso", "linux-gate", "statically linked")):
            paths.append(words.split(" => ")[-1])
    return paths


def loader_says(path, kernel=False, loader=LOADER):
    """([paths], None) or (None, the loader's words)."""
    if kernel:
        done = subprocess.run([path], env={"LD_TRACE_LOADED_OBJECTS": "1"}, capture_output=True, text=True, cwd="/")
    else:
        command = [loader, "--glibc-hwcaps-mask", "none", "--list", path]
        done = subprocess.run(command, env={}, capture_output=True, text=True, cwd="/")
    words = done.stdout + done.stderr
    if done.returncode != 0 or "not found" in words:
        return None, words
    return parse(done.stdout), None


def agree(path, kernel=False):
    """The list that both give; fails when they differ."""
    expected, words = loader_says(path, kernel)
    result = ours(path)
    assert expected is not None, words
    assert "error" not in result, result
    assert listed(result) == expected
    return result


def both_refuse(path, real, mine, kernel=False):
    expected, words = loader_says(path, kernel)
    assert expected is None and real in words, (expected, words)
    result = ours(path)
    assert "error" in result, listed(result)
    assert mine in result["error"]
    return result


def rule_of(result, name):
    return next(item["rule"] for item in result["objects"] if item["name"] == name)


# ---- another root ---------------------------------------------------------------------------------------
def make_root(yard):
    """A root with a loader, libc, a program; absolute links that must stay inside."""
    root = yard.folder("root")
    for folder in ("usr/bin", "usr/lib/x86_64-linux-gnu", "usr/lib64", "opt"):
        yard.folder("root/" + folder)
    os.symlink("usr/lib", root + "/lib")
    os.symlink("/usr/lib64", root + "/lib64")
    for name in ("libc.so.6", "ld-linux-x86-64.so.2"):
        shutil.copy("/lib/x86_64-linux-gnu/" + name, root + "/usr/lib/x86_64-linux-gnu/" + name)
    os.symlink("/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2", root + "/usr/lib64/ld-linux-x86-64.so.2")
    yard.prog("root/usr/bin/prog")
    return root


# ---- bytes ----------------------------------------------------------------------------------------------
def poke(path, offset, value):
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(value)


def headers(path):
    """(offset of the header, type, offset, file size) of each program header of a 64-bit file."""
    with open(path, "rb") as file:
        data = file.read()
    start, = struct.unpack_from("<Q", data, 32)
    count, = struct.unpack_from("<H", data, 56)
    for i in range(count):
        at = start + 56 * i
        yield at, struct.unpack_from("<I", data, at)[0], *struct.unpack_from("<Q", data, at + 8), *struct.unpack_from("<Q", data, at + 32)


def segment(path, kind):
    return next((offset, size) for _, type_, offset, size in headers(path) if type_ == kind)


def move_segment(path, kind, offset, size):
    at = next(at for at, type_, _, _ in headers(path) if type_ == kind)
    poke(path, at + 8, struct.pack("<Q", offset))
    poke(path, at + 32, struct.pack("<QQ", size, size))


def dynamic(path):
    offset, size = segment(path, 2)
    with open(path, "rb") as file:
        file.seek(offset)
        return list(struct.iter_unpack("<QQ", file.read(size)))


def tag_value(path, tag):
    return next(value for found, value in dynamic(path) if found == tag)


def add_dynamic(path, tag, value):
    """Into the first of the spare DT_NULL entries that ld leaves."""
    offset, _ = segment(path, 2)
    index = next(i for i, (found, _) in enumerate(dynamic(path)) if found == 0)
    poke(path, offset + 16 * index, struct.pack("<QQ", tag, value))
