"""Whether a lock record names a process that lives, as far as a bystander can tell."""

from __future__ import annotations

import os

import pytest
from gateways import record

from openclaw_gateway.admin.look.locks import names_living
from openclaw_gateway.claim.record import LockRecord
from openclaw_gateway.host import process

PID = os.getpid()


def ours() -> LockRecord:
    """Return a record that this process might have written."""
    facts = process.facts(PID)
    assert facts is not None
    return record(
        pid=PID,
        start_ticks=facts.start_ticks,
        boot_id=process.boot_id(),
        pid_namespace=process.pid_namespace(),
    )


@pytest.mark.parametrize(
    ("changes", "lives"),
    [
        ({}, True),
        ({"start_ticks": 1}, False),
        ({"boot_id": "as a sandbox in a container is shown it"}, True),
        ({"boot_id": None, "pid_namespace": None}, True),
        ({"pid_namespace": 1}, None),
        ({"start_ticks": None}, None),
    ],
)
def test_record_names_a_process_that_lives(changes: dict[str, object], lives: bool | None) -> None:
    assert names_living(ours()._replace(**changes)) is lives  # type: ignore[arg-type]
