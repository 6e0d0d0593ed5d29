"""What every store must do for agents. The clock stands still unless a test moves it."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import clocked
import pytest

from airflow_agentic.agents import AgentState, PerformanceMetrics
from airflow_agentic.agents.status import AgentProfile
from airflow_agentic.errors import StoreError
from airflow_agentic.testing import FakeClock

ALIVE = timedelta(seconds=60)
PROFILE = AgentProfile(
    name="auditor",
    agent_type="FunctionAgent",
    description="Audits licences.",
    configuration={"strict": True, "names": ["ü"]},
    input_schema={"type": "object"},
    output_schema={"type": "string"},
)
NOTHING = PerformanceMetrics()


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture(params=clocked.STORES)
def agents(request, tmp_path, clock):
    with clocked.opened(request.param, tmp_path, clock) as store:
        yield store.agents


def register(agents, agent_id="auditor-1", profile=PROFILE, owner="host:1"):
    agents.register(agent_id, profile, owner, ALIVE)


def report(agents, state, agent_id="auditor-1", reason="", add=NOTHING):
    agents.report(agent_id, state, reason, add=add, alive_for=ALIVE)


def test_an_agent_that_nobody_registered_is_not_known(agents):
    assert agents.get("auditor") is None
    assert list(agents.list()) == []


def test_a_new_instance_is_initialized_and_alive(agents, clock):
    register(agents)
    status = agents.get("auditor")
    assert status.profile == PROFILE
    assert status.name == "auditor"
    assert (status.state, status.reason, status.agent_id) == (AgentState.INITIALIZED, "", "auditor-1")
    assert (status.live_instances, status.metrics, status.updated_at) == (1, NOTHING, clock())


def test_a_report_sets_state_reason_and_time(agents, clock):
    register(agents)
    clock.advance(5)
    report(agents, AgentState.DEGRADED, reason="no prices")
    status = agents.get("auditor")
    assert (status.state, status.reason, status.updated_at) == (AgentState.DEGRADED, "no prices", clock())


def test_numbers_of_all_instances_of_a_name_are_added_up(agents):
    register(agents, "auditor-1")
    register(agents, "auditor-2")
    first = PerformanceMetrics(3, 2, 1, 1, total_seconds=6.0, max_seconds=3.5, last_error="broken")
    later = PerformanceMetrics(1, 1, 0, 0, total_seconds=1.0, max_seconds=1.0)
    report(agents, AgentState.READY, "auditor-1", add=first)
    report(agents, AgentState.READY, "auditor-2", add=later)
    metrics = agents.get("auditor").metrics
    assert metrics == PerformanceMetrics(4, 3, 1, 1, 7.0, 3.5, "broken")
    assert (metrics.error_rate, metrics.mean_seconds) == (0.25, 1.75)


def test_numbers_of_different_names_are_kept_apart(agents):
    register(agents, "auditor-1")
    register(agents, "scout-1", replace(PROFILE, name="scout"))
    report(agents, AgentState.READY, "scout-1", add=PerformanceMetrics(1, 1))
    assert agents.get("auditor").metrics == NOTHING
    assert agents.get("scout").metrics.processed == 1


def test_numbers_outlive_their_instances(agents):
    register(agents, "auditor-1")
    report(agents, AgentState.SHUTDOWN, add=PerformanceMetrics(1, 1))
    register(agents, "auditor-2")
    assert agents.get("auditor").metrics.processed == 1


def test_a_later_registration_brings_its_profile_along(agents):
    register(agents, "auditor-1")
    report(agents, AgentState.READY, add=PerformanceMetrics(1, 1))
    newer = replace(PROFILE, description="Audits more.", configuration={})
    register(agents, "auditor-2", newer)
    assert agents.get("auditor").profile == newer
    assert agents.get("auditor").metrics.processed == 1


def test_what_was_registered_does_not_change_with_the_callers_object(agents):
    profile = replace(PROFILE, configuration={"key": "value"})
    register(agents, profile=profile)
    profile.configuration["key"] = "changed"
    agents.get("auditor").profile.configuration["key"] = "changed too"
    assert agents.get("auditor").profile.configuration == {"key": "value"}


def test_two_instances_of_one_id_are_refused(agents):
    register(agents)
    with pytest.raises(StoreError):
        register(agents)


def test_a_name_is_processing_while_any_instance_is(agents, clock):
    register(agents, "auditor-1")
    register(agents, "auditor-2")
    report(agents, AgentState.PROCESSING, "auditor-1")
    clock.advance(1)
    report(agents, AgentState.READY, "auditor-2")
    status = agents.get("auditor")
    assert (status.state, status.agent_id) == (AgentState.PROCESSING, "auditor-1")
    assert status.updated_at == clock()


def test_otherwise_it_is_what_the_last_report_said(agents, clock):
    register(agents, "auditor-1")
    register(agents, "auditor-2")
    report(agents, AgentState.FAILED, "auditor-2", reason="broken")
    clock.advance(1)
    report(agents, AgentState.READY, "auditor-1")
    assert agents.get("auditor").state is AgentState.READY
    clock.advance(1)
    report(agents, AgentState.FAILED, "auditor-2", reason="broken again")
    assert (agents.get("auditor").state, agents.get("auditor").reason) == (AgentState.FAILED, "broken again")


def test_an_instance_that_stops_reporting_is_lost_and_counts_as_failed(agents, clock):
    register(agents, owner="host:7")
    report(agents, AgentState.PROCESSING)
    clock.advance(ALIVE)
    assert agents.get("auditor").state is AgentState.PROCESSING
    clock.advance(0.001)
    status = agents.get("auditor")
    assert (status.state, status.live_instances) == (AgentState.FAILED, 0)
    assert status.reason == "lost: host:7 stopped reporting while processing"


def test_each_report_is_a_sign_of_life(agents, clock):
    register(agents)
    for _ in range(3):
        clock.advance(50)
        report(agents, AgentState.PROCESSING)
    assert agents.get("auditor").live_instances == 1


def test_an_instance_that_was_shut_down_is_not_lost(agents, clock):
    register(agents)
    report(agents, AgentState.SHUTDOWN, reason="done")
    clock.advance(10 * ALIVE)
    status = agents.get("auditor")
    assert (status.state, status.reason, status.live_instances) == (AgentState.SHUTDOWN, "done", 0)


def test_a_report_of_an_instance_that_nobody_knows_changes_nothing(agents):
    register(agents)
    report(agents, AgentState.FAILED, "stranger", add=PerformanceMetrics(1, 0, 1))
    assert agents.get("auditor").state is AgentState.INITIALIZED
    assert agents.get("auditor").metrics == NOTHING


def test_agents_are_listed_by_name(agents):
    for name in ("zoe", "abe", "mia"):
        register(agents, f"{name}-1", replace(PROFILE, name=name))
    assert [status.name for status in agents.list()] == ["abe", "mia", "zoe"]


def test_only_the_last_ended_instances_are_kept(agents, clock):
    register(agents, "alive")
    for number in range(30):
        register(agents, f"auditor-{number}")
        report(
            agents, AgentState.SHUTDOWN, f"auditor-{number}", reason=str(number), add=PerformanceMetrics(1, 1)
        )
        clock.advance(1)
        report(agents, AgentState.READY, "alive")
    # One that was forgotten can come again; one that is kept cannot.
    register(agents, "auditor-0")
    with pytest.raises(StoreError):
        register(agents, "auditor-29")
    assert agents.get("auditor").metrics.processed == 30
    assert agents.get("auditor").live_instances == 2
