"""What is wrong with a project, all of it at once, each fault with its place and the nearest right name."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from airflow_agentic.config.masking import is_secret, mask_text, shown
from airflow_agentic.config.model import ProjectSection, known_keys
from airflow_agentic.config.names import did_you_mean, normalised
from airflow_agentic.config.options import BOOTSTRAP, OPTIONS
from airflow_agentic.config.references import misplaced
from airflow_agentic.config.sections import NAME
from airflow_agentic.config.settings import is_true
from airflow_agentic.config.tree import Node, Path, dotted
from airflow_agentic.config.words import WORDS, words
from airflow_agentic.config.workflows import workflow_agents, workflow_faults
from airflow_agentic.errors import ConfigFault

_SHARES = frozenset({"failure_rate", "slow_call_rate", "budget", "alert_at"})
# What pydantic puts into the place of a fault and is no key of a file.
_NO_KEYS = frozenset({"[key]", "[section]", "[name]"})
_MODULE = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
_UNTIE = "take one of them out of uses:"
_CONFIGURED = ("agents", "services")
_Leads = Mapping[str, Mapping[str, tuple[str, tuple[str, ...]]]]
_RECIPIENT = ("agent or mailbox", ("agents", "mailboxes"))
# Section and field of a name that leads elsewhere: to what, and the sections where that is declared.
_LINKS: _Leads = {
    "agents": {
        "policy": ("policy", ("policies",)),
        "role": ("role", ("roles",)),
        "budget": ("budget", ("budgets",)),
    },
    "mailboxes": {"role": ("role", ("roles",))},
    "routes": {"to": _RECIPIENT},
    "policies": {"budget": ("budget", ("budgets",))},
    "workflows": {
        "policy": ("policy", ("policies",)),
        "on_message": _RECIPIENT,
        **dict.fromkeys(
            ("decider", "default", "splitter", "mapper", "reducer", "supervisor", "judge"),
            ("agent", ("agents",)),
        ),
    },
}
# The same for fields that are maps to such names.
_MAPS: _Leads = {
    "agents": {"sends_to": _RECIPIENT, "uses": ("service or agent", ("services", "agents"))},
    "services": {"uses": ("service", ("services",))},
    "workflows": {"routes": ("agent", ("agents",))},
}
_BACKOFF = ("retry_base_seconds", "retry_max_seconds")
# Name, where it is said, and value.
_Bound = tuple[str, Node | None, float | None]


def fault(root: Node, path: Path, message: str, suggestion: str | None = None) -> ConfigFault:
    """Return a fault about what is at ``path``, with the place where it, or what is above it, is written."""
    node, _ = root.nearest(path)
    origin = node.origin
    return ConfigFault(origin.file, origin.line, dotted(path), message, suggestion, origin.source)


def validated(root: Node, whole: Node | None = None) -> tuple[ProjectSection | None, list[ConfigFault]]:
    """Check a whole tree.

    Args:
        root: The tree, without what is deleted.
        whole: The same with the deletions in it, to tell of them.

    Returns:
        The project as its model (``None`` if it does not fit), and every fault that was found.
    """
    project, faults = None, []
    try:
        project = ProjectSection.model_validate(root.plain())
    except ValidationError as error:
        # Of a reference that stands where none is resolved, the type is not judged too.
        judged = {dotted(path) for path, *_ in _misplaced(root)}
        told = (_told(root, detail) for detail in error.errors(include_url=False))
        faults = [found for found in told if found.key not in judged]
    faults += [fault(root, *found) for found in _relations(root, whole or root)]
    return project, faults


def in_order(faults: Iterable[ConfigFault]) -> list[ConfigFault]:
    """Return faults as people read them: by file and line, those of no file last; none twice."""
    return sorted(dict.fromkeys(faults), key=lambda f: (f.file is None, f.file or "", f.line or 0, f.key))


def _told(root: Node, detail: ErrorDetails) -> ConfigFault:
    path: Path = tuple(part for part in detail["loc"] if part not in _NO_KEYS)
    node, rest = root.nearest(path)
    path = path[: len(path) - len(rest)]
    kind = detail["type"]
    if kind == "missing":
        return fault(root, path, f"it lacks a {rest[-1]!r}", f"write {rest[-1]}: below it")
    if detail["loc"][-1:] == ("[key]",):
        return fault(
            root,
            path,
            "a name must be of letters, digits, '_', '-' and '.' only, begin with a letter or digit, "
            "and be no longer than 200",
        )
    if kind == "extra_forbidden":
        return _unknown_key(root, path)
    said = words(detail)
    if kind == "string_pattern_mismatch" and detail.get("ctx", {}).get("pattern") == NAME:
        said = "must be a name: letters, digits, '_', '-' and '.'"
    hint = None
    if node.value is None:
        said += ", and nothing is written there"
        hint = "write what belongs there, or take the key out"
    elif not isinstance(node.value, dict | tuple) and kind != "string_too_short":
        said = f"{said}, not {_written(shown(node.value, path))}"
        hint = _type_hint(node, path, kind)
    return fault(root, path, said, hint)


def _written(value: Any) -> str:
    """Return a scalar as a person wrote it: ``true``, not ``True``."""
    return repr(value) if isinstance(value, str) else json.dumps(value)


def _type_hint(node: Node, path: Path, kind: str) -> str | None:
    if kind == "string_type":
        return "put it in quotes"
    if kind == "less_than_equal" and _SHARES & set(path[-2:]) and isinstance(node.value, int | float):
        return f"a share of 1, as in {min(node.value, 100) / 100:g} for {min(node.value, 100):g} %"
    if isinstance(node.value, str) and kind == "tuple_type":
        return f"write {json.dumps([shown(node.value, path)], ensure_ascii=False)}"
    if isinstance(node.value, str) and WORDS.get(kind) == "must be a map":
        return "write 'key: value' lines below it"
    return None


def _unknown_key(root: Node, path: Path) -> ConfigFault:
    key, known = str(path[-1]), known_keys(path[:-1])
    if path[:1] == ("settings",) and key in BOOTSTRAP:
        message = f"{key} says where this file is, and cannot be said in it"
        return fault(
            root,
            path,
            message,
            "set it in airflow.cfg, or in the environment with AIRFLOW__AGENTIC__PROJECT_FILE",
        )
    near = did_you_mean(key, known)
    return fault(root, path, f"unknown key {key!r}", near or f"known here: {', '.join(known)}")


def _relations(root: Node, whole: Node) -> Iterator[tuple[Any, ...]]:
    """Yield what no model can see: things that lead to other things. Tolerates a tree that does not fit the model."""
    yield from _names(root)
    yield from _links(root, whole)
    yield from _cycles(root)
    yield from _fallback_cycles(root)
    yield from _misplaced(root)
    yield from _backoffs(root)
    yield from _injections(root)
    yield from workflow_faults(root)
    for index, module in (root.child("imports") or root).children():
        if isinstance(index, int) and isinstance(module.value, str) and not _MODULE.fullmatch(module.value):
            message = f"must be the name of a module, such as billing.agents, not {mask_text(module.value)!r}"
            yield ("imports", index), message


def _names(root: Node) -> Iterator[tuple[Any, ...]]:
    """Agents and services are told apart by name, also by environment variables; an agent has the mailbox of its name."""
    agents = {path[-1]: node for path, node in _entries(root, "agents")}
    for path, _ in _entries(root, "mailboxes"):
        if (agent := agents.get(path[-1])) is not None:
            message = f"this is the mailbox of agent {path[-1]!r} ({agent.origin.source})"
            yield path, message, f"say it under {dotted(('agents', path[-1]))}"
    seen: dict[str, Path] = {}
    for section in _CONFIGURED:
        for path, node in _entries(root, section):
            spelling = normalised(str(path[-1]))
            first = seen.setdefault(spelling, path)
            if first == path:
                continue
            there = root.nearest(first)[0].origin.source
            what = "agents" if first[0] == section == "agents" else "things"
            same = f"two {what} have one name: {dotted(first)} ({there}) and {dotted(path)} ({node.origin.source})"
            yield path, f"{same}; names must differ in more than case and punctuation", "rename one of them"


def _links(root: Node, whole: Node) -> Iterator[tuple[Any, ...]]:
    names = {section: [str(p[-1]) for p, _ in _entries(root, section)] for section in known_keys(())}
    for path, node, what, sections in _said_names(root):
        known = list(dict.fromkeys(name for section in sections for name in names[section]))
        # What is no name at all is the model's to tell.
        if not isinstance(node.value, str) or node.value in known or not re.fullmatch(NAME, node.value):
            continue
        message = f"there is no {what} {shown(node.value, path)!r}"
        declare = f"declare it under {' or '.join(f'{section}:' for section in sections)}"
        hint = did_you_mean(node.value, known) or (f"known: {', '.join(known[:20])}" if known else declare)
        for section in sections:
            there, _ = whole.nearest((section, node.value))
            if there.deletes:
                message = f"{what} {shown(node.value, path)!r} is deleted in {there.origin.source}"
                hint = "name another one, or do not delete it"
        yield path, message, hint


def _said_names(root: Node) -> Iterator[tuple[Path, Node, str, tuple[str, ...]]]:
    """Yield where something is named, what it must be, and the sections where that is declared."""
    for section, fields in _LINKS.items():
        for path, entry in _entries(root, section):
            for field, leads in fields.items():
                if (named := entry.child(field)) is not None:
                    yield (*path, field), named, *leads
    for section, fields in _MAPS.items():
        for path, entry in _entries(root, section):
            for field, leads in fields.items():
                for key, named in _children(entry, field):
                    yield (*path, field, key), named, *leads
    for path, named in (*_fallbacks(root), *workflow_agents(root)):
        yield path, named, "agent", ("agents",)


def _fallbacks(root: Node) -> Iterator[tuple[Path, Node]]:
    """Yield where a policy names an agent to fall back to."""
    for path, policy in _entries(root, "policies"):
        agents = policy.find(("fallback", "agents"))
        for index, named in agents.children() if agents is not None and not agents.is_map else ():
            yield (*path, "fallback", "agents", index), named


def _cycles(root: Node) -> Iterator[tuple[Any, ...]]:
    """Yield each circle of things that need each other, once."""
    edges: dict[str, dict[str, Path]] = defaultdict(dict)
    for section in _CONFIGURED:
        for path, entry in _entries(root, section):
            for parameter, target in _children(entry, "uses"):
                if isinstance(target.value, str):
                    edges[str(path[-1])].setdefault(target.value, (*path, "uses", parameter))
    for path, circle in _each_circle(edges):
        message = f"these need each other, and none can be made first: {_way(circle)}"
        if len(circle) == 1:
            message = f"{circle[0]!r} needs itself, and cannot be made first"
        yield path, message, _UNTIE


def _fallback_cycles(root: Node) -> Iterator[tuple[Any, ...]]:
    """Yield each circle of agents that fall back to each other, once."""
    targets: dict[str, dict[str, Path]] = defaultdict(dict)
    for path, named in _fallbacks(root):
        if isinstance(named.value, str):
            targets[str(path[1])].setdefault(named.value, path)
    edges: dict[str, dict[str, Path]] = {}
    for path, entry in _entries(root, "agents"):
        policy = entry.child("policy")
        if policy is not None and isinstance(policy.value, str) and policy.value in targets:
            edges[str(path[-1])] = targets[policy.value]
    for path, circle in _each_circle(edges):
        message = f"these fall back to each other, and nobody would do the work: {_way(circle)}"
        if len(circle) == 1:
            message = f"agent {circle[0]!r} has this policy, and would fall back to itself"
        yield path, message, "name other agents, or give one of them a policy without fallback:"


def _way(circle: Sequence[str]) -> str:
    return " -> ".join([*circle, circle[0]])


def _each_circle(edges: Mapping[str, Mapping[str, Path]]) -> Iterator[tuple[Path, list[str]]]:
    """Yield each circle once, and where its first step is said."""
    told: set[frozenset[str]] = set()
    for start in list(edges):
        for circle in _circles(edges, [start]):
            if frozenset(circle) not in told:
                told.add(frozenset(circle))
                yield edges[circle[0]][circle[1 % len(circle)]], circle


def _circles(edges: Mapping[str, Mapping[str, Path]], way: list[str]) -> Iterator[list[str]]:
    """Yield the circles that a walk from the last of ``way`` runs into; each thing is walked through once."""
    done: set[str] = set()
    stack = [iter(list(edges.get(way[0], ())))]
    while stack:
        target = next(stack[-1], None)
        if target is None:
            stack.pop()
            done.add(way.pop())
        elif target in way:
            yield way[way.index(target) :]
        elif target not in done:
            way.append(target)
            stack.append(iter(list(edges.get(target, ()))))


def _misplaced(root: Node) -> Iterator[tuple[Any, ...]]:
    for section, node in root.children():
        if section not in _CONFIGURED:
            yield from misplaced(node, (section,), allowed=False, is_secret=is_secret)
            continue
        for name, entry in node.children():
            for key, child in entry.children():
                yield from misplaced(
                    child, (section, name, key), allowed=key == "config", is_secret=is_secret
                )


def _backoffs(root: Node) -> Iterator[tuple[Any, ...]]:
    """Yield where the first random delay may be longer than the longest one: in the options, and in each policy."""
    coded = {option.key: option.default for option in OPTIONS}
    of_settings = []
    for key in _BACKOFF:
        node = root.find(("settings", key))
        of_settings.append((key, node, _number(node) if node else float(coded[key])))
    yield from _backoff(("settings",), *of_settings)
    for path, policy in _entries(root, "policies"):
        mine = []
        for key, default in zip(("base_seconds", "max_seconds"), of_settings, strict=True):
            node = policy.find(("retry", key))
            mine.append(
                (key, node, _number(node)) if node else (f"{default[0]} of settings", None, default[2])
            )
        yield from _backoff((*path, "retry"), *mine)


def _injections(root: Node) -> Iterator[tuple[Any, ...]]:
    """Yield what would break things on purpose in production."""
    mode = root.find(("settings", "mode"))
    if mode is None or mode.value != "production":
        return
    said = root.find(("settings", "fault_injection"))
    if said is not None and is_true(said.value):
        message = f"must not be on in production ({mode.origin.source})"
        yield ("settings", "fault_injection"), message, "leave it out there, or set mode to development"
    for path, _ in _entries(root, "faults"):
        message = f"a fault must not be declared in production ({mode.origin.source})"
        yield path, message, "keep faults in a file that only tests lay over the project"


def _backoff(path: Path, base: _Bound, most: _Bound) -> Iterator[tuple[Any, ...]]:
    if base[2] is None or most[2] is None or base[2] <= most[2]:
        return
    if base[1] is not None:
        message = f"{base[0]} is {base[1].value} and more than {most[0]}, which is {_plain(most)}"
        yield (*path, base[0]), message, f"give a smaller {base[0]} or a larger {most[0]}"
    elif most[1] is not None:
        message = f"{most[0]} is {most[1].value} and less than {base[0]}, which is {_plain(base)}"
        yield (*path, most[0]), message, f"give a larger {most[0]} or a smaller {base[0]}"


def _plain(bound: _Bound) -> str:
    return f"{bound[2]:g}" if bound[1] is None else str(bound[1].value)


def _number(node: Node) -> float | None:
    try:
        return float(node.value)
    except (TypeError, ValueError):
        return None


def _entries(root: Node, section: str) -> Iterator[tuple[Path, Node]]:
    for name, node in _children(root, section):
        yield (section, name), node


def _children(node: Node, key: str) -> list[tuple[str | int, Node]]:
    below = node.child(key)
    return below.children() if below is not None and below.is_map else []


def typed(root: Node, values: Any) -> Node:
    """Return the tree with the values that the model made of what is written: numbers of texts."""
    if root.is_map and isinstance(values, Mapping):
        both = {key: typed(child, values.get(key)) for key, child in root.value.items()}
        return Node(both, root.origin, root.fresh)
    scalar = isinstance(values, bool | int | float | str) and not isinstance(root.value, dict | tuple)
    return Node(values, root.origin) if scalar else root


def masked(faults: Iterable[ConfigFault]) -> list[ConfigFault]:
    """Return faults whose texts hold no password of a URL: a last look, whoever wrote them."""
    return [
        ConfigFault(
            f.file, f.line, f.key, mask_text(f.message), f.suggestion and mask_text(f.suggestion), f.source
        )
        for f in faults
    ]
