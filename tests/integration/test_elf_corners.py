"""Corners of the loader's rules, each as the real loader or the kernel has it: files that are no programs, audit libraries,
libraries for processors that nobody has, and what a set-user-ID program may not ask for."""
import os
import resource
import shutil
import struct
import subprocess

import pytest

from elfyard import agree, both_refuse, headers, ours, poke, rpath, runpath, yard
from jailtest import Instance, least_manifest

ISA_NEEDED = struct.pack("<II", 0xC0008002, 4)  # GNU_PROPERTY_X86_ISA_1_NEEDED and its size
AUDITOR = '#include <unistd.h>\nunsigned la_version(unsigned v) { write(2, "audited\\n", 8); return v; }'




# ---- files that are no programs -------------------------------------------------------------------------
def kernel_module(yard):
    """As kbuild makes one: an object without program headers, with .modinfo and the section of its `struct module`."""
    code = """
        __attribute__((section(".modinfo"), used)) static const char license[] = "license=GPL";
        __attribute__((section(".gnu.linkonce.this_module"), used)) static char module[64] = "corner";
        int init_module(void) { return 0; }"""
    words = ["gcc", "-ffreestanding", "-mcmodel=kernel", "-fno-pic", "-mno-red-zone", "-c", "-x", "c", "-", "-o", yard("corner.o")]
    subprocess.run(words, input=code, text=True, check=True)
    subprocess.run(["ld", "-r", "-o", yard("corner.ko"), yard("corner.o")], check=True)
    return yard("corner.ko")


def core_file(yard):
    """What the kernel leaves of a program that aborts; where it gives cores to a program of the host, a file that says it
    is one."""
    path = yard.prog("aborts", code="#include <stdlib.h>\nint main(void){abort();}")
    limit = (resource.RLIM_INFINITY,) * 2
    done = subprocess.run([path], cwd=yard.folder("dump"), preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, limit))
    assert done.returncode == -6
    cores = os.listdir(yard("dump"))
    if cores:
        return yard("dump", cores[0])
    poke(path, 16, struct.pack("<H", 4))
    return path


@pytest.mark.parametrize("make, kind", [(kernel_module, "kernel module (ET_REL)"), (core_file, "a core file (ET_CORE)")])
def test_what_is_no_program_is_refused_for_what_it_is(yard, make, kind):
    path = make(yard)
    both_refuse(path, "only ET_DYN and ET_EXEC can be loaded", kind)
    # In the place of a library it is fatal, though a good one comes later; the chain tells who wanted it.
    yard.lib("b/libone.so")
    yard.lib("b/libtwo.so", ["b/libone.so"], flags=runpath(yard("a"), yard("b")))
    yard.prog("prog", ["b/libtwo.so"], runpath(yard("b")))
    agree(yard("prog"))
    shutil.copy(path, yard.folder("a") + "/libone.so")
    result = both_refuse(yard("prog"), "only ET_DYN and ET_EXEC can be loaded", kind)
    assert f"needed by {yard('b/libtwo.so')} <- {yard('prog')}" in result["error"]


# ---- audit libraries ------------------------------------------------------------------------------------
def auditors(*names):
    return ["-Wl,--audit," + ":".join(names)]


def started(path):
    done = subprocess.run([path], env={}, capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("paths, name, found", [
    (rpath, "libauditor.so", True),
    (runpath, "libauditor.so", True),
    (None, "$ORIGIN/a/libauditor.so", True),
    (None, "libauditor.so", False),
    (None, "$LIB/none.so", False),
])
def test_audit_libraries_are_searched_as_the_loader_does(yard, paths, name, found):
    yard.lib("a/libauditor.so", code=AUDITOR)
    yard.prog("prog", flags=[*auditors(name), *(paths(yard("a")) if paths else [])])
    words = started(yard("prog"))
    assert ("audited" in words, "cannot be loaded as audit interface" in words) == (found, not found)
    answer = agree(yard("prog"))
    notes = answer["notes"]
    assert [item["path"].endswith("a/libauditor.so") for item in answer["audit"]] == [True] * found
    if found:
        assert any("a/libauditor.so': ld.so loads it and runs its code" in note for note in notes)
    else:
        assert any(f"its audit library '{name}' cannot be loaded" in note for note in notes)


def test_of_two_lists_of_auditors_each_counts_and_what_is_missing_stops_nothing(yard):
    yard.lib("a/libauditor.so", code=AUDITOR)
    yard.lib("a/libneeds.so", ["a/libauditor.so"], code=AUDITOR)
    yard.prog("prog", flags=[*auditors("libmissing.so", yard("a/libauditor.so")), "-Wl,-P," + yard("a/libneeds.so")])
    words = started(yard("prog"))
    assert words.count("audited") == 1 and "'libmissing.so' cannot be loaded" in words and "libneeds.so' cannot be" in words
    told = "\n".join(agree(yard("prog"))["notes"])
    assert "'libmissing.so' cannot be loaded" in told
    assert f"libauditor.so not found, needed by {yard('a/libneeds.so')} <- {yard('prog')}" in told
    assert f"{yard('a/libauditor.so')}': ld.so loads it" in told


def test_a_library_that_asks_for_an_auditor_gets_none(yard):
    yard.lib("a/libauditor.so", code=AUDITOR)
    yard.lib("a/libone.so", flags=auditors(yard("a/libauditor.so")))
    yard.lib("stubs/libone.so")  # ld would make the auditor the program's
    yard.prog("prog", ["stubs/libone.so"], runpath(yard("a")))
    assert started(yard("prog")) == ""
    assert agree(yard("prog"))["notes"] == [] == ours(yard("a/libone.so"))["notes"]


def test_the_tree_has_the_auditors_of_its_programs_and_what_these_need(yard):
    yard.lib("a/libhelp.so", code='#include <unistd.h>\nvoid help(void) { write(2, "helped\\n", 7); }')
    code = AUDITOR.replace("unsigned la", "void help(void);\nunsigned la").replace("return v", "help(); return v")
    yard.lib("a/libauditor.so", ["a/libhelp.so"], flags=runpath("$ORIGIN"), code=code)
    yard.prog("prog", flags=auditors(yard("a/libauditor.so")))
    assert started(yard("prog")) == "audited\nhelped\n"
    with Instance() as jail:
        jail.manifest("x", least_manifest(yard("prog")))
        told = jail.run("build", "x").stderr
        assert "libauditor.so': ld.so loads it and runs its code" in told
        done = subprocess.run(["/usr/sbin/chroot", jail.tree("x"), yard("prog")], env={}, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "audited\nhelped\n")
        assert "libauditor.so" in jail.run("why", "x", "libhelp.so").stdout


# ---- processors -----------------------------------------------------------------------------------------
def mark_isa(path, bits):
    with open(path, "rb") as file:
        at = file.read().index(ISA_NEEDED)
    poke(path, at + 8, struct.pack("<I", bits))


def level(number):
    return ["-Wl,-z,x86-64-v" + str(number)]


def test_a_library_for_a_processor_that_nobody_has_is_fatal(yard):
    yard.lib("a/libdep.so", flags=level(4))
    yard.lib("a/libone.so", ["a/libdep.so"], flags=runpath("$ORIGIN"))
    yard.prog("prog", ["a/libone.so"], runpath(yard("a")))
    mark_isa(yard("a/libdep.so"), 1 << 8)
    # --list ends before the processor is asked: the start of the program is the oracle.
    done = subprocess.run([yard("prog")], env={}, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (127, yard("a/libdep.so") + ": CPU ISA level is lower than required\n")
    error = ours(yard("prog"))["error"]
    assert "CPU ISA level is lower than required: it is for x86-64-v9" in error
    assert f"({yard('a/libdep.so')} <- {yard('a/libone.so')} <- {yard('prog')})" in error
    mark_isa(yard("a/libdep.so"), 1)
    assert started(yard("prog")) == "" and agree(yard("prog"))["notes"] == []


def test_a_library_for_some_processors_is_told_with_its_level(yard):
    for number in (2, 3, 4):
        yard.lib(f"a/libv{number}.so", flags=level(number))
    yard.prog("prog", ["a/libv2.so", "a/libv4.so", "a/libv3.so"], runpath(yard("a")))
    note, = agree(yard("prog"))["notes"]
    assert f"'{yard('a/libv4.so')}' is for processors with x86-64-v4 ({yard('a/libv4.so')} <- {yard('prog')})" in note
    yard.prog("own", flags=level(3))
    note, = agree(yard("own"))["notes"]
    assert f"'{yard('own')}' is for processors with x86-64-v3" in note


def test_a_variant_that_asks_for_more_than_its_directory_says(yard):
    """On processors of that directory's level, and no more, ld.so takes it and stops."""
    yard.lib("a/libone.so")
    yard.lib("a/glibc-hwcaps/x86-64-v2/libone.so", flags=level(2))
    yard.prog("prog", ["a/libone.so"], runpath(yard("a")))
    assert agree(yard("prog"))["notes"] == []
    mark_isa(yard("a/glibc-hwcaps/x86-64-v2/libone.so"), 1 << 8)
    done = subprocess.run([yard("prog")], env={"GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2_Usable"}, capture_output=True, text=True)
    assert "x86-64-v2/libone.so: CPU ISA level is lower than required" in done.stderr
    note, = agree(yard("prog"))["notes"]
    assert note.startswith("on processors with x86-64-v2 it would not start: ") and "lower than required" in note


def test_notes_that_the_loader_does_not_read_count_for_nothing(yard):
    """Of two notes with properties in one segment it takes none, nor one in a segment whose alignment is not a word's."""
    def with_note(align):
        note = '.long 4, 16, 5\\n.asciz \\"GNU\\"\\n.long 0xc0008002, 4, 0x100, 0\\n'
        code = f'.pushsection .note.levels,\\"a\\",@note\\n.balign {align}\\n{note}.popsection\\n'
        yard.lib("a/libone.so", code=f'__asm__("{code}");')  # ld makes a .note.gnu.property of it beside it
        return is_fatal()

    def is_fatal():
        done = subprocess.run([yard("prog")], env={}, capture_output=True, text=True)
        error = ours(yard("prog")).get("error", "")
        assert ("lower than required" in error) == ("lower than required" in done.stderr) == (done.returncode != 0)
        return done.returncode != 0

    yard.lib("a/libone.so")
    yard.prog("prog", ["a/libone.so"], runpath(yard("a")))
    assert not with_note(align=8)
    assert with_note(align=4)
    for at, kind, *_ in headers(yard("a/libone.so")):
        if kind == 4:  # PT_NOTE
            poke(yard("a/libone.so"), at + 48, struct.pack("<Q", 4))
    assert not is_fatal()


# ---- set-user-ID ----------------------------------------------------------------------------------------
NOBODY = 65534


@pytest.fixture
def open_yard(yard):
    """For others than root: every directory on the way to it."""
    path = yard.path
    while path != "/tmp":
        os.chmod(path, 0o755)
        path = os.path.dirname(path)
    return yard


def set_id(path, mode=0o4755):
    os.chmod(path, mode)
    return path


def started_by_nobody(path):
    done = subprocess.run([path], env={}, capture_output=True, text=True, user=NOBODY, group=NOBODY, extra_groups=[], cwd="/")
    return done.returncode, done.stderr


def secure_notes(path):
    return [note for note in ours(path)["notes"] if "set-user-ID" in note]


@pytest.mark.parametrize("mode", [0o4755, 0o2755])
@pytest.mark.parametrize("tag", [rpath, runpath])
def test_origin_of_a_set_id_program_is_dropped_for_others(open_yard, tag, mode):
    yard = open_yard
    yard.lib("lib/libone.so")
    yard.prog("bin/prog", ["lib/libone.so"], tag("$ORIGIN/../lib"))
    assert started_by_nobody(yard("bin/prog")) == (0, "") and secure_notes(yard("bin/prog")) == []
    set_id(yard("bin/prog"), mode)
    status, words = started_by_nobody(yard("bin/prog"))
    assert status == 127 and "libone.so: cannot open shared object file" in words
    # Root gains nothing by root's set-user-ID program: for the list that root gets $ORIGIN counts.
    agree(yard("bin/prog"))
    note, = secure_notes(yard("bin/prog"))
    assert f"'{yard('bin/prog')}' is set-user-ID or set-group-ID: for a user who gains by that it would not start" in note
    assert f"libone.so not found, needed by {yard('bin/prog')}" in note


def test_a_fixed_path_counts_for_set_id_programs_too(open_yard):
    yard = open_yard
    yard.lib("lib/libone.so")
    set_id(yard.prog("bin/prog", ["lib/libone.so"], runpath(yard("lib"))))
    assert started_by_nobody(yard("bin/prog")) == (0, "") and secure_notes(yard("bin/prog")) == []


def test_origin_counts_where_it_leads_below_a_default_directory(open_yard):
    """The trust is in the path, and only where $ORIGIN is its first component."""
    yard = open_yard
    trusted = "/usr/lib/x86_64-linux-gnu/jail-corner"
    os.makedirs(trusted + "/bin")
    try:
        yard.lib("lib/libone.so")
        shutil.copy(yard("lib/libone.so"), trusted)
        for number, (path, counts) in enumerate([("$ORIGIN/..", True), ("$ORIGIN/../../jail-corner/./bin/..", True),
                                                 ("/./$ORIGIN/..", False),
                                                 ("$ORIGIN/../../../../.." + yard("lib"), False)]):
            program = f"{trusted}/bin/prog{number}"
            shutil.copy(yard.prog("prog", ["lib/libone.so"], runpath(path)), program)
            set_id(program)
            status, words = started_by_nobody(program)
            assert (status == 0) == counts, (path, words)
            assert (secure_notes(program) == []) == counts, path
    finally:
        shutil.rmtree(trusted)


def test_a_library_of_a_set_id_program_may_use_its_origin(open_yard):
    """Who may write there may write the library itself; a name with a token, though, ends the program."""
    yard = open_yard
    yard.lib("a/deep/libdep.so")
    yard.lib("a/libone.so", ["a/deep/libdep.so"], flags=runpath("$ORIGIN/deep"))
    set_id(yard.prog("prog", ["a/libone.so"], runpath(yard("a"))))
    assert started_by_nobody(yard("prog")) == (0, "") and secure_notes(yard("prog")) == []
    yard.lib("a/libtoken.so", soname="$ORIGIN/a/libtoken.so")
    set_id(yard.prog("token", ["a/libtoken.so"]))
    status, words = started_by_nobody(yard("token"))
    assert status == 127 and "DST not allowed in SUID/SGID programs" in words
    note, = secure_notes(yard("token"))
    assert f"DST not allowed in SUID/SGID programs (needed by {yard('token')})" in note


def test_another_library_for_set_id_programs_is_told(open_yard):
    yard = open_yard
    yard.lib("lib/libone.so")
    yard.lib("other/libone.so")
    set_id(yard.prog("bin/prog", ["lib/libone.so"], runpath("$ORIGIN/../lib", yard("other"))))
    assert started_by_nobody(yard("bin/prog")) == (0, "")
    note, = secure_notes(yard("bin/prog"))
    assert f"would load '{yard('other/libone.so')}' where it loads '{yard('bin/../lib/libone.so')}' for others" in note


def test_the_copy_in_a_tree_is_not_set_id_and_told_nothing_of(open_yard):
    yard = open_yard
    yard.lib("lib/libone.so")
    set_id(yard.prog("bin/prog", ["lib/libone.so"], runpath("$ORIGIN/../lib")))
    with Instance() as jail:
        jail.manifest("x", least_manifest(yard("bin/prog")))
        assert "set-user-ID" not in jail.run("plan", "x").stderr
