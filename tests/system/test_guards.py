"""A service goes down and comes back: one breaker for all workers of a booted Airflow."""

from __future__ import annotations

import time

import pytest
from waiting import wait_until

from airflow_agentic.resilience import BreakerState

ARTICLES = 8
KEY = "agent:quotes"


@pytest.fixture(autouse=True)
def ready(airflow, flaky, store):
    for dag_id in ("quotes", "quotes_at_any_price"):
        airflow.client.wait_for_dag(dag_id, timeout_s=60)
    store.bus.subscribe("breaker-news", topic="agentic.breakers.#")
    yield
    flaky.forget(down=False)


def news(store):
    heard = store.bus.receive("breaker-news", max_messages=100)
    store.bus.ack(*heard)
    return [(each.message.subject, each.message.topic.rpartition(".")[2]) for each in heard]


def settings(store, key):
    return store.breaker(key).view().settings


def test_tasks_wait_for_a_service_that_is_down_and_no_retry_is_spent(airflow, flaky, store):
    flaky.forget(down=True)
    run_id = airflow.client.trigger("quotes", conf={"articles": ARTICLES})
    wait_until(lambda: store.breaker(KEY).state is BreakerState.OPEN, 60)

    def waiting():
        states = [task.state for task in airflow.client.task_instances("quotes", run_id)]
        return states.count("deferred") == ARTICLES

    wait_until(waiting, 60)
    # So many were asked until it was known; afterwards only probes, none of which went well.
    known = settings(store, KEY)
    probes = known["half_open_calls"] * store.breaker(KEY).view().trips
    assert flaky.refused <= known["minimum_calls"] + probes

    flaky.down = False
    assert airflow.client.wait("quotes", run_id, timeout=120) == "success"
    asked = [task for task in airflow.client.task_instances("quotes", run_id) if task.task_id == "ask"]
    assert [task.state for task in asked] == ["success"] * ARTICLES
    assert {task.try_number for task in asked} == {1}
    assert sorted(flaky.answered) == sorted(f"article-{number}" for number in range(ARTICLES))
    assert store.breaker(KEY).state is BreakerState.CLOSED
    changes = [what for subject, what in news(store) if subject == KEY]
    assert changes[0] == "opened"
    assert changes[-2:] == ["half_opened", "closed"]
    assert changes.count("closed") == 1


def test_who_does_not_wait_gets_an_estimate_that_says_so(airflow, flaky, store):
    flaky.forget(down=True)
    run_id = airflow.client.trigger("quotes_at_any_price", conf={"articles": ARTICLES})
    assert airflow.client.wait("quotes_at_any_price", run_id, timeout=120) == "success"
    assert airflow.client.xcom("quotes_at_any_price", run_id, "sort") == {"quoted": 0, "estimated": ARTICLES}
    assert flaky.refused <= settings(store, "agent:quotes-now")["minimum_calls"]
    asked = airflow.client.task_instances("quotes_at_any_price", run_id)
    assert {task.try_number for task in asked} == {1}
    outcome = airflow.client.xcom("quotes_at_any_price", run_id, "ask", key="agentic_outcome", map_index=0)
    assert (outcome["degraded"], outcome["source"]) == (True, "agent:estimator")


def test_a_person_stops_all_calls_and_lets_them_go_again(airflow, flaky, store):
    flaky.forget(down=False)
    store.breaker(KEY).trip(reason="the provider asked for a pause", actor="on-call")
    run_id = airflow.client.trigger("quotes", conf={"articles": 2})

    def waiting():
        states = [task.state for task in airflow.client.task_instances("quotes", run_id)]
        return states.count("deferred") == 2

    wait_until(waiting, 60)
    assert flaky.answered == []
    store.breaker(KEY).reset(reason="they are done", actor="on-call")
    assert airflow.client.wait("quotes", run_id, timeout=60) == "success"
    assert len(flaky.answered) == 2


class TestPeople:
    @pytest.fixture
    def parked(self, airflow):
        airflow.client.wait_for_dag("ask_a_person", timeout_s=60)
        run_id = airflow.client.trigger("ask_a_person", conf={"question": "why"})

        def is_parked():
            states = [task.state for task in airflow.client.task_instances("ask_a_person", run_id)]
            return states == ["awaiting_input"]

        wait_until(is_parked, 60)
        # An answer within moments of the parking fails the run (Airflow 3.3.2).
        time.sleep(10)
        return run_id

    def answer(self, airflow, run_id, option, text):
        path = f"/dags/ask_a_person/dagRuns/{run_id}/taskInstances/ask/-1/hitlDetails"
        detail = airflow.client.get(path)
        assert detail["subject"] == "What is the answer?"
        assert "nobody knows why" in detail["body"]
        airflow.client.patch(path, {"chosen_options": [option], "params_input": {"answer": text}})
        assert airflow.client.wait("ask_a_person", run_id, timeout=60) == "success"
        outcome = airflow.client.xcom("ask_a_person", run_id, "ask", key="agentic_outcome")
        return airflow.client.xcom("ask_a_person", run_id, "ask"), outcome["source"]

    def test_a_person_gives_the_result(self, airflow, parked):
        result, source = self.answer(airflow, parked, "Answer", '{"answer": 42}')
        assert (result["answer"], result["degraded"], source) == (42, True, "person")

    def test_or_gives_up_and_the_default_is_taken(self, airflow, parked):
        result, source = self.answer(airflow, parked, "Give up", "")
        assert (result["answer"], result["degraded"], source) == (None, True, "default")
