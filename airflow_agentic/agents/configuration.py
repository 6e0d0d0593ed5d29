"""The configuration of an agent: values that somebody wrote, held against the model that the agent declares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_args, get_origin

from pydantic import AliasChoices, BaseModel, ConfigDict, SecretBytes, SecretStr, ValidationError
from pydantic.config import ExtraValues
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from airflow_agentic.agents.contracts import faults
from airflow_agentic.config.names import did_you_mean
from airflow_agentic.config.references import has_reference
from airflow_agentic.config.tree import Origin, Path, planted
from airflow_agentic.config.validation import words
from airflow_agentic.errors import ConfigurationError


class NoConfiguration(BaseModel):
    """Configuration of an agent that has none; refuses every key."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def validate(agent: str, model: type[BaseModel], config: Mapping[str, Any] | BaseModel) -> BaseModel:
    """Return values as the model of an agent's configuration.

    Raises:
        ConfigurationError: They do not fit.
    """
    values: Any = config
    if not isinstance(config, model):
        values = config.model_dump() if isinstance(config, BaseModel) else dict(config)
    try:
        return model.model_validate(values, extra=_extra(model)).model_copy(deep=True)
    except ValidationError as error:
        allowed = ", ".join(model.model_fields) or "none"
        raise ConfigurationError(
            f"configuration of agent {agent!r}: {faults(error)}. Known keys: {allowed}."
        ) from None


def declared_faults(
    model: type[BaseModel], config: Mapping[str, Any]
) -> Iterator[tuple[Path, str, str | None]]:
    """Hold values that are not resolved yet against a model; what depends on a reference is not judged.

    Yields:
        Path within the values, what is wrong, and a suggestion.
    """
    try:
        model.model_validate(dict(config), extra=_extra(model))
    except ValidationError as error:
        unsettled = has_reference(config)
        for detail in error.errors(include_url=False):
            path, value = _place(config, detail["loc"])
            if has_reference(value) or (unsettled and not path):
                continue
            if detail["type"] == "extra_forbidden":
                known = list(model.model_fields) if len(path) == 1 else []
                hint = did_you_mean(str(path[-1]), known) or f"known here: {', '.join(known) or 'none'}"
                yield path, f"unknown key {str(path[-1])!r}", hint if known or len(path) == 1 else None
            elif detail["type"] == "missing":
                name = detail["loc"][-1]
                yield path, f"the key {name!r} is missing, and has no default", f"add {name}: …"
            else:
                yield path, words(detail), None


def secret_fields(model: type[BaseModel]) -> list[Path]:
    """Return the keys whose type says that they are secret, by each name that they can be given."""
    return list(_secrets(model, ()))


def defaults(model: type[BaseModel], declared: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values that hold where nothing is declared, as plain JSON.

    A map that is declared takes the place of a default map whole, and of a nested model only where it says something.
    """
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        key = _keys(name, field)[0]
        said = next((declared[one] for one in _keys(name, field) if one in declared), None)
        inner = [part for part in _parts(field.annotation) if _is_model(part)]
        if isinstance(said, Mapping):
            if len(inner) == 1:
                found[key] = defaults(inner[0], said)
        elif not field.is_required() and not field.default_factory_takes_validated_data:
            found[key] = to_jsonable_python(field.get_default(call_default_factory=True), fallback=str)
    return found


def _secrets(model: type[BaseModel], above: tuple[type[BaseModel], ...]) -> Iterator[Path]:
    for name, field in model.model_fields.items():
        parts = list(_parts(field.annotation))
        paths: list[Path] = [()] if {SecretStr, SecretBytes} & set(parts) else []
        for part in parts:
            if _is_model(part) and part not in (*above, model):
                paths += _secrets(part, (*above, model))
        yield from ((key, *path) for key in _keys(name, field) for path in paths)


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield the classes that an annotation is made of: of ``list[SecretStr] | None`` also SecretStr."""
    yield from [annotation] if isinstance(annotation, type) and get_origin(annotation) is None else []
    for argument in get_args(annotation):
        yield from _parts(argument)


def _is_model(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, BaseModel)


def _keys(name: str, field: FieldInfo) -> list[str]:
    """Return the names that a field can be given by, the first of them the usual one."""
    aliases = field.validation_alias.choices if isinstance(field.validation_alias, AliasChoices) else []
    named = [field.validation_alias, field.alias, *aliases]
    return [*dict.fromkeys(alias for alias in named if isinstance(alias, str)), name]


def _extra(model: type[BaseModel]) -> ExtraValues | None:
    # A mistyped key must not pass in silence, unless the model says that it takes any.
    return None if "extra" in model.model_config else "forbid"


def _place(config: Mapping[str, Any], location: Path) -> tuple[Path, Any]:
    """Return the part of a location that is there, and what is there: pydantic adds names of union members."""
    node, rest = planted(config, Origin("")).nearest(location)
    return location[: len(location) - len(rest)], node.plain()
