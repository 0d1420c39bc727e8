"""Dovecot in its jail, from the manifest that we ship, against real IMAP and POP3 clients: rootless, its sockets passed."""

import imaplib
import os
import pathlib
import poplib
import pwd
import signal
import socket
import ssl
import subprocess
import threading
import time

import pytest

from audit import Denials
from jailtest import Instance, send, wait_for

USER, PASSWORD = "alice@example.test", "correct horse"
MAIL = pwd.getpwnam("mail")
CALLS = ["@network-server", "@file-write", "wait4", "setuid", "fchown"]


def configure(it):
    """The example as the README says, with one user and a test certificate."""
    it.config = it.init("imapd", "--test-certificate")
    done = subprocess.run(["doveadm", "pw", "-s", "SHA512-CRYPT", "-r", "5000", "-p", PASSWORD], check=True, capture_output=True, text=True)
    (it.config / "users").write_text(f"{USER}:{done.stdout.strip()}\n")
    it.trust = ssl.create_default_context(cafile=it.config / "tls/cert.pem")


@pytest.fixture(scope="module")
def denials():
    with Denials() as log:
        yield log


@pytest.fixture(scope="module")
def instance(denials):
    with Instance() as it:
        configure(it)
        it.run("build", "imapd")
        it.start_jaild()
        it.run("start", "imapd")
        yield it


@pytest.fixture(autouse=True)
def up(instance):
    wait_for(lambda: instance.status("imapd")["state"] == "ready", 30, "imapd is ready")


def imap(it, timeout=20):
    return imaplib.IMAP4_SSL("localhost", 993, ssl_context=it.trust, timeout=timeout)


def logged_in(it):
    client = imap(it)
    assert client.login(USER, PASSWORD)[0] == "OK"
    return client


def ok(answer):
    assert answer[0] == "OK", answer
    return answer[1]


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


def message(ident, body="Hello"):
    return f"From: bob@example.test\r\nTo: {USER}\r\nSubject: {ident}\r\nMessage-ID: <{ident}@example.test>\r\n\r\n{body}\r\n".encode()


def processes(it):
    """All of the jail: those in the pid namespace of its daemon."""
    space = os.readlink(f"/proc/{it.status('imapd')['pid']}/ns/pid")
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and os.readlink(entry / "ns/pid") == space:
                found.append(int(entry.name))
        except OSError:
            continue
    return found


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


class FromElsewhere(imaplib.IMAP4):
    """Not from the address that it connects to: Dovecot takes such a client's connection for a safe one."""

    def _create_socket(self, timeout):
        return socket.create_connection((self.host, self.port), timeout, source_address=("127.0.0.2", 0))


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
    client = logged_in(instance)
    before = int(ok(client.select())[0])
    client.send(b"x1 IDLE\r\n")
    assert client.readline().startswith(b"+ ")
    client.sock.settimeout(0.5)
    with pytest.raises(TimeoutError):
        client.sock.recv(1)  # silence until something happens
    client.sock.settimeout(20)
    begin = time.monotonic()
    deliver(instance, message("for-idle"))
    heard = b""
    while b"EXISTS" not in heard:
        heard += client.sock.recv(1000)
    print(f"IDLE told of the message after {(time.monotonic() - begin) * 1000:.0f} ms")
    assert f"* {before + 1} EXISTS".encode() in heard
    client.shutdown()


def s_client(it, *words):
    return subprocess.run(["openssl", "s_client", "-connect", "localhost:993", "-verify_return_error", *map(str, words)],
                          stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20)


def test_the_certificate_verifies_and_old_tls_is_refused(instance):
    trusted = ["-CAfile", instance.config / "tls/cert.pem", "-verify_hostname", "localhost"]
    good = s_client(instance, *trusted)
    assert good.returncode == 0 and "Verification: OK" in good.stdout
    assert s_client(instance).returncode != 0, "nobody else trusts it"
    assert s_client(instance, *trusted[:2], "-verify_hostname", "example.org").returncode != 0
    assert s_client(instance, *trusted, "-tls1_2").returncode == 0
    assert s_client(instance, *trusted, "-tls1_1", "-cipher", "ALL:@SECLEVEL=0").returncode != 0


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
    names = set()
    for pid in processes(instance):
        try:
            lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        except OSError:
            continue
        status = {key: value.split() for key, value in (line.split(":", 1) for line in lines)}
        name = status["Name"][0]
        names.add(name)
        for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[key][0], 16) == 0, (name, key)
        assert status["NoNewPrivs"] == ["1"], name
        assert status["Groups"] in ([], [str(MAIL.pw_gid)]), name
        if name == "jail-init":
            continue
        assert status["Seccomp"] == ["2"], name
        assert status["Uid"] == [str(MAIL.pw_uid)] * 4, name
        assert status["Gid"] == [str(MAIL.pw_gid)] * 4, name
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


# ---- the rich workload, under the filter


def workload(it):
    """What people do with a mailbox, and a reload. Raises where something does not work."""
    deliver(it, message("latin").replace(b"\r\n\r\nHello", b'\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset="iso-8859-1"\r\n'
                                         b"Content-Transfer-Encoding: 8bit\r\n\r\nGr\xfc\xdfe"))
    client = logged_in(it)
    ok(client.select())
    ok(client.append("INBOX", r"(\Seen)", None, message("appended", "x" * 100_000)))
    found = ok(client.search("ISO-8859-1", "BODY", b'"Gr\xfc\xdfe"'))[0].split()
    assert found, "searched in its own character set"
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
    ok(client.select("Done"))
    ok(client.store("1", "+FLAGS", r"(\Deleted Important)"))
    ok(client.expunge())
    ok(client.select())
    ok(client.delete("Done"))
    it.run("reload", "imapd")
    wait_for(lambda: it.status("imapd")["state"] == "ready", 20, "reloaded")
    ok(client.noop())  # who is logged in stays
    client.logout()
    deliver(it, message("to-be-deleted"))
    pop = poplib.POP3_SSL("localhost", 995, context=it.trust, timeout=20)
    pop.user(USER)
    pop.pass_(PASSWORD)
    pop.uidl()
    pop.dele(pop.stat()[0])
    pop.quit()
    for _ in range(110):  # more than the processes that a service of Dovecot may have at a time
        logged_in(it).shutdown()
    test_143_refuses_a_plain_login_and_takes_one_behind_starttls(it)
    test_imaps_good_and_wrong_password(it)
    test_idle_sees_a_new_message(it)


def test_the_rich_workload_is_denied_nothing(instance, denials):
    instance.run("restart", "imapd")
    denials.take(MAIL.pw_uid)
    workload(instance)
    instance.run("restart", "imapd")
    assert denials.take(MAIL.pw_uid) == set()


@pytest.mark.parametrize("calls", CALLS)
def test_with_fewer_system_calls_it_fails(denials, calls, instance):
    instance.run("stop", "imapd")
    try:
        with Instance() as it:
            configure(it)
            it.drop_in("imapd", f'[remove]\nsandbox.syscalls = ["{calls}"]\n[service]\nready_timeout = "5s"\nrestart.limit = "1/60s"\n', "60-fewer.toml")
            it.run("build", "imapd")
            it.start_jaild()
            denials.take(MAIL.pw_uid)
            with pytest.raises((AssertionError, OSError, imaplib.IMAP4.error, poplib.error_proto)):
                it.run("start", "imapd")
                workload(it)
            refused = denials.take(MAIL.pw_uid)
        print(f"without {calls}: refused {sorted(refused)[:6]}")
        assert refused, "the audit log tells which"
    finally:
        instance.run("start", "imapd")


def test_nothing_else_is_allowed(instance):
    shown = instance.json("show", "imapd")
    assert set(shown["sandbox"]["syscalls"]) == {"@default", *CALLS, "setgid"}  # setgid: for the audit log's sake
    assert "capabilities" not in shown["sandbox"]


# ---- life and death


class Load:
    """A client that logs in every 50 ms, come what may."""

    def __init__(self, it):
        self.it = it

    def __enter__(self):
        self.served, self.lost, self.refused, self.threads = [], [], [], []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()
        return self

    def one(self):
        begin = time.monotonic()
        try:
            client = imap(self.it, 30)
            ok(client.login(USER, PASSWORD))
            client.logout()
            self.served.append((begin, time.monotonic() - begin))
        except ConnectionRefusedError:
            self.refused.append(begin)
        except (OSError, imaplib.IMAP4.error) as error:
            self.lost.append((begin, error))

    def run(self):
        while not self.stopping.wait(0.05):
            thread = threading.Thread(target=self.one)
            thread.start()
            self.threads.append(thread)

    def __exit__(self, *_):
        self.stopping.set()
        self.thread.join()
        for thread in self.threads:
            thread.join()

    def report(self, what):
        print(f"{what}: {len(self.threads)} logins, {len(self.served)} served, {len(self.refused)} refused, {len(self.lost)} lost; "
              f"the longest took {max(taken for _, taken in self.served) * 1000:.0f} ms")


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
    all_of_it = processes(instance)
    instance.run("stop", "imapd")
    assert [pid for pid in all_of_it if pathlib.Path(f"/proc/{pid}").exists()] == []
    for port in (143, 993, 995):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("localhost", port), 5)
    instance.run("start", "imapd")
    logged_in(instance).logout()
