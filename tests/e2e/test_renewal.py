"""A certificate is renewed as certbot does it, and its deploy hook run: new sessions see the new one, old ones go on."""

import imaplib
import os
import pathlib
import shutil
import smtplib
import ssl
import subprocess

import pytest

from jailtest import REPO, Instance, wait_for
from mailhouse import certificate, lay_out
from test_imapd import MAIL, PASSWORD, USER, configure
from test_named import answers

NAME = "mail.example.test"
HOOK = REPO / "contrib/hooks/certbot-deploy"


class Lineage:
    """/etc/letsencrypt, as certbot lays it out."""

    def __init__(self, folder):
        self.folder, self.number = folder, 0
        self.live, self.archive = folder / "live" / NAME, folder / "archive" / NAME
        for top in (folder / "live", folder / "archive"):
            top.mkdir(parents=True)
            top.chmod(0o700)
        self.live.mkdir()
        self.archive.mkdir()
        self.renew()

    def renew(self):
        self.number += 1
        made = self.folder / "made"
        certificate(made, NAME)
        for source, name, mode in (("key.pem", "privkey", 0o600), ("cert.pem", "fullchain", 0o644)):
            target = self.archive / f"{name}{self.number}.pem"
            (made / source).rename(target)
            target.chmod(mode)
            link = self.live / f"{name}.pem"
            link.unlink(missing_ok=True)
            link.symlink_to(f"../../archive/{NAME}/{target.name}")
        made.rmdir()
        return self.fingerprint()

    def fingerprint(self):
        return ssl.PEM_cert_to_DER_cert((self.live / "fullchain.pem").read_text())


@pytest.fixture(scope="module")
def house():
    with Instance() as it:
        configure(it)  # imapd may not read what is root's: it gets copies, in a directory of its configuration
        conf = lay_out(it)  # smtpd reads keys as root: it shows certbot's own directory
        it.lineage = Lineage(it.home / "letsencrypt")
        it.drop_in("smtpd", f'[[config]]\nfrom = "{it.lineage.folder}"\nto = "/etc/letsencrypt"\n', "60-tls.toml")
        main = (conf / "main.cf").read_text()
        live = f"/etc/letsencrypt/live/{NAME}"
        (conf / "main.cf").write_text(
            main.replace("/etc/postfix/tls/key.pem, /etc/postfix/tls/cert.pem", f"{live}/privkey.pem, {live}/fullchain.pem"))
        shutil.copytree(REPO / "manifests/examples/named", it.home / "bind")
        it.drop_in("named", f'[[config]]\nfrom = "{it.home}/bind"\nto = "/etc/bind"\n')
        it.table = it.home / "certificates"
        it.table.write_text(f"# a comment\n\nother.example.test {it.home}/nowhere mail\n{NAME} {it.config}/tls mail\n")
        it.run("build", "imapd", "smtpd", "named")
        it.start_jaild()
        it.run("start", "imapd", "smtpd", "named")
        yield it


def hook(it, status=0, **env):
    jail = it.home / "jail"  # the command that the hook finds, for this instance
    jail.write_text('#!/bin/sh\nexec ' + " ".join(it.command()) + ' "$@"\n')
    jail.chmod(0o755)
    done = subprocess.run([HOOK], capture_output=True, text=True, timeout=60,
                          env={**os.environ, "JAIL": str(jail), "JAIL_CERTIFICATES": str(it.table),
                               "RENEWED_LINEAGE": str(it.lineage.live), **env})
    assert done.returncode == status, done.stdout + done.stderr
    return done


def seen(port, *starttls):
    """The certificate that a new client is shown."""
    done = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{port}", *starttls], input="", capture_output=True, text=True)
    text = done.stdout
    assert "-----BEGIN CERTIFICATE-----" in text, text + done.stderr
    return ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN"):text.index("-----END CERTIFICATE-----") + 25])


def at_imapd():
    return seen(993)


def at_smtpd():
    return seen(25, "-starttls", "smtp")


def test_what_is_renewed_is_shown_and_nobody_is_logged_out(house):
    hook(house)
    first = house.lineage.fingerprint()
    wait_for(lambda: at_imapd() == first and at_smtpd() == first, 10, "the first certificate")
    trust = ssl._create_unverified_context()
    imap = imaplib.IMAP4_SSL("127.0.0.1", 993, ssl_context=trust, timeout=20)
    imap.login(USER, PASSWORD)
    smtp = smtplib.SMTP("127.0.0.1", 25, timeout=20)
    smtp.starttls(context=trust)
    smtp.ehlo()
    pids = {name: house.status(name)["pid"] for name in ("imapd", "smtpd", "named")}

    second = house.lineage.renew()
    assert first != second and at_imapd() == first, "nothing happens before the hook"
    done = hook(house)
    assert "imapd: reloaded" in done.stderr and "smtpd: reloaded" in done.stderr and "named" not in done.stderr
    wait_for(lambda: at_imapd() == second and at_smtpd() == second, 10, "the second certificate")

    assert imap.select()[0] == "OK"
    assert smtp.mail("someone@example.org")[0] == 250 and smtp.rcpt("bob@example.test")[0] == 250
    assert smtp.data(b"Subject: x\r\n\r\nsent in an old session\r\n")[0] == 250
    smtp.quit()
    imap.logout()
    assert {name: house.status(name)["pid"] for name in pids} == pids and answers()


def test_the_copies_are_readable_for_the_jail_alone(house):
    folder = house.config / "tls"
    key, cert = (folder / name for name in ("key.pem", "cert.pem"))
    assert (key.stat().st_mode & 0o777, key.stat().st_uid, key.stat().st_gid) == (0o640, 0, MAIL.pw_gid)
    assert cert.stat().st_mode & 0o777 == 0o644
    assert sorted(path.name for path in folder.iterdir()) == ["cert.pem", "key.pem"], "nothing is left beside them"


def test_a_directory_that_is_gone_keeps_nobody_else_from_the_new_one(house):
    house.table.write_text(f"{NAME} {house.home}/nowhere mail\n{NAME} {house.config}/tls mail\n")
    third = house.lineage.renew()
    done = hook(house, status=1)
    assert "nowhere is no directory" in done.stderr
    wait_for(lambda: at_imapd() == third and at_smtpd() == third, 10, "the third certificate")


def test_reload_finds_who_uses_a_path(house):
    reloaded = lambda path: sorted(line.split(":")[0] for line in house.run("reload", "--using", path).stderr.splitlines() if "reloaded" in line)
    assert reloaded(house.home / "bind/named.conf") == ["named"]
    assert reloaded(f"{house.home}/bind/") == ["named"]
    assert reloaded(house.home) == ["imapd", "named", "smtpd"]
    assert reloaded(house.lineage.live / "privkey.pem") == ["smtpd"]
    link = house.home / "link-to-bind"
    link.symlink_to(house.home / "bind")
    assert reloaded(link / "named.conf") == ["named"]
    # A volume is no configuration; neighbours of a name are others.
    assert reloaded(house.home / "state/volumes/mail") == []
    (house.home / "bind-other").mkdir()
    done = house.run("reload", "--using", house.home / "bind-other")
    assert done.stderr.startswith("no service that runs uses")
    assert "no such file" in house.run("reload", "--using", house.home / "missing", status=66).stderr.lower()
    assert "which jail" in house.run("reload", status=64).stderr
    house.run("stop", "named")
    assert reloaded(house.home / "bind") == []
    both = house.run("reload", "--using", house.lineage.live, "--using", house.config)
    assert "imapd: reloaded" in both.stderr and "smtpd: reloaded" in both.stderr
