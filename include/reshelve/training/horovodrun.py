"""Horovod's own launcher, bound to this host: it dies with its parent and listens on loopback alone.

`horovodrun` opens its rendezvous server on every interface, and whoever reaches it runs code in the workers
(CVE-2024-10190, CVE-2026-31234). For processes of one host that is a door nobody needs. Across hosts it is needed, so
they have to have a network of their own: docs/how-to/gpu-hosts.md.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from horovod.runner import launch
from horovod.runner.http import http_server

from reshelve.processes import die_with_parent


def _find_loopback_port(server_factory: Callable[[tuple[str, int]], Any]) -> tuple[Any, int]:
    server = server_factory(("127.0.0.1", 0))
    return server, server.server_address[1]


def main() -> None:
    """Run `horovodrun` with this process's arguments."""
    die_with_parent()
    os.environ["RESHELVE_LAUNCHER"] = str(os.getpid())
    http_server.find_port = _find_loopback_port
    try:
        launch.run_commandline()
    except (
        RuntimeError
    ) as error:  # a worker failed: its own last lines say why, a traceback of ours adds nothing
        sys.stderr.write(f"{error}\n")
        sys.exit(1)


if __name__ == "__main__":
    main()
