"""The durable runs of a store."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from airflow_agentic.errors import ConfigurationError
from airflow_agentic.persistence.claims import Claims
from airflow_agentic.persistence.forgetting import Forgetting
from airflow_agentic.persistence.history import Event, Moment, When, events, head_of, moment_at
from airflow_agentic.persistence.integrity import Damage, is_storable
from airflow_agentic.persistence.naming import LONGEST_KEY, check_key
from airflow_agentic.persistence.ports import Facilities, RunHead, RunQuery, RunStores
from airflow_agentic.persistence.reading import all_heads, head_at
from airflow_agentic.persistence.recovery import Interventions
from airflow_agentic.persistence.run import Run
from airflow_agentic.persistence.session import RunOptions
from airflow_agentic.persistence.state import StateSchema
from airflow_agentic.persistence.transfer import Transfer
from airflow_agentic.persistence.verification import verified
from airflow_agentic.persistence.views import RunViews

__all__ = ["LONGEST_KEY", "Runs", "check_key"]


class Runs:
    """Opens runs, looks at them, and lets people change them.

    Args:
        stores: Where they are.
        facilities: What they use beside the store's tables.
        options: How those are kept of which nothing else is said.

    Attributes:
        by_hand: What people do with them.
        views: What people see of them.
        transfer: Takes them out of the store as archives, and puts archives in.
        options: As given.
    """

    def __init__(self, stores: RunStores, facilities: Facilities, options: RunOptions | None = None) -> None:
        self._stores = stores
        self._facilities = facilities
        self.options = options or RunOptions()
        self._claims = Claims(facilities, self.options.inline_bytes, self.options.limit_bytes)
        self.by_hand = Interventions(stores, facilities, self._claims)
        self.views = RunViews(stores, self._claims)
        self.transfer = Transfer(stores, facilities, self._claims)
        self._forgetting = Forgetting(stores, facilities, self._claims)

    def open(self, agent: str, key: str | None = None, **changed: Any) -> Run:
        """Open a run; see :class:`Run`.

        Args:
            agent: Whose run it is.
            key: Names it; default a new name.
            changed: Fields of :class:`RunOptions` that are other ones for this run.

        Raises:
            ConfigurationError: The key or the agent cannot be one, or there is no such persistence.
            RunTaken: Somebody else works on it.
            JournalCorrupt: It is damaged.
        """
        key = str(uuid.uuid4()) if key is None else check_key(key)
        if not isinstance(agent, str) or not agent or not is_storable(agent):
            raise ConfigurationError(f"a run belongs to an agent: give its name, and not {agent!r}")
        options = replace(
            self.options, **{name: value for name, value in changed.items() if value is not None}
        )
        return Run(self._stores, self._facilities, key, agent, options)

    def find(self, key: str) -> RunHead:
        """Return how a run stands.

        Raises:
            RunNotFound: There is none of that key.
        """
        return head_of(self._stores, key)

    def known(self, key: str) -> RunHead | None:
        """Return how a run stands; ``None`` if there is none of that key."""
        return head_at(self._stores.runs, key)

    def find_all(self, query: RunQuery | None = None) -> list[RunHead]:
        """Return how runs stand, at most as many as the query says; what changed last comes first."""
        return self._stores.runs.heads(query or RunQuery())

    def each(self, query: RunQuery | None = None) -> Iterator[RunHead]:
        """Yield how runs stand, however many there are: they are read page by page; what changed last comes first.

        What is written meanwhile moves to the front, and may be passed over.
        """
        return all_heads(self._stores.runs, query or RunQuery())

    def history(self, key: str, after: int = 0, limit: int | None = None) -> list[Event]:
        """Return what happened in a run, in order.

        Args:
            key: The run.
            after: Begin after this version.
            limit: At most so many.

        Raises:
            RunNotFound: There is none of that key.
        """
        return [*events(self._stores, key, self._claims, after, limit)]

    def at(self, key: str, when: When, schema: StateSchema | None = None) -> Moment:
        """Return a run as it was at a version, a checkpoint or a time.

        Raises:
            RunNotFound: There is no such run or moment.
            JournalCorrupt: What must be read for that is damaged.
        """
        return moment_at(self._stores, key, when, self._claims, schema or self.options.schema)

    def verify(self, key: str) -> Sequence[Damage]:
        """Return all that is wrong with a run's journal; nothing if it is as it was written.

        Raises:
            RunNotFound: There is none of that key.
        """
        head_of(self._stores, key)
        return verified(self._stores, key)

    def prune(self, key: str) -> int:
        """Forget what the run's mode lets be forgotten, if it is finished; return how many records.

        Raises:
            RunNotFound: There is none of that key.
        """
        return self._forgetting.prune(key)

    def forget(self, key: str) -> bool:
        """Forget a run whole, with large data of it that lies elsewhere; return whether there was one.

        Raises:
            StoreUnavailable: The store, or the place of large data, cannot be reached; the run is still there.
        """
        return self._forgetting.forget(key)
