"""Ids that sort by time, and data that is copied as JSON whatever it was made of."""

from __future__ import annotations

import uuid
from collections import OrderedDict, UserDict, deque
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType

import pytest

from airflow_agentic.errors import InvalidMessage
from airflow_agentic.messaging import Message


class Colour(StrEnum):
    RED = "red"


class Text(str):
    __slots__ = ()


def copied(data):
    return Message(source="a", recipient="b", data=data).data


def test_ids_are_of_version_7_and_in_the_order_they_were_made_in():
    ids = [Message(source="a", recipient="b").id for _ in range(2)]
    assert [uuid.UUID(each).version for each in ids] == [7, 7]
    assert {uuid.UUID(each).variant for each in ids} == {uuid.RFC_4122}
    assert ids[0][:18] <= ids[1][:18]
    assert len({Message(source="a", recipient="b").id for _ in range(10_000)}) == 10_000


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([True, 1, 1.0, -0.0], "[True, 1, 1.0, -0.0]"),
        ((1, (2,)), "[1, [2]]"),
        ({1: "a", None: "b"}, "{'1': 'a', 'null': 'b'}"),
        (OrderedDict(a=Colour.RED), "{'a': 'red'}"),
        ([Text("t")], "['t']"),
        (2**70, "1180591620717411303424"),
        ("\0\N{PILE OF POO}", "'\\x00💩'"),
    ],
)
def test_data_is_plain_json_of_the_same_value(given, kept):
    assert repr(copied(given)) == kept


@pytest.mark.parametrize(
    "given",
    [
        Decimal("1.5"), {1, 2}, b"x", deque([1]), UserDict(a=1), [MappingProxyType({"a": 1})], float("inf"),
        [float("nan")], "\ud800", (each for each in [1]), uuid.UUID(int=0),
    ],
    ids=lambda given: type(given[0] if isinstance(given, list) else given).__name__,
)  # fmt: skip
def test_what_only_a_lenient_encoder_takes_is_refused(given):
    with pytest.raises(InvalidMessage, match="data"):
        copied(given)
