"""Message to bytes and back, with a version, so that an old reader refuses what it does not know.

Version 1 has direct messages; version 2 adds topics, groups, keys, priorities, expiry, traces and claim checks. A
message that uses none of these is written as version 1: old readers go on reading it while a fleet is upgraded.
"""

from __future__ import annotations

import re
from typing import Any

from pydantic_core import from_json, to_json

from airflow_agentic.errors import InvalidMessage, UndecodableMessage
from airflow_agentic.messaging.message import DEFAULT_PRIORITY, TRACEPARENT, Message

SPECVERSION = "1.0"
CODEC_VERSION = 2

# CloudEvents allows only lower-case letters and digits in attribute names.
_WIRE_NAMES = {
    "correlation_id": "correlationid",
    "causation_id": "causationid",
    "reply_to": "replyto",
    "ordering_key": "orderingkey",
    "expires_at": "expirytime",
    "run": "airflowrun",
    "data_ref": "dataref",
    "data_digest": "datasha256",
}
_FIELDS = {_WIRE_NAMES.get(name, name): name for name in Message.model_fields}
_SINCE_2 = {
    wire: name
    for wire, name in _FIELDS.items()
    if name
    in {
        "topic", "audience", "ordering_key", "priority", "expires_at", "run", "traceparent", "data_ref", "data_digest",
    }
}  # fmt: skip
_SINCE_1 = {wire: name for wire, name in _FIELDS.items() if wire not in _SINCE_2 and name != "data"}
_TRACEPARENT = re.compile(TRACEPARENT)
# What is not needed to handle the message makes no old reader refuse it.
_HINTS = frozenset({"airflowrun", "traceparent"})


def to_event(message: Message) -> dict[str, Any]:
    """Return the message as a CloudEvents 1.0 JSON event (a plain dict)."""
    values = message.__dict__
    event: dict[str, Any] = {
        "specversion": SPECVERSION,
        "agenticcodec": 1,
        "datacontenttype": "application/json",
    }
    for wire, field in _SINCE_1.items():
        if (value := values[field]) is not None:
            event[wire] = value
    event["time"] = event["time"].isoformat()
    if message.recipient is None:
        event["agenticcodec"] = CODEC_VERSION
    for wire, field in _SINCE_2.items():
        if (value := values[field]) is not None and not (field == "priority" and value == DEFAULT_PRIORITY):
            event[wire] = value.isoformat() if field == "expires_at" else value
            if wire not in _HINTS:
                event["agenticcodec"] = CODEC_VERSION
    if message.data_ref is None:
        event["data"] = values["data"]
    return event


def encode(message: Message) -> bytes:
    """Return the message as CloudEvents JSON in UTF-8."""
    return to_json(to_event(message))


def from_event(event: Any) -> Message:
    """Read a CloudEvents 1.0 JSON event made by this version or an older one.

    Unknown attributes are left aside, and those that are null, as CloudEvents asks of readers; so is a trace context
    that is none, as W3C asks.

    Raises:
        UndecodableMessage: Not an event, of a newer codec version, or with invalid attributes.
    """
    if not isinstance(event, dict) or event.get("specversion") != SPECVERSION:
        raise UndecodableMessage(f"not a CloudEvents {SPECVERSION} event")
    version = event.get("agenticcodec")
    version = CODEC_VERSION if version is None else version
    if not isinstance(version, int) or version > CODEC_VERSION:
        raise UndecodableMessage(
            f"the message has codec version {version!r}; this version reads up to {CODEC_VERSION}. "
            "Upgrade airflow-provider-agentic here, then redrive the message."
        )
    if missing := [name for name in ("id", "source", "type") if event.get(name) is None]:
        raise UndecodableMessage(f"the event has no {' and no '.join(missing)}")
    if event.get("data_base64") is not None:
        raise UndecodableMessage("the event carries bytes (data_base64); messages carry JSON, as data")
    values = {_FIELDS[wire]: value for wire, value in event.items() if value is not None and wire in _FIELDS}
    if "traceparent" in values and not _TRACEPARENT.fullmatch(str(values["traceparent"])):
        del values["traceparent"]
    try:
        return Message.trusted(values)
    except InvalidMessage as error:
        raise UndecodableMessage(str(error)) from error


def decode(envelope: bytes) -> Message:
    """Read what :func:`encode` wrote.

    Raises:
        UndecodableMessage: The bytes are not JSON, or :func:`from_event` refuses them.
    """
    try:
        event = from_json(envelope, allow_inf_nan=False)
    except ValueError as error:
        raise UndecodableMessage(f"the envelope is not JSON: {error}") from error
    return from_event(event)
