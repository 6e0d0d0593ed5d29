"""What an agent takes and gives: read from its type parameters, checked with pydantic."""

from __future__ import annotations

import json
from typing import Any, get_args, get_origin

from pydantic import TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from airflow_agentic.errors import InvalidResult, InvalidTask
from airflow_agentic.security.canonical import first_non_json


class Contract:
    """The input and output types of an agent.

    Args:
        agent: Name of the agent, for error texts.
        input_type: Any type pydantic can validate.
        output_type: The same.
    """

    def __init__(self, agent: str, input_type: Any, output_type: Any) -> None:
        self._agent = agent
        self._input: TypeAdapter[Any] = TypeAdapter(input_type)
        self._output: TypeAdapter[Any] = TypeAdapter(output_type)

    def task(self, raw: Any) -> Any:
        """Validate an input.

        Raises:
            InvalidTask: It does not fit; names each field and what is wrong with it.
        """
        try:
            return self._input.validate_python(raw)
        except ValidationError as error:
            heads = [fault["loc"][0] for fault in error.errors() if fault["loc"]]
            raise InvalidTask(
                f"{faults(error)} (the task does not fit the input model of agent {self._agent!r})",
                positions=[head for head in heads if isinstance(head, int)],
            ) from None

    def result(self, raw: Any) -> Any:
        """Validate an output and make sure that it can be JSON.

        Raises:
            InvalidResult: It does not fit, or is not JSON.
        """
        try:
            return self._output.validate_python(raw)
        except ValidationError as error:
            raise InvalidResult(
                f"agent {self._agent!r} returned a {type(raw).__name__} that does not fit its output model: "
                f"{faults(error)}"
            ) from None

    def to_json(self, result: Any) -> Any:
        """Return a validated output as plain JSON values.

        Raises:
            InvalidResult: A part of it cannot be JSON.
        """
        plain: Any = None
        try:
            plain = self._output.dump_python(result, mode="json")
            # pydantic lets through what Python has and JSON has not: NaN, half a surrogate pair.
            json.dumps(plain, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError, RecursionError) as error:
            what = first_non_json(plain, "result") if plain is not None else error
            raise InvalidResult(
                f"agent {self._agent!r} returned something that is not JSON: {what}. "
                "Return JSON values or a pydantic model."
            ) from None
        return plain

    def input_schema(self) -> dict[str, Any]:
        """JSON Schema of the input; empty if the type has none."""
        return _schema(self._input, "validation")

    def output_schema(self) -> dict[str, Any]:
        """JSON Schema of the output; empty if the type has none."""
        return _schema(self._output, "serialization")


def faults(error: ValidationError, *, limit: int = 5) -> str:
    """Return the faults of a validation as one line: ``field: message; …``.

    The values themselves are left out: they may be secret. (What a validator of the agent's own says is kept.)
    """
    found = error.errors(include_url=False, include_input=False)
    texts = [f"{'.'.join(map(str, fault['loc'])) or 'value'}: {fault_text(fault)}" for fault in found[:limit]]
    if len(found) > limit:
        texts.append(f"and {len(found) - limit} more")
    return "; ".join(texts)


def fault_text(fault: ErrorDetails) -> str:
    """Return what is wrong, without the value."""
    if fault["type"] == "union_tag_invalid":  # pydantic's own text quotes the value
        context = fault["ctx"]
        return f"the tag {context['discriminator']} is none of {context['expected_tags']}"
    return fault["msg"].removeprefix("Value error, ")  # pydantic puts it before what a validator says


def type_parameters(cls: type, base: type) -> tuple[Any, Any]:
    """Return what the two type parameters of ``base`` are bound to in ``cls``; ``Any`` where they are not."""
    for ancestor in cls.__mro__:
        for generic in getattr(ancestor, "__orig_bases__", ()):
            origin = get_origin(generic)
            if isinstance(origin, type) and issubclass(origin, base):
                arguments = get_args(generic)
                if len(arguments) == 2 and not any(_is_type_variable(a) for a in arguments):
                    return arguments[0], arguments[1]
    return Any, Any


def _is_type_variable(argument: Any) -> bool:
    return type(argument).__name__ == "TypeVar"


def _schema(adapter: TypeAdapter[Any], mode: Any) -> dict[str, Any]:
    try:
        return adapter.json_schema(mode=mode)
    except Exception:  # noqa: BLE001  # a type without a schema is no fault of the agent
        return {}
