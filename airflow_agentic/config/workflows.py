"""Workflows as the project file declares them under ``workflows:``: settings, and what is wrong with them.

``airflow_agentic.workflows.declared_dags`` makes DAGs of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from airflow_agentic.config.sections import FrozenDict, Name, Names, Section, Values
from airflow_agentic.config.tree import Node, Path

WorkflowKind = Literal[
    "sequence", "parallel", "route", "map_reduce", "saga", "supervise", "handoff", "debate", "await_human"
]
"""The patterns."""


class StepSection(Section):
    """A step of a saga."""

    agent: Name = Field(description="Who does it.")
    compensation: Name | None = Field(
        None, description="The agent that takes it back; it gets the step's result."
    )
    no_compensation: bool = Field(
        default=False, description="There is nothing to take back. The last step needs to say neither."
    )


class RuleSection(Section):
    """A condition, and who gets the task if it holds."""

    when: str = Field(
        min_length=1,
        description="A condition in [CEL](https://cel.dev); the task stands in it as `output`. `true` always holds.",
        examples=["output.total > 1000"],
    )
    agent: Name = Field(description="Who gets the task then.")


class AskSection(Section):
    """Whom to ask, and how long they have."""

    users: tuple[str, ...] = Field(
        (), description="Ids of Airflow's users who may answer. Default: everybody who may."
    )
    within_seconds: float | None = Field(
        None,
        gt=0,
        description="How long they have before the next are asked. Only the last may have no limit.",
    )


class WorkflowSection(Section):
    """A workflow: a pattern, and who takes part. `declared_dags()` in a DAG file makes a DAG of its name of it."""

    kind: WorkflowKind = Field(description="The pattern; it says which of the keys below there are.")
    description: str | None = Field(None, description="What it is for.")
    schedule: str | None = Field(
        None,
        min_length=1,
        description="When it runs: a cron expression, or `@daily` and so on.",
        examples=["0 6 * * *"],
    )
    on_message: Name | None = Field(
        None,
        description="Instead: the agent's name or mailbox whose messages start it. Each message is a task.",
    )
    tags: tuple[str, ...] = Field((), description="Tags of the DAG.")
    policy: Name | None = Field(
        None,
        description="A policy of `policies`: how its agents are guarded, in place of their own policies.",
    )
    persistence: Literal["hybrid", "events", "snapshot", "checkpoint"] | None = Field(
        None, description="How its durable runs are kept, in place of what its agents say. Default: `hybrid`."
    )
    retries: int = Field(0, ge=0, description="How often Airflow tries each task again.")
    retry_seconds: float = Field(300.0, ge=0, description="How long it waits before that.")
    timeout_seconds: float | None = Field(None, gt=0, description="How long one try of a task may take.")
    task: Values | tuple[Any, ...] | str | int | float | None = Field(
        None,
        description="What it is about: any JSON; texts in it may be templates.",
        examples=["{{ dag_run.conf }}"],
    )
    agents: tuple[Name, ...] = Field(
        (),
        description="sequence, parallel, handoff, debate: who takes part, in order. supervise: the workers.",
    )
    quorum: int | None = Field(None, ge=1, description="parallel: how many must succeed. Default: all.")
    fail_fast: bool = Field(
        default=False, description="parallel: go on, or fail, as soon as it is clear which."
    )
    routes: Names[Name] = Field(default_factory=FrozenDict[str], description="route: value to agent.")
    rules: tuple[RuleSection, ...] = Field(
        (), description="route: instead of `routes`, conditions; the first one that holds decides."
    )
    decider: Name | None = Field(
        None, description="route: an agent that gets the task first; its answer chooses among `routes`."
    )
    default: Name | None = Field(None, description="route: who gets the task if nothing fits.")
    can_miss: bool = Field(default=False, description="route: instead of a default, nobody gets it then.")
    items: tuple[Any, ...] = Field((), description="map_reduce: what is mapped.")
    splitter: Name | None = Field(
        None, description="map_reduce: instead of `items`, an agent that makes them of the task."
    )
    mapper: Name | None = Field(None, description="map_reduce: the agent for one item.")
    reducer: Name | None = Field(None, description="map_reduce: the agent that gets the list of results.")
    steps: tuple[StepSection, ...] = Field((), description="saga: the steps, in order.")
    supervisor: Name | None = Field(None, description="supervise: who decides who works next.")
    judge: Name | None = Field(None, description="debate: who decides in the end.")
    rounds: int | None = Field(
        None,
        ge=1,
        description="supervise, debate: how many there are at most. handoff: how often it may be handed over.",
    )
    until: str | None = Field(
        None,
        min_length=1,
        description="debate: a CEL condition that ends it after a round; `output` holds the answers by agent.",
    )
    question: tuple[str, ...] = Field((), description="await_human: what to ask, one after the other.")
    options: tuple[str, ...] = Field((), description="await_human: what can be chosen. Default: OK.")
    ask: tuple[AskSection, ...] = Field(
        (), description="await_human: whom, in order. Default: everybody, for ever."
    )


@dataclass(frozen=True)
class _Keys:
    """What goes with a pattern: what must be said, and what may be."""

    must: tuple[str, ...]
    may: tuple[str, ...] = ()


_KEYS: dict[str, _Keys] = {
    "sequence": _Keys(("agents",)),
    "parallel": _Keys(("agents",), ("quorum", "fail_fast")),
    "route": _Keys((), ("routes", "rules", "decider", "default", "can_miss")),
    "map_reduce": _Keys(("mapper", "reducer"), ("items", "splitter")),
    "saga": _Keys(("steps",)),
    "supervise": _Keys(("supervisor", "agents"), ("rounds",)),
    "handoff": _Keys(("agents",), ("rounds",)),
    "debate": _Keys(("agents", "judge"), ("rounds", "until")),
    "await_human": _Keys(("question",), ("options", "ask")),
}
_PARTICULAR = {key for keys in _KEYS.values() for key in (*keys.must, *keys.may)}
_FEWEST = {"handoff": ("agents", 2), "debate": ("agents", 2), "saga": ("steps", 2)}

_Told = tuple[Path, str, str | None]


def workflow_agents(root: Node) -> Iterator[tuple[Path, Node]]:
    """Yield where workflows name agents in lists."""
    for path, entry in _workflows(root):
        for index, named in _listed(entry, "agents"):
            yield (*path, "agents", index), named
        for key, fields in (("steps", ("agent", "compensation")), ("rules", ("agent",))):
            for index, each in _listed(entry, key):
                for field in fields:
                    if (member := each.child(field)) is not None:
                        yield (*path, key, index, field), member


def workflow_faults(root: Node) -> Iterator[_Told]:
    """Yield what is wrong with workflows that no model can see: path, message, suggestion."""
    for path, entry in _workflows(root):
        kind = _said(entry, "kind")
        if not isinstance(kind, str) or kind not in _KEYS:
            continue
        keys = _KEYS[kind]
        for key in keys.must:
            if not _is_said(entry, key):
                yield path, f"a {kind} must have {key}", f"write {key}: below it"
        for other, _ in entry.children():
            if other in _PARTICULAR and other not in (*keys.must, *keys.may):
                known = ", ".join((*keys.must, *keys.may))
                yield (*path, other), f"{other} does not go with {kind}", f"for {kind} there are: {known}"
        if entry.child("schedule") is not None and entry.child("on_message") is not None:
            yield (*path, "on_message"), "it has a schedule too", "let the time start it, or messages"
        yield from _too_few(path, entry, kind)
        if (check := _CHECKS.get(kind)) is not None:
            yield from check(path, entry)


def _too_few(path: Path, entry: Node, kind: str) -> Iterator[_Told]:
    key, fewest = _FEWEST.get(kind, ("agents", 1))
    if _is_said(entry, key) and len(_listed(entry, key)) < fewest:
        yield (*path, key), f"a {kind} must have at least {fewest} of them", None
    if kind in ("supervise", "handoff", "debate"):
        names = [each.value for _, each in _listed(entry, "agents")] + [_said(entry, "supervisor")]
        for index, each in _listed(entry, "agents"):
            if names.count(each.value) > 1:
                hint = "declare a second agent of the same type"
                yield (
                    (*path, "agents", index),
                    f"{each.value!r} is there twice, and who is meant is not clear",
                    hint,
                )
                return


def _parallel(path: Path, entry: Node) -> Iterator[_Told]:
    quorum, count = _said(entry, "quorum"), len(_listed(entry, "agents"))
    if isinstance(quorum, int) and quorum > count > 0:
        yield (*path, "quorum"), f"{quorum} cannot succeed of {count} agents", f"give 1 to {count}"


def _route(path: Path, entry: Node) -> Iterator[_Told]:
    if _is_said(entry, "routes") == _is_said(entry, "rules"):
        yield path, "a route must have either routes or rules", "write value: agent below routes:"
    if _is_said(entry, "rules") and entry.child("decider") is not None:
        yield (*path, "decider"), "a decider goes with routes; rules look at the task", "leave it out"
    has_default, can_miss = entry.child("default") is not None, _said(entry, "can_miss") is True
    always = any(_said(rule, "when") == "true" for _, rule in _listed(entry, "rules"))
    if has_default and can_miss:
        yield (*path, "can_miss"), "with a default nothing can be missed", "leave it out"
    if not (has_default or can_miss or always):
        yield path, "what fits no route would be lost", "write default: AGENT, or can_miss: true"


def _map_reduce(path: Path, entry: Node) -> Iterator[_Told]:
    sources = [key for key in ("items", "splitter", "on_message") if _is_said(entry, key)]
    if len(sources) != 1:
        yield path, "a map_reduce must have one of items, splitter and on_message", "say what is mapped"
    if entry.child("task") is not None and entry.child("splitter") is None:
        yield (*path, "task"), "the task of a map_reduce is for its splitter", "leave it out"


def _saga(path: Path, entry: Node) -> Iterator[_Told]:
    steps = _listed(entry, "steps")
    for index, step in steps:
        where, has = (*path, "steps", index), step.child("compensation") is not None
        says_none = _said(step, "no_compensation") is True
        if has and says_none:
            yield (*where, "no_compensation"), "it has a compensation", "leave one of them out"
        elif has and index == len(steps) - 1:
            message = "the last step has a compensation, and nothing that could fail comes after it"
            yield (*where, "compensation"), message, "leave it out"
        elif not has and not says_none and index < len(steps) - 1:
            hint = "write compensation: AGENT, or no_compensation: true"
            yield where, "nobody takes this step back if a later one fails", hint
    if steps and not any(step.child("compensation") is not None for _, step in steps):
        yield (*path, "steps"), "no step has a compensation", "make it a sequence"


def _await_human(path: Path, entry: Node) -> Iterator[_Told]:
    stages = _listed(entry, "ask")
    for index, stage in stages[:-1]:
        if stage.child("within_seconds") is None:
            yield (
                (*path, "ask", index),
                "those after it would never be asked",
                "write within_seconds: below it",
            )


_CHECKS = {
    "parallel": _parallel,
    "route": _route,
    "map_reduce": _map_reduce,
    "saga": _saga,
    "await_human": _await_human,
}


def _workflows(root: Node) -> Iterator[tuple[Path, Node]]:
    declared = root.child("workflows")
    if declared is not None and declared.is_map:
        for name, entry in declared.children():
            if entry.is_map:
                yield ("workflows", name), entry


def _listed(entry: Node, key: str) -> list[tuple[int, Node]]:
    found = entry.child(key)
    return [] if found is None or found.is_map else [(int(index), each) for index, each in found.children()]


def _said(entry: Node, key: str) -> Any:
    found = entry.child(key)
    return None if found is None else found.value


def _is_said(entry: Node, key: str) -> bool:
    found = entry.child(key)
    return found is not None and bool(found.value)
