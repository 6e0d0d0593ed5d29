"""Which trials of durable runs there are, and who kills their workers: ``python runs_trials.py FOLDER NAME …``.

Each trial is watched by a process of its own, a few of them at a time; what came of it lies in the folder as JSON. All
are forks of one process that has imported everything and has no threads.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import multiprocessing
import multiprocessing.connection
import os
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest
import runs_books
import runs_mutants
import servers
from runs_watch import FORK, IS_LONG, Trial, Watch
from runs_workers import MODES

from airflow_agentic.stores import open_store

AT_ONCE = 3 if IS_LONG else 5
# In the short form Redis has its boundaries only: the rest takes it a minute.
_STORES = ("sqlite", "postgresql", "redis") if IS_LONG else ("sqlite", "postgresql")
_SERVERS = ("postgresql", "redis") if IS_LONG else ("postgresql",)
_PAIRS = {
    "sqlite": [("hybrid", "retry"), ("events", "skip"), ("snapshot", "ask"), ("checkpoint", "retry")],
    "postgresql": [("events", "skip"), ("snapshot", "ask")],
    "redis": [("hybrid", "retry")],
}
if IS_LONG:
    _EVERY_PAIR = [(mode, decision) for mode in MODES for decision in ("retry", "skip", "ask")]
    _PAIRS = dict.fromkeys(_STORES, _EVERY_PAIR)


def _trials(what: str, stores: tuple[str, ...], times: int = 0) -> dict[str, Trial]:
    return {
        f"{store}: {what.replace('_', ' ')}": Trial(what, store, "mixed", "mixed", times) for store in stores
    }


TRIALS = {
    **{
        f"{store}: each boundary, {mode}, {decision}": Trial("each_boundary", store, mode, decision)
        for store, pairs in _PAIRS.items()
        for mode, decision in pairs
    },
    **_trials("at_random", _STORES, 200 if IS_LONG else 15),
    **_trials("stops", _STORES),
    **_trials("two_at_once", _STORES, 20 if IS_LONG else 4),
    **_trials("power", _SERVERS, 25 if IS_LONG else 2),
    **_trials("power_at_boundaries", _SERVERS),
    **(_trials("one_boundary", _STORES) if IS_LONG else {}),
}
"""Everything that was done is known in any of these, and done once if it was finished."""
UNDISTURBED = _trials("undisturbed", _STORES)

BROKEN = {
    "sqlite: no intents": "silent",
    "sqlite: writes behind": "silent",
    "sqlite: no versions": "late",
    "sqlite: sends at once": "twice",
    "sqlite: says again": "differ",
}
"""And these break one promise each: what the books must show."""
MUTANTS = {
    "sqlite: no intents": Trial("each_boundary", mutant=runs_mutants.NO_INTENTS),
    "sqlite: writes behind": Trial("each_boundary", mutant=runs_mutants.WRITES_BEHIND),
    "sqlite: no versions": Trial("stops", mutant=runs_mutants.NO_VERSIONS),
    "sqlite: sends at once": Trial("each_boundary", mutant=runs_mutants.SENDS_AT_ONCE),
    "sqlite: says again": Trial("each_boundary", mutant=runs_mutants.SAYS_AGAIN),
}
EVERY = UNDISTURBED | TRIALS | MUTANTS


def run(name: str, trial: Trial, folder: Path) -> runs_books.Books:
    """Do a trial, and read the books."""
    own = trial.what.startswith("power")
    with servers.of_kind(trial.store, folder, own=own) as server:
        open_store(server.url).close()
        watch = Watch(name, trial, folder, server)
        getattr(watch, trial.what)()
        with open_store(server.url) as store:
            books = runs_books.account(watch.books, folder, store, trial.steps)
        assert server.integrity() == "ok"
    return books


# -- all of them -----------------------------------------------------------------------------------------


def _watch(name: str, folder: Path) -> None:
    """Be the process that watches a trial."""
    answer: dict[str, Any]
    place = folder / _file_name(name)
    place.mkdir()
    try:
        answer = dataclasses.asdict(run(name, EVERY[name], place))
    except pytest.skip.Exception as skipped:
        answer = {"excuse": str(skipped)}
    except BaseException:  # noqa: BLE001  # the test is to see it
        answer = {"error": traceback.format_exc()}
    written = place.with_suffix(".part")
    written.write_text(json.dumps(answer))
    written.rename(place.with_suffix(".json"))


def result_of(name: str, folder: Path) -> Path:
    """Where the result of a trial will be."""
    return (folder / _file_name(name)).with_suffix(".json")


def _file_name(name: str) -> str:
    return name.replace(": ", "-").replace(", ", "-").replace(" ", "_")


def main(folder: Path, *names: str) -> None:
    # What is there now stays as it is: a fork need not copy it.
    gc.freeze()
    waiting, running = [*names], {}
    parent = os.getppid()
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            process = FORK.Process(target=_watch, args=(waiting[0], folder))
            process.start()
            running[process.sentinel] = process
            waiting.pop(0)
        for sentinel in multiprocessing.connection.wait([*running], timeout=1):
            running.pop(sentinel).join()
        assert os.getppid() == parent, "nobody wants to know any more"


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
