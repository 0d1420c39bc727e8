"""Search-rule fixtures, built with the compiler and compared with the real loader."""
import os
import struct
import subprocess

import pytest

from elfyard import (
    JAIL, LOADER, add_dynamic, agree, both_refuse, dynamic, listed, loader_says, make_root, move_segment, ours, parse, poke,
    rpath, rule_of, runpath, segment, tag_value, yard,
)


# ---- RPATH, RUNPATH, $ORIGIN ----------------------------------------------------------------------------
@pytest.mark.parametrize("tag", [rpath, runpath])
@pytest.mark.parametrize("origin", ["$ORIGIN", "${ORIGIN}"])
def test_origin(yard, tag, origin):
    yard.lib("lib/libone.so")
    result = agree(yard.prog("bin/prog", ["lib/libone.so"], tag(origin + "/../lib")))
    assert rule_of(result, "libone.so") == ("rpath" if tag is rpath else "runpath")
    assert listed(result)[0] == yard("bin/../lib/libone.so")  # not normalised


def test_token_rules(yard):
    yard.lib("lib/libone.so")
    both_refuse(yard.prog("bin/prog", ["lib/libone.so"], runpath(yard.path + "/$ORIGINx/../lib")), "libone.so: cannot open shared object file", "libone.so not found")
    yard.folder("$ORIGINx")  # the literal name, where it exists
    agree(yard("bin/prog"))
    yard.lib("lib/x86_64-linux-gnu/libtwo.so")
    agree(yard.prog("bin/two", ["lib/x86_64-linux-gnu/libtwo.so"], runpath(yard.path + "/$LIB")))


def test_empty_and_doubled_elements(yard):
    yard.lib("a/libone.so")
    result = agree(yard.prog("prog", ["a/libone.so"], runpath("", yard("a") + "//", yard("a"), "")))
    assert any("relative to the current directory" in note for note in result["notes"])


def test_origin_of_a_linked_program_is_where_it_is(yard):
    yard.lib("real/libone.so")
    yard.prog("real/prog", ["real/libone.so"], runpath("$ORIGIN"))
    yard.folder("links")
    os.symlink("../real/prog", yard("links/prog"))
    agree(yard("links/prog"), kernel=True)


def test_origin_of_a_linked_library_is_where_it_was_found(yard):
    yard.lib("real/libdep.so")
    yard.lib("real/libone.so", ["real/libdep.so"], flags=runpath("$ORIGIN"))
    yard.prog("prog", ["real/libone.so"], runpath(yard("links")))
    yard.folder("links")
    os.symlink("../real/libone.so", yard("links/libone.so"))
    both_refuse(yard("prog"), "libdep.so: cannot open shared object file", "libdep.so not found")
    os.symlink("../real/libdep.so", yard("links/libdep.so"))
    agree(yard("prog"))


def test_rpath_of_the_grandparent_counts(yard):
    yard.lib("deep/libc3.so")
    yard.lib("b/libb3.so", ["deep/libc3.so"])
    yard.lib("a/liba3.so", ["b/libb3.so"])
    agree(yard.prog("prog", ["a/liba3.so"], rpath(yard("a"), yard("b"), yard("deep"))))


def test_own_runpath_blocks_the_rpath_of_ancestors(yard):
    yard.lib("deep/libdep.so")
    yard.lib("a/libone.so", ["deep/libdep.so"], flags=runpath("/nowhere"))
    both_refuse(yard.prog("prog", ["a/libone.so"], rpath(yard("a"), yard("deep"))), "libdep.so: cannot open shared object file", "libdep.so not found")


def test_runpath_is_not_inherited(yard):
    yard.lib("a/libdep.so")
    yard.lib("a/libone.so", ["a/libdep.so"])
    result = both_refuse(yard.prog("prog", ["a/libone.so"], runpath(yard("a"))), "libdep.so: cannot open shared object file", "libdep.so not found")
    assert yard("a/libone.so") + " <- " + yard("prog") in result["error"]
    assert "/lib/x86_64-linux-gnu/libdep.so (no such file)" in result["error"] and "libdep.so" in result["hint"]


def test_rpath_of_an_ancestor_that_has_a_runpath_is_gone(yard):
    """libb has both tags: glibc drops its RPATH, so that its child libc4 is not found through it."""
    yard.lib("deep/libc4.so")
    yard.lib("b/libb4.so", ["deep/libc4.so"])
    yard.lib("a/liba4.so", ["b/libb4.so"], flags=rpath(yard("b"), yard("deep")))
    yard.prog("prog", ["a/liba4.so"], rpath(yard("a")))
    agree(yard("prog"))
    add_dynamic(yard("a/liba4.so"), 29, tag_value(yard("a/liba4.so"), 15))  # a DT_RUNPATH beside the DT_RPATH
    both_refuse(yard("prog"), "libc4.so: cannot open shared object file", "libc4.so not found")


# ---- names ----------------------------------------------------------------------------------------------
def test_absolute_needed(yard):
    yard.lib("a/libone.so", soname=None)
    result = agree(yard.prog("prog", ["a/libone.so"]))
    assert rule_of(result, yard("a/libone.so")) == "absolute"


def test_needed_with_origin(yard):
    yard.lib("a/libone.so", soname="$ORIGIN/a/libone.so")
    agree(yard.prog("prog", ["a/libone.so"]))


def test_soname_that_is_not_the_file_name(yard):
    yard.lib("a/libone.so.1.2", soname="libone.so.1")
    os.symlink("libone.so.1.2", yard("a/libone.so.1"))
    agree(yard.prog("prog", ["a/libone.so.1.2"], runpath(yard("a"))))


def test_one_soname_in_two_places_first_breadth_wins(yard):
    """prog -> a, b; a -> deep's libsame; b's libsame is met later: breadth first, one copy for all."""
    yard.lib("x/libsame.so", code="int x;")
    yard.lib("y/libsame.so", code="int y;")
    yard.lib("a/liba.so", ["x/libsame.so"], flags=runpath(yard("x")))
    yard.lib("b/libb.so", ["y/libsame.so"], flags=runpath(yard("y")))
    result = agree(yard.prog("prog", ["a/liba.so", "b/libb.so"], runpath(yard("a"), yard("b"))))
    assert yard("x/libsame.so") in listed(result) and yard("y/libsame.so") not in listed(result)
    # Depth first would take x's (below a); breadth first takes the program's own second entry.
    yard.lib("a/libdeep.so", ["a/liba.so"], flags=runpath(yard("a")))
    result = agree(yard.prog("prog2", ["a/libdeep.so", "y/libsame.so"], runpath(yard("a"), yard("y"))))
    assert yard("y/libsame.so") in listed(result) and yard("x/libsame.so") not in listed(result)


def test_soname_of_a_loaded_object_answers(yard):
    """An absolute DT_NEEDED whose file has the SONAME libalias.so answers for everyone who asks for that."""
    yard.lib("c/abs.so", soname="libalias.so")
    yard.lib("stubs/libalias.so")
    yard.lib("b/libuser.so", ["stubs/libalias.so"])
    yard.prog("prog", ["b/libuser.so"], runpath(yard("b"), yard("c")))
    both_refuse(yard("prog"), "libalias.so: cannot open shared object file", "libalias.so not found")
    yard.lib("stubs/abs.so", soname=yard("c/abs.so"))
    agree(yard.prog("prog2", ["stubs/abs.so", "b/libuser.so"], runpath(yard("b"))))


@pytest.mark.parametrize("how", [os.link, os.symlink])
def test_two_paths_one_inode(yard, how):
    yard.lib("a/libone.so", soname=None)
    how(yard("a/libone.so"), yard("a/libtwo.so"))
    yard.lib("stubs/libone.so")
    yard.lib("stubs/libtwo.so")
    result = agree(yard.prog("prog", ["stubs/libone.so", "stubs/libtwo.so"], runpath(yard("a"))))
    assert yard("a/libtwo.so") not in listed(result)


def test_cycle(yard):
    yard.lib("a/libone.so")
    yard.lib("a/libtwo.so", ["a/libone.so"])
    yard.lib("a/libone.so", ["a/libtwo.so"])
    agree(yard.prog("prog", ["a/libone.so"], rpath(yard("a"))))


def test_a_chain_deeper_than_32(yard):
    previous = []
    for i in range(40):
        yard.lib(f"a/libd{i}.so", previous)
        previous = [f"a/libd{i}.so"]
    assert len(listed(agree(yard.prog("prog", previous, rpath(yard("a")))))) >= 41


# ---- candidates that are not what they seem -------------------------------------------------------------
def test_wrong_class_is_passed_over(yard):
    yard.lib("a/libone.so", flags=["-m32", "-nostdlib"])
    yard.lib("b/libone.so")
    result = agree(yard.prog("prog", ["b/libone.so"], runpath(yard("a"), yard("b"))))
    assert {"path": yard("a/libone.so"), "outcome": "wrong ELF class"} in result["objects"][1]["tried"]


def test_both_classes_in_one_place(yard):
    """Each program takes its own class's file, whichever comes first, down to libc."""
    for folder, flags in (("a", ["-m32"]), ("b", [])):
        yard.lib(folder + "/libone.so", flags=flags)
    yard.prog("prog64", ["b/libone.so"], runpath(yard("a"), yard("b")))
    yard.prog("prog32", ["a/libone.so"], ["-m32", *runpath(yard("b"), yard("a"))])
    assert listed(agree(yard("prog64")))[0] == yard("b/libone.so")
    expected, words = loader_says(yard("prog32"), loader="/lib/ld-linux.so.2")
    assert words is None and expected[0] == yard("a/libone.so")
    assert listed(ours(yard("prog32"))) == expected


def test_wrong_machine_is_passed_over(yard):
    yard.lib("a/libone.so")
    poke(yard("a/libone.so"), 18, struct.pack("<H", 183))
    yard.lib("b/libone.so")
    agree(yard.prog("prog", ["b/libone.so"], runpath(yard("a"), yard("b"))))


DECOYS = {
    "linker script": (b"INPUT(/lib/libone.so.1)\n" * 10, "invalid ELF header"),
    "empty": (b"", "file too short"),
    "short": (b"\x7fELF", "file too short"),
}


@pytest.mark.parametrize("kind", DECOYS)
def test_junk_earlier_in_the_path_is_fatal(yard, kind):
    content, words = DECOYS[kind]
    with open(os.path.join(yard.folder("a"), "libone.so"), "wb") as file:
        file.write(content)
    yard.lib("b/libone.so")
    both_refuse(yard.prog("prog", ["b/libone.so"], runpath(yard("a"), yard("b"))), words, words)


PATCHES = {
    "byte order": (5, b"\x02", "data encoding", "byte order"),
    "ident version": (6, b"\x02", "version ident", "version ident"),
    "OS ABI": (7, b"\x09", "OS ABI invalid", "OS ABI invalid"),
    "ABI version": (8, b"\x09", "ABI version invalid", "ABI version invalid"),
    "padding": (12, b"\x01", "nonzero padding", "nonzero padding"),
    "type": (16, b"\x01\x00", "only ET_DYN and ET_EXEC", "only ET_DYN and ET_EXEC"),
    "phentsize": (54, b"\x37\x00", "phentsize", "phentsize"),
}


@pytest.mark.parametrize("kind", PATCHES)
def test_a_broken_header_is_fatal(yard, kind):
    offset, value, real, mine = PATCHES[kind]
    yard.lib("a/libone.so")
    poke(yard("a/libone.so"), offset, value)
    yard.lib("b/libone.so")
    both_refuse(yard.prog("prog", ["b/libone.so"], runpath(yard("a"), yard("b"))), real, mine)


def test_a_directory_of_that_name_is_fatal(yard):
    yard.folder("a/libone.so")
    yard.lib("b/libone.so")
    both_refuse(yard.prog("prog", ["b/libone.so"], runpath(yard("a"), yard("b"))), "cannot read file data", "cannot read file data: Is a directory")


def test_dangling_and_looping_links(yard):
    yard.folder("a")
    os.symlink("nowhere", yard("a/libone.so"))
    yard.lib("b/libone.so")
    yard.prog("prog", ["b/libone.so"], runpath(yard("a"), yard("b")))
    agree(yard("prog"))
    os.unlink(yard("a/libone.so"))
    os.symlink("libone.so", yard("a/libone.so"))  # ELOOP ends this list, and the search goes on with the next rule
    both_refuse(yard("prog"), "libone.so: cannot open shared object file", "libone.so not found")


def test_a_program_as_library_is_fatal(yard):
    yard.prog("a/libpie.so")
    yard.lib("stubs/libpie.so")
    both_refuse(yard.prog("prog", ["stubs/libpie.so"], runpath(yard("a"))), "position-independent executable", "position-independent executable")
    yard.prog("a/libexec.so", flags=["-no-pie"])
    yard.lib("stubs/libexec.so")
    both_refuse(yard.prog("prog2", ["stubs/libexec.so"], runpath(yard("a"))), "cannot dynamically load executable", "cannot dynamically load executable")


# ---- flags, filters, versions ---------------------------------------------------------------------------
def test_nodeflib(yard):
    flags = ["-Wl,-z,nodefaultlib"]
    both_refuse(yard.prog("prog", flags=flags), "libc.so.6: cannot open shared object file", "libc.so.6 not found")
    agree(yard.prog("prog2", flags=[*flags, *runpath("/lib/x86_64-linux-gnu")]))


@pytest.mark.parametrize("flag", ["-Wl,-F,libfiltee.so", "-Wl,-f,libfiltee.so"])
def test_filter_and_auxiliary(yard, flag):
    yard.lib("a/libone.so", flags=[flag, *runpath(yard("a"))])
    yard.lib("a/libtwo.so")
    yard.prog("prog", ["a/libtwo.so", "a/libone.so"], runpath(yard("a")))
    if "-F" in flag:
        both_refuse(yard("prog"), "libfiltee.so: cannot open shared object file", "libfiltee.so not found")
    else:
        # --list shows a missing auxiliary as "not found"; started, the program does not miss it.
        assert subprocess.run([yard("prog")]).returncode == 0
        assert "error" not in ours(yard("prog"))
    yard.lib("stubs/libdep.so")
    yard.lib("a/libdep.so")
    yard.lib("a/libfiltee.so", ["stubs/libdep.so"], flags=runpath(yard("a")))
    result = agree(yard("prog"))
    paths = listed(result)
    assert paths.index(yard("a/libfiltee.so")) < paths.index(yard("a/libone.so"))
    agree(yard.prog("prog2", ["a/libfiltee.so", "a/libone.so"], runpath(yard("a"))))
    agree(yard.prog("prog3", ["a/libone.so", "a/libtwo.so", "a/libfiltee.so"], runpath(yard("a"))))


def versioned(yard, out, version):
    with open(yard("map"), "w") as file:
        file.write(f"{version} {{ global: f; }};\n")
    return yard.lib(out, flags=["-Wl,--version-script=" + yard("map")], code="int f(void){return 1;}")


def test_missing_version(yard):
    versioned(yard, "new/libver.so", "V_2")
    yard.prog("prog", ["new/libver.so"], runpath(yard("a")), code="int f(void); int main(void){return f();}")
    yard.folder("a")
    versioned(yard, "a/libver.so", "V_2")
    agree(yard("prog"))
    versioned(yard, "a/libver.so", "V_1")
    both_refuse(yard("prog"), "version `V_2' not found", "version 'V_2' not found")
    yard.lib("a/libver.so", code="int f(void){return 1;}")  # no versions at all: a warning only
    assert "no version information" in subprocess.run([LOADER, "--list", yard("prog")], env={}, capture_output=True, text=True).stderr
    assert "error" not in ours(yard("prog"))


# ---- programs -------------------------------------------------------------------------------------------
@pytest.mark.parametrize("flag", ["-static", "-static-pie"])
def test_static(yard, flag):
    result = ours(yard.prog("prog", flags=[flag]))
    assert result["static"] and listed(result) == []


def test_interpreter_without_needs(yard):
    result = ours(yard.prog("prog", flags=["-nostdlib", "-Wl,-e,main", "-Wl,-dynamic-linker," + LOADER]))
    assert not result["static"] and listed(result) == [] and result["interpreter"] == LOADER


def test_bad_interpreters(yard):
    def with_interpreter(name, value):
        return ours(yard.prog(name, flags=["-Wl,-dynamic-linker," + value]))

    assert "does not exist" in with_interpreter("missing", "/lib/ld-none.so.1")["error"]
    assert "not an absolute path" in with_interpreter("relative", "ld-none.so.1")["error"]
    assert "not a loader for its class" in with_interpreter("other", "/lib/ld-linux.so.2")["error"]
    path = yard.prog("unterminated")
    offset, size = segment(path, 3)
    poke(path, offset + size - 1, b"x")
    with pytest.raises(OSError):
        subprocess.run([path], check=True)
    assert "not terminated" in ours(path)["error"]


def test_not_programs(yard):
    yard.prog("prog", flags=["-g"])
    subprocess.run(["objcopy", "--only-keep-debug", yard("prog"), yard("prog.debug")], check=True)
    subprocess.run(["gcc", "-x", "c", "-", "-c", "-o", yard("prog.o")], input="int x;", text=True, check=True)
    with open(yard("script"), "w") as file:
        file.write("#! /bin/sh -e\n")
    assert ".debug" in ours(yard("prog.debug"))["hint"]
    assert "only ET_DYN and ET_EXEC" in ours(yard("prog.o"))["error"]
    assert "not an ELF file" in ours(yard("script"))["error"] and "/bin/sh" in ours(yard("script"))["hint"]
    assert "Is a directory".lower() in ours(yard.path)["error"].lower()
    assert "No such file" in ours(yard("nothing"))["error"]


def test_many_files_the_rest_is_printed_and_the_worst_status_counts(yard):
    done = subprocess.run([JAIL, "deps", "/bin/ls", yard("nothing"), "/bin/cat"], capture_output=True, text=True)
    assert done.returncode == 66 and "/bin/ls:" in done.stdout and "/bin/cat:" in done.stdout
    assert "nothing" in done.stderr


def test_a_hundred_thousand_needs(yard):
    """Hostile, and still an answer: 10^5 DT_NEEDED entries of a library's own name, then of a missing one."""
    path = yard.lib("libmany.so", flags=["-nostdlib"])
    size = os.path.getsize(path)
    soname = tag_value(path, 14)
    keep = [(tag, value) for tag, value in dynamic(path) if tag]
    entries = keep + [(1, soname)] * 100000 + [(0, 0)]
    with open(path, "ab") as file:
        file.write(b"\0" * (-size % 16) + b"".join(struct.pack("<QQ", *entry) for entry in entries))
    move_segment(path, 2, size + -size % 16, len(entries) * 16)
    assert listed(ours(path)) == []
    poke(path, size + -size % 16, struct.pack("<QQ", 1, soname + 1) * (len(entries) - 1 - len(keep)) + b"".join(
        struct.pack("<QQ", *entry) for entry in keep + [(0, 0)]))
    assert "ibmany.so not found" in ours(path)["error"]


# ---- variants -------------------------------------------------------------------------------------------
def test_hwcaps_variants_stand_beside_the_baseline(yard):
    yard.lib("a/libone.so")
    for level in ("v2", "v3"):
        yard.lib(f"a/glibc-hwcaps/x86-64-{level}/libone.so")
    yard.lib("a/haswell/libone.so")
    yard.prog("prog", ["a/libone.so"], runpath(yard("a")))
    one = ours(yard("prog"))["objects"][1]
    assert one["path"] == yard("a/libone.so")
    assert [v["subdirectory"] for v in one["variants"]] == ["glibc-hwcaps/x86-64-v3", "glibc-hwcaps/x86-64-v2", "haswell"]
    os.unlink(yard("a/libone.so"))
    result = ours(yard("prog"))
    assert any("for some processors only" in note for note in result["notes"])


def test_what_only_a_variant_needs_is_told(yard):
    """The build for newer processors needs libextra.so, the one for all does not; neither does a v2 build."""
    yard.lib("a/libextra.so")
    yard.lib("a/libone.so")
    yard.lib("a/glibc-hwcaps/x86-64-v2/libone.so")
    yard.lib("a/glibc-hwcaps/x86-64-v3/libone.so", ["a/libextra.so"], flags=runpath(yard("a")))
    result = agree(yard.prog("prog", ["a/libone.so"], runpath(yard("a"))))
    assert [item["path"] for item in result["elsewhere"]] == [yard("a/libextra.so")]
    assert result["elsewhere"][0]["needed_by"] == yard("a/glibc-hwcaps/x86-64-v3/libone.so")
    os.unlink(yard("a/libextra.so"))
    note = next(note for note in agree(yard("prog"))["notes"] if "x86-64-v3" in note)
    assert "would not start: libextra.so not found" in note


def test_a_foreign_machine_is_passed_over_whatever_its_first_bytes_are(yard):
    """Big-endian, another ABI: what would be fatal of a file of this machine."""
    yard.lib("b/libone.so")
    yard.prog("prog", ["b/libone.so"], runpath(yard("a"), yard("b")))
    for offset, value in ((5, b"\x02"), (6, b"\x02"), (7, b"\x09"), (8, b"\x09"), (12, b"\x01"), (16, b"\x01\x00")):
        yard.lib("a/libone.so")
        poke(yard("a/libone.so"), 18, struct.pack("<H", 183))
        poke(yard("a/libone.so"), offset, value)
        agree(yard("prog"))
    yard.lib("a/libone.so")
    poke(yard("a/libone.so"), 18, struct.pack("<H", 183))
    poke(yard("a/libone.so"), 20, b"\x02")
    both_refuse(yard("prog"), "version does not match", "version does not match")


def test_legacy_tls_comes_first(yard):
    for folder in ("", "tls/", "x86_64/", "tls/x86_64/"):
        yard.lib(f"a/{folder}libone.so")
    yard.prog("prog", ["a/libone.so"], runpath(yard("a")))
    for folder in ("tls/x86_64", "tls", "x86_64"):
        assert listed(agree(yard("prog")))[0] == yard("a", folder, "libone.so")
        os.unlink(yard("a", folder, "libone.so"))
    agree(yard("prog"))


# ---- another root ---------------------------------------------------------------------------------------
def test_root_is_never_left(yard):
    root = make_root(yard)
    result = ours("/usr/bin/prog", root=root)
    assert listed(result) == ["/lib/x86_64-linux-gnu/libc.so.6", LOADER]
    assert result["objects"][1]["rule"] == "default directory"
    assert {"path": "/lib", "target": "usr/lib"} in result["objects"][1]["links"]
    chrooted = subprocess.run([LOADER, "--list", "/usr/bin/prog"], env={}, capture_output=True, text=True,
                              preexec_fn=lambda: os.chroot(root)) if os.geteuid() == 0 else None
    if chrooted:
        assert parse(chrooted.stdout) == listed(result), chrooted
    # The host has it, the root does not.
    os.unlink(root + "/usr/lib/x86_64-linux-gnu/libc.so.6")
    assert "libc.so.6 not found" in ours("/usr/bin/prog", root=root)["error"]
    # A link out of the root by way of ".." ends at the root.
    os.symlink("../../../../../../../../../lib/x86_64-linux-gnu/libc.so.6", root + "/opt/escape.so")
    assert "No such file" in ours("/opt/escape.so", root=root)["error"]
    os.unlink(root + "/usr/lib64/ld-linux-x86-64.so.2")
    assert "does not exist" in ours("/usr/bin/prog", root=root)["error"]


def test_stale_and_broken_cache(yard):
    root = make_root(yard)
    yard.folder("root/etc")
    yard.folder("root/srv/lib")
    yard.lib("root/srv/lib/libone.so")
    yard.prog("root/usr/bin/one", ["root/srv/lib/libone.so"])
    with open(root + "/etc/ld.so.conf", "w") as file:
        file.write("/srv/lib\n")
    subprocess.run(["/sbin/ldconfig", "-X", "-r", root], check=True)
    result = ours("/usr/bin/one", root=root)
    assert rule_of(result, "libone.so") == "ld.so.cache" and listed(result)[0] == "/srv/lib/libone.so"
    os.rename(root + "/srv/lib/libone.so", root + "/usr/lib/libone.so")
    result = ours("/usr/bin/one", root=root)
    assert listed(result)[0] == "/lib/libone.so" and any("stale" in note for note in result["notes"])
    with open(root + "/etc/ld.so.cache", "wb") as file:
        file.write(b"glibc-ld.so.cache1.1" + b"\xff" * 100)
    result = ours("/usr/bin/one", root=root)
    assert listed(result)[0] == "/lib/libone.so" and any("ld.so.cache" in note for note in result["notes"])
