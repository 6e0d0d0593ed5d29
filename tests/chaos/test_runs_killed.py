"""Promise P7: what is finished in a run is not done again, whoever dies when; what may have been done twice is told.

The books are in ``runs_books.py``, what the workers do in ``runs_workers.py``, and who kills them in ``runs_trials.py``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import postgres
import pytest
import runs_books
import runs_trials
import servers
from runs_trials import BROKEN, EVERY, MUTANTS, TRIALS, UNDISTURBED
from runs_workers import BOX

from airflow_agentic.errors import StoreUnavailable
from airflow_agentic.messaging import Message
from airflow_agentic.messaging.ports import DeliveryQuery
from airflow_agentic.persistence import current_step
from airflow_agentic.stores import open_store

_HERE = Path(__file__).parent
_PATIENCE = 3_600 if runs_trials.IS_LONG else 280
ENOUGH = 200 if runs_trials.IS_LONG else 40
MARKERS = b"COMMIT", b"step.done"
"""What is in the request that keeps a result: of a transaction, with a message, or of one statement."""
BOUNDARIES = [name for name, trial in TRIALS.items() if trial.what == "each_boundary"]


class Trials:
    """The process that does all trials that tests ask for, a few of them at a time, from now on."""

    def __init__(self, folder, names):
        self.folder, self.names = folder, names
        python_path = os.pathsep.join((str(_HERE), str(_HERE.parent), os.environ.get("PYTHONPATH", "")))
        with (folder / "stderr").open("w") as err:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", runs_trials.__file__, str(folder), *names],
                stderr=err,
                # A group of its own: it ends with all that it started.
                start_new_session=True,
                env={**os.environ, "PYTHONPATH": python_path},
            )

    def books_of(self, name):
        path, deadline = runs_trials.result_of(name, self.folder), time.monotonic() + _PATIENCE
        while not path.exists():
            assert self._process.poll() is None, self.said()
            assert time.monotonic() < deadline, f"the trial takes too long\n{self.said()}"
            time.sleep(0.05)
        answer = json.loads(path.read_text())
        assert "error" not in answer, f"{answer['error']}\n{self.said()}"
        if "excuse" in answer:
            pytest.skip(answer["excuse"])
        return runs_books.Books(**answer)

    def said(self):
        return (self.folder / "stderr").read_text()[-3_000:]

    def end(self):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def trials_of(item):
    """Which trials a test is about."""
    if item.path != Path(__file__):
        return ()
    if "trial" in getattr(item, "fixturenames", ()):
        return (item.callspec.params["trial"],)
    return TRIALS if "every_trial" in getattr(item, "fixturenames", ()) else ()


@pytest.fixture(scope="module")
def trials(request, tmp_path_factory):
    wanted = {name for item in request.session.items for name in trials_of(item)}
    if any("postgresql" in name for name in wanted):
        postgres.unreachable()  # Looked for once; the processes are told where it is.
    running = Trials(tmp_path_factory.mktemp("runs"), [name for name in EVERY if name in wanted])
    try:
        yield running
        if runs_trials.IS_LONG:
            found = [running.books_of(name) for name in running.names]
            manager = request.config.pluginmanager.getplugin("capturemanager")
            with manager.global_and_fixture_disabled():
                print(f"\n\n{runs_books.table(found)}\n")
    finally:
        running.end()


@pytest.fixture
def found(trial, trials):
    """The books of the trial that the test is about."""
    return trials.books_of(trial)


@pytest.fixture
def every_trial(trials):
    """The books of all trials but those of mutants."""
    return [trials.books_of(name) for name in TRIALS]


@pytest.mark.parametrize("trial", UNDISTURBED)
def test_undisturbed_runs_have_one_effect_a_step_and_nothing_to_tell(trial, found):
    assert not found.faults(), f"\n{runs_books.table([found])}"
    assert found.effects == found.steps > 0
    assert (found.repeats, found.retried, found.skipped, found.taken) == (0, 0, 0, 0)


@pytest.mark.parametrize("trial", TRIALS)
def test_nothing_finished_is_done_again_nothing_is_lost_and_every_repeat_is_told(trial, found):
    assert not found.faults(), f"\n{runs_books.table([found])}"
    assert found.kills + found.restarts + found.stops + found.taken > 0, "nothing was done to anybody"
    assert found.steps >= found.runs > 0
    # Outside of the store nobody is exactly-once: as many more as the journals tell of, and no more.
    assert found.steps - found.skipped <= found.effects <= found.steps + found.retried


@pytest.mark.parametrize("trial", BOUNDARIES)
def test_an_ambiguous_step_is_handled_as_it_declares(trial, found):
    decision = TRIALS[trial].on_ambiguous
    if decision == "retry":
        assert found.repeats > 0, "nobody died after an effect"
        assert found.retried > found.repeats, "nobody died before an effect"
        assert found.skipped == 0
    elif decision == "skip":
        assert (found.repeats, found.retried) == (0, 0)
        assert found.skipped > 0
    else:
        # A person can look, and so it is exactly once.
        assert found.repeats == 0
        assert min(found.retried, found.skipped) > 0
        assert found.effects == found.steps


@pytest.mark.parametrize("trial", [name for name, trial in TRIALS.items() if trial.what == "stops"])
def test_a_worker_that_was_stopped_past_its_lease_is_told_that_another_one_has_the_run(trial, found):
    # Each of them, else the books show it; and somebody who came before the lease had ended.
    assert found.taken > found.stops > 0


@pytest.mark.parametrize("trial", [name for name, trial in TRIALS.items() if trial.what == "two_at_once"])
def test_of_two_workers_on_one_run_one_wins_and_the_other_one_does_nothing(trial, found):
    assert found.taken == found.runs > 0
    assert found.effects == found.steps


def test_enough_was_killed(every_trial):
    killed, restarted = (sum(getattr(each, what) for each in every_trial) for what in ("kills", "restarts"))
    print(
        f"{killed} SIGKILLs, {restarted} servers stopped, {sum(each.repeats for each in every_trial)} repeats, none silent"
    )
    assert killed >= ENOUGH
    assert restarted >= ENOUGH / 20


def test_every_mutant_has_a_test():
    assert set(BROKEN) == set(MUTANTS)


@pytest.mark.parametrize("trial", MUTANTS)
def test_the_books_show_which_promise_is_broken(trial, found):
    assert BROKEN[trial] in found.faults(), f"\n{runs_books.table([found])}"


@pytest.fixture(scope="module")
def behind(tmp_path_factory):
    """A server, and what lies between it and its clients."""
    with servers.of_kind("postgresql", tmp_path_factory.mktemp("store"), own=True) as server:
        open_store(server.url).close()
        with server.behind() as between:
            yield server, between


@pytest.mark.parametrize("fate", ["cut_answer", "cut_request"])
@pytest.mark.parametrize("marker", MARKERS, ids=["with a message", "alone"])
def test_a_result_whose_request_or_answer_is_lost_is_kept_once(behind, marker, fate):
    server, between = behind
    key, done = f"{fate}-{len(marker)}", []

    def effect():
        done.append(getattr(between, fate)(marker))
        return _sends_if(marker)

    with open_store(server.url) as store:
        with store.run("worker", key=key) as run:
            assert run.step("effect", effect) == 7
        assert done[0].is_set()
        assert (len(done), _sent(store, key)) == (1, marker == b"COMMIT")
        assert _types(store, key) == ["run.started", "step.intended", "step.done", "run.finished"]
        assert not store.verify(key)


@pytest.mark.parametrize("marker", MARKERS, ids=["with a message", "alone"])
def test_a_result_that_the_server_never_got_leaves_the_step_ambiguous_and_not_failed(behind, marker):
    server, _between = behind
    key, done = f"away-{len(marker)}", []

    def effect():
        if not done:
            server.cluster.stop()
        done.append(1)
        return _sends_if(marker)

    with open_store(server.cluster.url) as store:
        try:
            with pytest.raises(StoreUnavailable), store.run("worker", key=key) as run:
                run.step("effect", effect)
        finally:
            server.cluster.start()
        assert _sent(store, key) == 0
        with store.run("worker", key=key) as run:
            assert run.step("effect", effect) == 7
            [ambiguity] = run.ambiguities
        assert (ambiguity.step, ambiguity.decision) == ("effect", "retry")
        assert (len(done), _sent(store, key)) == (2, marker == b"COMMIT")
        types = _types(store, key)
        assert types.count("step.ambiguous") == types.count("step.done") == 1
        assert "step.failed" not in types
        assert not store.verify(key)


def _sends_if(marker):
    step = current_step()
    if marker == b"COMMIT":
        step.outbox.append(Message(source="test", recipient=BOX, correlation_id=step.run))
    return 7


def _sent(store, key):
    return len(store.bus.find(DeliveryQuery(mailbox=BOX, correlation_id=key)))


def _types(store, key):
    return [event.type for event in store.history(key)]
