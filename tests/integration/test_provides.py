"""`provides`: of services that provide the same name one runs and one is enabled, whatever is tried."""
import json
import os
import signal

import pytest

from jailtest import Instance, send, wait_for

MANIFEST = """
version = 1
{top}
[tree]
binaries = ["{program}"]
users = ["nobody"]
[service]
command = ["{program}", "infinity"]
user = "nobody"
{service}
"""
FAILS = 'restart = { delay = "60s", max_delay = "60s" }'
IGNORES_STOP = 'stop = { signal = "SIGWINCH", timeout = "2s" }'
NEVER_READY = 'ready = "check"\n[check]\ncommand = ["/usr/bin/false"]'


def write(it, name, provides=None, service="", program="/usr/bin/sleep"):
    top = f"provides = {json.dumps(provides)}" if provides else ""
    it.manifest(name, MANIFEST.format(top=top, program=program, service=service))
    it.run("build", name)


@pytest.fixture
def house():
    """post, and two that take its place; one besides that provides what none of them does."""
    with Instance() as it:
        write(it, "post")
        write(it, "post-blue", "post")
        write(it, "post-red", ["letters", "post"])
        write(it, "other", "parcels")
        it.start_jaild()
        yield it


def state(it, name):
    return it.status(name)["state"]


def refused(it, verb, name, *words):
    """The answer to a request that must change nothing."""
    before = it.status(name)
    done = it.run(verb, name, status=75)
    after = it.status(name)
    for word in words:
        assert word in done.stderr, done.stderr
    assert {**before, "uptime_ms": 0} == {**after, "uptime_ms": 0}
    return done


def test_one_of_those_that_provide_a_name_runs(house):
    house.run("start", "post", "other")
    text = "post-blue: cannot run beside post, which runs: both provide 'post'"
    refused(house, "start", "post-blue", text, "run: jail stop post")
    refused(house, "restart", "post-red", "jail stop post")
    house.run("start", "post")  # it runs already
    house.run("restart", "post")
    house.run("stop", "post")
    house.run("start", "post-blue")
    refused(house, "start", "post", "post-blue, which runs")
    refused(house, "start", "post-red", "post-blue, which runs")
    house.run("build", "--force", "post")
    house.run("stop", "post-blue", "other")
    # Of two in one request the first wins, by the alphabet.
    done = house.run("start", "post", "post-blue", status=75)
    assert "post: ready" in done.stderr and "post-blue: cannot run beside post" in done.stderr


@pytest.mark.parametrize(
    "service, program, there, words",
    [
        (NEVER_READY, "/usr/bin/sleep", "starting", "which is starting"),
        (FAILS, "/usr/bin/false", "backoff", "which is about to start again"),
        (IGNORES_STOP, "/usr/bin/sleep", "stopping", "which is stopping"),
    ],
)
def test_the_name_is_taken_until_the_last_process_is_gone(house, service, program, there, words):
    write(house, "post", None, service, program)
    house.run("start", "post", "--no-wait")
    before = "ready" if there == "stopping" else there
    wait_for(lambda: state(house, "post") == before, what=before)
    if there == "stopping":
        house.run("stop", "post", "--no-wait")
    assert state(house, "post") == there
    refused(house, "start", "post-blue", words, "jail stop post")
    house.run("stop", "post")
    house.run("start", "post-blue")


def test_a_failed_service_is_in_nobodys_way(house):
    write(house, "post", None, 'restart.on = "never"', "/usr/bin/false")
    house.run("start", "post", status=None)  # ready, or dead already
    wait_for(lambda: state(house, "post") == "failed", what="post failed")
    house.run("start", "post-blue")


def test_jaild_may_die_meanwhile(house):
    house.run("start", "post")
    jaild = house.supervisors()["jaild_pid"]
    send(jaild, signal.SIGKILL)
    wait_for(lambda: house.supervisors()["jaild_pid"] not in (0, jaild), what="another jaild")
    refused(house, "start", "post-blue", "post, which runs")


@pytest.mark.parametrize("with_jaild", [True, False])
def test_one_of_them_is_enabled(house, with_jaild):
    if not with_jaild:
        house.stop_jaild()
    house.run("enable", "post-blue", "other")
    house.run("enable", "post-blue")
    done = house.run("enable", "post", status=75)
    assert "post: cannot be enabled beside post-blue, which is: both provide 'post'" in done.stderr
    assert "run: jail disable post-blue" in done.stderr
    assert sorted(os.listdir(house.home / "state/enabled")) == ["other", "post-blue"]
    house.run("disable", "post-blue")
    house.run("enable", "post")


def test_at_boot_the_first_wins_and_the_others_say_why(house):
    house.stop_jaild()
    (house.home / "state/enabled").mkdir(exist_ok=True)
    for name in ("post-red", "post-blue"):
        (house.home / "state/enabled" / name).touch()  # by hand: `jail enable` would not
    house.start_jaild()
    wait_for(lambda: state(house, "post-blue") == "ready", what="post-blue")
    status = house.status("post-red")
    assert (status["state"], status["restarts"]) == ("failed", 0)
    assert status["reason"].startswith("cannot run beside post-blue, which ") and "'post'" in status["reason"]


def test_a_new_generation_that_takes_a_name_does_not_run_beside_its_owner(house):
    house.run("start", "post", "other")
    pid = house.status("other")["pid"]
    write(house, "other", "post", 'reload = "restart"')
    refused(house, "restart", "other", "post, which runs")
    assert house.status("other")["pid"] == pid and not house.status("other")["provides"] == ["post"]
    send(pid, signal.SIGKILL)
    wait_for(lambda: state(house, "other") == "failed", what="the end of other")
    assert "cannot run beside post" in house.status("other")["reason"]
    # The same for a reload that is a restart.
    write(house, "other", None, 'reload = "restart"')
    house.run("start", "other")
    write(house, "other", "post", 'reload = "restart"')
    refused(house, "reload", "other", "post, which runs")
    assert state(house, "other") == "ready"


def test_who_provides_what_is_shown(house):
    house.run("start", "post-red")
    assert house.status("post-red")["provides"] == ["letters", "post"]
    assert house.status("post")["provides"] == []
    assert house.status("post-blue")["provides"] == ["post"]
    listed = {jail["name"]: jail["provides"] for jail in house.json("list")["jails"]}
    assert listed == {"post": [], "post-blue": ["post"], "post-red": ["letters", "post"], "other": ["parcels"]}
    assert "provides letters, post" in house.run("status", "-v").stdout
    house.stop_jaild()
    answer = json.loads(house.run("list", "--json").stdout)
    assert {jail["name"] for jail in answer["jails"] if "post" in jail["provides"]} == {"post-blue", "post-red"}
