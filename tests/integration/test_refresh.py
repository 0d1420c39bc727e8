"""jail refresh: a stale jail is built anew, its service changed over and put on trial, and on failure all is as before."""

import os
import pathlib

from jailtest import least_manifest
from thinghouse import AUTOMATIC, DAEMON, check, install, it, network


def test_a_stale_one_is_changed_over_and_asked(it):
    assert it.run("refresh", "thing").stdout == "thing: as on the host\n"
    pid = it.serves("1.0", 1)
    install("1.1")
    assert it.run("refresh", "thing", "--dry-run").stdout.splitlines()[-1].startswith("thing: would be refreshed, and its service restarted")
    assert it.serves("1.0", 1) == pid
    assert it.run("refresh", "thing").stdout == "thing: /usr/bin/jail-thing differs\nthing: generation 2 serves, was 1\n"
    assert it.serves("1.1", 2) != pid
    assert it.status("thing")["check"] == "ok"
    assert it.run("stale").stdout == it.run("ps", "--stale").stdout == ""
    pid = it.serves("1.1", 2)
    assert it.run("refresh", "--all").stdout == ""
    assert it.serves("1.1", 2) == pid
    install("1.0")
    assert it.json("refresh", "--all")["jails"][0]["outcome"] == "serves"
    it.serves("1.0", 3)


def test_one_that_does_not_start_goes_back_and_says_why(it):
    install("2.0", starts=0)
    failed = it.run("refresh", "thing", status=1)
    print(failed.stderr)
    assert "thing: generation 2 does not serve: exited with status 3 before it was ready" in failed.stderr
    assert "thing 2.0: cannot work here" in failed.stderr
    assert "generation 1 serves again" in failed.stderr and "jail diff thing 1 2" in failed.stderr
    it.serves("1.0", 1)
    # It is still stale, and says so.
    assert it.json("list")["jails"][0]["stale"] == ["/usr/bin/jail-thing differs"]
    assert [line.split(":")[0] for line in it.status("thing")["stale"]] == ["/usr/bin/jail-thing differs", "generation 2 was tried and does not serve"]
    shown = it.run("status").stdout
    assert "not as on the host; run: jail refresh thing" in shown and "generation 2 was tried and does not serve: exited" in shown
    it.run("diff", "thing", 1, 2, status=1)
    # The next try is one of its own; of what failed the last is kept, and none once one serves.
    it.run("refresh", "thing", status=1)
    assert it.generations() == [3, 1]
    install("2.1")
    it.run("refresh", "thing")
    it.serves("2.1", 4)
    assert it.generations() == [4, 1]
    assert "not as on the host" not in it.run("status").stdout


def test_one_whose_check_fails_goes_back(it):
    install("2.0", answers=0)
    failed = it.json("refresh", "thing", status=1)["jails"][0]
    assert (failed["outcome"], failed["from"], failed["to"]) == ("rolled_back", 1, 2)
    assert "its output lacks 'thing'" in failed["why"] and failed["then"] == "generation 1 serves again"
    it.serves("1.0", 1)


def test_one_without_a_check_has_to_stay_up(it):
    it.write(asks="")
    it.run("build", "thing")
    it.run("restart", "thing")
    install("2.0", lives=1)
    failed = it.run("refresh", "--grace", 1.2, "thing", status=1).stderr
    assert "generation 3 does not serve: killed by SIGALRM" in failed
    it.serves("1.0", 2)


def test_one_that_does_not_accept_its_configuration_is_not_restarted(it):
    it.write(more='check_config = ["/usr/bin/jail-thing", "check"]')
    it.run("build", "thing")
    it.run("restart", "thing")
    pid = it.serves("1.0", 2)
    install("2.0", accepts=0)
    failed = it.run("refresh", "thing", status=1).stderr
    assert "its configuration is not accepted" in failed and "thing.conf:1: no such word in 2.0" in failed
    assert "generation 2 serves on" in failed
    assert it.serves("1.0", 2) == pid


def test_a_check_that_fails_before_anything_is_changed_can_be_no_judge(it):
    """As when the same upgrade broke what the check runs."""
    broken = pathlib.Path("/usr/share/jail-broken")  # of this layer
    it.write(asks=check().replace('"sleep 0;', f'"test ! -e {broken} || exit 127; sleep 0;'))
    it.run("build", "thing")
    it.run("restart", "thing")
    broken.write_text("")
    install("1.1")
    pid = it.serves("1.0", 2)
    assert "left as it is, for already now the check fails: it cannot be run (exit status 127)" in it.run("refresh", "thing", status=1).stderr
    assert it.serves("1.0", 2) == pid and it.generations() == [2, 1]
    broken.unlink()
    it.run("refresh", "thing")
    it.serves("1.1", 3)


def test_what_does_not_run_is_built_and_not_started(it):
    it.run("stop", "thing")
    install("1.1")
    assert it.run("refresh", "thing").stdout.endswith("thing: generation 2, was 1; it does not run\n")
    assert it.status("thing")["state"] == "stopped"
    it.stop_jaild()
    install("1.2")
    assert "jaild is not running, nothing was restarted" in it.run("refresh", "thing").stdout


def test_a_build_that_fails_leaves_all_as_it_is_and_others_are_done(it):
    it.manifest("other", least_manifest(DAEMON))
    it.run("build", "other")
    it.manifest("other", "version = 2\n")
    pid = it.serves("1.0", 1)
    install("1.1")
    assert "version 2" in it.run("refresh", "other", "thing", status=65).stderr
    it.serves("1.1", 2)
    pid = it.serves("1.1", 2)
    DAEMON.unlink()
    assert "/usr/bin/jail-thing" in it.run("refresh", "thing", status=65).stderr
    assert it.serves("1.1", 2) == pid
    it.run("stale", "--mark", status=65)
    assert "it cannot be built any more" in it.run("status").stdout
    install("1.1")
    it.run("stale", "--mark", "thing")
    assert "cannot be built" not in it.run("status", "thing").stdout


def test_automatic_does_what_the_policy_allows_and_nothing_twice(it):
    install("1.1")
    pid = it.serves("1.0", 1)
    assert it.run("refresh", "--automatic").stdout == ""
    assert it.serves("1.0", 1) == pid
    it.drop_in("thing", AUTOMATIC)
    assert "its manifest has been edited since the build" in it.run("refresh", "--automatic", status=1).stderr
    it.run("build", "thing")
    assert it.run("refresh", "--automatic").stdout == ""  # it is not stale: its restart is the admin's
    assert it.status("thing")["generation"] == 1
    it.run("restart", "thing")
    install("1.2")
    it.run("refresh", "--automatic")
    pid = it.serves("1.2", 3)
    install("2.0", starts=0)
    it.run("refresh", "--automatic", status=1)
    pid = it.serves("1.2", 3)
    assert "not tried again, for it has failed with these very files" in it.run("refresh", "--automatic", status=1).stderr
    assert it.serves("1.2", 3) == pid and it.generations()[0] == 4
    install("2.1")
    it.run("refresh", "--automatic")
    it.serves("2.1", 5)


def test_one_that_was_built_and_not_restarted_is_changed_over(it):
    install("1.1")
    it.run("build", "thing")
    it.run("ps", "--stale", status=1)
    it.run("refresh", "thing")
    it.serves("1.1", 2)


def test_the_notes_are_roots_alone(it):
    jail = it.home / "state/jails/thing"
    install("1.1")
    it.run("stale", "--mark", status=1)
    assert (jail / "stale").stat().st_mode & 0o777 == 0o600 and jail.stat().st_mode & 0o777 == 0o700
    os.chown(jail, 65534, 65534)
    assert "not a safe place" in it.run("stale", "--mark", status=78).stderr
    assert "not a safe place" in it.run("refresh", "thing", status=78).stderr
    os.chown(jail, 0, 0)
    # A link in its place is not followed.
    victim = it.home / "victim"
    victim.write_text("mine\n")
    (jail / "stale").unlink()
    (jail / "stale").symlink_to(victim)
    it.run("stale", "--mark", status=1)
    assert victim.read_text() == "mine\n" and not (jail / "stale").is_symlink()
    it.run("stop", "thing")
    it.run("remove", "thing")
    assert not jail.exists()


def test_names_are_asked_for(it):
    assert "jail refresh --all" in it.run("refresh", status=64).stderr
    it.run("refresh", "--all", "thing", status=64)
    it.run("refresh", "nothing", status=66)
