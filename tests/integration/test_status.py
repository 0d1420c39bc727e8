"""jail start, enable, status ... against a jaild of the test's own: what goes over the socket, and what the user sees."""
import hashlib
import json
import os
import socket
import subprocess
import threading

import pytest

JAIL = os.path.join(os.environ.get("JAIL_BIN", "build/bin"), "jail")

READY = {"name": "named", "state": "ready", "enabled": True, "check": "ok", "pid": 4711, "generation": 2,
         "current_generation": 3, "uptime_ms": 192000, "restarts": 1, "reason": "killed by SIGKILL"}
UNWELL = {**READY, "name": "imapd", "check": "failed", "check_failure": "its output lacks 'OK'", "restarts": 0}
FAILED = {"name": "dhcpd", "state": "failed", "enabled": False, "generation": 1, "current_generation": 1,
          "reason": "killed by SIGKILL", "last_lines": ["one", "\x1b[31mtwo"], "restarts": 5}

SPEC = {"argv": ["/bin/true"], "check": None, "check_config": [], "connect_ports": [], "cwd": "/", "description": "", "devices": [], "env": [],
        "credentials": {"capabilities": [], "gid": 0, "groups": [], "uid": 0, "umask": 18}, "hostname": "named",
        "limits": {"memory": 0, "processes": 0}, "listen_ports": [], "memory_deny_write_execute": True, "mounts": [],
        "name": "named", "network": "host", "network_name": "", "nice": 0, "oom_score_adjust": 0,
        "ready": {"check": False, "listen": False, "notify": False, "timeout_ms": 30000},
        "log_sockets": [], "optional_ports": [], "provides": [], "reload": {"how": "refuse", "signal": ""}, "require": [],
        "restrict_ports": False, "rlimits": [], "sockets": [],
        "restart": {"delay_ms": 100, "limit": 5, "max_delay_ms": 30000, "on": "failure", "window_ms": 60000},
        "stop": {"signal": "SIGTERM", "timeout_ms": 10000}, "version": 1}


class Jaild:
    """Answers each request with what `answers` has for its verb."""

    def __init__(self, home, answers):
        os.makedirs(home / "run", exist_ok=True)
        self.asked = []
        self.answers = answers
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.bind(str(home / "run" / "control"))
        self.socket.listen()
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            client, _ = self.socket.accept()
            with client:
                request = json.loads(client.recv(65536))
                self.asked.append(request)
                client.send(json.dumps({"v": 1, **self.answers[request["verb"]]}).encode())


def run(home, *words, **env):
    return subprocess.run([JAIL, "--home", str(home), *words], capture_output=True, text=True, timeout=20,
                          env={**os.environ, **env}, check=False)


def make_generation(home, name, number=1):
    jail = home / "state" / "jails" / name
    (jail / "gen" / f"{number:06}").mkdir(parents=True)
    (jail / "current").symlink_to(f"gen/{number:06}")


def test_status_is_one_readable_screen(tmp_path):
    Jaild(tmp_path, {"status": {"services": [FAILED, READY], "jaild_pid": 1, "keeper_pid": 2, "relay_pid": 3}})
    result = run(tmp_path, "status")
    assert result.returncode == 1
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["NAME", "STATE", "PID", "UPTIME", "RESTARTS", "GENERATION", "CHECK"]
    assert lines[1].split() == ["dhcpd", "(disabled)", "failed", "-", "-", "5", "1", "-"]
    assert "killed by SIGKILL" in lines[2]
    assert lines[3].strip() == "| one"
    assert lines[-2].split() == ["named", "ready", "4711", "3m12s", "1", "2", "of", "3", "ok"]
    assert lines[-1].strip() == "last restart: killed by SIGKILL"
    assert "\x1b" not in result.stdout
    assert "keeper 2" in run(tmp_path, "status", "-v").stdout


def test_a_check_that_fails_is_told(tmp_path):
    Jaild(tmp_path, {"status": {"services": [UNWELL]}})
    lines = run(tmp_path, "status").stdout.splitlines()
    assert lines[1].split()[-1] == "failed"
    assert lines[2].strip() == "the check fails: its output lacks 'OK'"


def test_a_start_that_takes_long_says_what_its_daemon_says(tmp_path):
    slow = {**FAILED, "name": "smtpd", "state": "starting", "pid": 4712, "reason": "waiting for the check"}
    quick = {**slow, "name": "named", "last_lines": []}
    Jaild(tmp_path, {"status": {"services": [slow, quick]}})
    lines = [line.strip() for line in run(tmp_path, "status").stdout.splitlines()]
    shown = lines.index("| one")
    assert lines[shown - 1] == "waiting for the check" and "two" in lines[shown + 1]
    assert lines.count("| one") == lines.count("waiting for the check") == 1


def test_one_that_serves_on_with_errors_shows_them(tmp_path):
    Jaild(tmp_path, {"status": {"services": [{**READY, "last_lines": ["one", "two"]}]}})
    lines = [line.strip() for line in run(tmp_path, "status").stdout.splitlines()]
    assert lines[-3:] == ["errors that it told of at its start, or when it was to reload or restart:", "| one", "| two"]


def test_status_as_json(tmp_path):
    Jaild(tmp_path, {"status": {"services": [READY]}})
    result = run(tmp_path, "status", "--json")
    assert result.returncode == 0
    answer = json.loads(result.stdout)
    assert answer["v"] == 1
    assert answer["services"][0]["uptime_ms"] == 192000


def test_status_shows_what_was_built_and_never_started(tmp_path):
    make_generation(tmp_path, "smtpd", 7)
    Jaild(tmp_path, {"status": {"services": [READY]}})
    result = run(tmp_path, "status", "--json")
    services = {service["name"]: service for service in json.loads(result.stdout)["services"]}
    assert services["smtpd"]["state"] == "stopped"
    assert services["smtpd"]["current_generation"] == 7


def test_an_edited_manifest_is_told(tmp_path):
    manifest = tmp_path / "named.toml"
    manifest.write_text("version = 1\n")
    make_generation(tmp_path, "named")
    digest = hashlib.sha256(manifest.read_bytes()).hexdigest()
    spec = {**SPEC, "sources": [{"path": str(manifest), "sha256": digest}]}
    (tmp_path / "state" / "jails" / "named" / "current" / "launch.json").write_text(json.dumps(spec))
    Jaild(tmp_path, {"status": {"services": [READY]}})
    assert "edited" not in run(tmp_path, "status").stdout
    manifest.write_text("version = 1  # edited\n")
    assert "manifest edited since the build; run: jail build named" in run(tmp_path, "status").stdout
    manifest.unlink()
    assert json.loads(run(tmp_path, "status", "--json").stdout)["services"][0]["manifest_edited"]


def test_without_jaild(tmp_path):
    result = run(tmp_path, "status")
    assert result.returncode == 69
    assert f"jaild --home {tmp_path}" in result.stderr
    make_generation(tmp_path, "named")
    assert run(tmp_path, "start", "named").returncode == 69


@pytest.mark.parametrize("verb", ["start", "restart", "enable"])
def test_what_was_never_built_is_told_so(tmp_path, verb):
    result = run(tmp_path, verb, "named")
    assert result.returncode == 66
    assert "jail build named" in result.stderr


def test_enable_works_without_jaild(tmp_path):
    make_generation(tmp_path, "named")
    mark = tmp_path / "state" / "enabled" / "named"
    assert run(tmp_path, "enable", "named").returncode == 0
    assert mark.exists()
    assert run(tmp_path, "disable", "--now", "named").returncode == 0
    assert not mark.exists()
    assert run(tmp_path, "disable", "named").returncode == 0
    result = run(tmp_path, "enable", "--now", "named")
    assert result.returncode == 69
    assert mark.exists()


def test_start_waits_unless_told_otherwise_and_takes_manifests(tmp_path):
    jaild = Jaild(tmp_path, {"start": {"outcomes": [{"name": "named", "exit": 0}]}})
    result = run(tmp_path, "start", "/etc/jail/manifests/named.toml", "named")
    assert result.returncode == 0
    assert result.stdout == ""
    assert "named: ready" in result.stderr
    assert run(tmp_path, "start", "--no-wait", "-q", "named").stderr == ""
    assert [(request["names"], request["wait"]) for request in jaild.asked] == [(["named"], True), (["named"], False)]


def test_a_failure_names_the_jail_once_and_is_the_exit_status(tmp_path):
    outcome = {"name": "named", "exit": 71, "message": "named: mount /dev/null: Operation not permitted", "hint": "h"}
    Jaild(tmp_path, {"start": {"exit": 71, "outcomes": [outcome]}})
    result = run(tmp_path, "start", "named")
    assert result.returncode == 71
    assert "jail: named: mount /dev/null" in result.stderr
    assert result.stderr.count("named") == 1


def test_enable_now_starts(tmp_path):
    done = {"outcomes": [{"name": "named", "exit": 0}]}
    jaild = Jaild(tmp_path, {"enable": done, "start": done})
    assert run(tmp_path, "enable", "--now", "named").returncode == 0
    assert [request["verb"] for request in jaild.asked] == ["enable", "start"]


def test_hostile_names_are_refused(tmp_path):
    for name in ["a b", "a\x1b", "..", "./.hidden", "-", "A", "x" * 65]:
        assert run(tmp_path, "stop", "--", name).returncode == 64, name
