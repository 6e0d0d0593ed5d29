"""Small steps that the tests of durable work are made of."""

from __future__ import annotations

from datetime import timedelta

from airflow_agentic.agents import AgentContext, AgentRunner, RunIdentity
from airflow_agentic.agents.context import Facilities
from airflow_agentic.agents.durable import Durability
from airflow_agentic.agents.registry import as_definition
from airflow_agentic.messaging import Message

TASK = RunIdentity("billing", "run-1", "charge")
NOW = timedelta(0)


class Killed(BaseException):
    """Stands for a process that is not there any more: nobody catches it, and nothing is told of it."""


class World:
    """What effects are in: who did what, how often, and when to die."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.dies_before: str | None = None
        self.dies_after: str | None = None

    def do(self, what: str) -> str:
        if self.dies_before == what:
            self.dies_before = None
            raise Killed
        self.done.append(what)
        if self.dies_after == what:
            self.dies_after = None
            raise Killed
        return what.upper()


def runner(store, function, *, identity=TASK, persistence="hybrid", protection=None, inbox=False, kept=True):
    """Make a runner of a function as an agent, as a process of its own would have it."""
    agent = as_definition(function).create(None, store.agents)
    durability = Durability(store.runs_with, store.bus, persistence) if kept else None

    def make_context(messages):
        return AgentContext(
            agent.name, run=identity, messages=messages, facilities=Facilities(runs=durability)
        )

    return AgentRunner(
        agent, store.bus, make_context, timedelta(seconds=20), protection=protection, inbox=inbox
    )


def killed(monkeypatch):
    """Let nothing be told of a try that ends with Killed, as if the process were gone; its leases come free."""
    from airflow_agentic.agents.durable import DurableWork

    told = DurableWork.end

    def end(work, error):
        if isinstance(error, Killed):
            if work._run is not None:
                work._run.close()
            work._has_ended = True
            return
        told(work, error)

    monkeypatch.setattr(DurableWork, "end", end)


def send(bus, *data, box="charger", **values):
    messages = [Message(source="shop", recipient=box, data=each, **values) for each in data]
    bus.send_many(messages)
    return messages


def received(bus, box):
    return [each.message for each in bus.receive(box, max_messages=99)]
