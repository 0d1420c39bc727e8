#!/bin/busybox sh
# What a machine needs before jaild takes the place of this script as PID 1.
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/bin JAIL_HOME=@HOME@
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t cgroup2 cgroup /sys/fs/cgroup
mkdir -p /dev/shm "$JAIL_HOME/state/enabled"
ip link set lo up
hostname machine
for name in named steady; do : > "$JAIL_HOME/state/enabled/$name"; done
# An orphan of ours, as any daemon may leave: a child of PID 1.
(/sbin/checks > /dev/ttyS0 2>&1 &)
exec jaild
