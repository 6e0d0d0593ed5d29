"""Prices from a service that may be down: what the guards of the whole fleet are for.

`quotes` waits: when the first calls have failed, one breaker stops the calls of all workers. The tasks wait without a slot,
a few probes find out when the service is back, and everything ends well, with none of Airflow's retries spent.
`quotes_at_any_price` does not wait: an estimate takes the place of the answer, and the result says that it is degraded.

The service is the Airflow connection `quotes`, for example
`AIRFLOW_CONN_QUOTES='{"conn_type": "http", "host": "http://localhost:8099"}'`. `airflow agentic breakers list` shows how it
stands.
"""

from __future__ import annotations

from typing import Any

import pendulum
from airflow.sdk import DAG, Param, task

from airflow_agentic.operators.agents import RunAgentOperator

ABOUT: dict[str, Any] = {
    "start_date": pendulum.datetime(2026, 1, 1, tz="UTC"),
    "catchup": False,
    "tags": ["agentic", "example"],
    "doc_md": __doc__,
    "params": {"articles": Param(12, type="integer", minimum=1, maximum=500)},
}


@task
def articles(params: dict[str, Any] | None = None) -> list[dict[str, str]]:
    """Say what is asked for."""
    count: int = (params or {})["articles"]
    return [{"name": f"article-{number}"} for number in range(count)]


with DAG("quotes", schedule=None, **ABOUT):
    RunAgentOperator.partial(task_id="ask", agent="quotes").expand(task=articles())

with DAG("quotes_at_any_price", schedule=None, **ABOUT):
    asked = RunAgentOperator.partial(task_id="ask", agent="quotes-now").expand(task=articles())

    @task
    def sort(quotes: list[dict[str, Any]]) -> dict[str, int]:
        """Branch on what is degraded: an estimate is not worth the same."""
        estimated = sum(bool(quote.get("degraded")) for quote in quotes)
        return {"quoted": len(quotes) - estimated, "estimated": estimated}

    sort(asked.output)  # type: ignore[arg-type]
