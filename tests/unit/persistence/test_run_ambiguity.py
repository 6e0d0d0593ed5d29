from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import pytest
from run_parts import Breakable, Effects, Killed, memory_runs, types_of

from airflow_agentic.errors import AmbiguousStep, ConfigurationError
from airflow_agentic.persistence import Ambiguity, Runs, RunStatus

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def died(breakable: Breakable, runs: Runs) -> Effects:
    """A run that died in its only step: the effect took place, and nobody recorded its result."""
    effects = Effects()
    breakable.kill(2, "before")
    with pytest.raises(Killed), runs.open("a", "k") as run:
        run.step("pay", effects.do, "pay", "receipt")
    breakable.revive()
    assert effects["pay"] == 1
    return effects


def test_an_ambiguous_step_is_retried_by_default_and_that_is_reported(
    died: Effects, runs: Runs, caplog: pytest.LogCaptureFixture
) -> None:
    with runs.open("a", "k") as run:
        assert run.step("pay", died.do, "pay", "receipt") == "receipt"
        assert run.ambiguities == (Ambiguity("pay", "retry", "declared"),)
    assert died["pay"] == 2
    assert "step 'pay' died between intent and result" in caplog.text
    [said] = [each.data for each in runs.history("k") if each.type == "step.ambiguous"]
    assert said == {"by": "declared", "decision": "retry", "intended": 2}
    with runs.open("a", "k") as run:
        run.step("pay", died.do, "pay", "receipt")
        assert run.ambiguities == ()
    assert died["pay"] == 2


def test_an_ambiguous_step_that_is_skipped_counts_as_done_and_is_reported_each_time(
    died: Effects, runs: Runs
) -> None:
    for _ in range(2):
        with runs.open("a", "k") as run:
            assert run.step("pay", died.do, "pay", "receipt", on_ambiguous="skip") is None
            assert run.ambiguities == (Ambiguity("pay", "skip", "declared"),)
    assert died["pay"] == 1
    assert types_of(runs, "k").count("step.skipped") == 1


def test_a_skip_that_dies_is_a_skip_the_next_time_too(
    died: Effects, breakable: Breakable, runs: Runs
) -> None:
    for when in ("before", "after"):
        breakable.kill(1, when)
        with pytest.raises(Killed), runs.open("a", "k") as run:
            run.step("pay", died.do, "pay", on_ambiguous="skip")
        breakable.revive()
    with runs.open("a", "k") as run:
        assert run.step("pay", died.do, "pay", on_ambiguous="skip") is None
    assert died["pay"] == 1


def test_a_retry_that_dies_before_it_begins_is_not_taken_for_a_decision_of_a_person(
    died: Effects, breakable: Breakable, runs: Runs
) -> None:
    breakable.kill(1, "after")
    with pytest.raises(Killed), runs.open("a", "k") as run:
        run.step("pay", died.do, "pay", "receipt")
    breakable.revive()
    with pytest.raises(AmbiguousStep), runs.open("a", "k") as run:
        run.step("pay", died.do, "pay", "receipt", on_ambiguous="ask")
    assert died["pay"] == 1


def _skip(runs: Runs) -> int:
    return runs.by_hand.skip_step("k", "pay", actor="ann", reason="the bank says so", result="by hand")


def _retry(runs: Runs) -> int:
    return runs.by_hand.retry_step("k", "pay", actor="ann", reason="the bank knows nothing of it")


@pytest.mark.parametrize(
    ("settle", "result", "times", "reported"),
    [
        (_skip, "by hand", 1, Ambiguity("pay", "skip", "ann")),
        (_retry, "receipt", 2, Ambiguity("pay", "retry", "a person")),
    ],
)
def test_a_person_decides_about_an_ambiguous_step(
    died: Effects,
    runs: Runs,
    settle: Callable[[Runs], int],
    result: str,
    times: int,
    reported: Ambiguity,
) -> None:
    with pytest.raises(AmbiguousStep, match="runs skip-step k pay") as caught, runs.open("a", "k") as run:
        run.step("pay", died.do, "pay", "receipt", on_ambiguous="ask")
    assert (caught.value.key, caught.value.step) == ("k", "pay")
    assert runs.find("k").status == RunStatus.FAILED
    settle(runs)
    with runs.open("a", "k") as run:
        assert run.step("pay", died.do, "pay", "receipt", on_ambiguous="ask") == result
        assert run.ambiguities == (reported,)
    assert died["pay"] == times
    assert runs.verify("k") == []


def test_the_run_says_what_to_do_about_steps_that_do_not(died: Effects, runs: Runs) -> None:
    with pytest.raises(AmbiguousStep), runs.open("a", "k", on_ambiguous="ask") as run:
        run.step("pay", died.do, "pay")
    with runs.open("a", "k", on_ambiguous="ask") as run:
        assert run.step("pay", died.do, "pay", on_ambiguous="skip") is None


def test_a_pure_step_that_died_is_simply_done(breakable: Breakable, runs: Runs) -> None:
    breakable.kill(1, "before")
    with pytest.raises(Killed), runs.open("a", "k") as run:
        run.step("sum", sum, [1], pure=True)
    breakable.revive()
    with runs.open("a", "k") as run:
        assert run.step("sum", sum, [1], pure=True) == 1
        assert run.ambiguities == ()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, asyncio.CancelledError])
def test_a_step_that_is_interrupted_is_ambiguous(error: type[BaseException]) -> None:
    runs, effects = memory_runs(), Effects()

    def stop() -> None:
        effects.do("s")
        raise error

    with pytest.raises(error), runs.open("a", "k") as run:
        run.step("s", stop)
    assert types_of(runs, "k") == ["run.started", "step.intended"]
    assert runs.find("k").lease_until_ms == 0
    with runs.open("a", "k") as run:
        run.step("s", effects.do, "s")
        assert [each.decision for each in run.ambiguities] == ["retry"]


def test_a_coroutine_that_is_cancelled_is_ambiguous() -> None:
    runs, effects = memory_runs(), Effects()

    async def slow() -> None:
        effects.do("s")
        await asyncio.sleep(60)

    async def work() -> None:
        with runs.open("a", "k") as run:
            await asyncio.wait_for(run.astep("s", slow), 0.01)

    with pytest.raises(TimeoutError):
        asyncio.run(work())
    assert types_of(runs, "k") == ["run.started", "step.intended", "run.failed"]
    with pytest.raises(AmbiguousStep), runs.open("a", "k") as run:
        run.step("s", effects.do, "s", on_ambiguous="ask")


def test_a_step_that_failed_is_done_again_with_a_word_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    runs = memory_runs()
    with pytest.raises(ValueError, match="invalid"), runs.open("a", "k") as run:
        run.step("s", int, "x")
    with caplog.at_level(logging.INFO), runs.open("a", "k") as run:
        run.step("s", int, "1")
    assert "did not end well before, and is done again" in caplog.text


# -- code and arguments that changed -------------------------------------------------------------------


def _one(value: Any) -> Any:
    return value


def _other(value: Any) -> Any:
    return value, value


def test_a_finished_step_with_other_code_is_an_error_unless_something_else_is_said() -> None:
    from airflow_agentic.errors import StepChanged

    runs = memory_runs()
    with runs.open("a", "k") as run:
        run.step("s", _one, 1)
    with pytest.raises(StepChanged, match="its code changed"), runs.open("a", "k") as run:
        run.step("s", _other, 1)
    with pytest.raises(StepChanged, match="its arguments changed"), runs.open("a", "k") as run:
        run.step("s", _one, 2)
    with pytest.raises(StepChanged, match="its code and arguments changed"), runs.open("a", "k") as run:
        run.step("s", _other, 2)


def test_the_result_of_a_changed_step_is_kept_if_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    runs = memory_runs()
    with runs.open("a", "k") as run:
        run.step("s", _one, 1)
    with runs.open("a", "k") as run:
        assert run.step("s", _one, 2, on_change="keep") == 1
        assert run.ambiguities == ()
    assert "the arguments of step 's' changed; its result is kept" in caplog.text
    assert types_of(runs, "k").count("step.changed") == 1


def test_a_changed_step_is_done_again_if_that_is_said_and_it_is_reported(
    breakable: Breakable, runs: Runs
) -> None:
    with runs.open("a", "k") as run:
        run.step("s", _one, 1)
    for when in ("before", "after"):
        breakable.kill(1, when)
        with pytest.raises(Killed), runs.open("a", "k") as run:
            run.step("s", _one, 2, on_change="rerun")
        breakable.revive()
    with runs.open("a", "k") as run:
        assert run.step("s", _one, 2, on_change="rerun") == 2
        assert [each.decision for each in run.ambiguities] == ["retry"]
    with runs.open("a", "k") as run:
        assert run.step("s", _one, 3, on_change="rerun") == 3
        assert run.ambiguities == (Ambiguity("s", "rerun", "declared"),)
    assert runs.find("k").done == 1


def test_a_decision_about_a_step_that_is_settled_is_refused(runs: Runs) -> None:
    with runs.open("a", "k") as run:
        run.step("s", _one, 1)
    with pytest.raises(ConfigurationError, match="is finished"):
        runs.by_hand.skip_step("k", "s", actor="ann", reason="why not")
    with pytest.raises(ConfigurationError, match="not ambiguous"):
        runs.by_hand.retry_step("k", "s", actor="ann", reason="why not")
    with pytest.raises(ConfigurationError, match="actor= and reason="):
        runs.by_hand.skip_step("k", "other", actor=" ", reason="why not")
