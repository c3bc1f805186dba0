"""A configuration without its secrets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.server.redaction import REDACTED, is_secret, redact


@pytest.mark.parametrize(
    "name",
    "token botToken password auth.password clientSecret apiKey api_key APIKEY OPENAI_API_KEY "
    "encryptKey privateKey serviceAccount serviceAccountRef Authorization cookie passphrase".split(),
)
def test_secret_is_known_by_its_name(name: str) -> None:
    assert redact({name: "s3cr3t"}) == {name: REDACTED}


@pytest.mark.parametrize(
    "name",
    "maxTokens maxOutputTokens contextTokens totalTokens tokenCount tokenLimit tokenBudget "
    "passwordFile port mode host keyPath".split(),
)
def test_harmless_name_keeps_its_value(name: str) -> None:
    assert not is_secret(name) and redact({name: "value"}) == {name: "value"}


def test_everything_below_a_secret_name_is_secret() -> None:
    config = {"auth": {"token": {"source": "env", "ids": ["a", 7]}}, "env": {"ANY": "thing"}}
    assert redact(config) == {
        "auth": {"token": {"source": REDACTED, "ids": [REDACTED, REDACTED]}},
        "env": {"ANY": REDACTED},
    }


def test_credentials_in_an_address_are_secret() -> None:
    shown = redact({"url": "https://me:pw@example.org/x", "plain": "https://example.org/@me"})
    assert shown == {
        "url": f"https://{REDACTED}@example.org/x",
        "plain": "https://example.org/@me",
    }


LEAF = st.none() | st.booleans() | st.integers() | st.text(alphabet="abc", max_size=5)
TREE = st.recursive(
    LEAF,
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from("abc"), inner),
    max_leaves=8,
)


@given(TREE)
def test_nothing_else_is_touched(value: object) -> None:
    assert redact(value) == value


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_number_that_json_does_not_know_is_null(number: float) -> None:
    assert redact({"a": [number]}) == {"a": [None]}
