"""Ports of the domain, bound to Airflow: where references lead, and where numbers go."""

from __future__ import annotations

import os
from typing import Any

from airflow_agentic.config.references import Reference
from airflow_agentic.errors import UnresolvedReference
from airflow_agentic.observability.metrics import Tags


class AirflowReferences:
    """Implements :class:`airflow_agentic.config.references.SecretResolver`.

    What is found is masked in the logs from then on.
    """

    def resolve(self, reference: Reference) -> str:
        """Return the value.

        Raises:
            UnresolvedReference: There is no such variable or connection, or the field is empty.
        """
        from airflow.sdk.log import mask_secret

        find = {"env": _environment, "var": _variable, "conn": _connection}[reference.scheme]
        value = find(reference)
        mask_secret(value)
        return value


class AirflowMetrics:
    """Implements :class:`airflow_agentic.observability.Metrics` on Airflow's own metrics (``[metrics]``)."""

    def count(self, name: str, value: int = 1, tags: Tags | None = None) -> None:
        """Add to a counter."""
        from airflow.sdk.observability import stats

        stats.incr(f"agentic.{name}", count=value, tags=dict(tags or {}))

    def gauge(self, name: str, value: float, tags: Tags | None = None) -> None:
        """Set a value."""
        from airflow.sdk.observability import stats

        stats.gauge(f"agentic.{name}", value, tags=dict(tags or {}))

    def timing(self, name: str, seconds: float, tags: Tags | None = None) -> None:
        """Report how long something took, in seconds."""
        from airflow.sdk.observability import stats

        stats.timing(f"agentic.{name}", seconds * 1000, tags=dict(tags or {}))


def _environment(reference: Reference) -> str:
    value = os.environ.get(reference.name)
    if value is None:
        raise UnresolvedReference(
            f"{reference.text}: the environment has no {reference.name}; set it for the workers"
        )
    return value


def _variable(reference: Reference) -> str:
    from airflow.sdk import Variable
    from airflow.sdk.exceptions import AirflowRuntimeError

    try:
        value: Any = Variable.get(reference.name)
    except (KeyError, AirflowRuntimeError):
        raise UnresolvedReference(
            f"{reference.text}: there is no Airflow variable {reference.name!r}. Make it: "
            f"`airflow variables set {reference.name} …`"
        ) from None
    return str(value)


def _connection(reference: Reference) -> str:
    from airflow.sdk import BaseHook
    from airflow.sdk.exceptions import AirflowNotFoundException

    try:
        connection = BaseHook.get_connection(reference.name)
    except AirflowNotFoundException:
        raise UnresolvedReference(
            f"{reference.text}: there is no Airflow connection {reference.name!r}"
        ) from None
    value: Any
    if reference.key is None:
        value = getattr(connection, str(reference.field))
    else:
        value = connection.extra_dejson
        for part in reference.key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
    if value is None:
        what = reference.key or reference.field
        raise UnresolvedReference(f"{reference.text}: connection {reference.name!r} has no {what}")
    return str(value)
