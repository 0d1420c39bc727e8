#!/usr/bin/python3
"""Our commands against the peers', in pairs: A B A B ..., medians of times and of the ratios pair by pair, so that a
machine whose speed drifts drifts for both. Root. Peers that are not installed are left out by name.

    tests/bench/bench.py [--bin DIR] [--runs N] [NAME...]

Prints a table for the README. Nothing is asserted here: a noisy machine must not fail a build.
"""

import argparse
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

REPO = pathlib.Path(__file__).resolve().parent.parent.parent


def timed(command, prepare=None):
    if prepare:
        prepare()
    begin = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return time.perf_counter() - begin


def pair(ours, theirs, runs, prepare_ours=None, prepare_theirs=None):
    timed(ours, prepare_ours), timed(theirs, prepare_theirs)
    a, b = [], []
    for _ in range(runs):
        a.append(timed(ours, prepare_ours))
        b.append(timed(theirs, prepare_theirs))
    return statistics.median(a), statistics.median(b), statistics.median(x / y for x, y in zip(a, b))


def elf_files():
    found = []
    for folder in ("/usr/bin", "/usr/sbin"):
        for path in sorted(pathlib.Path(folder).iterdir()):
            if path.is_file() and not path.is_symlink():
                with open(path, "rb") as file:
                    if file.read(4) == b"\x7fELF":
                        found.append(str(path))
    return found


class Bench:
    def __init__(self, options):
        self.bin = pathlib.Path(options.bin)
        self.runs = options.runs
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="jail-bench."))

    def jail(self, *words):
        return [str(self.bin / "jail"), "--home", str(self.work / "home"), "--manifests", str(REPO / "manifests"), *words]

    def jk_init(self):
        """jailkit's tree of named: the same binary and its libraries."""
        config = self.work / "jk.ini"
        config.write_text("[named]\npaths = /usr/sbin/named\n")
        return ["jk_init", "-c", str(config), "-j", str(self.work / "jk"), "named"]

    def wipe(self, name):
        return lambda: shutil.rmtree(self.work / name, ignore_errors=True)

    def resolve(self):
        files = elf_files()
        return "resolve every ELF of /usr/bin and /usr/sbin", "libtree", pair(
            [str(self.bin / "jail"), "deps", *files], ["libtree", "-vvv", *files], self.runs
        )

    def first_build(self):
        return "first build of named", "jk_init", pair(
            self.jail("build", "named"), self.jk_init(), self.runs, self.wipe("home"), self.wipe("jk")
        )

    def warm_build(self):
        subprocess.run(self.jail("build", "named"), check=True, stdout=subprocess.DEVNULL)
        return "rebuild of named into a new generation", "jk_init", pair(
            self.jail("build", "--force", "named"), self.jk_init(), self.runs, None, self.wipe("jk")
        )

    def no_change(self):
        subprocess.run(self.jail("build", "named"), check=True, stdout=subprocess.DEVNULL)
        return "build when nothing changed", "jk_init", pair(
            self.jail("build", "named"), self.jk_init(), self.runs, None, self.wipe("jk")
        )

    def verify(self):
        subprocess.run(self.jail("build", "named"), check=True, stdout=subprocess.DEVNULL)
        tree = self.work / "home/state/jails/named/current/tree"
        sums = self.work / "sums"
        files = [str(path) for path in tree.rglob("*") if path.is_file() and not path.is_symlink()]
        sums.write_text(subprocess.run(["sha256sum", *files], capture_output=True, text=True, check=True).stdout)
        return "verify named, every byte", "sha256sum -c", pair(
            self.jail("verify", "named"), ["sha256sum", "--quiet", "-c", str(sums)], self.runs
        )

    def large(self, sizes):
        """A jail with files of these sizes, built: their paths, the largest first."""
        source = self.work / "source"
        shutil.rmtree(source, ignore_errors=True)
        for number, size in enumerate(sizes):
            file = source / f"{number % 100:02}" / str(number)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(os.urandom(size))
        manifests = self.work / "home/manifests"
        manifests.mkdir(parents=True, exist_ok=True)
        (manifests / "large.toml").write_text(
            f'version = 1\n[tree]\nbinaries = ["/usr/bin/sleep"]\nusers = ["nobody"]\nfiles = [{{ from = "{source}", to = "/data" }}]\n'
            '[service]\ncommand = ["/usr/bin/sleep", "1"]\nuser = "nobody"\n')
        subprocess.run(self.jail("build", "large"), check=True, stdout=subprocess.DEVNULL)
        tree = (self.work / "home/state/jails/large/current/tree").resolve()
        return sorted((path for path in tree.rglob("*") if path.is_file() and not path.is_symlink()), key=lambda path: -path.stat().st_size)

    # 500 MiB: one large file, some of the middle, many of a library's size.
    LARGE = [100 << 20] + [10 << 20] * 20 + [1 << 20] * 200

    def verify_large(self):
        sums = self.work / "sums"
        sums.write_text(subprocess.run(["sha256sum", *map(str, self.large(self.LARGE))], capture_output=True, text=True, check=True).stdout)
        return "verify 500 MiB, every byte", "sha256sum -c", pair(
            self.jail("verify", "large"), ["sha256sum", "--quiet", "-c", str(sums)], self.runs
        )

    def against_loop(self, work, sizes, *words):
        """tests/bench/hash_loop.c: reading and hashing in all processors, and nothing else."""
        files = self.work / "files"
        files.write_text("".join(f"{path}\n" for path in self.large(sizes)))
        loop = self.work / "hash_loop"
        subprocess.run(["cc", "-O2", "-o", loop, REPO / "tests/bench/hash_loop.c", "-lcrypto", "-lpthread"], check=True)
        return work, "a bare loop", pair(self.jail("verify", "large", *words), [str(loop), str(files)], self.runs)

    def verify_loop(self):
        return self.against_loop("verify 500 MiB, every byte", self.LARGE)

    def verify_many(self):
        return self.against_loop("verify 10,000 files of 4 KiB, every byte", [4096] * 10_000)

    def verify_quick(self):
        return self.against_loop("verify 10,000 files of 4 KiB by their stamps", [4096] * 10_000, "--quick")

    def launch(self):
        return "start /bin/true confined, until it ended", "bwrap", pair(
            [str(self.bin / "bench_launch"), "1"],
            ["bwrap", "--unshare-all", "--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc", "--cap-drop", "ALL", "/bin/true"],
            self.runs * 3,
        )


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", default=str(REPO / "build/release/bin"))
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    bench = Bench(options)
    rows = ["resolve", "first_build", "warm_build", "no_change", "verify", "verify_large", "verify_loop", "verify_many", "verify_quick"]
    print("| work | peer | ours, ms | peer's, ms | ratio |\n|---|---|---|---|---|")
    try:
        for name in options.names or rows:
            try:
                work, peer, (ours, theirs, ratio) = getattr(bench, name)()
            except FileNotFoundError as missing:
                print(f"{name}: left out: {missing.filename} is not installed", file=sys.stderr)
                continue
            print(f"| {work} | {peer} | {ours * 1000:.1f} | {theirs * 1000:.1f} | {ratio:.3f} |", flush=True)
    finally:
        shutil.rmtree(bench.work, ignore_errors=True)


if __name__ == "__main__":
    main()
