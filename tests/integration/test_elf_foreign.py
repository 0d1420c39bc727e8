"""Roots of other architectures, from Debian's own packages: resolved to the last library, and nothing of them is run. The
oracle is a walk of DT_NEEDED by readelf, breadth first over the multiarch directories, which is all that Debian's programs
of these packages ask for."""
import json
import os
import pathlib
import re
import subprocess

import pytest

from jailtest import BIN
from packages import ARCHIVES

JAIL = BIN / "jail"
# architecture: multiarch tuple, EI_CLASS, EI_DATA, e_machine, the loader
FOREIGN = {
    "arm64": ("aarch64-linux-gnu", 2, 1, 183, "/lib/ld-linux-aarch64.so.1"),
    "armhf": ("arm-linux-gnueabihf", 1, 1, 40, "/lib/ld-linux-armhf.so.3"),
    "s390x": ("s390x-linux-gnu", 2, 2, 22, "/lib/ld64.so.1"),
}


@pytest.fixture(scope="module", params=FOREIGN)
def foreign(request, tmp_path_factory):
    """(architecture, root with its packages unpacked)."""
    root = tmp_path_factory.mktemp(request.param)
    for folder in ("bin", "sbin", "lib"):
        (root / "usr" / folder).mkdir(parents=True, exist_ok=True)
        (root / folder).symlink_to("usr/" + folder)
    archives = sorted((ARCHIVES / request.param).glob("*.deb"))
    assert archives, "contrib/install-deps test fetches them"
    for archive in archives:
        # By tar, which keeps the links that stand for directories.
        data = subprocess.run(["dpkg-deb", "--fsys-tarfile", archive], check=True, stdout=subprocess.PIPE).stdout
        subprocess.run(["tar", "-x", "--keep-directory-symlink", "-C", root], input=data, check=True)
    return request.param, root


def programs(root):
    for folder in ("usr/bin", "usr/sbin"):
        for path in sorted((root / folder).iterdir()):
            if path.is_file() and not path.is_symlink() and path.read_bytes()[:4] == b"\x7fELF":
                yield path


def needed(path):
    text = subprocess.run(["readelf", "-dW", path], check=True, capture_output=True, text=True).stdout
    return re.findall(r"\(NEEDED\).*\[(.*)\]", text)


def walk(root, program, architecture):
    """Names and paths as the loader would list them."""
    triplet, loader = FOREIGN[architecture][0], FOREIGN[architecture][4]
    names, paths, queue = {os.path.basename(loader)}, [], [(program, None)]
    for path, _ in queue:
        for name in needed(path):
            if name == os.path.basename(loader) and loader not in paths:
                paths.append(loader)
            if name in names:
                continue
            names.add(name)
            found = next(folder + "/" + name for folder in ("/lib/" + triplet, "/usr/lib/" + triplet, "/lib", "/usr/lib")
                         if (root / folder[1:] / name).exists())
            paths.append(found)
            queue.append((root / found[1:], name))
    return paths


def deps(root, *words, log=None):
    trace = ["strace", "-f", "-qq", "-e", "trace=execve,execveat,uselib", "-o", log] if log else []
    done = subprocess.run([*trace, JAIL, "--json", "--root", root, "deps", "--explain", *words], capture_output=True, text=True)
    return done, json.loads(done.stdout)["files"]


def test_every_program_is_resolved_and_none_is_run(foreign, tmp_path):
    architecture, root = foreign
    _, elf_class, data, machine, loader = FOREIGN[architecture]
    files = list(programs(root))
    assert len(files) > 20
    log = tmp_path / "strace"
    done, results = deps(root, *("/" + str(file.relative_to(root)) for file in files), log=log)
    assert done.returncode == 0, done.stderr
    assert len(log.read_text().splitlines()) == 1, "the start of jail itself, and no other"
    total = 0
    for file, result in zip(files, results):
        assert result["interpreter"] == loader, file
        listed = [item["path"] for item in result["objects"]][1:]
        # The order of the loader among the others is ld.so's own; it is one of the list.
        assert [path for path in listed if path != loader] == [path for path in walk(root, file, architecture) if path != loader]
        assert loader in listed
        for item in result["objects"]:
            head = (root / item["real"][1:]).read_bytes()[:20]
            order = "little" if data == 1 else "big"
            assert (head[4], head[5], int.from_bytes(head[18:20], order)) == (elf_class, data, machine), item
        total += len(listed)
    print(f"{architecture}: {len(files)} programs, {total} libraries")


def test_a_missing_library_tells_who_wants_it_and_where_it_was_looked_for(foreign):
    architecture, root = foreign
    triplet = FOREIGN[architecture][0]
    library = next((root / "usr/lib" / triplet).glob("libuv.so.1"))
    hidden = library.with_name("hidden")
    library.rename(hidden)
    try:
        done, results = deps(root, "/usr/sbin/named")
    finally:
        hidden.rename(library)
    assert done.returncode == 66
    error = results[0]["error"]
    assert "libuv.so.1 not found, needed by " in error and " <- /usr/sbin/named" in error
    for folder in ("/lib/" + triplet, "/usr/lib/" + triplet, "/lib", "/usr/lib"):
        assert folder + "/libuv.so.1 (no such file)" in error


def test_a_library_of_this_machine_is_not_taken(foreign):
    """The host's own libuv in the place of the foreign one: another machine's, and said so."""
    architecture, root = foreign
    library = next((root / "usr/lib" / FOREIGN[architecture][0]).glob("libuv.so.1"))
    hidden = library.with_name("hidden")
    library.rename(hidden)
    library.write_bytes(pathlib.Path("/lib/x86_64-linux-gnu/libc.so.6").read_bytes())
    try:
        done, results = deps(root, "/usr/sbin/named")
    finally:
        library.unlink()
        hidden.rename(library)
    words = "wrong ELF class" if FOREIGN[architecture][1] == 1 else "made for another machine"
    assert done.returncode == 66 and f"libuv.so.1 ({words})" in results[0]["error"]
