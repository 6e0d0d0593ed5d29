"""For the tests of agents: run one in a few lines, and hold it against the contract that every agent keeps.

::

    from airflow_agentic.testing import assert_agent_contract, run_agent


    def test_the_auditor_tells_legal() -> None:
        run = run_agent(Auditor, {"name": "left-pad", "license": "WTFPL"})
        assert run.result["family"] == "unknown"
        assert [message.recipient for message in run.outbox] == ["legal"]


    def test_the_auditor_is_an_agent() -> None:
        assert_agent_contract(Auditor, task={"name": "left-pad", "license": "MIT"}, bad_tasks=[{}, "text"])


What an agent needs is given in one line: ``run_agent(Auditor, record, services={SearchIndex: FakeIndex()})``.

A store of your own for the bus is held against what a store must do in the same way; see
:mod:`airflow_agentic.testing.conformance`::

    def test_the_store_conforms() -> None:
        assert_store_conforms(open_my_store, capabilities={"durable", "shared", "dedup", "ordering"})

No Airflow, database or network is needed, and no test framework is imported.
"""

from __future__ import annotations

from airflow_agentic.testing.conformance import assert_store_conforms
from airflow_agentic.testing.contract import assert_agent_contract
from airflow_agentic.testing.fakes import FakeClock, FakeHttp, answer, memory_store
from airflow_agentic.testing.runs import AgentRun, override_services, run_agent

__all__ = [
    "AgentRun",
    "FakeClock",
    "FakeHttp",
    "answer",
    "assert_agent_contract",
    "assert_store_conforms",
    "memory_store",
    "override_services",
    "run_agent",
]
