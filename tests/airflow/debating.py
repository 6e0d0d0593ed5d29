"""A debate in a process of its own, as a worker runs it: killed, and started again with the next try.

`python debating.py FOLDER TRY [KILL_AT …]`: in the turns of these numbers the process kills itself, at the beginning of an odd
one, and at the end of an even one, when the agent has written down that it spoke.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

from airflow.sdk import DAG

from airflow_agentic.agents import AgentContext, agent
from airflow_agentic.workflows import debate

ROUNDS = 20
NAMES = ("ann", "ben", "cem")


class Pushed:
    """Stands for the task instance that the worker gives to the operator."""

    dag_id, run_id, task_id, map_index, max_tries, task = "killed", "r", "debate.rounds", -1, 9, None
    context_carrier = None

    def __init__(self, try_number):
        self.try_number = try_number

    def xcom_push(self, *_):
        return None


def main(folder, try_number, *kill_at):
    said = Path(folder) / "said"

    def speaker(name):
        @agent(name)
        def speak(task: dict, ctx: AgentContext) -> dict:
            number = len(task["turns"])
            if number in kill_at and number % 2:
                os.kill(os.getpid(), signal.SIGKILL)
            with said.open("a") as file:
                file.write(f"{number} {name}\n")
            ctx.send("minutes", number)
            if number in kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return {"number": number, "by": name}

    for name in NAMES:
        speaker(name)

    @agent("judge")
    def judge(task: dict) -> str:
        return "done"

    with DAG("killed") as dag:
        debate("debate", NAMES, judge="judge", task="tea?", rounds=ROUNDS)
    ti = Pushed(try_number)
    context = {"ti": ti, "dag": dag, "dag_run": SimpleNamespace(conf={})}
    found = dag.get_task("debate.rounds").execute(context)
    (Path(folder) / "result.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *map(int, sys.argv[3:]))
