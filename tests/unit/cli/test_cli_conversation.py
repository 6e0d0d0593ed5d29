from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from airflow_agentic.cli.conversation import draw
from airflow_agentic.messaging import DeliveryRecord, DeliveryState, Kind, Message

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
