"""The JSON Schema of a project file, for editors: made of the models, loosened to what an overlay file may say."""

from __future__ import annotations

from typing import Any

from airflow_agentic.config.model import ProjectSection
from airflow_agentic.config.tree import DELETE

DIALECT = "https://json-schema.org/draft/2020-12/schema"
IDENTIFIER = "urn:airflow-provider-agentic:project"

_DELETION = {"const": DELETE, "description": "Forget what lower layers say here."}
_SCALAR = {"type": ["string", "number", "boolean", "null"]}
# What an editor shows stays beside the choices, so that it is shown whichever of them fits.
_FOR_PEOPLE = ("title", "description", "default", "examples")


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a project file.

    Nothing is required, and everything may be :data:`DELETE`: a file may be an overlay. What needs the whole project
    or users' code (references by name, agents' own configuration) is left to ``airflow agentic config validate``.
    """
    schema = ProjectSection.model_json_schema()
    # The model checks flags with a function, of which pydantic cannot tell.
    for name in (flags := schema["properties"]["flags"]["patternProperties"]):
        flags[name] = _SCALAR
    definitions = {name: _loosened(section) for name, section in schema.pop("$defs").items()}
    head = {"$schema": DIALECT, "$id": IDENTIFIER, "title": "Project file of airflow-provider-agentic"}
    extensions = {"^x-": {"description": "Read by nobody: a place for YAML anchors."}}
    return {
        **head,
        **_loosened(schema),
        "title": head["title"],
        "patternProperties": extensions,
        "$defs": definitions,
    }


def _loosened(schema: dict[str, Any]) -> dict[str, Any]:
    made = {key: value for key, value in schema.items() if key != "required"}
    for kind in ("properties", "patternProperties"):
        if kind in made:
            made[kind] = {name: _deletable(_loosened(child)) for name, child in made[kind].items()}
    if "patternProperties" in made:
        made["additionalProperties"] = False  # a name that does not fit the pattern is no name
    return made


def _deletable(schema: dict[str, Any]) -> dict[str, Any]:
    words = {key: schema[key] for key in _FOR_PEOPLE if key in schema}
    rule = {key: value for key, value in schema.items() if key not in words}
    choices = rule["anyOf"] if set(rule) == {"anyOf"} else [rule]
    return {**words, "anyOf": [*choices, _DELETION]}
