"""A small jail that has been built until its witness was believed, and what can be changed of what it was made from."""

import os
import shutil
import subprocess
import time

import pytest

from jailtest import Instance

MANIFEST = """version = 1
[tree]
include = ["small"]
binaries = ["{home}/source/program"]
users = ["nobody"]
files = [{{ from = "{home}/source/link", to = "/etc/linked" }}, {{ from = "{home}/source/data", to = "/usr/share/data" }}]
[[volume]]
name = "witness-data"
path = "/var/lib/data"
owner = "nobody"
mode = "0750"
[service]
command = ["{home}/source/program"]
user = "nobody"
[sandbox]
syscalls = ["@default", "@own"]
"""
SOURCE = "int answer(void);\nint main(void) { return answer(); }\n"


def compiled(home):
    """A program whose library is found in the second directory of its RUNPATH."""
    source = home / "source"
    for folder in ("data", "first", "second"):
        (source / folder).mkdir(parents=True)
    (source / "data/one").write_text("one")
    (source / "target").write_text("target")
    (source / "other").write_text("other!")
    (source / "link").symlink_to("target")
    run = lambda *words, text: subprocess.run(["gcc", "-x", "c", "-", *map(str, words)], input=text, text=True, check=True)
    run("-shared", "-fPIC", "-o", source / "second/libanswer.so", text="int answer(void) { return 0; }\n")
    run("-o", source / "program", f"-L{source}/second", "-lanswer", f"-Wl,-rpath,{source}/first:{source}/second", text=SOURCE)


@pytest.fixture
def it():
    with Instance() as made:
        compiled(made.home)
        made.manifest("witness", MANIFEST.format(home=made.home))
        for kind, text in (("bundles/small", 'files = [{ to = "/etc/small", text = "small" }]'), ("syscalls/own", 'calls = ["getpid"]')):
            file = made.home / f"manifests/{kind}.toml"
            file.parent.mkdir()
            file.write_text(f'version = 1\ndescription = "of the test"\n{text}\n')
        settle(made)
        yield made


def built(it, *words):
    return it.run("build", "-v", "witness", *words).stdout


def settle(it):
    """Until the witness is there and believed: the first build changes, the second looks and testifies."""
    it.run("build", "witness")
    time.sleep(0.05)  # the clock of file times has to move on
    built(it)
    assert "as its witness says" in built(it)


def current(it):
    return (it.home / "state/jails/witness/current").resolve()


def rewrite(path, bytes_):
    """Other bytes; size and mtime as they were."""
    before = path.stat()
    assert len(bytes_) == before.st_size
    with open(path, "r+b") as file:
        file.write(bytes_)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_link(link, target):
    link.unlink()
    link.symlink_to(target)


def edit(path, old, new):
    path.write_text(path.read_text().replace(old, new))


def replace_with_link(path, target):
    path.symlink_to(target)


SOURCES = {
    "the manifest": lambda it: edit(it.home / "manifests/witness.toml", '"0750"', '"0750"\nfiles = ["x"]'),
    "a drop-in": lambda it: it.drop_in("witness", '[[tree.files]]\nto = "/etc/more"\ntext = "more"\n'),
    "a bundle": lambda it: edit(it.home / "manifests/bundles/small.toml", '"small" }', '"large" }'),
    "a syscall group": lambda it: edit(it.home / "manifests/syscalls/own.toml", "getpid", "acct"),
    "a bundle that is masked": lambda it: replace_link(it.home / "manifests/bundles/small.toml", "/dev/null"),
    "bytes of a source, nothing else": lambda it: rewrite(it.home / "source/data/one", b"two"),
    "a new file in a copied directory": lambda it: (it.home / "source/data/two").write_text("two"),
    "a file gone from it": lambda it: (it.home / "source/data/one").unlink(),
    "the mode of a source": lambda it: (it.home / "source/data/one").chmod(0o600),
    "where a link leads": lambda it: replace_link(it.home / "source/link", "other"),
    "a link in place of a directory on the way": lambda it: ((it.home / "source").rename(it.home / "moved"), shutil.copytree(it.home / "moved", it.home / "elsewhere", symlinks=True), rewrite(it.home / "elsewhere/data/one", b"six"), replace_with_link(it.home / "source", "elsewhere")),
    "a library that is found earlier": lambda it: shutil.copy(it.home / "source/second/libanswer.so", it.home / "source/first"),
}
