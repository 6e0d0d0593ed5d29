from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from airflow_agentic.cli.conversation import draw
from airflow_agentic.cli.following import followed
from airflow_agentic.messaging import DeliveryRecord, DeliveryState, Kind, Message, MessageBus
from airflow_agentic.stores import Store
from airflow_agentic.testing import memory_store

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def _record(number: int, cause: int | None = None, **changes: Any) -> DeliveryRecord:
    message = Message(
        id=f"m{number}",
        source=f"agent-{number}",
        recipient="box",
        type="work",
        time=NOW - timedelta(minutes=1),
        correlation_id="dag:run",
        causation_id=None if cause is None else f"m{cause}",
    )
    record = DeliveryRecord(number, "box", DeliveryState.DONE, 1, 5, NOW, NOW, message)
    return replace(record, **changes)


def _drawn(*records: DeliveryRecord, asked: str = "dag:run") -> list[str]:
    return list(draw(records, asked, NOW))


def test_what_a_message_caused_is_drawn_below_it() -> None:
    lines = _drawn(_record(1), _record(2, 1), _record(3, 1), _record(4, 2), _record(5))

    assert lines == [
        "conversation dag:run: 5 messages (5 done)",
        "2026-03-01T11:59:00Z agent-1 -> box  work  m1",
        "│  delivery 1: done, attempt 1/5",
        "├─ 2026-03-01T11:59:00Z agent-2 -> box  work  m2",
        "│  │  delivery 2: done, attempt 1/5",
        "│  └─ 2026-03-01T11:59:00Z agent-4 -> box  work  m4",
        "│        delivery 4: done, attempt 1/5",
        "└─ 2026-03-01T11:59:00Z agent-3 -> box  work  m3",
        "      delivery 3: done, attempt 1/5",
        "2026-03-01T11:59:00Z agent-5 -> box  work  m5",
        "   delivery 5: done, attempt 1/5",
    ]


def test_the_fate_says_why_and_until_when() -> None:
    lines = _drawn(
        _record(1, state=DeliveryState.DEAD, attempts=5, reason="attempts spent: no disk", redrives=1),
        _record(2, state=DeliveryState.LEASED, visible_at=NOW + timedelta(seconds=20), owner="host:7"),
        _record(3, state=DeliveryState.READY, attempts=0, visible_at=NOW + timedelta(seconds=90)),
        _record(4, message=None, reason="codec version 9"),
    )

    assert "   delivery 1: dead, attempt 5/5, redriven 1 time" in lines
    assert "   reason: attempts spent: no disk" in lines
    assert "   delivery 2: leased, attempt 1/5, lease ends in 20 s, by host:7" in lines
    assert "   delivery 3: ready, attempt 0/5, due in 1 min 30 s" in lines
    assert "(unreadable) -> box" in lines


def test_kind_and_subject_are_named_and_the_message_asked_for_is_marked() -> None:
    first = _record(1)
    assert first.message is not None
    changed = first.message.model_copy(update={"kind": Kind.REQUEST, "subject": "attrs"})

    lines = _drawn(replace(first, message=changed), asked="m1")

    assert lines[1] == "2026-03-01T11:59:00Z agent-1 -> box  work (request)  about attrs  m1  <- asked for"


def test_causes_that_go_in_a_circle_are_drawn_once_each() -> None:
    lines = _drawn(_record(1, 3), _record(2, 1), _record(3, 2), _record(4, 4))

    assert sorted(line.split()[-1] for line in lines if " -> " in line) == ["m1", "m2", "m3", "m4"]


def test_a_long_chain_is_drawn_to_its_end() -> None:
    chain = [_record(1), *(_record(n, n - 1) for n in range(2, 1_001))]

    assert sum(" -> " in line for line in _drawn(*chain)) == 1_000


def test_a_message_whose_cause_is_elsewhere_begins_a_tree() -> None:
    lines = _drawn(_record(7, 99))

    assert lines[1].startswith("2026-03-01T11:59:00Z agent-7")


def _copy(number: int, mailbox: str, **changes: Any) -> DeliveryRecord:
    """A delivery of one message for a topic."""
    message = Message(
        id="m1", source="shop", topic="orders.new", type="work", time=NOW, correlation_id="dag:run"
    )
    return replace(_record(number, **changes), mailbox=mailbox, message=message)


def test_what_a_copy_caused_is_drawn_below_the_copy_of_its_sender() -> None:
    answer = _record(3, 1)
    assert answer.message is not None
    by_mailbox = replace(answer, message=answer.message.model_copy(update={"source": "log"}))
    by_task = replace(answer, message=answer.message.model_copy(update={"run": "work/r7/handle"}))
    copies = (_copy(1, "triage"), _copy(2, "log", owner="work/r7/handle@host:1"))

    for caused in (by_mailbox, by_task):
        lines = _drawn(*copies, caused)
        assert lines[0] == "conversation dag:run: 2 messages, 3 copies (3 done)"
        assert lines[1] == "2026-03-01T12:00:00Z shop -> triage  work  to topic orders.new  m1"
        assert lines[3] == "2026-03-01T12:00:00Z shop -> log  work  to topic orders.new  m1"
        assert lines[5].startswith("└─ ")


def test_all_that_is_particular_about_a_message_is_told() -> None:
    record = _record(1, state=DeliveryState.READY, attempts=0, waiting=True)
    assert record.message is not None
    changed = record.message.model_copy(
        update={
            "run": "buy/r1/ask",
            "ordering_key": "order-17",
            "priority": 9,
            "expires_at": NOW + timedelta(minutes=5),
            "data_ref": "s3://ana:hunter2@bucket/x",
            "data_digest": "ab" * 32,
        }
    )

    lines = _drawn(replace(record, message=changed))

    assert lines[2].startswith("   sent by buy/r1/ask, key order-17, priority 9, data at s3://")
    assert (
        lines[3] == "   delivery 1: ready, attempt 0/5, due after an earlier one of its key, expires in 5 min"
    )
    assert "hunter2" not in "".join(lines)


def test_what_is_of_no_use_any_more_says_since_when() -> None:
    record = _record(1, state=DeliveryState.READY)
    assert record.message is not None
    late = record.message.model_copy(update={"expires_at": NOW - timedelta(seconds=9)})

    assert "expired 9 s ago" in _drawn(replace(record, message=late))[2]
    assert "expired" not in _drawn(replace(record, message=late, state=DeliveryState.DONE))[2]


class TestAcrossDags:
    """A question of one DAG, handled by a run of a second, which tells a third on its own accord."""

    @pytest.fixture
    def store(self) -> Iterator[Store]:
        with memory_store() as opened:
            yield opened

    @pytest.fixture
    def told(self, store: Store) -> list[Message]:
        def at_work(task: str) -> MessageBus:
            return MessageBus(store.bus._store, owner=f"{task}@host:1")

        first = Message(source="ask", recipient="work", correlation_id="buy:r1", run="buy/r1/ask")
        own = Message(source="report", recipient="boss", correlation_id="work:r7", run="work/r7/report")
        last = Message(source="boss", recipient="x", correlation_id="boss:r1", causation_id=own.id)
        answer = Message(
            source="work",
            recipient="replies",
            correlation_id="buy:r1",
            causation_id=first.id,
            run="work/r7/do",
        )
        store.bus.send(first)
        at_work("work/r7/do").receive("work")[0].ack(send=[answer])
        store.bus.send_many([own, Message(source="other", recipient="x", correlation_id="other:r1")])
        at_work("boss/r1/read").receive("boss")[0].nack(reason="busy")
        store.bus.send(last)
        return [first, answer, own, last]

    def test_the_runs_that_handled_a_message_are_followed(self, store: Store, told: list[Message]) -> None:
        found = followed(store.bus, "buy:r1", 100)

        assert [record.message for record in found] == told
        lines = list(draw(found, "buy:r1", NOW))
        assert lines[0].startswith("conversation buy:r1 and 2 others: 4 messages")
        heads = [line.partition("2")[0] for line in lines if " -> " in line]
        assert heads == ["", "├─ ", "└─ ", "   └─ "]

    def test_a_cause_in_another_conversation_is_found(self, store: Store, told: list[Message]) -> None:
        found = followed(store.bus, "boss:r1", 100)

        assert [record.message for record in found] == told[2:]

    def test_there_is_an_end(self, store: Store, told: list[Message]) -> None:
        assert len(followed(store.bus, "buy:r1", 3)) == 3
        for number in range(60):
            task = f"dag{number + 1}/r/t"
            store.bus.send(Message(source="a", recipient=f"b{number}", correlation_id=f"dag{number}:r"))
            MessageBus(store.bus._store, owner=f"{task}@host:1").receive(f"b{number}")[0].ack()
        assert len(followed(store.bus, "dag0:r", 1000)) == 25
