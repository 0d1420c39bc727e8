"""Families of what is loaded at run time: of each a jail in which its probe works, and the same jail without what its bundle
brought, in which it fails; and what a probe may."""

import json
import pathlib
import re
import shutil
import subprocess

import pytest

from jailtest import BIN, Instance
from packages import installed
from yard import compile, manifest, names, plan, yard_made


@pytest.fixture(scope="module", autouse=True)
def own_layers():
    with installed("modules"):
        yield


@pytest.fixture
def jail():
    with Instance() as instance:
        yield instance


@pytest.fixture
def yard():
    with yard_made() as made:
        yield made


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
    "locale": ("plain", 'include = ["locale"]', {"LC_CTYPE", "LC_TIME"}),
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


def german(out=None):
    """de_DE.UTF-8 for the layers of this process: a directory, or in an archive below `out`."""
    words = ["--no-archive", "/usr/lib/locale/de_DE.utf8"] if out is None else ["--prefix", out, "de_DE.UTF-8"]
    if out is not None:
        (out / "usr/lib/locale").mkdir(parents=True)
    subprocess.run(["localedef", "-i", "de_DE", "-f", "UTF-8", *words], check=True, capture_output=True)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def emptied(path):
    """As long as it was, but half of its tables say nothing: setlocale() takes it all the same."""
    size = path.stat().st_size
    path.write_bytes(path.read_bytes()[: size // 2].ljust(size, b"\0"))


@pytest.mark.parametrize("file, damage, words", [
    ("C.utf8/LC_TIME", pathlib.Path.unlink, "the locale C.UTF-8 cannot be loaded"),
    ("C.utf8/LC_CTYPE", cut, "the locale C.UTF-8 cannot be loaded"),
    ("C.utf8/LC_CTYPE", emptied, "the locale C.UTF-8 does not know its letters"),
    ("de_DE.utf8/LC_MESSAGES/SYS_LC_MESSAGES", pathlib.Path.unlink, "/usr/lib/locale/de_DE.utf8 cannot be loaded"),
    ("de_DE.utf8/LC_COLLATE", cut, "/usr/lib/locale/de_DE.utf8 cannot be loaded"),
    ("de_DE.utf8/LC_CTYPE", emptied, "/usr/lib/locale/de_DE.utf8 does not know its letters"),
])
def test_every_locale_of_the_tree_is_tried(jail, yard, file, damage, words):
    german()
    program = compile(yard / "program", CALLS["plain"][0])
    copied = '{ from = "/usr/lib/locale/de_DE.utf8", to = "/usr/lib/locale/de_DE.utf8" }'
    manifest(jail, program, tree='include = ["locale"]\n' + files(copied))
    jail.run("build", "x")
    assert [(probe["works"], probe["said"]) for probe in probes(jail, "locale")] == [
        (True, "C.UTF-8 and all locales of the tree can be used: 2")]
    path = jail.tree("x") / "usr/lib/locale" / file
    whole = path.read_bytes()
    path.unlink()  # it may be the store's
    path.write_bytes(whole)
    assert probes(jail, "locale")[0]["works"]
    damage(path)
    found, = probes(jail, "locale", status=1)
    assert found["said"] == words


def test_every_locale_of_an_archive_is_tried(jail, yard):
    german(yard / "prefix")
    archive = yard / "prefix/usr/lib/locale/locale-archive"
    program = compile(yard / "program", CALLS["plain"][0])
    copied = f'{{ from = "{archive}", to = "/usr/lib/locale/locale-archive" }}'
    manifest(jail, program, tree='include = ["locale"]\n' + files(copied))
    jail.run("build", "x")
    assert probes(jail, "locale")[0]["said"] == "C.UTF-8 and all locales of the tree can be used: 2"
    in_tree = jail.tree("x") / "usr/lib/locale/locale-archive"
    whole = in_tree.read_bytes()
    in_tree.unlink()
    for content, words in ((whole[:10000], "locale-archive ends early"), (b"no" + whole, "locale-archive is none"),
                           (whole[: len(whole) // 2], "de_DE.utf8 of locale-archive cannot be loaded")):
        in_tree.write_bytes(content)
        assert probes(jail, "locale", status=1)[0]["said"] == words


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
