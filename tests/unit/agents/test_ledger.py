from __future__ import annotations

import logging
import os
from datetime import timedelta

import pytest

from airflow_agentic.agents import AgentContext, AgentState, FunctionAgent, PerformanceMetrics
from airflow_agentic.agents.ledger import Ledger
from airflow_agentic.agents.status import AgentProfile
from airflow_agentic.errors import StoreNotWritable, StoreUnavailable
from airflow_agentic.stores.memory import MemoryAgentStore
from airflow_agentic.testing import FakeClock

ONE = PerformanceMetrics(1, 1)
PROFILE = AgentProfile("auditor", "FunctionAgent")


class CountingStore(MemoryAgentStore):
    """A store that notes how often it is written, and that can be out of order."""

    def __init__(self, clock):
        super().__init__(clock)
        self.writes, self.error, self.failing = 0, StoreUnavailable("disk gone"), ()

    def _touch(self, what):
        if what in self.failing:
            raise self.error

    def register(self, *args):
        self._touch("register")
        super().register(*args)

    def report(self, *args, **kwargs):
        self._touch("report")
        self.writes += 1
        super().report(*args, **kwargs)

    def get(self, name):
        self._touch("get")
        return super().get(name)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def store(clock):
    return CountingStore(clock)


def ledger(store, interval=1000.0):
    return Ledger(store, "auditor-1", PROFILE, interval=timedelta(seconds=interval))


def run(agent, task=1):
    return agent.run(task, AgentContext(agent.name))


class TestWriting:
    def test_the_first_note_registers_the_instance_with_its_owner(self, store):
        ledger(store).note(AgentState.READY, "configured")
        status = store.get("auditor")
        assert (status.state, status.reason) == (AgentState.READY, "configured")
        owner = store._known["auditor"].instances["auditor-1"].owner
        assert owner.endswith(f":{os.getpid()}")

    def test_notes_within_the_interval_wait_for_the_next_write(self, store):
        book = ledger(store)
        for _ in range(50):
            book.note(AgentState.PROCESSING, "", ONE)
        assert store.writes == 1
        book.flush()
        assert store.writes == 2
        assert store.get("auditor").metrics.processed == 50

    def test_notes_after_the_interval_are_written_at_once(self, store):
        book = ledger(store, interval=0)
        for number in range(1, 4):
            book.note(AgentState.READY, "", ONE)
            assert store.get("auditor").metrics.processed == number

    @pytest.mark.parametrize("end", [AgentState.FAILED, AgentState.SHUTDOWN])
    def test_an_end_is_written_at_once_with_all_that_waits(self, store, end):
        book = ledger(store)
        book.note(AgentState.READY, "", ONE)
        book.note(AgentState.READY, "", ONE)
        book.note(end, "the end", ONE)
        status = store.get("auditor")
        assert (status.state, status.metrics.processed) == (end, 3)

    def test_reading_the_status_writes_first(self, store):
        book = ledger(store)
        book.note(AgentState.READY, "")
        book.note(AgentState.DEGRADED, "slow", ONE)
        assert (book.status().state, book.status().metrics.processed) == (AgentState.DEGRADED, 1)

    def test_a_flush_is_a_sign_of_life(self, store, clock):
        book = ledger(store)
        book.note(AgentState.PROCESSING, "")
        for _ in range(3):
            clock.advance(50)
            book.flush()
        assert store.get("auditor").live_instances == 1

    def test_an_agent_writes_a_thousand_tasks_in_few_writes(self, store):
        agent = FunctionAgent(lambda task: task, "auditor", store=store)
        for _ in range(1000):
            run(agent)
        agent.shutdown()
        assert store.writes < 30
        assert store.get("auditor").metrics.processed == 1000


class TestAStoreThatFails:
    @pytest.mark.parametrize("failing", [("register", "report", "get"), ("report", "get"), ("get",)])
    @pytest.mark.parametrize("error", [StoreUnavailable("gone"), StoreNotWritable("read only")])
    def test_the_work_goes_on_and_the_agent_knows_its_own_numbers(self, store, failing, error):
        store.failing, store.error = failing, error
        agent = FunctionAgent(lambda task: task + 1, "auditor", store=store)
        assert run(agent) == 2
        assert agent.state is AgentState.READY
        assert agent.performance_metrics.processed == 1
        assert agent.get_status().state is AgentState.READY
        agent.heartbeat()
        agent.shutdown()

    def test_it_is_logged_once_and_again_after_it_recovered(self, store, caplog):
        caplog.set_level(logging.WARNING)
        book = ledger(store, interval=0)
        store.failing = ("report",)
        book.note(AgentState.READY, "")
        book.note(AgentState.READY, "")
        assert [r.getMessage() for r in caplog.records] == [
            "agent 'auditor' cannot report its status: disk gone"
        ]
        store.failing = ()
        book.note(AgentState.READY, "")
        store.failing = ("report",)
        book.note(AgentState.READY, "")
        assert len(caplog.records) == 2

    def test_no_number_is_lost_and_none_is_counted_twice_when_it_recovers(self, store):
        book = ledger(store, interval=0)
        store.failing = ("register",)
        book.note(AgentState.READY, "", ONE)
        store.failing = ("report",)
        book.note(AgentState.READY, "", ONE)
        store.failing = ()
        book.note(AgentState.READY, "", ONE)
        book.flush()
        assert store.get("auditor").metrics.processed == 3
