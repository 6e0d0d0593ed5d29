"""The rules of fault injection, as all workers share them: one document each, with how often it was met and obeyed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from airflow_agentic.config.faults import FaultKind, FaultRule
from airflow_agentic.errors import ConfigurationError, StoreUnavailable
from airflow_agentic.resilience.ports import GuardChange, GuardEvent, GuardEvents, GuardKey, GuardStore
from airflow_agentic.resilience.shared import Decision, Doc, Docs, SharedState

PROJECT = "project"
"""Origin of rules that the project file declares."""

_MOST_REMEMBERED = 50
_TRIES = 20


@dataclass(frozen=True)
class Injection:
    """A fault that is to happen now.

    Attributes:
        rule: Name of the rule.
        what: What happens.
        point: Where, for example ``agent:triage``.
        number: The how-manieth of its rule it is, in the whole fleet.
        about: What else is known of the place: a delivery.
        seconds: How long, or how far off the clock is.
        category: Of an error.
        chance: A number that the seed decides, the same each time.
    """

    rule: str
    what: FaultKind
    point: str
    number: int
    about: str = ""
    seconds: float = 0.0
    category: str = "transient"
    chance: int = 0

    @property
    def text(self) -> str:
        """What is said of it in logs and errors."""
        much = f" of {self.seconds:g} s" if self.seconds else ""
        about = f" ({self.about})" if self.about else ""
        return (
            f"[injected] {self.what}{much} at {self.point}{about}, rule {self.rule!r}, number {self.number}"
        )


@dataclass(frozen=True)
class FaultView:
    """A rule, and what became of it.

    Attributes:
        name: Of the rule.
        rule: What it says.
        origin: ``project``, or who added it.
        since: When it was made, as far as the store knows; ``None`` if no worker came by yet.
        attempts: How often work came by its place.
        injected: How often it was obeyed.
        last: The last injections: number, at (seconds since 1970), point, about.
    """

    name: str
    rule: FaultRule
    origin: str
    since: datetime | None = None
    attempts: int = 0
    injected: int = 0
    last: tuple[Mapping[str, Any], ...] = ()

    @property
    def is_spent(self) -> bool:
        """Whether it has happened as often as it may."""
        return self.rule.count is not None and self.injected >= self.rule.count


class FaultRules:
    """All rules of a store and of a project.

    Args:
        store: Where the documents are.
        declared: Rules of the project file, by name; they win over others of the same name.
        events: Who is told of each injection.
    """

    def __init__(
        self,
        store: GuardStore,
        declared: Mapping[str, FaultRule] | None = None,
        events: GuardEvents | None = None,
    ) -> None:
        self._store = store
        self._declared = dict(declared or {})
        # Whoever finds that nothing is to happen looks again, as rules come and go.
        self._shared = SharedState(store, events, staleness_seconds=0.0)

    def views(self) -> list[FaultView]:
        """Return all rules, by name; what another version wrote and this one cannot read is left out.

        Raises:
            StoreError: The store cannot be reached.
        """
        docs = {name: doc for name, doc, _ in self._shared.listed("fault")}
        found: dict[str, FaultView] = {}
        for name, rule in self._declared.items():
            doc = docs.get(name)
            found[name] = _view(name, rule, doc if doc is not None and doc["rule"] == _dumped(rule) else None)
        for name, doc in docs.items():
            said = None if name in found or doc["origin"] == PROJECT else _read(doc)
            if said is not None:
                found[name] = _view(name, said, doc)
        return sorted(found.values(), key=lambda view: view.name)

    def add(self, name: str, rule: FaultRule, *, actor: str) -> FaultView:
        """Make a rule that all workers obey from now on; one of the same name is replaced, its counts forgotten.

        Raises:
            ConfigurationError: The project file declares a rule of this name.
            StoreError: The store cannot be reached.
        """
        if name in self._declared:
            raise ConfigurationError(f"the project file declares a fault {name!r}: choose another name")
        key = GuardKey("fault", name)

        def decide(_docs: Docs, now: float) -> Decision[FaultView]:
            doc = _fresh(rule, actor, now)
            return Decision(_view(name, rule, doc), {key: doc})

        return self._shared.insist([key], decide)

    def clear(self, name: str) -> bool:
        """Forget a rule, or the counts of one that the project file declares.

        Returns:
            Whether there was one.

        Raises:
            StoreError: The store cannot be reached.
        """
        key = GuardKey("fault", name)
        for _ in range(_TRIES):
            entry = self._store.read([key]).entries.get(key)
            if entry is None:
                return False
            if self._store.change([GuardChange(key, None, entry.version)]) is not None:
                return True
        raise StoreUnavailable(f"the fault {name!r} is changed by workers all the time: try again")

    def attempt(self, name: str, rule: FaultRule, point: str, about: str = "") -> Injection | None:
        """Note that work comes by, and say what happens to it.

        Args:
            name: Of the rule.
            rule: What it says.
            point: Where the work is.
            about: What else is known of the place.

        Returns:
            The fault; ``None`` if nothing happens.

        Raises:
            StoreError: The store cannot be reached.
        """
        key, is_declared = GuardKey("fault", name), self._declared.get(name) == rule

        def decide(docs: Docs, now: float) -> Decision[Injection | None]:
            doc = docs.get(key)
            if doc is not None and doc["rule"] == _dumped(rule):
                return _decided(key, rule, doc, now, point, about)
            if not is_declared:
                # Somebody cleared or replaced it since it was listed.
                return Decision(None)
            doc = _fresh(rule, PROJECT, now)
            decision = _decided(key, rule, doc, now, point, about)
            # Its time runs from now on, whether something happens or not.
            return decision if decision.docs else Decision(None, {key: doc})

        return self._shared.insist([key], decide)


def _decided(
    key: GuardKey, rule: FaultRule, doc: Doc, now: float, point: str, about: str
) -> Decision[Injection | None]:
    age = now - doc["since"] - rule.from_seconds
    is_over = rule.for_seconds is not None and age >= rule.for_seconds
    if age < 0 or is_over or (rule.count is not None and doc["injected"] >= rule.count):
        return Decision(None)
    attempts = doc["attempts"] + 1
    chance = _chance(rule.seed, key.name, attempts)
    if attempts <= rule.after or chance / 2**64 >= rule.probability:
        return Decision(None, {key: {**doc, "attempts": attempts}})
    number = doc["injected"] + 1
    last = [*doc["last"], {"number": number, "at": now, "point": point, "about": about}]
    injection = Injection(
        key.name, rule.what, point, number, about, rule.seconds or 0.0, rule.category or "transient", chance
    )
    data = {"rule": key.name, "what": rule.what, "number": number, "about": about}
    event = GuardEvent("fault.injected", point, datetime.fromtimestamp(now, UTC), data)
    changed = {**doc, "attempts": attempts, "injected": number, "last": last[-_MOST_REMEMBERED:]}
    return Decision(injection, {key: changed}, (event,))


def _chance(seed: int, name: str, attempt: int) -> int:
    """Return a number below 2**64 that is the same for the same attempt, in whatever process and version of Python."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{name}:{attempt}".encode()).digest()[:8], "big")


def _fresh(rule: FaultRule, origin: str, now: float) -> dict[str, Any]:
    return {
        "rule": _dumped(rule),
        "origin": origin,
        "since": now,
        "attempts": 0,
        "injected": 0,
        "last": [],
    }


def _dumped(rule: FaultRule) -> dict[str, Any]:
    return rule.model_dump(mode="json", exclude_defaults=True)


def _read(doc: Doc) -> FaultRule | None:
    try:
        return FaultRule.model_validate(doc["rule"])
    except ValidationError:
        return None


def _view(name: str, rule: FaultRule, doc: Doc | None) -> FaultView:
    if doc is None:
        return FaultView(name, rule, PROJECT)
    since = datetime.fromtimestamp(doc["since"], UTC)
    return FaultView(name, rule, doc["origin"], since, doc["attempts"], doc["injected"], tuple(doc["last"]))
