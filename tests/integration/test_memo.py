"""What a build has by heart from the one before is what it would have found out by itself."""

import random
import subprocess

import pytest

from witnesshouse import SOURCES, current, edit, it

CHANGES = {name: change for name, change in SOURCES.items() if "masked" not in name}
FROZEN = ("jail.lock", "filter.bpf", "launch.json", "manifest.json")


def memo(it):
    return it.home / "state/store/memo-witness"


def result(it, *words):
    it.run("build", *words, "witness")
    return {name: (current(it) / name).read_bytes() for name in FROZEN}


def reads(it, name, *words):
    """Whether a build opens a file of this name in order to read it, as the kernel saw it."""
    log = it.home / "strace.log"
    subprocess.run(["strace", "-f", "-e", "trace=openat,openat2", "-o", log, *it.command("build", *words, "witness")], check=True, stdout=subprocess.DEVNULL)
    return any(f'{name}"' in line and "O_PATH" not in line for line in log.read_text().splitlines())


def add_text(it, text):
    it.drop_in("witness", f'[[tree.files]]\nto = "/etc/more"\ntext = "{text}"\n')


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_comes_out_as_without(it, change):
    CHANGES[change](it)
    with_memo = result(it)
    memo(it).unlink()
    assert with_memo == result(it, "--force")


def test_one_change_after_the_other_comes_out_as_without(it):
    """What is by heart was put together by several builds: new questions, and old ones again."""
    for name, text in {
        "a library more": 'libraries = ["libm.so.6"]\n',
        "a program more": 'libraries = ["libm.so.6"]\nbinaries = ["/bin/busybox"]\n',
        "neither": "",
        "a program again": 'binaries = ["/bin/busybox"]\n',
    }.items():
        it.drop_in("witness", "[tree]\n" + text)
        with_memo = result(it)
        kept = memo(it).read_bytes()
        memo(it).unlink()
        assert with_memo == result(it, "--force"), name
        memo(it).write_bytes(kept)


def test_what_has_nothing_to_do_with_libraries_reads_none(it):
    add_text(it, "one")
    assert not reads(it, "libc.so.6")
    memo(it).unlink()
    add_text(it, "two")
    assert reads(it, "libc.so.6")


def test_other_system_calls_are_another_filter(it):
    before = result(it)["filter.bpf"]
    edit(it.home / "manifests/syscalls/own.toml", "getpid", "acct")
    other = result(it)["filter.bpf"]
    assert other != before
    edit(it.home / "manifests/syscalls/own.toml", "acct", "getpid")
    assert result(it)["filter.bpf"] == before


@pytest.mark.parametrize("seed", range(12))
def test_one_that_is_damaged_is_none(it, seed):
    pick = random.Random(seed)
    bytes_ = bytearray(memo(it).read_bytes())
    at = pick.randrange(len(bytes_))
    if seed % 3:
        bytes_[at] ^= 1 << pick.randrange(8)
    else:
        del bytes_[at:]
    memo(it).write_bytes(bytes_)
    add_text(it, "x")
    with_damage = result(it)
    memo(it).unlink()
    assert with_damage == result(it, "--force")


def test_a_force_believes_none(it):
    assert not reads(it, "libc.so.6")
    assert reads(it, "libc.so.6", "--force")


def test_it_goes_with_its_jail(it):
    assert memo(it).is_file()
    it.run("remove", "witness")
    assert not memo(it).exists()
