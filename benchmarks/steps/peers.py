"""LangGraph and DBOS, set to what their manuals call durable, and given WAL where they do not take it themselves."""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
import time
import uuid
from pathlib import Path
from typing import Any, TypedDict

from benchmarks.bus.peers import package
from benchmarks.bus.rounds import Unavailable
from benchmarks.steps.contender import Contender

PEERS = ("langgraph", "langgraph-checkpoint-sqlite", "langgraph-checkpoint-postgres", "dbos")
"""Their names on PyPI."""

LANGGRAPH, DBOS = "LangGraph", "DBOS"


class Walk(TypedDict):
    """State of the graph: steps that are left, and what the last one returned."""

    left: int
    text: str


def graph_of(state: Any, node: Any, saver: Any) -> Any:
    """Return a graph of one node, which is a step, and is done again while steps are left."""
    os.environ.setdefault("LANGSMITH_TRACING", "false")
    graphs = package("langgraph.graph")
    graph = graphs.StateGraph(state)
    graph.add_node("step", node)
    graph.add_edge(graphs.START, "step")
    graph.add_conditional_edges("step", lambda now: "step" if now["left"] else graphs.END)
    return graph.compile(checkpointer=saver)


def thread(steps: int, name: str | None = None) -> dict[str, Any]:
    """Return what a graph is told of a thread: its name, and how many steps it may take."""
    return {"configurable": {"thread_id": name or uuid.uuid4().hex}, "recursion_limit": steps + 10}


def sqlite_saver(path: Path) -> tuple[Any, sqlite3.Connection]:
    """Return a saver on a file, and its connection; WAL is its own choice, FULL what Python's SQLite begins with.

    Raises:
        Unavailable: It is not installed.
    """
    savers = package("langgraph.checkpoint.sqlite")
    connection = sqlite3.connect(path, check_same_thread=False)
    saver = savers.SqliteSaver(connection)
    saver.setup()
    return saver, connection


class LangGraph(Contender):
    """A graph of one node that goes on to itself, ``durability="sync"``."""

    name = LANGGRAPH
    note = "durability sync: a checkpoint of the whole state and its writes each step; no intent, no seal"

    def __init__(self) -> None:
        self._stack = contextlib.ExitStack()
        self._graph: Any = None
        self._text = ""
        self._began: list[float] = []

    def setup(self) -> None:
        """Make the graph."""
        self._graph = graph_of(Walk, self._step, self._saver())

    def _saver(self) -> Any:
        raise NotImplementedError

    def steps(self, text: str, count: int) -> float:
        """Time from the beginning of the first step to that of the one after the last."""
        self._text, self._began = text, []
        self._graph.invoke({"left": count + 1, "text": ""}, thread(count), durability="sync")
        return (self._began[-1] - self._began[0]) / count

    def _step(self, now: Walk) -> Walk:
        self._began.append(time.perf_counter())
        return {"left": now["left"] - 1, "text": self._text}

    def close(self) -> None:
        """Close its connection."""
        self._stack.close()


class LangGraphOnSqlite(LangGraph):
    """With ``SqliteSaver``.

    Args:
        path: Of its file.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = self.file = path

    def _saver(self) -> Any:
        saver, connection = sqlite_saver(self._path)
        self._stack.callback(connection.close)
        return saver


class LangGraphOnPostgresql(LangGraph):
    """With ``PostgresSaver``.

    Args:
        url: Of a schema that is its own.
    """

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url

    def _saver(self) -> Any:
        savers = package("langgraph.checkpoint.postgres")
        saver = self._stack.enter_context(savers.PostgresSaver.from_conn_string(self._url))
        saver.setup()
        return saver


class Dbos(Contender):
    """A workflow of steps. It runs during its own trials only: it has threads that ask the database now and then.

    Args:
        url: Of a database that is its own.
    """

    name = DBOS
    note = "one commit a step, found by its number; pickled; no intent, no seal, no lease"

    def __init__(self, url: str) -> None:
        self._url = url
        self.file = Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None
        self._stack = contextlib.ExitStack()

    def setup(self) -> None:
        """Set its file to WAL: by itself it stays with SQLite's rollback journal, which takes twice as long."""
        _flow()
        if self.file is not None:
            # Open to the end: the log goes with the last connection, and would be made anew in each trial.
            file = sqlite3.connect(self.file)
            self._stack.callback(file.close)
            file.execute("PRAGMA journal_mode = WAL")

    def close(self) -> None:
        """Let go of its file."""
        self._stack.close()

    def steps(self, text: str, count: int) -> float:
        """Do them in a workflow of their own."""
        dbos = package("dbos").DBOS
        quiet = {"log_level": "CRITICAL", "console_log_level": "CRITICAL"}
        dbos(config={"name": "bench", "system_database_url": self._url, **quiet})
        try:
            dbos.launch()
            seconds: float = _flow()(text, count)
        except Exception as error:
            raise Unavailable(f"{type(error).__name__}: {error}") from error
        finally:
            dbos.destroy()
        return seconds


@functools.cache
def _flow() -> Any:
    """Return the workflow; its registry is one for the process."""
    dbos = package("dbos").DBOS

    @dbos.step()  # type: ignore[untyped-decorator]
    def step(text: str) -> str:
        return text

    @dbos.workflow()  # type: ignore[untyped-decorator]
    def flow(text: str, count: int) -> float:
        step(text)
        began = time.perf_counter()
        for _ in range(count):
            step(text)
        return (time.perf_counter() - began) / count

    return flow
