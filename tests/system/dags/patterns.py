"""Every pattern of workflows, with agents that leave a line outside of the store each time that they work."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pendulum
from airflow.sdk import DAG, Param, get_current_context, task
from airflow.sdk.exceptions import AirflowFailException
from outside import effect, gate, hold

from airflow_agentic import runtime
from airflow_agentic.agents import AgentContext, BaseAgent, agent
from airflow_agentic.operators.agents import RunAgentOperator
from airflow_agentic.persistence import current_step
from airflow_agentic.workflows import (
    Ask,
    Step,
    await_human,
    debate,
    handoff,
    map_reduce,
    on_message,
    parallel,
    route,
    saga,
    sequence,
    supervise,
)

ABOUT: dict[str, Any] = {
    "start_date": pendulum.datetime(2026, 1, 1, tz="UTC"),
    "catchup": False,
    "render_template_as_native_obj": True,
}
ROUNDS = 20
DEBATERS = ("ann", "ben", "cem")


@agent("doubler")
def double(task: int, ctx: AgentContext) -> int:
    """Double a number."""
    effect(ctx, f"doubler: {task}")
    return 2 * task


@agent("adder")
def add(task: int, ctx: AgentContext) -> int:
    """Add one."""
    effect(ctx, f"adder: {task}")
    return task + 1


@agent("summer")
def add_up(task: list, ctx: AgentContext) -> int:
    """Add up."""
    effect(ctx, "summer")
    return sum(task)


@agent("hopeless-adder")
def fail(task: int, ctx: AgentContext) -> int:
    """Fail for good."""
    effect(ctx, "hopeless-adder")
    raise AirflowFailException("it cannot add")


# -- a trip, which is booked and taken back --------------------------------------------------------------------


@agent("book-flight")
def book_flight(task: dict, ctx: AgentContext) -> dict:
    """Book a flight."""
    effect(ctx, "book flight")
    return {"booked": "flight"}


@agent("book-hotel")
def book_hotel(task: dict, ctx: AgentContext) -> dict:
    """Book a hotel."""
    effect(ctx, "book hotel")
    return {"booked": "hotel"}


@agent("book-car")
def book_car(task: dict, ctx: AgentContext) -> dict:
    """Fail for good."""
    raise AirflowFailException("there is no car")


class Canceller(BaseAgent[dict, str]):
    """Takes back what was booked, and may be held before it, after it, and when all is over but Airflow does not know."""

    def process(self, task: dict, ctx: AgentContext) -> str:
        """Cancel: that is one line outside, with the key that an airline would know a repeat by."""
        booked, step = task["booked"], current_step()
        assert step is not None
        hold(ctx.run.run_id, f"before cancelling {booked}")
        effect(ctx, f"cancel {booked}", key=step.idempotency_key, is_repeat=step.is_repeat)
        hold(ctx.run.run_id, f"after cancelling {booked}")
        ctx.send("cancelled", booked)
        return f"{booked} cancelled"


@agent("cancel-flight")
class FlightCanceller(Canceller):
    """Of the airline."""


@agent("cancel-hotel")
class HotelCanceller(Canceller):
    """Of the hotel."""

    _run_id = ""

    def process(self, task: dict, ctx: AgentContext) -> str:
        """Cancel."""
        self._run_id = ctx.run.run_id
        return super().process(task, ctx)

    def on_shutdown(self, previous: Any, reason: str) -> None:
        """It is recorded that it was cancelled, and Airflow does not know that yet."""
        hold(self._run_id, "after the end of cancelling hotel")


# -- agents in turns -------------------------------------------------------------------------------------------


@agent("lead")
def lead(task: dict, ctx: AgentContext) -> dict:
    """Send a doubler and an adder to work."""
    done = task["turns"]
    effect(ctx, f"lead: {len(done)}")
    if len(done) == 2:
        return {"result": done[-1]["answer"]}
    return {"next": ("doubler", "adder")[len(done)], "task": done[-1]["answer"] if done else task["task"]}


@agent("reception")
def receive(task: int, ctx: AgentContext) -> dict:
    """Hand over to the doubler."""
    effect(ctx, "reception")
    return {"handoff": "doubler"}


def debater(name: str) -> None:
    """Make an agent that says how much was said before."""

    @agent(name)
    def speak(task: dict, ctx: AgentContext) -> dict:
        number = len(task["turns"])
        if task["round"] == ROUNDS:
            gate(ctx.run.run_id, "the last round")
        effect(ctx, f"turn {number}")
        ctx.send("minutes", {"turn": number, "by": name})
        return {"heard": number}


for each in DEBATERS:
    debater(each)


@agent("judge")
def judge(task: dict, ctx: AgentContext) -> dict:
    """Say what was said."""
    effect(ctx, "judge")
    return {"rounds": task["rounds"], "heard": [turn["answer"]["heard"] for turn in task["turns"]]}


# -- messages --------------------------------------------------------------------------------------------------


@agent("claims-handler")
def handle(task: dict, ctx: AgentContext) -> None:
    """Handle a claim."""
    ctx.step("handle", lambda: effect(ctx, f"claim {task['number']}", to="claims"))
    ctx.send("handled", task)


# -- the workflows ---------------------------------------------------------------------------------------------

with DAG("in_sequence", schedule=None, **ABOUT):
    sequence("work", ["doubler", "adder", "doubler"], task=10)

with DAG("in_parallel", schedule=None, **ABOUT):
    parallel("work", ["doubler", "adder", "hopeless-adder"], task=10, quorum=2)

with DAG("without_quorum", schedule=None, **ABOUT):
    parallel("work", ["doubler", "hopeless-adder"], task=10)

with DAG("on_a_route", schedule=None, **ABOUT):
    route(
        "work",
        task="{{ dag_run.conf['number'] }}",
        rules={"output > 100": "doubler", "output > 10": "adder"},
        can_miss=True,
    )

with DAG("mapped_and_reduced", schedule=None, **ABOUT):
    map_reduce("work", items=[1, 2, 3, 4], mapper="doubler", reducer="summer")

with DAG("trip", schedule=None, **ABOUT):
    saga(
        "work",
        [Step("book-flight", "cancel-flight"), Step("book-hotel", "cancel-hotel"), Step("book-car")],
        task={},
    )

with DAG("supervised", schedule=None, **ABOUT):
    supervise("work", supervisor="lead", workers=["doubler", "adder"], task=10, rounds=3)

with DAG("handed_over", schedule=None, **ABOUT):
    handoff("work", ["reception", "doubler"], task=10)

with DAG("debated", schedule=None, **ABOUT):
    debate("work", DEBATERS, judge="judge", task="tea?", rounds=ROUNDS)

with DAG("asked", schedule=None, **ABOUT):
    await_human(
        "work",
        "Shall we?",
        options=["Yes", "No"],
        params={"why": Param("", type="string")},
        ask=[Ask(["somebody"], within=timedelta(seconds=5)), Ask(["admin"], within=timedelta(minutes=5))],
    )

with DAG("claims_announced", schedule=on_message("claims"), **ABOUT):
    RunAgentOperator(task_id="handle", agent="claims-handler", mailbox="claims")

with DAG("notices_delivered", schedule=on_message("notices", deliver=True), **ABOUT):

    @task
    def read() -> list[Any]:
        """Return the messages that began this."""
        return [each.message.data for each in runtime.started_by(get_current_context())]

    read()
