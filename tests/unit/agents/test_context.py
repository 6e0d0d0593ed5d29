from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from airflow_agentic.agents import AgentContext, RunIdentity
from airflow_agentic.errors import InvalidMessage
from airflow_agentic.messaging import Kind, Message
from airflow_agentic.messaging.codec import decode, encode

RUN = RunIdentity("audit", "run-1", "judge")
CAUSE = Message(source="scanner", recipient="auditor", data=1, correlation_id="talk-1")


def ids(run=RUN, *, messages=(), agent="auditor", words=("a", "b")):
    ctx = AgentContext(agent, run=run, messages=messages)
    return [ctx.send("legal", word).id for word in words]


class TestIdsInARun:
    def test_a_retry_sends_the_same_messages_under_the_same_ids(self):
        assert ids(RUN) == ids(replace(RUN, try_number=2))

    @pytest.mark.parametrize(
        "change",
        [
            {"generation": 1},
            {"run_id": "run-2"},
            {"dag_id": "other"},
            {"task_id": "other"},
            {"map_index": 3},
        ],
        ids=lambda change: next(iter(change)),
    )
    def test_another_piece_of_work_sends_under_other_ids(self, change):
        assert not set(ids(RUN)) & set(ids(replace(RUN, **change)))

    def test_another_agent_sends_under_other_ids(self):
        assert not set(ids(agent="auditor")) & set(ids(agent="judge"))

    def test_other_words_have_other_ids(self):
        assert len(set(ids(words=("a", "b", {"a": 1}, {"a": 2}, None)))) == 5

    def test_the_same_words_twice_are_two_messages_in_every_try(self):
        first = ids(words=("same", "same"))
        assert len(set(first)) == 2
        assert ids(replace(RUN, try_number=2), words=("same", "same")) == first

    def test_the_order_of_keys_in_the_data_does_not_matter(self):
        assert ids(words=[{"a": 1, "b": 2}]) == ids(words=[{"b": 2, "a": 1}])

    def test_recipient_type_and_subject_are_part_of_it(self):
        ways = [
            {"recipient": "legal"},
            {"recipient": "boss"},
            {"recipient": "legal", "type": "t"},
            {"recipient": "legal", "subject": "s"},
        ]
        sent = [AgentContext("auditor", run=RUN).send(data="a", **way) for way in ways]
        assert len({message.id for message in sent}) == 4

    def test_a_key_names_a_message_whose_words_change_between_tries(self):
        first = AgentContext("auditor", run=RUN).send("legal", {"at": "10:00"}, key="report")
        second = AgentContext("auditor", run=RUN).send("legal", {"at": "10:01"}, key="report")
        assert first.id == second.id

    def test_keys_that_could_run_into_each_other_do_not(self):
        one = RunIdentity("a", "b:c", "d")
        other = RunIdentity("a:b", "c", "d")
        assert not set(ids(one)) & set(ids(other))


class TestIdsWithoutARun:
    def test_handling_the_same_message_again_sends_the_same_ids(self):
        assert ids(None, messages=(CAUSE,)) == ids(None, messages=(CAUSE,))

    def test_handling_another_message_sends_others(self):
        other = CAUSE.model_copy(update={"id": "m-2"})
        assert not set(ids(messages=(CAUSE,))) & set(ids(messages=(other,)))

    def test_with_neither_every_message_is_new(self):
        assert not set(ids(None)) & set(ids(None))


class TestConversation:
    def test_an_answer_belongs_to_the_conversation_of_its_cause(self):
        sent = AgentContext("auditor", run=RUN, messages=(CAUSE,)).send("legal", 1)
        assert (sent.correlation_id, sent.causation_id) == ("talk-1", CAUSE.id)

    def test_of_its_own_accord_a_run_speaks_in_its_own(self):
        sent = AgentContext("auditor", run=RUN).send("legal", 1)
        assert (sent.correlation_id, sent.causation_id) == ("audit:run-1", None)

    def test_without_both_a_message_starts_one(self):
        sent = AgentContext("auditor").send("legal", 1)
        assert sent.correlation_id == sent.id

    def test_the_message_at_hand_is_one_or_none(self):
        assert AgentContext("a").message is None
        assert AgentContext("a", messages=(CAUSE,)).message is CAUSE
        assert AgentContext("a", messages=(CAUSE, CAUSE)).message is None

    def test_a_conversation_of_the_longest_ids_that_airflow_has_can_be_sent_and_read(self):
        sent = AgentContext("a", run=RunIdentity("d" * 250, "r" * 250, "t" * 250)).send("legal", 1)
        assert decode(encode(sent)) == sent


class TestOutbox:
    def test_what_is_sent_waits_in_order_with_all_it_was_given(self):
        ctx = AgentContext("auditor", run=RUN)
        first = ctx.send("legal", {"a": 1}, type="t", kind=Kind.REQUEST, subject="s")
        second = ctx.send("boss", None)
        assert ctx.outbox == [first, second]
        assert (first.source, first.recipient, first.data) == ("auditor", "legal", {"a": 1})
        assert (first.type, first.kind, first.subject) == ("t", Kind.REQUEST, "s")

    @pytest.mark.parametrize(("recipient", "data"), [("no box", 1), ("legal", {1, 2})])
    def test_what_cannot_be_sent_is_refused_and_not_kept(self, recipient, data):
        ctx = AgentContext("auditor", run=RUN)
        with pytest.raises(InvalidMessage):
            ctx.send(recipient, data)
        assert ctx.outbox == []

    def test_it_logs_under_the_agents_name(self, caplog):
        AgentContext("auditor").log.warning("hello")
        assert caplog.records[0].name == "airflow_agentic.agent.auditor"


TRACE = f"00-{'a' * 32}-{'b' * 16}-01"
OTHER = f"00-{'c' * 32}-{'d' * 16}-01"


class TestWhereFrom:
    def test_a_message_says_which_task_sent_it(self):
        sent = AgentContext("auditor", run=RUN).send("legal", 1)
        mapped = AgentContext("auditor", run=replace(RUN, map_index=3)).send("legal", 1)
        whole = AgentContext("auditor", run=replace(RUN, task_id="")).send("legal", 1)
        assert (sent.run, mapped.run, whole.run) == (
            "audit/run-1/judge",
            "audit/run-1/judge[3]",
            "audit/run-1",
        )
        assert AgentContext("auditor").send("legal", 1).run is None

    def test_it_belongs_to_the_trace_of_what_is_handled_else_of_the_task(self):
        run = replace(RUN, traceparent=TRACE)
        cause = CAUSE.model_copy(update={"traceparent": OTHER})
        assert AgentContext("a", run=run).send("legal", 1).traceparent == TRACE
        assert AgentContext("a", run=run, messages=(cause,)).send("legal", 1).traceparent == OTHER
        assert AgentContext("a", run=run, messages=(CAUSE,)).send("legal", 1).traceparent == TRACE
        assert AgentContext("a", run=RUN).send("legal", 1).traceparent is None

    def test_neither_is_part_of_its_id(self):
        assert ids(RUN) == ids(replace(RUN, traceparent=TRACE))
        assert replace(RUN, traceparent=TRACE) == RUN

    def test_a_holder_of_leases_is_named_by_its_task_and_process(self):
        assert RUN.owner.startswith("audit/run-1/judge@")
        assert RUN.owns(RUN.owner)
        assert RUN.owns("audit/run-1/judge@elsewhere:7")
        for other in (
            None,
            "",
            "host:1",
            "audit/run-1/judge",
            "audit/run-1/judges@h:1",
            "audit/run-1/jud@h:1",
        ):
            assert not RUN.owns(other)

    def test_a_later_try_replaces_an_earlier_one_and_not_the_other_way(self):
        second, third = replace(RUN, try_number=2), replace(RUN, try_number=3)
        assert third.replaces(second.holder)
        assert third.replaces("audit/run-1/judge try 3@elsewhere:7")
        assert not second.replaces(third.holder)
        for other in (
            "",
            "host:1",
            RUN.owner,
            "audit/run-1/judge 2@h:1",
            "audit/run-1/judges try 2@h:1",
            "audit/run-1/judge try x@h:1",
        ):
            assert not third.replaces(other)

    def test_a_name_that_is_too_long_for_a_store_is_cut(self):
        run = RunIdentity("d" * 250, "r" * 250, "t" * 250)
        assert len(run.owner) == 300
        assert len(run.holder) == 300
        assert run.replaces(run.holder)
        assert run.owner.rpartition("@")[2].count(":") == 1
        assert run.owns(run.owner)


class TestEnvelope:
    def test_what_is_said_of_a_message_arrives(self):
        sent = AgentContext("auditor", run=RUN).send(
            "legal", 1, ordering_key="k", priority=9, reply_to="auditor", expires_in=60
        )
        assert (sent.ordering_key, sent.priority, sent.reply_to) == ("k", 9, "auditor")
        assert timedelta(seconds=55) < sent.expires_at - datetime.now(UTC) <= timedelta(seconds=60)
        brief = AgentContext("auditor", run=RUN).send("legal", 1, expires_in=timedelta(hours=1))
        assert brief.expires_at - datetime.now(UTC) > timedelta(minutes=59)

    def test_it_is_no_part_of_the_id(self):
        plain = AgentContext("auditor", run=RUN).send("legal", 1)
        rich = AgentContext("auditor", run=RUN).send("legal", 1, ordering_key="k", priority=9, expires_in=60)
        assert plain.id == rich.id

    def test_what_is_unknown_is_refused(self):
        with pytest.raises(InvalidMessage, match="urgency"):
            AgentContext("auditor").send("legal", 1, urgency=3)

    def test_topics_and_groups_are_addressed_under_ids_of_their_own(self):
        ctx = AgentContext("auditor", run=RUN)
        sent = [ctx.send("legal", 1), ctx.publish("legal", 1), ctx.broadcast("tag:legal", 1)]
        assert [message.address for message in sent] == ["legal", "topic legal", "audience tag:legal"]
        assert len({message.id for message in sent}) == 3
        again = AgentContext("auditor", run=replace(RUN, try_number=2))
        assert [again.send("legal", 1).id, again.publish("legal", 1).id] == [m.id for m in sent[:2]]

    def test_the_project_file_does_not_lead_topics_elsewhere(self):
        ctx = AgentContext("auditor", run=RUN, sends_to={"legal": "compliance"})
        assert ctx.send("legal", 1).recipient == "compliance"
        assert ctx.publish("legal", 1).topic == "legal"

    def test_a_sign_of_life_is_for_nobody(self):
        beat = AgentContext("auditor", run=RUN).heartbeat({"at": "step 3"}, expires_in=60)
        assert (beat.kind, beat.recipient, beat.source) == (Kind.HEARTBEAT, None, "auditor")

    def test_a_message_made_elsewhere_keeps_its_id_and_what_it_says(self):
        made = Message(source="me", topic="orders.done", run="mine", traceparent=TRACE)
        ctx = AgentContext("auditor", run=replace(RUN, traceparent=OTHER), messages=(CAUSE,))
        sent = ctx.post(made)
        assert ctx.outbox == [sent]
        assert (sent.id, sent.source, sent.run, sent.traceparent) == (made.id, "me", "mine", TRACE)
        assert (sent.correlation_id, sent.causation_id) == ("talk-1", CAUSE.id)


class TestReply:
    ASKED = CAUSE.model_copy(update={"reply_to": "scanner", "traceparent": TRACE})

    def test_the_answer_and_the_refusal_have_the_same_ids_in_every_try(self):
        first, second = (AgentContext("a", run=RUN, messages=(self.ASKED,)) for _ in range(2))
        assert first.reply(1).id == second.reply(2).id
        refusals = [ctx.refusal(OSError(text)) for ctx, text in ((first, "x"), (second, "y"))]
        assert refusals[0].id == refusals[1].id != first.outbox[0].id
        assert (refusals[0].run, refusals[0].traceparent) == (RUN.name, TRACE)

    def test_a_refusal_waits_in_no_outbox(self):
        ctx = AgentContext("a", run=RUN, messages=(self.ASKED,))
        assert ctx.refusal(OSError("x")).kind is Kind.ERROR
        assert ctx.outbox == []

    @pytest.mark.parametrize("messages", [(), (CAUSE, CAUSE), (CAUSE,)])
    def test_without_somebody_who_waits_there_is_no_answer(self, messages):
        ctx = AgentContext("a", run=RUN, messages=messages)
        assert ctx.refusal(OSError("x")) is None
        with pytest.raises(InvalidMessage):
            ctx.reply(1)
        assert ctx.outbox == []
