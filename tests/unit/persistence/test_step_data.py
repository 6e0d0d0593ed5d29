"""What is put together by hand, for its speed, is what the encoders of the standard library would have made."""

from __future__ import annotations

import functools
import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_agentic.errors import NotRecordable
from airflow_agentic.persistence.fingerprints import arguments_of, is_async
from airflow_agentic.persistence.integrity import seal
from airflow_agentic.persistence.records import RecordType
from airflow_agentic.persistence.step_data import done_data, intent_data
from airflow_agentic.security.canonical import canonical, canonical_and_read

if TYPE_CHECKING:
    from airflow_agentic.persistence import Runs

_texts = st.text(st.characters(exclude_categories=["Cs"]))
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=8,
)


@given(_texts, _texts, st.booleans())
def test_an_intent_is_canonical_json(code: str, key: str, is_beside: bool) -> None:
    about = {"code": code, "args": "a1", "key": key, "on_ambiguous": "ask"}
    if is_beside:
        about |= {"beside": True}
    made = intent_data(code, "a1", key, "ask", is_beside=is_beside)
    assert made == canonical(about, "intent")


@given(_texts, _values, st.floats(0, 1e9), st.lists(_texts, max_size=2))
def test_what_a_finished_step_says_is_canonical_json(
    code: str, result: Any, seconds: float, sent: list[str]
) -> None:
    about = {"code": code, "args": "a1", "result": result, "seconds": seconds}
    if sent:
        about |= {"sent": sent}
    content = canonical(result, "result")
    made = done_data(code, "a1", content, seconds, canonical(sent, "sent") if sent else b"")
    assert made == canonical(about, "step")


@given(_texts)
def test_a_long_text_is_the_same_json_by_its_own_way(text: str) -> None:
    content, read = canonical_and_read(text, "text")
    assert content == json.dumps(text, ensure_ascii=False).encode()
    assert read == text


@example(["a control character of its own: \x7f"], {})
@given(st.lists(_values, max_size=3), st.dictionaries(_texts, _values, max_size=3))
def test_the_fingerprint_of_arguments_stays_what_it_was(args: list[Any], kwargs: dict[str, Any]) -> None:
    text = json.dumps([args, kwargs, args[:1], {}], sort_keys=True, separators=(",", ":"))
    made = arguments_of(functools.partial(len, *args[:1]), args, kwargs)
    assert made == hashlib.sha256(text.encode()).hexdigest()[:24]


@given(st.integers(0, 2**31), st.sampled_from(RecordType), st.integers(-1, 2**50), _texts, st.binary())
def test_a_seal_stays_what_it_was(version: int, type_: RecordType, at: int, name: str, data: bytes) -> None:
    about = json.dumps([version, type_, at, name], separators=(",", ":")).encode()
    whole = hashlib.sha256(b"b" * 32 + about + b"\n" + hashlib.sha256(data).digest()).digest()
    assert seal(b"b" * 32, version, type_, at, name, data) == whole


@pytest.mark.parametrize("key", ["half \ud800 a character", 7])
def test_an_idempotency_key_that_is_no_text_is_refused_before_the_step_begins(runs: Runs, key: Any) -> None:
    done: list[int] = []
    run = runs.open("a", "k")
    with pytest.raises(NotRecordable, match="step 'one': an idempotency key is a text"):
        run.step("one", done.append, 1, idempotency_key=key)
    assert not done
    assert run.version == 0


async def _later() -> None: ...


class _Called:
    async def __call__(self) -> None: ...


@functools.wraps(_later)
def _wrapping() -> None: ...


@pytest.mark.parametrize(
    ("function", "is_one"),
    [
        (_later, True),
        (_Called(), True),
        (functools.partial(_later), True),
        (_Called().__call__, True),
        (len, False),
        (_wrapping, False),
        (lambda: None, False),
        (_Called, False),
    ],
)
def test_a_function_of_coroutines_is_known(function: Any, is_one: bool) -> None:
    assert is_async(function) == is_one
