"""A pytest fixture that injects faults for one test.

Enable it in ``conftest.py``::

    pytest_plugins = ["airflow_agentic.testing.faults"]

and say in a test what goes wrong::

    def test_the_auditor_gets_over_a_lost_answer(agentic_faults) -> None:
        agentic_faults.add("drop", "send:legal", count=1)
        with agentic_faults.open() as store:
            run_agent(Auditor, record, store=store)

What a DAG run with ``dag.test()`` does, and processes that the test starts, obey the same rules, unless their project is of
mode production.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_agentic.config.faults import FaultKind, FaultRule
from airflow_agentic.config.options import SECTION
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.messaging import BusOptions
from airflow_agentic.resilience.fault_rules import FaultRules, FaultView
from airflow_agentic.stores import Store, open_store


class FaultInjector:
    """What goes wrong in a test.

    Args:
        environment: Sets variables until the test ends.

    Attributes:
        rules: Those that were added, by name.
    """

    def __init__(self, environment: pytest.MonkeyPatch) -> None:
        self._environment = environment
        self.rules: dict[str, FaultRule] = {}

    def add(
        self, what: FaultKind, where: str, *, name: str | None = None, kills_me: bool = False, **said: Any
    ) -> str:
        """Let something go wrong from now on, in what is opened afterwards.

        Args:
            what: What happens: ``latency``, ``error``, ``sigkill`` and so on.
            where: ``agent:NAME``, ``call:KEY``, ``send:MAILBOX``, ``receive:MAILBOX`` or ``store``.
            name: Of the rule; default one that is free.
            kills_me: Needed for ``sigkill``: whatever process does the work is killed, also that of the test.
            said: Other keys of a rule: ``seconds``, ``category``, ``count``, ``after``, ``probability``, ``seed`` …

        Returns:
            The name of the rule.

        Raises:
            ConfigurationError: ``sigkill`` without ``kills_me``.
            ValidationError: There can be no such rule.
        """
        if what == "sigkill" and not kills_me:
            raise ConfigurationError(
                "sigkill ends the process that does the work, also that of the test: do the work in one of its own, "
                "and say kills_me=True"
            )
        name = name or f"{what}-{len(self.rules) + 1}"
        self.rules[name] = FaultRule.model_validate({"what": what, "where": where, **said})
        declared = {
            key: rule.model_dump(mode="json", exclude_defaults=True) for key, rule in self.rules.items()
        }
        self._environment.setenv(f"AIRFLOW__{SECTION.upper()}__FAULT_INJECTION", "True")
        self._environment.setenv(f"{SECTION.upper()}__FAULTS", json.dumps(declared))
        return name

    @contextlib.contextmanager
    def open(self, url: str = "memory://", options: BusOptions | None = None) -> Iterator[Store]:
        """Open a store that fails as the rules say.

        Args:
            url: See :func:`airflow_agentic.stores.open_store`.
            options: Limits and times of the bus.
        """
        with open_store(url, options=options, faults=dict(self.rules)) as store:
            yield store

    def seen(self, store: Store) -> dict[str, FaultView]:
        """Return what became of the rules on a store, by name."""
        return {view.name: view for view in FaultRules(store.guards, self.rules).views()}


@pytest.fixture
def agentic_faults(monkeypatch: pytest.MonkeyPatch) -> FaultInjector:
    """Inject faults into what a test does."""
    return FaultInjector(monkeypatch)
