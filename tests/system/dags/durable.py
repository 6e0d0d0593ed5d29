"""Durable runs that somebody kills, clears and answers: each step has an effect outside of the store."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pendulum
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException
from outside import effect, gate, hold, is_there

from airflow_agentic.agents import AgentContext, BaseAgent, agent
from airflow_agentic.errors import ReplyTimeout
from airflow_agentic.operators.agents import RunAgentOperator

ABOUT: dict[str, Any] = {
    "schedule": None,
    "start_date": pendulum.datetime(2026, 1, 1, tz="UTC"),
    "catchup": False,
    "render_template_as_native_obj": True,
}
ONE_SLOT = {"pool": "one-slot"}
APPROVAL = {
    "type": "object",
    "properties": {"approve": {"type": "boolean"}, "limit": {"type": "integer"}},
    "required": ["approve", "limit"],
}


@agent("ledger")
class Ledger(BaseAgent[dict, dict]):
    """Does some steps, tells somebody of each, and adds up what they come to."""

    _run_id = ""

    def process(self, task: dict, ctx: AgentContext) -> dict:
        """Go through the steps; between them, at the end of all, and in each, a test may hold it."""
        run_id = self._run_id = ctx.run.run_id
        seconds, steps = task.get("seconds", 0.0), task["steps"]

        def work(number: int) -> int:
            time.sleep(seconds / 2)
            hold(run_id, f"before effect {number}")
            effect(ctx, f"step-{number}", version=ctx.durable.version)
            hold(run_id, f"after effect {number}")
            time.sleep(seconds / 2)
            ctx.send("steps-of-ledgers", {"run": run_id, "step": number})
            return number * number

        hold(run_id, "before the first step")
        ctx.expect(steps)
        for number in range(1, steps + 1):
            value = ctx.step(f"step-{number}", work, number)
            hold(run_id, f"between {number} and {number + 1}")
            ctx.emit({f"value-{number}": value})
            ctx.emit({"sum": ctx.state.get("sum", 0) + value}, key=f"sum-{number}")
            if number == steps // 2:
                ctx.checkpoint("half")
            if number == steps - 1:
                gate(run_id, "the last step")
        hold(run_id, "after the last step")
        ctx.send("steps-of-ledgers", {"run": run_id, "step": "end"})
        return {"sum": ctx.state["sum"]}

    def on_shutdown(self, previous: Any, reason: str) -> None:
        """Its run is over now, and Airflow does not know that yet."""
        hold(self._run_id, "after the end")


@agent("clerk")
def clerk(task: str, ctx: AgentContext) -> str:
    """Do a step, and another one that fails for good until the test has mended what is broken."""

    def second() -> None:
        if task.endswith("broken") and not is_there(ctx.run.run_id, "mended"):
            raise AirflowFailException("it is broken")
        effect(ctx, f"{task}: second")

    ctx.step("first", effect, ctx, f"{task}: first")
    ctx.step("second", second)
    return task


@agent("asker")
def asker(task: dict, ctx: AgentContext) -> dict:
    """Ask twice, and do something before, between and after."""
    ctx.step("before", lambda: effect(ctx, "asker: before"))
    first = ctx.interrupt("May it be paid?", APPROVAL, name="pay")
    ctx.step("between", lambda: effect(ctx, "asker: between"))
    second = ctx.interrupt("From which account?", name="account")
    ctx.step("after", lambda: effect(ctx, "asker: after"))
    return {"first": first, "second": second}


@agent("payer")
def payer(task: dict, ctx: AgentContext) -> dict:
    """Pay once: if nobody knows whether it was paid, a person says so."""

    def pay() -> str:
        effect(ctx, "payer: pay")
        hold(ctx.run.run_id, "after paying")
        return "receipt 1"

    return {"receipt": ctx.step("pay", pay, on_ambiguous="ask")}


@agent("hurried")
def hurried(task: dict, ctx: AgentContext) -> str:
    """Ask somebody who does not answer in time."""
    ctx.step("ask", lambda: effect(ctx, "hurried: asks"))
    try:
        said = ctx.interrupt("Quick?", deadline=datetime.now(UTC) + timedelta(seconds=6))
    except ReplyTimeout:
        said = "nobody answered"
    ctx.step("told", lambda: effect(ctx, "hurried: goes on"))
    return said


@agent("sleeper")
def sleeper(task: dict, ctx: AgentContext) -> float:
    """Sleep; return for how long."""
    began = ctx.step("lie down", lambda: effect(ctx, "sleeper: lies down") or time.time())
    ctx.sleep_until(datetime.fromtimestamp(began, UTC) + timedelta(seconds=task["seconds"]))
    return ctx.step("get up", lambda: effect(ctx, "sleeper: gets up") or time.time()) - began


@agent("receiver")
def receiver(task: dict, ctx: AgentContext) -> list:
    """Wait for two messages."""
    ctx.step("ask", lambda: effect(ctx, "receiver: asks"))
    got = [ctx.wait_for_message(task["mailbox"], timeout=300).data for _ in range(2)]
    ctx.step("told", lambda: effect(ctx, "receiver: goes on"))
    return got


with DAG("ledger", **ABOUT):
    RunAgentOperator(task_id="keep", agent="ledger", task="{{ dag_run.conf }}")

with DAG("clears", **ABOUT):
    RunAgentOperator(task_id="one", agent="clerk", task="one broken")
    RunAgentOperator.partial(task_id="many", agent="clerk").expand(
        task=["a", "b broken", "c", "d broken"],
    )

with DAG("waits", **ABOUT):
    RunAgentOperator(task_id="asks", agent="asker", task={}, **ONE_SLOT)
    RunAgentOperator(task_id="pays", agent="payer", task={}, **ONE_SLOT)
    RunAgentOperator(task_id="hurries", agent="hurried", task={}, **ONE_SLOT)
    RunAgentOperator(task_id="sleeps", agent="sleeper", task={"seconds": 8}, **ONE_SLOT)
    RunAgentOperator(
        task_id="receives", agent="receiver", task={"mailbox": "receipts-of-{{ run_id }}"}, **ONE_SLOT
    )
