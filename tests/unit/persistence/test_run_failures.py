"""What the failures of runs and steps mean: as the rules of the project say, else as the provider judges."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from airflow_agentic.config.policies import FailureRule
from airflow_agentic.errors import ServiceThrottled
from airflow_agentic.persistence import RunStatus
from airflow_agentic.persistence.ports import Facilities
from airflow_agentic.persistence.runs import Runs
from airflow_agentic.resilience.failures import Classifier
from airflow_agentic.resilience.guards import GuardOptions
from airflow_agentic.stores import open_store

RULES = (
    FailureRule(error="ZeroDivisionError", category="permanent"),
    FailureRule(contains="quota", category="resource_exhaustion"),
)


@pytest.mark.parametrize(
    ("error", "category"),
    [
        (ZeroDivisionError("by nothing"), "permanent"),
        (ValueError("your quota is spent"), "resource_exhaustion"),
        (ServiceThrottled("quota", 429, None), "resource_exhaustion"),
        (TimeoutError("too slow"), "deadline_exceeded"),
        (ImportError("no such module"), "configuration"),
        (ValueError("who knows"), "transient"),
    ],
)
def test_a_step_and_its_run_fail_with_the_category_that_the_rules_give(
    error: Exception, category: str
) -> None:
    def breaks() -> None:
        raise error

    rules = GuardOptions(Classifier(RULES))
    with open_store("memory://", guard_options=rules) as store:
        with pytest.raises(type(error)), store.run("a", key="k") as run:
            run.step("s", breaks)
        assert store.runs.find("k").category == category
        said = {each.type: each.data["category"] for each in store.history("k") if "category" in each.data}
        assert said == {"step.failed": category, "run.failed": category}
        assert store.runs.views.of("k", datetime.now(UTC)).errors == {category: 1}


def test_what_the_rules_cannot_judge_is_recorded_all_the_same() -> None:
    def stumbles(error: BaseException) -> None:
        raise RuntimeError("no idea")

    with open_store("memory://") as store:
        runs = Runs(store.run_stores, Facilities(lambda: "me", category_of=stumbles))  # type: ignore[arg-type]
        with pytest.raises(ValueError, match="bad"), runs.open("a", "k") as run:
            run.step("s", int, "bad")
        head = runs.find("k")
        assert (head.status, head.category) == (RunStatus.FAILED, "transient")
        assert head.error.startswith("ValueError: ")
