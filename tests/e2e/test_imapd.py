"""Dovecot in its jail, from the manifest that we ship, against real IMAP and POP3 clients: rootless, its sockets passed."""

import imaplib
import os
import pathlib
import poplib
import pwd
import shutil
import signal
import socket
import ssl
import subprocess
import time

import pytest

from imaphouse import (PASSWORD, USER, FromElsewhere, Load, idle_sees, imap, logged_in, make_certificate, message, ok, processes,
                       the_certificate_verifies_and_old_tls_is_refused, unprivileged)
from jailtest import REPO, Instance, send, wait_for

SERVES = {"imapd": "imaplib, poplib, openssl s_client"}

MAIL = pwd.getpwnam("mail")


def configure(it):
    """The example as the README says, with one user and a certificate of its own."""
    it.config = it.home / "imapd"
    shutil.copytree(REPO / "manifests/examples/imapd", it.config)
    make_certificate(it.config / "tls", MAIL.pw_gid)
    done = subprocess.run(["doveadm", "pw", "-s", "SHA512-CRYPT", "-r", "5000", "-p", PASSWORD], check=True, capture_output=True, text=True)
    users = it.config / "users"
    users.write_text(f"{USER}:{done.stdout.strip()}\n")
    os.chown(users, 0, MAIL.pw_gid)
    users.chmod(0o640)
    it.drop_in("imapd", f'[[config]]\nfrom = "{it.config}"\nto = "/etc/dovecot"\n')
    it.trust = ssl.create_default_context(cafile=it.config / "tls/cert.pem")


@pytest.fixture(scope="module")
def instance():
    with Instance() as it:
        configure(it)
        it.run("build", "imapd")
        it.start_jaild()
        it.run("start", "imapd")
        yield it


@pytest.fixture(autouse=True)
def up(instance):
    wait_for(lambda: instance.status("imapd")["state"] == "ready", 30, "imapd is ready")


def deliver(it, text, name=None):
    """As an MTA does: written to tmp, moved to new."""
    home = it.home / "state/volumes/mail/example.test/alice/Maildir"
    for part in ("cur", "new", "tmp"):
        folder = home / part
        folder.mkdir(parents=True, exist_ok=True)
    for folder in (home.parent.parent, home.parent, home, home / "cur", home / "new", home / "tmp"):
        os.chown(folder, MAIL.pw_uid, MAIL.pw_gid)
        folder.chmod(0o700)
    file = home / "tmp" / (name or f"{time.time_ns()}.P{os.getpid()}.test")
    file.write_bytes(text)
    os.chown(file, MAIL.pw_uid, MAIL.pw_gid)
    file.rename(home / "new" / file.name)


# ---- what is served, and what is not


def test_imaps_good_and_wrong_password(instance):
    client = logged_in(instance)
    assert int(ok(client.select())[0]) >= 0
    client.logout()
    client = imap(instance)
    with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
        client.login(USER, "wrong")
    with pytest.raises(imaplib.IMAP4.error, match="AUTHENTICATIONFAILED"):
        client.login("nobody@example.test", PASSWORD)
    client.shutdown()


def test_pop3s_good_and_wrong_password(instance):
    deliver(instance, message("by-pop3"))
    client = poplib.POP3_SSL("localhost", 995, context=instance.trust, timeout=20)
    client.user(USER)
    client.pass_(PASSWORD)
    texts = [b"\n".join(client.retr(number + 1)[1]) for number in range(client.stat()[0])]
    assert any(b"Subject: by-pop3" in text for text in texts)
    client.quit()
    client = poplib.POP3_SSL("localhost", 995, context=instance.trust, timeout=20)
    client.user(USER)
    with pytest.raises(poplib.error_proto, match="AUTH"):
        client.pass_("wrong")
    client.close()


def test_143_refuses_a_plain_login_and_takes_one_behind_starttls(instance):
    client = FromElsewhere("127.0.0.1", 143, timeout=20)
    assert "STARTTLS" in client.capabilities and "LOGINDISABLED" in client.capabilities
    assert not any(word.startswith("AUTH=") for word in client.capabilities)
    with pytest.raises(imaplib.IMAP4.error, match="PRIVACYREQUIRED"):
        client.login(USER, PASSWORD)
    ok(client.starttls(instance.trust))
    ok(client.login(USER, PASSWORD))
    client.logout()


def test_no_plain_pop3(instance):
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("localhost", 110), 5)


def test_a_message_in_the_maildir_is_fetched(instance):
    deliver(instance, message("fetch-me", "the very words"))
    client = logged_in(instance)
    ok(client.select())
    found = ok(client.search(None, "SUBJECT", "fetch-me"))[0].split()
    assert len(found) == 1
    assert b"the very words" in ok(client.fetch(found[0], "(BODY[])"))[0][1]
    assert ok(client.search(None, "SUBJECT", "never-sent"))[0] == b""
    client.logout()


def test_idle_sees_a_new_message(instance):
    took = idle_sees(instance, lambda: deliver(instance, message("for-idle")))
    print(f"IDLE told of the message after {took * 1000:.0f} ms")


def test_the_certificate_verifies_and_old_tls_is_refused(instance):
    the_certificate_verifies_and_old_tls_is_refused(instance, instance.config / "tls/cert.pem", 993)


def test_no_name_and_version_are_given_away(instance):
    client = imap(instance)
    assert b"ovecot" not in client.welcome
    ok(client.xatom("ID", "NIL"))
    answer = b"".join(client.response("ID")[1])
    assert b"name" in answer and b"version" not in answer and b"2.3" not in answer
    client.shutdown()
    pop = poplib.POP3_SSL("localhost", 995, context=instance.trust, timeout=20)
    assert b"ovecot" not in pop.getwelcome()
    pop.close()


def test_the_check_sees_what_ready_and_an_open_port_hide(instance):
    instance.run("stop", "imapd")
    try:
        with Instance() as it:
            configure(it)
            it.drop_in("imapd", '[remove]\ntree.libraries = ["/usr/lib/dovecot/modules/libssl_iostream_openssl.so"]\n'
                       '[service]\nready_timeout = "4s"\nrestart.on = "never"\n', "60-no-ssl.toml")
            it.run("build", "imapd")
            it.start_jaild()
            told = it.run("start", "imapd", status=1).stderr
            print(told)
            assert "waiting for the check" in told
            assert "starting up for imap, pop3" in it.run("logs", "imapd", "-n", "all").stdout, "and it said that it is up"
    finally:
        instance.run("start", "imapd")


# ---- what it may


def test_every_process_is_unprivileged(instance):
    client = logged_in(instance)
    names = unprivileged(instance, "imapd", MAIL)
    assert {"dovecot", "anvil", "log", "config", "auth", "imap"} <= names, names
    client.logout()


def test_it_has_no_network_but_what_it_is_passed(instance):
    pid = instance.status("imapd")["pid"]
    assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
    links = subprocess.run(["nsenter", f"--net=/proc/{pid}/ns/net", "ip", "-o", "link"], capture_output=True, text=True, check=True)
    devices = [line for line in links.stdout.splitlines() if "DOWN" not in line]
    assert devices == [], "not even a loopback that is up"


def test_the_tree_verifies_and_holds_no_shell(instance):
    instance.run("verify", "imapd")
    paths = {entry["path"] for entry in instance.json("lock", "imapd")["entries"]}
    assert "/usr/lib/dovecot/modules/libssl_iostream_openssl.so" in paths
    assert not {"/bin/sh", "/usr/bin/sh", "/usr/bin/bash", "/usr/bin/openssl"} & paths


# ---- the rich workload, for test_least_privilege.py


def workload(it):
    """What people do with a mailbox, and a reload. A generator of the steps' names, each yielded before the step is done;
    raises where one does not work."""
    yield "start"
    it.run("start", "imapd")
    yield "login"
    deliver(it, message("latin").replace(b"\r\n\r\nHello", b'\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset="iso-8859-1"\r\n'
                                         b"Content-Transfer-Encoding: 8bit\r\n\r\nGr\xfc\xdfe"))
    client = logged_in(it)
    ok(client.select())
    yield "append"
    ok(client.append("INBOX", r"(\Seen)", None, message("appended", "x" * 100_000)))
    yield "search"
    found = ok(client.search("ISO-8859-1", "BODY", b'"Gr\xfc\xdfe"'))[0].split()
    assert found, "searched in its own character set"
    yield "mailboxes"
    ok(client.create("Projects"))
    ok(client.subscribe("Projects"))
    ok(client.copy(found[0], "Projects"))
    ok(client.uid("MOVE", ok(client.uid("SEARCH", "SUBJECT", "appended"))[0].split()[0].decode(), "Projects"))
    ok(client.rename("Projects", "Done"))
    assert b"2" in ok(client.status("Done", "(MESSAGES)"))[0]
    ok(client.list())
    ok(client.sort("(REVERSE DATE)", "UTF-8", "ALL"))
    ok(client.thread("REFERENCES", "UTF-8", "ALL"))
    ok(client.fetch("1:*", "(FLAGS ENVELOPE BODYSTRUCTURE RFC822.SIZE)"))
    yield "expunge"
    ok(client.select("Done"))
    ok(client.store("1", "+FLAGS", r"(\Deleted Important)"))
    ok(client.expunge())
    ok(client.select())
    ok(client.delete("Done"))
    yield "reload"
    it.run("reload", "imapd")
    wait_for(lambda: it.status("imapd")["state"] == "ready", 20, "reloaded")
    ok(client.noop())  # who is logged in stays
    client.logout()
    yield "POP3"
    deliver(it, message("to-be-deleted"))
    pop = poplib.POP3_SSL("localhost", 995, context=it.trust, timeout=20)
    pop.user(USER)
    pop.pass_(PASSWORD)
    pop.uidl()
    pop.dele(pop.stat()[0])
    pop.quit()
    yield "a hundred logins"
    for _ in range(110):  # more than the processes that a service of Dovecot may have at a time
        logged_in(it).shutdown()
    yield "STARTTLS"
    test_143_refuses_a_plain_login_and_takes_one_behind_starttls(it)
    yield "wrong password"
    test_imaps_good_and_wrong_password(it)
    yield "IDLE"
    test_idle_sees_a_new_message(it)


# ---- life and death


def test_sigkill_of_the_master_while_clients_log_in(instance):
    before = instance.status("imapd")
    with Load(instance) as load:
        time.sleep(1)
        send(before["pid"], signal.SIGKILL)
        killed = time.monotonic()
        wait_for(lambda: (s := instance.status("imapd"))["state"] == "ready" and s["pid"] != before["pid"], 20, "another life")
        took = time.monotonic() - killed
        time.sleep(1)
    load.report("SIGKILL of the master")
    print(f"ready again after {took * 1000:.0f} ms")
    after = instance.status("imapd")
    assert after["restarts"] == before["restarts"] + 1
    assert "killed by SIGKILL" in after["reason"]
    assert load.refused == []
    # Whom the dead had accepted is lost with them; who came to the sockets later is served.
    assert all(begin < killed for begin, _ in load.lost), load.lost
    assert any(begin > killed for begin, _ in load.served)


def test_sigkill_of_jaild_is_noticed_by_nobody(instance):
    pid = instance.status("imapd")["pid"]
    client = logged_in(instance)
    with Load(instance) as load:
        for _ in range(5):
            jaild = instance.supervisors()["jaild_pid"]
            send(jaild, signal.SIGKILL)
            wait_for(lambda old=jaild: instance.supervisors().get("jaild_pid", old) not in (0, old), what="a new jaild")
            time.sleep(0.2)
    load.report("SIGKILL of jaild, five times")
    assert (load.lost, load.refused) == ([], [])
    assert instance.status("imapd")["pid"] == pid
    ok(client.noop())
    client.logout()
    # The sockets are still the keeper's: the next life serves on them.
    instance.run("restart", "imapd")
    logged_in(instance).logout()


def test_reload_sees_the_admins_edit(instance):
    file = instance.config / "dovecot.conf"
    text = file.read_text()
    pid = instance.status("imapd")["pid"]
    client = logged_in(instance)
    file.write_text(text.replace("login_greeting = Ready.", "login_greeting = Edited."))
    try:
        assert b"Ready." in imap(instance).welcome
        instance.run("reload", "imapd")
        wait_for(lambda: b"Edited." in imap(instance).welcome, what="the edit")
    finally:
        file.write_text(text)
        instance.run("reload", "imapd")
    wait_for(lambda: b"Ready." in imap(instance).welcome, what="the old text")
    assert instance.status("imapd")["pid"] == pid
    ok(client.noop())
    client.logout()


def test_a_broken_configuration_is_told_in_the_daemons_words(instance):
    file = instance.config / "dovecot.conf"
    text = file.read_text()
    file.write_text(text + "ssl_min_protocl = TLSv1.2\n")
    try:
        instance.run("stop", "imapd")
        begin = time.monotonic()
        instance.run("start", "--no-wait", "imapd")
        words = wait_for(
            lambda: (s := instance.run("status", "imapd", status=None).stdout) and "Unknown setting: ssl_min_protocl" in s and s,
            what="the daemon's words")
        took = time.monotonic() - begin
        print(f"told after {took * 1000:.0f} ms:\n{words}")
        failed = wait_for(lambda: (s := instance.status("imapd"))["state"] == "failed" and s, 30, "it gives up")
        assert took < 1.0
        assert failed["restarts"] <= 6, "no storm"
        assert "exited with status 89" in failed["reason"]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("localhost", 993), 5)  # nobody waits for what will not come
    finally:
        file.write_text(text)
        instance.run("start", "imapd")
    assert "Unknown setting" not in instance.run("status", "imapd").stdout
    logged_in(instance).logout()


def test_logs_are_relayed(instance):
    logged_in(instance).logout()
    wait_for(lambda: f"Login: user=<{USER}>" in instance.run("logs", "imapd", "-n", "all").stdout, what="the login in the log")
    assert PASSWORD not in instance.run("logs", "imapd", "-n", "all").stdout


def test_a_stop_leaves_nothing_behind(instance):
    all_of_it = processes(instance, "imapd")
    instance.run("stop", "imapd")
    assert [pid for pid in all_of_it if pathlib.Path(f"/proc/{pid}").exists()] == []
    for port in (143, 993, 995):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("localhost", port), 5)
    instance.run("start", "imapd")
    logged_in(instance).logout()
