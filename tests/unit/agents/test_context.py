from __future__ import annotations

from dataclasses import replace

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
