"""Conditions on the content of a message, in CEL (https://github.com/google/cel-spec)."""

from __future__ import annotations

import functools
import re
from typing import Any

from airflow_agentic.errors import InvalidFilter
from airflow_agentic.messaging.message import Message

_CODES = re.compile(r"^([A-Z_]+: )*(<input>:)?")
_CODE_AT_END = re.compile(r" \[[A-Z_]+\]$")
_LONGEST_REASON = 300
_TOO_LARGE = " out of range for "
_LEAST, _MOST, _LARGEST_FLOAT = -(2**63), 2**63 - 1, 10**308
_HINTS = {
    "msg": "Write a CEL condition on msg, as in msg.data.total > 100 && msg.type == 'order.created'",
    "output": "Write a CEL condition on output, as in output.total > 100 && output.kind == 'refund'",
}


class Filter:
    """A compiled condition. Everything about a message stands under ``msg``: its attributes and ``msg.data``.

    Args:
        text: The condition.
        root: What it is about: ``msg``, or the ``output`` of a task.

    Raises:
        InvalidFilter: It does not compile, or its type can never be a truth value.
    """

    def __init__(self, text: str, root: str = "msg") -> None:
        from cel_expr_python import cel

        self.text = text
        self._root = root
        self._error = cel.Type.ERROR
        try:
            self._expression = _environment(root).compile(text)
        except (RuntimeError, TypeError) as error:  # TypeError: no text, or half a surrogate pair in it
            raise InvalidFilter(
                f"the filter {text!r:.300} does not compile: {_first_line(error)}. {_HINTS[root]}"
            ) from None
        if self._expression.return_type() not in (cel.Type.BOOL, cel.Type.DYN):
            raise InvalidFilter(
                f"the filter {text!r:.300} is no condition: it is never true or false. {_HINTS[root]}"
            )

    def matches(self, values: Any) -> tuple[bool, str | None]:
        """Say whether it holds.

        Args:
            values: The message, as :func:`attributes` gives it; or the output.

        Returns:
            Whether it holds; and, where it cannot be said, why. A condition that fails or gives no truth value does
            not hold, and neither does one that takes more than the engine's budget of steps.
        """
        try:
            value = self._expression.eval(data={self._root: values})
            if value.type() == self._error and _TOO_LARGE in str(value.value()):
                # One number of JSON that is none of CEL's, anywhere in the data, and nothing can be asked of it.
                value = self._expression.eval(data={self._root: _with_floats(values)})
            found = value.value()
        except RuntimeError as error:
            return False, _first_line(error)
        if value.type() == self._error:
            return False, _first_line(found)
        if isinstance(found, bool):
            return found, None
        return False, f"it gave {value.type().name()}, which is neither true nor false"


def attributes(message: Message) -> dict[str, Any]:
    """Return what a filter may ask of a message. What is not set is ``null``; times are texts in UTC."""
    return {
        "source": message.source,
        "id": message.id,
        "recipient": message.recipient,
        "topic": message.topic,
        "audience": message.audience,
        "type": message.type,
        "kind": message.kind.value,
        "subject": message.subject,
        "time": message.time.isoformat(),
        "correlation_id": message.correlation_id,
        "causation_id": message.causation_id,
        "ordering_key": message.ordering_key,
        "priority": message.priority,
        "data": message.data,
    }


@functools.lru_cache(maxsize=1024)
def compiled(text: str, root: str = "msg") -> Filter:
    """Return a filter, compiled once a process.

    Raises:
        InvalidFilter: See :class:`Filter`.
    """
    return Filter(text, root)


def _with_floats(value: Any) -> Any:
    """Return JSON with the nearest float where an integer has more than 64 bits."""
    if isinstance(value, dict):
        return {key: _with_floats(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_with_floats(each) for each in value]
    if isinstance(value, int) and not _LEAST <= value <= _MOST:
        return float(max(-_LARGEST_FLOAT, min(value, _LARGEST_FLOAT)))
    return value


@functools.cache
def _environment(root: str) -> Any:
    from cel_expr_python import cel

    return cel.NewEnv(variables={root: cel.Type.DYN})


def _first_line(said: Any) -> str:
    """Return what the engine says, without its codes: ``INVALID_ARGUMENT: ERROR: <input>:1:5: … [INVALID_ARGUMENT]``."""
    text = _CODE_AT_END.sub("", str(said).partition("\n")[0])
    return _CODES.sub("", text).strip()[:_LONGEST_REASON]
