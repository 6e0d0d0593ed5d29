"""What agents need, and what provides it: checked before anything is built, closed in reverse order after."""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import threading
import types
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Self

from airflow_agentic.config.injection.providers import Catalogue, Fault, Inspection, Provider, short, step
from airflow_agentic.config.injection.signatures import Named, Need, needs_of, type_name
from airflow_agentic.errors import ConfigurationError, LifecycleError, UnknownService

__all__ = ["Fault", "Named", "Need", "Provider", "Scope", "Services", "needs_of"]

_NOTE = "while building "


class Services:
    """All providers of a project. Immutable; checks them, and opens the scopes in which they are used.

    Args:
        providers: How things are made.
        given: Types that every scope brings as values of the run: message bus, metrics.
        process_given: Types that every scope brings as values that live as long as the process; of these, the
            first seen is used.
        more: Finds further providers, asked once, when a need cannot be met without; ``providers`` beat them.

    Raises:
        ConfigurationError: Two providers have one name.
    """

    def __init__(
        self,
        providers: Iterable[Provider],
        given: Iterable[Any] = (),
        process_given: Iterable[Any] = (),
        more: Callable[[], Iterable[Provider]] = tuple,
    ) -> None:
        self._catalogue = Catalogue(providers, given, process_given, {}, more)
        self._lock = threading.Lock()
        self._process: Scope | None = None
        self._inherited: list[Scope] = []

    def with_overrides(self, overrides: Mapping[Any, Any]) -> Services:
        """Return the same services with some replaced, for tests. Nothing that was built is shared.

        Args:
            overrides: Instances, by type or by the name of a provider. They win over everything.
        """
        known = self._catalogue
        other = Services(())
        other._catalogue = Catalogue(
            known.providers.values(),
            known.given,
            known.process_given,
            {**known.overrides, **overrides},
            known.more or tuple,
        )
        return other

    def check(self, consumer: str, needs: Sequence[Need], uses: Mapping[str, str] | None = None) -> list[str]:
        """Return every fault in what a consumer needs, directly or through providers. Builds nothing.

        Args:
            consumer: Who it is, for people: ``agent 'team'``.
            needs: What it needs.
            uses: Names of providers by parameter; they beat the parameter's type.
        """
        return [str(fault) for fault in self.faults_of(consumer, needs, uses)]

    def faults_of(
        self, consumer: str, needs: Sequence[Need], uses: Mapping[str, str] | None = None
    ) -> list[Fault]:
        """Do what :meth:`check` does; each fault in its parts."""
        inspection = Inspection(self._catalogue)
        inspection.consumer(consumer, needs, uses or {})
        return inspection.faults

    def check_all(self) -> list[Fault]:
        """Return the faults of every provider; each cycle is told once. Builds nothing."""
        inspection = Inspection(self._catalogue)
        inspection.everything()
        return inspection.faults

    def open(self, values: Mapping[Any, Any]) -> Scope:
        """Open the scope of a run.

        Args:
            values: The values of the types that were said to be given.

        Returns:
            A context manager; what is built in it is closed with it.

        Raises:
            ConfigurationError: A value is missing, or its type was not said to be given.
        """
        process = self._process_scope()
        for key in self._catalogue.process_given:
            if key in values:
                process.values.setdefault(key, values[key])
        declared = (*self._catalogue.given, *self._catalogue.process_given)
        brought = {**values, **process.values}
        there = {*self._catalogue.overrides, *brought}
        odd = [f"does not bring {type_name(key)}, which is given" for key in declared if key not in there]
        odd += [f"brings {type_name(key)}, which is not given" for key in values if key not in declared]
        if odd:
            raise ConfigurationError(f"the scope {' and '.join(odd)}")
        return Scope(self, self._catalogue, brought, process)

    def close(self) -> None:
        """End what has process scope, in reverse order. Can be called twice; also called when Python exits."""
        atexit.unregister(self.close)
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        if process.is_inherited:
            self._inherited.append(process)
        else:
            process.close()

    def _process_scope(self) -> Scope:
        with self._lock:
            if self._process is not None and self._process.is_inherited:
                self._inherited.append(self._process)  # kept, as the collector would report it as not closed
                self._process = None
            if self._process is None:
                self._process = Scope(self, self._catalogue, {}, None)
            return self._process


class Scope:
    """What is built for one run, and closed in reverse order after it. A context manager, for any threads.

    Opened by ``Services.open``.

    Args:
        services: Whose it is.
        catalogue: What can be provided.
        values: Given values by type.
        process: The scope of the process; ``None`` if this is it.
    """

    def __init__(
        self, services: Services, catalogue: Catalogue, values: dict[Any, Any], process: Scope | None
    ) -> None:
        self.values = values
        self._services = services
        self._catalogue = catalogue
        self._process = process
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._container: Any = None
        self._is_closed = False

    @property
    def is_inherited(self) -> bool:
        """Whether this process is a fork of the one that opened it: that one uses and closes what is in it."""
        return self._pid != os.getpid()

    def supply(
        self, needs: Sequence[Need], uses: Mapping[str, str] | None = None, consumer: str = "the caller"
    ) -> dict[str, Any]:
        """Return the keyword arguments that a callable needs. What is not there yet is built.

        Args:
            needs: What it needs.
            uses: Names of providers by parameter; they beat the parameter's type.
            consumer: Whom it is for, for messages: ``agent 'team'``.

        Raises:
            UnknownService: Something cannot be provided; nothing was built.
            LifecycleError: The scope is closed.
        """
        if self._is_closed:
            raise LifecycleError(f"{consumer} asks a scope that is closed")
        if faults := self._services.check(consumer, needs, uses):
            raise UnknownService("\n".join(faults))
        return self._supply(needs, uses or {}, consumer, short(consumer))

    def get(self, type_: Any, name: str | None = None, consumer: str = "the caller") -> Any:
        """Return one thing.

        Args:
            type_: Its type; ``Any`` if only its name is known.
            name: Its name, if there are several of the type.
            consumer: Whom it is for, for messages.

        Raises:
            UnknownService: It cannot be provided.
            LifecycleError: The scope is closed.
        """
        return self.supply([Need("", type_, name)], None, consumer)[""]

    def obtain(self, provider: Provider, consumer: str, chain: str) -> Any:
        """Return what a provider makes, from the scope where it lives; built if it is not there yet.

        Args:
            provider: A provider that was checked.
            consumer: Whom it is for, for messages.
            chain: How the consumer comes to need it, for messages.

        Raises:
            LifecycleError: The scope where it lives is closed.
        """
        if provider.scope == "process" and self._process is not None:
            return self._process.obtain(provider, consumer, chain)
        with self._lock:
            if self._is_closed:
                raise LifecycleError(f"{consumer} needs {provider}, and its scope is closed ({chain})")
            if self._container is None:
                self._container = self._new_container()
            if provider.name not in self._container:
                self._container.register_local_factory(
                    provider.name, lambda: self._make(provider, consumer, chain)
                )
            try:
                return self._container.get(provider.name)
            except BaseException as error:
                if not any(note.startswith(_NOTE) for note in getattr(error, "__notes__", ())):
                    error.add_note(f"{_NOTE}{provider} for {consumer} ({chain})")
                raise

    def close(self) -> None:
        """Close everything that was built here, in reverse order. Can be called twice."""
        with self._lock:
            self._is_closed = True
            if self._container is not None:
                _close_all(self._container)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _supply(
        self, needs: Sequence[Need], uses: Mapping[str, str], consumer: str, chain: str
    ) -> dict[str, Any]:
        supplied: dict[str, Any] = {}
        for need in needs:
            source = self._catalogue.find(need, uses)
            if isinstance(source, Provider):
                supplied[need.parameter] = self.obtain(source, consumer, step(chain, need, source))
            elif source is not None:
                is_here = source.lives != "override"
                supplied[need.parameter] = self.values[source.key] if is_here else source.instance
            elif need.or_none:
                supplied[need.parameter] = None
        return supplied

    def _new_container(self) -> Any:
        svcs = _svcs()
        if self._process is None:
            atexit.register(self._services.close)
        return svcs.Container(svcs.Registry())

    def _make(self, provider: Provider, consumer: str, chain: str) -> Any:
        needed = self._supply(provider.needs, provider.uses, consumer, chain)
        made = provider.factory(**{**needed, **provider.arguments()})
        if isinstance(made, types.GeneratorType):
            made = contextlib.contextmanager(lambda: made)()
        return _Entered(made) if isinstance(made, AbstractContextManager) else made


class _Entered(AbstractContextManager[Any]):
    """Is exited once, and only if it was entered; svcs would also exit what failed to enter."""

    def __init__(self, inner: AbstractContextManager[Any]) -> None:
        self._inner = inner
        self._is_entered = False

    def __enter__(self) -> Any:
        entered = self._inner.__enter__()
        self._is_entered = True
        return entered

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: types.TracebackType | None,
    ) -> None:
        if self._is_entered:
            self._is_entered = False
            self._inner.__exit__(kind, error, traceback)


def _close_all(container: Any) -> None:
    try:
        container.close()
    except BaseException:  # an interrupt: svcs logs and passes over Exception only
        _close_all(container)
        raise


@functools.cache
def _svcs() -> types.ModuleType:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import svcs  # late: it imports FastAPI and aiohttp if they are there

    return svcs
