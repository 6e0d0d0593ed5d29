"""All patterns of workflows on a booted Airflow. The DAGs are in ``dags/patterns.py``, the scenes in ``workflow_scenes.py``."""

from __future__ import annotations

from collections import Counter

import pytest
import workflow_scenes as scenes
from effects import messages
from scenes import playing
from workflow_scenes import CLAIMS, KILLS

PLAIN = ("in_sequence", "in_parallel", "without_quorum", "mapped_and_reduced", "supervised", "handed_over")
OTHERS = ("on_a_route", "on_no_route", "declared", "trip", "debated", "asked", "on_messages")
DAGS = (*PLAIN, "on_a_route", "tickets", "trip", "debated", "asked", "claims_announced", "notices_delivered")
ROUNDS, DEBATERS = 20, ("ann", "ben", "cem")
TURNS = ROUNDS * len(DEBATERS)


@pytest.fixture(scope="module")
def played(airflow):
    # Those that take longest begin first.
    names = sorted(
        (*PLAIN, *OTHERS), key=lambda name: name not in ("debated", "trip", "asked", "on_messages")
    )
    with playing(airflow, DAGS, *(getattr(scenes, name) for name in names)) as playing_:
        yield playing_


def events(store, key, type_):
    return [event for event in store.history(key) if event.type == type_]


def test_a_sequence_hands_on_each_result(played):
    flow = played["in_sequence"]
    assert (flow.state, flow.result("work.doubler_2")) == ("success", 42)
    assert flow.outside.counted == Counter(["doubler: 10", "adder: 20", "doubler: 21"])


def test_a_quorum_is_enough_though_one_fails(played):
    flow = played["in_parallel"]
    assert (flow.state, flow.result("work.gather")) == ("success", {"doubler": 20, "adder": 11})
    assert flow.states()["work.hopeless-adder"] == "failed"
    assert flow.outside.counted == Counter(["doubler: 10", "adder: 10", "hopeless-adder"])


def test_without_a_quorum_it_fails_and_says_who_failed(played):
    flow = played["without_quorum"]
    assert (flow.state, flow.states()["work.gather"]) == ("failed", "failed")
    [gather] = [
        each
        for each in flow.airflow.client.task_instances(flow.dag_id, flow.run_id)
        if each.task_id == "work.gather"
    ]
    log = "\n".join(flow.airflow.client.log(flow.dag_id, flow.run_id, gather))
    assert "1 of 2 succeeded, and 2 are needed; failed: hopeless-adder" in log


def test_a_route_goes_to_the_first_rule_that_holds_and_the_others_are_skipped(played):
    flow = played["on_a_route"]
    assert (flow.state, flow.result("work.result")) == ("success", 51)
    assert flow.states()["work.doubler"] == "skipped"
    assert flow.outside.counted == Counter(["adder: 50"])


def test_what_fits_no_rule_goes_to_nobody(played):
    flow = played["on_no_route"]
    assert set(flow.states().values()) == {"success", "skipped"}
    assert flow.states()["work.choose"] == "success"
    assert flow.outside.effects == []


def test_many_items_are_mapped_and_reduced(played):
    flow = played["mapped_and_reduced"]
    assert (flow.state, flow.result("work.summer")) == ("success", 20)
    assert flow.outside.counted == Counter([*(f"doubler: {number}" for number in (1, 2, 3, 4)), "summer"])


def test_a_supervisor_sends_others_to_work(played):
    flow = played["supervised"]
    assert (flow.state, flow.result("work.supervise")) == ("success", 21)
    assert [each["what"] for each in flow.outside.effects] == [
        "lead: 0", "doubler: 10", "lead: 1", "adder: 20", "lead: 2",
    ]  # fmt: skip


def test_a_task_is_handed_over(played):
    flow = played["handed_over"]
    wanted = {"agent": "doubler", "result": 20, "path": ["reception", "doubler"]}
    assert (flow.state, flow.result("work.handoff")) == ("success", wanted)


def test_a_workflow_that_the_project_file_declares_runs(played):
    flow = played["declared"]
    assert (flow.state, flow.result("work.result")) == ("success", "refunded 7")
    assert flow.outside.counted == Counter(["refund 7"])


class TestSaga:
    KEY = "cancel-hotel/trip/trip/work.undo_book-hotel"
    IN_DOUBT = "cancel-flight/trip/trip/work.undo_book-flight"

    def test_it_fails_in_the_middle_and_what_was_done_is_taken_back_in_reverse(self, played):
        flow = played["trip"]
        assert (flow.state, flow.states()["work.outcome"]) == ("failed", "failed")
        order = list(dict.fromkeys(each["what"] for each in flow.outside.effects))
        assert order == ["book flight", "book hotel", "cancel hotel", "cancel flight"]

    def test_a_compensation_whose_task_was_killed_before_it_and_after_its_end_is_done_once(
        self, played, store
    ):
        flow = played["trip"]
        assert flow.outside.counted["cancel hotel"] == 1
        assert flow.task("work.undo_book-hotel").instance["try_number"] == 3
        assert len(events(store, self.KEY, "step.done")) == 1
        assert len(events(store, self.KEY, "step.ambiguous")) == 1

    def test_one_that_died_right_after_its_effect_repeats_it_under_the_same_key_and_says_so(
        self, played, store
    ):
        flow = played["trip"]
        first, again = [each for each in flow.outside.effects if each["what"] == "cancel flight"]
        assert first["key"] == again["key"]
        assert (first["is_repeat"], again["is_repeat"]) == (False, True)
        assert len(events(store, self.IN_DOUBT, "step.ambiguous")) == 1

    def test_what_compensations_send_comes_once(self, played, store):
        assert sorted(messages(store, "cancelled", "trip:trip")) == ["flight", "hotel"]


class TestDebate:
    KEY = "debate/debated/debate/work.rounds"

    def test_it_is_killed_five_times_and_ends_as_if_nobody_had(self, played, store):
        flow = played["debated"]
        assert flow.state == "success"
        assert flow.result("work.judge") == {"rounds": ROUNDS, "heard": list(range(TURNS))}
        assert flow.task("work.rounds").instance["try_number"] == KILLS + 1
        assert list(store.verify(self.KEY)) == []

    def test_no_turn_that_was_finished_is_asked_again_and_every_repeat_is_told(self, played, store):
        flow = played["debated"]
        spoken = flow.outside.counted
        del spoken["judge"]
        assert set(spoken) == {f"turn {number}" for number in range(TURNS)}
        again = Counter(event.name for event in events(store, self.KEY, "step.ambiguous"))
        names = [f"round-{number // 3 + 1}/{DEBATERS[number % 3]}" for number in range(TURNS)]
        silent = {name for number, name in enumerate(names) if spoken[f"turn {number}"] - 1 > again[name]}
        print(
            f"\n{KILLS} kills: {spoken.total()} turns spoken of {TURNS}, {again.total()} told of as ambiguous"
        )
        assert silent == set()
        assert Counter(event.name for event in events(store, self.KEY, "step.done")) == Counter(names)

    def test_what_was_sent_in_turns_comes_once(self, played, store):
        played["debated"]
        sent = messages(store, "minutes", "debated:debate")
        assert sorted(each["turn"] for each in sent) == list(range(TURNS))


class TestPeople:
    def test_the_next_one_is_asked_when_the_first_one_does_not_answer_in_time(self, played):
        flow = played["asked"]
        assert (flow.seen["states"]["work.ask"], flow.seen["question"]["subject"]) == ("success", "Shall we?")
        assert [user["id"] for user in flow.seen["question"]["assigned_users"]] == ["admin"]

    def test_the_answer_that_is_given_through_the_api_is_the_output(self, played):
        flow = played["asked"]
        wanted = {"chosen": ["Yes"], "given": {"why": "it is time"}, "by": "admin", "asked": 2}
        assert (flow.state, flow.result("work.answer")) == ("success", wanted)


class TestMessages:
    def test_each_message_of_a_mailbox_that_is_announced_is_handled_once(self, played, store):
        found = played["on_messages"]
        assert found["effects"] == Counter(f"claim {number}" for number in range(CLAIMS))
        assert found["runs"] >= 1
        assert store.bus.stats("handled").ready == CLAIMS

    def test_each_message_that_is_delivered_is_an_event_and_is_read_once_at_the_latest_with_the_next_one(
        self, played, store
    ):
        found = played["on_messages"]
        print(f"\nof {CLAIMS} messages at once Airflow gave its DAG {len(found['first'])} by itself")
        assert found["notices"] == list(range(CLAIMS + 1))
        assert store.bus.stats("notices").open == 0
