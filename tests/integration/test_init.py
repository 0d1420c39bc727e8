"""jail init: what it lays out, what it leaves alone, and the way back. First below --home, then for the system's own
instance: on layers over /etc, /usr and /var that are gone when this process ends, with jail installed in them."""

import contextlib
import grp
import os
import pathlib
import pwd
import shutil
import ssl
import stat
import subprocess

import pytest

from jailtest import REPO, Instance
from packages import jail_installed

SERVICES = ["dhcpd", "dhcpd6", "dhcrelay", "imapd", "named", "smtpd"]
LEAST = """version = 1
[tree]
binaries = ["/bin/true"]
users = ["mail"]
[[config]]
from = "/etc/thing"
[service]
command = ["/bin/true"]
user = "mail"
"""


@pytest.fixture
def it():
    with Instance() as instance:
        yield instance


def snapshot(top):
    """{path: (mode, uid, gid, content)} of all below."""
    seen = {}
    for path in sorted(pathlib.Path(top).rglob("*")):
        info = path.lstat()
        content = path.read_bytes() if path.is_file() else b""
        seen[str(path.relative_to(top))] = (oct(info.st_mode), info.st_uid, info.st_gid, content)
    return seen


def laid_out(it):
    """Without the records of init."""
    return {path: what for path, what in snapshot(it.home).items() if not path.startswith("state")}


def items(answer):
    """{(kind, what): (outcome, note)} of the one jail."""
    (jail,) = answer["jails"]
    return {(item["kind"], item["what"]): (item["outcome"], item["note"]) for item in jail["items"]}


def example(it, init, name="thing", manifest=LEAST, files=()):
    """A manifest with an example of our own."""
    it.manifest(name, manifest)
    folder = it.home / "manifests/examples" / name
    folder.mkdir(parents=True)
    (folder / "init.toml").write_text(init)
    for file, text in files:
        (folder / file).write_text(text)
    return folder


# ---- what ships


@pytest.mark.parametrize("name", SERVICES)
def test_what_ships_is_laid_out_once_and_taken_away(it, name):
    first = it.run("init", name).stdout
    drop_in = it.home / f"manifests/{name}.toml.d/50-init.toml"
    assert f"{name}: made {drop_in}\n" in first and f"jail --home {it.home} build {name}\n" in first
    assert it.run("lint", name).stdout == ""
    shown = it.json("show", name)
    examples = [entry["from"] for entry in shown.get("config", [])]
    assert examples == ([str(it.home / "config" / name)] if name != "dhcrelay" else [])
    if name == "smtpd":
        assert shown["check"]["command"][1] == f"MAIL_CONFIG={it.home}/config/smtpd"
    assert "@" + "config@" not in drop_in.read_text() + first
    before = snapshot(it.home)
    second = it.run("init", name).stdout
    assert f"{name}: all is there\n" in second and "made" not in second
    assert snapshot(it.home) == before
    undone = it.run("init", "--undo", name).stdout
    assert f"{name}: removed {drop_in}\n" in undone
    assert laid_out(it).keys() <= {"config", "manifests"}, "all but the directories of the instance"
    assert "nothing to undo" in it.run("init", "--undo", name, status=66).stderr


def test_a_dry_run_makes_nothing(it):
    before = snapshot(it.home)
    said = it.run("init", "--dry-run", "--test-certificate", "imapd").stdout
    assert f"would make {it.home}/config/imapd/tls/key.pem" in said
    assert snapshot(it.home) == before
    it.run("init", "imapd")
    before = snapshot(it.home)
    said = it.run("init", "--undo", "--dry-run", "imapd").stdout
    assert f"would remove {it.home}/config/imapd/dovecot.conf" in said
    assert f"would remove {it.home}/config/imapd\n" in said
    assert snapshot(it.home) == before


def test_json_says_the_same(it):
    answer = it.json("init", "named")
    assert (answer["version"], answer["dry_run"], answer["undo"]) == (1, False, False)
    config = it.home / "config/named"
    assert items(answer)[("file", f"{config}/named.conf")] == ("made", "")
    assert items(answer)[("unit", "named.service")][0] == "left"
    assert items(answer)[("volume", "named-cache")] == ("left", "jail build makes it")
    assert answer["jails"][0]["changed"] and f"jail --home {it.home} build named" in answer["jails"][0]["next"]
    again = it.json("init", "named")
    assert not again["jails"][0]["changed"]
    assert items(again)[("directory", str(config))] == ("there", "")


# ---- what is there stays


def test_what_is_there_is_kept_and_said(it):
    config = it.home / "config/named"
    config.mkdir(parents=True)
    (config / "named.conf").write_text("// mine\n")
    (config / "db.127").symlink_to("/nonexistent")
    shutil.copy(REPO / "manifests/examples/named/db.localhost", config)
    said = it.run("init", "-v", "named").stdout
    assert f"named: kept {config}/named.conf: yours, differs from the example\n" in said
    assert f"named: kept {config}/db.127: yours, and no regular file\n" in said
    assert f"named: there {config}/db.localhost\n" in said
    assert f"named: made {config}/db.example.test\n" in said
    it.run("init", "--undo", "named")
    assert sorted(path.name for path in config.iterdir()) == ["db.127", "db.localhost", "named.conf"]
    assert (config / "named.conf").read_text() == "// mine\n"


def test_an_edited_file_outlives_undo(it):
    config = it.init("named")
    (config / "named.conf").write_text("// edited\n")
    (config / "mine").write_text("")
    said = it.run("init", "--undo", "named").stdout
    assert f"named: kept {config}/named.conf: changed since\n" in said
    assert f"named: kept {config}: it is not empty\n" in said
    assert sorted(path.name for path in config.iterdir()) == ["mine", "named.conf"]
    assert not (it.home / "manifests/named.toml.d").exists()


def test_a_file_taken_away_is_made_again_and_undone_all_the_same(it):
    config = it.init("named")
    (config / "db.127").unlink()
    assert f"made {config}/db.127" in it.run("init", "named").stdout
    it.run("init", "--undo", "named")
    assert not config.exists()


# ---- hostile places


@pytest.mark.parametrize("make, words", [
    (lambda path, elsewhere: path.symlink_to(elsewhere), "a symbolic link"),
    (lambda path, elsewhere: path.mkdir() or path.chmod(0o777), "others than root may write in it"),
    (lambda path, elsewhere: path.mkdir() or os.chown(path, 65534, 0), "others than root may write in it"),
    (lambda path, elsewhere: path.write_text(""), "not a directory"),
])
@pytest.mark.parametrize("place", ["config/imapd", "config/imapd/tls"])
def test_a_directory_that_is_not_roots_alone_is_refused(it, make, words, place):
    elsewhere = it.home / "elsewhere"
    elsewhere.mkdir()
    path = it.home / place
    path.parent.mkdir(parents=True, exist_ok=True)
    make(path, elsewhere)
    before = laid_out(it)
    answer = it.run("init", "imapd", status=78)
    assert str(path) in answer.stderr and words in answer.stderr
    assert laid_out(it) == before, "nothing was made"


def test_a_parent_that_others_write_is_refused(it):
    (it.home / "config").mkdir()
    (it.home / "config").chmod(0o775)
    assert "others than root may write" in it.run("init", "named", status=78).stderr
    assert list((it.home / "config").iterdir()) == []


def test_only_root(it):
    if os.geteuid() != 0:
        pytest.skip("is not root anyway")
    done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", *it.command("init", "named")],
                          capture_output=True, text=True)
    assert done.returncode == 77, done.stderr
    assert laid_out(it) == {}


# ---- interrupted


@pytest.mark.parametrize("call", ["mkdirat", "openat", "write", "fchmod", "fsync", "renameat", "renameat2"])
def test_a_run_that_is_killed_is_completed_by_the_next(it, call):
    it.run("init", "smtpd")
    whole = laid_out(it)
    it.run("init", "--undo", "smtpd")
    clean = laid_out(it)
    killed = 0
    first = 30 if call == "openat" else 1  # the ones before read libraries' and manifests' files
    for number in range(first, 500, 7 if call == "openat" else 1):
        done = subprocess.run(
            ["strace", "-qq", "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={number}", "-o", "/dev/null",
             *it.command("init", "smtpd")], capture_output=True, text=True)
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
        killed += 1
        if number % 2:  # else the way back is taken from the middle
            it.run("init", "smtpd")
            assert laid_out(it) == whole, f"{call} {number}"
        elif (it.home / "state/init/smtpd.json").exists():
            it.run("init", "--undo", "smtpd")
            assert laid_out(it) == clean, f"{call} {number}"
        if (it.home / "state/init/smtpd.json").exists():
            it.run("init", "--undo", "smtpd")
        assert laid_out(it).keys() == clean.keys(), f"{call} {number}"
    assert killed >= 1, f"no {call} was ever made"


def test_a_way_back_that_is_killed_is_completed_by_the_next(it):
    it.run("init", "--test-certificate", "smtpd")
    it.run("init", "--undo", "smtpd")
    clean = laid_out(it)
    for number in range(1, 200):
        it.run("init", "--test-certificate", "smtpd")
        done = subprocess.run(
            ["strace", "-qq", "-e", "trace=unlinkat", "-e", f"inject=unlinkat:signal=KILL:when={number}", "-o", "/dev/null",
             *it.command("init", "--undo", "smtpd")], capture_output=True, text=True)
        if done.returncode == 0:
            break
        assert done.returncode == -9, done.stderr
        it.run("init", "--undo", "smtpd", status=None)  # 66 if only the end was missing
        assert laid_out(it) == clean, number
    assert number > 10


# ---- certificates


def openssl(*words):
    return subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True, text=True).stdout


def test_a_test_certificate(it):
    config = it.init("imapd", "--test-certificate")
    key, cert = config / "tls/key.pem", config / "tls/cert.pem"
    info = key.stat()
    assert (stat.S_IMODE(info.st_mode), info.st_uid, info.st_gid) == (0o640, 0, grp.getgrnam("mail").gr_gid)
    text = openssl("x509", "-in", cert, "-noout", "-text")
    assert "prime256v1" in text and "DNS:localhost, IP Address:127.0.0.1" in text and "CA:FALSE" in text
    assert "test certificate, made by jail init" in text and cert.read_text().startswith("A TEST CERTIFICATE")
    assert openssl("verify", "-x509_strict", "-CAfile", cert, "-verify_hostname", "localhost", cert).endswith("OK\n")
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    # There already: neither is made anew. With the key alone, a certificate for that key.
    pair = key.read_text(), cert.read_text()
    assert "all is there" in it.run("init", "--test-certificate", "imapd").stdout
    assert (key.read_text(), cert.read_text()) == pair
    cert.unlink()
    it.run("init", "--test-certificate=mail.example.org", "imapd")
    assert key.read_text() == pair[0] and cert.read_text() != pair[1]
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    assert "DNS:mail.example.org, DNS:localhost" in openssl("x509", "-in", cert, "-noout", "-ext", "subjectAltName")
    it.run("init", "--undo", "imapd")
    assert not config.exists()


def test_smtpds_key_is_roots_alone_and_bears_the_examples_name(it):
    config = it.init("smtpd", "--test-certificate")
    assert stat.S_IMODE((config / "tls/key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE((config / "tls").stat().st_mode) == 0o700
    assert "CN = mail.example.test" in openssl("x509", "-in", config / "tls/cert.pem", "-noout", "-subject")


def test_your_own_certificate_is_never_touched(it):
    tls = it.home / "config/smtpd/tls"
    tls.mkdir(parents=True)
    (tls / "cert.pem").write_text("mine\n")
    said = it.run("init", "--test-certificate", "smtpd").stdout
    assert f"kept {tls}/cert.pem: yours; its key, {tls}/key.pem, is missing" in said
    (tls / "cert.pem").unlink()
    (tls / "key.pem").write_text("mine\n")
    answer = it.run("init", "--test-certificate", "smtpd", status=78)
    assert f"'{tls}/key.pem': the key that is there is none that can be read" in answer.stderr
    it.run("init", "--undo", "smtpd")
    assert [path.name for path in tls.iterdir()] == ["key.pem"]


def test_a_certificate_that_nobody_wants_or_can_have(it):
    assert "wants no certificate" in it.run("init", "--test-certificate", "named", status=64).stderr
    answer = it.run("init", "--test-certificate=no host", "imapd", status=64)
    assert "'no host' is neither a host name nor an address" in answer.stderr
    assert laid_out(it) == {}


# ---- the strict reader


def test_every_problem_of_an_example_at_once(it):
    folder = example(it, '''version = 1
config = "/etc/thing"
unit = "x.service"
units = ["../x.service", "x.target"]
[[file]]
path = "../a"
[[file]]
path = "b"
mode = "0664"
[[file]]
path = "c"
from = "d"
text = ""
[[file]]
path = "sub/e"
''')
    answer = it.run("init", "thing", status=65)
    file = f"{folder}/init.toml"
    assert [line.removeprefix("jail: ") for line in answer.stderr.splitlines()] == [
        f"{file}:3:1: unknown key 'unit' in the example; did you mean 'units'?",
        f"{file}:4:10: units[0]: '../x.service' is not a unit's name such as \"named.service\"",
        f"{file}:4:26: units[1]: 'x.target' is not a unit's name such as \"named.service\"",
        f"{file}:6:8: file.../a.path: '../a' holds '..': write the path without it",
        f"{file}:9:8: file.b.mode: '0664' lets others than root write, or holds more than rwx bits",
        f"{file}:10:1: file.c: both 'from' and 'text' are given; one of them is the content",
        f"{file}:14:1: file.sub/e: no [[directory]] (or none above it) has the path 'sub'",
    ]
    assert laid_out(it).keys() == {str(path.relative_to(it.home)) for path in (it.home / "manifests").rglob("*")} | {"manifests"}


@pytest.mark.parametrize("init, files, status, words", [
    ('version = 1\nconfig = "/etc/other"\n', [], 65, "'/etc/other' is not the place of any [[config]] of the manifest thing"),
    ('version = 1\n[[file]]\npath = "a"\n', [], 65, "the key 'config' is missing"),
    ('version = 1\nconfig = "/etc/thing"\n[[file]]\npath = "a"\n', [], 66, "a': cannot open the example's file: No such file"),
    ('version = 1\ndrop_in = "d.toml"\n', [("d.toml", 'x = "@cnfig@"')], 65, "@cnfig@ stands for nothing"),
    ('version = 1\ndrop_in = "d.toml"\n', [("d.toml", "x = ")], 65, "no TOML"),
    ('version = 2\n', [], 65, "version 2 is not known"),
])
def test_an_example_that_cannot_be_laid_out(it, init, files, status, words):
    example(it, init, files=files)
    answer = it.run("init", "thing", status=status)
    assert words in answer.stderr + answer.stdout
    assert not (it.home / "manifests/thing.toml.d").exists() and not (it.home / "config").exists()


def test_a_link_out_of_the_example_is_not_followed(it):
    folder = example(it, 'version = 1\nconfig = "/etc/thing"\n[[file]]\npath = "a"\n')
    (folder / "a").symlink_to("/etc/shadow")
    it.run("init", "thing", status=74)
    assert not (it.home / "config").exists()


def test_a_manifest_without_an_example(it):
    it.manifest("plain", LEAST)
    answer = it.run("init", "plain", status=66)
    assert "no example configuration comes with this manifest" in answer.stderr
    assert f"{it.home}/manifests/examples/plain/init.toml" in answer.stderr


def test_an_instance_of_a_template_below_a_path_with_a_percent_sign(it):
    folder = it.home / "10%i"
    folder.mkdir()
    it.home = folder  # removed with its parent below
    try:
        example(it, 'version = 1\nconfig = "/etc/thing"\n[[file]]\npath = "a"\ntext = "x"\n', name="thing@")
        it.run("init", "thing@eu")
        assert it.json("show", "thing@eu")["config"][0]["from"] == f"{folder}/config/thing@eu"
    finally:
        it.home = folder.parent


# ---- the system's own instance


JAIL = "/usr/local/bin/jail"


@pytest.fixture(scope="module")
def system():
    with jail_installed():
        yield


def jail(*words, status=0):
    done = subprocess.run([JAIL, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == status, f"jail {' '.join(words)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@contextlib.contextmanager
def initialised(*names):
    try:
        yield [jail("init", name) for name in names]
    finally:
        for name in names:
            if pathlib.Path(f"/var/lib/jail/init/{name}.json").exists():
                jail("init", "--undo", name)


def enabled(unit):
    """In the words of systemctl, which needs no running systemd for it."""
    return subprocess.run(["systemctl", "is-enabled", unit], capture_output=True, text=True).stdout.strip()


def test_the_installed_example_a_user_and_a_mask(system):
    unit = pathlib.Path("/etc/systemd/system/isc-dhcp-server.service")
    assert enabled(unit.name) != "masked"
    with pytest.raises(KeyError):
        pwd.getpwnam("dhcpd")
    with initialised("dhcpd") as (said,):
        assert "dhcpd: made the user dhcpd: a system user who cannot log in\n" in said
        assert f"dhcpd: masked {unit}\n" in said
        assert "/etc/init.d/isc-dhcp-server" in said and "update-rc.d isc-dhcp-server disable" in said
        user = pwd.getpwnam("dhcpd")
        assert 100 <= user.pw_uid < 1000 and user.pw_shell == "/usr/sbin/nologin" and user.pw_dir == "/nonexistent"
        assert grp.getgrgid(user.pw_gid).gr_name == "dhcpd" and not pathlib.Path("/nonexistent").exists()
        assert enabled(unit.name) == "masked" and os.readlink(unit) == "/dev/null"
        assert snapshot("/etc/jail/dhcpd")["dhcpd.conf"][3] == (REPO / "manifests/examples/dhcpd/dhcpd.conf").read_bytes()
        assert "all is there" in jail("init", "dhcpd")
        jail("build", "dhcpd")
        assert os.stat("/var/lib/jail/volumes/dhcpd-leases").st_uid == user.pw_uid
        undone = jail("init", "--undo", "dhcpd")
        assert "kept the user dhcpd: files may belong to it; when none do: userdel dhcpd" in undone
        assert "systemctl start isc-dhcp-server.service" in undone and "jail remove dhcpd" in undone
    assert pwd.getpwnam("dhcpd") == user
    assert enabled(unit.name) != "masked" and not unit.is_symlink()
    assert not os.path.exists("/etc/jail/dhcpd") and not os.path.exists("/etc/jail/manifests/dhcpd.toml.d")
    assert os.path.exists("/var/lib/jail/volumes/dhcpd-leases"), "a volume stays"


def test_a_group_that_is_there_becomes_the_users(system):
    subprocess.run(["groupadd", "--system", "dhcrelay"], check=True)
    with initialised("dhcrelay"):
        assert grp.getgrgid(pwd.getpwnam("dhcrelay").pw_gid).gr_name == "dhcrelay"


def test_a_unit_that_two_jails_replace_stays_masked_for_both(system):
    with initialised("dhcpd", "dhcpd6"):
        assert "the jail dhcpd6 wants it masked, too" in jail("init", "--undo", "dhcpd")
        assert enabled("isc-dhcp-server.service") == "masked"
        jail("init", "--undo", "dhcpd6")
        assert enabled("isc-dhcp-server.service") != "masked"


def test_a_unit_that_is_masked_already_is_not_unmasked(system):
    subprocess.run(["systemctl", "mask", "named.service"], check=True, capture_output=True)
    with initialised("named"):
        pass
    assert enabled("named.service") == "masked"
    subprocess.run(["systemctl", "unmask", "named.service"], check=True, capture_output=True)


def test_the_admins_own_unit_is_never_replaced(system):
    unit = pathlib.Path("/etc/systemd/system/named.service")
    unit.write_text("[Service]\nExecStart=/bin/true\n")
    with initialised("named") as (said,):
        assert f"kept {unit}: yours, so named.service is not masked; run: systemctl disable --now named.service" in said
    assert unit.read_text() == "[Service]\nExecStart=/bin/true\n"
    unit.unlink()
    with initialised("named"):
        unit.unlink()
        unit.write_text("mine\n")
        assert f"kept {unit}: changed since" in jail("init", "--undo", "named")
    assert unit.read_text() == "mine\n"
    unit.unlink()
    assert "left the unit named.service: --keep-units" in jail("init", "--keep-units", "named")
    jail("init", "--undo", "named")
    assert not unit.exists()


def test_a_running_systemd_is_told(system):
    """There is none to be had in here, so a script stands for its systemctl and writes down what it is asked."""
    log = pathlib.Path("/run/asked")
    program = pathlib.Path("/usr/bin/systemctl")
    real = program.read_bytes()
    pathlib.Path("/run/systemd/system").mkdir(parents=True)
    program.write_text(f'#!/bin/sh\necho "$*" >> {log}\n[ "$*" != "is-active --quiet dovecot.socket" ]\n')
    try:
        with initialised("imapd") as (said,):
            asked = log.read_text().splitlines()
            assert "imapd: stopped the unit dovecot.service\n" in said and "stopped the unit dovecot.socket" not in said
            assert asked[-2:] == ["daemon-reload", "stop dovecot.service"]
            log.unlink()
            assert "would stop the unit dovecot.service" in jail("init", "--dry-run", "imapd")
            assert {line.split()[0] for line in log.read_text().splitlines()} == {"is-active"}
            log.unlink()
            jail("init", "--undo", "imapd")
            assert log.read_text().splitlines() == ["daemon-reload"]
    finally:
        program.write_bytes(real)
        os.rmdir("/run/systemd/system")


def test_before_the_package_is_there(system):
    """Then the users are the package's to make, and its daemon does not start by itself when it comes."""
    program = pathlib.Path("/usr/sbin/dhcrelay")
    kept = program.rename("/usr/sbin/dhcrelay.away")
    subprocess.run(["userdel", "dhcrelay"], capture_output=True)
    try:
        with initialised("dhcrelay") as (said,):
            assert "left the user dhcrelay: missing; isc-dhcp-relay is not installed, and may bring it" in said
            assert "Install isc-dhcp-relay\n  jail init dhcrelay\n" in said
            assert enabled("isc-dhcp-relay.service") == "masked"
            with pytest.raises(KeyError):
                pwd.getpwnam("dhcrelay")
            kept.rename(program)
            assert "made the user dhcrelay" in jail("init", "dhcrelay")
    finally:
        if kept.exists():
            kept.rename(program)


def test_nobody_undoes_what_runs_or_takes_the_manifests_place(system):
    pathlib.Path("/etc/jail/manifests/examples/manifests").mkdir(parents=True)
    pathlib.Path("/etc/jail/manifests/manifests.toml").write_text(LEAST)
    pathlib.Path("/etc/jail/manifests/examples/manifests/init.toml").write_text('version = 1\nconfig = "/etc/thing"\n')
    assert "this is where manifests are" in jail("init", "manifests", status=64)
