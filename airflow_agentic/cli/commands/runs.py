"""``airflow agentic runs``: durable runs: how they stand, what happened in them, whether their journals are whole."""

from __future__ import annotations

import contextlib
import difflib
import shlex
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from airflow_agentic.cli.access import completed, opened
from airflow_agentic.cli.command import command
from airflow_agentic.cli.deliveries import as_data, as_row
from airflow_agentic.cli.following import followed
from airflow_agentic.cli.output import (
    clean,
    compact,
    count,
    exact,
    iso,
    listing,
    note,
    say,
    single,
)
from airflow_agentic.cli.runs import (
    glance_data,
    glance_row,
    together_data,
    together_line,
    view_data,
    view_lines,
)
from airflow_agentic.cli.watching import Screen, lines_of
from airflow_agentic.config.masking import mask_text
from airflow_agentic.errors import InvalidOption, MessageNotFound, RunNotFound
from airflow_agentic.messaging import DeliveryRecord, DeliveryState
from airflow_agentic.persistence import Damage, Event, RunQuery, Runs, RunStatus
from airflow_agentic.persistence.archive import Archive, read_archive
from airflow_agentic.persistence.glances import Together
from airflow_agentic.persistence.ports import Append, Facilities, RunStores
from airflow_agentic.stores import Store
from airflow_agentic.stores.memory import MemoryJournals

_LISTED = 100
_FOLLOWED = 1_000
_DATA_WIDTH = 100
_OPEN_SHOWN = 20
_OPEN = (DeliveryState.READY, DeliveryState.LEASED)
_INTERRUPTED = 130
_LOOKED_FOR = (
    "result",
    "error",
    "event",
    "state",
    "patch",
    "question",
    "answer",
    "what",
    "decision",
    "reason",
    "left_out",
)
_FINGERPRINTS = frozenset({"code", "args"})


@command
def list_runs(args: Namespace) -> None:
    """List runs; what changed last comes first."""
    if args.all and args.limit:
        raise InvalidOption("give --limit or --all, not both")
    limit = args.limit or _LISTED
    query = RunQuery(
        prefix=args.prefix,
        agent=args.agent,
        statuses=tuple(map(RunStatus, args.status or ())),
        correlation=args.correlation,
        limit=limit + 1,
    )
    with opened(args) as store:
        views, now = store.runs.views, datetime.now(UTC)
        found = [*views.each(query, now)] if args.all else views.glances(query, now)
    shown = found if args.all else found[:limit]
    listing(args.output, [glance_data(each) for each in shown], [glance_row(each) for each in shown])
    if len(found) > len(shown):
        note(
            f"showing the {limit:,} that changed last, and there are more: a higher --limit shows them, or --all"
        )
    elif not found:
        note("there is no such run" if _is_narrowed(args) else "no run was recorded yet")


@command
def show_run(args: Namespace) -> None:
    """Show a run, or all runs of a DAG run or a conversation with their open messages."""
    now = datetime.now(UTC)
    if args.file:
        with _archived(args) as (runs, archive):
            view = runs.views.of(archive.head.stream, now)
        left_out = {name: dict(counted) for name, counted in archive.left_out.items()}
        data = {
            **view_data(view),
            "data": "included" if archive.has_data else "left out",
            "left_out": left_out,
        }
        single(args.output, data, lambda: view_lines(view, None))
        return
    _require_named(args)
    with opened(args) as store:
        if store.runs.known(args.key) is not None:
            view = store.runs.views.of(args.key, now)
            single(args.output, view_data(view), lambda: view_lines(view, args))
            return
        together, messages = _together(store, args.key, now)
    data = {
        "correlation": args.key,
        **together_data(together),
        "messages": [as_data(each) for each in messages],
    }
    single(args.output, data, lambda: [f"{args.key}: {together_line(together)}"])
    if args.output not in ("json", "yaml"):
        listing(args.output, [], [_task_row(each) for each in map(glance_row_of, together.runs)])
        if messages:
            say("", f"{count(len(messages), 'message')} on the way")
            shown = messages[:_OPEN_SHOWN]
            listing(args.output, [], [{"mailbox": each.mailbox, **as_row(each, now)} for each in shown])
            if rest := len(messages) - len(shown):
                note(completed(f"and {rest:,} more: `{_trace(args.key)}` shows all of them", args))


@command
def list_events(args: Namespace) -> None:
    """List what happened in a run, in order."""
    if args.file:
        with _archived(args) as (runs, archive):
            found = runs.history(archive.head.stream, args.after)
    else:
        _require_named(args)
        with opened(args) as store:
            _require(store, args.key)
            found = store.runs.history(args.key, args.after)
    if args.type:
        found = [
            event for event in found if event.type == args.type or event.type.startswith(f"{args.type}.")
        ]
    shown = found[: args.limit]
    listing(args.output, [_event_data(each) for each in shown], [_event_row(each) for each in shown])
    if len(found) > len(shown):
        note(f"showing {len(shown):,} of {len(found):,}; --after {shown[-1].version} shows the next ones")


@command
def watch_runs(args: Namespace) -> None:
    """Show how runs go on, until all have ended; exit 1 if one failed."""
    began, together = time.monotonic(), Together(())
    with opened(args) as store, Screen(sys.stdout) as screen:
        try:
            while True:
                now = datetime.now(UTC)
                together = _watched(store, args.key, now)
                screen.show(lines_of(together), now)
                left = (
                    None if args.timeout is None else args.timeout.total_seconds() + began - time.monotonic()
                )
                if together.is_ended or (left is not None and left <= 0):
                    break
                time.sleep(min(args.every.total_seconds(), left or args.every.total_seconds()))
        except KeyboardInterrupt:
            raise SystemExit(_INTERRUPTED) from None
    if not together.is_ended:
        raise SystemExit(f"--timeout is over, and {count(_open(together), 'run')} did not end")
    if failed := sum(each.head.status != RunStatus.FINISHED for each in together.runs):
        note(
            completed(
                f"{count(failed, 'run')} did not finish: `airflow agentic runs show KEY` says why", args
            )
        )
        raise SystemExit(1)


@command
def verify_runs(args: Namespace) -> None:
    """Check journals against their seals; exit 1 if something is wrong."""
    if bool(args.key) + bool(args.file) + args.all != 1:
        raise InvalidOption("name what to check in one way: the key of a run, --all, or --file")
    if args.file:
        with _archived(args) as (_, archive):
            checked, damages = 1, list(archive.damages())
    else:
        with opened(args) as store:
            if args.key:
                _require(store, args.key)
            checked, damages = 0, []
            for key in [args.key] if args.key else (head.stream for head in store.runs.each()):
                with contextlib.suppress(RunNotFound):  # forgotten meanwhile
                    damages += store.runs.verify(key)
                    checked += 1
    if damages or args.output != "table":
        listing(
            args.output, [_damage_data(each) for each in damages], [_damage_data(each) for each in damages]
        )
    note(completed(f"{count(checked, 'run')} checked, {_found(damages)}", args))
    if damages:
        raise SystemExit(1)


def glance_row_of(glance: Any) -> dict[str, object]:
    """Return a run as a row beside others of the same correlation: with its task."""
    return {**glance_row(glance), "task": glance.head.task}


def related(store: Store, identifier: str) -> tuple[list[str], list[DeliveryRecord]]:
    """Return the conversations around an identifier, and their open messages."""
    try:
        records = followed(store.bus, identifier, _FOLLOWED)
    except MessageNotFound:
        return [identifier], []
    known = [record.message.correlation_id for record in records if record.message]
    return list(dict.fromkeys([identifier, *known])), [each for each in records if each.state in _OPEN]


# -- inside --------------------------------------------------------------------------------------------------


def _together(store: Store, identifier: str, now: datetime) -> tuple[Together, list[DeliveryRecord]]:
    correlations, messages = related(store, identifier)
    together = store.runs.views.together(correlations, now)
    if not together.runs:
        raise _unknown(store, identifier)
    return together, messages


def _watched(store: Store, identifier: str, now: datetime) -> Together:
    found = store.runs.views.glances(RunQuery(streams=(identifier,), limit=1), now)
    return Together(tuple(found)) if found else _together(store, identifier, now)[0]


def _require_named(args: Namespace) -> None:
    if not args.key:
        raise InvalidOption("name a run: its key, or the file of an archive with --file")


def _require(store: Store, key: str) -> None:
    if store.runs.known(key) is None:
        raise _unknown(store, key)


def _unknown(store: Store, key: str) -> RunNotFound:
    known = [head.stream for head in store.runs.find_all(RunQuery(limit=_FOLLOWED))]
    near = difflib.get_close_matches(key, known, n=3)
    meant = f"Did you mean {' or '.join(map(repr, near))}? " if near else ""
    ways = "`airflow agentic runs list` shows which there are"
    if _names_dag_run(key):
        ways = (
            f"Only tasks whose agents take durable steps have runs: `{_trace(key)}` shows what a DAG run sent and handled, "
            "`airflow agentic runs list` which runs there are"
        )
    return RunNotFound(
        f"there is no run {key!r} in this store, and none that belongs to such a DAG run or conversation. {meant}{ways}"
    )


def _names_dag_run(identifier: str) -> bool:
    """Whether this looks like ``dag_id:run_id``. Keys of runs have a slash before the colon of a time, if they have one."""
    dag_id, colon, run_id = identifier.partition(":")
    return bool(dag_id and colon and run_id) and "/" not in dag_id


def _trace(identifier: str) -> str:
    return f"airflow agentic messages trace {shlex.quote(identifier)}"


@contextlib.contextmanager
def _archived(args: Namespace) -> Iterator[tuple[Runs, Archive]]:
    """Read an archive, and lay what is in it into memory, to be looked at."""
    if args.key:
        raise InvalidOption("give the key of a run, or the file of an archive: not both")
    archive = read_file(args.file)
    journals = MemoryJournals()
    journals.append(Append(archive.head, 0, list(archive.records)))
    yield Runs(RunStores(journals, journals), Facilities(lambda: "archive")), archive
    if not archive.has_data:
        note("the archive was made without data: digests and sizes stand in its place")


def read_file(path: str) -> Archive:
    """Read the file of an archive.

    Raises:
        InvalidOption: It cannot be opened.
        JournalCorrupt: It is damaged.
    """
    try:
        with Path(path).open("rb") as file:
            return read_archive(file)
    except OSError as error:
        raise InvalidOption(f"cannot read {path}: {error.strerror or error}") from error


def _is_narrowed(args: Namespace) -> bool:
    return bool(args.agent or args.status or args.correlation or args.prefix)


def _open(together: Together) -> int:
    return sum(not each.is_ended for each in together.runs)


def _task_row(row: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in row.items() if name != "changed"}


def _event_data(event: Event) -> dict[str, Any]:
    return {
        "version": event.version,
        "at": exact(event.at),
        "type": event.type,
        "name": event.name,
        "data": _shown(event.data),
        "digest": event.digest,
    }


def _event_row(event: Event) -> dict[str, object]:
    return {
        "version": event.version,
        "at": iso(event.at),
        "type": event.type,
        "name": clean(event.name),
        "data": compact(_brief(_shown(event.data)), _DATA_WIDTH),
    }


def _shown(data: Any) -> Any:
    """Return what an event says, without passwords in the text of an error."""
    if isinstance(data, dict) and isinstance(data.get("error"), str):
        return {**data, "error": mask_text(data["error"])}
    return data


def _brief(data: Any) -> Any:
    """Return what an event says with what people look for first, and without fingerprints."""
    if not isinstance(data, dict):
        return data
    first = {name: data[name] for name in _LOOKED_FOR if name in data}
    return first | {name: value for name, value in data.items() if name not in _FINGERPRINTS}


def _damage_data(damage: Damage) -> dict[str, Any]:
    return {"run": damage.stream, "version": damage.version or "head", "what": damage.what}


def _found(damages: Sequence[Damage]) -> str:
    if not damages:
        return "all as they were written"
    runs = list(dict.fromkeys(each.stream for each in damages))
    return (
        f"{count(len(damages), 'damage')} in {count(len(runs), 'run')}. Fork such a run from a version before: "
        "`airflow agentic runs fork KEY --at VERSION --reason TEXT`; or restore the store from a backup"
    )
