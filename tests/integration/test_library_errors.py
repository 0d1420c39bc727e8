"""What ld.so would stop at, plan and build stop at first: with the chain that leads there, and what was found on the way."""

import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

from elfyard import Yard, runpath
from jailtest import Instance, least_manifest

INNER = "int inner(void) { return 0; }\n"


def add_inner(yard, version):
    pathlib.Path(yard("versions")).write_text(version + " { global: inner; };\n")
    yard.lib("second/libinner.so", flags=["-Wl,--version-script=" + yard("versions")], code=INNER)


@pytest.fixture
def yard():
    """Not below /tmp, which a jail has for itself."""
    place = Yard(tempfile.mkdtemp(prefix="jail-test.", dir="/opt"))
    os.chmod(place.path, 0o755)
    yield place
    shutil.rmtree(place.path)


@pytest.fixture
def it(yard):
    """program -> libouter.so -> libinner.so, each found by RUNPATH in the second of two directories."""
    path = runpath(yard.folder("first"), yard("second"))
    add_inner(yard, "INNER_2")
    yard.lib("second/libouter.so", ["second/libinner.so"], flags=path, code="int inner(void);\nint outer(void) { return inner(); }\n")
    yard.prog("program", ["second/libouter.so"], path, code="int outer(void);\nint main(void) { return outer(); }\n")
    with Instance() as made:
        made.manifest("errors", least_manifest(yard("program")))
        made.run("build", "errors")
        yield made


def no_library(yard):
    os.unlink(yard("second/libinner.so"))
    return ["libinner.so", "first/libinner.so", "second/libinner.so"]


def wrong_class(yard):
    yard.lib("second/libinner.so", flags=["-m32", "-nostdlib"], code=INNER)
    return ["second/libinner.so", "class"]


def junk_earlier(yard):
    pathlib.Path(yard("first/libinner.so")).write_text("INPUT(libinner.so.1)\n" * 10)
    return ["first/libinner.so", "invalid ELF header"]


def old_version(yard):
    add_inner(yard, "INNER_1")
    return ["second/libinner.so", "INNER_2"]


@pytest.mark.parametrize("spoil", [no_library, wrong_class, junk_earlier, old_version], ids=lambda spoil: spoil.__name__)
def test_the_chain_and_what_was_found_are_told_and_the_old_generation_stays(it, yard, spoil):
    expected = spoil(yard)
    real = subprocess.run([yard("program")], capture_output=True, text=True)
    assert real.returncode != 0, "the real loader stops, too"
    for words in (("plan", "errors"), ("build", "errors"), ("deps", yard("program"))):
        told = it.run(*words, status=None)
        assert told.returncode in (65, 66), told.stdout + told.stderr
        for text in (*expected, "libouter.so", "program"):
            assert text in told.stderr, (words[0], text, told.stderr)
    assert "errors.toml" in it.run("build", "errors", status=None).stderr
    assert (it.home / "state/jails/errors/current").readlink().name == "000001"
    it.run("verify", "errors")


def test_a_library_without_versions_will_do_and_is_told(it, yard):
    text = "#include <unistd.h>\nint inner(void) { return getpid() < 0; }\n"  # versions of libc's, none of its own
    yard.lib("second/libinner.so", code=text)
    real = subprocess.run([yard("program")], capture_output=True, text=True)
    assert real.returncode == 0 and "no version information available" in real.stderr
    told = it.run("build", "errors").stderr
    assert "libinner.so" in told and "no version information" in told, told
