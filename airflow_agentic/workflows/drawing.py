"""The graph of a DAG as text: a Mermaid flowchart, which GitHub and most wikis draw."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from airflow.sdk import DAG, TaskGroup

_NO_ID = re.compile(r"[^A-Za-z0-9_]")


def picture(dag: DAG) -> str:
    """Return the graph of a DAG: its groups, tasks and dependencies, each always in the same place.

    Args:
        dag: Which.
    """
    lines = ["flowchart LR", *_group(dag.task_group, 1)]
    for task in dag.tasks:
        lines += [
            f"    {_identifier(task.task_id)} --> {_identifier(below)}"
            for below in sorted(task.downstream_task_ids)
        ]
    return "\n".join(lines)


def _group(group: TaskGroup, depth: int) -> Iterator[str]:
    indent = "    " * depth
    for child in group.children.values():
        if isinstance(child, TaskGroup):
            yield f"{indent}subgraph {_identifier(child.group_id)}[{child.label}]"
            yield from _group(child, depth + 1)
            yield f"{indent}end"
        else:
            yield f"{indent}{_identifier(child.node_id)}{_shape(child)}"


def _shape(task: Any) -> str:
    """Return a task's box: round for those that choose, stacked for mapped ones."""
    label = task.node_id.rpartition(".")[2]
    if task.is_mapped:
        return f"[[{label}]]"
    return f"{{{{{label}}}}}" if getattr(task, "inherits_from_skipmixin", False) else f"[{label}]"


def _identifier(node_id: str | None) -> str:
    return _NO_ID.sub("_", str(node_id))
