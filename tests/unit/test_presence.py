"""Who is here, as the protocol shows it."""

from __future__ import annotations

from official import assert_valid
from openclaw_gateway.protocol.frames import encode
from openclaw_gateway.server.presence import MAX_ENTRIES, Presence, gateway_entry

GATEWAY = gateway_entry(host="h", address="::1", version="1", kernel="6.1", now_ms=1)
CLIENT = {"id": "cli", "version": "1", "platform": "linux", "mode": "cli", "instanceId": "i"}


def test_entries_are_valid_and_the_gateway_comes_first() -> None:
    presence = Presence(GATEWAY)
    presence.join("a", CLIENT, "operator", (), now_ms=2)
    presence.join("b", {**CLIENT, "displayName": "B"}, "operator", ("operator.read",), now_ms=3)
    entries = presence.entries()
    for entry in entries:
        assert_valid(entry, "PresenceEntry")
    assert [entry["host"] for entry in entries] == ["h", "B", "cli"]


def test_version_rises_with_every_change_and_only_then() -> None:
    presence = Presence(GATEWAY)
    versions = [presence.version]
    presence.join("a", CLIENT, "operator", (), now_ms=2)
    versions.append(presence.version)
    presence.leave("a")
    versions.append(presence.version)
    presence.leave("a")
    presence.leave("never here")
    assert versions == sorted(set(versions)) and presence.version == versions[-1]
    assert presence.entries() == [GATEWAY]


def test_list_is_bounded_and_shows_the_newest() -> None:
    presence = Presence(GATEWAY)
    for number in range(1000):
        presence.join(f"{number}", CLIENT, "operator", (), now_ms=number)
    entries = presence.entries()
    assert len(entries) == MAX_ENTRIES and entries[1]["ts"] == 999


def test_what_clients_say_of_themselves_is_cut_short() -> None:
    presence = Presence(GATEWAY)
    texts = dict.fromkeys(
        "displayName version platform deviceFamily modelIdentifier timeZone instanceId".split(),
        "é" * 30_000,
    )
    for number in range(MAX_ENTRIES):
        presence.join(f"{number}", {**CLIENT, **texts}, "operator", (), now_ms=number)
    entries = presence.entries()
    assert_valid(entries[1], "PresenceEntry")
    assert entries[1]["host"] == "é" * 128
    assert len(encode({"presence": entries})) < 2 << 20
