"""Promise P1: when ``send`` returns the message is on disk, and no SIGKILL of any process loses it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path

import postgres
import pytest

STORM = Path(__file__).with_name("storm.py")
KILLS, SECONDS = 20, 8


STORMS = {
    # Kind of storm, kills and seconds.
    "sqlite": ("real", KILLS, SECONDS),
    "sqlite-mutant": ("mutant", 10, 5),
    "postgresql": ("real", KILLS, SECONDS),
    "postgresql-cut-off": ("cut off", 4 * KILLS, SECONDS),
}


@contextlib.contextmanager
def start(folder, name):
    kind, kills, seconds = STORMS[name]
    here = folder / name
    here.mkdir()
    with contextlib.ExitStack() as stack:
        url = f"sqlite:///{here}/agentic.db"
        if name.startswith("postgresql"):
            url = f"{postgres.url_of(stack.enter_context(postgres.schema()))}&application_name={name}"
        (here / "url").write_text(url)
        command = [sys.executable, "-W", "error", str(STORM), str(here), kind, str(kills), str(seconds)]
        tests = os.pathsep.join((str(Path(postgres.__file__).parent), os.environ.get("PYTHONPATH", "")))
        pipes = dict.fromkeys(("stdout", "stderr"), subprocess.PIPE)
        process = subprocess.Popen(command, text=True, env={**os.environ, "PYTHONPATH": tests}, **pipes)
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def finish(process):
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert err == ""
    return json.loads(out)


@pytest.fixture(scope="module")
def storms(tmp_path_factory):
    """All of them, at the same time."""
    folder = tmp_path_factory.mktemp("storm")
    names = [name for name in STORMS if not (name.startswith("postgresql") and postgres.unreachable())]
    with contextlib.ExitStack() as stack:
        processes = {name: stack.enter_context(start(folder, name)) for name in names}
        return {name: finish(process) for name, process in processes.items()}


@pytest.fixture(params=[name for name in STORMS if not name.endswith("mutant")])
def books(request, storms):
    if request.param.startswith("postgresql"):
        postgres.require()
    return storms[request.param]


def test_no_message_is_lost_doubled_or_made_up_while_processes_or_connections_are_killed(books):
    assert books["sent"] > 200, "the storm had nothing to destroy"
    assert books["lost"] == 0
    assert books["ghosts"] == 0
    assert books["duplicates"] <= books["kills"] + books["stale"]
    assert books["stale"] <= 10, "leases ended without a kill: the machine is too slow for this test"
    assert books["open"] == 0
    assert books["done"] + books["dead"] == books["stored"]
    assert books["stored"] >= books["sent"]
    assert books["integrity"] == "ok"


def test_the_storm_finds_a_bus_that_acks_before_the_work_is_done(storms):
    assert storms["sqlite-mutant"]["lost"] > 0
    assert storms["sqlite-mutant"]["integrity"] == "ok"
