"""The ld.so.cache of a tree, and that of the host as we read it: of directories that only ld.so.conf names, with builds of
libraries for some processors. The real ld.so is asked in both roots, and the real ldconfig makes a cache to compare with."""
import os
import re
import shutil
import subprocess

import pytest

from elfyard import JAIL, LOADER, listed, make_root, ours, parse, yard
from jailtest import REPO, least_manifest

LEVELS = ("none", "x86-64-v2", "x86-64-v3:x86-64-v2")


@pytest.fixture
def root(yard):
    """A root whose ld.so.conf has /srv/lib, where libone.so is, for all processors and for some. Its build for v3 needs what
    nothing else does."""
    root = make_root(yard)
    os.makedirs(root + "/etc")
    with open(root + "/etc/ld.so.conf", "w") as file:
        file.write("/srv/lib\n")
    with open(root + "/etc/passwd", "w") as file:
        file.write("root:x:0:0::/root:/bin/sh\n")
    with open(root + "/etc/group", "w") as file:
        file.write("root:x:0:\n")
    yard.lib("root/srv/lib/libextra.so")
    yard.lib("root/srv/lib/libone.so")
    yard.lib("root/srv/lib/glibc-hwcaps/x86-64-v2/libone.so")
    yard.lib("root/srv/lib/glibc-hwcaps/x86-64-v3/libone.so", ["root/srv/lib/libextra.so"])
    yard.prog("root/usr/bin/one", ["root/srv/lib/libone.so"])
    return root


def ldconfig(root, *words):
    return subprocess.run(["/sbin/ldconfig", "-X", "-r", root, *words], check=True, capture_output=True, text=True).stdout


def real(root, levels="none", program="/usr/bin/one"):
    """What the real loader lists in a root, on a processor with these levels and no others."""
    command = ["/usr/sbin/chroot", root, LOADER, "--glibc-hwcaps-mask", levels, "--list", program]
    done = subprocess.run(command, env={}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return parse(done.stdout)


def build(yard, root):
    home = yard("home")
    os.makedirs(home + "/manifests", exist_ok=True)
    with open(home + "/manifests/x.toml", "w") as file:
        file.write(least_manifest("/usr/bin/one", "root"))
    done = subprocess.run([JAIL, "--home", home, "--manifests", REPO / "manifests", "--root", root, "build", "x"],
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return home + "/state/jails/x/current/tree"


def printed(text):
    """The lines of `ldconfig -p`, in its order."""
    return [line.strip() for line in text.splitlines() if " => " in line]


def test_each_processor_finds_its_build_in_the_tree_as_on_the_host(yard, root):
    ldconfig(root)
    tree = build(yard, root)
    for levels, path in zip(LEVELS, ("", "glibc-hwcaps/x86-64-v2/", "glibc-hwcaps/x86-64-v3/")):
        found = real(tree, levels)
        assert found == real(root, levels)
        assert found[0] == f"/srv/lib/{path}libone.so"
        assert ("/srv/lib/libextra.so" in found) == (path == "glibc-hwcaps/x86-64-v3/")
    os.unlink(tree + "/etc/ld.so.cache")
    with pytest.raises(AssertionError, match="libone.so: cannot open shared object file"):
        real(tree)


def test_the_cache_is_as_ldconfig_would_make_it_of_the_tree(yard, root):
    ldconfig(root)
    tree = build(yard, root)
    ours_printed = printed(ldconfig(tree, "-p"))
    copy = yard("copy")
    subprocess.run(["cp", "-a", tree + "/.", copy], check=True)  # with its devices as devices
    shutil.copy(root + "/etc/ld.so.conf", copy + "/etc")
    ldconfig(copy)
    theirs = [line for line in printed(ldconfig(copy, "-p")) if "/srv/lib" in line]
    assert ours_printed == theirs
    assert [re.search(r'hwcap: "(.*)"', line)[1] for line in theirs if "hwcap" in line] == ["x86-64-v2", "x86-64-v3"]
    assert real(tree, LEVELS[2]) == real(copy, LEVELS[2])


def test_a_build_in_a_default_directory_is_not_hidden_by_the_cache(yard, root):
    """libone.so for all is in /srv/lib, which the cache has; its build for v2 stands where no cache is needed."""
    shutil.rmtree(root + "/srv/lib/glibc-hwcaps")
    yard.lib("root/usr/lib/glibc-hwcaps/x86-64-v2/libone.so")
    ldconfig(root)
    tree = build(yard, root)
    for levels in LEVELS:
        assert real(tree, levels) == real(root, levels)
    assert real(tree, LEVELS[1])[0] == "/lib/glibc-hwcaps/x86-64-v2/libone.so"


def test_a_build_in_the_cache_goes_before_a_default_directory(yard, root):
    """The other way round: only the build for v2 is in /srv/lib."""
    os.rename(root + "/srv/lib/libone.so", root + "/usr/lib/libone.so")
    ldconfig(root)
    tree = build(yard, root)
    for levels in LEVELS:
        assert real(tree, levels) == real(root, levels)
    assert real(tree)[0] == "/lib/libone.so" and real(tree, LEVELS[1])[0] == "/srv/lib/glibc-hwcaps/x86-64-v2/libone.so"


def test_older_subdirectories_count_in_the_cache_as_the_loader_has_them(yard, root):
    """tls/ and x86_64/ are for every processor, and more of them go first; haswell/ is for some."""
    shutil.rmtree(root + "/srv/lib/glibc-hwcaps")
    for folder in ("haswell", "x86_64", "tls/x86_64", "tls"):
        yard.lib(f"root/srv/lib/{folder}/libone.so")
    for folder in ("tls/x86_64/", "tls/", "x86_64/", ""):
        ldconfig(root)
        tree = build(yard, root)
        assert real(root)[0] == f"/srv/lib/{folder}libone.so"
        result = ours("/usr/bin/one", root=root)
        assert listed(result) == real(root) == real(tree)
        assert {"/srv/lib/haswell/libone.so"} == {variant["path"] for variant in result["objects"][1]["variants"]}
        os.unlink(f"{root}/srv/lib/{folder}libone.so")


def test_a_build_that_asks_for_more_than_its_level_is_passed_over(yard, root):
    """The cache has the level of .note.gnu.property beside the subdirectory's name."""
    yard.lib("root/srv/lib/glibc-hwcaps/x86-64-v2/libone.so", flags=["-Wl,-z,x86-64-v4"])
    with open(root + "/srv/lib/glibc-hwcaps/x86-64-v2/libone.so", "r+b") as file:
        at = file.read().index(bytes.fromhex("028000c004000000"))
        file.seek(at + 8)
        file.write((1 << 8).to_bytes(4, "little"))
    ldconfig(root)
    tree = build(yard, root)
    assert real(root, LEVELS[1])[0] == real(tree, LEVELS[1])[0] == "/srv/lib/libone.so"
    assert not [note for note in ours("/usr/bin/one", root=root)["notes"] if "x86-64-v2" in note]


@pytest.mark.parametrize("layout", ["new", "compat", "old"])
def test_every_layout_of_a_cache_is_read_as_by_the_loader(yard, root, layout):
    ldconfig(root, "-c", layout)
    result = ours("/usr/bin/one", root=root)
    assert listed(result) == real(root)
    variants = [variant["path"] for variant in result["objects"][1]["variants"]]
    # In the others the loader finds no names of subdirectories.
    assert (variants != []) == (layout == "new") == (real(root, LEVELS[1])[0] != real(root)[0])


def test_long_numbers_are_where_the_loader_looks_for_them(yard, root):
    """It counts in an int, which such numbers overflow (two that do to the same it takes for one), and searches by halves."""
    names = [f"libone-{number}.so" for number in range(2**32 + 3, 2**32 + 13, 2)]
    names += [f"libone-{number}.so" for number in range(2, 14, 2)]
    for name in names:
        yard.lib("root/srv/lib/" + name)
    yard.prog("root/usr/bin/one", ["root/srv/lib/" + name for name in names])
    ldconfig(root)
    tree = build(yard, root)
    assert real(tree) == real(root)
    assert printed(ldconfig(tree, "-p")) == [line for line in printed(ldconfig(root, "-p")) if "/libone-" in line]


def test_broken_extensions_cost_only_the_builds_that_they_name(yard, root):
    ldconfig(root)
    with open(root + "/etc/ld.so.cache", "r+b") as file:
        file.seek(32)
        file.write((48).to_bytes(4, "little"))
    assert real(root, LEVELS[1])[0] == "/srv/lib/libone.so"
    result = ours("/usr/bin/one", root=root)
    assert listed(result) == real(root) and result["objects"][1]["variants"] == []
    assert any("extension directory" in note for note in result["notes"])
