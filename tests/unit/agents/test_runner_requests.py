"""Whoever asks an agent gets an answer: the result, or the error."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from runner_steps import BOX, Record, audit_record, options, runner, send

from airflow_agentic.agents import AgentContext, FunctionAgent
from airflow_agentic.agents.runner import AgentRunner
from airflow_agentic.errors import RejectMessage
from airflow_agentic.messaging import Kind, MailboxRules, Message
from airflow_agentic.messaging.requests import prepared
from airflow_agentic.testing import memory_store

LATER = datetime(2099, 1, 1, tzinfo=UTC)


def ask(bus, name="a", reply_to="scanner", **values):
    return send(bus, name, kind=Kind.REQUEST, reply_to=reply_to, **values)[0]


def answers(bus, box="scanner"):
    return [delivery.message for delivery in bus.receive(box, max_messages=99)]


class TestAnswers:
    def test_an_answer_keeps_the_deadline_and_the_trace_of_its_request_and_says_which_task_gave_it(self, bus):
        trace = f"00-{'a' * 32}-{'b' * 16}-01"
        asked = ask(bus, expires_at=LATER, traceparent=trace, correlation_id="talk-1")
        runner(bus, lambda record: record["name"]).drain(BOX)
        [reply] = answers(bus)
        assert (reply.kind, reply.data, reply.causation_id) == (Kind.RESPONSE, "a", asked.id)
        assert (reply.expires_at, reply.traceparent) == (LATER, trace)
        assert (reply.correlation_id, reply.run) == ("talk-1", "audit/run-1/judge")

    def test_an_agent_that_answers_itself_is_not_answered_for(self, bus):
        ask(bus)

        def audit(record: Record, ctx):
            ctx.reply({"early": record.name})
            return "the result"

        report = runner(bus, audit).drain(BOX)
        assert (report.handled, report.sent) == (1, 1)
        assert [reply.data for reply in answers(bus)] == [{"early": "a"}]

    def test_whoever_waits_gets_the_result(self, bus):
        request = Message(source="scanner", recipient=BOX, data={"name": "a"})
        asked = prepared(request, timedelta(seconds=30))
        bus.ask(asked)
        runner(bus, lambda record: record["name"]).drain(BOX)
        assert bus.reply(asked).data == "a"


class TestRefusals:
    def test_what_can_never_be_handled_is_answered_with_an_error_in_the_same_commit(self, bus):
        asked = ask(bus, "bad", expires_at=LATER)

        def audit(record: Record, ctx):
            ctx.send("legal", 1)
            raise RejectMessage("no licence text")

        report = runner(bus, audit).drain(BOX)
        assert (report.rejected, report.sent) == (1, 1)
        [reply] = answers(bus)
        assert (reply.kind, reply.causation_id, reply.expires_at) == (Kind.ERROR, asked.id, LATER)
        assert reply.data["category"] == "permanent"
        assert (reply.data["type"], reply.data["message"]) == ("RejectMessage", "no licence text")
        assert bus.stats("legal").total == 0

    def test_a_request_that_does_not_fit_is_answered_with_what_is_wrong(self, bus):
        ask(bus, {"nome": "a"})
        runner(bus, audit_record).drain(BOX)
        [reply] = answers(bus)
        assert "name: Field required" in reply.data["message"]

    def test_an_error_is_told_when_the_attempts_are_spent_and_not_before(self, bus):
        ask(bus)

        def audit(record: Record):
            assert bus.stats("scanner").total == 0
            raise ConnectionError("no registry") from OSError("no disk")

        report = runner(bus, audit).drain(BOX)
        assert (report.failed, report.sent) == (3, 1)
        [reply] = answers(bus)
        assert (reply.data["type"], reply.data["message"]) == ("ConnectionError", "no registry")
        assert reply.data["category"] == "transient"
        assert reply.data["causes"] == [{"type": "OSError", "message": "no disk"}]

    def test_nobody_is_told_where_nobody_asked(self, bus):
        send(bus, "a")
        report = runner(bus, lambda record: 1 / 0).drain(BOX)
        assert (report.failed, report.sent) == (3, 0)
        assert [box.mailbox for box in bus.mailboxes()] == [BOX]

    def test_a_second_failure_of_the_same_request_tells_nothing_new(self, bus):
        ask(bus, "bad")

        def audit(record: Record):
            raise RejectMessage("no")

        runner(bus, audit).drain(BOX)
        [dead] = bus.dead_letters(BOX)
        bus.redrive(dead.delivery_id, actor="t", reason="once more")
        runner(bus, audit).drain(BOX)
        assert bus.stats("scanner").total == 1

    def test_secrets_that_references_led_to_are_not_told(self, bus):
        agent = FunctionAgent(lambda task: 1 / 0, "auditor")
        agent.discreet = lambda text: text.replace("division", "***")
        ask(bus)
        AgentRunner(agent, bus, lambda messages: AgentContext("auditor", messages=messages)).drain(BOX)
        assert answers(bus)[0].data["message"] == "*** by zero"

    def test_an_answer_that_has_no_room_does_not_keep_the_request_alive(self):
        rules = {"scanner": MailboxRules(limit=1)}
        with memory_store(options=options(mailboxes=rules, max_attempts=1)) as store:
            store.bus.send(Message(source="t", recipient="scanner"))
            ask(store.bus)
            report = runner(store.bus, lambda record: 1 / 0).drain(BOX)
            assert (report.failed, report.sent) == (1, 0)
            assert len(store.bus.dead_letters(BOX)) == 1

    @pytest.mark.parametrize("wrong", ["no such place", "x" * 300])
    def test_an_agent_cannot_reply_where_nobody_asked(self, bus, wrong):
        send(bus, "a")
        report = runner(bus, lambda record, ctx: ctx.reply(wrong)).drain(BOX)
        assert report.rejected == 1
        assert "nobody waits for an answer" in bus.dead_letters(BOX)[0].reason
