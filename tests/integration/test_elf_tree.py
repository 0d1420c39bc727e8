"""A built tree, resolved once more in itself: each program finds there what it finds on the host, byte for byte, on every
processor."""
import hashlib
import json
import pathlib
import shutil
import subprocess

import pytest

from jailtest import BIN, REPO, least_manifest, own_mounts

PROGRAM = pathlib.Path("/mnt/own/bin/prog")
LIBRARIES = pathlib.Path("/mnt/own/lib")


def compile(out, *words, code="int main(void){return 0;}"):
    out.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["gcc", "-o", out, "-x", "c", "-", "-x", "none", "-Wl,--no-as-needed", "-Wl,-rpath,$ORIGIN/../lib", *words],
                   input=code, text=True, check=True)


@pytest.fixture(scope="module")
def house():
    """An instance below /mnt, which this process alone sees, and a program with a library for several processors."""
    own_mounts()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=0755", "tmpfs", "/mnt"], check=True)
    shared = ("-shared", "-fPIC", "-Wl,-soname,libone.so")
    compile(LIBRARIES / "libextra.so", "-shared", "-fPIC", "-Wl,-soname,libextra.so", code="int extra;")
    compile(LIBRARIES / "libone.so", *shared, code="int one;")
    compile(LIBRARIES / "glibc-hwcaps/x86-64-v2/libone.so", *shared, code="int one = 2;")
    compile(LIBRARIES / "glibc-hwcaps/x86-64-v3/libone.so", LIBRARIES / "libextra.so", *shared,
            "-Wl,-rpath," + str(LIBRARIES), code="int one = 3;")
    compile(PROGRAM, LIBRARIES / "libone.so")
    manifests = pathlib.Path("/mnt/manifests")
    shutil.copytree(REPO / "manifests", manifests)
    (manifests / "own.toml").write_text(least_manifest(PROGRAM))
    return pathlib.Path("/mnt/home")


def jail(home, *words):
    done = subprocess.run([BIN / "jail", "--home", home, "--manifests", "/mnt/manifests", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def resolved(home, root, program):
    """[(list, name, path, what is there)] of all that any processor would load."""
    result = json.loads(jail(home, "--json", "--root", root, "deps", program))["files"][0]
    digest = lambda real: hashlib.sha256((pathlib.Path(root) / real.lstrip("/")).read_bytes()).hexdigest()
    for kind in ("objects", "elsewhere"):
        for item in result[kind]:
            yield kind, item["name"], item["path"], digest(item["real"])
            for variant in item["variants"]:
                yield variant["subdirectory"], item["name"], variant["path"], digest(variant["real"])


@pytest.mark.parametrize("name, program, least", [("own", str(PROGRAM), 6), ("named", "/usr/sbin/named", 20)])
def test_the_tree_resolves_to_what_the_host_resolves_to(house, name, program, least):
    jail(house, "build", name)
    tree = house / "state/jails" / name / "current/tree"
    on_host, in_tree = list(resolved(house, "/", program)), list(resolved(house, tree, program))
    assert len(on_host) >= least
    assert in_tree == on_host


def test_every_variant_and_its_needs_are_in_the_tree(house):
    jail(house, "build", "own")
    tree = house / "state/jails/own/current/tree"
    found = {str(path.relative_to(tree / "mnt/own/lib")) for path in (tree / "mnt/own/lib").rglob("*.so")}
    assert found == {"libone.so", "libextra.so", "glibc-hwcaps/x86-64-v2/libone.so", "glibc-hwcaps/x86-64-v3/libone.so"}
    # The real loader, in the tree, on a processor of each kind that this one can be.
    for mask, expected in (("none", "lib/libone.so"), ("x86-64-v2", "glibc-hwcaps/x86-64-v2/libone.so")):
        words = ["chroot", tree, "/lib64/ld-linux-x86-64.so.2", "--glibc-hwcaps-mask", mask, "--list", PROGRAM]
        listed = subprocess.run(words, capture_output=True, text=True, check=True).stdout
        assert expected + " (" in listed
