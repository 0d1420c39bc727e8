"""Programs, libraries and jails made for one test: what the tests of run-time loading share."""

import contextlib
import json
import pathlib
import re
import shutil
import subprocess

SERVICE = '\n[service]\ncommand = ["{0}"]\nuser = "{1}"\n'


@contextlib.contextmanager
def yard_made():
    """Where programs and libraries are made that the host does not have."""
    home = pathlib.Path("/usr/local/lib/jail-yard")
    home.mkdir(parents=True)
    yield home
    shutil.rmtree(home)


def compile(out, code, *flags):
    subprocess.run(["gcc", "-x", "c", "-", "-x", "none", "-o", out, *map(str, flags)], input=code, text=True, check=True)
    return out


def note(*needs):
    """The assembler of a .note.dlopen, as SD_ELF_NOTE_DLOPEN makes it."""
    return raw_note(json.dumps(needs))


def raw_note(text):
    bytes_ = ",".join(str(byte) for byte in text.encode() + b"\0")
    return (
        '__asm__(".pushsection .note.dlopen,\\"a\\",%note\\n.balign 4\\n.long 4, 2f-1f, 0x407c0c0a\\n.asciz \\"FDO\\"\\n"'
        f'"1: .byte {bytes_}\\n2: .balign 4\\n.popsection\\n");\n'
    )


def library(folder, name):
    return compile(folder / name, f"int {re.sub('[^a-z]', '_', name)};", "-shared", "-fPIC", f"-Wl,-soname,{name}")


def manifest(jail, binary, more="", tree="", user="root", users=""):
    text = f'version = 1\n[tree]\nbinaries = ["{binary}"]\nusers = [{users}]\n{tree}\n{more}' + SERVICE.format(binary, user)
    return jail.manifest("x", text)


def plan(jail):
    done = jail.run("plan", "x", "--json")
    found = json.loads(done.stdout)
    return {entry["path"]: entry for entry in found["entries"]}, found


def names(entries):
    return {pathlib.Path(path).name for path in entries}
