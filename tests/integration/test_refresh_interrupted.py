"""jail refresh that is killed, interrupted or crossed at any step: nothing is left worse, and the next one finishes."""

import collections
import random
import signal
import subprocess
import time

from jailtest import send, wait_for
from thinghouse import answer, check, install, it, network


def begin(it, *words):
    return subprocess.Popen(it.command("refresh", *words), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_killed_between_build_and_check_it_is_finished_by_the_next(it):
    it.write(asks=check(1))
    it.run("build", "thing")
    it.run("restart", "thing")
    install("1.1")
    first = begin(it, "thing")
    wait_for(lambda: it.status("thing")["generation"] == 3 and it.status("thing")["state"] == "ready", what="the new one")
    first.kill()
    first.wait()
    assert it.current() == 3
    assert "a refresh from generation 2 on was interrupted" in it.run("status").stdout
    pid = it.serves("1.1", 3)
    assert "thing: generation 3 serves, was 2\n" in it.run("refresh", "thing").stdout
    assert it.serves("1.1", 3) == pid  # asked, and not restarted
    assert "interrupted" not in it.run("status").stdout
    # The same with one that does not serve: the next one goes back.
    install("2.0", answers=0)
    first = begin(it, "thing")
    wait_for(lambda: it.status("thing")["generation"] == 4 and it.status("thing")["state"] == "ready", what="the new one")
    first.kill()
    first.wait()
    assert it.current() == 4
    assert "generation 3 serves again" in it.run("refresh", "thing", status=1).stderr
    it.serves("1.1", 3)


def test_killed_at_any_time_it_leaves_what_the_next_one_finishes(it):
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)
    stood = collections.Counter()
    install("0.9")
    begun = time.monotonic()
    it.run("refresh", "thing")
    takes = time.monotonic() - begun
    for number in range(8):
        install(f"1.{number}")
        first = begin(it, "thing")
        time.sleep(dice.uniform(0.3 * takes, 1.2 * takes))
        first.kill()
        first.communicate()
        it.run("verify", "thing")
        stood["built" if it.run("stale", status=None).returncode == 0 else "not yet built"] += 1
        wait_for(lambda: (answer() or "").startswith("thing "), what="an answer")
        it.run("refresh", "thing")
        it.serves(f"1.{number}", it.current())
        assert "not as on the host" not in it.run("status").stdout
    print(f"killed 8 times within {takes * 1000:.0f} ms, seed {seed}: {dict(stood)}")


def test_interrupted_it_goes_back(it):
    install("1.1", starts=2)
    first = begin(it, "thing")
    wait_for(lambda: it.status("thing")["state"] == "starting" and it.current() == 2, what="the restart")
    second = it.run("refresh", "thing", status=75)
    assert "another command refreshes this jail" in second.stderr
    first.send_signal(signal.SIGINT)
    _, said = first.communicate(timeout=20)
    assert first.returncode == 130 and "interrupted" in said and "generation 1 serves again" in said
    it.serves("1.0", 1)
    # It has not failed: what was made of it is gone.
    assert it.generations() == [1]


def test_jaild_may_be_killed_meanwhile(it):
    it.write(asks=check(1))
    it.run("build", "thing")
    it.run("restart", "thing")
    install("1.1", starts=2)
    first = begin(it, "thing")
    wait_for(lambda: it.status("thing")["state"] == "starting" and it.current() == 3, what="the restart")
    send(it.supervisors()["jaild_pid"], signal.SIGKILL)
    out, err = first.communicate(timeout=30)
    assert first.returncode == 0, out + err
    it.serves("1.1", 3)


def test_a_jaild_that_does_not_answer_is_told_and_nothing_is_changed(it):
    jaild = it.supervisors()["jaild_pid"]
    install("1.1")
    send(jaild, signal.SIGSTOP)
    try:
        assert "jaild does not answer" in it.run("refresh", "thing", status=74).stderr
    finally:
        send(jaild, signal.SIGCONT)
    it.serves("1.0", 1)


def test_one_that_somebody_stops_meanwhile_stays_stopped(it):
    install("1.1", starts=2)
    first = begin(it, "thing")
    wait_for(lambda: it.status("thing")["state"] == "starting" and it.current() == 2, what="the restart")
    it.run("stop", "thing")
    _, said = first.communicate(timeout=20)
    assert first.returncode == 1 and "generation 1 is current again, and not started" in said
    assert it.status("thing")["state"] == "stopped" and it.current() == 1
