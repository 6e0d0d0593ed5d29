"""What a drill does: a run without faults, then one for each kind of fault."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import ValidationError

from airflow_agentic.cli.drill.accounts import Accounts, Judgement, Outcome, Verdict
from airflow_agentic.cli.drill.places import Place, Ran
from airflow_agentic.config.faults import FaultKind, FaultRule
from airflow_agentic.config.words import words
from airflow_agentic.errors import ConfigurationError, InvalidOption
from airflow_agentic.messaging.delivery import DeliveryRecord
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.resilience.fault_rules import FaultRules, FaultView
from airflow_agentic.stores import Store

KINDS: tuple[FaultKind, ...] = get_args(FaultKind)
ACTOR = "drill"

_PREFIX = "drill-"
_MOST = 100_000
# Workers look for new rules once a second.
_RULES_SPREAD_SECONDS = 1.5
# What has not moved for so long has come to rest, as a started DAG needs about 2 s to take its first message.
_QUIET_SECONDS = 4.0
_LONGEST_QUIET_SECONDS = 60.0
_FAILING = ("error", "latency", "drop", "slow_store")

USUAL: Mapping[FaultKind, tuple[Mapping[str, Any], ...]] = {
    "latency": ({"where": "agent:*", "seconds": 0.5, "count": 5},),
    "error": ({"where": "agent:*", "count": 2}, {"where": "call:*", "count": 2}),
    "sigkill": (
        {"where": "agent:*", "count": 1},
        {"where": "agent:*", "after": 5, "count": 1},
        {"where": "send:*", "count": 1},
    ),
    "drop": ({"where": "send:*", "count": 1}, {"where": "receive:*", "count": 1}),
    "duplicate": ({"where": "send:*", "count": 10},),
    "corrupt": ({"where": "receive:*", "count": 1},),
    "slow_store": ({"where": "store", "seconds": 0.2, "count": 20},),
    "clock_jump": ({"where": "store", "seconds": -600, "count": 100},),
}
"""What is done where nobody says otherwise: enough to hurt, and little enough that a run with retries gets through."""


@dataclass(frozen=True)
class Finding:
    """What became of one kind of fault.

    Attributes:
        kind: Which.
        injected: How often, in the whole fleet.
        ran: The run.
        judgements: The promises.
        rules: What was injected by which rule.
    """

    kind: str
    injected: int
    ran: Ran
    judgements: Sequence[Judgement]
    rules: Sequence[FaultView] = field(default=())

    @property
    def broke(self) -> bool:
        """Whether a promise did not hold."""
        return any(each.verdict is Verdict.BROKEN for each in self.judgements)


class Drill:
    """Runs a DAG with faults, one kind after the other.

    Args:
        store: That of the DAG.
        place: Where it runs.
        dag_id: Which DAG.
        timeout: How long a run may take, in seconds.
        progress: Told what is done next.
    """

    def __init__(
        self,
        store: Store,
        place: Place,
        dag_id: str,
        timeout: float,
        progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._place = place
        self._dag_id = dag_id
        self._timeout = timeout
        self._progress = progress
        self._rules = FaultRules(store.guards)

    def run(self, rules: Mapping[str, FaultRule], kinds: Iterable[FaultKind]) -> list[Finding]:
        """Run the DAG without faults, and then with each kind.

        Args:
            rules: By name.
            kinds: Those to try; of which there is no rule, nothing is tried.

        Raises:
            ConfigurationError: The DAG cannot be run, or does not succeed without faults either.
            StoreError: The store cannot be reached.
        """
        self.clear()
        self._progress("a run without faults")
        ran = self._place.run(self._dag_id, self._timeout)
        if ran.state != "success":
            how = f"ended as {ran.state}" if ran.state else f"came to no end (in {ran.seconds:.0f} s)"
            raise ConfigurationError(
                f"run {ran.run_id!r} of {self._dag_id!r} {how} without any fault: a drill needs a DAG that works"
                + (f". It said last: {ran.log[-500:]}" if ran.log else "")
            )
        without = self._outcome(ran, (), 0.0)
        try:
            return [
                self._with(kind, mine, without)
                for kind in kinds
                if (mine := {name: rule for name, rule in rules.items() if rule.what == kind})
            ]
        finally:
            self.clear()

    def clear(self) -> None:
        """Forget the rules of drills, those of one that was killed too."""
        for view in self._rules.views():
            if view.origin == ACTOR:
                self._rules.clear(view.name)

    def _with(self, kind: str, rules: Mapping[str, FaultRule], without: Outcome) -> Finding:
        self._progress(f"a run with {kind}")
        began = self._store.guards.read([]).now.timestamp()
        names = {self._rules.add(_PREFIX + name, rule, actor=ACTOR).name for name, rule in rules.items()}
        time.sleep(_RULES_SPREAD_SECONDS)
        ran = self._place.run(self._dag_id, self._timeout)
        views = [view for view in self._rules.views() if view.name in names]
        for name in names:
            self._rules.clear(name)
        time.sleep(_RULES_SPREAD_SECONDS)
        outcome = self._outcome(ran, views, began)
        return Finding(kind, outcome.injected, ran, Accounts(without, outcome).judge(), views)

    def _outcome(self, ran: Ran, views: Sequence[FaultView], began: float) -> Outcome:
        return Outcome(
            ran.state,
            self._settled(ran.run_id),
            self._opened_since(began) if views else frozenset(),
            tuple(last["about"] for view in views if view.rule.what == "corrupt" for last in view.last),
            frozenset(last["point"] for view in views if view.rule.what in _FAILING for last in view.last),
            sum(view.injected for view in views),
            ran.degraded,
        )

    def _settled(self, run_id: str) -> list[DeliveryRecord]:
        """Return what a run left, when nothing moves any more: DAGs that its messages start go on after its end."""
        query = DeliveryQuery(correlation_id=f"{self._dag_id}:{run_id}", limit=_MOST)
        records = self._store.bus.find(query)
        deadline = time.monotonic() + _LONGEST_QUIET_SECONDS
        while self._place.is_shared and time.monotonic() < deadline:
            time.sleep(_QUIET_SECONDS)
            before, records = records, self._store.bus.find(query)
            if [each.updated_at for each in before] == [each.updated_at for each in records]:
                break
        return records

    def _opened_since(self, began: float) -> frozenset[str]:
        views = self._store.guarding.breakers()
        return frozenset(
            view.key
            for view in views
            if any(change["to"] == "open" and change["at"] >= began for change in view.history)
        )


def usual_rules() -> dict[str, FaultRule]:
    """Return the rules of a drill for which nobody wrote any."""
    return {
        f"{kind}-{number}": FaultRule.model_validate({"what": kind, **said})
        for kind, rules in USUAL.items()
        for number, said in enumerate(rules, start=1)
    }


def rules_of(path: str) -> dict[str, FaultRule]:
    """Read rules from a YAML file: a map of names to rules, or a project file with ``faults:``.

    Raises:
        InvalidOption: It cannot be read, or a rule is none.
    """
    try:
        found = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidOption(f"--rules {path}: {error}") from None
    said = found.get("faults", found) if isinstance(found, dict) else None
    if not isinstance(said, dict) or not said:
        raise InvalidOption(
            f"--rules {path}: write names, and a rule below each, as under faults: in a project file"
        )
    return {str(name): rule_of(rule, f"--rules {path}: {name}") for name, rule in said.items()}


def rule_of(said: Any, where: str) -> FaultRule:
    """Make a rule.

    Args:
        said: Its keys.
        where: Who said so, for the error.

    Raises:
        InvalidOption: It cannot be one; every fault is named.
    """
    try:
        return FaultRule.model_validate(said)
    except ValidationError as error:
        faults = [
            ": ".join(filter(None, (".".join(map(str, each["loc"])), words(each))))
            for each in error.errors(include_url=False)
        ]
        raise InvalidOption(f"{where}: {'; '.join(faults)}") from None
