"""The drill itself, on a place where runs are functions."""

from __future__ import annotations

import contextlib

import pytest

from airflow_agentic.cli.drill.accounts import Verdict
from airflow_agentic.cli.drill.places import Ran
from airflow_agentic.cli.drill.plan import Drill, rules_of, usual_rules
from airflow_agentic.config.faults import FaultRule
from airflow_agentic.errors import ConfigurationError, StoreUnavailable
from airflow_agentic.messaging import Message, MessageBus
from airflow_agentic.resilience.fault_rules import FaultRules
from airflow_agentic.resilience.faults import Faults
from airflow_agentic.stores.faulty import faulty_bus
from airflow_agentic.stores.memory import memory_bus_store
from airflow_agentic.testing import memory_store

NAMES = ("a", "b", "c")


class Place:
    """Each run sends three messages and handles them, on a bus that fails as the rules say."""

    name = "here"
    is_shared = False

    def __init__(self, kept, guards, *, careless=False, state="success"):
        self._bus = MessageBus(faulty_bus(kept, Faults(guards, refresh_seconds=0)))
        self._careless = careless
        self._state = state
        self.runs = 0

    def run(self, dag_id, timeout):
        self.runs += 1
        run_id = f"run-{self.runs}"
        for name in NAMES:
            message = Message(
                id=f"{run_id}/{name}",
                source="shop",
                recipient="box",
                subject=name,
                correlation_id=f"{dag_id}:{run_id}",
            )
            for _ in range(1 if self._careless else 3):
                with contextlib.suppress(StoreUnavailable):
                    self._bus.send(message)
                    break
        for delivery in self._bus.receive("box", max_messages=10):
            delivery.ack()
        return Ran(run_id, self._state, 0.1)


@pytest.fixture
def made(monkeypatch):
    monkeypatch.setattr("airflow_agentic.cli.drill.plan._RULES_SPREAD_SECONDS", 0)
    kept = memory_bus_store()
    with memory_store() as store:
        store.bus = MessageBus(kept)

        def make(**how):
            place = Place(kept, store.guards, **how)
            return Drill(store, place, "dag", 10.0), store, place

        yield make


def rules(**said):
    return {name: FaultRule(**rule) for name, rule in said.items()}


def verdicts(finding):
    return {each.promise: each.verdict for each in finding.judgements}


def test_one_run_without_faults_and_one_with_each_kind_and_no_rule_is_left(made):
    drill, store, place = made()
    found = drill.run(usual_rules(), ("duplicate", "clock_jump", "latency"))
    assert [(each.kind, each.injected > 0) for each in found] == [
        ("duplicate", True),
        ("clock_jump", True),
        ("latency", False),
    ]
    assert place.runs == 4
    assert FaultRules(store.guards).views() == []


def test_a_sender_that_tries_again_loses_nothing(made):
    [finding] = made()[0].run(rules(a={"what": "error", "where": "send:*", "count": 2}), ("error",))
    assert finding.injected == 2
    assert not finding.broke
    assert verdicts(finding)["P1 no message is lost"] is Verdict.HELD


def test_a_sender_that_does_not_is_found_out(made):
    drill, *_ = made(careless=True)
    [finding] = drill.run(rules(a={"what": "error", "where": "send:*", "after": 1, "count": 1}), ("error",))
    assert finding.broke
    [lost] = [each for each in finding.judgements if each.verdict is Verdict.BROKEN]
    assert (lost.promise, lost.said) == (
        "P1 no message is lost",
        "1 are missing: agentic.message of shop to box about b",
    )


def test_where_nothing_was_injected_nothing_is_called_held(made):
    [finding] = made()[0].run(rules(a={"what": "error", "where": "send:elsewhere"}), ("error",))
    assert set(verdicts(finding).values()) == {Verdict.NOT_EXERCISED}
    assert not finding.broke


@pytest.mark.parametrize(
    ("state", "why"), [("failed", "ended as failed"), ("", r"came to no end \(in 0 s\)")]
)
def test_a_dag_that_does_not_succeed_without_faults_is_no_dag_for_a_drill(made, state, why):
    drill, _, place = made(state=state)
    with pytest.raises(ConfigurationError, match=f"{why} without any fault: a drill needs a DAG that works"):
        drill.run(usual_rules(), ("drop",))
    assert place.runs == 1


def test_what_a_drill_that_was_killed_left_is_cleared_first(made):
    drill, store, _ = made()
    FaultRules(store.guards).add("drill-old", FaultRule(what="error", where="send:*"), actor="drill")
    [finding] = drill.run(rules(a={"what": "duplicate", "where": "send:*"}), ("duplicate",))
    assert finding.injected == 3
    assert FaultRules(store.guards).views() == []


def test_rules_may_stand_in_a_file_of_their_own_or_in_that_of_a_project(tmp_path):
    for text in ("a: {what: drop, where: store}", "agents: {}\nfaults:\n  a: {what: drop, where: store}"):
        path = tmp_path / "rules.yaml"
        path.write_text(text)
        assert rules_of(str(path)) == rules(a={"what": "drop", "where": "store"})
