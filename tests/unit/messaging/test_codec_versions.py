"""Old readers refuse what they do not know, new readers read what is old, and nothing is newer than it must be."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from mailbox_steps import BOX, foreign, one
from message_strategies import messages

from airflow_agentic.errors import UndecodableMessage
from airflow_agentic.messaging import Kind, Message
from airflow_agentic.messaging.codec import CODEC_VERSION, decode, encode, to_event

# What version 1 wrote, byte by byte.
VERSION_1 = {
    "plain": (
        b'{"specversion":"1.0","agenticcodec":1,"datacontenttype":"application/json","source":"scanner",'
        b'"recipient":"auditor","data":{"name":"left-pad"},"id":"m-1","type":"agentic.message",'
        b'"kind":"notification","time":"2026-01-02T03:04:05+00:00","correlationid":"m-1"}'
    ),
    "every field": (
        b'{"specversion":"1.0","agenticcodec":1,"datacontenttype":"application/json","source":"scanner",'
        b'"recipient":"auditor","data":[1,2.5,null,"\xc3\xbc"],"id":"m-2","type":"licences.audit",'
        b'"kind":"request","subject":"left-pad","time":"2026-01-02T03:04:05.678901+00:00",'
        b'"correlationid":"dag:run","causationid":"m-1","replyto":"scanner"}'
    ),
    "error": (
        b'{"specversion":"1.0","agenticcodec":1,"datacontenttype":"application/json","source":"scanner",'
        b'"recipient":"auditor","data":null,"id":"m-3","type":"agentic.message","kind":"error",'
        b'"time":"2026-01-02T03:04:05+00:00","correlationid":"m-3"}'
    ),
}
MEANING = {
    "plain": {"data": {"name": "left-pad"}, "id": "m-1", "time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)},
    "every field": {
        "data": [1, 2.5, None, "ü"],
        "id": "m-2",
        "type": "licences.audit",
        "kind": Kind.REQUEST,
        "subject": "left-pad",
        "time": datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC),
        "correlation_id": "dag:run",
        "causation_id": "m-1",
        "reply_to": "scanner",
    },
    "error": {"id": "m-3", "kind": Kind.ERROR, "time": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)},
}
NEW_IN_2 = {
    "ordering_key": "k",
    "priority": 9,
    "expires_at": datetime(2030, 1, 1, tzinfo=UTC),
    "data_ref": "file:///a",
    "data_digest": "0" * 64,
}
HINTS = {"run": "dag/run/task", "traceparent": "00-" + "1" * 32 + "-" + "2" * 16 + "-01"}


def message(**values):
    return Message(**{"source": "scanner", "recipient": "auditor", **values})


def version_1_reads(envelope):
    """Read as version 1 did: so much of it as decides."""
    event = json.loads(envelope)
    if event["agenticcodec"] > 1:
        raise UndecodableMessage("newer")
    names = {"correlationid": "correlation_id", "causationid": "causation_id", "replyto": "reply_to"}
    known = {"source", "recipient", "data", "id", "type", "kind", "subject", "time", *names}
    return {names.get(name, name): value for name, value in event.items() if name in known}


@pytest.mark.parametrize("name", VERSION_1)
class TestOldMessages:
    def test_are_read(self, name):
        assert decode(VERSION_1[name]) == message(**MEANING[name])

    def test_are_written_again_as_they_were(self, name):
        assert json.loads(encode(decode(VERSION_1[name]))) == json.loads(VERSION_1[name])

    def test_are_read_from_the_store(self, bus, name):
        foreign(bus, VERSION_1[name])
        assert one(bus).message == message(**MEANING[name])


class TestNewMessages:
    def test_that_use_nothing_new_are_written_for_old_readers(self):
        sent = message(
            data={"a": 1}, kind=Kind.ERROR, subject="s", reply_to="scanner", causation_id="c", priority=4
        )
        assert to_event(sent)["agenticcodec"] == 1
        read = version_1_reads(encode(sent))
        assert read == {**sent.model_dump(mode="json", include=set(read)), "time": sent.time.isoformat()}

    @pytest.mark.parametrize("name", NEW_IN_2)
    def test_that_use_something_new_are_refused_by_old_readers(self, name):
        envelope = encode(message(**{name: NEW_IN_2[name]}))
        with pytest.raises(UndecodableMessage, match="newer"):
            version_1_reads(envelope)

    @pytest.mark.parametrize("address", [{"topic": "a.b"}, {"audience": "all"}, {"kind": "heartbeat"}])
    def test_that_are_for_no_mailbox_are_refused_by_old_readers(self, address):
        assert to_event(Message(source="scanner", **address))["agenticcodec"] == 2

    @pytest.mark.parametrize("name", HINTS)
    def test_that_only_carry_hints_are_read_by_old_readers(self, name):
        sent = message(**{name: HINTS[name]})
        assert version_1_reads(encode(sent))["id"] == sent.id
        assert decode(encode(sent)) == sent

    @given(messages())
    def test_come_back_as_they_went_whatever_they_use(self, sent):
        assert decode(encode(sent)) == sent

    @given(messages())
    def test_say_only_what_is_set(self, sent):
        event = to_event(sent)
        assert all(value is not None for name, value in event.items() if name != "data")
        assert ("priority" in event) == (sent.priority != 4)
        assert ("data" in event) == (sent.data_ref is None)


class TestNewerReaders:
    def test_a_newer_message_is_refused_by_its_version_and_the_way_out(self):
        event = {**to_event(message()), "agenticcodec": CODEC_VERSION + 1}
        with pytest.raises(
            UndecodableMessage,
            match=rf"has codec version {CODEC_VERSION + 1}; this version reads up to {CODEC_VERSION}\. Upgrade",
        ):
            decode(json.dumps(event).encode())

    def test_a_newer_message_waits_in_the_dead_letters_for_the_upgrade(self, bus):
        event = {**to_event(message(data="new")), "agenticcodec": CODEC_VERSION + 1}
        foreign(bus, json.dumps(event).encode())
        assert bus.receive(BOX) == []
        [dead] = bus.dead_letters(BOX)
        assert f"codec version {CODEC_VERSION + 1}" in dead.reason
        assert "redrive" in dead.reason
