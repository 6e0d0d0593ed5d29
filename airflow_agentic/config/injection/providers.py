"""How things are made, which of them meets a need, and what is wrong with that. Builds nothing."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from airflow_agentic.config.injection.signatures import Need, needs_of, returned_type, type_name
from airflow_agentic.config.names import did_you_mean, normalised
from airflow_agentic.errors import ConfigurationError

_T = TypeVar("_T")
_LABELLED = re.compile(r"'([^']+)'")
_WORD_START = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True)
class Provider:
    """How one thing is made.

    Attributes:
        name: The name of a service or an agent in the project file, or of an entry point.
        factory: A class, a function, a generator function (it yields once, and cleans up after it), or one that
            returns a context manager.
        provides: The type; default: the class itself, or what the function's return annotation says.
        scope: Whether one is made for the process, or one for each run.
        uses: Names of other providers by parameter; they beat the parameter's type.
        arguments: Makes the keyword arguments from the configuration, when it is built.
        argument_names: Their names.
        origin: Where it is declared, for people: ``agentic.yaml:12``.
        kind: What it is, for people: an agent can be needed as well.
    """

    name: str
    factory: Callable[..., Any]
    provides: Any = None
    scope: Literal["process", "run"] = "run"
    uses: Mapping[str, str] = field(default_factory=dict, hash=False)
    arguments: Callable[[], Mapping[str, Any]] = dict
    argument_names: frozenset[str] = frozenset()
    origin: str = ""
    kind: str = "service"

    @functools.cached_property
    def type(self) -> Any:
        """The type of what is made; ``Any`` if nothing says it, or its name cannot be found."""
        if self.provides is not None:
            return self.provides
        try:
            return returned_type(self.factory)
        except (
            ConfigurationError
        ):  # a fault of the provider, told with its needs: they are in the same signature
            return Any

    @functools.cached_property
    def needs(self) -> tuple[Need, ...]:
        """What the factory needs besides what the configuration gives it.

        Raises:
            ConfigurationError: A type in the factory's signature cannot be found, or the factory is async.
        """
        if inspect.iscoroutinefunction(self.factory) or inspect.isasyncgenfunction(self.factory):
            raise ConfigurationError("its factory is async, and services are built without an event loop")
        if self.provides is None:
            returned_type(self.factory)
        return needs_of(self.factory, self.argument_names)

    def __str__(self) -> str:
        return f"{self.kind} {self.name!r}" + (f" ({self.origin})" if self.origin else "")


@dataclass(frozen=True)
class Value:
    """Something that need not be built.

    Attributes:
        key: The type or the name that it was given as.
        lives: How long; an override as long as anything.
        instance: The thing itself, if it is an override; the others are the scope's.
    """

    key: Any
    lives: Literal["process", "run", "override"]
    instance: Any = None

    def __str__(self) -> str:
        return f"the given {type_name(self.key)}"


class Unresolved(Exception):
    """A need cannot be met.

    Attributes:
        reason: Why.
        advice: What to do about it.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.advice = advice


class Catalogue:
    """All that can be provided in a project.

    Args:
        providers: How things are made.
        given: Types of the values of a run.
        process_given: Types of the values of a process.
        overrides: Instances by type or by the name of a provider; they win over everything.
        more: Finds further providers, asked once, when a need cannot be met without; those above beat them.

    Raises:
        ConfigurationError: Two providers have one name.
    """

    def __init__(
        self,
        providers: Iterable[Provider],
        given: Iterable[Any],
        process_given: Iterable[Any],
        overrides: Mapping[Any, Any],
        more: Callable[[], Iterable[Provider]] = tuple,
    ) -> None:
        self.more: Callable[[], Iterable[Provider]] | None = more
        self.providers: dict[str, Provider] = {}
        for provider in providers:
            if (other := self.providers.setdefault(provider.name, provider)) is not provider:
                raise ConfigurationError(f"two services have one name: {other} and {provider}")
        self.given, self.process_given = tuple(given), tuple(process_given)
        self.overrides = dict(overrides)

    def find(self, need: Need, uses: Mapping[str, str]) -> Provider | Value | None:
        """Return what meets a need; ``None`` if it can be left out.

        Args:
            need: What is needed.
            uses: Names of providers by parameter.

        Raises:
            Unresolved: Nothing, several or the wrong thing would be provided.
        """
        try:
            found = self._find(need, uses)
        except Unresolved:
            if not self._extended():
                raise
            return self._find(need, uses)
        if found is None and _is_found_by_type(need.type) and self._extended():
            return self._find(need, uses)
        return found

    def _find(self, need: Need, uses: Mapping[str, str]) -> Provider | Value | None:
        name, by_type = uses.get(need.parameter, need.name), _is_found_by_type(need.type)
        if (override := self._override(name, need.type if by_type else None)) is not None:
            return override
        if name in self.providers or need.parameter in uses or (name is not None and not need.optional):
            return self._named(need, str(name))
        if by_type and (value := _only(need, self._values())):
            return value
        if by_type and (provider := _only(need, ((p.type, p) for p in self.providers.values()))):
            return self.override_of(provider) or provider
        if need.optional:
            return None
        raise _missing(need, by_type=by_type)

    def _extended(self) -> bool:
        """Whether there are further providers now that were not asked before."""
        more, self.more = self.more, None
        known = len(self.providers)
        for provider in more() if more else ():
            self.providers.setdefault(provider.name, provider)
        return len(self.providers) > known

    def override_of(self, provider: Provider) -> Value | None:
        """Return what stands in for a provider, if something does."""
        return self._override(provider.name, provider.type)

    def _override(self, *keys: Any) -> Value | None:
        for wanted in keys:
            for key, instance in self.overrides.items():
                if key == wanted:  # not a look-up: there are annotations without a hash
                    return Value(key, "override", instance)
        return None

    def _named(self, need: Need, name: str) -> Provider | Value:
        provider = self.providers.get(name)
        if provider is None:
            raise Unresolved(f"and there is no service {name!r}", _question(name, self.providers))
        made, wanted = provider.type, need.type
        if (
            _is_class(made)
            and _is_class(wanted)
            and not _is_protocol(wanted)
            and not issubclass(made, wanted)
        ):
            raise Unresolved(f"and {provider} is a {type_name(made)}, not a {type_name(wanted)}")
        return self.override_of(provider) or provider

    def _values(self) -> Iterator[tuple[Any, Value]]:
        for key, instance in self.overrides.items():
            yield key, Value(key, "override", instance)
        for types, lives in ((self.given, "run"), (self.process_given, "process")):
            for key in types:
                if key not in self.overrides:
                    yield key, Value(key, lives)  # type: ignore[arg-type]  # mypy widens the literals to str


@dataclass(frozen=True)
class Fault:
    """What is wrong with one need.

    Attributes:
        name: The consumer or the provider that has it.
        parameter: The parameter that it is about; empty if it is about all of it.
        text: What is wrong, with the chain that leads there.
        advice: What to do about it; empty if that cannot be guessed.
    """

    name: str
    parameter: str
    text: str
    advice: str = ""

    def __str__(self) -> str:
        return f"{self.text}{self.advice}"


class Inspection:
    """One walk over what is needed, that collects faults.

    Args:
        catalogue: What can be provided.

    Attributes:
        faults: What was found.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.faults: list[Fault] = []
        self._catalogue = catalogue
        self._seen: set[str] = set()
        self._each_from_itself = False

    def consumer(self, label: str, needs: Sequence[Need], uses: Mapping[str, str]) -> None:
        """Look at what a consumer needs, and at all providers behind it."""
        self._walk(_Asker(label, label, short(label)), needs, uses)

    def everything(self) -> None:
        """Look at each provider; chains begin at the one that has the fault."""
        self._each_from_itself = True
        for provider in list(self._catalogue.providers.values()):  # a walk can find further ones
            if self._catalogue.override_of(provider) is None:
                self._provider(provider, provider.name, ())

    def _provider(self, provider: Provider, chain: str, path: tuple[str, ...]) -> None:
        if provider.name in self._seen:
            return
        self._seen.add(provider.name)
        asker = _Asker(
            f"{provider.kind} {provider.name!r}", provider.name, chain, (*path, provider.name), provider
        )
        try:
            needs = provider.needs
        except ConfigurationError as error:
            self.faults.append(Fault(provider.name, "", f"{asker.label} cannot be built: {error} ({chain})"))
            return
        self._walk(asker, needs, provider.uses)

    def _walk(self, asker: _Asker, needs: Sequence[Need], uses: Mapping[str, str]) -> None:
        parameters = [need.parameter for need in needs]
        for parameter in uses:
            if parameter not in parameters:
                self._unknown_parameter(asker, parameter, parameters)
        for need in needs:
            try:
                source = self._catalogue.find(need, uses)
            except Unresolved as fault:
                self._tell(asker, need, fault.reason, fault.advice)
                continue
            self._compare_lifetimes(asker, need, source)
            if not isinstance(source, Provider):
                continue
            if source.name in asker.path:
                cycle = (*asker.path[asker.path.index(source.name) :], source.name)
                self._tell(asker, need, f"which is circular: {' -> '.join(cycle)}", chain=False)
                continue
            chain = source.name if self._each_from_itself else step(asker.chain, need, source)
            self._provider(source, chain, asker.path)

    def _unknown_parameter(self, asker: _Asker, parameter: str, parameters: Sequence[str]) -> None:
        if asker.provider is not None and parameter in asker.provider.argument_names:
            fault, advice = f"is said in `uses` and in config: ({asker.chain})", "; say it in one"
        else:
            fault = f"is said in `uses`, and is no parameter ({asker.chain})"
            advice = _question(parameter, parameters)
        self.faults.append(Fault(asker.name, parameter, f"{asker.label}: {parameter!r} {fault}", advice))

    def _compare_lifetimes(self, asker: _Asker, need: Need, source: Provider | Value | None) -> None:
        if asker.provider is None or asker.provider.scope != "process" or source is None:
            return
        if (source.scope if isinstance(source, Provider) else source.lives) == "run":
            self._tell(
                asker,
                need,
                f"and lives longer than {source}, which is of one run",
                f". Set scope: run for {asker.label}",
            )

    def _tell(self, asker: _Asker, need: Need, reason: str, advice: str = "", *, chain: bool = True) -> None:
        where = f" ({asker.chain} -> {need})" if chain else ""
        text = f"{asker.label} needs {need}, {reason}{where}"
        self.faults.append(Fault(asker.name, need.parameter, text, advice))


@dataclass(frozen=True)
class _Asker:
    """Who needs something, and how the walk came there."""

    label: str
    name: str
    chain: str
    path: tuple[str, ...] = ()
    provider: Provider | None = None


def step(chain: str, need: Need, provider: Provider) -> str:
    """Return a chain for people with one step more."""
    origin = f", {provider.origin}" if provider.origin else ""
    return f"{chain} -> {need} ({provider.kind} {provider.name!r}{origin})"


def short(label: str) -> str:
    """Return the beginning of a chain: ``team`` of ``agent 'team'``."""
    found = _LABELLED.search(label)
    return found[1] if found else label


def _only(need: Need, candidates: Iterable[tuple[Any, _T]]) -> _T | None:
    pairs = list(candidates)
    found = [one for type_, one in pairs if type_ == need.type]
    found = found or [one for type_, one in pairs if _is_explicit_subclass(type_, need.type)]
    if len(found) < 2:
        return found[0] if found else None
    raise Unresolved(
        f"and several provide it: {', '.join(map(str, found))}",
        f'. Name one: `uses: {{{need.parameter}: name}}` or Annotated[{type_name(need.type)}, Named("...")]',
    )


def _missing(need: Need, *, by_type: bool) -> Unresolved:
    if not by_type:
        return Unresolved("which has no type that could be provided; give it in config: or a default")
    spelt = _WORD_START.sub("-", need.type.__name__) if _is_class(need.type) else need.parameter
    name = normalised(spelt).replace("_", "-") or "name"
    return Unresolved(
        "and nothing provides it",
        f'. Provide it: services: {{{name}: {{type: "package.module:factory"}}}}',
    )


def _question(name: str, known: Iterable[str]) -> str:
    question = did_you_mean(name, known)
    return f"; {question}" if question else ""


def _is_class(type_: Any) -> bool:
    return isinstance(type_, type) and type_ is not Any


def _is_protocol(type_: Any) -> bool:
    return bool(getattr(type_, "_is_protocol", False))


def _is_found_by_type(type_: Any) -> bool:
    if type_ is Any or type_ is None:
        return False
    return not (_is_class(type_) and type_.__module__ == "builtins")


def _is_explicit_subclass(type_: Any, wanted: Any) -> bool:
    """Not issubclass: to Callable, Hashable and protocols everything of the right shape is a subclass."""
    return _is_class(type_) and _is_class(wanted) and wanted in type_.__mro__
