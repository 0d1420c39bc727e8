#!/bin/busybox sh
# Runs in the machine beside jaild; each line that begins with CHECK is a verdict, which test_machine.py reads.
say() { printf '\nCHECK %s: %s\n' "$1" "$2"; }
# verdict NAME COMMAND...: ok where the command succeeds, its output where not.
verdict() {
  name=$1; shift
  if out=$("$@" 2>&1); then say "$name" ok; else say "$name" "failed: $(printf '%s' "$out" | tr '\n' '|')"; fi
}
# until SECONDS COMMAND...: until it succeeds.
until_ok() {
  left=$1; shift
  until "$@" > /dev/null 2>&1; do
    left=$((left - 1)); [ "$left" -gt 0 ] || return 1
    sleep 1
  done
}
pid_of() { jail status "$1" --json | tr ',{' '\n\n' | sed -n 's/^ *"pid": *\([0-9]*\)$/\1/p' | head -n 1; }
cgroup_of() { sed -n 's/^0:://p' "/proc/$1/cgroup"; }
ready() { jail status "$1" | grep -q ready; }

pid_one() { [ "$(cat /proc/1/comm)" = jail-keeper ]; }
answers() { dig +short +time=2 @127.0.0.1 localhost | grep -qx 127.0.0.1; }
confined() {
  pid=$(pid_of steady)
  status=/proc/$pid/status
  grep -q '^NoNewPrivs:.1' "$status" && grep -q '^Seccomp:.2' "$status" && grep -q '^CapEff:.0000000000000000' "$status" &&
    grep -q '^Uid:.65534' "$status"
}
memory_limited() {
  jail start hungry || true
  until_ok 30 grep 'hungry: .*out of memory (limits.memory)' "$JAIL_HOME/log/jaild.log" || { jail status hungry; return 1; }
  jail stop hungry
}
processes_limited() {
  jail start crowd
  pid=$(pid_of crowd)
  group=/sys/fs/cgroup$(cgroup_of "$pid")
  [ "$(cat "$group/pids.max")" = 12 ] || { cat "$group/pids.max"; return 1; }
  until_ok 20 grep -q '^max [1-9]' "$group/pids.events" || { cat "$group/pids.events"; return 1; }
  echo "$group" > /var/crowd
}
nothing_left() {
  group=$(cat /var/crowd)
  [ "$(wc -l < "$group/cgroup.procs")" -ge 10 ] || return 1
  jail stop crowd
  ! grep -q . "$group/cgroup.procs"
}
survives() {
  before=$(pid_of steady)
  ppid=$(sed -n 's/^PPid:.//p' "/proc/$(pidof jaild)/status")
  [ "$ppid" = 1 ] || { echo "jaild is a child of $ppid"; return 1; }
  old=$(pidof jaild)
  kill -KILL "$old"
  until_ok 20 ready steady || return 1
  [ "$(pid_of steady)" = "$before" ] && [ "$(pidof jaild)" != "$old" ]
}
reaped() {
  (setsid sleep 1 &)
  sleep 3
  ! grep -l '^State:.Z' /proc/[0-9]*/status
}
doctor() { jail doctor > /var/doctor.out && grep -qi 'cgroup' /var/doctor.out; }

# As Ctrl-Alt-Del has it: the kernel tells PID 1 by this signal.
if grep -q jail.end=restart /proc/cmdline; then
  until_ok 60 ready steady
  kill -INT 1
  exit
fi

verdict pid-one pid_one
verdict named-runs until_ok 60 ready named
verdict named-answers until_ok 30 answers
verdict confined confined
verdict verifies jail verify named steady
verdict doctor doctor
verdict memory memory_limited
verdict processes processes_limited
verdict nothing-left nothing_left
verdict survives-kill survives
verdict orphans-reaped reaped
verdict named-still-answers answers
kill -TERM 1
