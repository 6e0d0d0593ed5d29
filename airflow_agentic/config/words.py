"""What pydantic finds wrong, in words for people who write YAML. Light: agents need it, and not the models of a project."""

from __future__ import annotations

import re

from pydantic_core import ErrorDetails

# pydantic's words, in those of a person who writes YAML.
WORDS = {
    "string_type": "must be a text",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "tuple_type": "must be a list",
    "mapping_type": "must be a map",
    "dict_type": "must be a map",
    "model_type": "must be a map",
    "model_attributes_type": "must be a map",
    "string_too_short": "must not be empty",
    "finite_number": "must be a finite number",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}


def words(detail: ErrorDetails) -> str:
    """Return what pydantic found wrong, in words for a person who writes YAML; without the value."""
    if detail["type"] in _BOUNDS:
        bound, said = _BOUNDS[detail["type"]]
        return f"must be {said} {detail['ctx'][bound]:g}"
    return WORDS.get(detail["type"]) or re.sub(
        "^Input should ", "must ", detail["msg"].removeprefix("Value error, ")
    )
