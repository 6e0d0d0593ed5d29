"""Forgets runs, or what of them can be spared; with large data that lies elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from itertools import chain

from airflow_agentic.persistence.claims import Claims
from airflow_agentic.persistence.history import head_of
from airflow_agentic.persistence.integrity import is_whole
from airflow_agentic.persistence.ports import Facilities, RunHead, RunStatus, RunStores
from airflow_agentic.persistence.reading import all_records, all_snapshots, head_at
from airflow_agentic.persistence.strategies import MODES, strategy_of

_LEASE = timedelta(seconds=60)


class Forgetting:
    """Forgets.

    Args:
        stores: Where the runs are.
        facilities: Removes large data; without a way to do that it stays.
        claims: Knows where large data lies.
    """

    def __init__(self, stores: RunStores, facilities: Facilities, claims: Claims) -> None:
        self._stores = stores
        self._owner = facilities.owner
        self._delete = facilities.delete_blob
        self._claims = claims

    def prune(self, key: str) -> int:
        """Forget what the run's mode lets be forgotten; see :meth:`airflow_agentic.persistence.runs.Runs.prune`."""
        head = head_of(self._stores, key)
        if head.status != RunStatus.FINISHED or head.mode not in MODES:
            return 0
        if not strategy_of(head.mode).forgets:
            return 0
        newest = self._stores.journals.latest_snapshot(key)
        # Only one of an end says which steps are finished: they must not be done again when their records are forgotten.
        if newest is None or not is_whole(newest) or "steps" not in self._claims.unpacked(newest.state):
            return 0
        if self._delete is None:
            return self._stores.journals.prune(key, newest.version)
        # Held meanwhile: whoever goes on with it could keep the same data again, and it would be gone.
        if not self._stores.runs.hold(key, self._owner(), _LEASE).taken:
            return 0
        try:
            before = self._places(key)
            count = self._stores.journals.prune(key, newest.version)
            self._remove(before - self._places(key))
        finally:
            self._stores.runs.hold(key, self._owner(), timedelta(0))
        return count

    def forget(self, key: str) -> bool:
        """Forget a run whole; return whether there was one."""
        if self._delete is not None and (head := head_at(self._stores.runs, key)) is not None:
            self._forget_data(head)
        return self._stores.runs.forget(key)

    # -- inside ----------------------------------------------------------------------------------------

    def _forget_data(self, head: RunHead) -> None:
        """Remove what lies elsewhere, before the run is gone: nobody can begin it anew and keep the same meanwhile."""
        key = head.stream
        self._stores.runs.hold(key, self._owner(), _LEASE, instead_of=head.owner)
        try:
            self._remove(self._places(key))
        except BaseException:
            self._stores.runs.hold(key, self._owner(), timedelta(0))
            raise

    def _places(self, key: str) -> set[str]:
        """Return where large data of a run lies that is its own."""
        records = (each.data for each in all_records(self._stores.journals, key))
        states = (each.state for each in all_snapshots(self._stores.journals, key))
        places = (self._claims.place(each, key) for each in chain(records, states))
        return {place for place in places if place is not None}

    def _remove(self, places: Iterable[str]) -> None:
        assert self._delete is not None
        for place in places:
            self._delete(place)
