"""DAGs that start when messages come."""

from __future__ import annotations

import re
from typing import Any

from airflow.providers.common.messaging.triggers.msg_queue import MessageQueueTrigger
from airflow.sdk import Asset, AssetWatcher

from airflow_agentic.errors import ConfigurationError

_NO_NAME = re.compile(r"[^A-Za-z0-9_.-]")


def on_message(
    mailbox: str, *, deliver: bool = False, name: str | None = None, agentic_conn_id: str | None = None
) -> Asset:
    """Start a DAG when messages come: ``DAG("review", schedule=on_message("reviewer"))``.

    The mailbox is an asset that a trigger watches, without a worker slot; it can be combined with others
    (``on_message("a") | on_message("b")``).

    By default the event says that messages wait, and the DAG handles them: ``RunAgentOperator(mailbox="reviewer")``. With
    ``deliver`` each message is an event of its own, acked when Airflow has stored it, and the DAG finds it with
    ``airflow_agentic.runtime.started_by``. Not for bursts: events that Airflow 3.3.2 stores while it is about to start a DAG
    run wait for the next event of the asset.

    Args:
        mailbox: Which.
        deliver: See above.
        name: Of the asset; default ``agentic_MAILBOX``, and ``agentic_MAILBOX_messages`` with ``deliver``. Two DAGs with the
            same name share the watcher.
        agentic_conn_id: The store; see ``AgenticHook``.

    Raises:
        ConfigurationError: There is no mailbox.
    """
    if not mailbox.strip():
        raise ConfigurationError("on_message() needs the name of a mailbox")
    label = _NO_NAME.sub("_", mailbox)
    given: dict[str, Any] = {"mailbox": mailbox, "deliver": deliver, "agentic_conn_id": agentic_conn_id}
    said = {key: value for key, value in given.items() if value}
    trigger = MessageQueueTrigger(scheme="agentic", **said)
    asset = name or f"agentic_{label}{'_messages' if deliver else ''}"
    return Asset(name=asset, watchers=[AssetWatcher(name=f"{label}_mailbox", trigger=trigger)])
