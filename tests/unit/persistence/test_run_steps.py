from __future__ import annotations

import asyncio
import functools
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from pydantic import BaseModel
from run_parts import Breakable, Effects, Killed, dying, memory_runs, types_of

from airflow_agentic.errors import ConfigurationError, NotRecordable, RunNotFound, RunTaken, StepsDiffer
from airflow_agentic.messaging import Message
from airflow_agentic.persistence import RunStatus, current_step

if TYPE_CHECKING:
    from airflow_agentic.persistence import Runs
    from airflow_agentic.stores import Store


class Ticket(BaseModel):
    number: int
    tags: tuple[str, ...] = ()


def test_a_finished_step_answers_from_the_journal(runs: Runs) -> None:
    effects = Effects()
    with dying(runs) as run:
        assert run.step("read", effects.do, "read", {"n": 1}) == {"n": 1}
    with runs.open("a", "k") as run:
        assert run.is_replayed
        assert run.step("read", effects.do, "read", {"n": 1}) == {"n": 1}
        assert run.step("write", effects.do, "write") is None
    assert effects.counts == {"read": 1, "write": 1}
    assert types_of(runs, "k") == [
        "run.started", "step.intended", "step.done",
        "run.resumed", "step.intended", "step.done", "run.finished",
    ]  # fmt: skip


def test_a_result_is_the_same_the_first_time_and_from_the_journal() -> None:
    runs = memory_runs()
    results: list[Any] = []
    for _ in range(2):
        with dying(runs) as run:
            results.append(run.step("tuple", lambda: (1, [Ticket(number=7, tags=("x",))], {2: "two"})))
    assert results[0] == results[1] == [1, [{"number": 7, "tags": ["x"]}], {"2": "two"}]


def test_a_large_result_is_the_same_the_first_time_too() -> None:
    from run_parts import Shelf

    runs = memory_runs(shelf=Shelf(), inline_bytes=10)
    results: list[Any] = []
    for _ in range(2):
        with dying(runs) as run:
            results.append(run.step("tuple", lambda: (1, {2: "x" * 100})))
    assert results[0] == results[1] == [1, {"2": "x" * 100}]


def test_a_name_that_comes_again_is_another_step(runs: Runs) -> None:
    with runs.open("a", "k") as run:
        assert [run.step("n", int, str(n)) for n in range(3)] == [0, 1, 2]
    assert runs.at("k", runs.find("k").version).steps == ("n", "n#2", "n#3")
    with runs.open("a", "k") as run:
        assert [run.step("n", int, str(n)) for n in range(3)] == [0, 1, 2]


def test_a_step_that_raises_is_done_again_the_next_time_and_its_error_is_kept(runs: Runs) -> None:
    answers = iter([ValueError("no\0 \ud800"), None])

    def flaky() -> str:
        if error := next(answers):
            raise error
        return "yes"

    with pytest.raises(ValueError, match="no"), runs.open("a", "k") as run:
        run.step("flaky", flaky)
    head = runs.find("k")
    assert (head.status, head.category) == (RunStatus.FAILED, "transient")
    assert head.error == "ValueError: no\\0 ?"
    with runs.open("a", "k") as run:
        assert run.step("flaky", flaky) == "yes"
    assert types_of(runs, "k")[:4] == ["run.started", "step.intended", "step.failed", "run.failed"]
    assert runs.find("k").error == ""


def test_an_error_that_cannot_say_what_it_is_is_recorded_all_the_same() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    def fail() -> None:
        raise MuteError

    runs = memory_runs()
    with pytest.raises(MuteError), runs.open("a", "k") as run:
        run.step("s", fail)
    assert runs.find("k").error == "MuteError"


@pytest.mark.parametrize(
    ("result", "place"),
    [
        ({"user": {"tags": {1, 2}}}, "['user']['tags'] is a set"),
        ([1, float("nan")], "[1] is nan"),
        ({"half": "\ud800"}, "['half'] has half a surrogate pair"),
        (b"x", "is a bytes"),
    ],
)
def test_a_result_that_is_not_json_is_refused_and_the_place_in_it_named(result: Any, place: str) -> None:
    runs = memory_runs()
    with pytest.raises(NotRecordable) as caught, runs.open("a", "k") as run:
        run.step("s", lambda: result)
    assert place in str(caught.value)
    assert "step 's'" in str(caught.value)


def test_a_result_that_contains_itself_is_refused() -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(NotRecordable, match="contains itself"), memory_runs().open("a", "k") as run:
        run.step("s", lambda: endless)


def test_a_step_whose_result_was_refused_is_ambiguous_for_its_effect_took_place() -> None:
    runs, effects = memory_runs(), Effects()
    with pytest.raises(NotRecordable), runs.open("a", "k") as run:
        run.step("s", lambda: effects.do("s", {1}))
    with runs.open("a", "k") as run:
        run.step("s", lambda: effects.do("s", [1]))
        assert [(each.step, each.decision) for each in run.ambiguities] == [("s", "retry")]
    assert effects["s"] == 2


@pytest.mark.parametrize("name", ["", "x" * 201])
def test_a_step_needs_a_name_of_some_length(name: str) -> None:
    with pytest.raises(ConfigurationError, match="1 to 200 characters"), memory_runs().open("a", "k") as run:
        run.step(name, int)


@pytest.mark.parametrize("name", ["a\0b", "a\ud800"])
def test_a_name_that_not_every_store_keeps_is_refused(runs: Runs, name: str) -> None:
    effects = Effects()
    with pytest.raises(ConfigurationError, match="NUL or half a character"), runs.open("a", "k") as run:
        run.step(name, effects.do, "s")
    assert effects["s"] == 0


@pytest.mark.parametrize("options", [{"on_ambiguous": "maybe"}, {"on_change": "ignore"}])
def test_a_decision_that_is_none_is_refused_before_anything_is_done(options: Any) -> None:
    effects = Effects()
    with pytest.raises(ConfigurationError, match="it is one of"), memory_runs().open("a", "k") as run:
        run.step("s", effects.do, "s", **options)
    assert effects["s"] == 0


def test_a_step_within_a_step_is_refused() -> None:
    runs = memory_runs()
    with pytest.raises(ConfigurationError, match="within step 'outer'"), runs.open("a", "k") as run:
        run.step("outer", lambda: run.step("inner", int))


def test_a_step_cannot_wait() -> None:
    runs = memory_runs()
    with pytest.raises(NotRecordable, match="cannot wait"), runs.open("a", "k") as run:
        run.step("s", lambda: run.interrupt("May I?"))


def test_a_step_knows_its_idempotency_key_and_whether_it_is_a_repeat(
    breakable: Breakable, runs: Runs
) -> None:
    seen: list[tuple[str, bool]] = []

    def look() -> None:
        step = current_step()
        assert step is not None
        seen.append((step.idempotency_key, step.is_repeat))

    breakable.kill(2, "before")
    with pytest.raises(Killed), runs.open("a", "k") as run:
        run.step("s", look)
    breakable.revive()
    with runs.open("a", "k") as run:
        run.step("s", look)
        run.step("named", look, idempotency_key="order-7")
    assert seen == [("k/s", False), ("k/s", True), ("order-7", False)]
    assert current_step() is None


def test_a_pure_step_is_recorded_once_and_has_no_intent(runs: Runs) -> None:
    with runs.open("a", "k") as run:
        assert run.step("sum", sum, [1, 2], pure=True) == 3
    assert types_of(runs, "k") == ["run.started", "step.done", "run.finished"]


def test_what_a_step_sends_leaves_with_its_result_and_only_once(store: Store) -> None:
    def send(*, fails: bool) -> None:
        step = current_step()
        assert step is not None
        step.outbox.append(Message(source="a", recipient="b", type="t", data={}))
        if fails:
            raise OSError("away")

    with pytest.raises(OSError, match="away"), store.run("a", "k") as run:
        run.step("send", send, fails=True)
    assert store.bus.receive("b") == []
    for _ in range(2):
        with store.run("a", "k") as run:
            run.step("send", send, fails=True, on_change="keep") if run.was_finished else run.step(
                "send", send, fails=False
            )
    assert len(store.bus.receive("b", max_messages=10)) == 1
    sent = [each.data["sent"] for each in store.history("k") if each.type == "step.done"]
    assert len(sent[0]) == 1


def test_the_state_of_a_run_is_not_touched_by_who_changes_the_copy() -> None:
    with memory_runs().open("a", "k") as run:
        run.emit({"list": [1]})
        run.state["list"].append(2)
        assert run.state == {"list": [1]}


# -- side by side --------------------------------------------------------------------------------------


async def _after(seconds: float, result: Any) -> Any:
    await asyncio.sleep(seconds)
    return result


def test_coroutines_run_as_steps_side_by_side(runs: Runs) -> None:
    plain: Any = int

    async def work() -> list[Any]:
        with runs.open("a", "k") as run:
            slow, fast = run.astep("slow", _after, 0.02, 1), run.step("fast", _after, 0, 2)
            return list(await asyncio.gather(slow, fast, run.astep("plain", plain, "3")))

    assert asyncio.run(work()) == [1, 2, 3]
    assert asyncio.run(work()) == [1, 2, 3]
    assert types_of(runs, "k").count("step.done") == 3


def test_a_plain_step_that_returns_a_coroutine_says_to_await_it() -> None:
    with pytest.raises(ConfigurationError, match=r"await run\.astep"), memory_runs().open("a", "k") as run:
        run.step("s", lambda: _after(0, 1))


def test_an_object_whose_calls_are_coroutines_can_be_a_step() -> None:
    class Caller:
        async def __call__(self) -> int:
            return 7

    async def work() -> Any:
        with memory_runs().open("a", "k") as run:
            awaited: Any = run.step("s", Caller())
            return await awaited

    assert asyncio.run(work()) == 7


def test_a_branch_that_runs_ahead_in_a_replay_is_no_false_alarm(breakable: Breakable, runs: Runs) -> None:
    """In the first try both branches had begun; in the second one the first branch is answered at once and goes on."""
    effects = Effects()

    async def branch(run: Any, name: str, seconds: float) -> None:
        for n in (1, 2):
            await run.astep(f"{name}{n}", self_made, name, n, seconds)

    async def self_made(name: str, n: int, seconds: float) -> None:
        effects.do(f"{name}{n}")
        await asyncio.sleep(seconds)

    async def work() -> None:
        with runs.open("a", "k") as run:
            await asyncio.gather(branch(run, "x", 0.0), branch(run, "y", 0.05))
            assert run.ambiguities == () or effects["y1"] == 2

    breakable.kill(4, "before")  # x1 is done, y1 has begun, and the next write does not come about
    with pytest.raises(Killed):
        asyncio.run(work())
    breakable.revive()
    assert types_of(runs, "k").count("step.intended") == 2
    asyncio.run(work())
    assert effects.counts == {"x1": 1, "x2": 1, "y1": 2, "y2": 1}


def test_a_branch_that_stood_still_the_last_time_is_no_false_alarm(breakable: Breakable, runs: Runs) -> None:
    """Nothing else went on when the second branch was interrupted: only the branch itself tells that it is one."""
    effects = Effects()

    async def first(run: Any, seconds: float) -> None:
        await run.astep("x1", _done_at_once, effects, "x1")
        if seconds:
            await asyncio.sleep(seconds)
        await run.astep("x2", _done_at_once, effects, "x2")

    async def work(seconds: float) -> None:
        with runs.open("a", "k") as run:
            await asyncio.gather(first(run, seconds), run.astep("y1", _done_at_once, effects, "y1"))

    breakable.kill(4, "before")  # the result of y1
    with pytest.raises(Killed):
        asyncio.run(work(0.05))
    breakable.revive()
    asyncio.run(work(0))
    assert effects.counts == {"x1": 1, "x2": 1, "y1": 2}


async def _done_at_once(effects: Effects, name: str) -> None:
    effects.do(name)


def test_what_branches_say_is_known_by_what_came_before_it_in_the_branch(runs: Runs) -> None:
    async def branch(run: Any, name: str, seconds: float) -> None:
        for n in (1, 2):
            await run.astep(f"{name}{n}", _after, seconds, n)
            run.emit({"last": f"{name}{n}"})

    async def work(*seconds: float) -> None:
        with dying(runs) as run:
            branches = zip("xyz", seconds, strict=True)
            await asyncio.gather(*(branch(run, name, seconds) for name, seconds in branches))

    asyncio.run(work(0.03, 0.0, 0.01))
    said = [each.data["event"]["last"] for each in runs.history("k") if each.type == "event"]
    assert sorted(said) == ["x1", "x2", "y1", "y2", "z1", "z2"] != said
    asyncio.run(work(0.03, 0.0, 0.01))
    assert runs.find("k").version == 1 + 12 + 6


def test_threads_share_a_run(runs: Runs) -> None:
    effects, barrier = Effects(), threading.Barrier(4)

    def work(run: Any, n: int) -> int:
        barrier.wait()
        return sum(run.step(f"{n}-{m}", effects.do, f"{n}-{m}", m) for m in range(10))

    with runs.open("a", "k") as run, ThreadPoolExecutor(4) as pool:
        assert list(pool.map(functools.partial(work, run), range(4))) == [45] * 4
    assert runs.find("k").done == 40
    assert list(runs.verify("k")) == []
    with runs.open("a", "k") as run, ThreadPoolExecutor(4) as pool:
        assert list(pool.map(functools.partial(work, run), range(4))) == [45] * 4
    assert set(effects.counts.values()) == {1}


def test_a_straggler_of_a_run_that_was_given_back_cannot_write(runs: Runs) -> None:
    go_on, errors = threading.Event(), []

    def slow() -> None:
        go_on.wait(5)

    def work(run: Any) -> None:
        try:
            run.step("slow", slow)
        except RunTaken as error:
            errors.append(error)

    run = runs.open("a", "k")
    run.step("first", int)
    thread = threading.Thread(target=work, args=(run,))
    thread.start()
    while runs.find("k").step != "slow":
        pass
    run.close()
    go_on.set()
    thread.join()
    assert len(errors) == 1
    assert types_of(runs, "k")[-1] == "step.intended"


def test_a_run_that_has_ended_is_not_written_to(runs: Runs) -> None:
    with runs.open("a", "k") as run:
        run.emit({"n": 1})
        run.finish("done")
        with pytest.raises(ConfigurationError, match="has ended"):
            run.emit({"n": 2})
    assert runs.find("k").status == RunStatus.FINISHED
    assert runs.open("a", "k").state == {"n": 1}


# -- names that differ ---------------------------------------------------------------------------------


def test_names_of_steps_that_differ_each_time_are_found_before_anything_is_done(
    breakable: Breakable, runs: Runs
) -> None:
    effects = Effects()
    breakable.kill(2, "before")
    with pytest.raises(Killed), runs.open("a", "k") as run:
        run.step("at-12:00:01", effects.do, "s")
    breakable.revive()
    with pytest.raises(StepsDiffer, match=r"interrupted in step 'at-12:00:01'"), runs.open("a", "k") as run:
        run.step("at-12:00:02", effects.do, "s")
    assert effects["s"] == 1


def test_a_step_that_was_left_in_the_middle_and_never_asked_for_again_is_named_at_the_end(
    breakable: Breakable, runs: Runs
) -> None:
    breakable.kill(2, "before")
    with pytest.raises(Killed), runs.open("a", "k") as run:
        run.step("left", int)
    breakable.revive()
    with pytest.raises(StepsDiffer, match="now ends"), runs.open("a", "k"):
        pass
    assert runs.find("k").status == RunStatus.FAILED
    runs.by_hand.skip_step("k", "left", actor="ann", reason="the code was changed")
    with runs.open("a", "k"):
        pass
    assert runs.find("k").status == RunStatus.FINISHED


def test_a_step_that_is_forgotten_is_not_done_again_without_a_word() -> None:
    runs, effects = memory_runs(persistence="checkpoint"), Effects()
    with runs.open("a", "k") as run:
        run.step("s", effects.do, "s")
        run.finish({"n": 1})
    assert runs.prune("k") == 4
    run = runs.open("a", "k")
    assert run.result == {"n": 1}
    with pytest.raises(RunNotFound, match="was forgotten"):
        run.step("s", effects.do, "s")
    assert effects["s"] == 1
