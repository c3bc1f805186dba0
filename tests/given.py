"""
What every test reckons with.

Not in ``conftest``: below ``tests/system`` that name means another file, so helpers that its tests share with
others can't import from it.
"""

from __future__ import annotations

CAP_S = 60.0
"""A generous cap on anything that should take a moment; never a measurement."""

TOKEN = "the-token-of-the-tests"
"""What gateways that ``start`` starts want from clients."""
