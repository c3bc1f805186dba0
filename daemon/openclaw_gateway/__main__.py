"""``python -m openclaw_gateway`` is ``openclaw-gateway``."""

from openclaw_gateway.cli import main

main()
