"""Makes the guards of one store."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from airflow_agentic.config.names import did_you_mean
from airflow_agentic.config.policies import Breaker, Budget, Policy
from airflow_agentic.errors import ConfigurationError
from airflow_agentic.observability.metrics import Metrics, NoMetrics
from airflow_agentic.resilience import breaker
from airflow_agentic.resilience.admission import NOBODY, Admission, Subject
from airflow_agentic.resilience.answers import Answers
from airflow_agentic.resilience.breaker import Outcome
from airflow_agentic.resilience.breakers import BreakerHandle, BreakerView, views
from airflow_agentic.resilience.failures import Classifier, Failure
from airflow_agentic.resilience.guard import Guard
from airflow_agentic.resilience.keeping import KEEPER
from airflow_agentic.resilience.ports import GuardEvents, GuardKey, GuardStore
from airflow_agentic.resilience.results import Results
from airflow_agentic.resilience.retries import Calls
from airflow_agentic.resilience.shared import Decision, Docs, SharedState

if TYPE_CHECKING:
    from airflow_agentic.resilience.faults import Faults


@dataclass(frozen=True)
class GuardOptions:
    """What guards go by.

    Attributes:
        classifier: Says what failures mean; default the provider's own judgement.
        budgets: Budgets that policies may name.
        metrics: Where numbers go.
        staleness_seconds: For so long a process goes by what it saw last.
    """

    classifier: Classifier = field(default_factory=Classifier)
    budgets: Mapping[str, Budget] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=NoMetrics)
    staleness_seconds: float = 1.0


class Guards:
    """All guards of a store.

    Args:
        store: Where what all workers know is kept.
        events: Who is told when something happens.
        options: What they go by.
        faults: What is injected into guarded calls; ``None`` for nothing.

    Attributes:
        shared: What all workers know.
        classifier: Says what failures mean.
    """

    def __init__(
        self,
        store: GuardStore,
        events: GuardEvents | None = None,
        options: GuardOptions | None = None,
        faults: Faults | None = None,
    ) -> None:
        options = options or GuardOptions()
        self.shared = SharedState(store, events, options.staleness_seconds)
        self.classifier = options.classifier
        self._faults = faults
        self._budgets = options.budgets
        self._metrics = options.metrics
        self._staleness = options.staleness_seconds
        self._calls: dict[str, Calls] = {}
        self._results: dict[tuple[GuardKey, Breaker], Results] = {}
        self._lock = threading.Lock()

    def guard(self, policy: Policy, key: str, subject: Subject = NOBODY) -> Guard:
        """Make a guard. Guards of one key share breaker, limits and bulkhead, in whatever process they are.

        Args:
            policy: How.
            key: What is guarded: ``conn:NAME``, ``agent:NAME``, ``tool:NAME``, ``service:NAME``; at most 200 characters.
            subject: For whom; what budgets are counted by.

        Raises:
            ConfigurationError: The key is empty or too long, or the policy names a budget that is not declared.
        """
        if not key.strip() or len(key) > 200:
            raise ConfigurationError(
                f"a guard needs a key of 1 to 200 characters, such as 'conn:primary', not {key[:50]!r}"
            )
        named = policy.budget
        budget = self._budget(named) if isinstance(named, str) else named
        admission = Admission(policy, key, subject, budget, named if isinstance(named, str) else None)
        with self._lock:
            calls = self._calls.setdefault(key, Calls())
        results = self._results_of(admission) if admission.breaker is not None else None
        return Guard(
            policy, admission, self.shared, self.classifier, calls, results, self._measure, self._faults
        )

    def breaker(self, key: str) -> BreakerHandle:
        """Return the breaker of a key, to look at it or set it by hand."""
        return BreakerHandle(self.shared, key)

    def breakers(self, prefix: str = "") -> list[BreakerView]:
        """Return how the breakers stand whose keys begin so.

        Raises:
            StoreError: The store cannot be reached.
        """
        return views(self.shared, prefix)

    def answers(self, key: str, keep_seconds: float) -> Answers:
        """Return where the last good answers of a key are kept."""
        return Answers(self.shared, key, keep_seconds)

    def close(self) -> None:
        """Tell the store what this process kept to itself."""
        with self._lock:
            known = list(self._results.values())
        for results in known:
            results.close()

    def _results_of(self, admission: Admission) -> Results:
        settings, at = admission.breaker, admission.breaker_key
        assert settings is not None

        def tell(outcomes: Sequence[Outcome]) -> None:
            def decide(docs: Docs, now: float) -> Decision[None]:
                doc, events = breaker.record(docs.get(at), settings, at.name, now, outcomes)
                return Decision(None, {at: doc}, events)

            self.shared.update([at], decide)

        with self._lock:
            if (at, settings) not in self._results:
                self._results[at, settings] = Results(settings, tell, self._staleness, KEEPER)
            return self._results[at, settings]

    def _budget(self, name: str) -> Budget:
        if name in self._budgets:
            return self._budgets[name]
        hint = did_you_mean(name, self._budgets) or f"known: {', '.join(self._budgets) or 'none'}"
        raise ConfigurationError(
            f"there is no budget {name!r} ({hint}): declare it under budgets: in the project file"
        )

    def _measure(self, key: str, seconds: float, failure: Failure | None) -> None:
        outcome = "ok" if failure is None else failure.category.value
        self._metrics.timing("guard.call", seconds, {"key": key, "outcome": outcome})
