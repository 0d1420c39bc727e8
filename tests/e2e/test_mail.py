"""A mail house: smtpd and imapd in a jail each, from the manifests and examples that we ship, under one jaild. They share
the volumes `mail` and `mail-auth`, and nothing else."""

import imaplib
import os
import pathlib
import pwd
import re

import pytest

from jailtest import Instance, wait_for
from mailhouse import lay_out, swaks
from test_imapd import PASSWORD, USER, configure

SERVES = {"smtpd": "swaks", "imapd": "imaplib"}

SUBMISSION = "127.0.0.1:587"
BOTH = ("imapd", "smtpd")


@pytest.fixture(scope="module")
def house():
    with Instance() as it:
        configure(it)
        it.conf = lay_out(it)
        it.run("build", *BOTH)
        it.start_jaild()
        it.run("start", "imapd")
        it.run("start", "smtpd")
        yield it


def send(it, body, password=PASSWORD, sender=USER):
    """Over STARTTLS, by a client that trusts smtpd's certificate and no other."""
    return swaks("-tls", "--tls-verify", "--tls-ca-path", str(it.conf / "tls/cert.pem"), "-a", "PLAIN", "-au", USER,
                 "-ap", password, "--from", sender, "--to", USER, "--body", body, server=SUBMISSION)


def mailbox(it):
    client = imaplib.IMAP4_SSL("localhost", 993, ssl_context=it.trust, timeout=20)
    client.login(USER, PASSWORD)
    assert client.select()[0] == "OK"
    return client


def found(it, token):
    """The numbers of the messages that hold `token`, asked for in a session of its own."""
    with mailbox(it) as client:
        return client.search(None, "BODY", token)[1][0].split()


def test_what_is_sent_with_a_password_is_read_with_it(house):
    code, talk = send(house, "token-round")
    assert code == 0 and "235 2.7.0" in talk, talk
    number = wait_for(lambda: found(house, "token-round"), 30, "the message in IMAP")
    assert len(number) == 1
    with mailbox(house) as client:
        text = client.fetch(number[0], "(RFC822)")[1][0][1].decode()
        assert "token-round" in text and re.search(r"^Delivered-To: " + re.escape(USER), text, re.M)
        # One wrote the file, the other moves it (new to cur, with flags) and removes it.
        assert client.store(number[0], "+FLAGS", "\\Deleted")[0] == "OK"
        assert client.expunge() == ("OK", [number[0]])
    assert found(house, "token-round") == []


def test_a_wrong_password_is_refused(house):
    code, talk = send(house, "token-wrong", password="wrong")
    assert code == 28 and "535 5.7.8" in talk, talk


def test_after_a_restart_of_imapd_passwords_are_asked_anew(house):
    house.run("restart", "imapd")
    code, talk = send(house, "token-again")
    assert code == 0, talk
    assert len(wait_for(lambda: found(house, "token-again"), 30, "the message in IMAP")) == 1


def test_neither_sees_more_of_the_other_than_the_two_volumes(house):
    imapd, smtpd = (pathlib.Path(f"/proc/{house.status(name)['pid']}/root") for name in BOTH)
    mail = pwd.getpwnam("mail").pw_uid
    for ours, theirs, volume in (("var/mail/vhosts", "var/mail/vhosts", "mail"), ("run/mail-auth", "var/spool/postfix/auth", "mail-auth")):
        a, b, c = (os.stat(path) for path in (imapd / ours, smtpd / theirs, house.home / "state/volumes" / volume))
        assert (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino) == (c.st_dev, c.st_ino), volume
        assert c.st_uid == mail
    assert (imapd / "etc/dovecot/users").exists() and not (smtpd / "etc/dovecot").exists()
    assert (smtpd / "etc/postfix/main.cf").exists() and not (imapd / "etc/postfix").exists()
    assert not (imapd / "var/spool/postfix").exists() and not (smtpd / "run/dovecot").exists()
    # What the 0666 of the socket relies on.
    assert (house.home / "state").stat().st_mode & 0o077 == 0 or (house.home / "state/volumes").stat().st_mode & 0o077 == 0
