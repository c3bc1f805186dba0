"""Whom a host calls itself in the cluster's record: never another one, and the same after a restart."""

from __future__ import annotations

from pathlib import Path

from openclaw_gateway.cluster.tenure import holder_id


def test_host_is_the_same_after_a_restart_and_no_other_one(tmp_path: Path) -> None:
    ids = [tmp_path / name for name in ("one", "two")]
    for number, path in enumerate(ids):
        path.write_text(f"{number}" * 32 + "\n")
    states = [str(tmp_path / "state"), str(tmp_path / "other")]
    made = {
        holder_id(state, machine_id=str(machine), host=host)
        for state in states
        for machine in ids
        # Clones of one disk have one machine id, but rarely one name.
        for host in ("gw-a", "gw-b")
    }
    assert len(made) == 8
    again = holder_id(states[0], machine_id=str(ids[0]), host="gw-a")
    assert again in made


def test_machine_without_an_id_is_another_one_each_time(tmp_path: Path) -> None:
    """It waits for the lease of its predecessor, rather than taking what may be another host's."""
    missing = str(tmp_path / "machine-id")
    assert holder_id("/s", machine_id=missing) != holder_id("/s", machine_id=missing)
