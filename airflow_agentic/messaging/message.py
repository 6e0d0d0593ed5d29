"""The immutable envelope of what one agent says to another.

Attributes follow CloudEvents 1.0 (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md):
``source`` and ``id`` together are unique, and a second message with the same pair is a duplicate.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator
from uuid6 import uuid7

from airflow_agentic.errors import InvalidMessage
from airflow_agentic.messaging.jsonpath import first_non_json

MAILBOX_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,199}$"
Mailbox = Annotated[str, Field(pattern=MAILBOX_PATTERN)]
# Holds the two longest ids that Airflow allows, and a colon.
Identifier = Annotated[str, Field(min_length=1, max_length=512)]


class Kind(StrEnum):
    """What a message is for."""

    REQUEST = "request"
    RESPONSE = "response"
    NOTIFICATION = "notification"
    ERROR = "error"
    HEARTBEAT = "heartbeat"


class Message(BaseModel):
    """A message on its way from one agent to another. Immutable; its data is copied when it is made.

    Attributes:
        source: Who says it: an agent's name, or any URI-reference.
        recipient: Mailbox it is for: letters, digits and ``. _ : -``, at most 200.
        data: Any JSON value. A pydantic model is dumped to JSON.
        id: Unique within ``source``; set when the message is made (UUID version 7).
        type: What happened or is wanted, in reversed-domain form or as a plain word.
        kind: Request, response, notification (default), error or heartbeat.
        subject: What it is about, within the source.
        time: When it was made; must have a time zone, and is kept in UTC.
        correlation_id: Shared by all messages of one conversation or DAG run; defaults to ``id``.
        causation_id: ``id`` of the message that was being handled when this one was made.
        reply_to: Mailbox for an answer.

    Raises:
        InvalidMessage: A value breaks a rule above. All faults are named, with the way out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Identifier
    recipient: Mailbox
    data: Any = None
    id: Identifier = Field(default_factory=lambda: str(uuid7()))
    type: Identifier = "agentic.message"
    kind: Kind = Kind.NOTIFICATION
    subject: Identifier | None = None
    time: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    correlation_id: Identifier = ""
    causation_id: Identifier | None = None
    reply_to: Mailbox | None = None

    def __init__(self, **values: Any) -> None:
        if not values.get("correlation_id"):
            values.setdefault("id", str(uuid7()))
            values["correlation_id"] = values["id"]
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InvalidMessage(_explain(error)) from None

    @field_validator("time")
    @classmethod
    def _in_utc(cls, value: datetime) -> datetime:
        """Zones have offsets that RFC 3339, and so CloudEvents, cannot write."""
        try:
            return value.astimezone(UTC)
        except OverflowError:
            raise ValueError("is too far from now") from None

    @field_validator("data", mode="before")
    @classmethod
    def _copy_as_json(cls, value: Any) -> Any:
        """Copy through JSON: what is sent is what arrives, whatever the caller does to its object later."""
        plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        try:
            text = json.dumps(plain, allow_nan=False, ensure_ascii=False)
            # Through UTF-8, as it will travel: a Python string can hold half a character.
            return json.loads(text.encode())
        except (TypeError, ValueError, RecursionError):
            raise ValueError(
                f"{first_non_json(plain, 'data')}; send a JSON value or a pydantic model"
            ) from None


def _explain(error: ValidationError) -> str:
    faults = []
    for fault in error.errors(include_url=False):
        where = ".".join(str(part) for part in fault["loc"]) or "message"
        text = fault["msg"].removeprefix("Value error, ")
        faults.append(f"{where}: {text}" if not text.startswith(where) else text)
    return "the message is not valid: " + "; ".join(faults)
