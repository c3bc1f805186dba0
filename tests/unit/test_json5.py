"""The JSON5 reader, held to the cases of the public test suite (json5/json5-tests) and to the reference parser.

What the reference parser, npm's json5 2.2.3, says of each text was tried with it.
"""

from __future__ import annotations

import json
import math
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openclaw_gateway.settings.json5 import (
    MAX_DEPTH,
    MAX_VALUES,
    Place,
    SyntaxProblem,
    parse,
    places,
)

# One line a file of the suite, as "folder/name".
_VALUES: tuple[tuple[str, str, Any], ...] = (
    ("arrays/empty-array", "[]", []),
    ("arrays/regular-array", "[\n    true,\n    false,\n    null\n]", [True, False, None]),
    ("arrays/trailing-comma-array", "[\n    null,\n]", [None]),
    ("comments/block-comment-following-array-element", "[\n    false\n    /*\n        true\n    */\n]", [False]),
    ("comments/block-comment-following-top-level-value", "null\n/*\n    Some\n*/", None),
    ("comments/block-comment-in-string", '"This /* block comment */ isn\'t"', "This /* block comment */ isn't"),
    ("comments/block-comment-preceding-top-level-value", "/*\n    Some\n*/\nnull", None),
    ("comments/block-comment-with-asterisks", "/**\n * a\n * b:\n **/\ntrue", True),
    ("comments/inline-comment-following-array-element", "[\n    false   // true\n]", [False]),
    ("comments/inline-comment-following-top-level-value", "null // Some", None),
    ("comments/inline-comment-in-string", '"This // isn\'t"', "This // isn't"),
    ("comments/inline-comment-preceding-top-level-value", "// Some\nnull", None),
    ("misc/readme-example", "{\n    foo: 'bar',\n    while: true,\n\n    this: 'is a \\\nmulti-line string',\n\n    // inline\n"
     "    here: 'is another', // inline\n\n    /* block\n       comment */\n\n    hex: 0xDEADbeef,\n    half: .5,\n"
     "    delta: +10,\n    to: Infinity,   // and beyond!\n\n    finally: 'a trailing comma',\n    oh: [\n"
     "        \"we shouldn't forget\",\n        'arrays can have',\n        'trailing commas too',\n    ],\n}\n",
     {"foo": "bar", "while": True, "this": "is a multi-line string", "here": "is another", "hex": 0xDEADBEEF,
      "half": 0.5, "delta": 10, "to": math.inf, "finally": "a trailing comma",
      "oh": ["we shouldn't forget", "arrays can have", "trailing commas too"]}),
    ("misc/valid-whitespace", '{\n \f   // form feed\n  "a": true\n}\n', {"a": True}),
    ("new-lines/comment-cr", "{\r    // This comment is terminated with `\\r`.\r}\r", {}),
    ("new-lines/comment-crlf", "{\r\n    // This\r\n}\r\n", {}),
    ("new-lines/comment-lf", "{\n    // This\n}\n", {}),
    ("new-lines/escaped-cr", "{\r    a: 'line 1 \\\rline 2'\r}\r", {"a": "line 1 line 2"}),
    ("new-lines/escaped-crlf", "{\r\n    a: 'line 1 \\\r\nline 2'\r\n}\r\n", {"a": "line 1 line 2"}),
    ("new-lines/escaped-lf", "{\n    a: 'line 1 \\\nline 2'\n}\n", {"a": "line 1 line 2"}),
    ("numbers/float-leading-decimal-point", ".5\n", 0.5),
    ("numbers/float-leading-zero", "0.5\n", 0.5),
    ("numbers/float-trailing-decimal-point-with-integer-exponent", "5.e4\n", 50000),
    ("numbers/float-trailing-decimal-point", "5.\n", 5),
    ("numbers/float-with-integer-exponent", "1.2e3\n", 1200),
    ("numbers/float", "1.2\n", 1.2),
    ("numbers/hexadecimal-lowercase-letter", "0xc8\n", 200),
    ("numbers/hexadecimal-uppercase-x", "0XC8\n", 200),
    ("numbers/hexadecimal-with-integer-exponent", "0xc8e4\n", 0xC8E4),
    ("numbers/hexadecimal", "0xC8\n", 200),
    ("numbers/infinity", "Infinity\n", math.inf),
    ("numbers/integer-with-integer-exponent", "2e23\n", 2e23),
    ("numbers/integer-with-negative-integer-exponent", "2e-23\n", 2e-23),
    ("numbers/integer-with-negative-zero-integer-exponent", "5e-0\n", 5),
    ("numbers/integer-with-positive-integer-exponent", "1e+2\n", 100),
    ("numbers/integer-with-positive-zero-integer-exponent", "5e+0\n", 5),
    ("numbers/integer-with-zero-integer-exponent", "5e0\n", 5),
    ("numbers/integer", "15\n", 15),
    ("numbers/negative-float-leading-decimal-point", "-.5\n", -0.5),
    ("numbers/negative-float-leading-zero", "-0.5\n", -0.5),
    ("numbers/negative-float-trailing-decimal-point", "-5.\n", -5),
    ("numbers/negative-float", "-1.2\n", -1.2),
    ("numbers/negative-hexadecimal", "-0xC8\n", -200),
    ("numbers/negative-infinity", "-Infinity\n", -math.inf),
    ("numbers/negative-integer", "-15\n", -15),
    ("numbers/negative-zero-float-leading-decimal-point", "-.0\n", 0),
    ("numbers/negative-zero-float-trailing-decimal-point", "-0.\n", 0),
    ("numbers/negative-zero-float", "-0.0\n", 0),
    ("numbers/negative-zero-hexadecimal", "-0x0\n", 0),
    ("numbers/negative-zero-integer", "-0\n", 0),
    ("numbers/positive-float-leading-decimal-point", "+.5\n", 0.5),
    ("numbers/positive-float-leading-zero", "+0.5\n", 0.5),
    ("numbers/positive-float-trailing-decimal-point", "+5.\n", 5),
    ("numbers/positive-float", "+1.2\n", 1.2),
    ("numbers/positive-hexadecimal", "+0xC8\n", 200),
    ("numbers/positive-infinity", "+Infinity\n", math.inf),
    ("numbers/positive-integer", "+15\n", 15),
    ("numbers/positive-zero-float-leading-decimal-point", "+.0\n", 0),
    ("numbers/positive-zero-float-trailing-decimal-point", "+0.\n", 0),
    ("numbers/positive-zero-float", "+0.0\n", 0),
    ("numbers/positive-zero-hexadecimal", "+0x0\n", 0),
    ("numbers/positive-zero-integer", "+0\n", 0),
    ("numbers/zero-float-leading-decimal-point", ".0\n", 0),
    ("numbers/zero-float-trailing-decimal-point", "0.\n", 0),
    ("numbers/zero-float", "0.0\n", 0),
    ("numbers/zero-hexadecimal", "0x0\n", 0),
    ("numbers/zero-integer-with-integer-exponent", "0e23\n", 0),
    ("numbers/zero-integer", "0\n", 0),
    ("objects/duplicate-keys", '{\n    "a": true,\n    "a": false\n}\n', {"a": False}),
    ("objects/empty-object", "{}", {}),
    ("objects/reserved-unquoted-key", "{\n    while: true\n}", {"while": True}),
    ("objects/single-quoted-key", "{\n    'hello': \"world\"\n}", {"hello": "world"}),
    ("objects/trailing-comma-object", '{\n    "foo": "bar",\n}', {"foo": "bar"}),
    ("objects/unquoted-keys", '{\n    hello: "world",\n    _: "underscore",\n    $: "dollar sign",\n    one1: "numerals",\n'
     '    _$_: "multiple symbols",\n    $_$hello123world_$_: "mixed"\n}',
     {"hello": "world", "_": "underscore", "$": "dollar sign", "one1": "numerals", "_$_": "multiple symbols",
      "$_$hello123world_$_": "mixed"}),
    ("strings/escaped-single-quoted-string", "'I can\\'t wait'", "I can't wait"),
    ("strings/multi-line-string", "'hello\\\n world'", "hello world"),
    ("strings/single-quoted-string", "'hello world'", "hello world"),
    ("todo/unicode-escaped-unquoted-key", '{\n    sig\\u03A3ma: "sum"\n}', {"sigΣma": "sum"}),
    ("todo/unicode-unquoted-key", '{\n    ümlåût: "not"\n}', {"ümlåût": "not"}),
)  # fmt: skip

_REFUSED = (
    ("arrays/leading-comma-array", "[\n    ,null\n]", Place(2, 5)),
    ("arrays/lone-trailing-comma-array", "[\n    ,\n]", Place(2, 5)),
    ("arrays/no-comma-array", "[\n    true\n    false\n]", Place(3, 5)),
    ("comments/top-level-block-comment", "/*\n    This should fail;\n*/", Place(3, 3)),
    ("comments/top-level-inline-comment", "// This should fail", Place(1, 20)),
    ("comments/unterminated-block-comment", "true\n/*\n    This\n", Place(2, 1)),
    ("misc/empty", "", Place(1, 1)),
    ("numbers/hexadecimal-empty", "0x\n", Place(1, 2)),
    ("numbers/integer-with-float-exponent", "1e2.3\n", Place(1, 4)),
    ("numbers/integer-with-hexadecimal-exponent", "1e0x4\n", Place(1, 4)),
    ("numbers/integer-with-negative-float-exponent", "1e-2.3\n", Place(1, 5)),
    ("numbers/integer-with-negative-hexadecimal-exponent", "1e-0x4\n", Place(1, 5)),
    ("numbers/integer-with-positive-float-exponent", "1e+2.3\n", Place(1, 5)),
    ("numbers/integer-with-positive-hexadecimal-exponent", "1e+0x4\n", Place(1, 5)),
    ("numbers/lone-decimal-point", ".\n", Place(1, 1)),
    ("numbers/negative-noctal", "-098\n", Place(1, 3)),
    ("numbers/negative-octal", "-0123\n", Place(1, 3)),
    ("numbers/negative-zero-octal", "-00\n", Place(1, 3)),
    ("numbers/noctal-with-leading-octal-digit", "0780\n", Place(1, 2)),
    ("numbers/noctal", "080\n", Place(1, 2)),
    ("numbers/octal", "010\n", Place(1, 2)),
    ("numbers/positive-noctal", "+098\n", Place(1, 3)),
    ("numbers/positive-octal", "+0123\n", Place(1, 3)),
    ("numbers/positive-zero-octal", "+00\n", Place(1, 3)),
    ("numbers/zero-octal", "00\n", Place(1, 2)),
    ("objects/illegal-unquoted-key-number", '{\n    10twenty: "ten twenty"\n}', Place(2, 5)),
    ("objects/illegal-unquoted-key-symbol", '{\n    multi-word: "multi-word"\n}', Place(2, 10)),
    ("objects/leading-comma-object", '{\n    ,"foo": "bar"\n}', Place(2, 5)),
    ("objects/lone-trailing-comma-object", "{\n    ,\n}", Place(2, 5)),
    ("objects/no-comma-object", '{\n    "foo": "bar"\n    "hello": "world"\n}', Place(3, 5)),
    ("strings/unescaped-multi-line-string", '"foo\nbar"\n', Place(1, 1)),
)


@pytest.mark.parametrize(("name", "text", "value"), _VALUES, ids=[name for name, _, _ in _VALUES])
def test_value_of_the_public_suite(name: str, text: str, value: Any) -> None:
    assert parse(text) == value
    assert type(parse(text)) is type(value)


def test_nan_of_the_public_suite() -> None:
    assert math.isnan(parse("NaN\n"))


@pytest.mark.parametrize(("name", "text", "place"), _REFUSED, ids=[name for name, _, _ in _REFUSED])
def test_refusal_of_the_public_suite_names_the_place(name: str, text: str, place: Place) -> None:
    with pytest.raises(SyntaxProblem) as caught:
        parse(text)
    assert caught.value.place == place


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("'a\u2028b\u2029c'", "a\u2028b\u2029c"),
        ("{a:1}// to the end", {"a": 1}),
        ("{a:-0x1F}", {"a": -31}),
        ("18789.0", 18789),
        ("9007199254740993", 9007199254740992),
        ("0x" + "F" * 5000, math.inf),
        ("9" * 5000, math.inf),
        ("-1e999", -math.inf),
        ("'\\x41\\0\\v\\q\\\u2028'", "A\0\vq"),
        ("'\\ud83d\\ude00'", "\U0001f600"),
        ('"\\ud83d\\ude00"', "\U0001f600"),
        ("'\\ud83d'", "\ud83d"),
        ("'\ttab'", "\ttab"),
        ("{__proto__: 1}", {"__proto__": 1}),
        ("{Infinity: 1, NaN: 2, null: 3, true: 4}", {"Infinity": 1, "NaN": 2, "null": 3, "true": 4}),
        ("\ufeff\u3000{a\u200c:1}", {"a\u200c": 1}),
        ("{\\u0061b: 1}", {"ab": 1}),
        ("{\u2118: 1, a\u0301: 2}", {"\u2118": 1, "a\u0301": 2}),
        ("{a: {b: 1}, a: {c: 2}}", {"a": {"c": 2}}),
    ],
)  # fmt: skip
def test_what_the_reference_parser_accepts(text: str, value: Any) -> None:
    assert parse(text) == value


@pytest.mark.parametrize(
    "text",
    [
        "'\\1'",
        "'\\01'",
        "'\\u12'",
        "'\\x1'",
        "- 5",
        "{1: 1}",
        "{-a: 1}",
        "{a\u2028b: 1}",
        "{\\u0031: 1}",
        "[1] 2",
        "NaNa",
        "Infinity1",
        "+true",
        "nul",
        "{a}",
        "{a: }",
        "[}",
        "{]",
        "'\\\r",
    ],
)
def test_what_the_reference_parser_refuses(text: str) -> None:
    with pytest.raises(SyntaxProblem):
        parse(text)


def test_problem_shows_no_word_of_the_text() -> None:
    with pytest.raises(SyntaxProblem) as caught:
        parse("{token: 's3cret' s3cret}")
    assert str(caught.value) == 'a word where "," or "}" should be at line 1, column 18'


def test_places_are_those_of_names_and_elements() -> None:
    text = "// mine\n{\n  a: {'b': [1,\n 2]}, c: 3}"
    assert places(text) == {
        (): (2, 1),
        ("a",): (3, 3),
        ("a", "b"): (3, 7),
        ("a", "b", 0): (3, 13),
        ("a", "b", 1): (4, 2),
        ("c",): (4, 7),
    }


@pytest.mark.parametrize("text", ["[" * 100_000, "{a:" * 100_000, "[" * (MAX_DEPTH + 1)])
def test_depth_is_bounded(text: str) -> None:
    with pytest.raises(SyntaxProblem, match="nested more than"):
        parse(text)


def test_depth_of_plain_json_is_bounded_alike() -> None:
    assert parse("[" * MAX_DEPTH + "]" * MAX_DEPTH)
    with pytest.raises(SyntaxProblem, match="nested more than 200 levels at line 1, column 201"):
        parse("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))


def test_number_of_values_is_bounded() -> None:
    with pytest.raises(SyntaxProblem, match="more than 500000 values"):
        parse("[" + "1," * (MAX_VALUES + 1) + "]")


def _channels(count: int) -> str:
    line = "  channel%d: {enabled: true, name: 'x y', // comment\n list: [1, 2.5, 'three',],},\n"
    return "{" + "".join(line % number for number in range(count)) + "}"


def _calls(text: str) -> int:
    """Return how many functions, C's among them, reading a text calls."""
    calls = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        parse(text)
    finally:
        sys.setprofile(before)
    return calls


def test_work_grows_with_the_length_of_the_text_and_no_faster() -> None:
    """100 kB are read while systemd waits; a reader that looks back at what it has read would take minutes."""
    some, tenfold, hundredfold = (_calls(_channels(count)) for count in (13, 130, 1300))
    assert len(_channels(1300)) > 100_000
    # A fixed part is the same for all of them: what is left grows by the same for each channel.
    assert hundredfold - tenfold <= 10 * (tenfold - some) * 1.01
    assert hundredfold < 2 * len(_channels(1300)), "at most two for each character"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)  # fmt: skip


@given(_JSON, st.sampled_from([None, 2]), st.booleans())
def test_plain_json_reads_the_same_either_way(value: Any, indent: int | None, ascii_: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_)
    # A comment keeps the standard library's parser out.
    assert parse(text) == json.loads(text) == parse("//\n" + text)


@given(st.text(alphabet="{}[]:,'\"\\/*\n ab01.-+eExXuNI\u2028", max_size=40))
def test_any_text_is_read_or_refused_at_a_place_in_it(text: str) -> None:
    try:
        value = parse(text)
    except SyntaxProblem as problem:
        assert 1 <= problem.place.line <= text.count("\n") + text.count("\u2028") + 1
    else:
        assert parse("//\n" + text) == value or value != value
        assert () in places(text)
