"""What a finished tree would load is what the host loads: the build asks, before the generation counts."""

import pathlib
import shutil
import subprocess
import tempfile

import pytest

from jailtest import Instance

MANIFEST = """version = 1
[tree]
binaries = ["/usr/bin/true"]
users = ["nobody"]
files = [{{ from = "{source}/program", to = "{to}" }}, {{ from = "{source}/lib", to = "{source}/lib" }}]
[service]
command = ["/usr/bin/true"]
user = "nobody"
"""


@pytest.fixture
def it():
    with Instance() as made:
        # Not below /tmp, which a jail has for itself.
        made.source = source = pathlib.Path(tempfile.mkdtemp(prefix="jail-test.", dir="/opt"))
        source.chmod(0o755)
        (source / "lib").mkdir()
        run = lambda *words, text: subprocess.run(["gcc", "-x", "c", "-", *map(str, words)], input=text, text=True, check=True)
        run("-shared", "-fPIC", "-o", source / "lib/libanswer.so", text="int answer(void) { return 0; }\n")
        run("-o", source / "program", f"-L{source}/lib", "-lanswer", "-Wl,-rpath,$ORIGIN/lib", text="int answer(void);\nint main(void) { return answer(); }\n")
        yield made
        shutil.rmtree(source)


def build(it, to, status):
    it.manifest("closures", MANIFEST.format(source=it.source, to=to or it.source / "program"))
    return it.run("build", "closures", status=status)


def test_a_program_that_finds_its_libraries_as_on_the_host_is_built(it):
    build(it, None, 0)


def test_a_program_that_would_lose_its_origin_is_refused_and_the_old_generation_stays(it):
    build(it, None, 0)
    told = build(it, "/usr/bin/program", 65).stderr
    assert "in the finished tree" in told and "libanswer.so" in told, told
    assert (it.home / "state/jails/closures/current").readlink().name == "000001"
    it.run("verify", "closures")
    assert not [path for path in (it.home / "state/jails/closures/gen").iterdir() if path.name.startswith(".")]
    plain = it.run("build", "closures", "--into", it.home / "plain", status=65).stderr
    assert "in the finished tree" in plain
    assert not (it.home / "plain").exists()
