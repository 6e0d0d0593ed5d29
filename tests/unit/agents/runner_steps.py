"""Small steps that the tests of the runner are made of."""

from __future__ import annotations

from datetime import timedelta

from pydantic import BaseModel

from airflow_agentic.agents import AgentContext, AgentRunner, BaseAgent, FunctionAgent, RunIdentity
from airflow_agentic.messaging import BusOptions, Message

BOX = "auditor"
NOW = timedelta(0)
RUN = RunIdentity("audit", "run-1", "judge")


class Record(BaseModel):
    name: str


def options(**changes):
    return BusOptions(
        **{
            "max_attempts": 3,
            "retry_base": NOW,
            "retry_max": NOW,
            "poll": timedelta(milliseconds=5),
            "max_message_bytes": 5_000,
            **changes,
        }
    )


def send(bus, *names, box=BOX, **values):
    messages = [
        Message(source="scanner", recipient=box, data={"name": n} if isinstance(n, str) else n, **values)
        for n in names
    ]
    bus.send_many(messages)
    return messages


def runner(bus, function, lease=None, run=RUN, **options):
    agent = function if isinstance(function, BaseAgent) else FunctionAgent(function, "auditor")
    made = AgentRunner(
        agent, bus, lambda messages: AgentContext(agent.name, run=run, messages=messages), lease, **options
    )
    made.agent = agent
    return made


def dead(bus, box=BOX):
    return {record.message.data["name"]: record.reason for record in bus.dead_letters(box)}


def audit_record(record: Record) -> str:
    return record.name
