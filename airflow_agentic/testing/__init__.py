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

No Airflow, database or network is needed, and no test framework is imported.
"""

from __future__ import annotations

from airflow_agentic.testing.contract import assert_agent_contract
from airflow_agentic.testing.fakes import FakeClock, FakeHttp, answer, memory_store
from airflow_agentic.testing.runs import AgentRun, override_services, run_agent

__all__ = [
    "AgentRun",
    "FakeClock",
    "FakeHttp",
    "answer",
    "assert_agent_contract",
    "memory_store",
    "override_services",
    "run_agent",
]
