"""Answers of people as Airflow asks for them: a JSON Schema becomes fields, and what is in the fields a value."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_SCALARS = frozenset({"string", "integer", "number", "boolean"})
_FIELD = "answer"


class Fields:
    """The fields of a question.

    A schema of a flat object has one for each property, one of a single value has one; anything else is written as JSON into
    a field of text.

    Args:
        schema: JSON Schema of the answer; ``None`` for any text.
    """

    def __init__(self, schema: Mapping[str, Any] | None) -> None:
        self._schema = schema

    def form(self) -> dict[str, Any]:
        """Return the fields as Airflow takes them."""
        from airflow.sdk import Param

        return {name: Param(default, **said).serialize() for name, (default, said) in self._all().items()}

    def answer(self, given: Mapping[str, Any]) -> Any:
        """Return the answer that is in the fields; whether it fits is found out when it is recorded."""
        schema = self._schema or {"type": "string"}
        if _is_flat(schema):
            # What was left empty and may be, was not given.
            required = schema.get("required", ())
            return {
                name: value for name, value in given.items() if name in required or value not in (None, "")
            }
        value = given.get(_FIELD)
        if schema.get("type") in _SCALARS or "enum" in schema or not isinstance(value, str):
            return value
        try:
            return json.loads(value)
        except ValueError:
            return value

    def _all(self) -> dict[str, tuple[Any, dict[str, Any]]]:
        schema = dict(self._schema or {"type": "string"})
        if _is_flat(schema):
            required = schema.get("required", ())
            return {
                name: _field(said, needed=name in required) for name, said in schema["properties"].items()
            }
        if schema.get("type") in _SCALARS or "enum" in schema:
            return {_FIELD: _field({"title": "The answer", **schema}, needed=True)}
        return {_FIELD: ("", {"type": "string", "title": "The answer", "description": "As JSON."})}


def _is_flat(schema: Mapping[str, Any]) -> bool:
    properties = schema.get("properties")
    return (
        schema.get("type") == "object"
        and bool(properties)
        and all(each.get("type") in _SCALARS or "enum" in each for each in (properties or {}).values())
    )


def _field(said: Mapping[str, Any], *, needed: bool) -> tuple[Any, dict[str, Any]]:
    rest = {key: value for key, value in said.items() if key != "default"}
    kind = rest.get("type", "string")
    if not needed and isinstance(kind, str):
        rest["type"] = [kind, "null"]
        if "enum" in rest:
            rest["enum"] = [*rest["enum"], None]
    return said.get("default"), rest
