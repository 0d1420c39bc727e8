"""What programs load at run time: .note.dlopen by level and feature, bundles that join or are offered, $LIB, and strings that look
like libraries."""

import pathlib
import subprocess

import pytest

from jailtest import Instance
from packages import layered
from yard import compile, library, manifest, names, note, plan, raw_note, yard_made

MULTIARCH = subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture(scope="module", autouse=True)
def own_layers():
    with layered():
        yield


@pytest.fixture
def jail():
    with Instance() as instance:
        yield instance


@pytest.fixture
def yard():
    with yard_made() as made:
        yield made


# ---- .note.dlopen --------------------------------------------------------------------------------------------------------

NEEDS = (
    {"soname": ["libjailneed.so.1"], "feature": "need", "priority": "required", "description": "Needs"},
    {"soname": ["libjailnew.so.2", "libjailold.so.1"], "feature": "rec", "priority": "recommended"},
    {"soname": ["libjailsug.so.1"], "feature": "sug", "priority": "suggested"},
)
ALL = {"libjailneed.so.1", "libjailold.so.1", "libjailsug.so.1"}


@pytest.fixture
def noted(yard):
    for name in ALL:
        library(yard, name)
    return compile(yard / "noted", note(*NEEDS) + "int main(void){return 0;}", f"-Wl,-rpath,{yard}")


@pytest.mark.parametrize(
    "table, wanted",
    [
        ("", {"libjailneed.so.1", "libjailold.so.1"}),
        ('level = "none"', set()),
        ('level = "required"', {"libjailneed.so.1"}),
        ('level = "recommended"', {"libjailneed.so.1", "libjailold.so.1"}),
        ('level = "suggested"', ALL),
        ('omit = ["*"]', set()),
        ('omit = ["*"]\ninclude = ["sug"]', {"libjailsug.so.1"}),
        ('level = "required"\ninclude = ["r?c"]', {"libjailneed.so.1", "libjailold.so.1"}),
        ('level = "suggested"\nomit = ["s*"]', {"libjailneed.so.1", "libjailold.so.1"}),
    ],
)
def test_levels_and_features(jail, noted, table, wanted):
    manifest(jail, noted, f"[dlopen]\n{table}\n")
    entries, _ = plan(jail)
    assert names(entries) & ALL == wanted


def test_the_reason_is_told(jail, noted):
    manifest(jail, noted)
    jail.run("build", "x")
    why = jail.run("why", "x", "libjailold.so.1").stdout
    assert f"dlopen libjailold.so.1 (feature rec, recommended) by {noted}" in why, why


def test_what_is_required_must_be_there(jail, yard, noted):
    (yard / "libjailneed.so.1").unlink()
    manifest(jail, noted)
    done = jail.run("plan", "x", status=65)
    assert "libjailneed.so.1 not found" in done.stderr and "feature need, required" in done.stderr, done.stderr
    manifest(jail, noted, '[dlopen]\nomit = ["need"]\n')
    (yard / "libjailold.so.1").unlink()  # recommended alone
    entries, _ = plan(jail)
    assert not names(entries) & ALL
    manifest(jail, noted, '[dlopen]\nomit = ["need"]\ninclude = ["rec"]\n')
    assert "libjailnew.so.2 not found" in jail.run("plan", "x", status=65).stderr


def test_a_library_s_own_search_path_counts_and_what_it_brings_speaks_too(jail, yard):
    inner = yard / "inner"
    inner.mkdir()
    library(inner, "libjaildeep.so.1")
    compile(
        inner / "libjailfirst.so.1", note({"soname": ["libjaildeep.so.1"], "priority": "required"}) + "int first;",
        "-shared", "-fPIC", "-Wl,-soname,libjailfirst.so.1", f"-Wl,-rpath,{inner}",
    )
    compile(
        yard / "libjailcaller.so", note({"soname": ["libjailfirst.so.1"], "priority": "required"}) + "int caller(void){return 0;}",
        "-shared", "-fPIC", "-Wl,-soname,libjailcaller.so", f"-Wl,-rpath,{inner}",
    )
    program = compile(yard / "calls", "int caller(void);int main(void){return caller();}", yard / "libjailcaller.so", f"-Wl,-rpath,{yard}")
    manifest(jail, program)
    entries, _ = plan(jail)
    assert {"libjailfirst.so.1", "libjaildeep.so.1"} <= names(entries)
    why = entries[str(inner / "libjaildeep.so.1")]["why"]
    assert {"kind": "dlopen", "by": str(inner / "libjailfirst.so.1"), "detail": "libjaildeep.so.1 (required)"} in why


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"soname":["../../etc/shadow"]}]', "[" * 5000, '[{"soname":"libx.so"}]'])
def test_a_note_that_lies_is_passed_over(jail, yard, text):
    program = compile(yard / "lies", raw_note(text) + "int main(void){return 0;}")
    manifest(jail, program)
    _, found = plan(jail)
    assert any("its .note.dlopen is not as it must be" in warning for warning in found["warnings"]), found["warnings"]


def test_a_feature_that_nobody_has_is_told(jail, noted):
    manifest(jail, noted, '[dlopen]\ninclude = ["bpf"]\n')
    _, found = plan(jail)
    assert any("has a feature 'bpf'; there are: need, rec, sug" in warning for warning in found["warnings"])


def test_a_noted_library_is_loaded_in_the_jail(jail, yard, noted):
    """The real thing: with the note's library in its tree the program finds it, and without it does not."""
    code = """
    #include <dlfcn.h>
    #include <stdio.h>
    int main(void) { puts(dlopen("libjailold.so.1", RTLD_NOW) ? "loaded" : dlerror()); return 0; }
    """
    program = compile(yard / "noted", note(*NEEDS) + code, f"-Wl,-rpath,{yard}")
    for level, said in (("recommended", "loaded"), ("none", "cannot open shared object file")):
        manifest(jail, program, f'[dlopen]\nlevel = "{level}"\n')
        jail.run("build", "x")
        done = subprocess.run(["chroot", jail.tree("x"), program], capture_output=True, text=True)
        assert said in done.stdout, done


# ---- bundles -------------------------------------------------------------------------------------------------------------


def test_lib_is_the_loader_s_word(jail):
    manifest(jail, "/usr/sbin/named", tree='libraries = ["/usr/$LIB/bind/filter-a.so"]\nfiles = [{ from = "/usr/$LIB/bind/filter-aaaa.so", to = "/opt/$LIB/x.so" }]')
    entries, _ = plan(jail)
    assert f"/usr/lib/{MULTIARCH}/bind/filter-a.so" in entries and f"/opt/lib/{MULTIARCH}/x.so" in entries
    manifest(jail, "/usr/sbin/named", tree='libraries = ["/usr/$ORIGIN/x.so"]')
    assert "$LIB is the only word that is known here" in jail.run("plan", "x", status=65).stderr


def test_bundles_join_are_offered_and_can_be_kept_out(jail):
    manifest(jail, "/usr/sbin/named")
    _, found = plan(jail)
    assert any("bundle charsets brings" in line for line in found["notes"])
    assert {probe["bundle"] for probe in found["probes"]} >= {"openssl-providers"}
    manifest(jail, "/usr/sbin/named", tree='exclude = ["charsets", "openssl-providers"]')
    _, found = plan(jail)
    assert not any("charsets" in line for line in found["notes"])
    assert "openssl-providers" not in {probe["bundle"] for probe in found["probes"]}
    manifest(jail, "/usr/sbin/named", tree='include = ["charsets"]\nexclude = ["charsets", "nonesuch"]')
    told = jail.run("lint", "x", status=65).stdout
    assert "the bundle 'charsets' is included, too" in told
    manifest(jail, "/usr/sbin/named", tree='exclude = ["nonesuch"]')
    assert "there is no bundle 'nonesuch'" in jail.run("lint", "x", status=65).stdout


def test_strings_that_look_like_libraries_are_told_once_and_can_be_silenced(jail, yard):
    library(yard, "libjailstring.so.3")
    library(yard, "libjailpath.so")
    code = f"""
    const char* const words[] = {{"libjailstring.so.3", "{yard}/libjailpath.so", "{yard}/libgone.so", "libjailnowhere.so.1",
                                  "see libjailstring.so.3", "libjail%s.so", "liblibrary.sorted"}};
    int main(int c, char** v) {{ (void)v; return words[c][0]; }}
    """
    program = compile(yard / "talks", code)
    manifest(jail, program)
    _, found = plan(jail)
    told = [warning for warning in found["warnings"] if "names the library" in warning and "jail-yard" in warning]
    assert len(told) == 2 and "'libjailstring.so.3'" in told[1] and f"'{yard}/libjailpath.so'" in told[0], found["warnings"]
    built = [jail.json("build", "x")["jails"][0] for _ in range(2)]
    assert [part["changed"] for part in built] == [True, False]
    for part in built:  # the second knows it from the store
        assert [warning for warning in part["warnings"] if "names the library" in warning and "jail-yard" in warning] == told
    manifest(jail, program, '[dlopen]\nignore = ["libjailstr*", "/*/libjailpath.so"]\n')
    _, found = plan(jail)
    assert not any("jail-yard" in warning for warning in found["warnings"])
    manifest(jail, program, tree=f'libraries = ["{yard}/libjailstring.so.3", "{yard}/libjailpath.so"]')
    _, found = plan(jail)
    assert not any("jail-yard" in warning for warning in found["warnings"])
