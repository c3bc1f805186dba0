"""Every gateway of a host in one list: who belongs there, and how it is shown."""

from __future__ import annotations

from gateways import PLACE, SELECTIONS, nobody, process, record, running, unit, user_serves

from openclaw_gateway.admin.judge.verdict import judge
from openclaw_gateway.admin.look.facts import Facts
from openclaw_gateway.admin.status import Status, is_left_over, is_wanted, overview

WORK = SELECTIONS[1]
IDLE = unit(active_state="inactive", main_pid=None, enabled="disabled", result="success")


def status(facts: Facts) -> Status:
    return Status(facts, judge(facts))


def test_list_fits_a_terminal() -> None:
    work = running(
        selection=WORK,
        lock=running().lock._replace(state_dir="/var/lib/openclaw-gateway/work"),
        owner=process(4194304, unit="openclaw-gateway@work.service"),
    )
    lines = list(overview([status(running()), status(work), status(nobody())]))
    assert max(map(len, lines)) <= 80
    assert [line.split()[:5] for line in lines[1:]] == [
        ["default", "18789", "running", "812", "system"],
        ["work", "18789", "running", "4194304", "system"],
        ["default", "18789", "stopped", "-", "-"],
    ]


def test_unit_that_is_off_is_not_listed_beside_the_users_that_serves() -> None:
    other = {"displaced_by": "/home/alice/.openclaw"}
    serves = user_serves()
    ours = nobody(
        unit=IDLE, owner=serves.owner, lock=serves.lock._replace(record=record()), **other
    )
    assert not is_wanted(status(ours))
    assert is_wanted(status(serves))
    assert is_wanted(status(nobody(unit=IDLE))), "it is there to be started"


def test_profile_without_settings_that_nothing_starts_is_left_over() -> None:
    gone = PLACE._replace(has_config=False)
    assert is_left_over(status(nobody(selection=WORK, unit=None, place=gone)))
    assert not is_left_over(status(nobody(selection=WORK, unit=None)))
    assert not is_left_over(status(nobody(selection=WORK, place=gone))), "its unit is enabled"
    assert not is_left_over(status(running(selection=WORK, place=gone)))
    assert not is_left_over(status(nobody(unit=None, place=gone))), "there is always a default"
