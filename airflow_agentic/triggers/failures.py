"""Errors on their way from a trigger to the task that waits for it: events carry plain data."""

from __future__ import annotations

from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException
from airflow.triggers.base import TriggerEvent

from airflow_agentic.errors import AgenticError


def failure_event(error: AgenticError) -> TriggerEvent:
    """Return the event that stands for an error."""
    said = f"[{error.category}] {type(error).__name__}: {error}"
    return TriggerEvent({"error": said, "retry_helps": error.retry_helps})


def raise_failure(event: dict[str, Any]) -> None:
    """Raise the error that an event stands for; any other event passes.

    Raises:
        AirflowException: A retry may help.
        AirflowFailException: A retry does not help.
    """
    if "error" in event:
        kind = AirflowException if event["retry_helps"] else AirflowFailException
        raise kind(event["error"])
