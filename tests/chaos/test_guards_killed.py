"""What a process was told about documents of guards is so, whoever dies then; what nobody was told may be."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import counters
import pytest
import servers

from airflow_agentic.errors import StoreUnavailable
from airflow_agentic.resilience.ports import GuardChange, GuardKey
from airflow_agentic.stores import open_store

_AT_ONCE = 3
_ROUNDS = 2
_FIRST = 15
"""So many changes of each process before it is killed."""


@pytest.fixture(params=["sqlite", "postgresql", "redis"])
def kind(request):
    return request.param


@pytest.fixture
def server(kind, tmp_path):
    with servers.of_kind(kind, tmp_path, own=True) as one:
        yield one


class Counter:
    """A process that counts."""

    def __init__(self, url, path):
        self._path = path
        with path.open("wb") as out:
            self._process = subprocess.Popen([sys.executable, Path(counters.__file__), url], stdout=out)

    def said(self):
        return [int(line) for line in self._path.read_text().splitlines()]

    def kill_when_it_has_said(self, count):
        deadline = time.monotonic() + 60
        while len(self.said()) < count:
            assert self._process.poll() is None, "it ended by itself"
            assert time.monotonic() < deadline, "it says nothing"
            time.sleep(0.005)
        time.sleep(random.uniform(0, 0.02))
        self.kill()

    def kill(self):
        self._process.kill()
        assert self._process.wait() == -signal.SIGKILL


def test_what_killed_processes_said_is_there_and_nothing_is_half_there(kind, server, tmp_path):
    open_store(server.url).close()
    said, killed = [], 0
    for turn in range(_ROUNDS):
        running = [Counter(server.url, tmp_path / f"{turn}-{number}") for number in range(_AT_ONCE)]
        try:
            for each in running:
                each.kill_when_it_has_said(_FIRST)
        finally:
            for each in running:
                each.kill()
        killed += _AT_ONCE
        if kind != "sqlite":
            server.restart()
        for each in running:
            said += each.said()
        with open_store(server.url) as store:
            found = store.guards.read(counters.KEYS).entries
        [(value, version)] = {(int(entry.value), entry.version) for entry in found.values()}
        assert len(found) == len(counters.KEYS)
        assert value == version
        # Nobody made a number that another one made; and each that was killed may have made one that it did not say.
        assert len(set(said)) == len(said)
        assert max(said) <= version <= len(said) + killed
    assert server.integrity() == "ok"


@pytest.mark.parametrize("kind", ["postgresql", "redis"], indirect=True)
@pytest.mark.parametrize("names", [("one",), ("one", "another")], ids=["one document", "two documents"])
@pytest.mark.parametrize("fate", ["cut_answer", "cut_request"])
def test_a_change_whose_answer_is_lost_is_not_repeated_and_nobody_is_told_that_it_failed(
    kind, server, names, fate
):
    changed = [GuardKey("breaker", name) for name in names]
    with server.behind() as between, open_store(server.url) as store:
        for expected in (0, 1):  # the server knows the script then
            assert store.guards.change([GuardChange(key, b"before", expected) for key in changed])
        happened = getattr(between, fate)(b"after")
        with pytest.raises(StoreUnavailable):
            store.guards.change([GuardChange(key, b"after", 2) for key in changed])
        assert happened.is_set()
        entries = store.guards.read(changed).entries.values()
        wanted = (b"after", 3) if fate == "cut_answer" else (b"before", 2)
        assert [(entry.value, entry.version) for entry in entries] == [wanted] * len(names)
