#!/usr/bin/python3
"""Our commands against the peers', in pairs: A B A B ..., medians of times and of the ratios pair by pair, so that a machine whose
speed drifts drifts for both. Root; contrib/bench installs what is missing and builds first.

    tests/bench/bench.py [--bin DIR] [--runs N] [--write] [NAME...]

Prints a table; --write puts it into README.md. A command that fails ends the run: a peer that did nothing is no peer. No row
is asserted: a noisy machine must not fail a build. Every build here ends on the disk (syncfs), so whatever it is measured against
is followed by `sync -f`.
"""

import argparse
import hashlib
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

REPO = pathlib.Path(__file__).resolve().parent.parent.parent
BEGIN, END = "<!-- bench: begin -->\n", "<!-- bench: end -->\n"


def run(command):
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"bench: {' '.join(map(str, command))[:300]}: exit {done.returncode}\n{done.stderr[-2000:]}")


def timed(command, prepare):
    """Seconds. Started without what subprocess adds, which is as long as our shortest command."""
    prepare()
    os.sync()
    words = [str(word) for word in command]
    silent = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_WRONLY, 0) for fd in (1, 2)]
    begin = time.perf_counter()
    status = os.waitpid(os.posix_spawnp(words[0], words, os.environ, file_actions=silent), 0)[1]
    taken = time.perf_counter() - begin
    if status != 0:
        prepare()
        run(command)
        sys.exit(f"bench: {' '.join(words)[:300]}: failed once (wait status {status}), not again")
    return taken


def nothing():
    pass


def pair(ours, theirs, runs, before_ours=nothing, before_theirs=nothing):
    """(median of ours, of theirs, of the ratios) in seconds; the first of each is not counted."""
    timed(ours, before_ours), timed(theirs, before_theirs)
    a, b = [], []
    for _ in range(runs):
        a.append(timed(ours, before_ours))
        b.append(timed(theirs, before_theirs))
    return statistics.median(a), statistics.median(b), statistics.median(x / y for x, y in zip(a, b))


def single(command, runs, before=nothing):
    timed(command, before)
    return statistics.median(timed(command, before) for _ in range(runs))


def elf_files():
    found = []
    for folder in ("/usr/bin", "/usr/sbin"):
        for path in sorted(pathlib.Path(folder).iterdir()):
            if path.is_file() and not path.is_symlink():
                with open(path, "rb") as file:
                    if file.read(4) == b"\x7fELF":
                        found.append(str(path))
    return found


def shell(*lines):
    return ["/bin/sh", "-ec", "\n".join(lines)]


MANIFEST = """version = 1
[tree]
binaries = ["/usr/bin/true"]
users = ["nobody"]
files = [{{ from = "{source}", to = "/data" }}]
[service]
command = ["/usr/bin/true"]
user = "nobody"
"""


class Bench:
    def __init__(self, options):
        self.bin = pathlib.Path(options.bin)
        self.runs = options.runs
        # Not below /tmp: jk_init refuses a jail with a parent that others can write.
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="jail-bench.", dir="/var/lib"))
        self.work.chmod(0o755)
        self.home = self.work / "home"
        self.aside = self.work / "aside"
        self.aside.mkdir()
        self.serial = iter(range(10**6))

    def jail(self, *words, home=None):
        return [str(self.bin / "jail"), "--home", str(home or self.home), "--manifests", str(REPO / "manifests"), *map(str, words)]

    def fresh(self, *names):
        """Empties these directories of the work directory. What was in them is put aside: ext4 looks long for a new inode
        where many were deleted in the last minutes (recently_deleted()), and whoever comes next would pay for that."""

        def prepare():
            for name in names:
                if (self.work / name).exists():
                    (self.work / name).rename(self.aside / str(next(self.serial)))
                (self.work / name).mkdir()

        return prepare

    def jk_init(self, sync=True):
        """jailkit's tree of named with what is in ours: the same programs, data, users and devices, into an empty directory."""
        config = self.work / "jk.ini"
        config.write_text(
            "[named]\npaths = /usr/sbin/named, /usr/bin/named-checkconf, /usr/share/dns\nusers = root, bind\ngroups = root, bind\n"
            "devices = /dev/null, /dev/zero, /dev/full, /dev/random, /dev/urandom\n"
        )
        command = ["jk_init", "-c", str(config), "-j", str(self.work / "jk"), "named"]
        return shell(" ".join(command), f"sync -f {self.work}/jk") if sync else command

    def manifest(self, name, text):
        folder = self.home / "manifests"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.toml").write_text(text)

    def sources(self, name, count, size):
        """A directory of `count` files of about `size` random bytes, a hundred to a directory."""
        top = self.work / name
        pick = random.Random(1)
        for number in range(count):
            folder = top / f"{number // 100:04}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number % 100:02}").write_bytes(pick.randbytes(pick.randint(size // 2, size * 3 // 2)))
        return top

    # ---- rows

    def resolve(self):
        files = elf_files()
        yield f"resolve the {len(files)} programs of /usr/bin and /usr/sbin in one call", "libtree -vv", "1.0", pair(
            [str(self.bin / "jail"), "deps", *files], shell(f"libtree -vv {' '.join(files)} || test $? -le 31"), self.runs
        )

    def first_build(self):
        yield "first build of named, empty store", "jk_init; sync", "1/3", pair(
            self.jail("build", "named"), self.jk_init(), self.runs, self.fresh("home"), self.fresh("jk")
        )

    def against_copy(self):
        self.fresh("home")()
        run(self.jail("build", "named"))
        shutil.copytree(self.home / "state/jails/named/current/tree", self.work / "original", symlinks=True, ignore=lambda *_: ["dev"])
        yield "first build of named", "cp -a of its tree; sync", "2.0", pair(
            self.jail("build", "named"),
            shell(f"cp -a {self.work}/original {self.work}/copy/tree", f"sync -f {self.work}/copy"),
            self.runs,
            self.fresh("home"),
            self.fresh("copy"),
        )

    def warm_build(self):
        """What changes is a line of the manifest: a new generation with the same objects, the fourth, for which the first is
        removed."""
        counter = iter(range(10**6))
        empty = self.fresh("home")

        def edit():
            folder = self.home / "manifests/named.toml.d"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "50-bench.toml").write_text(f'[[tree.files]]\nto = "/etc/bench"\ntext = "{next(counter)}"\n')

        def three_generations():
            empty()
            for _ in range(3):
                edit()
                run(self.jail("build", "named"))
                time.sleep(0.02)
            edit()

        yield "rebuild of named into a new generation, warm store", "jk_init; sync", "1/20", pair(
            self.jail("build", "named"), self.jk_init(), self.runs, three_generations, self.fresh("jk")
        )

    def no_change(self):
        self.fresh("home")()
        run(self.jail("build", "named"))
        time.sleep(0.02)
        run(self.jail("build", "named"))
        yield "build of named when nothing changed", "jk_init", "1/50", pair(
            self.jail("build", "named"), self.jk_init(sync=False), self.runs * 3, nothing, self.fresh("jk")
        )

    def verify(self):
        self.fresh("home")()
        self.manifest("large", MANIFEST.format(source=self.sources("large", 500, 1 << 20)))
        run(self.jail("build", "large"))
        tree = self.home / "state/jails/large/current/tree"
        files = sorted(str(path) for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
        size = sum(os.path.getsize(path) for path in files) >> 20
        sums = self.work / "sums"
        with open(sums, "w") as out:
            for path in files:
                out.write(f"{hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()}  {path}\n")
        (self.work / "list").write_text("".join(path + "\n" for path in files))
        loop = self.work / "hash_loop"
        run(["cc", "-O2", "-o", str(loop), str(REPO / "tests/bench/hash_loop.c"), "-lcrypto", "-lpthread"])
        verify = self.jail("verify", "large")
        yield f"verify a tree of {size} MiB, every byte", "sha256sum -c", "1/3", pair(verify, ["sha256sum", "--quiet", "-c", str(sums)], self.runs)
        yield "the same", "a bare C loop on all cores", "1.15", pair(verify, [str(loop), str(self.work / "list")], self.runs)

    def disk(self):
        self.fresh("home")()
        (self.home / "manifests").mkdir()
        (self.home / "manifests/named@.toml").write_text((REPO / "manifests/named.toml").read_text())

        def used():
            return int(subprocess.run(["du", "-s", "--block-size=1", str(self.home / "state")], capture_output=True, text=True, check=True).stdout.split()[0])

        run(self.jail("build", "named@0"))
        one = used()
        run(self.jail("build", *(f"named@{number}" for number in range(1, 100))))
        hundred = used()
        yield "100 jails of named on disk, MiB", "one", "1.1", (hundred / 1e3 / 1.048576 / 1e3, one / 1e3 / 1.048576 / 1e3, hundred / one)

    def growth(self):
        """Ten times as much must cost ten times as much: time per file, and per jail."""
        self.fresh("home")()
        for count in (1000, 10000):
            self.manifest(f"files-{count}", MANIFEST.format(source=self.sources(f"files-{count}", count, 8192)))
        for verb, what in (("build", "first build"), ("verify", "verify")):
            if verb == "verify":
                run(self.jail("build", "files-1000", "files-10000"))
            small, large = (single(self.jail(verb, f"files-{count}"), 3, self.wipe_state if verb == "build" else nothing) for count in (1000, 10000))
            yield f"{what} of a tree of 10,000 files, ms per file", "of 1,000 files", "linear", (large / 10000, small / 1000, large / small / 10)
        (self.home / "manifests/small@.toml").write_text(MANIFEST.format(source="/etc/services"))
        few, many = ([f"small@{number}" for number in range(count)] for count in (100, 1000))
        small, large = (single(self.jail("build", *names), 3, self.wipe_state) for names in (few, many))
        yield "first build of 1,000 jails, ms per jail", "of 100 jails", "linear", (large / 1000, small / 100, large / small / 10)
        time.sleep(0.02)
        run(self.jail("build", *many))
        small, large = (single(self.jail("build", *names), 3) for names in (few, many))
        yield "1,000 jails when nothing changed, ms per jail", "100 jails", "linear", (large / 1000, small / 100, large / small / 10)

    def wipe_state(self):
        self.fresh("home/state")()
        (self.home / "state").rmdir()


ROWS = ("resolve", "first_build", "against_copy", "warm_build", "no_change", "verify", "disk", "growth")
HEAD = "| work | against | ours | theirs | ratio | at most |\n|---|---|---:|---:|---:|---:|\n"


def line(work, peer, most, ours, theirs, ratio):
    scale = 1 if "MiB" in work and "on disk" in work else 1000
    unit = "" if scale == 1 or "ms per" in work else " ms"
    shown = f"{ratio:.2f}" if ratio > 0.1 else f"1/{1 / ratio:.0f}"
    return f"| {work} | {peer} | {ours * scale:.3g}{unit} | {theirs * scale:.3g}{unit} | {shown} | {most} |\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--bin", default=str(REPO / "build/release/bin"))
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("names", nargs="*", choices=[[], *ROWS])
    options = parser.parse_args()
    bench = Bench(options)
    table = HEAD
    print(HEAD, end="")
    try:
        for name in options.names or ROWS:
            for work, peer, most, (ours, theirs, ratio) in getattr(bench, name)():
                row = line(work, peer, most, ours, theirs, ratio)
                print(row, end="", flush=True)
                table += row
    finally:
        shutil.rmtree(bench.work, ignore_errors=True)
    if options.write:
        readme = REPO / "README.md"
        text = readme.read_text()
        begin, end = text.index(BEGIN) + len(BEGIN), text.index(END)
        readme.write_text(text[:begin] + table + text[end:])


if __name__ == "__main__":
    main()
