"""What the project declares about mailboxes: who wants to hear what, how much each holds, and what is wrong with that."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from airflow_agentic.config.model import SubscriptionSection
from airflow_agentic.config.names import did_you_mean
from airflow_agentic.config.project import Project
from airflow_agentic.config.tree import Path, dotted
from airflow_agentic.errors import ConfigFault, InvalidFilter, ProjectInvalid
from airflow_agentic.messaging.filters import attributes, compiled
from airflow_agentic.messaging.message import Message
from airflow_agentic.messaging.options import MailboxRules
from airflow_agentic.messaging.routing import Subscription

_TEXTS = re.compile(r"""'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*\"""")
_ASKED = re.compile(r"(?<![\w.])msg\s*\.\s*(\w+)")
_NO_RULES = MailboxRules()


def declared_subscriptions(project: Project) -> tuple[Subscription, ...]:
    """Return what the project declares: what mailboxes want to hear, and which broadcasts reach them.

    Every declared agent takes part in broadcasts; a mailbox that is no agent's does if it has a role or tags.
    """
    found = []
    for name, agent in project.agents.items():
        found.append(_member(project, ("agents", name), agent.role, agent.tags))
        found += _listed(project, ("agents", name, "subscriptions"), name, agent.subscriptions)
    for name, mailbox in project.mailboxes.items():
        if mailbox.role or mailbox.tags:
            found.append(_member(project, ("mailboxes", name), mailbox.role, mailbox.tags))
        found += _listed(project, ("mailboxes", name, "subscriptions"), name, mailbox.subscriptions)
    for name, route in project.routes.items():
        found.append(_subscription(project, ("routes", name), route.to, route))
    return tuple(found)


def mailbox_rules(project: Project) -> dict[str, MailboxRules]:
    """Return what is particular about each declared mailbox; one about which nothing is said is left out.

    A message's attempts are counted from when it is sent: so its sender must know the policies of agents.
    """
    found = {}
    for name, agent in project.agents.items():
        retry = project.policies[agent.policy].retry if agent.policy else None
        attempts = retry.max_attempts if retry else None
        found[name] = MailboxRules(attempts, agent.mailbox.limit, agent.mailbox.overflow)
    for name, mailbox in project.mailboxes.items():
        found[name] = MailboxRules(mailbox.max_attempts, mailbox.limit, mailbox.overflow)
    return {name: rules for name, rules in found.items() if rules != _NO_RULES}


def check_routes(project: Project) -> Iterator[tuple[Any, ...]]:
    """Yield what is wrong with filters, and with the conditions of workflows: path, message, suggestion.

    This is the entry point ``routes`` of the group ``airflow_agentic.project_checks``.
    """
    for path, said in _said(project):
        if said.filter is not None and (wrong := _fault(said.filter)):
            yield (*path, "filter"), *wrong
    yield from check_conditions(project)


def check_conditions(project: Project) -> Iterator[tuple[Path, str]]:
    """Yield what is wrong with the conditions of workflows: path and message."""
    for path, text in _conditions(project):
        try:
            compiled(text, "output")
        except InvalidFilter as error:
            yield path, str(error)


def require_usable(subscriptions: Iterable[Subscription]) -> None:
    """Refuse subscriptions whose filter does not compile, before anything is led by them.

    Raises:
        ProjectInvalid: With every such filter, and where it is declared.
    """
    faults = []
    for each in subscriptions:
        try:
            compiled(each.filter or "true")
        except InvalidFilter as error:
            faults.append(ConfigFault(None, None, "", str(error), source=each.origin))
    if faults:
        raise ProjectInvalid(faults)


def _member(project: Project, path: Path, role: str | None, tags: Sequence[str]) -> Subscription:
    return Subscription(str(path[-1]), role=role, tags=tuple(tags), origin=_origin(project, path))


def _listed(
    project: Project, path: Path, mailbox: str, said: Sequence[SubscriptionSection]
) -> Iterator[Subscription]:
    for index, each in enumerate(said):
        yield _subscription(project, (*path, index), mailbox, each)


def _subscription(project: Project, path: Path, mailbox: str, said: SubscriptionSection) -> Subscription:
    origin = _origin(project, path)
    return Subscription(mailbox, said.topic, said.filter, max_attempts=said.max_attempts, origin=origin)


def _origin(project: Project, path: Path) -> str:
    node = project.root.find(path)
    return dotted(path) if node is None else node.origin.source


def _said(project: Project) -> Iterator[tuple[Path, SubscriptionSection]]:
    for section in ("agents", "mailboxes"):
        for name, entry in getattr(project, section).items():
            for index, each in enumerate(entry.subscriptions):
                yield (section, name, "subscriptions", index), each
    for name, route in project.routes.items():
        yield ("routes", name), route


def _conditions(project: Project) -> Iterator[tuple[Path, str]]:
    for name, workflow in project.workflows.items():
        for index, rule in enumerate(workflow.rules):
            yield ("workflows", name, "rules", index, "when"), rule.when
        if workflow.until is not None:
            yield ("workflows", name, "until"), workflow.until


def _fault(text: str) -> tuple[str, str | None] | None:
    try:
        compiled(text)
    except InvalidFilter as error:
        return str(error), None
    known = attributes(Message(source="any", recipient="any"))
    # CEL takes a message for any map: what it does not have would be an error each time, and no match.
    for name in _ASKED.findall(_TEXTS.sub("''", text)):
        if name not in known:
            hint = (
                did_you_mean(name, known) or f"known: {', '.join(known)}; what was sent stands under msg.data"
            )
            return f"the filter {text!r} asks for msg.{name}, and a message has none", hint
    return None
