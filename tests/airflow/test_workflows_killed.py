"""A debate of three agents over twenty rounds is killed five times, and finished: no turn that was finished is asked again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from airflow_agentic.persistence.ports import RunStatus
from airflow_agentic.persistence.records import RecordType

SCRIPT = Path(__file__).with_name("debating.py")
TURNS = 60
KILLS = (7, 18, 19, 40, 59)


def spoken(folder):
    return Counter(int(line.split()[0]) for line in (folder / "said").read_text().splitlines())


@pytest.mark.timeout(300)
def test_it_goes_on_at_its_turn(tmp_path, store):
    ended = []
    for try_number, at in enumerate((*KILLS, None), start=1):
        command = [
            sys.executable,
            str(SCRIPT),
            str(tmp_path),
            str(try_number),
            *([] if at is None else [str(at)]),
        ]
        done = subprocess.run(command, env=os.environ, check=False, capture_output=True, text=True)
        ended.append(done.returncode)
    assert ended == [-signal.SIGKILL] * len(KILLS) + [0], done.stderr[-3000:]
    # In an even turn the agent had spoken, and the kill came before that was recorded: asked again, and reported.
    again = {at for at in KILLS if not at % 2}
    assert spoken(tmp_path) == Counter({number: 2 if number in again else 1 for number in range(TURNS)})
    result = json.loads((tmp_path / "result.json").read_text())
    assert [turn["answer"]["number"] for turn in result["turns"]] == list(range(TURNS))
    key = "debate/killed/r/debate.rounds"
    kinds = Counter(event.type for event in store.history(key))
    assert (kinds[RecordType.DONE], kinds[RecordType.AMBIGUOUS]) == (TURNS, len(KILLS))
    assert (store.runs.find(key).status, list(store.verify(key))) == (RunStatus.FINISHED, [])
    sent = [each.message.data for each in store.bus.receive("minutes", max_messages=100)]
    assert sorted(sent) == list(range(TURNS))
