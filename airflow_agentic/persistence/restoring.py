"""The state of a run from what is kept of it: the newest snapshot that can be read, or the beginning."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_agentic.errors import AgenticError, ConfigurationError, JournalTooNew, NotRecordable
from airflow_agentic.persistence.claims import Claims
from airflow_agentic.persistence.integrity import genesis, is_whole
from airflow_agentic.persistence.ports import JournalStore, SnapshotRecord
from airflow_agentic.persistence.records import FORMAT, RecordType
from airflow_agentic.persistence.state import StateSchema, merge

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Base:
    """What stands for records that were forgotten: the snapshot that the others are sealed to.

    Attributes:
        version: That of the last record that is forgotten; 0 if none is.
        chain: Its digest.
        steps: Names of steps that were finished by then, and whose results are forgotten.
        marks: Versions of checkpoints, by name.
        keys: Versions of events that are recorded once in the run, by name.
        end: What the record of the run's end said.
    """

    version: int = 0
    chain: bytes = b""
    steps: Sequence[str] = ()
    marks: Mapping[str, int] = field(default_factory=dict)
    keys: Mapping[str, int] = field(default_factory=dict)
    end: Mapping[str, Any] | None = None


def base_at(store: JournalStore, stream: str, version: int, claims: Claims) -> Base | None:
    """Return what stands for the records up to a version; ``None`` if there is nothing: then they are not forgotten but lost."""
    if not version:
        return Base(chain=genesis(stream))
    snapshot = store.latest_snapshot(stream, version)
    if snapshot is None or snapshot.version != version or not snapshot.kept or not is_whole(snapshot):
        return None
    kept = claims.unpacked(snapshot.state)
    if "steps" not in kept:
        return None
    return Base(version, snapshot.chain, tuple(kept["steps"]), kept["marks"], kept["keys"], kept["end"])


@dataclass(frozen=True)
class Restored:
    """A state to fold on from.

    Attributes:
        value: The state.
        version: Of the last record that is in it.
        chain: Digest of that record.
        at_ms: When it was made; 0 for the beginning.
        size: Of the snapshot, in bytes; 0 for the beginning.
    """

    value: Any
    version: int
    chain: bytes
    at_ms: int = 0
    size: int = 0


def newest(
    stream: str,
    find: Callable[[int | None], SnapshotRecord | None],
    claims: Claims,
    schema: StateSchema,
    at: int | None = None,
) -> tuple[Restored, AgenticError | None]:
    """Return the newest state that can be read; what is damaged is passed over, as long as there is something before it.

    Args:
        stream: Whose.
        find: Returns the newest snapshot up to a version that is as it was made.
        claims: Unpacks.
        schema: How events become the state.
        at: Up to this version; ``None`` for any.

    Returns:
        The state, and why a newer one could not be read, if there was one.

    Raises:
        JournalTooNew: It was kept by a newer version.
    """
    fault: AgenticError | None = None
    snapshot = find(at)
    while snapshot is not None:
        try:
            kept = claims.unpacked(snapshot.state)
            check_format(stream, kept)
            value = schema.restored(kept["state"], kept["schema"])
        except (NotRecordable, ConfigurationError) as error:
            fault = fault or error
            _log.warning(
                "run %r: the snapshot of version %s cannot be read, and the state is made again from what was before it: "
                "%s",
                stream,
                snapshot.version,
                error,
            )
            snapshot = find(snapshot.version - 1)
            continue
        found = Restored(value, snapshot.version, snapshot.chain, snapshot.at_ms, len(snapshot.state))
        return found, fault
    return Restored(copy.deepcopy(schema.initial), 0, genesis(stream)), fault


def check_format(stream: str, said: Mapping[str, Any]) -> None:
    """Leave a run to the version that wrote it.

    Args:
        stream: The run.
        said: What the first record of a session says, or a snapshot.

    Raises:
        JournalTooNew: That was written by a newer version, whose records may say something that is not known here.
    """
    if (found := said.get("format", FORMAT)) > FORMAT:
        raise JournalTooNew(
            f"the run {stream!r} has records of format {found}, and this version of airflow-provider-agentic knows up to "
            f"{FORMAT}: upgrade it here, or go on with the run where it was written"
        )


def folded(schema: StateSchema, value: Any, type_: str, said: Mapping[str, Any]) -> Any:
    """Return the state after what a record says; most records leave it as it is."""
    if type_ == RecordType.EMITTED:
        return schema.folded(value, said["event"], said["schema"])
    if type_ == RecordType.STATE_SET:
        if "patch" in said:
            return merge(value, said["patch"])
        # A person does not know of versions: what he says is said of the state as it is now.
        return schema.restored(said["state"], said.get("schema") or schema.version)
    return value


CHANGES_STATE = frozenset({RecordType.EMITTED, RecordType.STATE_SET})
"""Only these need to be read to know the state."""
