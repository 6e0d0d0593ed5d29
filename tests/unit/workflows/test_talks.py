"""Who is asked next, whatever was answered; and that a talk goes on where it was, however often it is interrupted."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_agentic.errors import InvalidResult, RoundsSpent
from airflow_agentic.stores import open_store
from airflow_agentic.workflows.talks import Debate, Handoffs, OneTurn, Supervision, Turn

TEAM = ("ann", "ben", "cem")


def held(talk, task, answer):
    """Let a talk go to its end; return its turns and its result."""
    turns, asking, said = [], talk.turns(task), None
    with contextlib.suppress(StopIteration):
        while True:
            try:
                turn = asking.send(said)
            except StopIteration as end:
                return turns, end.value
            turns.append(turn)
            said = answer(turn)
    raise AssertionError


def test_one_turn_is_one_turn():
    assert held(OneTurn("ann"), {"a": 1}, lambda turn: turn.task) == (
        [Turn("ann", "ann", {"a": 1})],
        {"a": 1},
    )


class TestDebate:
    def test_names_of_turns_are_all_different_and_each_hears_all_before_it(self):
        turns, result = held(Debate(TEAM, 20), "tea?", lambda turn: turn.name)
        assert len({turn.name for turn in turns}) == len(turns) == Debate(TEAM, 20).most_turns == 60
        assert [len(turn.task["turns"]) for turn in turns] == list(range(60))
        assert (result["rounds"], len(result["turns"])) == (20, 60)

    def test_what_an_agent_does_with_what_it_heard_changes_nothing(self):
        turns, result = held(Debate(("ann", "ben"), 2), "?", lambda turn: turn.task["turns"].clear())
        assert len(result["turns"]) == 4
        assert turns[-1].agent == "ben"

    def test_a_condition_that_fails_does_not_end_it(self):
        _, result = held(Debate(("ann", "ben"), 3, until='output["ann"].missing'), "?", lambda _: {})
        assert result["rounds"] == 3

    def test_a_condition_ends_it_after_the_round(self):
        talk = Debate(("ann", "ben"), 5, until='output["ann"] == 2')
        _, result = held(talk, "?", lambda turn: turn.task["round"])
        assert (result["rounds"], len(result["turns"])) == (2, 4)


class TestSupervision:
    def test_a_worker_without_a_task_gets_that_of_the_whole(self):
        def answer(turn):
            if turn.agent != "lead":
                return turn.task
            return {"result": turn.task["turns"]} if turn.task["turns"] else {"next": "ben"}

        _, result = held(Supervision("lead", ("ann", "ben"), 3), "tea", answer)
        assert result == [{"round": 1, "agent": "ben", "task": "tea", "answer": "tea"}]

    def test_it_is_asked_once_more_after_the_last_round(self):
        left = []

        def answer(turn):
            if turn.agent == "lead":
                left.append(turn.task["rounds_left"])
            return {"next": "ann"}

        with pytest.raises(RoundsSpent, match="no result after 2 rounds"):
            held(Supervision("lead", ("ann",), 2), "tea", answer)
        assert left == [2, 1, 0]

    @pytest.mark.parametrize(
        "said", ["ann", None, {}, {"next": 7}, {"next": "lead"}, ["ann"], {"nxt": "ann"}]
    )
    def test_an_answer_that_names_nobody_is_refused(self, said):
        with pytest.raises(InvalidResult):
            held(Supervision("lead", ("ann",), 2), "tea", lambda _: said)

    def test_the_nearest_name_is_told(self):
        with pytest.raises(InvalidResult, match=r"names 'fnider'.*did you mean 'finder'"):
            held(Supervision("lead", ("finder", "writer"), 2), "tea", lambda _: {"next": "fnider"})


class TestHandoffs:
    def test_it_goes_on_until_somebody_keeps_it(self):
        path = {"ann": {"handoff": "cem", "task": 2}, "cem": {"handoff": "ben"}, "ben": "mine"}
        turns, result = held(Handoffs(TEAM, 2), 1, lambda turn: path[turn.agent])
        assert result == {"agent": "ben", "result": "mine", "path": ["ann", "cem", "ben"]}
        assert [turn.task for turn in turns] == [1, 2, 2]

    def test_nobody_hands_over_to_itself(self):
        with pytest.raises(InvalidResult, match="names 'ann', who does not take part"):
            held(Handoffs(TEAM, 2), 1, lambda _: {"handoff": "ann"})

    def test_it_is_bounded(self):
        others = {"ann": "ben", "ben": "ann"}
        with pytest.raises(RoundsSpent, match="more than 3 times: ann -> ben -> ann -> ben -> ann"):
            held(Handoffs(("ann", "ben"), 3), 1, lambda turn: {"handoff": others[turn.agent]})


class Killed(BaseException):
    """The process is gone."""


answers = st.one_of(
    st.builds(lambda name: {"next": name, "handoff": name}, st.sampled_from(("ben", "cem"))),
    st.builds(lambda value: {"result": value}, st.integers()),
    st.integers(),
)
talks = st.one_of(
    st.builds(Debate, st.just(TEAM), st.integers(1, 4), st.sampled_from((None, 'output["ann"] == 3'))),
    st.builds(Supervision, st.just("ann"), st.just(("ben", "cem")), st.integers(1, 4)),
    st.builds(Handoffs, st.just(TEAM), st.integers(1, 4)),
)


@given(talk=talks, script=st.lists(answers, min_size=15, max_size=15), kills=st.sets(st.integers(0, 20)))
def test_a_talk_that_is_killed_at_any_turns_asks_nobody_twice_and_ends_as_one_that_is_not(
    talk, script, kills
):
    def outcome(run_turn):
        asking, said = talk.turns("?"), None
        try:
            while True:
                said = run_turn(asking.send(said))
        except StopIteration as end:
            return json.dumps(end.value, sort_keys=True)
        except (InvalidResult, RoundsSpent) as error:
            return type(error).__name__

    undisturbed, asked, left = [], [], set(kills)
    expected = outcome(lambda turn: (undisturbed.append(turn.name), script[len(undisturbed) - 1])[1])

    def speak(name):
        number = undisturbed.index(name)
        if number in left:
            left.discard(number)
            raise Killed
        asked.append(name)
        return script[number]

    with open_store("memory://") as store:
        found = None
        while found is None:
            with contextlib.suppress(Killed), store.run("talk", key="t") as run:
                found = outcome(lambda turn, run=run: run.step(turn.name, speak, turn.name, on_change="keep"))
    assert (found, asked) == (expected, undisturbed)
