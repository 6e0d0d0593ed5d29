"""The runner: one task, or message by message."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import clocked
import pytest
from runner_steps import BOX, NOW, Record, audit_record, dead, options, runner, send

from airflow_agentic.agents import AgentState, MailboxReport, RunIdentity
from airflow_agentic.errors import (
    InvalidResult,
    InvalidTask,
    LifecycleError,
    MessageTooLarge,
    RejectMessage,
    ServiceError,
    ServiceRefused,
    ServiceThrottled,
    StoreUnavailable,
)
from airflow_agentic.messaging import DeliveryState, Kind
from airflow_agentic.messaging.ports import Address, DeliveryQuery, Outgoing
from airflow_agentic.testing import FakeClock


class TestRunTask:
    def test_the_result_is_plain_json_and_the_messages_leave_together(self, bus):
        def audit(record: Record, ctx) -> Record:
            ctx.send("legal", 1)
            ctx.send("boss", 2)
            assert bus.mailboxes() == [], "a message left before the work was done"
            return record

        assert runner(bus, audit).run_task({"name": "a"}) == {"name": "a"}
        assert [(s.mailbox, s.ready) for s in bus.mailboxes()] == [("boss", 1), ("legal", 1)]

    @pytest.mark.parametrize(
        ("end", "error"), [("raise", OSError), ("bad result", InvalidResult), ("too large", MessageTooLarge)]
    )
    def test_nothing_leaves_when_the_work_fails(self, bus, end, error):
        def audit(record: Record, ctx) -> int:
            ctx.send("legal", 1)
            if end == "raise":
                raise OSError("no disk")
            if end == "too large":
                ctx.send("legal", "x" * 6_000)
            return "no number" if end == "bad result" else 1

        with pytest.raises(error):
            runner(bus, audit).run_task({"name": "a"})
        assert bus.mailboxes() == []

    def test_a_retry_does_not_send_twice(self, bus):
        def audit(record: Record, ctx):
            ctx.send("legal", record.name)

        for _ in range(3):
            runner(bus, audit).run_task({"name": "a"})
        assert bus.stats("legal").ready == 1
        runner(bus, audit, run=RunIdentity("audit", "run-2", "judge")).run_task({"name": "a"})
        assert bus.stats("legal").ready == 2

    def test_a_wrong_task_is_refused(self, bus):
        with pytest.raises(InvalidTask, match="name: Field required"):
            runner(bus, audit_record).run_task({"nome": "a"})


class TestDrain:
    def test_every_message_is_handled_in_order_and_acked_with_what_it_produced(self, bus):
        send(bus, "a", "b", "c")

        def audit(record: Record, ctx):
            ctx.send("legal", record.name)

        report = runner(bus, audit).drain(BOX)
        assert (report.handled, report.sent, report.open) == (3, 3, 0)
        assert (report.failed, report.rejected, report.lost) == (0, 0, 0)
        assert [d.message.data for d in bus.receive("legal", max_messages=9)] == ["a", "b", "c"]
        assert bus.stats(BOX).done == 3

    def test_an_empty_mailbox_is_done_at_once(self, bus):
        started = time.monotonic()
        assert runner(bus, audit_record).drain(BOX, linger=timedelta(seconds=30)).handled == 0
        assert time.monotonic() - started < 5

    def test_it_stops_after_as_many_as_it_is_told(self, bus):
        send(bus, "a", "b", "c")
        report = runner(bus, audit_record).drain(BOX, max_messages=2)
        assert (report.handled, report.open) == (2, 1)

    def test_it_stops_when_it_is_told_to(self, bus):
        send(bus, "a", "b")
        made = runner(bus, lambda task: made.stop())
        report = made.drain(BOX)
        assert (report.handled, report.open, made.stopping) == (1, 1, True)

    @pytest.mark.parametrize(
        ("error", "reason"),
        [
            (RejectMessage("no licence text"), "no licence text"),
            (ServiceRefused("the service said 403"), "[permanent] ServiceRefused: the service said 403"),
            (InvalidResult("not what was asked"), "[permanent] InvalidResult: not what was asked"),
        ],
    )
    def test_a_message_that_can_never_be_handled_goes_to_the_dead_letters_at_once(self, bus, error, reason):
        send(bus, "bad", "good")

        def audit(record: Record, ctx):
            ctx.send("legal", record.name)
            if record.name == "bad":
                raise error

        report = runner(bus, audit).drain(BOX)
        assert (report.handled, report.rejected, report.sent) == (1, 1, 1)
        assert dead(bus) == {"bad": reason}
        assert bus.stats("legal").total == 1, "a message left although the work failed"

    def test_a_message_that_does_not_fit_goes_to_the_dead_letters_with_the_field(self, bus):
        send(bus, {"name": ["a"]}, "good")
        report = runner(bus, audit_record).drain(BOX)
        assert (report.handled, report.rejected) == (1, 1)
        [record] = bus.dead_letters()
        assert record.reason.startswith("[permanent] InvalidTask: ")
        assert "name: Input should be a valid string" in record.reason

    def test_a_message_whose_answer_is_too_large_goes_to_the_dead_letters(self, bus):
        send(bus, "a")
        report = runner(bus, lambda task, ctx: ctx.send("legal", "x" * 6_000) and None).drain(BOX)
        assert report.rejected == 1
        assert "MessageTooLarge" in bus.dead_letters()[0].reason

    @pytest.mark.parametrize("error", [OSError("disk"), ServiceError("503"), StoreUnavailable("locked")])
    def test_a_failure_that_may_pass_is_tried_again(self, bus, error):
        send(bus, "a")
        seen = []

        def audit(record: Record, ctx):
            seen.append(ctx.message.id)
            if len(seen) < 3:
                raise error

        report = runner(bus, audit).drain(BOX)
        assert (report.handled, report.failed, report.open) == (1, 2, 0)
        [record] = bus.find(DeliveryQuery())
        assert [h.detail for h in record.history] == [f"[transient] {type(error).__name__}: {error}"] * 2

    def test_a_service_that_asks_to_be_left_alone_is_left_alone(self, bus):
        send(bus, "a")

        def audit(record: Record, ctx):
            raise ServiceThrottled("not so often", 429, retry_after_seconds=60.0)

        report = runner(bus, audit).drain(BOX, linger=timedelta(0))
        assert (report.failed, report.open) == (1, 1)
        [record] = bus.find(DeliveryQuery(mailbox=BOX))
        assert 60 <= (record.visible_at - record.updated_at).total_seconds() <= 73
        assert record.history[-1].detail == "[resource_exhaustion] ServiceThrottled: not so often"

    def test_a_failure_that_does_not_pass_ends_in_the_dead_letters(self, bus):
        send(bus, "a", "b")

        def audit(record: Record):
            if record.name == "a":
                raise OSError("disk")

        report = runner(bus, audit).drain(BOX)
        assert (report.handled, report.failed, report.open) == (1, 3, 0)
        assert dead(bus) == {"a": "attempts spent: [transient] OSError: disk"}

    def test_the_agent_is_ready_again_after_a_failure(self, bus):
        send(bus, "a")
        made = runner(bus, lambda task: 1 / 0)
        made.drain(BOX, max_messages=1)
        assert made.agent.state is AgentState.READY
        assert made.agent.performance_metrics.failed == 1

    def test_whoever_asked_gets_the_answer(self, bus):
        [asked] = send(bus, "a", reply_to="scanner", kind=Kind.REQUEST, correlation_id="talk-1")
        send(bus, "nobody asked")
        report = runner(bus, audit_record).drain(BOX)
        assert report.sent == 1
        [reply] = bus.receive("scanner", max_messages=9)
        assert (reply.message.data, reply.message.kind) == ("a", Kind.RESPONSE)
        assert (reply.message.correlation_id, reply.message.causation_id) == ("talk-1", asked.id)

    def test_work_that_outlasts_its_lease_keeps_it(self, bus):
        send(bus, "slow")

        def audit(task):
            time.sleep(0.3)
            assert bus.receive(BOX) == []

        report = runner(bus, audit, lease=timedelta(milliseconds=100)).drain(BOX)
        assert (report.handled, report.lost) == (1, 0)
        assert bus.find(DeliveryQuery())[0].attempts == 1

    def test_work_that_lost_its_lease_sends_nothing(self, bus):
        send(bus, "a")

        def audit(task, ctx):
            ctx.send("legal", "too late")
            [held] = made._worker._held
            held.token = "somebody else's"  # as after a long sleep of the whole machine

        made = runner(bus, audit, lease=timedelta(milliseconds=200))
        report = made.drain(BOX, max_messages=1, linger=NOW)
        assert (report.handled, report.lost, report.sent, report.open) == (0, 1, 0, 1)
        assert bus.stats("legal").total == 0

    @pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
    def test_an_interrupt_gives_the_message_back_uncounted_and_is_passed_on(self, bus, interrupt):
        send(bus, "a")

        def audit(task, ctx):
            ctx.send("legal", 1)
            raise interrupt

        with pytest.raises(interrupt):
            runner(bus, audit).drain(BOX)
        [record] = bus.find(DeliveryQuery(mailbox=BOX))
        assert (record.state, record.attempts) == (DeliveryState.READY, 0)
        assert bus.stats("legal").total == 0

    def test_an_agent_that_was_shut_down_spoils_no_message(self, bus):
        send(bus, "a", "b", "c")
        made = runner(bus, lambda task: made.agent.shutdown("killed"))
        with pytest.raises(LifecycleError):
            made.drain(BOX)
        records = bus.find(DeliveryQuery())
        assert [r.state for r in records] == [DeliveryState.DONE, DeliveryState.READY, DeliveryState.READY]
        assert [r.attempts for r in records[1:]] == [0, 0]

    def test_it_waits_a_while_for_a_message_in_other_hands(self, bus):
        send(bus, "a")
        [elsewhere] = bus.receive(BOX)
        later = threading.Timer(0.05, elsewhere.release)
        later.start()
        assert runner(bus, audit_record).drain(BOX, linger=timedelta(seconds=10)).handled == 1
        later.join()

    def test_it_does_not_wait_longer_than_told_and_says_what_is_open(self, bus):
        send(bus, "a")
        bus.receive(BOX)
        report = runner(bus, audit_record).drain(BOX, linger=timedelta(milliseconds=20))
        assert (report.handled, report.open) == (0, 1)

    def test_bad_envelopes_do_not_end_it_early(self, bus):
        for i in range(3):
            bus._store.messages.append([Outgoing(f"foreign-{i}", "them", "c", b"x", (Address(BOX, 3),))])
        send(bus, "fine")
        report = runner(bus, audit_record).drain(BOX, linger=NOW)
        assert (report.handled, report.open) == (1, 0)
        assert bus.stats(BOX).dead == 3


class TestAfterACrash:
    def test_what_a_dead_worker_held_is_handled_by_the_next_when_its_lease_ends(self, tmp_path):
        clock = FakeClock()
        with clocked.sqlite(tmp_path / "agentic.db", clock, options()) as store:
            send(store.bus, "a", "b")
            store.bus.receive(BOX)  # and dies
            work = runner(store.bus, audit_record)
            assert work.drain(BOX, linger=NOW).handled == 1
            clock.advance(60)
            assert work.drain(BOX, linger=NOW).handled == 1
            assert store.bus.stats(BOX).done == 2

    def test_a_message_that_kills_its_worker_ends_in_the_dead_letters_and_the_others_are_handled(
        self, tmp_path
    ):
        clock = FakeClock()
        with clocked.sqlite(tmp_path / "agentic.db", clock, options()) as store:
            send(store.bus, "deadly")
            for _ in range(3):
                store.bus.receive(BOX)  # and dies
                clock.advance(60)
            send(store.bus, "fine")
            report = runner(store.bus, audit_record).drain(BOX, linger=NOW)
            assert (report.handled, report.open) == (1, 0)
            assert set(dead(store.bus)) == {"deadly"}


class TestReport:
    def test_two_goes_are_added_up_and_the_later_one_says_what_is_open(self):
        first = MailboxReport("box", 1, 2, 3, 4, 5, open=9)
        assert first + MailboxReport("box", 1, 1, 1, 1, 1, open=2) == MailboxReport(
            "box", 2, 3, 4, 5, 6, open=2
        )
