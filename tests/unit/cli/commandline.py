"""How a command of ``airflow agentic`` is run in tests, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from airflow_agentic.resilience.ports import GuardChange, GuardKey
from airflow_agentic.stores import Store


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ended]


def change(store: Store, key: GuardKey, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change a document of a guard, as if time had passed."""
    entry = store.guards.read([key]).entries[key]
    doc = json.loads(entry.value)
    edit(doc)
    assert store.guards.change([GuardChange(key, json.dumps(doc).encode(), entry.version)])
