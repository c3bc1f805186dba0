"""Run the gateway, and say ``owner`` on standard output when it is ready: ``contender.py``'s way of speaking.

The arguments are flags of the gateway's settings, each with its value. Standard input: ``fork`` leaves a
forked child behind, ``exec`` an executed one; its end stops the gateway with SIGTERM. From claim to
release it is seen by the witnesses in the directory that ``WITNESSES`` names.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from faults import seen
from openclaw_gateway.host import thread
from openclaw_gateway.settings import load as settings


def announce() -> None:
    print("owner", flush=True)
    thread.start(listen, name="listen")


def listen() -> None:
    for line in sys.stdin:
        if line == "fork\n" and os.fork() == 0:
            time.sleep(600)
            os._exit(0)
        if line == "exec\n":
            os.posix_spawn("/bin/sleep", ["sleep", "600"], os.environ)
        print("done", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


flags = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
sys.exit(
    seen.run(
        lambda: settings.load(flags, os.environ),
        os.environ,
        home=Path(os.environ["WITNESSES"]),
        on_ready=announce,
    )
)
