"""Writes an agent's state and numbers to its store, often enough to be seen and seldom enough to be cheap."""

from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta

from airflow_agentic.agents.lifecycle import AgentState
from airflow_agentic.agents.status import AgentProfile, AgentStatus, AgentStore, PerformanceMetrics
from airflow_agentic.errors import StoreError
from airflow_agentic.messaging.bus import process_name

_log = logging.getLogger(__name__)


class Ledger:
    """Keeps one instance's entry in the agent store.

    A change of state within ``interval`` of the last write waits for the next one: after a SIGKILL at most
    that much of the numbers is missing. A store that fails is logged once and never stops the agent.

    Args:
        store: Where to write.
        agent_id: The instance.
        profile: What it is.
        interval: Least time between two writes.
        alive_for: Without a report for so long the instance counts as lost.
    """

    def __init__(
        self,
        store: AgentStore,
        agent_id: str,
        profile: AgentProfile,
        *,
        interval: timedelta = timedelta(seconds=1),
        alive_for: timedelta = timedelta(seconds=60),
    ) -> None:
        self._store = store
        self._agent_id = agent_id
        self._profile = profile
        self._interval = interval.total_seconds()
        self._alive_for = alive_for
        self._pending = PerformanceMetrics()
        self._state = AgentState.INITIALIZED
        self._reason = ""
        self._written = float("-inf")
        self._registered = False
        self._failed = False
        self._dirty = False
        # Reports come from the working thread, from the lease renewer and from signal handlers.
        self._lock = threading.RLock()
        self._writing = threading.Lock()

    def note(self, state: AgentState, reason: str, add: PerformanceMetrics | None = None) -> None:
        """Note a state and numbers; write them if the last write is long enough ago or the state is an end."""
        with self._lock:
            self._state, self._reason = state, reason
            if add is not None:
                self._pending += add
        ending = state in (AgentState.SHUTDOWN, AgentState.FAILED)
        if ending or time.monotonic() - self._written >= self._interval:
            self.flush()

    def flush(self) -> None:
        """Write what is noted; also the sign of life. If somebody is writing, that one writes this too."""
        self._dirty = True
        # Never waits: a signal handler may come while its own thread, or the lease renewer, is writing.
        while self._dirty and self._writing.acquire(blocking=False):
            try:
                self._dirty = False
                self._write()
            finally:
                self._writing.release()

    def _write(self) -> None:
        with self._lock:
            state, reason, add = self._state, self._reason, self._pending
            self._pending = PerformanceMetrics()
        try:
            if not self._registered:
                self._store.register(self._agent_id, self._profile, process_name(), self._alive_for)
                self._registered = True
            self._store.report(self._agent_id, state, reason, add=add, alive_for=self._alive_for)
        except StoreError as error:
            with self._lock:
                self._pending = add + self._pending
            if not self._failed:
                _log.warning("agent %r cannot report its status: %s", self._profile.name, error)
            self._failed = True
            return
        self._written = time.monotonic()
        self._failed = False

    def status(self) -> AgentStatus | None:
        """Read the status of the name, with what is noted written first."""
        self.flush()
        try:
            return self._store.get(self._profile.name)
        except StoreError:
            return None
