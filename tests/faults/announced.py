"""Run the gateway, and say ``owner`` on standard output when it is ready: ``contender.py``'s way of speaking.

The arguments are the gateway's. Standard input: ``fork`` leaves a forked child behind, ``exec`` an
executed one; its end stops the gateway with SIGTERM. From claim to release it is seen by the
witnesses in the directory that ``WITNESSES`` names.
"""

import os
import signal
import sys
import threading
import time
from pathlib import Path

from witnesses import witnessed

from openclaw_gateway import cli
from openclaw_gateway.lifecycle import Life
from openclaw_gateway.supervisor.events import Event
from openclaw_gateway.supervisor.journal import PlainJournal

_serve, _write = Life._serve, PlainJournal.write


async def serve(*arguments):
    with witnessed(Path(os.environ["WITNESSES"])):
        await _serve(*arguments)


def write(journal, event, sentence, **fields):
    _write(journal, event, sentence, **fields)
    if event is Event.STARTED:
        print("owner", flush=True)
        threading.Thread(target=listen, daemon=True).start()


def listen():
    for line in sys.stdin:
        if line == "fork\n" and os.fork() == 0:
            time.sleep(600)
            os._exit(0)
        if line == "exec\n":
            os.posix_spawn("/bin/sleep", ["sleep", "600"], os.environ)
        print("done", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)


Life._serve, PlainJournal.write = serve, write
cli.main()
