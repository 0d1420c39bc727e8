"""What filters refused, by the kernel's own word: for the claim that a service is denied nothing that it needs."""

import ctypes
import errno
import os
import re
import socket
import struct
import threading
import time

NETLINK_AUDIT, READLOG, AUDIT_SECCOMP = 9, 1, 1326
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP = 270, 1
CLONE_NEWNET = 0x40000000
# Of the host: at import, before the test process enters one of its own.
HOST_NETWORK = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class Denials:
    """The kernel's records of calls that a filter refused, as its audit log tells everybody who asks (no auditd needed)."""

    def __enter__(self):
        # Records go to the host's network namespace alone, and a socket stays in the one that it was made in.
        thread = threading.Thread(target=self.open)
        thread.start()
        thread.join()
        return self

    def open(self):
        assert ctypes.CDLL(None).setns(HOST_NETWORK, CLONE_NEWNET) == 0
        self.socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_AUDIT)
        self.socket.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)  # SO_RCVBUFFORCE: floods are lost otherwise
        self.socket.bind((0, 0))
        self.socket.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, READLOG)
        self.socket.setblocking(False)

    def __exit__(self, *_):
        self.socket.close()

    def take(self, uid):
        """{(program, system call)} of the refused calls of a user since the last time."""
        return {(program, call) for user, program, call in self.take_all() if user == uid}

    def take_all(self):
        """{(uid, program, system call)} of all refused calls since the last time."""
        time.sleep(0.2)
        found = set()
        while True:
            try:
                message = self.socket.recv(8192)
            except BlockingIOError:
                return found
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                continue  # a flood: some were lost, and the first of them are there
            kind = struct.unpack("=IHHII", message[:16])[1]
            text = message[16:].decode(errors="replace")
            if kind == AUDIT_SECCOMP:
                uid, call = (int(re.search(rf" {key}=(\d+)", text)[1]) for key in ("uid", "syscall"))
                found.add((uid, re.search(r'comm="?([^" ]+)', text)[1], call))
