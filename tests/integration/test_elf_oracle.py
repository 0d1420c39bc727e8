"""The real loader as the oracle: every ELF program of this machine, as ordered lists of (path).

`ld.so --list` maps files and runs none of their code. It is run with an empty environment and without the
glibc-hwcaps of this machine's processor, which `jail deps` lists apart as variants.
"""
import collections
import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

JAIL = os.path.join(os.environ.get("JAIL_BIN", "build/release/bin"), "jail")
FOLDERS = ("/usr/bin", "/usr/sbin")
LOADERS = {1: "/lib/ld-linux.so.2", 2: "/lib64/ld-linux-x86-64.so.2"}


def elf_header(path):
    with open(path, "rb") as file:
        return file.read(20)


def programs():
    """(ELF programs of this machine's loaders, {reason: [left out]}). Links are followed: each file once."""
    chosen, left = {}, collections.defaultdict(list)
    for folder in FOLDERS:
        for name in sorted(os.listdir(folder)):
            path = os.path.join(folder, name)
            real = os.path.realpath(path)
            if not os.path.isfile(real):
                left["not a file (dangling link, directory)"].append(path)
                continue
            header = elf_header(real)
            if header[:4] != b"\x7fELF":
                left["not ELF (script, data)"].append(path)
            elif (header[4], header[18]) not in ((2, 62), (1, 3)):
                left["for another machine"].append(path)
            elif real in chosen:
                left["the same file under another name"].append(path)
            else:
                chosen[real] = header[4]
    return chosen, left


def real_list(path, elf_class):
    """What the loader says: (kind, [paths] or its words)."""
    command = [LOADERS[elf_class], "--glibc-hwcaps-mask", "none", "--list", path]
    done = subprocess.run(command, env={}, capture_output=True, text=True, timeout=60)
    if "statically linked" in done.stdout or "not a dynamic executable" in done.stdout + done.stderr:
        return "static", []
    if done.returncode != 0:
        return "error", (done.stdout + done.stderr).strip() or f"status {done.returncode}"
    paths = []
    for line in done.stdout.splitlines():
        words = line.strip().rsplit(" (0x", 1)[0]
        if "linux-vdso" in words or "linux-gate" in words:
            continue
        paths.append(words.split(" => ")[-1])
    return "list", paths


def our_lists(paths):
    start = time.monotonic()
    done = subprocess.run([JAIL, "--json", "deps", *paths], capture_output=True, text=True, timeout=300)
    elapsed = time.monotonic() - start
    return {file["file"]: file for file in json.loads(done.stdout)["files"]}, elapsed


def test_every_program_of_this_machine(capsys):
    chosen, left = programs()
    ours, elapsed = our_lists(list(chosen))
    with ThreadPoolExecutor(2) as pool:
        real = dict(zip(chosen, pool.map(lambda item: real_list(*item), chosen.items())))
    counts, wrong = collections.Counter(), []
    for path in chosen:
        kind, expected = real[path]
        mine = ours[path]
        if kind == "error":
            # The loader's own refusal, for example of a static-pie program: ours has to refuse it or call it static.
            counts["refused by ld.so"] += 1
            left[f"refused by ld.so: {expected.splitlines()[-1]}"].append(path)
            if "error" not in mine and not mine["static"]:
                wrong.append((path, "ld.so: " + expected, [item["path"] for item in mine["objects"]]))
        elif "error" in mine:
            wrong.append((path, expected, mine["error"]))
        else:
            counts[kind] += 1
            got = [item["path"] for item in mine["objects"]][1:]
            if got != expected:
                wrong.append((path, expected, got))
    with capsys.disabled():
        print(f"\n{len(chosen)} ELF programs: {dict(counts)}; all of them by one `jail deps` in {elapsed * 1000:.0f} ms")
        for reason, files in sorted(left.items()):
            shown = " ".join(files) if len(files) <= 12 else " ".join(files[:12]) + " ..."
            print(f"  {len(files):4} {reason}: {shown}")
    assert counts["list"] > 100, "hardly any program was compared: is the loader where it should be?"
    for path, expected, got in wrong[:5]:
        print(f"{path}\n  ld.so: {expected}\n  jail:  {got}")
    assert not wrong, f"{len(wrong)} of {len(chosen)} lists differ"


def test_a_wrong_list_would_be_noticed():
    """The oracle can fail: with one directory of the cache out of sight the lists differ."""
    kind, expected = real_list(os.path.realpath("/usr/bin/ls"), 2)
    ours, _ = our_lists([os.path.realpath("/usr/bin/ls")])
    got = [item["path"] for item in list(ours.values())[0]["objects"]][1:]
    assert kind == "list" and got == expected
    assert got[::-1] != expected
