"""Who watches the workers of durable runs, and kills them, stops them, or takes their server away."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import os
import random
import signal
import time
from typing import TYPE_CHECKING, Any

import runs_books
import runs_workers
import servers
from runs_workers import NOWHERE, Place, Stops

from airflow_agentic.persistence import RunQuery
from airflow_agentic.stores import open_store

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

IS_LONG = os.environ.get("CHAOS") == "long"
FORK = multiprocessing.get_context("fork")
_PATIENCE = 300 if IS_LONG else 120


@dataclasses.dataclass(frozen=True)
class Trial:
    """What is done to workers, and where.

    Attributes:
        what: Is done: the name of a method of :class:`Watch`.
        store: Kind of the store.
        persistence: As for :class:`runs_workers.Place`.
        on_ambiguous: The same.
        times: How often it is done, where nothing else says it.
        mutant: Which promise is broken, if any.
    """

    what: str
    store: str = "sqlite"
    persistence: str = "hybrid"
    on_ambiguous: str = "retry"
    times: int = 0
    mutant: str = ""

    @property
    def steps(self) -> int:
        if self.what in ("at_random", "power"):
            return 5
        if self.what == "each_boundary" and (self.mutant or self.persistence != "hybrid"):
            return 3 if IS_LONG and not self.mutant else 1
        return 3 if IS_LONG else 2

    @property
    def lease(self) -> float:
        return 2 if self.what == "stops" else 60


class Child:
    """A worker's process, and the line to it."""

    def __init__(self, place: Place, what: Callable[[runs_workers.Worker], Any], stops: Stops = NOWHERE):
        self._line, other = FORK.Pipe()
        self.process = FORK.Process(
            target=runs_workers.run_worker, args=(place, stops, other, what), daemon=True
        )
        self.process.start()
        other.close()

    def hear(self) -> tuple[str, ...]:
        """Return what it says next: ``at`` and where, or ``ended`` and how."""
        if not self._line.poll(_PATIENCE):
            raise AssertionError("a worker says nothing")
        try:
            said: tuple[str, ...] = self._line.recv()
        except EOFError:
            raise AssertionError("a worker ended by itself: see stderr") from None
        if said[0] == "ended":
            self.process.join()
        return said

    def end(self) -> tuple[str, ...]:
        """Let it work to its end, and say how that was."""
        kind, *how = self.hear()
        assert kind == "ended", f"it stopped at {how}"
        return tuple(how)

    def go_on(self) -> None:
        self._line.send("go on")

    def signal(self, number: int) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        self.process.join()
        assert self.process.exitcode == -signal.SIGKILL, "it had ended by itself: see stderr"
        self._line.close()


class Watch:
    """Who watches the workers of one trial, and does to them what it is about."""

    def __init__(self, name: str, trial: Trial, folder: Path, server: servers.Server):
        self.trial, self.server, self.folder = trial, server, folder
        self.books = runs_books.Books(name)
        self.place = Place(
            folder,
            server.url,
            trial.persistence,
            trial.on_ambiguous,
            trial.steps,
            trial.lease,
            pace=trial.what in ("at_random", "power"),
            mutant=trial.mutant,
        )

    def one(self, key: str, stops: Stops = NOWHERE) -> Child:
        """Start a worker on one run."""
        return Child(self.place, lambda worker: worker.one(key), stops)

    def many(self, through: int | None = None) -> Child:
        """Start a worker on all of them."""
        return Child(self.place, lambda worker: worker.many(through))

    def finish(self, key: str) -> None:
        while self.settled(self.one(key).end()):
            continue

    def settled(self, how: tuple[str, ...]) -> bool:
        """Do what a person would, if somebody is asked; return whether it must go on."""
        if how[0] != "ambiguous":
            # A journal that a mutant has spoilt shows in the books.
            assert how[0] == "finished" or self.trial.mutant, how
            return False
        _, key, step = how
        happened = any(line[:2] == (key, step) for line in runs_workers.effects(self.folder))
        about = {"actor": "a person", "reason": "looked at the effects"}
        with open_store(self.server.url) as store:
            if happened:
                number = int(step.rpartition("-")[2])
                store.runs.by_hand.skip_step(key, step, result=number * number, **about)
            else:
                store.runs.by_hand.retry_step(key, step, **about)
        return True

    # -- what happens ----------------------------------------------------------------------------------

    def undisturbed(self) -> None:
        """Disturb nobody: what comes of it is what must come of everything else."""
        for number in range(8):
            self.finish(f"run-{number}")

    def each_boundary(self) -> None:
        """Kill a worker at each boundary that none was killed at before, run after run, until nothing new comes."""
        passed: set[str] = set()
        for number in itertools.count():
            if not self._through(f"run-{number}", passed):
                break
        self.books.points = len(passed)
        # Nothing of what was meant to be hit was missed.
        missing = _boundaries(self.trial) - passed
        assert self.trial.mutant or not missing, f"nobody came to {sorted(missing)}"

    def _through(self, key: str, passed: set[str]) -> bool:
        """Bring a run to its end in spite of everything; return whether there was a new boundary."""
        before = len(passed)
        while True:
            child = self.one(key, Stops(unless=frozenset(passed)))
            kind, *rest = child.hear()
            if kind == "at":
                passed.add(rest[0])
                child.kill()
                self.books.kills += 1
            elif not self.settled(tuple(rest)):
                return len(passed) > before

    def one_boundary(self) -> None:
        """Kill a worker of each run once, each time at the next boundary; for all modes and decisions."""
        for number in range(10_000):
            child = self.one(f"run-{number}", Stops(number=number // 4))
            kind, *_ = child.hear()
            if kind == "ended":
                break
            child.kill()
            self.books.kills += 1
            self.finish(f"run-{number}")
        self.books.points = number // 4

    def at_random(self) -> None:
        """Kill one of two workers now and then."""
        self._rage(lambda: time.sleep(random.uniform(0.01, 0.12)))

    def power(self) -> None:
        """Take the server's power away now and then, and kill a worker now and then."""

        def restart() -> None:
            time.sleep(random.uniform(0.1, 0.5))
            self.server.restart()
            self.books.restarts += 1
            time.sleep(random.uniform(0.1, 0.5))

        self._rage(restart)

    def _rage(self, disturb: Callable[[], None]) -> None:
        children = [self.many(), self.many()]
        for _ in range(self.trial.times):
            disturb()
            number = random.randrange(len(children))
            children[number].kill()
            self.books.kills += 1
            children[number] = self.many()
        for child in children:
            child.kill()
            self.books.kills += 1
        with open_store(self.server.url) as store:
            heads = store.runs.find_all(RunQuery(limit=runs_books.ALL))
        last = max((int(head.stream.partition("-")[2]) for head in heads), default=0)
        assert self.many(last).end() == ("finished",)

    def power_at_boundaries(self) -> None:
        """Take the server's power away at each boundary, under a worker that lives on; of each decision one run."""
        # The last two find it there again, on a new connection.
        for number in (0, 4, 1, 5) if IS_LONG else (0, 4):
            child = self.one(f"run-{number}", Stops(unless=_AT_THE_SERVER))
            while (said := child.hear())[0] == "at":
                self._power_off()
                if number % 4:
                    self._power_on()
                child.go_on()
                time.sleep(random.uniform(0, 0.2))
                if not number % 4:
                    self._power_on()
                self.books.restarts += 1
                self.books.points += 1
            assert said[1] == "finished", said

    def _power_off(self) -> None:
        if isinstance(self.server, servers.PrivateRedis):
            self.server.private.kill()
        else:
            assert isinstance(self.server, servers.PrivatePostgres)
            self.server.cluster.stop()

    def _power_on(self) -> None:
        if isinstance(self.server, servers.PrivateRedis):
            self.server.private.start()
        else:
            assert isinstance(self.server, servers.PrivatePostgres)
            self.server.cluster.start()

    def stops(self) -> None:
        """Stop workers past their lease, let others do their runs, and let them go on: what they write is too late."""
        children = [self._stopped(f"run-{number}", point) for number, point in enumerate(_OF_A_STOP)]
        time.sleep(1.1 * self.trial.lease)
        for number, child in enumerate(children):
            key = f"run-{number}"
            assert self.one(key).end()[0] == "finished", "its lease does not end"
            before = self._version(key)
            child.go_on()
            child.signal(signal.SIGCONT)
            is_told = child.end()[0] == "taken"
            self.books.taken += is_told
            self.books.late += not is_told or self._version(key) != before
        self.books.points = len(children)

    def _stopped(self, key: str, point: str) -> Child:
        child = self.one(key, Stops(at=point))
        assert child.hear() == ("at", point)
        child.signal(signal.SIGSTOP)
        self.books.stops += 1
        self.books.taken += self.one(key).end()[0] == "taken"
        return child

    def two_at_once(self) -> None:
        """Let two workers begin the same run in the same moment; and one come when the other is in the middle."""
        for number in range(0, 2 * self.trial.times, 2):
            first = f"before step.intended {_STEP}"
            children = [self.one(f"run-{number}", Stops(at=first)) for _ in range(2)]
            for child in children:
                assert child.hear() == ("at", first)
            for child in children:
                child.go_on()
            self._count_winner([child.end()[0] for child in children])

            middle = f"after the effect of {_STEP}"
            child = self.one(f"run-{number + 1}", Stops(at=middle))
            assert child.hear() == ("at", middle)
            before = self._version(f"run-{number + 1}")
            late = self.one(f"run-{number + 1}").end()[0]
            self.books.late += self._version(f"run-{number + 1}") != before
            child.go_on()
            self._count_winner([late, child.end()[0]])
        self.books.points = 2

    def _count_winner(self, ends: list[str]) -> None:
        assert sorted(ends) == ["finished", "taken"]
        self.books.taken += 1

    def _version(self, key: str) -> tuple[Any, ...]:
        with open_store(self.server.url) as store:
            head = store.runs.find(key)
            return head.version, head.digest, head.status, head.lease_until_ms


_STEP = "step-1"
_OF_A_STOP = (
    f"before step.intended {_STEP}",
    f"before the effect of {_STEP}",
    f"after the effect of {_STEP}",
    f"before step.done {_STEP}",
    f"after step.done {_STEP}",
    "before event value 1",
    "before checkpoint half",
    "before run.finished run",
)
"""Where workers are stopped past their lease."""


def _boundaries(trial: Trial) -> set[str]:
    """Where workers of a trial come, whatever else may come between."""
    commits, in_the_middle = ["run.finished run", "checkpoint half"], ["run.finished run"]
    effects = []
    for step in (f"step-{number}" for number in range(1, trial.steps + 1)):
        commits += [
            f"step.intended {step}",
            f"step.done {step}",
            f"event value {step[-1]}",
            f"event sum {step[-1]}",
        ]
        commits += [f"step.skipped {step}"] if trial.on_ambiguous == "skip" else []
        in_the_middle += [f"step.done {step}"]
        effects += [f"the effect of {step}"]
    found = {f"{when} {what}" for what in commits + effects for when in ("before", "after")}
    return found if trial.store == "redis" else found | {f"in {what}" for what in in_the_middle}


_OF_THE_SERVER = {
    f"before step.done {_STEP}",
    f"in step.done {_STEP}",
    "before run.finished run",
}
_EVERY = _boundaries(Trial("power_at_boundaries", on_ambiguous="skip"))
_AT_THE_SERVER = frozenset() if IS_LONG else frozenset(_EVERY - _OF_THE_SERVER)
"""Boundaries where the server is left alone."""
