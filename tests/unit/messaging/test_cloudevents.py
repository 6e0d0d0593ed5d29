"""The envelope is a CloudEvent: the reference library reads what we write, and we read what it writes."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime

import pytest
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given
from message_strategies import messages

from airflow_agentic.errors import UndecodableMessage
from airflow_agentic.messaging import Kind, Message
from airflow_agentic.messaging.codec import decode, encode, to_event

EVERY_FIELD = Message(
    source="https://example.org/scanner",
    topic="orders.eu.created",
    data={"total": 120, "lines": ["ü", 1.5, None, True]},
    id="m-1",
    type="org.example.order.created",
    kind=Kind.REQUEST,
    subject="order 7",
    time=datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
    correlation_id="dag:run",
    causation_id="m-0",
    reply_to="scanner",
    ordering_key="customer-1",
    priority=7,
    expires_at=datetime(2026, 1, 2, 4, tzinfo=UTC),
    run="dag/run/task",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    data_ref="s3://bucket/key",
    data_digest="0" * 64,
)


def theirs(message):
    """Let the reference library read a message; it refuses what is no event."""
    return JSONFormat().read(None, encode(message))


class TestTheirReader:
    @given(messages())
    def test_reads_the_same_attributes_and_data(self, message):
        event, ours = theirs(message), to_event(message)
        assert event.get_data() == ours.pop("data", None)
        assert event.get_time() == message.time
        assert {**event.get_attributes(), "time": ours["time"]} == ours

    def test_finds_what_cloud_events_defines_where_cloud_events_says(self):
        event = theirs(EVERY_FIELD)
        assert (event.get_specversion(), event.get_id(), event.get_source(), event.get_type()) == (
            "1.0", "m-1", "https://example.org/scanner", "org.example.order.created",
        )  # fmt: skip
        assert (event.get_subject(), event.get_datacontenttype()) == ("order 7", "application/json")
        assert event.get_extension("traceparent") == EVERY_FIELD.traceparent
        assert event.get_extension("expirytime") == "2026-01-02T04:00:00+00:00"
        assert event.get_extension("dataref") == "s3://bucket/key"

    def test_takes_the_names_of_all_extensions(self):
        names = set(to_event(EVERY_FIELD)) | {"recipient", "audience"}
        assert all(re.fullmatch("[a-z0-9]{1,20}", name) for name in names)


class TestOurReader:
    @given(messages())
    def test_reads_what_their_writer_makes_of_our_message(self, message):
        assert decode(JSONFormat().write(theirs(message))) == message

    def test_reads_an_event_of_theirs(self):
        attributes = {"source": "shop", "type": "org.example.order.created", "recipient": "auditor"}
        event = CloudEvent(dict(attributes), {"total": 120})
        read = decode(JSONFormat().write(event))
        assert {name: getattr(read, name) for name in attributes} == attributes
        assert (read.id, read.time, read.data) == (event.get_id(), event.get_time(), {"total": 120})
        assert (read.kind, read.priority, read.correlation_id) == (Kind.NOTIFICATION, 4, read.id)

    def test_leaves_extensions_of_others_aside(self):
        event = CloudEvent(
            {"source": "shop", "type": "t", "recipient": "auditor", "partitionkey": "k", "dataschema": "x:y"}
        )
        assert decode(JSONFormat().write(event)).source == "shop"

    def test_takes_an_attribute_that_is_null_for_one_that_is_not_set(self):
        envelope = (
            b'{"specversion":"1.0","id":"1","source":"s","type":"t","recipient":"box","agenticcodec":null,'
            b'"subject":null,"time":null,"kind":null,"priority":null,"correlationid":null,"data":null}'
        )
        read = decode(envelope)
        assert (read.subject, read.kind, read.priority, read.correlation_id, read.data) == (
            None, Kind.NOTIFICATION, 4, "1", None,
        )  # fmt: skip

    @pytest.mark.parametrize("name", ["id", "source", "type"])
    def test_misses_a_required_attribute_that_is_null(self, name):
        event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "recipient": "box", name: None}
        with pytest.raises(UndecodableMessage, match=f"the event has no {name}"):
            decode(_json(event))

    @pytest.mark.parametrize(
        "trace", ["00-1", "", "not a trace", 7, "00-" + "g" * 32 + "-" + "0" * 16 + "-01"]
    )
    def test_leaves_a_broken_trace_context_aside(self, trace):
        event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "recipient": "box"}
        assert decode(_json({**event, "traceparent": trace})).traceparent is None

    def test_refuses_bytes_that_it_would_lose_otherwise(self):
        event = CloudEvent({"source": "shop", "type": "t", "recipient": "auditor"}, b"\x00\x01")
        with pytest.raises(UndecodableMessage, match=r"carries bytes.*messages carry JSON"):
            decode(JSONFormat().write(event))

    def test_refuses_a_time_without_a_zone(self):
        event = {"specversion": "1.0", "id": "1", "source": "s", "type": "t", "recipient": "box"}
        with pytest.raises(UndecodableMessage, match="time"):
            decode(_json({**event, "time": "2026-01-02T03:04:05"}))


def _json(event):
    return json.dumps(event).encode()
