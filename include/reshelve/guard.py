"""Run a command that ends with the process that asked for it, however that one ends: `guard.py ASKED_BY COMMAND…`.

The command keeps this process's id and leads a group of its own; beside it stays a small process that waits for the end
of either, and stops the group where the one who asked has ended. PR_SET_PDEATHSIG would not do: it tells of the end of
the thread that asked, reaches the command but not its children, and is forgotten by a program that changes its user.

A file of its own that imports nothing of ours: it starts before the command does, in some milliseconds.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

GRACE_SECONDS = 5.0
_LEFTOVERS_MILLISECONDS = 200
_NOT_STARTED = 127  # as a shell says it
_OTHERS = 0o077  # what the command writes is its owner's alone, whoever asked for it


def main() -> None:
    """Become the command; leave a watcher behind."""
    asked_by, *command = sys.argv[1:]
    os.umask(_OTHERS)
    if os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    try:
        parent = os.pidfd_open(int(asked_by))
    except ProcessLookupError:
        sys.exit(_NOT_STARTED)
    if os.getppid() != int(asked_by):  # it ended before we looked, and its number is another's
        sys.exit(_NOT_STARTED)
    leader, group = os.pidfd_open(os.getpid()), os.getpid()
    if os.fork() == 0:
        # A grandchild, so that the command finds no child that it has not started.
        if os.fork() == 0:
            _leave_the_session()
            watch(parent, leader, group)
        os._exit(0)
    os.wait()
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores them, and a program would inherit that
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        sys.exit(_NOT_STARTED)


def watch(parent: int, leader: int, group: int) -> None:
    """Wait for the end of the group or, with its pidfd, of the one who asked: then the group is stopped."""
    either, asked = select.poll(), select.poll()
    for waited, descriptors in ((either, (parent, leader)), (asked, (parent,))):
        for descriptor in descriptors:
            waited.register(descriptor, select.POLLIN)
    either.poll()
    while not asked.poll(_LEFTOVERS_MILLISECONDS):  # the leader has ended; others of its group may not
        if not _exists(group):
            return
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, number)
        deadline = time.monotonic() + GRACE_SECONDS
        while _exists(group) and time.monotonic() < deadline:
            time.sleep(0.05)


def _exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # all of them have become another user's
        return True
    return True


def _leave_the_session() -> None:
    """Be reached by no signal that is meant for the command, and hold none of its pipes open."""
    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)


if __name__ == "__main__":
    main()
