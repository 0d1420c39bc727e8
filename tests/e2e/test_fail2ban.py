"""The filters for fail2ban, against what Postfix and Dovecot in their jails really log of a wrong password."""

import contextlib
import imaplib
import poplib
import re
import shutil
import socket
import ssl
import subprocess

import pytest

from jailtest import REPO, wait_for
from mailhouse import swaks
from test_imapd import PASSWORD, USER
from test_mail import SUBMISSION, house  # noqa: F401 a fixture

SHIPPED = REPO / "contrib/fail2ban"
# A client that wants somebody else to be banned.
FORGER = "x>, method=PLAIN, rip=192.0.2.66, lip=127.0.0.1, TLS, session=<AAAA"


def log(it, name):
    return it.home / "log" / f"{name}.log"


def lines(it, name, pattern):
    return re.findall(pattern, log(it, name).read_text())


def banned(path, name):
    """Whom the filter finds in a log, a line each."""
    done = subprocess.run(["fail2ban-regex", "--out", "ip", str(path), str(SHIPPED / f"filter.d/{name}.conf")],
                          capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split()


def imap_login(it, user, password, host="127.0.0.1"):
    client = imaplib.IMAP4_SSL(host, 993, ssl_context=it.trust, timeout=30)
    try:
        with contextlib.suppress(imaplib.IMAP4.error):
            client.login(f'"{user}"', password)
    finally:
        with contextlib.suppress(imaplib.IMAP4.error, OSError):
            client.logout()


@pytest.fixture(scope="module")
def guessed(house):  # noqa: F811
    """What guessers do; and what others do, who must not be banned."""
    assert swaks("-tls", "-a", "PLAIN", "-au", USER, "-ap", "wrong", "--from", USER, "--to", USER, server=SUBMISSION)[0] == 28
    assert swaks("-tls", "-a", "PLAIN", "-au", USER, "-ap", PASSWORD, "--from", USER, "--to", USER, server=SUBMISSION)[0] == 0
    imap_login(house, USER, "wrong")
    imap_login(house, USER, PASSWORD)
    imap_login(house, FORGER, "wrong")
    client = poplib.POP3_SSL("::1", 995, context=ssl._create_unverified_context(), timeout=30)
    with contextlib.suppress(poplib.error_proto):
        client.user(USER)
        client.pass_("wrong")
    client.close()  # without a word
    socket.create_connection(("127.0.0.1", 993)).close()
    wait_for(lambda: len(lines(house, "imapd", r"\(auth failed")) >= 3, 15, "Dovecot's words")
    wait_for(lambda: lines(house, "smtpd", "authentication failed"), 15, "Postfix's words")
    return house


def test_a_wrong_password_at_smtpd_is_found(guessed):
    assert banned(log(guessed, "smtpd"), "jail-smtpd") == ["127.0.0.1"]


def test_a_wrong_password_at_imapd_is_found_and_nobody_elses_address(guessed):
    assert lines(guessed, "imapd", r"rip=192\.0\.2\.66"), "the forger's words are in the log"
    assert sorted(banned(log(guessed, "imapd"), "jail-imapd")) == ["127.0.0.1", "127.0.0.1", "::1"]


def test_the_times_are_the_lines_own(guessed):
    for name in ("smtpd", "imapd"):
        done = subprocess.run(["fail2ban-regex", "-v", str(log(guessed, name)), str(SHIPPED / f"filter.d/jail-{name}.conf")],
                              capture_output=True, text=True, timeout=60)
        found = re.search(r"\[(\d+)\] \{\^LN-BEG\}Year-Month-DayT", done.stdout)
        assert found and int(found.group(1)) == len(log(guessed, name).read_text().splitlines()), done.stdout


def test_fail2ban_takes_the_configuration(guessed, tmp_path):
    config = tmp_path / "fail2ban"
    shutil.copytree("/etc/fail2ban", config)
    (config / "jail.d/defaults-debian.conf").unlink()  # its sshd wants a log that not every machine has
    for folder in ("filter.d", "jail.d"):
        shutil.copytree(SHIPPED / folder, config / folder, dirs_exist_ok=True)
    shipped = config / "jail.d/jail-mail.conf"
    shipped.write_text(shipped.read_text().replace("/var/log/jail", str(guessed.home / "log")))
    done = subprocess.run(["fail2ban-client", "-c", str(config), "-d"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "ERROR" not in done.stdout + done.stderr, done.stdout + done.stderr
    for name in ("smtpd", "imapd"):
        assert f"['start', 'jail-{name}']" in done.stdout and str(log(guessed, name)) in done.stdout
