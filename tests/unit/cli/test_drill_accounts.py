"""Each promise, judged on what a run left: what is broken is seen, and what could not be looked at is not called held."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from airflow_agentic.cli.drill.accounts import Accounts, Outcome, Verdict
from airflow_agentic.messaging import BusOptions, Message, MessageBus
from airflow_agentic.messaging.delivery import DeliveryRecord, DeliveryState
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.stores.memory import memory_bus_store

Records = list[DeliveryRecord]


def a_run(name: str, refuse: str = "") -> Records:
    """Three orders of one customer; each is handled and brings a bill. One may be refused."""
    bus = MessageBus(memory_bus_store(), BusOptions(retry_base=timedelta(0), retry_max=timedelta(0)))
    for number in ("1", "2", "3"):
        order = Message(
            source="shop",
            recipient="orders",
            type="order",
            subject=number,
            ordering_key="ana",
            correlation_id=name,
        )
        bus.send(order)
    while taken := bus.receive("orders"):
        [delivery] = taken
        order = delivery.message
        if order.subject == refuse:
            delivery.reject(reason="the envelope is not JSON")
            continue
        bill = Message(
            source="orders",
            recipient="bills",
            type="bill",
            subject=order.subject,
            correlation_id=name,
            causation_id=order.id,
        )
        delivery.ack(send=[bill])
    return bus.find(DeliveryQuery(correlation_id=name, limit=1000))


def judged(records: Records, **outcome: Any) -> dict[str, tuple[Verdict, str]]:
    """The verdicts by the first word of the promise; several of P1 under their second word."""
    after = Outcome(**{"state": "success", "records": records, "injected": 1, **outcome})
    found = Accounts(Outcome("success", a_run("without")), after).judge()
    keys = ("run", "lost", "surplus", "P2", "P3", "P4", "P5", "degraded", "P8")
    return {key: (each.verdict, each.said) for key, each in zip(keys, found, strict=True)}


def test_a_run_that_left_the_same_held_what_was_exercised() -> None:
    found = judged(a_run("with"))
    assert {key: verdict for key, (verdict, _) in found.items()} == {
        "run": Verdict.HELD,
        "lost": Verdict.HELD,
        "surplus": Verdict.HELD,
        "P2": Verdict.HELD,
        "P3": Verdict.HELD,
        "P4": Verdict.HELD,
        "P5": Verdict.NOT_EXERCISED,
        "degraded": Verdict.NOT_EXERCISED,
        "P8": Verdict.NOT_EXERCISED,
    }
    assert found["P4"][1] == "3 done, 0 dead, 3 open as without faults"


def test_without_a_fault_nothing_was_shown() -> None:
    assert {verdict for verdict, _ in judged(a_run("with"), injected=0).values()} == {Verdict.NOT_EXERCISED}


def test_a_missing_message_is_lost_and_named() -> None:
    records = [each for each in a_run("with") if (each.mailbox, _subject(each)) != ("bills", "2")]
    assert judged(records)["lost"] == (Verdict.BROKEN, "1 are missing: bill of orders to bills about 2")


def test_what_would_have_come_of_a_dead_letter_is_not_lost() -> None:
    verdict, said = judged(a_run("with", refuse="2"))["lost"]
    assert (verdict, said) == (Verdict.HELD, "5 deliveries; 1 would have come of dead letters")


def test_what_a_failed_run_did_not_get_to_is_not_called_lost_and_the_run_is_called_broken() -> None:
    found = judged(a_run("with")[:2], state="failed")
    assert found["run"] == (Verdict.BROKEN, "it ended as failed, not success")
    assert found["lost"][0] is Verdict.NOT_EXERCISED
    assert judged(a_run("with"), state="")["run"] == (Verdict.BROKEN, "it did not end in time")


def test_a_message_too_often_and_one_of_nobody_are_seen() -> None:
    records = a_run("with")
    [bill] = [each for each in records if (each.mailbox, _subject(each)) == ("bills", "2")]
    assert bill.message is not None
    again = replace(bill, delivery_id=98, message=bill.message.model_copy(update={"id": "another"}))
    assert judged([*records, again])["surplus"][1].startswith("1 too often and 0 of nobody's: bill of orders")
    stranger = replace(
        bill, delivery_id=99, message=bill.message.model_copy(update={"id": "x", "type": "gift"})
    )
    assert judged([*records, stranger])["surplus"][1].startswith(
        "0 too often and 1 of nobody's: gift of orders"
    )
    twice = replace(bill, delivery_id=97)
    assert judged([*records, twice])["surplus"][1].startswith("1 are there twice")


def test_a_second_attempt_needs_a_reason() -> None:
    first, *others = a_run("with")
    assert judged([replace(first, attempts=2), *others])["P2"][0] is Verdict.BROKEN
    entry = _entry("lease-expired")
    verdict, said = judged([replace(first, attempts=2, history=(entry,)), *others])["P2"]
    assert (verdict, said) == (Verdict.HELD, "1 were handed out again, 1 leases ended")


def test_the_order_of_a_key_is_that_of_its_numbers() -> None:
    first, second, *others = a_run("with")
    late = replace(first, updated_at=second.updated_at + timedelta(seconds=1))
    assert judged([late, second, *others])["P3"] == (
        Verdict.BROKEN,
        "key 'ana' of mailbox 'orders' was not",
    )


def test_what_stays_open_only_with_faults_has_not_ended() -> None:
    first, *others = a_run("with")
    stuck = replace(first, state=DeliveryState.LEASED)
    assert judged([stuck, *others])["P4"] == (
        Verdict.BROKEN,
        "1 are open: order of shop to orders about 1",
    )


@pytest.mark.parametrize(
    ("opened", "failing", "verdict"),
    [
        ({"conn:a"}, {"call:conn:a"}, Verdict.HELD),
        (set(), {"call:conn:a"}, Verdict.HELD),
        ({"conn:b"}, {"call:conn:a"}, Verdict.BROKEN),
        ({"agent:x"}, {"agent:x"}, Verdict.HELD),
        ({"agent:x"}, {"call:conn:a"}, Verdict.HELD),
        ({"conn:a"}, {"store"}, Verdict.HELD),
        ({"conn:a"}, set(), Verdict.BROKEN),
        (set(), set(), Verdict.NOT_EXERCISED),
    ],
)
def test_breakers_open_where_failures_were_injected(
    opened: set[str], failing: set[str], verdict: Verdict
) -> None:
    found = judged(a_run("with"), opened=frozenset(opened), failing=frozenset(failing))
    assert found["P5"][0] is verdict


def test_a_result_that_is_degraded_and_does_not_say_so_is_seen() -> None:
    told, silent = ("report", True), ("audit[2]", False)
    assert judged(a_run("with"), degraded=(told,))["degraded"] == (Verdict.HELD, "report")
    assert judged(a_run("with"), degraded=(told, silent))["degraded"] == (
        Verdict.BROKEN,
        "of audit[2] it does not",
    )


def test_damage_that_passed_is_seen_and_damage_that_did_not_is_named() -> None:
    records = a_run("with", refuse="2")
    numbers = {_subject(each): each.delivery_id for each in records if each.mailbox == "orders"}
    verdict, said = judged(records, damaged=(f"delivery {numbers['2']}",))["P8"]
    assert (verdict, said) == (Verdict.HELD, "1 in the dead letters: the envelope is not JSON")
    verdict, said = judged(records, damaged=(f"delivery {numbers['1']}",))["P8"]
    assert verdict is Verdict.BROKEN
    assert said.startswith("1 of 1 passed as if nothing were wrong")


def _subject(record: DeliveryRecord) -> str | None:
    return record.message.subject if record.message else None


def _entry(event: str) -> Any:
    bus = MessageBus(memory_bus_store())
    bus.send(Message(source="a", recipient="b"))
    [delivery] = bus.receive("b")
    delivery.nack(reason="once")
    [record] = bus.find(DeliveryQuery())
    return replace(record.history[0], event=event)
