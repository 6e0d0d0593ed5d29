from __future__ import annotations

from pathlib import Path

import pytest
from commandline import Run

from airflow_agentic.cli.policies import bounds, bounds_in_words, guards_in_short, refusals, steps
from airflow_agentic.resilience import Breaker, Budget, Bulkhead, Fallback, Policy, RateLimit, Retry
from airflow_agentic.resilience.figures import failures_to_open, longest_seconds, open_times, probes_within

PROJECT = """\
agents:
  writer: {policy: llm}
  small: {}
budgets:
  daily: {tokens: 100000, cost_usd: 5, reserve_tokens: 2000}
policies:
  llm:
    description: Calls of the model's provider.
    timeout: 30
    budget: daily
    bulkhead: {max_concurrent: 8}
    limits: {rate: 60, per_seconds: 60}
    breaker: {key: "conn:openai", slow_call_seconds: 20}
    retry: {max_attempts: 4, base_seconds: 2}
    deadline: 300
    fallback: {agents: [small], default: null}
  patient:
    retry: {max_attempts: 3}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "agentic.yaml"
    path.write_text(PROJECT)
    monkeypatch.setenv("AIRFLOW__AGENTIC__PROJECT_FILE", str(path))
    return path


def test_list_shows_guards_and_who_has_them(agentic: Run, project: Path) -> None:
    llm, patient = agentic("policies", "list", "-o", "json").json
    shown = agentic("policies", "list", "-o", "plain").out

    assert (llm["name"], llm["agents"], llm["source"]) == ("llm", ["writer"], f"{project}:7")
    assert llm["settings"]["bulkhead"] == {"max_concurrent": 8}
    assert (patient["name"], patient["agents"]) == ("patient", [])
    assert "fallback, deadline 5 min, retry 4, breaker, 60 in 1 min, 8 at once" in shown


@pytest.mark.usefixtures("project")
def test_explain_tells_the_guards_in_their_order_however_they_are_written(agentic: Run) -> None:
    told = agentic("policies", "explain", "llm", "-o", "json").json

    assert [step["guard"] for step in told["order"]] == [
        "fallback", "deadline", "retry", "breaker", "limits", "bulkhead", "budget", "timeout",
    ]  # fmt: skip
    assert told["bounds"] == {"longest_seconds": 300, "tries": 4, "calls_to_what_is_down_for_an_hour": 37}


@pytest.mark.usefixtures("project")
def test_explain_says_it_in_words(agentic: Run) -> None:
    shown = agentic("policies", "explain", "llm").out
    words = " ".join(shown.split())

    assert shown.startswith("Policy       llm: Calls of the model's provider.\n")
    assert max(map(len, shown.splitlines())) < 130
    assert "A call is tried 4 times, if it fails by transient or resource_exhaustion." in words
    assert "at most 2 s, then 4 s, then 8 s: at most 14 s of waiting in all" in words
    assert "all who say 'conn:openai' share it" in words
    assert "30 s, then 1 min, then 2 min, then 4 min, then 8 min, then 10 min; then 3 probes decide" in words
    assert "Each agent may spend 100,000 tokens and $5.00 in a day (UTC) (budget 'daily')." in words
    assert "ask small; else take null." in words
    assert "A task waits until it may go, with no slot held and no retry spent." in words
    assert "without" not in words


@pytest.mark.usefixtures("project")
def test_explain_names_what_does_not_guard(agentic: Run) -> None:
    shown = agentic("policies", "explain", "patient").out

    assert "without    fallback, deadline, breaker, limits, bulkhead, budget, timeout" in shown
    assert "There is no bound to how long a call can take" in shown
    assert "All calls reach a service that is down, each up to 3 times: there is no breaker." in shown
    assert "refuse" not in shown


@pytest.mark.usefixtures("project")
def test_an_unknown_policy_is_told_with_the_nearest(agentic: Run) -> None:
    ended = agentic("policies", "explain", "pacient")

    assert ended.code == 1
    assert "Did you mean 'patient'?" in ended.err


def test_without_policies_it_says_where_they_are_written(agentic: Run) -> None:
    ended = agentic("policies", "list", "-o", "json")

    assert ended.json == []
    assert "write it under policies: in the project file" in ended.err


class TestFigures:
    def test_open_times_grow_to_the_longest(self) -> None:
        assert open_times(Breaker(open_seconds=30, max_open_seconds=100)) == (30, 60, 100)
        assert open_times(Breaker(open_seconds=30, open_growth=1)) == (30,)
        assert len(open_times(Breaker(open_seconds=1, open_growth=1.01))) == 6

    @pytest.mark.parametrize(
        ("seconds", "probes"), [(29, 0), (30, 3), (89, 3), (90, 6), (190, 9), (289, 9), (290, 12), (390, 15)]
    )
    def test_probes_come_when_the_breaker_has_been_open_long_enough(
        self, seconds: float, probes: int
    ) -> None:
        # Open from 0 to 30, 90, 190, 290, 390.
        settings = Breaker(open_seconds=30, max_open_seconds=100, half_open_calls=3)
        assert probes_within(settings, seconds) == probes

    def test_of_equal_open_times_the_probes_are_counted_at_once(self) -> None:
        assert probes_within(Breaker(open_seconds=0.5, open_growth=1, half_open_calls=2), 3600) == 14_400

    @pytest.mark.parametrize(
        ("share", "size", "failures"),
        [(0.5, 20, 10), (0.3, 10, 3), (0.31, 10, 4), (1.0, 5, 5), (0.01, 10, 1)],
    )
    def test_so_many_failures_open_what_was_well(self, share: float, size: int, failures: int) -> None:
        settings = Breaker(failure_rate=share, window_size=size, minimum_calls=1)
        assert failures_to_open(settings) == failures
        assert failures_to_open(Breaker(window="time")) is None

    def test_the_longest_time_is_the_deadline_or_the_sum_of_tries_and_waits(self) -> None:
        retry = Retry(max_attempts=3, base_seconds=1)
        assert longest_seconds(Policy(retry=retry)) is None
        assert longest_seconds(Policy(retry=retry, timeout=10)) == 3 * 10 + 1 + 2
        assert longest_seconds(Policy(retry=retry, timeout=10, max_wait=5)) == 3 * 15 + 3
        assert longest_seconds(Policy(timeout=10, breaker=Breaker(probe_lease_seconds=60))) == 70
        assert longest_seconds(Policy(timeout=10, deadline=20)) == 20


class TestWords:
    def test_a_policy_that_says_nothing_guards_nothing(self) -> None:
        assert steps(Policy(), {}) == []
        assert list(refusals(Policy())) == []
        assert guards_in_short(Policy()) == []
        assert bounds(Policy())["calls_to_what_is_down_for_an_hour"] is None

    def test_what_is_in_no_project_is_told_as_well(self) -> None:
        policy = Policy(
            retry=Retry(max_attempts=1),
            breaker=Breaker(window="time", window_size=120),
            limits=(RateLimit(rate=5, algorithm="sliding_window"),),
            bulkhead=Bulkhead(max_concurrent=1, adaptive=True, key="db"),
            budget=Budget(per="all", period="run", calls=7),
            fallback=Fallback(person="Is it right?", cached_seconds=90, person_seconds=3600),
            when_refused="fallback",
            without_store="open",
        )
        told = {step.guard: " ".join(step.says) for step in steps(policy, {})}

        assert (
            "the last good answer to the same task, if it is no older than 1 min 30 s; else ask a person"
            in (told["fallback"])
        )
        assert "So does what a guard refuses." in told["fallback"]
        assert told["retry"].startswith("A call is tried once")
        assert "of the calls of the last 2 min failed" in told["breaker"]
        assert "5 calls in 1 s, in the whole fleet: never more in any such time" in told["limits"]
        assert (
            "At most 1 call out at once, in the whole fleet; all who say 'db' share it." in told["bulkhead"]
        )
        assert told["budget"].startswith("All together may spend 7 calls in a DAG run.")
        assert list(refusals(policy))[::2] == [
            "A task falls back at once.",
            "While the store cannot be reached, all calls are refused.",
        ]

    def test_without_a_deadline_the_other_side_may_ask_for_more(self) -> None:
        told = " ".join(bounds_in_words(Policy(retry=Retry(), timeout=10)))
        assert "A call takes at most 33 s, and what the other side asks for by Retry-After." in told
