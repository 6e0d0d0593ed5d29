"""Which arguments are known when a DAG is parsed."""

from __future__ import annotations

from typing import Any


def is_literal(value: Any) -> bool:
    """Whether a value is what the task will see: no template in it, and nothing that Airflow fills in later."""
    if isinstance(value, str):
        return "{{" not in value and "{%" not in value
    if isinstance(value, dict):
        return all(is_literal(key) and is_literal(item) for key, item in value.items())
    if isinstance(value, list | tuple):
        return all(is_literal(item) for item in value)
    return not hasattr(value, "resolve")
