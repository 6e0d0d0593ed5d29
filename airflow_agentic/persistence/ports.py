"""What durable runs need of a store. ``stores/`` implements it.

A stream is the journal of one run: records with consecutive versions from 1, each sealed to the one before
(:mod:`airflow_agentic.persistence.integrity`). Beside it lies its head: where the journal ends, who works on the run, and how
it stands. Every method is one transaction that is on disk when it returns. Times are milliseconds since 1970 (UTC).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

from airflow_agentic.errors import AgenticError, Category


class RunStatus(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    """Somebody works on it, or died while doing so."""
    WAITING = "waiting"
    """It waits for a time, a message or a person; nobody works on it."""
    FAILED = "failed"
    """It ended with an error, and may go on."""
    FINISHED = "finished"
    """It came to its end."""
    QUARANTINED = "quarantined"
    """Its journal is damaged: nobody goes on with it until a person has looked."""


@dataclass(frozen=True, slots=True)
class Record:
    """One event of a journal, as it is kept.

    Attributes:
        version: 1 for the first of its stream, and one more with each.
        type: What happened; see :class:`airflow_agentic.persistence.records.RecordType`.
        at_ms: When, by the store's clock as far as its writer knew it.
        name: Of the step, checkpoint or question that it is about; empty if it is about none.
        data: Canonical JSON.
        digest: 32 bytes: seals this record and all before it.
    """

    version: int
    type: str
    at_ms: int
    name: str
    data: bytes
    digest: bytes

    @property
    def at(self) -> datetime:
        """When, as a time of UTC."""
        return datetime.fromtimestamp(self.at_ms / 1000, UTC)


@dataclass(frozen=True, slots=True)
class SnapshotRecord:
    """The folded state at a version, so that not all records before it need be read.

    Attributes:
        version: That of the last record that is in it.
        at_ms: When it was made.
        state: Canonical JSON.
        chain: Digest of the record of that version.
        digest: 32 bytes: seals the snapshot.
        kept: Whether it stays when newer ones come: it has a name.
    """

    version: int
    at_ms: int
    state: bytes
    chain: bytes
    digest: bytes
    kept: bool = False


class IndexEntry(NamedTuple):
    """A record that has a name, without its data."""

    version: int
    type: str
    name: str


@dataclass(frozen=True, slots=True)
class RunHead:
    """Where a journal ends, and how its run stands.

    What stands here and not in the records is made of them, and can be made again.

    Attributes:
        stream: Name of the journal: the run's key.
        agent: Whose run it is.
        mode: How it is kept: ``events``, ``snapshot``, ``checkpoint`` or ``hybrid``.
        status: How it stands.
        correlation: What it belongs to: a DAG run, a conversation.
        task: The task that works on it, for people: ``dag/run/task[map index]``.
        version: That of the last record; 0 before the first.
        digest: That of the last record.
        step: The step that is being done, or was done last.
        done: Steps that are finished.
        total: Steps there will be; 0 if nobody said.
        waiting: What it waits for.
        error: Why it failed, or was put into quarantine.
        category: Category of that error.
        owner: Who works on it.
        lease_until_ms: Until when nobody else may; 0 for nobody works on it.
        created_at_ms: When it began.
        updated_at_ms: When it was written last.
    """

    stream: str
    agent: str = ""
    mode: str = "hybrid"
    status: str = RunStatus.RUNNING.value
    correlation: str = ""
    task: str = ""
    version: int = 0
    digest: bytes = b""
    step: str = ""
    done: int = 0
    total: int = 0
    waiting: str = ""
    error: str = ""
    category: str = ""
    owner: str = ""
    lease_until_ms: int = 0
    created_at_ms: int = 0
    updated_at_ms: int = 0

    @property
    def place(self) -> tuple[int, str]:
        """Where it stands in listings: those with a smaller time, or the same and a greater name, come behind it."""
        return self.updated_at_ms, self.stream


@dataclass(frozen=True, slots=True)
class Append:
    """What one commit adds to a journal.

    Attributes:
        head: The head afterwards; its ``version`` and ``digest`` are those of the last of ``records``. ``agent``,
            ``correlation`` and ``created_at_ms`` stay as they were when it began.
        expected: Version before. 0: the stream must not be there yet.
        records: At least one, in order.
        snapshot: State at the last of ``records``; it takes the place of older ones that have no name.
        outgoing: Messages that leave with the commit, as the bus of the same store takes them.
    """

    head: RunHead
    expected: int
    records: Sequence[Record]
    snapshot: SnapshotRecord | None = None
    outgoing: Sequence[Any] = ()


@dataclass(frozen=True, slots=True)
class Hold:
    """Who may work on a run.

    Attributes:
        now_ms: The store's clock.
        head: The run's head, as it is afterwards; ``None`` if there is no such stream.
        taken: Whether the asker may: the lease was free, over, or given to it.
    """

    now_ms: int
    head: RunHead | None
    taken: bool


@dataclass(frozen=True)
class RunQuery:
    """Which runs to list; all conditions must hold. Order: what was written last comes first.

    Attributes:
        streams: Only these.
        prefix: Only streams whose names begin so.
        agent: Only of this agent.
        statuses: Only that stand so; empty means all.
        correlation: Only of this DAG run or conversation.
        limit: At most so many.
        after: Only what comes behind this :attr:`RunHead.place` in the order, as that of the last one that was read.
    """

    streams: tuple[str, ...] | None = None
    prefix: str = ""
    agent: str | None = None
    statuses: tuple[RunStatus, ...] = ()
    correlation: str | None = None
    limit: int = 100
    after: tuple[int, str] | None = None


class JournalStore(Protocol):
    """Port: records and snapshots of streams. They are given back as they are kept: whoever reads checks the seals."""

    def append(self, write: Append) -> bool:
        """Add records, with the head, a snapshot and messages: all or none.

        It is done if the journal ends at ``write.expected``, and its head has the owner of ``write.head`` or is not there
        yet.

        Returns:
            Whether it was done; ``False`` if the journal ends elsewhere or has another owner: nothing was changed.

        Raises:
            MailboxFull: A message finds no room; nothing was changed.
            StoreUnavailable: The store cannot be reached now; whether it was done is not known.
        """
        ...

    def read(self, stream: str, after: int = 0, limit: int = 1000) -> list[Record]:
        """Read records with versions above ``after``, in their order."""
        ...

    def index(self, stream: str) -> list[IndexEntry]:
        """Read what records have names, in their order, without their data."""
        ...

    def latest_snapshot(self, stream: str, at: int | None = None) -> SnapshotRecord | None:
        """Read the newest snapshot, or the newest one of a version up to ``at``."""
        ...

    def prune(self, stream: str, through: int) -> int:
        """Forget the records up to a version that has a snapshot, and the snapshots before it that are not kept.

        The snapshot of that version is kept from now on: the records behind it are sealed to it.

        Returns:
            How many records; 0 if there is no snapshot of that version.
        """
        ...


class RunStore(Protocol):
    """Port: the heads of streams: who works on what, and how it stands."""

    def heads(self, query: RunQuery) -> list[RunHead]:
        """Read heads without touching them."""
        ...

    def hold(self, stream: str, owner: str, lease: timedelta, instead_of: str | None = None) -> Hold:
        """Take or renew the right to work on a run, if it is free, over, or the owner's own already.

        Args:
            stream: Which.
            owner: Who wants it.
            lease: For how long; not above zero gives it back, which only its owner can.
            instead_of: An owner that is known to be gone: its lease is taken too.

        Returns:
            What is so now. A stream that is not there is not made.
        """
        ...

    def mark(self, stream: str, status: RunStatus, error: str, category: str) -> bool:
        """Say how a run stands without adding to its journal: for one that is damaged.

        Returns:
            Whether there is such a run.
        """
        ...

    def forget(self, stream: str) -> bool:
        """Forget a run: head, records, snapshots.

        Returns:
            Whether there was one.
        """
        ...


@dataclass(frozen=True)
class RunStores:
    """All that durable runs need of a store.

    Attributes:
        journals: Records and snapshots.
        runs: Heads.
    """

    journals: JournalStore
    runs: RunStore


def own_category(error: BaseException) -> Category:
    """Return the category of an error as it says itself; what is not known is transient."""
    return Category(error.category) if isinstance(error, AgenticError) else Category.TRANSIENT


class Keeper(Protocol):
    """Port: does small things again and again while something goes on; what renews the leases of runs."""

    def keep(self, token: str, every_seconds: float, renew: Callable[[], bool]) -> None:
        """Call ``renew`` every so often, until it returns ``False`` or :meth:`drop` is called."""
        ...

    def drop(self, token: str) -> None:
        """Stop."""
        ...


@dataclass(frozen=True)
class Facilities:
    """What runs use beside the store's tables.

    Attributes:
        owner: Says who works: the process, or the task. Asked when a run is opened: a process may fork.
        outgoing: Makes of messages what the bus of the store takes.
        keep_blob: Keeps content that is too large for a record, under a name; returns where. ``None``: nothing is kept
            outside.
        read_blob: Reads it.
        is_gone: Whether an owner of leases is known to be gone, so that its lease need not be waited for.
        keeper: Renews leases; ``None`` for nobody: long steps may lose theirs.
        category_of: Says what the failure of a step or a run means.
        delete_blob: Removes what ``keep_blob`` kept; ``None``: it stays when the run is forgotten.
    """

    owner: Callable[[], str]
    outgoing: Callable[[Sequence[Any]], Sequence[Any]] = field(default=tuple)
    keep_blob: Callable[[str, bytes], str] | None = None
    read_blob: Callable[[str], bytes] | None = None
    is_gone: Callable[[str], bool] = field(default=lambda _owner: False)
    keeper: Keeper | None = None
    category_of: Callable[[BaseException], Category] = own_category
    delete_blob: Callable[[str], None] | None = None
