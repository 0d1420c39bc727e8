"""What cron writes, on a host whose mail server is in a jail: as the example's README says, word for word, in layers over the
machine's own directories."""

import pathlib
import re
import subprocess

import pytest

import packages
from jailtest import REPO, Instance, wait_for
from mailhouse import lay_out, messages

EXAMPLE = REPO / "manifests/examples/smtpd"
CRON = ["/usr/sbin/sendmail", "-FCronDaemon", "-i", "-odi", "-oem", "-oi", "-t"]
DEBIAN_CRON = ["/usr/sbin/sendmail", "-i", "-FCronDaemon", "-B8BITMIME", "-oem"]
BODY = "token-{0}\n.\nAfter a dot alone.\n"
MAIL = "From: {user} (Cron Daemon)\nTo: {user}\nSubject: Cron <{user}@host> run-parts\nX-Cron-Env: <PATH=/usr/bin:/bin>\n\n" + BODY


def commands():
    """Those of the README, without the first: the package is there."""
    text = (EXAMPLE / "README.md").read_text().split("## Mail of this host", 1)[1]
    found = [line.split("#")[0].strip() for line in re.findall(r"^    (\S.*)$", text, re.M)]
    assert [line.split()[0] for line in found] == ["apt-get", "cp", "dpkg-divert", "ln", "echo"], found
    return found[1:-1]


@pytest.fixture(scope="module")
def house():
    before = pathlib.Path("/usr/sbin/sendmail").read_bytes()
    with packages.layered(), Instance() as it:
        for command in commands():
            subprocess.run(["sh", "-e", "-c", command], cwd=EXAMPLE, check=True, capture_output=True)
        lay_out(it)
        it.run("build", "smtpd")
        it.start_jaild()
        it.run("start", "smtpd")
        yield it
    assert pathlib.Path("/usr/sbin/sendmail").read_bytes() == before, "the machine's own"


def sendmail(*command, text, user="nobody"):
    return subprocess.run(command, input=text, text=True, capture_output=True, user=user, group="nogroup", extra_groups=[],
                          cwd="/", env={"PATH": "/usr/bin:/bin", "LOGNAME": user, "USER": user, "HOME": "/"}, timeout=30)


def arrived(it, token):
    return wait_for(lambda: [text for text in messages(it, "alice") if token in text], 15, token)[0]


@pytest.mark.parametrize("user", ["nobody", "www-data"])
def test_mail_of_cron_is_found_behind_the_jail(house, user):
    token = f"cron-{user}"
    done = sendmail(*CRON, text=MAIL.format(token, user=user), user=user)
    assert done.returncode == 0, done.stderr
    text = arrived(house, token)
    assert f"Return-Path: <{user}@example.test>" in text and "Delivered-To: alice@example.test" in text
    assert f"Subject: Cron <{user}@host> run-parts" in text and "After a dot alone." in text


def test_a_recipient_on_the_command_line_as_debians_cron_names_it(house):
    done = sendmail(*DEBIAN_CRON, "root", text=MAIL.format("debian", user="root"))
    assert done.returncode == 0, done.stderr
    text = arrived(house, "token-debian")
    assert re.search(r"^From: .*root@example.test", text, re.M) and "Subject: Cron <root@host>" in text, text


def test_nothing_goes_into_the_hosts_own_queue(house):
    assert not [path for path in pathlib.Path("/var/spool/postfix").rglob("*") if path.is_file() and "maildrop" in path.parts]


def test_while_smtpd_is_down_the_caller_is_told(house):
    house.run("stop", "smtpd")
    done = sendmail(*CRON, text=MAIL.format("lost", user="nobody"))
    assert done.returncode == 75 and "127.0.0.1" in done.stderr, (done.returncode, done.stderr)
    house.run("start", "smtpd")
