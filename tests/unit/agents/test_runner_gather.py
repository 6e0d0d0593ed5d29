"""The runner: all messages of a mailbox as one task."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import pytest
from runner_steps import BOX, Record, audit_record, runner, send

from airflow_agentic.errors import InvalidTask, RejectMessage
from airflow_agentic.messaging import DeliveryState, Message
from airflow_agentic.messaging.ports import DeliveryQuery


class TestGather:
    def test_all_messages_are_one_task_and_are_acked_with_what_it_produced(self, bus):
        sent = send(bus, "a", "b", "c")

        def write(records: list[Record], ctx) -> str:
            assert [m.id for m in ctx.messages] == [m.id for m in sent]
            ctx.send("boss", len(records))
            return " ".join(record.name for record in records)

        report, result = runner(bus, write).gather(BOX)
        assert result == "a b c"
        assert (report.handled, report.rejected, report.sent, report.open) == (3, 0, 1, 0)
        assert bus.stats(BOX).done == 3
        assert bus.stats("boss").ready == 1

    def test_only_the_messages_that_do_not_fit_are_rejected(self, bus):
        send(bus, "a", {"nome": "x"}, "b", 5)

        def write(records: list[Record]) -> str:
            return " ".join(record.name for record in records)

        report, result = runner(bus, write).gather(BOX)
        assert result == "a b"
        assert (report.handled, report.rejected) == (2, 2)
        assert [record.message.data for record in bus.dead_letters()] == [{"nome": "x"}, 5]
        assert "name: Field required" in bus.dead_letters()[0].reason

    def test_each_dead_letter_says_what_is_wrong_with_it_and_not_with_others(self, bus):
        def write(records: list[Record]) -> int:
            return len(records)

        send(bus, *({"nome": i} for i in range(8)), {"name": 5})
        report, result = runner(bus, write).gather(BOX)
        assert (result, report.handled, report.rejected) == (0, 0, 9)
        *others, last = (record.reason for record in bus.dead_letters())
        assert all("name: Field required" in reason for reason in others)
        assert "name: Input should be a valid string" in last
        assert "Field required" not in last

    def test_a_task_that_cannot_be_any_list_rejects_nobody(self, bus):
        send(bus, "a")
        with pytest.raises(InvalidTask):
            runner(bus, audit_record).gather(BOX)
        assert bus.stats(BOX).ready == 1

    def test_while_others_hold_messages_nothing_is_processed(self, bus):
        send(bus, "a", "b")
        bus.receive(BOX)
        report, result = runner(bus, _fail_if_called).gather(BOX, linger=timedelta(milliseconds=20))
        assert (result, report.handled, report.open) == (None, 0, 2)
        ready = bus.find(DeliveryQuery(states=(DeliveryState.READY,)))
        assert [record.attempts for record in ready] == [0]

    def test_while_messages_wait_for_another_attempt_nothing_is_processed(self, bus):
        send(bus, "a", "b")
        bus.receive(BOX)[0].nack(timedelta(seconds=30), "later")
        report, result = runner(bus, _fail_if_called).gather(BOX, linger=timedelta(milliseconds=20))
        assert (result, report.open) == (None, 2)

    def test_what_was_sent_for_later_is_not_waited_for(self, bus):
        send(bus, "a")
        bus.send(Message(source="s", recipient=BOX, data={"name": "b"}), delay=timedelta(hours=24))
        report, result = runner(bus, _count).gather(BOX, linger=timedelta(milliseconds=20))
        assert (result, report.handled, report.open) == (1, 1, 0)
        assert bus.stats(BOX).scheduled == 1
        assert runner(bus, _fail_if_called).drain(BOX, linger=timedelta(seconds=30)).open == 0

    def test_it_waits_a_while_for_the_missing_ones(self, bus):
        send(bus, "a", "b")
        [elsewhere] = bus.receive(BOX)
        later = threading.Timer(0.05, elsewhere.release)
        later.start()
        report, result = runner(bus, _count).gather(BOX, linger=timedelta(seconds=10))
        later.join()
        assert (result, report.handled) == (2, 2)

    def test_more_than_it_may_take_stay_and_are_told(self, bus):
        send(bus, "a", "b", "c")
        report, result = runner(bus, _count).gather(BOX, max_messages=2)
        assert (result, report.handled, report.open) == (2, 2, 1)

    @pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt(), RejectMessage("no")])
    def test_a_failure_gives_all_messages_back_uncounted_and_is_passed_on(self, bus, error):
        send(bus, "a", "b")

        def write(records, ctx):
            ctx.send("boss", 1)
            raise error

        with pytest.raises(type(error)):
            runner(bus, write).gather(BOX)
        assert [(r.state, r.attempts) for r in bus.find(DeliveryQuery())] == [(DeliveryState.READY, 0)] * 2
        assert bus.stats("boss").total == 0

    def test_leases_are_kept_while_it_works(self, bus):
        send(bus, "a", "b")
        report, _ = runner(bus, lambda records: time.sleep(0.3), lease=timedelta(milliseconds=100)).gather(
            BOX
        )
        assert report.handled == 2

    def test_an_empty_mailbox_is_an_empty_list(self, bus):
        report, result = runner(bus, lambda records: records).gather(BOX)
        assert (result, report.handled, report.open) == ([], 0, 0)


def _count(records):
    return len(records)


def _fail_if_called(records):
    raise AssertionError
