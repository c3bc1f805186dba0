"""The one place that knows where websockets keeps its sans-I/O core: Debian 12 has it under another name.

Of the library only the core is loaded: frames and the closing handshake. Its server and client beside
it would bring the opening handshake, whose few lines are ours, and in release 10 asyncio servers too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame, Opcode

if TYPE_CHECKING:
    from websockets.protocol import Protocol as Core
    from websockets.protocol import Side, State
else:
    try:
        from websockets.protocol import Protocol as Core
        from websockets.protocol import Side, State
    except ModuleNotFoundError:  # before 11.0
        from websockets.connection import Connection as Core
        from websockets.connection import Side, State

__all__ = ["Core", "Frame", "Opcode", "PayloadTooBig", "Side", "State"]
