"""Message to bytes and back, with a version, so that an old reader refuses what it does not know."""

from __future__ import annotations

import json
from typing import Any

from airflow_agentic.errors import InvalidMessage, UndecodableMessage
from airflow_agentic.messaging.message import Message

SPECVERSION = "1.0"
CODEC_VERSION = 1

# CloudEvents allows only lower-case letters and digits in attribute names.
_WIRE_NAMES = {
    "correlation_id": "correlationid",
    "causation_id": "causationid",
    "reply_to": "replyto",
}
_FIELDS = {_WIRE_NAMES.get(name, name): name for name in Message.model_fields}


def to_event(message: Message) -> dict[str, Any]:
    """Return the message as a CloudEvents 1.0 JSON event (a plain dict)."""
    event: dict[str, Any] = {
        "specversion": SPECVERSION,
        "agenticcodec": CODEC_VERSION,
        "datacontenttype": "application/json",
    }
    for wire, field in _FIELDS.items():
        value = getattr(message, field)
        if value is not None or field == "data":
            event[wire] = value.isoformat() if field == "time" else value
    return event


def encode(message: Message) -> bytes:
    """Return the message as CloudEvents JSON in UTF-8."""
    return json.dumps(to_event(message), separators=(",", ":"), ensure_ascii=False).encode()


def from_event(event: Any) -> Message:
    """Read a CloudEvents 1.0 JSON event made by this version or an older one.

    Unknown attributes are left aside, as CloudEvents asks of readers.

    Raises:
        UndecodableMessage: Not an event, of a newer codec version, or with invalid attributes.
    """
    if not isinstance(event, dict) or event.get("specversion") != SPECVERSION:
        raise UndecodableMessage(f"not a CloudEvents {SPECVERSION} event")
    version = event.get("agenticcodec", CODEC_VERSION)
    if not isinstance(version, int) or version > CODEC_VERSION:
        raise UndecodableMessage(
            f"the message has codec version {version!r}; this version reads up to {CODEC_VERSION}. "
            "Upgrade airflow-provider-agentic here, then redrive the message."
        )
    if missing := [name for name in ("id", "source", "type") if name not in event]:
        raise UndecodableMessage(f"the event has no {' and no '.join(missing)}")
    try:
        return Message(**{field: event[wire] for wire, field in _FIELDS.items() if wire in event})
    except InvalidMessage as error:
        raise UndecodableMessage(str(error)) from error


def decode(envelope: bytes) -> Message:
    """Read what :func:`encode` wrote.

    Raises:
        UndecodableMessage: The bytes are not JSON, or :func:`from_event` refuses them.
    """
    try:
        event = json.loads(envelope)
    except (ValueError, RecursionError) as error:
        raise UndecodableMessage(f"the envelope is not JSON: {error}") from error
    return from_event(event)
