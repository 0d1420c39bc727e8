"""jail lint and jail show, as a packager and an admin use them."""
import json
import os
import subprocess
import time

import pytest

from jailtest import BIN, REPO, least_manifest

JAIL = BIN / "jail"
LEAST = least_manifest("/usr/sbin/d", "u")

pytestmark = pytest.mark.skipif(not os.access(JAIL, os.X_OK), reason=f"{JAIL} is not built")


@pytest.fixture
def home(tmp_path):
    (tmp_path / "manifests").mkdir()
    return tmp_path


def jail(home, *args):
    environment = {"PATH": os.environ["PATH"], "JAIL_MANIFESTS": str(REPO / "manifests")}
    return subprocess.run([JAIL, "--home", str(home), *args], capture_output=True, text=True, timeout=30, env=environment)


def test_what_ships_is_silent(home):
    files = sorted(str(path) for path in (REPO / "manifests").glob("*.toml") if not path.stem.endswith("@"))
    assert files
    answer = jail(home, "lint", *files)
    assert (answer.returncode, answer.stdout, answer.stderr) == (0, "", "")


def test_every_problem_of_every_file(home):
    (home / "a.toml").write_text(LEAST.replace("[tree]\n", '[tree]\nlibary = ["x"]\n') + "umask = 18\n")
    (home / "b.toml").write_text(LEAST + "[sandbox]\nsyscalls = ['@defalt']\n")
    (home / "good.toml").write_text(LEAST)
    answer = jail(home, "lint", *(str(home / name) for name in ("a.toml", "good.toml", "b.toml")))
    assert answer.returncode == 65
    lines = answer.stdout.splitlines()
    assert lines[0] == f"{home}/a.toml:3:1: unknown key 'libary' in [tree]; did you mean 'libraries'?"
    assert lines[1].startswith(f"{home}/a.toml:9:9: service.umask: expected a mode")
    assert lines[2] == (f"{home}/b.toml:9:13: sandbox.syscalls[0]: there is no syscall group 'defalt'; "
                        "did you mean 'default'?")
    assert len(lines) == 3


def test_a_name_that_is_not_known(home):
    answer = jail(home, "lint", "nmaed")
    assert answer.returncode == 66
    assert "did you mean 'named'?" in answer.stderr
    assert f"{home}/manifests" in answer.stderr


def test_no_argument_is_a_usage_error(home):
    assert jail(home, "lint").returncode == 64


def test_show_has_the_origin_of_each_value(home):
    drop_in = home / "manifests" / "named.toml.d" / "10-local.toml"
    drop_in.parent.mkdir()
    drop_in.write_text("[sandbox]\ncapabilities = ['sys_resource']\n")
    answer = jail(home, "show", "named")
    assert answer.returncode == 0
    text = answer.stdout
    assert "# named.toml.d/10-local.toml:2" in text
    assert '"net_bind_service",' in text and "default" not in text.replace("@default", "")
    assert "umask" not in text
    assert 'umask = "0022"' in jail(home, "show", "-v", "named").stdout
    assert jail(home, "show", "--all", "named").stdout == jail(home, "show", "-v", "named").stdout
    shown = json.loads(jail(home, "show", "--json", "named").stdout)
    assert shown["sandbox"]["capabilities"] == ["net_bind_service", "sys_resource"]
    assert shown["origins"]["sandbox.capabilities[1]"] == "named.toml.d/10-local.toml:2:17"
    assert [source["path"] for source in shown["sources"]][1] == str(drop_in)


def test_show_prints_all_problems_and_where_the_files_are(home):
    (home / "manifests" / "d.toml").write_text("version = 2\nx = 1\n")
    answer = jail(home, "show", "d")
    assert answer.returncode == 65
    assert "d.toml:1:11: version 2 is not known" in answer.stderr and "d.toml:2:1: unknown key 'x'" in answer.stderr
    assert f"{home}/manifests/d.toml" in answer.stderr
    assert answer.stdout == ""


@pytest.mark.parametrize("content", [
    pytest.param(b"#" * (100 << 20), id="100 MB"),
    pytest.param(b"a = " + b"[" * 200000, id="deep arrays"),
    pytest.param(b"a" + b".a" * 100000 + b" = 1", id="deep keys"),
    pytest.param(b"version = 1\0\n", id="NUL"),
    pytest.param(b"a = [" + b"1," * 120000 + b"]", id="a huge array"),
    pytest.param(bytes(range(256)), id="bytes"),
])
def test_hostile_files_end_soon(home, content):
    path = home / "d.toml"
    path.write_bytes(content)
    began = time.monotonic()
    answer = jail(home, "lint", str(path))
    assert answer.returncode == 65
    assert len(answer.stdout.splitlines() + answer.stderr.splitlines()) < 110
    assert time.monotonic() - began < 10


def test_a_fifo_does_not_hang(home):
    os.mkfifo(home / "d.toml")
    assert jail(home, "lint", str(home / "d.toml")).returncode not in (0, -9)
