"""The rules of each kind of message, and how requests are answered."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from airflow_agentic.errors import AgenticError, Category, InvalidMessage
from airflow_agentic.messaging.message import Kind, Message

_DEEPEST_CAUSE = 20
_A_CENTURY = timedelta(days=36_525)


class Cause(BaseModel):
    """One error of a chain.

    Attributes:
        type: Name of the error's class.
        message: What it said.
    """

    model_config = ConfigDict(extra="allow")

    type: str
    message: str


class ErrorData(BaseModel):
    """What an error message carries.

    Attributes:
        category: Why: a value of :class:`airflow_agentic.errors.Category`.
        type: Name of the error's class.
        message: What it said.
        causes: What led to it, nearest first.
    """

    model_config = ConfigDict(extra="allow")

    category: str
    message: str
    type: str = "Error"
    causes: tuple[Cause, ...] = ()


def error_data(error: BaseException, discreet: Callable[[str], str] = str) -> dict[str, Any]:
    """Return what an error message says of an error: its category, itself, and the chain of its causes.

    Args:
        error: What happened.
        discreet: Takes secrets out of a text.
    """
    causes: list[Cause] = []
    above, at = {id(error)}, _led_by(error)
    while at is not None and id(at) not in above and len(causes) < _DEEPEST_CAUSE:
        above.add(id(at))
        causes.append(Cause(type=type(at).__name__, message=discreet(str(at))))
        at = _led_by(at)
    said = ErrorData(
        category=category_of(error),
        type=type(error).__name__,
        message=discreet(str(error)),
        causes=tuple(causes),
    )
    return said.model_dump(mode="json")


def category_of(error: BaseException) -> str:
    """Return the category of an error of ours; any other is transient."""
    return Category(error.category).value if isinstance(error, AgenticError) else Category.TRANSIENT.value


def answer(request: Message, source: str, data: Any, **values: Any) -> Message:
    """Make the response to a request. It is of no use after the request's deadline."""
    return _reply(request, source, Kind.RESPONSE, data, values)


def refusal(
    request: Message, source: str, error: BaseException, discreet: Callable[[str], str] = str, **values: Any
) -> Message:
    """Make the error that answers a request."""
    return _reply(request, source, Kind.ERROR, error_data(error, discreet), values)


def checked(message: Message, deadline: timedelta) -> Message:
    """Hold a message that is to be sent against the rules of its kind.

    Args:
        message: Which.
        deadline: Of a request that has none.

    Returns:
        The message; a request has a deadline.

    Raises:
        InvalidMessage: It breaks a rule.
    """
    if message.kind is Kind.REQUEST:
        if message.reply_to is None:
            raise InvalidMessage(
                "a request needs reply_to=, the mailbox for its answer; bus.request(…) sets it, and waits"
            )
        if message.expires_at is None:
            return message.model_copy(update={"expires_at": datetime.now(UTC) + deadline})
    elif message.kind is Kind.RESPONSE and message.causation_id is None:
        raise InvalidMessage("a response needs causation_id=, the id of the request that it answers")
    elif message.kind is Kind.ERROR:
        try:
            ErrorData.model_validate(message.data)
        except ValidationError as error:
            keys = ", ".join(".".join(map(str, fault["loc"])) for fault in error.errors()) or "it"
            raise InvalidMessage(
                f"the data of an error must be {{category, message, type, causes}}: {keys} does not fit. "
                "airflow_agentic.messaging.kinds.error_data(exception) makes it."
            ) from None
    elif message.kind is Kind.HEARTBEAT and (message.recipient or message.topic or message.audience):
        raise InvalidMessage(
            "a heartbeat is for nobody: it is kept as the last sign of life of its source. Leave recipient, topic "
            "and audience out; who wants to know of a missed one subscribes to agentic.heartbeat.missed."
        )
    return message


def time_to_live(message: Message) -> timedelta | None:
    """Return how long a message is of use from now on; by one clock, the sender's, so that no other one matters.

    No longer than a century, which a store can add to its own time.
    """
    return None if message.expires_at is None else min(message.expires_at - datetime.now(UTC), _A_CENTURY)


def _led_by(error: BaseException) -> BaseException | None:
    """Return what led to an error; what ``raise … from None`` hides stays hidden."""
    return error.__cause__ if error.__suppress_context__ else error.__context__


def _reply(request: Message, source: str, kind: Kind, data: Any, values: dict[str, Any]) -> Message:
    if request.reply_to is None:
        raise InvalidMessage(f"message {request.id} has no reply_to: nobody waits for an answer")
    return Message(
        source=source,
        recipient=request.reply_to,
        kind=kind,
        data=data,
        correlation_id=request.correlation_id,
        causation_id=request.id,
        expires_at=request.expires_at,
        traceparent=request.traceparent,
        **values,
    )
