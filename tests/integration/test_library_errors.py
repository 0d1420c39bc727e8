"""What ld.so would stop at, plan and build stop at first: with the chain that leads there, and what was found on the way."""

import pathlib
import shutil
import subprocess
import tempfile

import pytest

from jailtest import Instance

MANIFEST = """version = 1
[tree]
binaries = ["{source}/program"]
users = ["nobody"]
[service]
command = ["{source}/program"]
user = "nobody"
"""
SYMBOLS = "{ global: inner; };\n"


def compiled(*words, text):
    subprocess.run(["gcc", "-x", "c", "-", *map(str, words)], input=text, text=True, check=True)


@pytest.fixture
def it():
    """program -> libouter.so -> libinner.so, each found by RUNPATH in the second of two directories."""
    with Instance() as made:
        # Not below /tmp, which a jail has for itself.
        made.source = source = pathlib.Path(tempfile.mkdtemp(prefix="jail-test.", dir="/opt"))
        source.chmod(0o755)
        for name in ("first", "second"):
            (source / name).mkdir()
        versions = source / "versions"
        versions.write_text(f"INNER_2 {SYMBOLS}")
        path = f"-Wl,-rpath,{source}/first:{source}/second"
        library = ("-shared", "-fPIC", path, f"-L{source}/second")
        compiled(*library, f"-Wl,--version-script={versions}", "-o", source / "second/libinner.so", text="int inner(void) { return 0; }\n")
        compiled(*library, "-o", source / "second/libouter.so", "-linner", text="int inner(void);\nint outer(void) { return inner(); }\n")
        compiled("-o", source / "program", path, f"-L{source}/second", "-louter", f"-Wl,-rpath-link,{source}/second", text="int outer(void);\nint main(void) { return outer(); }\n")
        made.manifest("errors", MANIFEST.format(source=source))
        made.run("build", "errors")
        yield made
        shutil.rmtree(source)


def no_library(source):
    (source / "second/libinner.so").unlink()
    return ["libinner.so", "first/libinner.so", "second/libinner.so"]


def wrong_class(source):
    (source / "second/libinner.so").unlink()
    compiled("-m32", "-nostdlib", "-shared", "-fPIC", "-o", source / "second/libinner.so", text="int inner(void) { return 0; }\n")
    return ["second/libinner.so", "class"]


def junk_earlier(source):
    (source / "first/libinner.so").write_text("INPUT(libinner.so.1)\n" * 10)
    return ["first/libinner.so", "invalid ELF header"]


def old_version(source):
    versions = source / "versions"
    versions.write_text(f"INNER_1 {SYMBOLS}")
    compiled("-shared", "-fPIC", f"-Wl,--version-script={versions}", "-o", source / "second/libinner.so", text="int inner(void) { return 0; }\n")
    return ["second/libinner.so", "INNER_2"]


@pytest.mark.parametrize("spoil", [no_library, wrong_class, junk_earlier, old_version], ids=lambda spoil: spoil.__name__)
def test_the_chain_and_what_was_found_are_told_and_the_old_generation_stays(it, spoil):
    expected = spoil(it.source)
    real = subprocess.run([it.source / "program"], capture_output=True, text=True)
    assert real.returncode != 0, "the real loader stops, too"
    for words in (("plan", "errors"), ("build", "errors"), ("deps", it.source / "program")):
        told = it.run(*words, status=None)
        assert told.returncode in (65, 66), told.stdout + told.stderr
        for text in (*expected, "libouter.so", "program"):
            assert text in told.stderr, (words[0], text, told.stderr)
    assert "errors.toml" in it.run("build", "errors", status=None).stderr
    assert (it.home / "state/jails/errors/current").readlink().name == "000001"
    it.run("verify", "errors")


def test_a_library_without_versions_will_do_and_is_told(it):
    text = "#include <unistd.h>\nint inner(void) { return getpid() < 0; }\n"  # versions of libc's, none of its own
    compiled("-shared", "-fPIC", "-o", it.source / "second/libinner.so", text=text)
    real = subprocess.run([it.source / "program"], capture_output=True, text=True)
    assert real.returncode == 0 and "no version information available" in real.stderr
    told = it.run("build", "errors").stderr
    assert "libinner.so" in told and "no version information" in told, told
