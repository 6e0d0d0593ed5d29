"""A drill without a running Airflow: each run is a process of its own, so that SIGKILL ends that and not the command."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout

import pytest

from airflow_agentic.resilience.fault_rules import FaultRules

DAG = """
from datetime import timedelta

from airflow.sdk import DAG
from airflow_agentic.agents import AgentContext, agent
from airflow_agentic.operators.agents import RunAgentOperator

@agent(name="post")
def post(task: int, ctx: AgentContext) -> int:
    for number in range(task):
        ctx.send("clerk", number, subject=str(number), ordering_key=str(number % 2), key=str(number))
    return task

@agent(name="clerk")
def clerk(task: int, ctx: AgentContext) -> None:
    ctx.send("archive", task, subject=str(task))

with DAG("parcels", schedule=None, default_args={"retries": 3, "retry_delay": timedelta(0)}) as dag:
    sent = RunAgentOperator(task_id="send", agent="post", task=6)
    sent >> RunAgentOperator(task_id="handle", agent="clerk", mailbox="clerk", lease=2)
"""
RULES = """
kill: {what: sigkill, where: 'agent:clerk', after: 2, count: 1}
damage: {what: corrupt, where: 'receive:clerk', after: 1, count: 1}
"""


@pytest.fixture
def drill(metadata_db, store_url, store, tmp_path, monkeypatch):
    from airflow.cli.cli_parser import get_parser

    dags = tmp_path / "dags"
    dags.mkdir()
    (dags / "parcels.py").write_text(DAG)
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(dags))

    def run(*words):
        out = io.StringIO()
        with redirect_stdout(out):
            args = get_parser().parse_args(
                ["agentic", "faults", "plan", *words, "--in-process", "-o", "json"]
            )
            args.func(args)
        return {each["kind"]: each for each in json.loads(out.getvalue())}

    return run


@pytest.mark.timeout(300)
def test_a_drill_kills_and_damages_and_says_which_promise_held(drill, store, tmp_path):
    (tmp_path / "rules.yaml").write_text(RULES)
    found = drill("parcels", "--rules", str(tmp_path / "rules.yaml"), "--timeout", "2m")

    killed, damaged = found["sigkill"], found["corrupt"]
    assert "a process of its own" in killed["place"]
    # The third parcel was handled and its process killed; another process took it up when the lease had ended.
    assert (killed["injected"], killed["restarts"], killed["state"]) == (1, 1, "success")
    assert {each["verdict"] for each in killed["promises"]} == {"held", "not exercised"}
    held = [each["promise"][:2] for each in killed["promises"] if each["verdict"] == "held"]
    assert held == ["th", "P1", "P1", "P2", "P3", "P4"]

    assert (damaged["injected"], damaged["restarts"], damaged["broke"]) == (1, 0, False)
    [p8] = [each for each in damaged["promises"] if each["promise"].startswith("P8")]
    assert p8["verdict"] == "held"
    assert "the envelope is not JSON" in p8["said"]
    assert FaultRules(store.guards).views() == []
