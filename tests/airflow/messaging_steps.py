"""Small steps that the tests of messaging in Airflow are made of."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from airflow_agentic.messaging.ports import DeliveryQuery


def context_of(operator: Any, run_id: str = "run-1", **values: Any) -> dict[str, Any]:
    """Make the context of a task that is run without Airflow: ``execute()`` and nothing around it."""
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(
        dag_id=operator.dag_id,
        run_id=run_id,
        task_id=operator.task_id,
        map_index=-1,
        max_tries=0,
        try_number=1,
        xcom_push=pushed.__setitem__,
        pushed=pushed,
    )
    return {"ti": ti, "dag": operator.dag, "dag_run": None, "run_id": run_id, **values}


def records_of(store: Any, mailbox: str) -> list[Any]:
    return store.bus.find(DeliveryQuery(mailbox=mailbox))


def sent_to(store: Any, mailbox: str) -> list[Any]:
    return [record.message for record in records_of(store, mailbox)]
