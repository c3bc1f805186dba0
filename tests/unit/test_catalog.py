"""The journal catalog and the code say the same."""

import re
from pathlib import Path

import pytest

from openclaw_gateway.supervisor.events import Event

CATALOG = Path(__file__).parents[2] / "systemd" / "openclaw-gateway.catalog"

# Fields that every entry of the kind has: journalctl shows others by their bare names.
ALWAYS = {
    Event.STARTED: {"PORT", "STATE_DIR", "CONFIG_PATH", "LOCK_PATH"},
    Event.CHILD_STARTED: {"CHILD_PID", "PORT", "STATE_DIR"},
    Event.CHILD_READY: {"CHILD_PID", "PORT", "STATE_DIR", "CONFIG_PATH"},
    Event.CHILD_ENDED: {"EXIT_CODE"},
    Event.CLUSTER_ACTIVE: {"CLUSTER", "FENCING_TOKEN"},
    Event.CLUSTER_STANDBY: {"CLUSTER"},
    Event.CLUSTER_UNREACHABLE: {"CLUSTER"},
    Event.TENURE_LOST: {"CLUSTER", "EXIT_CODE"},
    Event.LOCK_FAILED: {"EXIT_CODE"},
    Event.STORAGE_UNUSABLE: {"EXIT_CODE"},
}


def entries() -> dict[str, str]:
    """Return each id's text: header lines, an empty line, body. See catalog format in journald's docs."""
    found = re.split(r"^-- ([0-9a-f]{32})\n", CATALOG.read_text(), flags=re.MULTILINE)[1:]
    return dict(zip(found[::2], found[1::2], strict=True))


def test_catalog_explains_every_event_in_the_codes_order_and_nothing_else():
    explained = re.findall(r"^-- ([0-9a-f]{32})$", CATALOG.read_text(), flags=re.MULTILINE)
    assert explained == [event.message_id for event in Event]


def test_message_ids_differ():
    assert len({event.message_id for event in Event}) == len(Event)


@pytest.mark.parametrize("event", Event, ids=lambda event: event.name)
def test_entry_says_what_happened_and_what_to_do(event):
    header, _, body = entries()[event.message_id].partition("\n\n")
    keys = [line.partition(": ")[0] for line in header.splitlines()]
    assert keys == ["Subject", "Defined-By", "Documentation"]
    assert len(body.strip().split("\n\n")) >= 2, (
        "one paragraph for what and why, one for what to do"
    )
    assert all(len(line) <= 110 for line in body.splitlines())


@pytest.mark.parametrize("event", Event, ids=lambda event: event.name)
def test_entry_uses_fields_only_that_the_event_always_has(event):
    used = set(re.findall(r"@OPENCLAW_(\w+)@", entries()[event.message_id]))
    assert used <= ALWAYS.get(event, set())
