"""The configuration of an agent: values that somebody wrote, held against the model that the agent declares."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    ValidationError,
)
from pydantic.config import ExtraValues
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from airflow_agentic.agents.contracts import faults
from airflow_agentic.config.names import did_you_mean
from airflow_agentic.config.references import has_reference
from airflow_agentic.config.tree import Origin, Path, planted
from airflow_agentic.config.words import words
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
        allowed = ", ".join(keys(model)) or "none"
        raise ConfigurationError(
            f"configuration of agent {agent!r}: {faults(error)}. Known keys: {allowed}."
        ) from None


def declared_faults(
    model: type[BaseModel], config: Mapping[str, Any], *, complete: bool = True
) -> Iterator[tuple[Path, str, str | None]]:
    """Hold values that are not resolved yet against a model; what depends on a reference is not judged.

    Args:
        model: The model.
        config: The values.
        complete: Whether a missing key is a fault; it is none while an operator can still give it.

    Yields:
        Path within the values, what is wrong, and a suggestion.
    """
    try:
        model.model_validate(dict(config), extra=_extra(model))
    except ValidationError as error:
        unsettled = has_reference(config)
        for detail in error.errors(include_url=False):
            path, value = _place(config, detail["loc"])
            # That a key is there or not, no reference changes; which member of a union is meant, it may.
            if detail["type"] == "missing" and not complete:
                continue
            missing = detail["type"] == "missing" and path == detail["loc"][:-1]
            certain = missing or (detail["type"] == "extra_forbidden" and path == detail["loc"])
            if not certain and (has_reference(value) or (unsettled and not path)):
                continue
            if detail["type"] == "extra_forbidden":
                known = keys(model) if len(path) == 1 else []
                hint = did_you_mean(str(path[-1]), known) or f"known here: {', '.join(known) or 'none'}"
                yield path, f"unknown key {str(path[-1])!r}", hint if known or len(path) == 1 else None
            elif detail["type"] == "missing":
                name = detail["loc"][-1]
                yield path, f"the key {name!r} is missing, and has no default", f"add {name}: …"
            else:
                yield path, words(detail), None


def keys(model: type[BaseModel]) -> list[str]:
    """Return the keys that a model knows, as they are written: where a field has an alias, that."""
    return [_keys(name, field)[0] for name, field in model.model_fields.items()]


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
        parts, members = list(_parts(field.annotation)), list(_members(field.annotation))
        paths: list[Path] = [()] if any(map(_is_secret, parts)) else []
        for part in filter(_is_model, parts):
            if part in members and part not in (*above, model) and not issubclass(part, RootModel):
                paths += _secrets(part, (*above, model))
            elif _holds_secret(part, ()):
                paths.append(())  # in a list or a map, or over and over: no path leads to all of them
        yield from ((key, *path) for key in _keys(name, field) for path in dict.fromkeys(paths))


def _holds_secret(model: type[BaseModel], above: tuple[type[BaseModel], ...]) -> bool:
    parts = [part for field in model.model_fields.values() for part in _parts(field.annotation)]
    inner = [part for part in parts if _is_model(part) and part not in (*above, model)]
    return any(map(_is_secret, parts)) or any(_holds_secret(part, (*above, model)) for part in inner)


def _is_secret(part: Any) -> bool:
    return isinstance(part, type) and issubclass(part, SecretStr | SecretBytes | Secret)


def _members(annotation: Any) -> Iterator[Any]:
    """Yield what a value of an annotation may be itself: of ``list[A] | B | None`` the list, B and None."""
    if get_origin(annotation) in (Union, UnionType, Annotated):
        for argument in get_args(annotation):
            yield from _members(argument)
    else:
        yield annotation


def _parts(annotation: Any) -> Iterator[Any]:
    """Yield the classes that an annotation is made of: of ``list[SecretStr] | None`` also SecretStr."""
    origin = get_origin(annotation) or annotation
    yield from [origin] if isinstance(origin, type) else []
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
