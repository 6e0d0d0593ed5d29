"""The immutable envelope of what one agent says to another.

Attributes follow CloudEvents 1.0 (https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md):
``source`` and ``id`` together are unique, and a second message with the same pair is a duplicate.
"""

from __future__ import annotations

import json
import os
import time as clock
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import from_json, to_json

from airflow_agentic.errors import ErrorReply, InvalidMessage
from airflow_agentic.messaging.topics import TOPIC_PATTERN
from airflow_agentic.security.canonical import first_non_json

MAILBOX_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,199}$"
Mailbox = Annotated[str, Field(pattern=MAILBOX_PATTERN)]
Topic = Annotated[str, Field(pattern=TOPIC_PATTERN, max_length=512)]
Audience = Annotated[str, Field(pattern=r"^(all|(role|tag):[A-Za-z0-9][A-Za-z0-9_.-]{0,199})$")]
# Holds the three longest ids that Airflow allows.
Run = Annotated[str, Field(min_length=1, max_length=800)]
# Holds the two longest ids that Airflow allows, and a colon.
Identifier = Annotated[str, Field(min_length=1, max_length=512)]


DEFAULT_PRIORITY = 4
TRACEPARENT = r"^[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$"
_FROM_JSON = {"json": True}
_STRICT = json.JSONEncoder(allow_nan=False, ensure_ascii=False)


def new_id() -> str:
    """Return a UUID of version 7 (RFC 9562): ids of one sender are in the order in which they were made."""
    milliseconds, rest = divmod(clock.time_ns(), 1_000_000)
    # Method 3 of section 6.2: below the millisecond, 12 bits go on with the time.
    head = f"{milliseconds << 16 | 0x7000 | (rest << 12) // 1_000_000:016x}"
    tail = f"{int.from_bytes(os.urandom(8)) & 0x3FFF_FFFF_FFFF_FFFF | 0x8000_0000_0000_0000:016x}"
    return f"{head[:8]}-{head[8:12]}-{head[12:]}-{tail[:4]}-{tail[4:]}"


class Kind(StrEnum):
    """What a message is for."""

    REQUEST = "request"
    RESPONSE = "response"
    NOTIFICATION = "notification"
    ERROR = "error"
    HEARTBEAT = "heartbeat"


class Message(BaseModel):
    """A message on its way from one agent to others. Immutable; its data is copied when it is made.

    It is for one mailbox (``recipient``), for whoever subscribed (``topic``) or for a group (``audience``). Only a
    heartbeat is for nobody: it is kept as the last sign of life of its source.

    Attributes:
        source: Who says it: an agent's name, or any URI-reference.
        recipient: Mailbox it is for: letters, digits and ``. _ : -``, at most 200.
        topic: What it is about, for subscribers: words of letters, digits, ``_`` and ``-``, with dots between them.
        audience: ``all``, ``role:NAME`` or ``tag:NAME``: all agents, or those with a role or tag.
        data: Any JSON value. A pydantic model is dumped to JSON.
        id: Unique within ``source``; set when the message is made (UUID version 7).
        type: What happened or is wanted, in reversed-domain form or as a plain word.
        kind: Request, response, notification (default), error or heartbeat.
        subject: What it is about, within the source.
        time: When it was made; must have a time zone, and is kept in UTC.
        correlation_id: Shared by all messages of one conversation or DAG run; defaults to ``id``.
        causation_id: ``id`` of the message that was being handled when this one was made.
        reply_to: Mailbox for an answer.
        ordering_key: Messages of one mailbox with the same key are handled in order, one at a time.
        priority: 0 to 9, as in JMS; higher ones are received first. Default 4.
        expires_at: When it is of no use any more, by the sender's clock; it then goes to the dead letters. The
            deadline of a request.
        run: The Airflow task that sent it: ``dag_id/run_id/task_id``, a mapped one with ``[index]``.
        traceparent: W3C trace context, as OpenTelemetry writes it.
        data_ref: Where the data is kept, if it is too large to travel (a claim check); ``data`` is then ``None``
            until the message is received.
        data_digest: SHA-256 of that data, in hexadecimal digits.

    Raises:
        InvalidMessage: A value breaks a rule above. All faults are named, with the way out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: Identifier
    recipient: Mailbox | None = None
    topic: Topic | None = None
    audience: Audience | None = None
    data: Any = None
    id: Identifier = Field(default_factory=new_id)
    type: Identifier = "agentic.message"
    kind: Kind = Kind.NOTIFICATION
    subject: Identifier | None = None
    time: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC))
    correlation_id: Identifier = ""
    causation_id: Identifier | None = None
    reply_to: Mailbox | None = None
    ordering_key: Identifier | None = None
    priority: int = Field(DEFAULT_PRIORITY, ge=0, le=9, strict=True)
    expires_at: AwareDatetime | None = None
    run: Run | None = None
    traceparent: str | None = Field(None, pattern=TRACEPARENT)
    data_ref: Annotated[str, Field(min_length=1, max_length=2_000)] | None = None
    data_digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None

    def __init__(self, **values: Any) -> None:
        if not values.get("correlation_id"):
            if "id" not in values:
                values["id"] = new_id()
            values["correlation_id"] = values["id"]
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise InvalidMessage(_explain(error)) from None

    @classmethod
    def trusted(cls, values: dict[str, Any]) -> Message:
        """Make a message of values that were JSON: they are checked, and the data is not copied again.

        Raises:
            InvalidMessage: A value breaks a rule.
        """
        message = cls.__new__(cls)
        if not values.get("correlation_id"):
            values["correlation_id"] = values.get("id")
        try:
            cls.__pydantic_validator__.validate_python(values, self_instance=message, context=_FROM_JSON)
        except ValidationError as error:
            raise InvalidMessage(_explain(error)) from None
        return message

    @property
    def address(self) -> str:
        """Whom it is for, for people: a mailbox, ``topic …`` or ``audience …``."""
        if self.topic is not None:
            return f"topic {self.topic}"
        return f"audience {self.audience}" if self.audience is not None else self.recipient or "nobody"

    def raise_for_error(self) -> Message:
        """Return the message, unless it is an error.

        Raises:
            ErrorReply: It says that a request failed.
        """
        if self.kind is not Kind.ERROR:
            return self
        said = self.data if isinstance(self.data, dict) else {}
        text = f"{self.source} answered with an error: {said.get('message', self.data)}"
        raise ErrorReply(text, category=str(said.get("category", "permanent")))

    @field_validator("time", "expires_at")
    @classmethod
    def _in_utc(cls, value: datetime | None) -> datetime | None:
        """Zones have offsets that RFC 3339, and so CloudEvents, cannot write."""
        if value is None or value.tzinfo is UTC:
            return value
        if not value.utcoffset():
            return value.replace(tzinfo=UTC)
        try:
            return value.astimezone(UTC)
        except OverflowError:
            raise ValueError("is too far from now") from None

    @field_validator("data", mode="before")
    @classmethod
    def _copy_as_json(cls, value: Any, info: ValidationInfo) -> Any:
        """Copy through JSON: what is sent is what arrives, whatever the caller does to its object later."""
        if info.context is _FROM_JSON:
            return value
        if value is None:
            return None
        plain = value.model_dump(mode="json") if isinstance(value, BaseModel) else value
        try:
            # Four times as fast as below. It knows more types than JSON has: their copies are not equal to them.
            copy = from_json(b"[%b]" % to_json(plain), allow_inf_nan=False)[0]
            if copy == plain:
                return copy
        except (TypeError, ValueError, RecursionError):
            pass  # What is wrong, if anything, is found below.
        try:
            text = _STRICT.encode(plain)
            # Through UTF-8 and inside of something, as it will travel: a Python string can hold half a character,
            # and what is read has a greatest depth.
            return from_json(f"[{text}]".encode())[0]
        except (TypeError, ValueError, RecursionError):
            raise ValueError(
                f"{first_non_json(plain, 'data')}; send a JSON value or a pydantic model"
            ) from None

    @model_validator(mode="after")
    def _has_one_address(self) -> Message:
        if self.recipient is not None and self.topic is None and self.audience is None:
            return self
        given = (self.recipient is not None) + (self.topic is not None) + (self.audience is not None)
        if given > 1:
            raise ValueError("recipient, topic and audience exclude each other: say one of them")
        if given == 0 and self.kind is not Kind.HEARTBEAT:
            raise ValueError("say whom it is for: recipient= (a mailbox), topic= or audience=")
        return self


def _explain(error: ValidationError) -> str:
    faults = []
    for fault in error.errors(include_url=False):
        where = ".".join(str(part) for part in fault["loc"]) or "message"
        text = fault["msg"].removeprefix("Value error, ")
        faults.append(f"{where}: {text}" if fault["loc"] and not text.startswith(where) else text)
    return "the message is not valid: " + "; ".join(faults)
