"""Reading what systemd says of a unit's job."""

from __future__ import annotations

import pytest

from openclaw_gateway.supervisor.job import is_restart, job_type

UNIT = "openclaw-gateway.service"


@pytest.mark.parametrize(
    ("listed", "found"),
    [
        ("1234 openclaw-gateway.service restart running\n", "restart"),
        ("7 other.service restart running\n8 openclaw-gateway.service stop running\n", "stop"),
        ("No jobs listed.\n", None),
        ("No jobs running.\n", None),
        ("", None),
        ("1 openclaw-gateway@a.service restart waiting\n", None),
    ],
)
def test_job_is_that_of_the_unit_itself(listed: str, found: str | None) -> None:
    assert job_type(listed, UNIT) == found


def test_unit_of_nobody_is_not_restarted() -> None:
    assert not is_restart("openclaw-gateway-of-nobody.service", of_user=False, timeout_s=10.0)
