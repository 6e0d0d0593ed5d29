"""Work on one run: it is taken, its past is read, what is new is written, it is given back."""

from __future__ import annotations

import copy
import logging
import secrets
import threading
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic_core import from_json

from airflow_agentic.errors import (
    ConfigurationError,
    JournalTooNew,
    NotRecordable,
    RunTaken,
    StoreUnavailable,
)
from airflow_agentic.persistence.beginnings import new_head, said_first
from airflow_agentic.persistence.claims import Claims
from airflow_agentic.persistence.folding import Fold, Folding
from airflow_agentic.persistence.integrity import Damage
from airflow_agentic.persistence.journal import Draft, Journal
from airflow_agentic.persistence.naming import kept_text
from airflow_agentic.persistence.options import OnAmbiguous, OnChange, RunOptions
from airflow_agentic.persistence.ports import (
    Facilities,
    IndexEntry,
    RunHead,
    RunStatus,
    RunStores,
)
from airflow_agentic.persistence.progress import RUN, Past
from airflow_agentic.persistence.records import FORMAT, STEP_ENDS, RecordType
from airflow_agentic.persistence.restoring import CHANGES_STATE, base_at
from airflow_agentic.persistence.strategies import MODES, Written, strategy_of
from airflow_agentic.persistence.taking import take
from airflow_agentic.persistence.verification import verified
from airflow_agentic.security.canonical import canonical_and_read

_log = logging.getLogger(__name__)

__all__ = ["OnAmbiguous", "OnChange", "RunOptions", "Session", "waits_for"]


def waits_for(text: str) -> dict[str, Any]:
    """Return what the head of a run says that waits."""
    return {"status": RunStatus.WAITING.value, "waiting": text, "lease_until_ms": 0}


_AT_WORK = {"status": RunStatus.RUNNING.value, "waiting": "", "error": "", "category": ""}
_OVER = (RunStatus.FINISHED, RunStatus.FAILED)


@dataclass
class _Pending:
    """What is so as soon as some records are written."""

    drafts: Sequence[Draft]
    fold: Fold | None
    written: Written
    ended: int
    is_over: bool


class Session:
    """One run in the hands of one worker. Nothing is written before there is something to write.

    Args:
        stores: Where.
        facilities: What it uses beside the store's tables.
        key: Names the run.
        agent: Whose run it is.
        options: How it is kept.

    Attributes:
        key: As given.
        agent: As given.
        options: As given.
        facilities: As given.
        owner: Who works on it.
        lock: Held while something is written; whoever reads and then writes holds it, too.
        is_replayed: Whether this is another try at what was begun and not finished.
        was_finished: Whether the run had come to its end before.

    Raises:
        RunTaken: Somebody else works on it.
        JournalCorrupt: It is damaged.
        JournalTooNew: It has records of a newer version.
        ConfigurationError: There is no such persistence, or the key belongs to another agent.
    """

    def __init__(
        self, stores: RunStores, facilities: Facilities, key: str, agent: str, options: RunOptions
    ) -> None:
        self.key, self.agent, self.options, self.facilities = key, agent, options, facilities
        self.owner = facilities.owner()
        self._stores = stores
        self._claims = Claims(facilities, options.inline_bytes, options.limit_bytes)
        self._strategy = strategy_of(options.persistence)
        self._written = Written()
        self._told: dict[str, Any] = {}
        self._state = Folding(key, self._claims, options.schema)
        self._unsettled: _Pending | None = None
        # Snapshots are of the state at the record they go with: nobody else writes in between.
        self.lock = threading.RLock()
        self._is_open, self._is_lost, self._is_over = True, False, False
        self._token = f"run {secrets.token_hex(8)}"
        hold = take(stores, facilities, key, agent, self.owner, options.lease)
        self._journal = Journal(
            stores, hold.head or new_head(key, agent, self.owner, options), hold.now_ms, options.lease
        )
        self.was_finished = hold.head is not None and hold.head.status == RunStatus.FINISHED
        self.is_replayed = hold.head is not None and not self.was_finished
        if hold.head is not None and options.task and hold.head.task != options.task:
            # A fork, or a run that another task began: it is this one now that goes on when it is cleared.
            self.tell(task=options.task)
        try:
            if hold.head is not None and hold.head.mode in MODES:
                # As it began: what is kept of it must not depend on who opened it last.
                self._strategy = strategy_of(hold.head.mode)
            self._past = self._read_past(hold.head)
            type_, about = said_first(hold.head, self._journal.head, options)
            self._opening = [Draft(str(type_), RUN, self.encoded(about, "run"))]
            if facilities.keeper is not None:
                facilities.keeper.keep(self._token, options.lease.total_seconds() / 3, self._renewal())
        except BaseException:
            self.close()
            raise

    # -- reading ---------------------------------------------------------------------------------------

    @property
    def version(self) -> int:
        """That of the last record."""
        return self._journal.version

    @property
    def head(self) -> RunHead:
        """How the run stands."""
        return self._journal.head

    def now_ms(self) -> int:
        """Return the store's time."""
        return self._journal.now_ms()

    def data(self, version: int) -> dict[str, Any]:
        """Return what a record says.

        Raises:
            JournalCorrupt: It is damaged or missing.
        """
        found: dict[str, Any] = self._claims.unpacked(self._journal.record(version).data)
        return found

    @property
    def past(self) -> Past:
        """What the run did before, and did since."""
        if self._unsettled is not None:
            with self.lock:
                self._settle()
        return self._past

    @property
    def state(self) -> Any:
        """The state, as a copy: changing it changes nothing."""
        return copy.deepcopy(self._folded())

    # -- writing ---------------------------------------------------------------------------------------

    def content(self, value: Any, what: str) -> bytes:
        """Return a value as canonical JSON.

        Raises:
            NotRecordable: It is not JSON; the text names the place in it.
        """
        return self.content_and_read(value, what)[0]

    def content_and_read(self, value: Any, what: str) -> tuple[bytes, Any]:
        """Return what :meth:`content` does, and the value as it will be read from it; the same errors."""
        try:
            return canonical_and_read(value, what)
        except ValueError as error:
            raise NotRecordable(f"run {self.key!r}: {error}; only JSON can be kept") from None

    def packed(self, content: bytes, what: str) -> bytes:
        """Return what :meth:`content` made as the data of a record.

        Raises:
            NotRecordable: It is too large.
        """
        return self._claims.packed(content, self.key, what)

    def encoded(self, value: Any, what: str) -> bytes:
        """Return a value as the data of a record; errors as above."""
        return self.packed(self.content(value, what), what)

    def write(
        self,
        type_: RecordType,
        name: str,
        data: bytes,
        *,
        first: Sequence[Draft] = (),
        content: bytes = b"",
        at_rest: bool = False,
        outgoing: Sequence[Any] = (),
        **head: Any,
    ) -> int:
        """Add a record, in one commit with what goes with it.

        Args:
            type_: What happened.
            name: Of what it is about.
            data: From :meth:`encoded`.
            first: Records that stand before it, and do not change the state.
            content: What ``data`` was made of, if the state or the snapshot is made of it, too.
            at_rest: Whether it is a checkpoint or an end.
            outgoing: Messages that leave with it.
            head: What changes in the head; if nothing is said of its status, it is being worked on.

        Returns:
            Its version.

        Raises:
            RunTaken: Somebody else has the run now; nothing was written.
            ConfigurationError: It has ended; nothing was written.
            StoreUnavailable: The store cannot be reached; it is found out later whether it was written.
        """
        with self.lock:
            self._check_can_write()
            # As a text: the hash of a member of an enumeration is a call in Python, and types are looked up time and again.
            drafts = [*self._opening, *first, Draft(str(type_), name, data)]
            leaving = self.facilities.outgoing(outgoing) if outgoing else ()
            changes = {**_AT_WORK, **self._told, **head}
            is_over = changes["status"] in _OVER
            pending, state = self._prepared(drafts, content, at_rest=at_rest, is_over=is_over)
            if pending.ended:
                changes["done"] = self._past.done + pending.ended
            keep = type_ == RecordType.CHECKPOINT
            try:
                version = self._journal.write(drafts, state=state, keep=keep, outgoing=leaving, **changes)
            except BaseException as error:
                self._failed(pending, error)
                raise
            self._done(pending)
            return version

    def write_all(self, drafts: Sequence[Draft]) -> int:
        """Add records that do not change the state; the same errors."""
        last = drafts[-1]
        return self.write(RecordType(last.type), last.name, last.data, first=drafts[:-1])

    def tell(self, **head: Any) -> None:
        """Say something of how the run stands with the next record."""
        self._told |= head

    def rest(self, waiting: str) -> None:
        """Say that the run waits; what for was recorded before, or is recorded now."""
        if self.head.status != RunStatus.WAITING:
            text = kept_text(waiting)
            self.write(RecordType.WAITING, RUN, self.encoded({"for": text}, "run"), **waits_for(text))

    def close(self) -> None:
        """Give the run back."""
        with self.lock:
            if not self._is_open:
                return
            self._is_open = False
        if self.facilities.keeper is not None:
            self.facilities.keeper.drop(self._token)
        head = self._journal.head
        if head.version and head.lease_until_ms and not self._is_lost:
            try:
                self._stores.runs.hold(self.key, self.owner, timedelta(0))
            except StoreUnavailable as away:
                # It comes free by itself, and must not hide what went wrong before.
                _log.warning("run %r is not given back before its lease ends: %s", self.key, away)

    def renew(self) -> bool:
        """Hold the run for longer; return whether it is still held."""
        with self.lock:
            if not self._is_open:
                return False
            hold = self._stores.runs.hold(self.key, self.owner, self.options.lease)
            if hold.head is None or not hold.taken:
                # One that is not written yet cannot be held, and need not be.
                return hold.head is None
            if hold.head.digest != self._journal.head.digest and self._unsettled is None:
                # Somebody else had it meanwhile and went on with it: nothing can be written here any more.
                self._stores.runs.hold(self.key, self.owner, timedelta(0))
                self._is_lost = True
                return False
            self._journal.hold(hold.head.lease_until_ms)
            return True

    def _renewal(self) -> Callable[[], bool]:
        known = weakref.ref(self)

        def renew() -> bool:
            # One that was dropped and never closed is held by nobody, and comes free by itself.
            session = known()
            return session is not None and session.renew()

        return renew

    # -- inside: opening -------------------------------------------------------------------------------

    def _read_past(self, head: RunHead | None) -> Past:
        if head is None:
            return Past(self.key)
        entries = self._journal.index()
        begins = entries[0].version - 1 if entries else self.version
        base = base_at(self._stores.journals, self.key, begins, self._claims)
        if base is None or (begins and not self._strategy.forgets):
            what = f"missing: version{f's 1 to {begins}' if begins > 1 else ' 1'}"
            raise self._journal.quarantined(Damage(self.key, 1, what))
        try:
            past = Past(self.key, entries, base)
        except JournalTooNew:
            # What nobody knows may be what somebody changed.
            for damage in verified(self._stores, self.key):
                raise self._journal.quarantined(damage) from None
            raise
        # That checks the seals of what came after the last snapshot, too.
        self._written = self._state.restore(self._journal, begins)
        return past

    # -- inside: writing -------------------------------------------------------------------------------

    def _check_can_write(self) -> None:
        if not self._is_open:
            # Somebody was left behind, as by a timeout, and the run goes on without him.
            raise RunTaken(f"the run {self.key!r} was given back; nothing was written", self.key)
        if self._unsettled is not None:
            self._settle()
        if self._is_over:
            raise ConfigurationError(
                f"the run {self.key!r} has ended; nothing was written. Open it again to go on with it"
            )

    def _prepared(
        self, drafts: Sequence[Draft], content: bytes, *, at_rest: bool, is_over: bool
    ) -> tuple[_Pending, bytes | None]:
        """Return what is so when the records are written, and the snapshot that goes with them."""
        before, type_, fold = self._written, drafts[-1].type, None
        size, ended = before.size, 0
        for draft in drafts:
            size += len(draft.data)
            ended += draft.type in STEP_ENDS
        written = Written(before.records + len(drafts), size, before.last_snapshot_bytes)
        if type_ in CHANGES_STATE:
            fold = self._state.after(self._folded(), type_, from_json(content))
        state = None
        if self._strategy.is_due(written, changed=fold is not None, at_rest=at_rest):
            about = {
                "state": fold.value if fold else self._folded(),
                "schema": self.options.schema.version,
                "format": FORMAT,
            }
            if type_ == RecordType.FINISHED and self._strategy.forgets:
                # What must be known when the records are forgotten: finished steps are not done again.
                past = self._past
                about |= {"steps": past.finished_steps(), "marks": past.all_marks(), "keys": past.keys()}
                about["end"] = from_json(content)
            state = self.encoded(about, "state")
            written.snapped(len(state))
        return _Pending(drafts, fold, written, ended, is_over), state

    def _done(self, pending: _Pending) -> None:
        """Know that something was written."""
        first = self._journal.version - len(pending.drafts) + 1
        for at, draft in enumerate(pending.drafts, first):
            self._past.note(IndexEntry(at, draft.type, draft.name))
        self._opening, self._told, self._unsettled = [], {}, None
        self._written, self._is_over = pending.written, pending.is_over
        if pending.fold is not None:
            self._state.current = pending.fold

    def _failed(self, pending: _Pending, error: BaseException) -> None:
        """Know that nobody knows whether something was written."""
        if pending.fold is not None:
            self._state.forget()  # A reducer may have changed it in place.
        self._is_lost = isinstance(error, RunTaken)
        self._unsettled = None if self._is_lost else pending

    def _settle(self) -> None:
        """Find out whether what was written last is there, if the store could not say so."""
        pending = self._unsettled
        if pending is None:
            return
        if self._journal.settled():
            self._done(pending)
        self._unsettled = None

    def _folded(self) -> Any:
        """Return the state after the last record; read it first, if it is not known."""
        with self.lock:
            self._settle()
            if self._state.current is None:
                self._written = self._state.restore(self._journal, self._past.base.version)
            assert self._state.current is not None
            return self._state.current.value
