from __future__ import annotations

import pytest

from airflow_agentic.config.project import assemble
from airflow_agentic.config.rules import AgentUse, violations

AGENTS = b"""
policies: {calm: {}}
agents:
  auditor: {type: "some.module:Auditor", policy: calm}
  free: {type: "some.module:Auditor"}
"""


def judged(rules, agent="auditor", *, retries=0, has_timeout=False):
    project = assemble([("agentic.yaml", AGENTS + f"rules: {rules}\n".encode())])
    return violations(project, AgentUse(agent, retries, has_timeout))


@pytest.mark.parametrize("agent", ["auditor", "free", "nobody", None])
def test_without_rules_everything_is_allowed(agent):
    assert judged("{}", agent) == []


class TestDeclaredAgentsOnly:
    RULES = "{declared_agents_only: true}"

    def test_a_declared_agent_keeps_to_it(self):
        assert judged(self.RULES) == []

    def test_another_one_is_told_with_the_nearest(self):
        (text,) = judged(self.RULES, "auditer")
        assert text.startswith("declared_agents_only: the project file declares no agent 'auditer' (")
        assert "did you mean 'auditor'?" in text

    def test_without_a_nearest_it_is_told_what_to_write(self):
        (text,) = judged(self.RULES, "zzz")
        assert "declare it: agents: {zzz: {type: " in text

    def test_an_agent_that_is_filled_in_later_is_told_so(self):
        (text,) = judged(self.RULES, None)
        assert (
            text
            == "declared_agents_only: the agent is filled in when the task runs; give its name in the DAG"
        )


class TestRequirePolicy:
    RULES = "{require_policy: true}"

    def test_an_agent_with_a_policy_keeps_to_it(self):
        assert judged(self.RULES) == []

    @pytest.mark.parametrize("agent", ["free", "nobody"])
    def test_one_without_or_an_unknown_one_is_told_where_to_say_it(self, agent):
        (text,) = judged(self.RULES, agent)
        assert (
            text == f"require_policy: agent {agent!r} has none; say agents.{agent}.policy in the project file"
        )

    def test_an_agent_that_is_filled_in_later_is_told_so(self):
        (text,) = judged(self.RULES, None)
        assert text == "require_policy: the agent is filled in when the task runs; give its name in the DAG"


@pytest.mark.parametrize(("has_timeout", "faults"), [(True, 0), (False, 1)])
def test_a_timeout_may_be_required(has_timeout, faults):
    found = judged("{require_execution_timeout: true}", has_timeout=has_timeout)
    assert len(found) == faults
    assert all("give the task an execution_timeout=timedelta(" in text for text in found)


@pytest.mark.parametrize(("retries", "faults"), [(1, 1), (2, 0), (3, 0)])
def test_a_number_of_retries_may_be_required(retries, faults):
    found = judged("{min_retries: 2}", retries=retries)
    assert len(found) == faults
    assert found in ([], ["min_retries: the task has retries=1; give it at least 2"])


def test_all_that_is_not_kept_to_is_told_at_once():
    rules = (
        "{declared_agents_only: true, require_policy: true, require_execution_timeout: true, min_retries: 1}"
    )
    assert [text.partition(":")[0] for text in judged(rules, "zzz")] == [
        "declared_agents_only",
        "require_policy",
        "require_execution_timeout",
        "min_retries",
    ]
