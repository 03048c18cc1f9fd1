"""Tokens as they are kept, made and looked up, and what a body may ask for: all of it without nginx."""

from __future__ import annotations

import datetime
import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reshelve.errors import ConfigurationError
from reshelve.gateway import gateway as gateway_module
from reshelve.gateway import token_verbs
from reshelve.gateway.admission import Admission, NotAdmittedError, rows_of
from reshelve.gateway.tokens import Limits, TokensFile, new_token, read_tokens
from reshelve.modelserver.rest_json import parse_body, signature_name
from reshelve.modelserver.serving_error import ServingError
from reshelve.settings import settings
from reshelve.verbs.tokens import tokens_make

GIVEN = "a-token-of-old-that-is-long-enough-0123456789"


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of tokens of a gateway that has none yet."""
    monkeypatch.setenv("RESHELVE_HOME", str(tmp_path))
    settings.cache_clear()
    return tmp_path / "gateway" / "tokens.json"


def make(name: str = "shop", **values: Any) -> str:
    return str(token_verbs.make(name, **{"rankers": [], "days": 30, **values})["token"])


def refused(tokens: Path, text: str, ranker: str = "recommend", body: bytes = b'{"inputs": ["a"]}') -> int:
    """The status of the refusal; 0 where it is let in."""
    try:
        Admission(TokensFile(tokens)).admit(f"Bearer {text}", ranker, body)
    except NotAdmittedError as refusal:
        return refusal.status
    return 0


def test_only_a_salted_hash_is_kept(tokens: Path) -> None:
    one, two = make("one"), make("two")
    assert len(one.partition(".")[2]) >= 32 and one.partition(".")[2] != two.partition(".")[2]
    kept = tokens.read_text()
    assert one not in kept and one.partition(".")[2] not in kept
    assert tokens.stat().st_mode & 0o777 == 0o600
    first, second = read_tokens(tokens).tokens
    assert first.salt != second.salt
    again = (
        new_token("again", None, None, Limits(), GIVEN)[1],
        new_token("more", None, None, Limits(), GIVEN)[1],
    )
    assert again[0].hash != again[1].hash, "the same text has another hash each time"
    listed = json.dumps([token_verbs.describe(), token_verbs.in_words()])
    assert '"one"' in listed and not any(secret in listed for secret in (one, first.salt, first.hash))


@given(st.text(max_size=80), st.integers(0, 60))
@example("", 3)
def test_a_token_is_compared_whole_and_by_the_letter(written: str, place: int) -> None:
    text, token = new_token("shop", None, None, Limits())
    assert token.matches(text)
    for other in (
        written,
        text.upper(),
        text.swapcase(),
        text[:-1],
        text + "x",
        text[:place] + written,
        "shop",
        "shop.",
    ):
        assert not token.matches(other) or other == text


def test_name_scope_and_end(tokens: Path) -> None:
    text = make(rankers=["recommend", "search"])
    assert [refused(tokens, text, ranker) for ranker in ("recommend", "search", "ads", "")] == [
        0,
        0,
        403,
        403,
    ]
    assert refused(tokens, text.swapcase()) == refused(tokens, text.replace("shop.", "other.")) == 401
    _, ended = new_token("shop", None, -1, Limits())
    assert ended.expired() and not new_token("shop", None, None, Limits())[1].expired()
    late = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=31)
    assert read_tokens(tokens).tokens[0].expired(late)


def test_a_given_token_is_kept_and_a_short_one_refused(tokens: Path) -> None:
    assert make(given=GIVEN) == "as given"
    assert refused(tokens, GIVEN) == 0 and refused(tokens, GIVEN.upper()) == 401
    with pytest.raises(ConfigurationError, match="32 to 200") as short:
        make("short", given="sixteen-letters-")
    assert "sixteen" not in str(short.value)
    with pytest.raises(ConfigurationError, match="by the name it begins with"):
        make("fast", given=GIVEN, requests_per_second=2000)


def test_a_revoked_token_is_refused_at_once(tokens: Path) -> None:
    text, other = make("one"), make("two")
    file = TokensFile(tokens)
    assert file.current().find(text)
    token_verbs.revoke("one")
    assert not file.current().find(text) and file.current().find(other)
    with pytest.raises(ConfigurationError, match="there are: two"):
        token_verbs.revoke("one")
    tokens.unlink()
    assert not file.current().find(other)


@pytest.mark.parametrize("name", ["", "Shop", "a.b", 'x" 1; }', "a\n", "a" * 42, "~"])
def test_names_that_are_none(tokens: Path, name: str) -> None:
    """A name stands in nginx's configuration: also one that a person wrote into the file by hand."""
    with pytest.raises(ConfigurationError, match="is not a token's name"):
        make(name)
    make("shop")
    document = json.loads(tokens.read_text())
    document["tokens"][0]["name"] = name
    tokens.write_text(json.dumps(document))
    with pytest.raises(ConfigurationError, match=r"tokens\.0\.name"):
        read_tokens(tokens)


def test_a_name_is_taken_once_and_limits_have_ends(tokens: Path) -> None:
    make("shop")
    with pytest.raises(ConfigurationError, match="to rotate"):
        make("shop")
    for limit in ("requests_per_second", "concurrent", "body_kilobytes", "rows"):
        with pytest.raises(ConfigurationError, match=f"{limit}=0"):
            make("other", **{limit: 0})


def test_a_file_that_is_none(tokens: Path) -> None:
    text = make()
    file = TokensFile(tokens)
    assert file.current().find(text)
    tokens.write_text(tokens.read_text().replace('"salt"', '"SALT"'))
    with pytest.raises(ConfigurationError, match=r"tokens\.json: tokens\.0\.salt") as error:
        read_tokens(tokens)
    assert not any(
        word in str(error.value) for word in (text, json.loads(tokens.read_text())["tokens"][0]["hash"])
    )
    assert file.current().find(text), "a slip of a hand shuts nobody out"


def test_tokens_in_plain_text_are_refused_with_what_to_do(
    tokens: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RESHELVE_GATEWAY_TOKENS", GIVEN)
    with pytest.raises(ConfigurationError, match="reshelve tokens make NAME --given") as error:
        gateway_module.configured("127.0.0.1:8443", [], None, None, [], 1000, 1.0)
    assert GIVEN not in str(error.value)


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        pytest.param({"inputs": {"query": ["a"] * 3, "item": ["b"] * 5}}, 5, id="the longest input"),
        pytest.param({"inputs": {"query": [["a", "b"], ["c"]]}}, 3, id="lists in lists"),
        pytest.param({"inputs": "a"}, 1, id="a plain value"),
        pytest.param({"instances": ["a"] * 7}, 7, id="plain rows"),
        pytest.param({"instances": [{"query": "a", "item": "b"}] * 4}, 4, id="rows of objects"),
        pytest.param({"instances": [{"query": ["a"] * 9}] * 2}, 18, id="rows in rows"),
        pytest.param(
            {"signature_name": "serving_default", "instances": ["a"]}, 1, id="the signature there is"
        ),
        pytest.param({}, 1, id="nothing: the model server says so"),
    ],
)
def test_rows(body: Any, rows: int) -> None:
    assert rows_of(json.dumps(body).encode()) == rows


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"signature_name": "logits", "inputs": ["a"]}', id="named"),
        pytest.param(b'{"signature\\u005fname": "logits", "inputs": ["a"]}', id="spelled otherwise"),
        pytest.param(b'{"signature_name": "logits", "signature_name": "serving_default"}', id="twice"),
        pytest.param(
            b'{"signature_name": "serving_default", "signature_name": "logits"}', id="twice, the other way"
        ),
        pytest.param(
            b'\xef\xbb\xbf{"signature_name": "logits", "inputs": ["a"]}', id="behind a byte order mark"
        ),
        pytest.param(b'{"signature_name": null}', id="null"),
        pytest.param(b'{"inputs": ["a"]} {"signature_name": "logits"}', id="a second value"),
        pytest.param('{"signature_name": "logits"}'.encode("utf-16"), id="another encoding"),
        pytest.param(b'{"inputs": ["a"], "examples": []}', id="another key"),
        pytest.param(b'{"inputs": {"history": ["a"], "history": ["a", "b"]}}', id="an input twice"),
        pytest.param(b"[" * 60_000, id="deep"),
        pytest.param(b'{"inputs": ' + b"[" * 30_000 + b"]" * 30_000 + b"}", id="deep and whole"),
        pytest.param(b'{"inputs": [' + b"1" * 5000 + b"]}", id="a long number"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"7", id="no object"),
    ],
)
def test_bodies_that_get_no_further(body: bytes) -> None:
    with pytest.raises(NotAdmittedError) as refusal:
        rows_of(body)
    assert refusal.value.status == 400


_KEY = st.sampled_from(['"signature_name"', '"signature\\u005fname"', '"inputs"', '"instances"', '"x"'])
_VALUE = st.sampled_from(
    ['"logits"', '"serving_default"', '""', "null", '["a"]', '{"signature_name": "logits"}', "NaN", "Inf"]
)


@given(
    st.lists(st.tuples(_KEY, _VALUE), max_size=4),
    st.sampled_from(["", "\ufeff", " ", "\0"]),
    st.sampled_from(["", "{}", "\0", "x"]),
)
@example([('"signature_name"', '"logits"'), ('"signature_name"', '"serving_default"')], "", "")
@example([('"signature\\u005fname"', '"logits"')], "\ufeff", "")
def test_what_is_let_in_the_model_server_reads_alike(
    pairs: list[tuple[str, str]], before: str, after: str
) -> None:
    """No body has another signature in the server's eyes than in admission's."""
    body = (before + "{" + ", ".join(f"{key}: {value}" for key, value in pairs) + "}" + after).encode()
    try:
        rows_of(body)
    except NotAdmittedError:
        return
    try:
        read = signature_name(parse_body(body))
    except ServingError:
        return
    assert read in ("", "serving_default")


def test_the_defaults_of_the_verb_are_those_of_the_limits() -> None:
    """1,000 requests a second, each of which waits half of a second for a slow canary, are no reason for 429."""
    defaults = {name: one.default for name, one in inspect.signature(tokens_make).parameters.items()}
    assert {name: defaults[name] for name in Limits.model_fields} == Limits().model_dump()
    assert Limits().concurrent >= Limits().requests_per_second * 0.5


def test_limits_are_a_tokens_own(tokens: Path) -> None:
    small, large = make("small", rows=2, body_kilobytes=1), make("large", rows=500, body_kilobytes=1000)
    three, long = json.dumps({"inputs": ["a"] * 3}).encode(), json.dumps({"inputs": ["a" * 2000]}).encode()
    assert [refused(tokens, text, body=body) for text in (small, large) for body in (three, long)] == [
        413,
        413,
        0,
        0,
    ]
