"""What a scrape of metrics brought, as numbers by name."""

from __future__ import annotations

import requests
from prometheus_client.parser import text_string_to_metric_families


def numbers(response: requests.Response) -> dict[str, float]:
    """Return every sample by its name and labels, as ``name{label}``."""
    assert response.status_code == 200, response.text
    return {
        "".join([s.name, *(f"{{{v}}}" for k, v in s.labels.items() if k != "process_instance_id")]): s.value
        for family in text_string_to_metric_families(response.text)
        for s in family.samples
    }  # fmt: skip
