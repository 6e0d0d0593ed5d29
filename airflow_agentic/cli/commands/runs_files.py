"""``airflow agentic runs``: runs as files, and an end of those that nobody needs."""

from __future__ import annotations

import contextlib
import os
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO, Any

from airflow.utils.platform import getuser

from airflow_agentic.cli.access import opened
from airflow_agentic.cli.command import command, recorded
from airflow_agentic.cli.commands.runs import read_file
from airflow_agentic.cli.output import count, listing, note, single
from airflow_agentic.cli.runs import glance_data, glance_row
from airflow_agentic.errors import InvalidOption, RunTaken
from airflow_agentic.persistence import RunHead, RunQuery, RunStatus
from airflow_agentic.persistence.archive import write_archive
from airflow_agentic.persistence.glances import moment


@command
@recorded
def export_run(args: Namespace) -> None:
    """Write a run to a file."""
    with opened(args) as store:
        archive = store.runs.transfer.taken_out(args.key, include_data=args.include_data)
    with _new_file(args.file, replace=args.yes) as file:
        manifest = write_archive(archive, file)
    damages = list(archive.damages())
    said = {"file": args.file, "bytes": Path(args.file).stat().st_size, **manifest}
    single(args.output, said, lambda: _exported(said))
    if damages:
        note(f"the run is damaged, and cannot be imported: {damages[0]}")
    if archive.has_data:
        note("all data of the run is in it, also what is secret or classified: look before you hand it on")
    else:
        note("it can be shown and verified (`--file`), not resumed; --include-data puts the data in")


@command
@recorded
def import_run(args: Namespace) -> None:
    """Make a run of a file."""
    archive = read_file(args.file)
    with opened(args) as store:
        head = store.runs.transfer.put_in(
            archive, to=args.to, actor=args.actor or getuser(), reason=args.reason or f"import of {args.file}"
        )
        glance = store.runs.views.of(head.stream, datetime.now(UTC)).glance
    listing(args.output, [glance_data(glance)], [glance_row(glance)])
    if head.digest == archive.head.digest:
        note("it has the same chain as where it was exported")
    else:
        note(f"it was sealed anew, and its last event says where it comes from: {archive.head.digest.hex()}")


@command
@recorded
def prune_runs(args: Namespace) -> None:
    """Forget of finished runs what nobody needs."""
    if args.whole and args.older_than is None and args.keep is None:
        raise InvalidOption("--whole forgets runs: say which stay, with --older-than or --keep")
    with opened(args) as store:
        heads = store.runs.each(RunQuery(agent=args.agent, statuses=(RunStatus.FINISHED,)))
        chosen, looked_at = _chosen(heads, args.older_than or timedelta(0), args.keep or 0, datetime.now(UTC))
        if args.whole and chosen and not args.yes:
            _confirm(f"Forget {count(len(chosen), 'finished run')}, whole?")
        records, forgotten = 0, 0
        for key in chosen:
            if args.whole:
                forgotten += store.runs.forget(key)
            else:
                pruned = store.runs.prune(key)
                records, forgotten = records + pruned, forgotten + bool(pruned)
    answer = {"runs": forgotten, "events": records, "whole": args.whole, "looked_at": looked_at}
    what = "forgot" if args.whole else f"forgot {count(records, 'event')} of"
    single(
        args.output,
        answer,
        lambda: [f"{what} {count(forgotten, 'run')}; {looked_at:,} finished ones were looked at"],
    )
    if not forgotten and chosen and not args.whole:
        note("runs of persistence hybrid and events keep all their events; --whole forgets runs")


@command
@recorded
def forget_run(args: Namespace) -> None:
    """Forget a run whole; who did it and why is in Airflow's audit log."""
    with opened(args) as store:
        view = store.runs.views.of(args.key, datetime.now(UTC))
        if view.glance.is_held and not args.force:
            raise RunTaken(
                f"{view.head.owner} works on the run {args.key!r}; nothing was forgotten. Wait for its end, or give --force",
                args.key,
                view.head.owner,
            )
        if not args.yes:
            _confirm(f"Forget run {args.key!r} ({view.head.status}, {count(view.head.version, 'event')})?")
        store.runs.forget(args.key)
    single(args.output, {"forgotten": args.key}, lambda: [f"forgot run {args.key!r}"])
    note("opened again by this key, all its steps are done again")


# -- inside --------------------------------------------------------------------------------------------------


def _chosen(heads: Iterator[RunHead], older: timedelta, keep: int, now: datetime) -> tuple[list[str], int]:
    """Return the keys of those that are old enough, and not among the newest of their agent; and how many there are."""
    seen: Counter[str] = Counter()
    chosen = []
    for head in heads:
        seen[head.agent] += 1
        if seen[head.agent] > keep and now - moment(head.updated_at_ms) >= older:
            chosen.append(head.stream)
    return chosen, seen.total()


def _confirm(question: str) -> None:
    if not sys.stdin.isatty():
        raise InvalidOption(f"{question} Say so with --yes")
    note(f"{question} [y/N]")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise SystemExit("nothing was forgotten")


@contextlib.contextmanager
def _new_file(path: str, *, replace: bool) -> Iterator[IO[bytes]]:
    """Open a file that is whole when it is there: another name is used until then. Nobody else may read it."""
    target = Path(path)
    if target.exists() and not replace:
        raise InvalidOption(f"{path} is there already: give another name, or --yes to write over it")
    part = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
        part.replace(target)
    except OSError as error:
        raise InvalidOption(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)


def _exported(said: dict[str, Any]) -> Iterator[str]:
    run = said["run"]
    yield f"{said['file']}: run {run['stream']!r}, {count(said['records'], 'event')}, {said['bytes']:,} bytes"
    yield f"the journal ends with {run['digest']}"
    for name, counted in said["left_out"].items():
        yield f"left out: {counted['bytes']:,} bytes of {counted['records']:,} {name}"
