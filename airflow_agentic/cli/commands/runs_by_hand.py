"""``airflow agentic runs``: what people do about a run that does not go on. Each of it is an event of the run."""

from __future__ import annotations

import json
import shlex
from argparse import Namespace
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from airflow.utils.platform import getuser

from airflow_agentic.cli.access import opened
from airflow_agentic.cli.command import command, recorded
from airflow_agentic.cli.output import count, listing, note, shorten
from airflow_agentic.cli.runs import glance_data, glance_row, suggestion
from airflow_agentic.cli.tasks import TaskName, clear, task_named
from airflow_agentic.errors import ConfigurationError, InvalidOption, RunNotFound
from airflow_agentic.persistence import RunHead, Runs, RunStatus
from airflow_agentic.persistence.history import When
from airflow_agentic.persistence.records import RecordType
from airflow_agentic.persistence.views import RunView
from airflow_agentic.stores import Store

_LONGEST = 500


@command
@recorded
def resume_run(args: Namespace) -> None:
    """Let a run go on, and start the task that works on it again if that is asked for."""
    with opened(args) as store:
        view = store.runs.views.of(args.key, datetime.now(UTC))
        _require_resumable(view, args)
        task = task_named(view.head.task)
        if args.clear and task is None:
            raise ConfigurationError(
                f"run {args.key!r} belongs to no task of Airflow, so there is nothing to clear: whoever opens it by its key "
                "goes on"
            )
        store.runs.by_hand.release(args.key, force=args.force, **_who(args))
        cleared = _cleared(task) if args.clear and task is not None else 0
        _print(store.runs, args.key, args)
    if cleared:
        note(
            f"cleared {count(cleared, 'task')}: Airflow does them again, and the run goes on after its last finished step"
        )
    else:
        note(_how_to_start(view.head, task, args))


@command
@recorded
def retry_step(args: Namespace) -> None:
    """Let an ambiguous step be done again."""
    _change(args, lambda runs: runs.by_hand.retry_step(args.key, args.step, force=args.force, **_who(args)))


@command
@recorded
def skip_step(args: Namespace) -> None:
    """Let a step count as done."""
    result = None if args.result is None else parsed(args.result, "--result")

    def skip(runs: Runs) -> int:
        view = runs.views.of(args.key, datetime.now(UTC))
        known = {each.step for each in view.ambiguous} | {view.head.step, *(e.step for e in view.failures)}
        if args.step not in known:
            note(
                f"run {args.key!r} never began a step {args.step!r}: it will be skipped when it is asked for"
            )
        return runs.by_hand.skip_step(args.key, args.step, result=result, force=args.force, **_who(args))

    _change(args, skip)


@command
@recorded
def set_state(args: Namespace) -> None:
    """Change the state of a run."""
    if (args.patch is None) == (args.state is None):
        raise InvalidOption("give either --patch (merged into the state) or --state (in place of it)")
    changed: dict[str, Any] = {}
    if args.patch is not None:
        changed["patch"] = parsed(args.patch, "--patch")
    else:
        changed["state"] = parsed(args.state, "--state")
    _change(args, lambda runs: runs.by_hand.set_state(args.key, force=args.force, **changed, **_who(args)))


@command
@recorded
def answer_question(args: Namespace) -> None:
    """Answer what a run asks."""
    answer = parsed(args.answer, "the answer")
    actor = args.actor or getuser()
    _change(args, lambda runs: runs.by_hand.answer(args.key, args.question, answer, actor=actor))


@command
@recorded
def fork_run(args: Namespace) -> None:
    """Begin a new run from a past moment of another one."""
    changed = {} if args.patch is None else {"patch": parsed(args.patch, "--patch")}
    with opened(args) as store:
        at = None if args.at is None else _moment(store, args.key, args.at)
        key = store.runs.by_hand.fork(args.key, at=at, to=args.to, **changed, **_who(args))
        head, task = store.runs.find(key), task_named(store.runs.find(args.key).task)
        _print(store.runs, key, args)
    note(f"{args.key!r} stays as it is. {_how_to_open(head)}{_how_a_task_opens(key, task)}")


def parsed(text: str, what: str) -> Any:
    """Read JSON that somebody typed.

    Raises:
        InvalidOption: It is none.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise InvalidOption(f"{what} is nested too deeply to be read as JSON") from None
    except ValueError as error:
        raise InvalidOption(
            f"{what} is not JSON: {error}. In a shell, put single quotes around it and double quotes around texts: "
            """'{"name": "value"}' or '"a text"'"""
        ) from None


# -- inside --------------------------------------------------------------------------------------------------


def _who(args: Namespace) -> dict[str, Any]:
    return {"actor": args.actor or getuser(), "reason": args.reason}


def _change(args: Namespace, change: Callable[[Runs], int]) -> None:
    with opened(args) as store:
        version = change(store.runs)
        _print(store.runs, args.key, args)
        head = store.runs.find(args.key)
    note(f"kept as event {version} of the run. {_how_it_goes_on(head, args)}")


def _print(runs: Runs, key: str, args: Namespace) -> None:
    glance = runs.views.of(key, datetime.now(UTC)).glance
    listing(args.output, [glance_data(glance)], [glance_row(glance)])


def _require_resumable(view: RunView, args: Namespace) -> None:
    head = view.head
    if head.status == RunStatus.FINISHED:
        raise ConfigurationError(
            f"run {args.key!r} is finished: there is nothing to resume. To do a part of it again, fork it: "
            f"`airflow agentic runs fork {shlex.quote(args.key)} --at VERSION --reason TEXT`"
        )
    if head.status == RunStatus.WAITING and not args.force:
        is_asked = view.questions or view.ambiguous
        ask = (
            f". `airflow agentic runs show {shlex.quote(args.key)}` says how it is answered"
            if is_asked
            else ""
        )
        raise ConfigurationError(
            f"run {args.key!r} waits ({shorten(head.waiting, _LONGEST)}), and goes on by itself when that is there{ask}. If "
            "nobody looks for it any more, give --force"
        )


def _cleared(task: TaskName) -> int:
    try:
        return clear(task)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}. The run itself is released: whoever opens it goes on") from error


def _how_to_start(head: RunHead, task: TaskName | None, args: Namespace) -> str:
    if task is None:
        return _how_to_open(head)
    mapped = f", index {task.map_index}" if task.map_index >= 0 else ""
    again = suggestion("resume", args.key, args, "--clear --reason 'why'")
    return (
        f"whoever works on it next goes on after its last finished step. Start its task again: {again}; or clear the task "
        f"{task.task_id!r}{mapped} of the DAG run {task.run_id!r} of {task.dag_id!r} in Airflow, or all failed ones of that DAG "
        f"run: airflow dags clear {shlex.quote(task.dag_id)} --run-id {shlex.quote(task.run_id)} --only-failed"
    )


def _how_to_open(head: RunHead) -> str:
    return f"Whoever opens it goes on: store.run({head.agent!r}, key={head.stream!r})"


def _how_a_task_opens(key: str, task: TaskName | None) -> str:
    """Return how the task that the old run belongs to goes on with another one."""
    if task is None:
        return ""
    conf = shlex.quote(json.dumps({"run_key": key}, ensure_ascii=False))
    return (
        f". So does a task RunAgentOperator(…, run_key={key!r}); if task {task.task_id!r} has "
        'run_key="{{ params.run_key }}", the next DAG run is told: '
        f"airflow dags trigger {shlex.quote(task.dag_id)} --conf {conf}"
    )


def _how_it_goes_on(head: RunHead, args: Namespace) -> str:
    if head.status == RunStatus.FINISHED:
        return "The run is finished, and does not go on by itself"
    if head.status == RunStatus.WAITING:
        return "The run goes on when what waits for it sees that"
    if task_named(head.task):
        now = suggestion("resume", args.key, args, "--clear --reason 'why'")
        return f"It goes on with the next try of its task, or now: {now}"
    return _how_to_open(head)


def _moment(store: Store, key: str, text: str) -> When:
    """Read a version, the name of a checkpoint, or a time."""
    if text.isdecimal():
        return int(text)
    names = {event.name for event in store.runs.history(key) if event.type == RecordType.CHECKPOINT}
    if text in names:
        return text
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        known = f"checkpoints are {', '.join(sorted(names))}" if names else "it has no checkpoints"
        raise RunNotFound(
            f"run {key!r} has no moment {text!r}: give a version, the name of a checkpoint ({known}) or a time such as "
            "2026-11-23T14:00:00Z"
        ) from None
    # As times are shown.
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
