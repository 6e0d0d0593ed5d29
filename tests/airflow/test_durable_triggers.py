"""Waiting in the triggerer for messages with a deadline, and for what people do with runs."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from airflow_agentic.operators.answers import Fields
from airflow_agentic.operators.suspending import asked, asked_again, described, settle
from airflow_agentic.persistence import Interrupted
from airflow_agentic.triggers.messaging import MailboxTrigger
from airflow_agentic.triggers.persistence import RunTrigger


async def first(trigger, seconds=20):
    async for event in trigger.run():
        return event.payload
    raise AssertionError("no event")


def fired(trigger):
    async def within():
        return await asyncio.wait_for(first(trigger), 20)

    return asyncio.run(within())


def asking(store, key="asker/d/r/t", schema=None):
    with pytest.raises(Interrupted), store.run("asker", key) as run:
        run.interrupt("May I?", schema)
    return store.runs.find(key)


def soon():
    return (datetime.now(UTC) + timedelta(seconds=0.3)).isoformat()


class TestTriggers:
    def test_a_mailbox_is_waited_for_until_a_moment(self, store):
        trigger = MailboxTrigger("nothing", "message", None, soon())
        name, kwargs = trigger.serialize()
        assert name.endswith("MailboxTrigger")
        assert fired(MailboxTrigger(**kwargs))["mailbox"]["ready"] == 0

    def test_a_run_is_waited_for_until_somebody_answers(self, store):
        head = asking(store)

        async def both():
            trigger = RunTrigger(**RunTrigger(head.stream, head.version).serialize()[1])
            waiting = asyncio.ensure_future(first(trigger))
            await asyncio.sleep(0.5)
            assert not waiting.done()
            await asyncio.to_thread(
                store.runs.by_hand.answer, head.stream, "question:question", "yes", actor="ann"
            )
            return await asyncio.wait_for(waiting, 20)

        assert asyncio.run(both()) == {"run": head.stream}

    def test_or_until_a_moment_or_if_it_is_gone(self, store):
        head = asking(store)
        assert fired(RunTrigger(head.stream, head.version, soon())) == {"run": head.stream}
        store.runs.forget(head.stream)
        assert fired(RunTrigger(head.stream, head.version)) == {"run": head.stream}


class TestAnswers:
    def about(self, store, schema=None):
        head = asking(store, schema=schema)
        return {
            "run": head.stream,
            "question": "question:question",
            "text": "May I?",
            "schema": schema,
            "deadline": None,
        }

    def event(self, answer):
        return {
            "chosen_options": ["Answer"],
            "params_input": {"answer": answer},
            "responded_by_user": {"name": "ann"},
        }

    def test_an_answer_that_was_given_elsewhere_stands(self, store, caplog):
        caplog.set_level("INFO")
        about = self.about(store)
        store.runs.by_hand.answer(about["run"], about["question"], "no", actor="bob")
        assert settle(store.runs, about, self.event("yes")) is None
        answers = [
            each.data["answer"] for each in store.history(about["run"]) if each.type == "question.answered"
        ]
        assert answers == ["no"]
        assert "bob answered" in caplog.text

    def test_one_that_does_not_fit_is_not_recorded_and_says_why(self, store):
        about = self.about(store, {"type": "integer"})
        assert "'many' is not of type 'integer'" in settle(store.runs, about, self.event("many"))
        assert store.runs.find(about["run"]).status == "waiting"
        again = asked_again(about)
        assert (again.key, again.name, again.question) == (about["run"], "question:question", "May I?")

    def test_the_details_stand_above_the_line_about_the_run(self, store):
        with pytest.raises(Interrupted) as caught, store.run("asker", "k") as run:
            run.interrupt("May I?", details="one\0\nhttp://ana:hunter2@host")
        # As Airflow's database keeps it, and without passwords of a log.
        body = "one \nhttp://ana:***@host\n\nRun `k` waits for the answer."
        assert asked(caught.value)["body"] == body
        about = described(caught.value)
        assert asked(asked_again(about))["body"] == body
        del about["details"]  # as an older version parked it
        assert asked(asked_again(about))["body"] == "Run `k` waits for the answer."

    def test_when_the_time_is_over_nothing_is_recorded(self, store):
        about = self.about(store)
        version = store.runs.find(about["run"]).version
        assert settle(store.runs, about, {"error": "over", "error_type": "timeout"}) is None
        assert store.runs.find(about["run"]).version == version


class TestFields:
    @pytest.mark.parametrize(
        ("schema", "given", "answer"),
        [
            (None, {"answer": "5"}, "5"),
            ({"type": "string"}, {"answer": "5"}, "5"),
            ({"type": "boolean"}, {"answer": True}, True),
            ({"enum": ["a", "b"]}, {"answer": "a"}, "a"),
            ({"type": "array"}, {"answer": "[1]"}, [1]),
            ({"type": "array"}, {"answer": "no json"}, "no json"),
            ({"type": "object"}, {"answer": '{"a": 1}'}, {"a": 1}),
            ({"type": "object", "properties": {"a": {"type": "string"}}}, {"a": ""}, {}),
            ({"type": "object", "properties": {"a": {"type": "number"}}}, {"a": 0}, {"a": 0}),
        ],
    )
    def test_what_is_in_them_is_the_answer(self, schema, given, answer):
        fields = Fields(schema)
        assert fields.answer(given) == answer
        assert set(fields.form()) == set(given)
