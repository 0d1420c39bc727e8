"""Cyrus in its jail, from the manifest that we ship, beside Postfix in its own: mail goes from one to the other by LMTP."""

import imaplib
import os
import pathlib
import poplib
import pwd
import re
import shutil
import signal
import socket
import ssl
import subprocess
import time

import pytest

from audit import Denials
from imaphouse import (PASSWORD, USER, FromElsewhere, Load, idle_sees, imap, logged_in, make_certificate, message, ok, pop,
                       pop_logged_in, processes, text_of, the_certificate_verifies_and_old_tls_is_refused, unprivileged)
from jailtest import REPO, Instance, own_network, send, wait_for
from mailhouse import lay_out, swaks
from packages import installed

SERVES = {"imapd-cyrus": "imaplib, poplib, openssl s_client, Postfix by LMTP"}

NAME = "imapd-cyrus"
NET_BIND_SERVICE = 1 << 10
CALLS = ["@network-server", "@file-write", "wait4"]


@pytest.fixture(scope="session")
def network():
    """In place of the one of conftest.py: the packages first, for the mount namespace is to stay this one."""
    with installed("cyrus"):
        own_network()
        yield


@pytest.fixture(scope="module")
def denials(network):
    with Denials() as log:
        yield log


def configure(it):
    """The example as its README says."""
    it.cyrus = pwd.getpwnam("cyrus")
    it.config = it.home / NAME
    shutil.copytree(REPO / "manifests/examples/imapd-cyrus", it.config)
    settings = it.config / "imapd.conf"
    settings.write_text(settings.read_text().replace("failedloginpause: 3s", "failedloginpause: 1s"))  # the test's time
    make_certificate(it.config / "tls", it.cyrus.pw_gid)
    database = it.config / "sasldb2"
    user, domain = USER.split("@")
    subprocess.run(["saslpasswd2", "-p", "-c", "-f", database, "-u", domain, user], input=PASSWORD, text=True, check=True)
    os.chown(database, 0, it.cyrus.pw_gid)
    database.chmod(0o640)
    it.drop_in(NAME, f'[[config]]\nfrom = "{it.config}"\nto = "/etc/cyrus"\n')
    it.trust = ssl.create_default_context(cafile=it.config / "tls/cert.pem")


def configure_smtpd(it):
    it.conf = lay_out(it)
    with (it.conf / "main.cf").open("a") as file:
        file.write("virtual_transport = lmtp:unix:/run/mail-lmtp/cyrus\n")
        # What could not be delivered is tried again before the test's patience ends.
        file.write("queue_run_delay = 1s\nminimal_backoff_time = 1s\nmaximal_backoff_time = 1s\ntransport_retry_time = 1s\n")
    it.drop_in("smtpd", (REPO / "manifests/examples/smtpd/cyrus.toml").read_text(), "40-cyrus.toml")


@pytest.fixture(scope="module")
def instance(denials):
    with Instance() as it:
        configure(it)
        configure_smtpd(it)
        it.run("build", NAME, "smtpd")
        it.start_jaild()
        it.run("start", NAME)
        it.run("start", "smtpd")
        yield it


@pytest.fixture(autouse=True)
def up(instance):
    wait_for(lambda: instance.status(NAME)["state"] == "ready", 30, "Cyrus is ready")


def deliver(it, ident, body="Hello"):
    """By SMTP to the jail smtpd, as a stranger."""
    code, talk = swaks("--from", "bob@example.org", "--to", USER, "--header", f"Subject: {ident}", "--body", body)
    assert code == 0, talk


# ---- what is served, and what is not


def test_what_smtpd_took_is_fetched(instance):
    deliver(instance, "by-smtp", "the very words")
    text = text_of(instance, "by-smtp")
    assert b"the very words" in text and b"bob@example.org" in text
    client = pop_logged_in(instance)
    texts = [b"\n".join(client.retr(number + 1)[1]) for number in range(client.stat()[0])]
    assert any(b"Subject: by-smtp" in text for text in texts)
    client.quit()


def test_mail_waits_while_cyrus_is_down(instance):
    instance.run("stop", NAME)
    deliver(instance, "waits")
    instance.run("start", NAME)
    assert b"waits" in text_of(instance, "waits")


def test_a_wrong_password_is_refused(instance):
    client = imap(instance)
    with pytest.raises(imaplib.IMAP4.error, match="Login failed"):
        client.login(USER, "wrong")
    client.shutdown()
    client = pop(instance)
    client.user(USER)
    with pytest.raises(poplib.error_proto, match="AUTH"):
        client.pass_("wrong")
    client.close()


def test_143_refuses_a_plain_login_and_takes_one_behind_starttls(instance):
    client = FromElsewhere("127.0.0.1", 143, timeout=20)
    assert "STARTTLS" in client.capabilities and "LOGINDISABLED" in client.capabilities
    assert not any(word.startswith("AUTH=") for word in client.capabilities)
    with pytest.raises(imaplib.IMAP4.error, match="[Ll]ogin"):
        client.login(USER, PASSWORD)
    ok(client.starttls(instance.trust))
    ok(client.login(USER, PASSWORD))
    client.logout()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("localhost", 110), 5)


@pytest.mark.parametrize("port", [993, 995])
def test_the_certificate_verifies_and_old_tls_is_refused(instance, port):
    the_certificate_verifies_and_old_tls_is_refused(instance, instance.config / "tls/cert.pem", port)


def test_idle_sees_a_new_message(instance):
    logged_in(instance).logout()
    took = idle_sees(instance, lambda: deliver(instance, "for-idle"))
    print(f"IDLE told of the message after {took * 1000:.0f} ms, of which most is swaks")


def test_no_name_and_version_are_given_away(instance):
    client = imap(instance)
    ok(client.xatom("ID", "NIL"))
    said = client.welcome + b"".join(client.response("ID")[1])
    client.shutdown()
    other = pop(instance)
    said += other.getwelcome()
    other.close()
    assert b"yrus" not in said and b"3.6" not in said and b"ebian" not in said, said


def test_the_check_sees_what_an_open_port_hides(instance):
    """A key that cannot be read: master listens, and nobody can speak TLS."""
    key = instance.config / "tls/key.pem"
    key.chmod(0o600)
    try:
        instance.run("stop", NAME)
        instance.drop_in(NAME, '[service]\nready_timeout = "3s"\nrestart.on = "never"\n', "60-impatient.toml")
        instance.run("build", NAME)
        assert "waiting for the check" in instance.run("start", NAME, status=1).stderr
    finally:
        key.chmod(0o640)
        (instance.home / f"manifests/{NAME}.toml.d/60-impatient.toml").unlink()
        instance.run("build", NAME)
        instance.run("start", NAME)


# ---- what it may


def test_every_process_is_unprivileged(instance):
    client, other = logged_in(instance), pop_logged_in(instance)
    names = unprivileged(instance, NAME, instance.cyrus, NET_BIND_SERVICE)
    assert {"master", "idled", "imapd", "pop3d"} <= names, names
    client.logout()
    other.quit()


def test_the_tree_verifies_and_holds_no_shell(instance):
    instance.run("verify", NAME)
    paths = {entry["path"] for entry in instance.json("lock", NAME)["entries"]}
    assert {"libplain.so", "libsasldb.so"} <= {pathlib.Path(path).name for path in paths if "/sasl2/" in path}
    assert not {"/bin/sh", "/usr/bin/sh", "/usr/bin/bash", "/usr/bin/perl", "/usr/bin/openssl"} & paths


# ---- the rich workload, under the filter


def running(it, comm):
    """The pids of the jail's processes of that name, but for the dead."""
    found = []
    for pid in processes(it, NAME):
        try:
            _, name, state = re.split(r"[()]", pathlib.Path(f"/proc/{pid}/stat").read_text())
        except OSError:
            continue
        if name == comm and state.split()[0] != "Z":
            found.append(pid)
    return found


def workload(it):
    """What people do with a mailbox, and a reload. Raises where something does not work."""
    client = logged_in(it)
    ok(client.select())
    ok(client.append("INBOX", r"(\Seen)", None, message("appended", "x" * 100_000)))
    ok(client.append("INBOX", None, None, message("umlaut", "Grüße").replace(
        b"\r\n\r\n", b'\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset="utf-8"\r\nContent-Transfer-Encoding: 8bit\r\n\r\n', 1)))
    client.literal = "Grüße".encode()
    found = ok(client.search("UTF-8", "BODY"))[0].split()
    assert found, "searched in its own character set"
    ok(client.create("Projects"))
    ok(client.subscribe("Projects"))
    ok(client.copy(found[0], "Projects"))
    ok(client.uid("MOVE", ok(client.uid("SEARCH", "SUBJECT", "appended"))[0].split()[0].decode(), "Projects"))
    ok(client.rename("Projects", "Done"))
    assert b"2" in ok(client.status("Done", "(MESSAGES)"))[0]
    assert all(name in b"".join(ok(client.list())) for name in (b"Drafts", b"Junk", b"Sent", b"Trash"))
    ok(client.sort("(REVERSE DATE)", "UTF-8", "ALL"))
    ok(client.thread("REFERENCES", "UTF-8", "ALL"))
    ok(client.fetch("1:*", "(FLAGS ENVELOPE BODYSTRUCTURE RFC822.SIZE)"))
    ok(client.select("Done"))
    ok(client.store("1", "+FLAGS", r"(\Deleted Important)"))
    ok(client.expunge())
    ok(client.select())
    ok(client.delete("Done"))
    idled = running(it, "idled")
    it.run("reload", NAME)
    wait_for(lambda: it.status(NAME)["state"] == "ready", 20, "reloaded")
    ok(client.noop())  # who is logged in stays
    wait_for(lambda: running(it, "idled") not in ([], idled), 5, "a new idled, as master has seen the end of the old one")
    client.logout()
    other = pop_logged_in(it)
    other.uidl()
    other.dele(other.stat()[0])
    other.quit()
    for _ in range(60):
        logged_in(it).shutdown()
    test_143_refuses_a_plain_login_and_takes_one_behind_starttls(it)
    test_a_wrong_password_is_refused(it)


def test_the_rich_workload_is_denied_nothing(instance, denials):
    instance.run("restart", NAME)
    denials.take(instance.cyrus.pw_uid)
    deliver(instance, "rich")
    text_of(instance, "rich")
    workload(instance)
    test_idle_sees_a_new_message(instance)
    instance.run("restart", NAME)
    assert denials.take(instance.cyrus.pw_uid) == set()


@pytest.mark.parametrize("what", [*(f'syscalls = ["{calls}"]' for calls in CALLS), 'capabilities = ["net_bind_service"]'])
def test_with_less_it_fails(denials, what, instance):
    instance.run("stop", NAME)
    try:
        with Instance() as it:
            configure(it)
            it.drop_in(NAME, f'[remove]\nsandbox.{what}\n[service]\nready_timeout = "4s"\nrestart.on = "never"\nstop.timeout = "2s"\n', "60-less.toml")
            it.run("build", NAME)
            it.start_jaild()
            denials.take(it.cyrus.pw_uid)
            with pytest.raises((AssertionError, OSError, imaplib.IMAP4.error, poplib.error_proto)) as told:
                it.run("start", NAME)
                workload(it)
            refused = denials.take(it.cyrus.pw_uid)
        print(f"without {what}: {str(told.value).splitlines()[:2]}; refused {sorted(refused)[:6]}")
        assert refused or "capabilities" in what, "the audit log tells which"
    finally:
        instance.run("start", NAME)


def test_nothing_else_is_allowed(instance):
    shown = instance.json("show", NAME)["sandbox"]
    assert set(shown["syscalls"]) == {"@default", *CALLS}
    assert shown["capabilities"] == ["net_bind_service"]
    assert "connect" not in shown["ports"]


# ---- life and death


def test_sigkill_of_the_master_while_clients_log_in(instance):
    before = instance.status(NAME)
    with Load(instance) as load:
        time.sleep(1)
        send(before["pid"], signal.SIGKILL)
        killed = time.monotonic()
        wait_for(lambda: (s := instance.status(NAME))["state"] == "ready" and s["pid"] != before["pid"], 20, "another life")
        back = time.monotonic()
        time.sleep(1)
    load.report("SIGKILL of the master")
    print(f"ready again after {(back - killed) * 1000:.0f} ms")
    assert "killed by SIGKILL" in instance.status(NAME)["reason"]
    # Its sockets die with it: who comes meanwhile is refused, and who comes later is served.
    assert all(begin < back for begin, _ in load.lost), load.lost
    assert all(killed - 0.1 < begin < back for begin in load.refused)
    assert any(begin > killed for begin, _ in load.served)
    deliver(instance, "after-death")
    text_of(instance, "after-death")


def test_sigkill_of_jaild_is_noticed_by_nobody(instance):
    pid = instance.status(NAME)["pid"]
    client = logged_in(instance)
    with Load(instance) as load:
        for _ in range(3):
            jaild = instance.supervisors()["jaild_pid"]
            send(jaild, signal.SIGKILL)
            wait_for(lambda old=jaild: instance.supervisors().get("jaild_pid", old) not in (0, old), what="a new jaild")
            time.sleep(0.2)
    load.report("SIGKILL of jaild, three times")
    assert (load.lost, load.refused) == ([], [])
    assert instance.status(NAME)["pid"] == pid
    ok(client.noop())
    client.logout()


def test_reload_sees_the_admins_edit(instance):
    file = instance.config / "imapd.conf"
    text = file.read_text()
    pid = instance.status(NAME)["pid"]
    client = logged_in(instance)
    file.write_text(text.replace("serverinfo: off", "serverinfo: min").replace("servername: imapd", "servername: edited"))
    try:
        instance.run("reload", NAME)
        wait_for(lambda: b"edited" in imap(instance).welcome, what="the edit")
    finally:
        file.write_text(text)
        instance.run("reload", NAME)
    wait_for(lambda: b"edited" not in imap(instance).welcome, what="the old text")
    assert instance.status(NAME)["pid"] == pid
    ok(client.noop())
    client.logout()


def test_a_broken_configuration_is_told_in_the_daemons_words(instance):
    file = instance.config / "imapd.conf"
    text = file.read_text()
    file.write_text(text.replace("allowplaintext: no", "allowplaintext: perhaps"))
    try:
        instance.run("stop", NAME)
        instance.run("start", NAME, status=1)
        told = instance.run("status", NAME, status=None).stdout
        assert "non-switch value for allowplaintext in line" in told, told
    finally:
        file.write_text(text)
        instance.run("stop", NAME)
        instance.run("start", NAME)


def test_logs_are_relayed(instance):
    logged_in(instance).logout()
    wait_for(lambda: f"{USER} plaintext+TLS User logged in" in instance.run("logs", NAME, "-n", "all").stdout, what="the login in the log")
    assert PASSWORD not in instance.run("logs", NAME, "-n", "all").stdout


def test_a_stop_leaves_nothing_behind(instance):
    all_of_it = processes(instance, NAME)
    instance.run("stop", NAME)
    assert [pid for pid in all_of_it if pathlib.Path(f"/proc/{pid}").exists()] == []
    for port in (143, 993, 995):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("localhost", port), 5)
    instance.run("start", NAME)
    logged_in(instance).logout()
