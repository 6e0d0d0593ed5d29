"""Triples of tasks that do the same nothing, one after the other."""

from __future__ import annotations

import pendulum
from airflow.providers.standard.operators.python import PythonOperator
from airflow.sdk import DAG, chain

from airflow_agentic.agents import AgentContext, agent
from airflow_agentic.operators.agents import RunAgentOperator

PAIRS = 9


def work(number: int) -> int:
    """Do next to nothing."""
    return number + 1


@agent("cost")
def cost(number: int, ctx: AgentContext) -> int:
    """Do next to nothing, and send a message for the mailbox task."""
    ctx.send("cost", number)
    return work(number)


@agent("cost-mailbox")
def cost_mailbox(number: int) -> int:
    """Do next to nothing."""
    return work(number)


with DAG("operator_cost", schedule=None, start_date=pendulum.datetime(2026, 1, 1, tz="UTC")):
    chain(
        *(
            task
            for i in range(PAIRS)
            for task in (
                PythonOperator(task_id=f"python_{i}", python_callable=work, op_args=[i]),
                RunAgentOperator(task_id=f"agent_{i}", agent=cost, task=i),
                RunAgentOperator(task_id=f"mailbox_{i}", agent=cost_mailbox, mailbox="cost"),
            )
        )
    )
