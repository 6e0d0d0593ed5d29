"""What it costs a task to get its agent from the project: in a fresh process, as a task has it, and again in the same.

The project has fifty agents, ten policies and ten services. The raw limit beside it is libyaml reading the same file
and the agent's class being called; imports are timed apart. Rounds are interleaved.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROUNDS = 7
AGENTS = 50

MODULE = """
from pydantic import BaseModel
from airflow_agentic.agents import BaseAgent

class Config(BaseModel):
    limit: int = 1
    url: str = ""

class Index:
    def __init__(self, size: int) -> None:
        self.size = size

class Plain(BaseAgent[dict, dict]):
    config_model = Config
    def process(self, task, ctx):
        return {}

class Needing(Plain):
    def __init__(self, index: Index, **kwargs):
        super().__init__(**kwargs)
        self.index = index
"""

TASK = """
import gc, json, sys, time
clock = time.perf_counter
from airflow.sdk import BaseOperator
import airflow_agentic.operators.agents
from airflow_agentic import runtime
from airflow_agentic.agents import RunIdentity
import bench_agents, yaml
name = sys.argv[1]
began = clock()
# Imports that wait until a project is read or a service is built.
import airflow_agentic.agents.declared, airflow_agentic.config.sources, airflow_agentic.config.run_time
import airflow_agentic.agents.services, airflow_agentic.config.files.yaml_nodes
from airflow_agentic.config.injection import container
if name == "needing":
    container._svcs()
imports = clock() - began
gc.collect()  # or the collector would look at all that was imported in the middle of something else
figures = {"imports": imports, "rounds": []}
for _ in range(3):
    began = clock()
    declared, plan = runtime.project(), runtime.plan(name)
    planned = clock() - began
    with runtime.open_store() as store:
        began = clock()
        place = runtime.Workplace(store, declared, RunIdentity("d", "r", "t"))
        agent = place.agent(plan)
        figures["rounds"].append([planned, clock() - began])
        agent.shutdown(); place.close()
began = clock()
yaml.load(open(sys.argv[2], "rb"), Loader=yaml.CSafeLoader)
read = clock()
bench_agents.Plain(name="x", config={"limit": 3})
figures["raw"] = [read - began, clock() - read]
print(json.dumps(figures))
"""


def main() -> None:
    """Time both kinds of agent, each in fresh processes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "bench_agents.py").write_text(MODULE)
        project = folder / "agentic.yaml"
        project.write_text(_project())
        results: dict[str, list[dict[str, Any]]] = {"plain": [], "needing": []}
        for _ in range(ROUNDS):
            for kind, rounds in results.items():
                rounds.append(_measure(kind, project))
        print(f"getting an agent from a project of {AGENTS} agents, ms, median of {ROUNDS} fresh processes")
        print(f"  {'':<44} {'project':>8} {'agent':>8} {'sum':>8}")
        raw = [statistics.median(r["raw"][i] for r in results["plain"]) for i in (0, 1)]
        _line("libyaml reads the file, the class is called", *raw)
        for kind, text in (("plain", "an agent"), ("needing", "an agent that needs a service")):
            for index, when in ((0, "the first in a process"), (2, "the third")):
                medians = [statistics.median(r["rounds"][index][i] for r in results[kind]) for i in (0, 1)]
                _line(f"{text}, {when}", *medians)
            late = statistics.median(r["imports"] for r in results[kind])
            print(f"  {'imports that wait for the first one':<44} {'':>8} {'':>8} {late * 1000:8.1f}")


def _line(text: str, project: float, agent: float) -> None:
    print(f"  {text:<44} {project * 1000:8.2f} {agent * 1000:8.2f} {(project + agent) * 1000:8.2f}")


def _project() -> str:
    lines = ["services:"]
    lines += [f"  service-{i}: {{type: 'bench_agents:Index', config: {{size: {i}}}}}" for i in range(10)]
    lines += ["policies:"]
    lines += [f"  policy-{i}: {{retry: {{max_attempts: {i + 1}}}, lease_seconds: 30}}" for i in range(10)]
    lines += ["agents:"]
    lines += [
        f"  agent-{i}: {{type: 'bench_agents:Plain', policy: policy-{i % 10}, config: {{limit: {i}}}}}"
        for i in range(AGENTS - 2)
    ]
    lines += ["  plain: {type: 'bench_agents:Plain', policy: policy-1, config: {limit: 3}}"]
    lines += ["  needing: {type: 'bench_agents:Needing', uses: {index: service-3}, config: {limit: 3}}"]
    return "\n".join(lines) + "\n"


def _measure(kind: str, project: Path) -> dict[str, Any]:
    environment = {
        **os.environ,
        "AIRFLOW_HOME": str(project.parent),
        "AIRFLOW__AGENTIC__PROJECT_FILE": str(project),
        "PYTHONPATH": str(project.parent),
    }
    done = subprocess.run(
        [sys.executable, "-c", TASK, kind, str(project)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


if __name__ == "__main__":
    main()
