"""Guards of the project's policies, for whoever works in a task."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from airflow_agentic.errors import ConfigurationError
from airflow_agentic.resilience.admission import Subject
from airflow_agentic.runtime.configuration import project

if TYPE_CHECKING:
    from airflow_agentic.agents.context import RunIdentity
    from airflow_agentic.config.policies import Policy
    from airflow_agentic.resilience.guard import Guard
    from airflow_agentic.stores import Store


def guards_of(store: Store, run: RunIdentity, agent: str) -> Callable[[Policy | str, str], Guard]:
    """Return what makes guards of policies, or their names, and keys, for whoever works in a task.

    Args:
        store: Where the guards are.
        run: The task.
        agent: Who works.
    """

    def made(said: Policy | str, key: str) -> Guard:
        return store.guard(policy(said), key, subject(run, agent))

    return made


def policy(said: Policy | str) -> Policy:
    """Return a policy of the project file by its name; a value as it is.

    Raises:
        ConfigurationError: There is none of that name.
        ProjectInvalid: The project configuration cannot be used.
    """
    if not isinstance(said, str):
        return said
    declared = project()
    if (found := declared.policies.get(said)) is not None:
        return found
    from airflow_agentic.config.names import did_you_mean

    hint = did_you_mean(said, declared.policies) or f"known: {', '.join(declared.policies) or 'none'}"
    raise ConfigurationError(
        f"there is no policy {said!r} ({hint}): declare it under policies: in the project file"
    )


def subject(run: RunIdentity, agent: str) -> Subject:
    """Return for whom an agent works; what budgets are counted by."""
    return Subject(agent, run.dag_id, run.team, run.correlation_id)
