"""What programs load at run time: .note.dlopen by level and feature, modules that a configuration names, $LIB, strings that look
like libraries; and that each bundle's probe works in a jail with it, and fails in one without."""

import json
import pathlib
import re
import shutil
import subprocess

import pytest

from jailtest import BIN, Instance
from packages import installed

MULTIARCH = subprocess.run(["gcc", "-print-multiarch"], capture_output=True, text=True, check=True).stdout.strip()
SERVICE = '\n[service]\ncommand = ["{0}"]\nuser = "{1}"\n'


@pytest.fixture(scope="module", autouse=True)
def own_layers():
    with installed("modules"):
        yield


@pytest.fixture
def jail():
    with Instance() as instance:
        yield instance


@pytest.fixture
def yard(tmp_path):
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


# ---- families, and their probes ------------------------------------------------------------------------------------------

CALLS = {
    "threads": ("#include <pthread.h>\nint main(void){pthread_exit(0);}", []),
    "names": ("#include <pwd.h>\nint main(void){return getpwnam(\"x\") != 0;}", []),
    "plain": ("int main(void){return 0;}", []),
    "crypto": ("int EVP_DigestInit_ex(void*,void*,void*);int main(void){return EVP_DigestInit_ex(0,0,0);}", ["-l:libcrypto.so.3"]),
    "sasl": ("int sasl_server_init(void*,void*);int main(void){return sasl_server_init(0,0);}", ["-l:libsasl2.so.2"]),
    "pam": ("int pam_start(void*,void*,void*,void*);int main(void){return pam_start(0,0,0,0);}", ["-l:libpam.so.0"]),
    "p11": ("int p11_kit_modules_load(void*,int);int main(void){return p11_kit_modules_load(0,0);}", ["-l:libp11-kit.so.0"]),
}
OPENSSL = """
openssl_conf = init
[init]
providers = providers
engines = engines
[providers]
default = on
legacy = on
[engines]
afalg = afalg
[on]
activate = 1
[afalg]
init = 0
"""


def text_file(to, text):
    return f'{{ to = "{to}", text = {json.dumps(text)} }}'


def files(*entries):
    return "files = [" + ", ".join(entries) + "]"


OPENSSL_CONF = files(text_file("/usr/lib/ssl/openssl.cnf", OPENSSL))
PAM_CONF = files(
    text_file("/etc/pam.d/x", "auth required pam_permit.so\n-auth optional pam_nonesuch.so\n@include common-auth\n"),
)

# bundle, a program of CALLS, what [tree] has besides; the files that come
FAMILIES = {
    "libgcc": ("threads", "", {"libgcc_s.so.1"}),
    "charsets": ("plain", 'include = ["charsets"]', {"KOI8-R.so", "gconv-modules.cache"}),
    "resolver": ("plain", 'include = ["resolver"]', {"hosts", "services"}),
    "zoneinfo": ("plain", 'include = ["zoneinfo"]', {"localtime"}),
    "zoneinfo-all": ("plain", 'include = ["zoneinfo-all"]', {"Kathmandu"}),
    "ca-certificates": ("crypto", 'include = ["ca-certificates"]', {"ca-certificates.crt"}),
    "nss": ("names", files(text_file("/etc/nsswitch.conf", "passwd: files systemd\n")), {"libnss_systemd.so.2"}),
    "openssl-legacy": ("crypto", 'include = ["openssl-legacy"]', {"legacy.so"}),
    "openssl-providers": ("crypto", OPENSSL_CONF, {"legacy.so"}),
    "openssl-engines": ("crypto", OPENSSL_CONF, {"afalg.so"}),
    "sasl-sasldb": ("sasl", 'include = ["sasl-sasldb"]', {"libplain.so", "libsasldb.so"}),
    "sasl": ("sasl", files(text_file("/etc/sasl2/x.conf", "mech_list: PLAIN\nauxprop_plugin: sasldb\n")), {"libplain.so", "libsasldb.so"}),
    "pam": ("pam", PAM_CONF, {"pam_permit.so", "pam_unix.so", "pam_deny.so", "common-auth"}),
}


def probes(jail, bundle, name="x", status=0):
    found = jail.json("probe", name, status=status)["jails"][0]["probes"]
    return [probe for probe in found if probe["bundle"] == bundle]


def check_family(jail, bundle, brought, name="x"):
    """The bundle brings these files; its probes work with them, and one fails without."""
    jail.run("build", name)
    entries = {entry["path"]: entry for entry in json.loads(jail.run("plan", name, "--json").stdout)["entries"]}
    assert brought <= names(entries), names(entries)
    good = probes(jail, bundle, name)
    assert good and all(probe["works"] for probe in good), good
    jail.run("verify", name)  # nothing was left behind
    for path in entries:
        if pathlib.Path(path).name in brought:
            (jail.tree(name) / path[1:]).unlink()
    bad = probes(jail, bundle, name, status=1)
    assert [probe["name"] for probe in bad] == [probe["name"] for probe in good]
    assert not all(probe["works"] for probe in bad), bad
    return good, bad


@pytest.mark.parametrize("bundle", FAMILIES)
def test_a_family_works_with_its_bundle_and_not_without(jail, yard, bundle):
    code, tree, brought = FAMILIES[bundle]
    text, flags = CALLS[code]
    program = compile(yard / "program", text, *flags)
    if bundle == "nss":
        manifest(jail, program, tree=tree, user="nobody", users='"nobody"')
    else:
        manifest(jail, program, tree=tree)
    check_family(jail, bundle, brought)
    _, found = plan(jail)
    assert not any("pam_nonesuch" in warning for warning in found["warnings"])
    assert any("unix_chkpwd" in line for line in found["notes"]) == (bundle == "pam")


def test_the_locale_of_the_host(jail, yard):
    """C.UTF-8 is built into glibc since 2.35; the bundle's file makes the difference for older ones alone. So another
    locale is made here, and brought by the means of a bundle."""
    subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", "--no-archive", "/usr/lib/locale/de_DE.utf8"], capture_output=True)
    program = compile(yard / "program", CALLS["plain"][0])
    bundles = jail.home / "manifests/bundles"
    bundles.mkdir(parents=True)
    (bundles / "german.toml").write_text(
        'version = 1\ndescription = "German"\noptional_files = ["/usr/lib/locale/de_DE.utf8"]\n'
        '[[probe]]\nname = "set it"\nrun = ["locale", "de_DE.UTF-8"]\n'
    )
    manifest(jail, program, tree='include = ["german", "locale"]')
    jail.run("build", "x")
    assert all(probe["works"] for probe in probes(jail, "locale") + probes(jail, "german"))
    shutil.rmtree(jail.tree("x") / "usr/lib/locale/de_DE.utf8")
    assert not probes(jail, "german", status=1)[0]["works"]


def test_a_thread_that_cannot_end_is_told_in_glibc_s_words(jail, yard):
    manifest(jail, compile(yard / "program", CALLS["threads"][0]))
    _, bad = check_family(jail, "libgcc", {"libgcc_s.so.1"})
    assert "libgcc_s.so.1 must be installed for pthread_cancel to work" in bad[0]["said"]
    assert "ended by SIGABRT" in bad[0]["said"]


def live(tmp_path, **texts):
    for name, text in texts.items():
        (tmp_path / name.replace("__", ".")).write_text(text)
    return tmp_path


def test_named_s_plugins(jail, tmp_path):
    """Named by a live configuration."""
    conf = live(tmp_path, named__conf='include "/etc/bind/more.conf";\n', more__conf='plugin query "filter-aaaa.so" {};\n')
    manifest(jail, "/usr/sbin/named", f'[[config]]\nfrom = "{conf}"\nto = "/etc/bind"\n')
    check_family(jail, "bind-plugins", {"filter-aaaa.so"})


def test_dovecot_s_plugins(jail, tmp_path):
    conf = live(tmp_path, dovecot__conf="!include *.inc\n", x__inc="mail_plugins = quota\nprotocol imap {\n  mail_plugins = $mail_plugins imap_quota\n}\n")
    manifest(jail, "/usr/lib/dovecot/imap", f'[[config]]\nfrom = "{conf}"\nto = "/etc/dovecot"\n')
    check_family(jail, "dovecot-plugins", {"lib10_quota_plugin.so", "lib11_imap_quota_plugin.so"})


def test_postfix_s_tables(jail, tmp_path):
    """Of the types that are installed only those come that a configuration uses."""
    maps = tmp_path / "dynamicmaps.cf.d"
    maps.mkdir()
    (maps / "sqlite").write_text("sqlite\tpostfix-sqlite.so\tdict_sqlite_open\n")
    conf = live(tmp_path, main__cf="# virtual_alias_maps = sqlite:/x\nalias_maps = nosqlite:/x\n")
    manifest(jail, "/usr/lib/postfix/sbin/cleanup", f'[[config]]\nfrom = "{conf}"\nto = "/etc/postfix"\n')
    entries, _ = plan(jail)
    assert "postfix-sqlite.so" not in names(entries)
    live(tmp_path, main__cf="virtual_alias_maps = hash:/y, sqlite:/etc/postfix/x.cf\n")
    check_family(jail, "postfix-maps", {"postfix-sqlite.so"})


def test_p11_kit_s_modules(jail, yard):
    text, flags = CALLS["p11"]
    manifest(jail, compile(yard / "program", text, *flags))
    _, found = plan(jail)
    assert any("bundle p11-kit brings" in line for line in found["notes"])
    module = files(text_file("/etc/pkcs11/modules/trust.module", "module: p11-kit-trust.so\n"))
    manifest(jail, yard / "program", tree='include = ["p11-kit"]\n' + module)
    check_family(jail, "p11-kit", {"p11-kit-trust.so"})


def test_a_module_that_is_not_there_is_told(jail, tmp_path):
    conf = live(tmp_path, dovecot__conf="mail_plugins = nonesuch\n")
    manifest(jail, "/usr/lib/dovecot/imap", f'[[config]]\nfrom = "{conf}"\nto = "/etc/dovecot"\n')
    _, found = plan(jail)
    assert any("'/etc/dovecot/dovecot.conf' names 'nonesuch', whose module is not on this host" in line for line in found["warnings"])


def test_probes_hold_no_privilege(jail, yard):
    """What runs in a probe's place says who it is."""
    manifest(jail, compile(yard / "program", CALLS["names"][0]), tree="", user="nobody", users='"nobody"',
             more='[sandbox]\ncapabilities = ["net_bind_service"]\n')
    jail.run("build", "x")
    tool = jail.home / "bin"
    tool.mkdir()
    for name in ("jail", "jail-init"):
        shutil.copy(BIN / name, tool / name)
    compile(tool / "jail-probe", """
    #include <stdio.h>
    #include <string.h>
    int main(void) {
      char line[256];
      FILE* file = fopen("/proc/self/status", "r");
      while (fgets(line, sizeof line, file))
        if (!strncmp(line, "CapEff", 6) || !strncmp(line, "CapBnd", 6) || !strncmp(line, "Uid", 3) || !strncmp(line, "NoNew", 5) || !strncmp(line, "Seccomp:", 8)) fputs(line, stdout);
      file = fopen("/proc/self/net/dev", "r");
      fputs(file ? "net" : "no net", stdout);
      return 0;
    }
    """)
    done = subprocess.run([tool / "jail", "--home", jail.home, "--manifests", jail.manifests, "probe", "x", "--json"], capture_output=True, text=True)
    said = json.loads(done.stdout)["jails"][0]["probes"][0]["said"].replace("\\x09", " ").replace("\\x0a", "\n")
    uid = pathlib.Path("/etc/passwd").read_text().split("\nnobody:x:")[1].split(":")[0]
    assert re.search(rf"Uid: +{uid} +{uid} +{uid} +{uid}", said), said
    assert "CapEff: 0000000000000000" in said and "CapBnd: 0000000000000000" in said, said
    assert "NoNewPrivs: 1" in said and "Seccomp: 2" in said, said


def test_a_probe_that_hangs_is_ended(jail, yard):
    manifest(jail, compile(yard / "program", CALLS["threads"][0]))
    jail.run("build", "x")
    tool = jail.home / "bin"
    tool.mkdir()
    for name in ("jail", "jail-init"):
        shutil.copy(BIN / name, tool / name)
    compile(tool / "jail-probe", "#include <unistd.h>\nint main(void){for(;;)pause();}")
    done = subprocess.run([tool / "jail", "--home", jail.home, "--manifests", jail.manifests, "probe", "x"], capture_output=True, text=True, timeout=30)
    assert done.returncode == 1 and "no result within 10 s" in done.stdout, done


def test_a_jail_without_probes_says_so(jail, yard):
    manifest(jail, compile(yard / "program", CALLS["plain"][0]))
    jail.run("build", "x")
    assert jail.run("probe", "x").stdout == "x: no probes\n"
    assert "build" in jail.run("probe", "nothing", status=66).stderr
