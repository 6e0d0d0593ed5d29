"""Finds what belongs together: a conversation, what led to it, and what the runs that handled it sent on their own."""

from __future__ import annotations

from collections.abc import Iterable

from airflow_agentic.messaging import DeliveryRecord, MessageBus
from airflow_agentic.messaging.ports import DeliveryQuery

_MOST_CONVERSATIONS = 25


def followed(bus: MessageBus, identifier: str, limit: int) -> list[DeliveryRecord]:
    """Read every delivery of a conversation and of those around it, oldest first.

    A task that handles a message answers in its conversation. What its DAG run sends besides has the run's own: so the
    conversations of the runs that handled something are looked up, and those of causes that are in another one.

    Args:
        bus: Where.
        identifier: A correlation id, or the id of any message in the conversation.
        limit: At most so many.

    Raises:
        MessageNotFound: Nothing has that id.
    """
    found = {record.delivery_id: record for record in bus.trace(identifier, limit=limit)}
    known = {record.message.correlation_id for record in found.values() if record.message}
    todo = list(_around(bus, found.values(), found.values()))
    while todo and len(known) < _MOST_CONVERSATIONS and len(found) < limit:
        conversation = todo.pop(0)
        if conversation in known:
            continue
        known.add(conversation)
        more = bus.find(DeliveryQuery(correlation_id=conversation, limit=limit - len(found)))
        found |= {record.delivery_id: record for record in more}
        todo += _around(bus, more, found.values())
    return [found[number] for number in sorted(found)]


def tasks_of(record: DeliveryRecord) -> list[str]:
    """Return the Airflow tasks that have or had a delivery, each as ``dag_id/run_id/task_id``, the last one first."""
    names = [record.owner or "", *(entry.actor for entry in reversed(record.history))]
    parted = (name.rpartition("@") for name in names)
    return list(dict.fromkeys(task for task, at, _ in parted if at and "/" in task))


def run_of(task: str) -> str:
    """Return the conversation of the DAG run that a task belongs to: ``dag_id:run_id``."""
    dag_id, _, rest = task.partition("/")
    return f"{dag_id}:{rest.partition('/')[0]}"


def _around(bus: MessageBus, records: Iterable[DeliveryRecord], known: Iterable[DeliveryRecord]) -> list[str]:
    """Return the conversations that records lead to: of the runs that handled them, and of their causes."""
    there = {record.message.id for record in known if record.message}
    runs = {run_of(task) for record in records for task in tasks_of(record)}
    causes = {record.message.causation_id for record in records if record.message} - there
    named = [bus.find(DeliveryQuery(message_id=cause, limit=1)) for cause in sorted(filter(None, causes))]
    above = [each[0].message.correlation_id for each in named if each and each[0].message]
    return [*above, *sorted(runs)]
