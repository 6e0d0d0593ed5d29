"""An agent that works until it is shut down, and a task that sends one message."""

from __future__ import annotations

import time

import pendulum
from airflow.sdk import DAG

from airflow_agentic.agents import BaseAgent, agent
from airflow_agentic.operators.agents import RunAgentOperator
from airflow_agentic.operators.messaging import SendMessageOperator


@agent("walker")
class Walker(BaseAgent[dict, str]):
    """Walks until it is told to stop."""

    walking = True

    def process(self, task, ctx):
        ends = time.monotonic() + 120
        while self.walking and time.monotonic() < ends:
            time.sleep(0.05)
        return "stopped" if not self.walking else "arrived"

    def on_shutdown(self, previous, reason):
        self.walking = False


start = pendulum.datetime(2026, 1, 1, tz="UTC")

with DAG("long_walk", schedule=None, start_date=start):
    RunAgentOperator(task_id="walk", agent="walker", task={})

with DAG("one_letter", schedule=None, start_date=start):
    SendMessageOperator(task_id="send", recipient="letters", data={"run": "{{ run_id }}"})
