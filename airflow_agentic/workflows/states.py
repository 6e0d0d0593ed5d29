"""How other tasks of the same DAG run stand, and what they made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow.sdk.definitions.context import Context

FAILED = ("failed", "upstream_failed")

CHOSEN = "agentic_chosen"
"""Key of the XCom that says which ways a task chose. A task that skips others returns nothing to Airflow."""


def states_of(context: Context, task_ids: Iterable[str]) -> dict[str, str | None]:
    """Return the states of tasks; of a mapped task group those with this task's map index.

    Args:
        context: Airflow's.
        task_ids: Which.
    """
    ti: Any = context["ti"]
    wanted = list(task_ids)
    index = -1 if ti.map_index is None else ti.map_index
    found = ti.get_task_states(
        dag_id=ti.dag_id, task_ids=wanted, run_ids=[ti.run_id], **({"map_index": index} if index >= 0 else {})
    ).get(ti.run_id, {})
    suffix = f"_{index}" if index >= 0 else ""
    return {task_id: _text(found.get(f"{task_id}{suffix}")) for task_id in wanted}


def result_of(context: Context, task_id: str, key: str = "return_value") -> Any:
    """Return what another task returned, or pushed under a key; of a mapped task group the one with this map index."""
    ti: Any = context["ti"]
    index = -1 if ti.map_index is None else ti.map_index
    found = ti.xcom_pull(task_ids=task_id, key=key, **({"map_indexes": index} if index >= 0 else {}))
    return plain(found)


def _text(state: Any) -> str | None:
    return None if state is None else str(getattr(state, "value", state))


def plain(value: Any) -> Any:
    """Return a result as JSON has it: those of a mapped task, which come one by one, as a list."""
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | list | tuple):
        return [plain(each) for each in value]
    return value
