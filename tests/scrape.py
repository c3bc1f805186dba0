"""Metrics in Prometheus' text format, as numbers by name."""

from __future__ import annotations

import requests
from prometheus_client.parser import text_string_to_metric_families

_SAME_EVERYWHERE = ("process_instance_id", "port")


def samples(text: str) -> dict[str, float]:
    """Return every sample by its name, followed by its labels' values in braces: ``phase{ready}``."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = [v for k, v in sample.labels.items() if k not in _SAME_EVERYWHERE]
            found["".join([sample.name, *(f"{{{value}}}" for value in labels)])] = sample.value
    return found


def numbers(response: requests.Response) -> dict[str, float]:
    """Do so for the answer to a scrape."""
    assert response.status_code == 200, response.text
    return samples(response.text)
