"""Promise P7 on a booted Airflow: who dies, when, and how often; what a run comes to is the same.

What the agents do is in ``dags/durable.py``, and what is done to them in ``durable_scenes.py``.
"""

from __future__ import annotations

import json
from collections import Counter

import durable_scenes as scenes
import pytest
from durable_scenes import BOUNDARIES, MANY_STEPS, RANDOM_KILLS, STEPS, command_line
from effects import accounts, messages
from scenes import playing

ORPHANS = (
    "supervisor_killed_in_a_step",
    "supervisor_killed_between_steps",
    "supervisor_killed_after_the_last_step",
)
DEATHS = (
    "killed_at_boundaries",
    *ORPHANS,
    "both_killed_in_a_step",
    "late_comer",
    "late_opener",
    "killed_at_random",
)
LEDGERS = ("undisturbed", *DEATHS)


@pytest.fixture(scope="module")
def played(airflow):
    every = [getattr(scenes, name) for name in (*LEDGERS, "cleared", "waiting")]
    with playing(airflow, ("ledger", "clears", "waits"), *every) as playing_:
        yield playing_


def steps_of(ledger):
    return [f"step-{number}" for number in range(1, ledger.steps + 1)]


def state_of(store, key):
    return store.runs.at(key, store.runs.find(key).version).state


@pytest.mark.parametrize("scene", LEDGERS)
def test_no_finished_step_is_done_again_and_every_repeat_is_told(played, store, scene):
    ledger = played[scene]
    found = accounts(store, ledger.key, ledger.outside.effects, steps_of(ledger))
    tries = ledger.seen["tries"]
    print(
        f"\n{scene}: {ledger.kills} tasks and {ledger.of_supervisors} supervisors killed, {tries} tries, {ledger.steps} steps, "
        f"{found.repeats} repeats, {found.told} told"
    )
    assert found.faults == []
    assert set(ledger.outside.counted) == set(steps_of(ledger))


@pytest.mark.parametrize("scene", LEDGERS)
def test_messages_of_steps_and_of_the_end_come_exactly_once(played, store, scene):
    ledger = played[scene]
    came = messages(store, "steps-of-ledgers", f"ledger:{ledger.run_id}")
    wanted = [*range(1, ledger.steps + 1), "end"]
    assert Counter(each["step"] for each in came) == Counter(wanted)


@pytest.mark.parametrize("scene", LEDGERS)
def test_state_result_and_checkpoint_are_those_of_an_undisturbed_run(played, store, scene):
    ledger = played[scene]
    squares = {f"value-{number}": number * number for number in range(1, ledger.steps + 1)}
    half = sum(number * number for number in range(1, ledger.steps // 2 + 1))
    assert (ledger.seen["state"], ledger.seen["result"]) == ("success", {"sum": sum(squares.values())})
    assert state_of(store, ledger.key) == {**squares, "sum": sum(squares.values())}
    assert store.at(ledger.key, "half").state["sum"] == half
    if ledger.steps == STEPS:
        assert state_of(store, ledger.key) == state_of(store, played["undisturbed"].key)


def test_an_undisturbed_run_has_one_effect_a_step_one_try_and_nothing_to_tell(played, store):
    ledger = played["undisturbed"]
    assert ledger.outside.counted == Counter(steps_of(ledger))
    assert ledger.seen["tries"] == 1
    assert not [event for event in store.history(ledger.key) if event.type == "step.ambiguous"]


def test_a_task_that_is_killed_at_each_boundary_repeats_the_one_step_that_nobody_knows_of(played):
    ledger = played["killed_at_boundaries"]
    assert ledger.kills == len(BOUNDARIES)
    assert ledger.seen["tries"] == len(BOUNDARIES) + 1
    assert ledger.outside.counted == Counter([*steps_of(ledger), "step-3"])


@pytest.mark.parametrize("scene", ORPHANS)
def test_a_process_whose_supervisor_was_killed_finishes_the_run_and_the_next_try_does_nothing(played, scene):
    ledger = played[scene]
    assert ledger.seen["tries"] == 2
    assert len({each["pid"] for each in ledger.outside.effects}) == 1
    assert ledger.outside.counted == Counter(steps_of(ledger))


def test_a_task_that_dies_with_its_supervisor_repeats_the_step_that_nobody_knows_of(played):
    ledger = played["both_killed_in_a_step"]
    assert ledger.seen["tries"] == 2
    assert ledger.outside.counted == Counter([*steps_of(ledger), "step-3"])


def test_what_comes_late_to_a_run_that_another_try_has_finished_changes_nothing_in_it(played, store):
    ledger = played["late_comer"]
    last = ledger.outside.effects[-1]
    assert (last["what"], last["pid"]) == ("step-2", ledger.seen["late"]), "it did not come late"
    assert store.runs.find(ledger.key).version == ledger.seen["version"]
    assert ledger.outside.counted == Counter([*steps_of(ledger), "step-2"])


def test_who_opens_a_run_late_takes_nothing_from_the_try_that_has_it(played):
    ledger = played["late_opener"]
    assert ledger.seen["tries"] == 2
    assert ledger.outside.counted == Counter(steps_of(ledger))


def test_as_many_died_at_random_as_were_to(played):
    ledger = played["killed_at_random"]
    assert ledger.kills + ledger.of_supervisors == RANDOM_KILLS
    assert (ledger.steps, ledger.of_supervisors > 0) == (MANY_STEPS, True)


class TestClearing:
    def test_what_failed_for_good_fails_at_its_first_try_and_keeps_its_finished_steps(self, played):
        failed = played["cleared"].failed
        assert failed["state"] == "failed"
        ways = {
            "one": "failed",
            "many[0]": "success",
            "many[1]": "failed",
            "many[2]": "success",
            "many[3]": "failed",
        }
        assert failed["tasks"] == {label: (state, 1) for label, state in ways.items()}
        firsts = [f"{each}: first" for each in ("one broken", "a", "b broken", "c", "d broken")]
        assert failed["effects"] == Counter([*firsts, "a: second", "c: second"])

    def test_only_failed_members_are_cleared_and_go_on_after_their_last_finished_step(self, played):
        failed, mended = played["cleared"].failed, played["cleared"].mended
        assert mended["state"] == "success"
        tries = {label: number for label, (_state, number) in mended["tasks"].items()}
        assert tries == {"one": 2, "many[0]": 1, "many[1]": 2, "many[2]": 1, "many[3]": 2}
        seconds = [f"{each} broken: second" for each in ("one", "b", "d")]
        assert mended["effects"] == failed["effects"] + Counter(seconds)

    def test_a_task_that_succeeded_begins_a_run_of_its_own(self, played, store):
        scene = played["cleared"]
        assert scene.again["state"] == "success"
        assert scene.again["effects"] == scene.mended["effects"] + Counter(
            ["one broken: first", "one broken: second"]
        )
        key = f"clerk/clears/{scene.run_id}/one"
        assert [store.runs.find(each).status for each in (key, f"{key}#2")] == ["finished", "finished"]


def told(store, key, type_):
    return [event for event in store.history(key) if event.type == type_]


class TestWaiting:
    def result(self, scene, task_id):
        return scene.airflow.client.xcom("waits", scene.run_id, task_id)

    def test_five_tasks_wait_in_a_pool_of_one_slot_and_none_holds_it(self, played):
        assert set(played["waiting"].seen["parked"].values()) <= {"awaiting_input", "deferred", "success"}
        assert played["waiting"].seen["state"] == "success"

    def test_a_question_stands_on_the_page_with_its_fields_and_is_answered_there(self, played, store):
        scene = played["waiting"]
        asked = scene.seen["questions"]["asks"]
        assert (asked["subject"], asked["options"]) == ("May it be paid?", ["Answer"])
        assert set(asked["params"]) == {"approve", "limit"}
        first, _ = told(store, f"asker/waits/{scene.run_id}/asks", "question.answered")
        assert first.data == {"answer": {"approve": True, "limit": 5}, "actor": "admin"}

    def test_a_second_question_of_the_try_is_answered_on_the_command_line(self, played, store):
        scene = played["waiting"]
        assert scene.seen["second question"]["question"] == "From which account?"
        assert self.result(scene, "asks") == {"first": {"approve": True, "limit": 5}, "second": "giro"}
        _, second = told(store, f"asker/waits/{scene.run_id}/asks", "question.answered")
        assert second.data == {"answer": "giro", "actor": "ana"}

    def test_whether_a_step_took_place_is_asked_and_it_is_not_done_again(self, played, store):
        scene = played["waiting"]
        asked = scene.seen["questions"]["pays"]
        assert (asked["subject"], asked["options"]) == ("Did step 'pay' take place?", ["Retry", "Skip"])
        assert self.result(scene, "pays") == {"receipt": "receipt 1"}
        assert scene.outside.counted["payer: pay"] == 1
        (skipped,) = told(store, f"payer/waits/{scene.run_id}/pays", "step.skipped")
        assert (skipped.data["actor"], skipped.data["result"]) == ("admin", "receipt 1")

    def test_a_deadline_passes_and_the_agent_goes_on_without_an_answer(self, played):
        assert self.result(played["waiting"], "hurries") == "nobody answered"

    def test_a_sleeper_and_a_receiver_are_other_processes_afterwards_and_no_try_is_spent(self, played):
        scene = played["waiting"]
        assert self.result(scene, "sleeps") >= 8
        assert self.result(scene, "receives") == [{"number": 1}, {"number": 2}]
        for task_id, agent in (("sleeps", "sleeper"), ("receives", "receiver"), ("hurries", "hurried")):
            before, after = [each for each in scene.outside.effects if each["what"].startswith(agent)]
            assert before["pid"] != after["pid"], agent
            assert (before["try"], after["try"]) == (1, 1), agent
            assert scene.task(task_id).instance["try_number"] == 1

    def test_nothing_is_done_twice_though_the_triggerer_died_while_they_waited(self, played):
        scene = played["waiting"]
        assert {"asks", "receives"} <= set(scene.seen["deferred"])
        assert set(scene.outside.counted.values()) == {1}


class TestPeople:
    """What somebody sees who is woken at night, after all that."""

    @pytest.fixture(autouse=True)
    def all_is_over(self, played):
        played.wait_for_all()

    def test_all_journals_are_as_they_were_written(self, airflow):
        command_line(airflow, "verify", "--all")

    def test_a_run_says_which_of_its_effects_may_have_taken_place_twice(self, airflow, played, store):
        ledger = played["killed_at_random"]
        shown = json.loads(command_line(airflow, "show", ledger.key, "-o", "json"))
        again = [event.name for event in told(store, ledger.key, "step.ambiguous")]
        assert [each["step"] for each in shown["settled"]] == again
        assert (shown["status"], shown["done"], shown["total"]) == ("finished", MANY_STEPS, MANY_STEPS)

    def test_all_runs_of_a_dag_run_are_listed_and_watched_together(self, airflow):
        listed = json.loads(command_line(airflow, "list", "--correlation", "waits:waiting", "-o", "json"))
        assert {each["agent"] for each in listed} == {"asker", "payer", "hurried", "sleeper", "receiver"}
        assert {each["status"] for each in listed} == {"finished"}
        watched = command_line(airflow, "watch", "waits:waiting")
        assert "together: 5 finished" in watched
