"""What every section of a project file is: frozen, strict, and plain values that cannot be changed."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, NoReturn, TypeVar, Union, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

T = TypeVar("T")

NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,199}$"
"""Names of agents, policies and so on: no spaces, so that they can be typed, and no quotes, so that nobody must."""


class FrozenDict(dict[str, T]):
    """A dict that cannot be changed; ``copy()`` and ``dict()`` give one that can."""

    def _refuse(self, *_: Any, **__: Any) -> NoReturn:
        raise TypeError("a project is frozen: change its files, or load it again with overrides")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (dict(self),)


def frozen(value: Any) -> Any:
    """Return plain values that cannot be changed: maps as :class:`FrozenDict`, lists as tuples."""
    if isinstance(value, Mapping):
        return FrozenDict({key: frozen(item) for key, item in value.items()})
    return tuple(map(frozen, value)) if isinstance(value, list | tuple) else value


def _scalar(value: object) -> object:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise ValueError("must be a text, a number, true or false")


Name = Annotated[str, Field(pattern=NAME)]
Names = Annotated[Mapping[Name, T], AfterValidator(FrozenDict)]
Values = Annotated[Mapping[str, Any], AfterValidator(frozen)]
Scalar = Annotated[Any, BeforeValidator(_scalar)]


class Section(BaseModel):
    """A map of a project file, or settings in code: unknown keys are refused, and nothing can be changed."""

    # Built when first used: most processes that import operators validate nothing (promise P13).
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, defer_build=True)

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_truth_as_number(cls, value: Any, info: ValidationInfo) -> Any:
        """To pydantic ``true`` is the number 1; in a project file it is a mistake."""
        if isinstance(value, bool) and _is_number(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("must be a number")
        return value


def _is_number(annotation: Any) -> bool:
    """Whether a field is a number, or may be one: ``int``, ``Annotated[float, …] | None``."""
    return annotation in (int, float) or (
        get_origin(annotation) in (Annotated, Union, UnionType) and any(map(_is_number, get_args(annotation)))
    )
