"""GNU mailutils' imap4d and pop3d in a jail each, from the manifests that we ship, beside Postfix in its own: the three share
one volume."""

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

from audit import Denials
from imaphouse import (PASSWORD, USER, FromElsewhere, Load, found, imap, logged_in, make_certificate, message, ok, pop,
                       pop_logged_in, processes, text_of, the_certificate_verifies_and_old_tls_is_refused, unprivileged)
from jailtest import REPO, Instance, own_network, send, wait_for
from mailhouse import lay_out, swaks
from packages import installed

SERVES = {"imapd-mailutils": "imaplib, openssl s_client", "popd": "poplib, openssl s_client"}

IMAP, POP = "imapd-mailutils", "popd"
BOTH = (IMAP, POP)
NET_BIND_SERVICE = 1 << 10
CALLS = {
    IMAP: ["@network-server", "@file-write", "wait4", "chown"],
    POP: ["@network-server", "@file-write", "wait4", "setgid"],
}
LESS = [(name, f'syscalls = ["{calls}"]') for name in BOTH for calls in CALLS[name]]
LESS += [(name, 'capabilities = ["net_bind_service"]') for name in BOTH]
MAIL = pwd.getpwnam("mail")


@pytest.fixture(scope="session")
def network():
    """In place of the one of conftest.py: the packages first, for the mount namespace is to stay this one."""
    with installed("mailutils"):
        own_network()
        yield


@pytest.fixture(scope="module")
def denials(network):
    with Denials() as log:
        yield log


def configure(it):
    """The examples as their READMEs say."""
    it.config = it.home / "mailutils"
    (it.config / "users").mkdir(parents=True)
    shutil.copy(REPO / "manifests/examples/imapd-mailutils/imap4d.conf", it.config)
    shutil.copy(REPO / "manifests/examples/popd/pop3d.conf", it.config)
    make_certificate(it.config / "tls", MAIL.pw_gid)
    hashed = subprocess.run(["openssl", "passwd", "-6", PASSWORD], check=True, capture_output=True, text=True).stdout.strip()
    user, domain = USER.split("@")
    file = it.config / "users" / domain
    file.write_text("".join(f"{name}:{hashed}:8:8::/var/mail/vhosts/{domain}/{name}:/usr/sbin/nologin\n" for name in (user, "carol")))
    os.chown(file, 0, MAIL.pw_gid)
    file.chmod(0o640)
    for name in BOTH:
        it.drop_in(name, f'[[config]]\nfrom = "{it.config}"\nto = "/etc/mailutils"\n')
    it.trust = ssl.create_default_context(cafile=it.config / "tls/cert.pem")


@pytest.fixture(scope="module")
def instance(denials):
    with Instance() as it:
        configure(it)
        mailboxes = lay_out(it) / "mailboxes"
        mailboxes.write_text(mailboxes.read_text().replace("/Maildir/", "/INBOX/"))
        it.run("build", *BOTH, "smtpd")
        it.start_jaild()
        it.run("start", *BOTH, "smtpd")
        yield it


@pytest.fixture(autouse=True)
def up(instance):
    for name in BOTH:
        wait_for(lambda: instance.status(name)["state"] == "ready", 30, f"{name} is ready")


def deliver(it, ident, body="Hello"):
    """By SMTP to the jail smtpd, as a stranger; until it lies in the Maildir, for whoever opens that before makes Postfix defer it."""
    inbox = it.home / "state/volumes/mail/example.test/alice/INBOX"
    there = set(arrived(inbox))
    code, talk = swaks("--from", "bob@example.org", "--to", USER, "--header", f"Subject: {ident}", "--body", body)
    assert code == 0, talk
    wait_for(lambda: set(arrived(inbox)) - there, 20, f"{ident} in the Maildir")


def arrived(inbox):
    return [path.name.split(",")[0] for folder in ("new", "cur") for path in (inbox / folder).glob("*")]


# ---- what is served, and what is not


def test_what_smtpd_took_is_fetched(instance):
    deliver(instance, "by-smtp", "the very words")
    text = text_of(instance, "by-smtp")
    assert b"the very words" in text and b"bob@example.org" in text
    client = pop_logged_in(instance)
    texts = [b"\n".join(client.retr(number + 1)[1]) for number in range(client.stat()[0])]
    assert any(b"Subject: by-smtp" in text for text in texts)
    client.quit()


@pytest.mark.parametrize("user, password", [(USER, "wrong"), ("nobody@example.test", PASSWORD), ("root", ""), ("mail@../../passwd", "x")])
def test_a_wrong_password_is_refused(instance, user, password):
    client = imap(instance)
    with pytest.raises(imaplib.IMAP4.error, match="rejected"):
        client.login(user, password)
    client.shutdown()
    client = pop(instance)
    client.user(user)
    with pytest.raises(poplib.error_proto):
        client.pass_(password)
    client.close()


def test_143_refuses_a_plain_login_and_takes_one_behind_starttls(instance):
    client = FromElsewhere("127.0.0.1", 143, timeout=20)
    assert "STARTTLS" in client.capabilities and "XTLSREQUIRED" in client.capabilities
    assert not any(word.startswith("AUTH=") for word in client.capabilities)
    with pytest.raises(imaplib.IMAP4.error, match="Command disabled"):
        client.login(USER, PASSWORD)
    ok(client.starttls(instance.trust))
    ok(client.login(USER, PASSWORD))
    client.logout()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("localhost", 110), 5)


@pytest.mark.parametrize("port", [993, 995])
def test_the_certificate_verifies_and_old_tls_is_refused(instance, port):
    the_certificate_verifies_and_old_tls_is_refused(instance, instance.config / "tls/cert.pem", port)


def test_who_opens_the_mailbox_again_sees_a_new_message(instance):
    """IDLE and NOOP say nothing of a new message in a Maildir: so are its READMEs' words."""
    first, second = (f"{word}-{time.time_ns()}" for word in ("first", "second"))  # this runs twice
    deliver(instance, first)
    wait_for(lambda: found(instance, first), 20, "the first")
    client = logged_in(instance)
    ok(client.select())
    deliver(instance, second)
    ok(client.select())
    assert ok(client.search(None, "SUBJECT", second))[0].split()
    client.logout()


def test_no_name_and_version_are_given_away(instance):
    client = imap(instance)
    client.login(USER, PASSWORD)
    ok(client.xatom("ID", "NIL"))
    said = client.welcome + b"".join(part or b"" for part in client.response("ID")[1])
    client.shutdown()
    other = pop(instance)
    said += other.getwelcome() + b"".join(other._longcmd("CAPA")[1])
    other.close()
    assert b"ailutils" not in said and b"3.15" not in said and b"GNU" not in said, said


def test_a_second_pop3_session_has_to_wait(instance):
    first = pop_logged_in(instance)
    second = pop(instance)
    second.user(USER)
    with pytest.raises(poplib.error_proto, match="IN-USE"):
        second.pass_(PASSWORD)
    second.close()
    first.quit()
    pop_logged_in(instance).quit()


@pytest.mark.parametrize("name", BOTH)
def test_the_check_sees_what_an_open_port_hides(instance, name):
    """A key that cannot be read: it listens, and cannot speak TLS."""
    key = instance.config / "tls/key.pem"
    key.chmod(0o600)
    try:
        instance.run("stop", name)
        instance.drop_in(name, '[service]\nready_timeout = "3s"\nrestart.on = "never"\n', "60-impatient.toml")
        instance.run("build", name)
        assert "waiting for the check" in instance.run("start", name, status=1).stderr
    finally:
        key.chmod(0o640)
        (instance.home / f"manifests/{name}.toml.d/60-impatient.toml").unlink()
        instance.run("build", name)
        instance.run("start", name)


# ---- what it may


def test_every_process_is_unprivileged(instance):
    client, other = logged_in(instance), pop_logged_in(instance)
    assert "imap4d" in unprivileged(instance, IMAP, MAIL, NET_BIND_SERVICE)
    assert "pop3d" in unprivileged(instance, POP, MAIL, NET_BIND_SERVICE)
    client.logout()
    other.quit()


@pytest.mark.parametrize("name", BOTH)
def test_the_tree_verifies_and_holds_no_shell(instance, name):
    instance.run("verify", name)
    paths = {entry["path"] for entry in instance.json("lock", name)["entries"]}
    assert not {"/bin/sh", "/usr/bin/sh", "/usr/bin/bash", "/usr/bin/openssl"} & paths


# ---- the rich workload, under the filter


def imap_workload(it):
    """What people do with a mailbox. Raises where something does not work."""
    client = logged_in(it)
    ok(client.select())
    ok(client.append("INBOX", r"(\Seen)", None, message("appended", "x" * 100_000)))
    ok(client.append("INBOX", None, None, message("plain", "the word is mellon")))
    ok(client.append("INBOX", None, None, message("latin").replace(
        b"\r\n\r\nHello", b'\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset="iso-8859-1"\r\n'
        b"Content-Transfer-Encoding: 8bit\r\n\r\nGr\xfc\xdfe")))
    ok(client.select())
    client.literal = "Grüße".encode()
    assert ok(client.search("UTF-8", "BODY"))[0], "searched in another character set than its own"
    number = ok(client.search(None, "BODY", "mellon"))[0].split()
    assert number
    ok(client.create("Projects"))
    ok(client.subscribe("Projects"))
    ok(client.copy(number[0], "Projects"))
    ok(client.rename("Projects", "Done"))
    assert b"Done" in b"".join(ok(client.list()))
    assert b"1" in ok(client.status("Done", "(MESSAGES)"))[0]
    ok(client.fetch("1:*", "(FLAGS ENVELOPE BODYSTRUCTURE RFC822.SIZE)"))
    ok(client.select("Done"))
    ok(client.store("1", "+FLAGS", r"(\Deleted)"))
    ok(client.expunge())
    ok(client.select())
    ok(client.unsubscribe("Projects"))
    ok(client.delete("Done"))
    client.logout()
    shutil.rmtree(it.home / "state/volumes/mail/example.test/carol", ignore_errors=True)
    client = imap(it)
    ok(client.login("carol@example.test", PASSWORD))  # before any message for her
    assert ok(client.select())[0] == b"0"
    client.logout()
    test_143_refuses_a_plain_login_and_takes_one_behind_starttls(it)
    sessions(it, IMAP, imap)


def pop_workload(it):
    deliver(it, "to-be-deleted")
    wait_for(lambda: list((it.home / "state/volumes/mail/example.test/alice/INBOX/new").glob("*")), 20, "the message")
    other = pop_logged_in(it)
    other.uidl()
    other.top(other.stat()[0], 1)
    other.dele(other.stat()[0])
    other.quit()
    sessions(it, POP, pop)


def sessions(it, name, client):
    """One after the other, of which none stays: a dead process that nobody asks for is still one."""
    for _ in range(20):
        client(it).close() if name == POP else client(it).shutdown()
    wait_for(lambda: len(processes(it, name)) == 2, 3, "jail-init and the daemon are alone again")


def refusals(denials):
    """Of the two: their user is that of other mail servers, too."""
    return {entry for entry in denials.take(MAIL.pw_uid) if entry[0] in ("imap4d", "pop3d")}


WORKLOADS = {IMAP: imap_workload, POP: pop_workload}


def test_the_rich_workload_is_denied_nothing(instance, denials):
    denials.take(MAIL.pw_uid)
    instance.run("restart", *BOTH)
    deliver(instance, "rich")
    text_of(instance, "rich")
    for name in BOTH:
        WORKLOADS[name](instance)
    test_who_opens_the_mailbox_again_sees_a_new_message(instance)
    instance.run("reload", *BOTH)
    assert refusals(denials) == set()


@pytest.mark.parametrize("name, what", LESS)
def test_with_less_it_fails(denials, name, what, instance):
    denials.take(MAIL.pw_uid)
    instance.drop_in(name, f'[remove]\nsandbox.{what}\n[service]\nready_timeout = "4s"\nrestart.on = "never"\nstop.timeout = "2s"\n', "60-less.toml")
    try:
        instance.run("build", name)
        with pytest.raises((AssertionError, OSError, imaplib.IMAP4.error, poplib.error_proto)) as told:
            instance.run("restart", name)
            WORKLOADS[name](instance)
        refused = refusals(denials)
        print(f"{name} without {what}: {str(told.value).splitlines()[:2]}; refused {sorted(refused)[:6]}")
        assert refused or "capabilities" in what, "the audit log tells which"
    finally:
        (instance.home / f"manifests/{name}.toml.d/60-less.toml").unlink()
        instance.run("build", name)
        instance.run("restart", name)


@pytest.mark.parametrize("name", BOTH)
def test_nothing_else_is_allowed(instance, name):
    shown = instance.json("show", name)["sandbox"]
    assert set(shown["syscalls"]) == {"@default", "setgid", *CALLS[name]}  # setgid: pop3d insists, imap4d complains
    assert shown["capabilities"] == ["net_bind_service"]
    assert "connect" not in shown["ports"]


# ---- life and death


def pop_load(it, timeout):
    """A whole session up to the greeting: a login would meet that of another (IN-USE)."""
    client = poplib.POP3_SSL("localhost", 995, context=it.trust, timeout=timeout)
    client.logout = client.quit
    return client


@pytest.mark.parametrize("name, login", [(IMAP, logged_in), (POP, pop_load)])
def test_sigkill_of_the_master_while_clients_come(instance, name, login):
    before = instance.status(name)
    with Load(instance, login) as load:
        time.sleep(1)
        send(before["pid"], signal.SIGKILL)
        killed = time.monotonic()
        wait_for(lambda: (s := instance.status(name))["state"] == "ready" and s["pid"] != before["pid"], 20, "another life")
        back = time.monotonic()
        time.sleep(1)
    load.report(f"SIGKILL of {name}")
    print(f"ready again after {(back - killed) * 1000:.0f} ms")
    assert "killed by SIGKILL" in instance.status(name)["reason"]
    # Its sockets die with it: who comes meanwhile is refused, and who comes later is served.
    assert all(begin < back for begin, _ in load.lost), load.lost
    assert all(killed - 0.1 < begin < back for begin in load.refused)
    assert any(begin > killed for begin, _ in load.served)


def test_sigkill_of_jaild_is_noticed_by_nobody(instance):
    pids = [instance.status(name)["pid"] for name in BOTH]
    client = logged_in(instance)
    with Load(instance) as load:
        for _ in range(3):
            jaild = instance.supervisors()["jaild_pid"]
            send(jaild, signal.SIGKILL)
            wait_for(lambda old=jaild: instance.supervisors().get("jaild_pid", old) not in (0, old), what="a new jaild")
            time.sleep(0.2)
    load.report("SIGKILL of jaild, three times")
    assert (load.lost, load.refused) == ([], [])
    assert [instance.status(name)["pid"] for name in BOTH] == pids
    ok(client.noop())
    client.logout()


@pytest.mark.parametrize("name, file", [(IMAP, "imap4d.conf"), (POP, "pop3d.conf")])
def test_a_broken_configuration_is_told_in_the_daemons_words(instance, name, file):
    config = instance.config / file
    text = config.read_text()
    config.write_text(text.replace("max-children", "max-childern"))
    try:
        instance.run("reload", name, status=1)
        told = instance.run("status", name, status=None).stdout
        assert "max-childern" in told, told
    finally:
        config.write_text(text)
        instance.run("stop", name)
        instance.run("start", name)


def test_a_user_who_is_added_can_log_in_at_once(instance):
    deliver(instance, "makes-the-domain")
    file = instance.config / "users/example.test"
    text = file.read_text()
    file.write_text(text + text.splitlines()[0].replace("alice", "dave") + "\n")
    client = imap(instance)
    ok(client.login("dave@example.test", PASSWORD))
    client.logout()


def test_logs_are_relayed(instance):
    logged_in(instance).logout()
    wait_for(lambda: "user `alice' logged in" in instance.run("logs", IMAP, "-n", "all").stdout, what="the login in the log")
    assert PASSWORD not in instance.run("logs", IMAP, "-n", "all").stdout


def test_a_stop_leaves_nothing_behind(instance):
    all_of_it = [pid for name in BOTH for pid in processes(instance, name)]
    instance.run("stop", *BOTH)
    assert [pid for pid in all_of_it if pathlib.Path(f"/proc/{pid}").exists()] == []
    for port in (143, 993, 995):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("localhost", port), 5)
    instance.run("start", *BOTH)
    logged_in(instance).logout()
