"""Our gateway as it is, but that the witnesses see it from its claim to its release."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from faults.witnesses import witnessed
from openclaw_gateway import lifecycle, standby
from openclaw_gateway.gateway import OwnServer
from openclaw_gateway.settings.load import Settings


class Seen(OwnServer):
    """The service: in as soon as it has the claim, out once it serves nobody any more."""

    def __init__(self, *arguments: Any, home: Path, on_ready: Callable[[], None]) -> None:
        self._presence, self._on_ready = ExitStack(), on_ready
        self._presence.enter_context(witnessed(home))
        super().__init__(*arguments)

    def ready(self) -> None:
        super().ready()
        self._on_ready()

    async def stop(self, *, hurry: asyncio.Event, back_in_s: float | None) -> None:
        try:
            await super().stop(hurry=hurry, back_in_s=back_in_s)
        finally:
            self._presence.close()


def run(
    load: Callable[[], Settings],
    environ: MutableMapping[str, str],
    *,
    home: Path,
    on_claim: Callable[[], None] = lambda: None,
    on_ready: Callable[[], None] = lambda: None,
) -> int:
    """Do as ``gateway.run``, and tell when the port is ours and when clients are let in."""

    with (
        lifecycle.begun(environ) as life,
        standby.claimed(life, load) as (settings, held),
    ):
        on_claim()
        vitals = life.supervisor.vitals
        server = Seen(settings, held, life.journal, vitals, home=home, on_ready=on_ready)
        life.serve(server, held, settings, load=lambda: server.complete(load()))
    return life.exit_code
