"""What a project file may say. The JSON Schema for editors and the reference in the docs are made of these models."""

from __future__ import annotations

from collections.abc import Mapping
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, create_model

from airflow_agentic.config.faults import FaultRule
from airflow_agentic.config.names import is_topic_pattern
from airflow_agentic.config.options import BOOTSTRAP, OPTIONS, SECTION, Option
from airflow_agentic.config.policies import Budget, FailureRule, Policy
from airflow_agentic.config.sections import FrozenDict, Name, Names, Scalar, Section, Values
from airflow_agentic.config.tree import Path
from airflow_agentic.config.workflows import WorkflowSection

_TYPES: dict[str, Any] = {"string": str, "integer": int, "float": float, "boolean": bool}


def _subscribed(value: object) -> object:
    if isinstance(value, str):
        return {"topic": value}
    if isinstance(value, Mapping | BaseModel):
        return value
    raise ValueError("must be a topic, or a map with one")


def _topic(pattern: str) -> str:
    if not is_topic_pattern(pattern):
        raise ValueError("must be words with dots between them, with * for one word and # for any number")
    return pattern


Topic = Annotated[str, AfterValidator(_topic)]
Overflow = Literal["block", "refuse", "dead-letter"]
Persistence = Literal["hybrid", "events", "snapshot", "checkpoint", "off"]


class SubscriptionSection(Section):
    """What a mailbox wants to hear; a text alone is the topic."""

    topic: Topic = Field(
        "#",
        description="Words with dots between them, `*` for one word and `#` for any number. Default: every topic.",
        examples=["orders.*.created"],
    )
    filter: str | None = Field(
        None,
        min_length=1,
        description="A condition on the message, in [CEL](https://cel.dev); everything about it stands under `msg`.",
        examples=["msg.data.total > 100 && msg.type == 'order.created'"],
    )
    max_attempts: int | None = Field(
        None,
        ge=1,
        description="How often a message that comes this way is handed out. Default: as the mailbox says.",
    )


Subscribed = Annotated[
    SubscriptionSection, BeforeValidator(_subscribed, json_schema_input_type=Topic | SubscriptionSection)
]


class RoomSection(Section):
    """How much a mailbox holds. What is left out is that of `settings`."""

    limit: int | None = Field(
        None, ge=0, description="Largest number of messages in it that are neither done nor dead; 0 for none."
    )
    overflow: Overflow | None = Field(
        None,
        description="What happens to one more: its sender waits for room, gets an error, or it becomes a dead letter.",
    )


class MailboxSection(RoomSection):
    """A mailbox that is no agent's: a DAG, a service or a person reads it."""

    description: str | None = Field(None, description="What it is for.")
    max_attempts: int | None = Field(
        None, ge=1, description="How often a message is handed out. Default: as `settings` says."
    )
    subscriptions: tuple[Subscribed, ...] = Field((), description="What it wants to hear.")
    role: Name | None = Field(
        None, description="A role of `roles`: messages for the audience `role:NAME` reach it."
    )
    tags: tuple[Name, ...] = Field((), description="Messages for the audience `tag:NAME` reach it.")


class RouteSection(SubscriptionSection):
    """A subscription by name, beside the agent or mailbox that it is for."""

    to: Name = Field(description="An agent of `agents` or a mailbox of `mailboxes`.", examples=["triage"])


class AgentSection(Section):
    """An agent: what it is made of, and what it is given."""

    type: str | None = Field(
        None,
        min_length=1,
        description="Class or function it is made of: `package.module:Attribute`, `package.module.Attribute`, or a "
        "name registered with `@agent` or by an installed package. Default: the agent's own name, registered.",
        examples=["billing.agents:Triage"],
    )
    config: Values = Field(
        default_factory=FrozenDict[Any],
        description="Values for the agent's configuration model. `${env:NAME}`, `${conn:id.field}` and "
        "`${var:name}` in them are resolved in the worker, each time the agent is built, and never stored.",
    )
    policy: Name | None = Field(None, description="A policy of `policies`.")
    role: Name | None = Field(
        None,
        description="A role of `roles`: messages for the audience `role:NAME` reach the agent. Its permissions are "
        "declared; nothing enforces them yet.",
    )
    budget: Name | None = Field(None, description="A budget of `budgets`, in place of that of its policy.")
    persistence: Persistence | None = Field(
        None,
        description="How its durable runs are kept: all events, and snapshots as they pay (`hybrid`, the default); all "
        "events (`events`); the state with each event, or at checkpoints, and older events may be forgotten (`snapshot`, "
        "`checkpoint`). With `off` it has none.",
        examples=["events"],
    )
    version: str | None = Field(
        None, min_length=1, description="Version of the agent. Declared; nothing uses it yet."
    )
    subscriptions: tuple[Subscribed, ...] = Field(
        (),
        description="What the agent's mailbox wants to hear: a topic, or a section.",
        examples=[["orders.*.created", {"topic": "audit.#", "filter": "msg.data.total > 100"}]],
    )
    tags: tuple[Name, ...] = Field(
        (), description="Messages for the audience `tag:NAME` reach the agent.", examples=[["billing"]]
    )
    mailbox: RoomSection = Field(
        default_factory=lambda: RoomSection(),  # noqa: PLW0108  # mypy's pydantic plugin wants a call
        description="How much its mailbox, which has the agent's name, holds.",
    )
    uses: Names[Name] = Field(
        default_factory=FrozenDict[str],
        description="Parameter of its constructor, its `process` or its function to the service or agent that it "
        "gets. Needed only where the type alone does not say it.",
        examples=[{"index": "fast-index"}],
    )
    sends_to: Names[Name] = Field(
        default_factory=FrozenDict[str],
        description="Name that the agent's code sends to, to the agent or mailbox that gets the message.",
        examples=[{"reviewer": "senior-reviewer"}],
    )
    overridable: tuple[str, ...] = Field(
        (),
        description="Keys of `config` that DAG params and `dag_run.conf` may set, under `agentic`.",
        examples=[["pause_seconds"]],
    )


class ServiceSection(Section):
    """Something that agents need: how it is made, and how long it lives."""

    type: str | None = Field(
        None,
        min_length=1,
        description="Class or factory it is made by: `package.module:Attribute`. A generator function yields it "
        "and cleans up after it. Default: the service's own name, declared by an installed package.",
        examples=["search.index:open_index"],
    )
    provides: str | None = Field(
        None,
        min_length=1,
        description="The type that it is asked for by. Default: the class, or what the factory returns.",
        examples=["search.ports:Index"],
    )
    scope: Literal["process", "run"] = Field(
        "run",
        description="Made once a process, or once a run of an agent; closed at its end, last made first.",
    )
    config: Values = Field(
        default_factory=FrozenDict[Any],
        description="Keyword arguments of the class or factory; `${…}` as for agents.",
    )
    uses: Names[Name] = Field(
        default_factory=FrozenDict[str], description="Parameter to the service that it gets."
    )


class RoleSection(Section):
    """What an agent may do."""

    description: str | None = Field(None, description="What it is for.")
    permissions: tuple[str, ...] = Field((), description="Permissions of the role.")


class RulesSection(Section):
    """What every DAG must keep to; a DAG that does not is refused with an import error."""

    declared_agents_only: bool = Field(
        default=False, description="Operators may only name agents that are declared here."
    )
    require_policy: bool = Field(default=False, description="Every agent that a DAG runs must have a policy.")
    require_execution_timeout: bool = Field(
        default=False, description="Every task that runs an agent must have an `execution_timeout`."
    )
    min_retries: int = Field(
        0, ge=0, description="Every task that runs an agent must have so many `retries`."
    )


def _setting(option: Option) -> tuple[Any, Any]:
    default: Any = option.default
    examples = [_TYPES[option.type](option.example)] if option.example else None
    field = Field(default, description=option.text, ge=option.minimum, examples=examples)
    kind: Any = Literal[option.choices] if option.choices else _TYPES[option.type]
    return Annotated[kind, field], default


SettingsSection: type[BaseModel] = create_model(
    "SettingsSection",
    __base__=Section,
    __doc__=f"The options of `[{SECTION}]`, except those that say where this file is.",
    **{option.key: _setting(option) for option in OPTIONS if option.key not in BOOTSTRAP},  # type: ignore[call-overload]
)


class ProjectSection(Section):
    """A project file: all that is declared about agents rather than coded."""

    settings: SettingsSection = Field(
        default_factory=SettingsSection, description=f"Options of `[{SECTION}]`."
    )
    imports: tuple[str, ...] = Field(
        (),
        description="Modules to import before an agent's registered name is looked up.",
        examples=[["billing.agents"]],
    )
    agents: Names[AgentSection] = Field(
        default_factory=FrozenDict[AgentSection], description="Agents by name."
    )
    policies: Names[Policy] = Field(default_factory=FrozenDict[Policy], description="Policies by name.")
    services: Names[ServiceSection] = Field(
        default_factory=FrozenDict[ServiceSection], description="Services by name."
    )
    mailboxes: Names[MailboxSection] = Field(
        default_factory=FrozenDict[MailboxSection],
        description="Mailboxes by name that are no agents'.",
    )
    routes: Names[RouteSection] = Field(
        default_factory=FrozenDict[RouteSection], description="Subscriptions by name."
    )
    roles: Names[RoleSection] = Field(
        default_factory=FrozenDict[RoleSection],
        description="Roles by name. Permissions are declared; nothing enforces them yet.",
    )
    workflows: Names[WorkflowSection] = Field(
        default_factory=FrozenDict[WorkflowSection],
        description="Workflows by name: the DAGs of `declared_dags()`.",
    )
    failures: tuple[FailureRule, ...] = Field(
        (),
        description="What failures mean, before the provider judges by itself; the first rule that fits decides.",
    )
    budgets: Names[Budget] = Field(default_factory=FrozenDict[Budget], description="Budgets by name.")
    faults: Names[FaultRule] = Field(
        default_factory=FrozenDict[FaultRule],
        description="Faults to inject, by name, for tests of what happens when things fail. Obeyed only with the option "
        "`fault_injection`, and refused in production.",
    )
    flags: Names[Scalar] = Field(
        default_factory=FrozenDict[Any],
        description="Switches and values that agents read through `Flags`.",
        examples=[{"new-parser": True}],
    )
    rules: RulesSection = Field(default_factory=lambda: RulesSection(), description="What DAGs must keep to.")  # noqa: PLW0108


def model_at(path: Path) -> Any:
    """Return the type of what is at a path: a model, ``Mapping[str, T]``, a scalar type; ``None`` for any JSON."""
    found: Any = ProjectSection
    for key in path:
        found = _bare(found)
        if isinstance(found, type) and issubclass(found, BaseModel):
            field = found.model_fields.get(str(key))
            found = field.annotation if field else None
        elif get_origin(found) is Mapping:
            found = get_args(found)[1]
        elif get_origin(found) is tuple and isinstance(key, int):
            found = get_args(found)[0]
        else:
            return None
    return _bare(found)


def known_keys(path: Path) -> tuple[str, ...]:
    """Return the keys that the model has at a path; empty where names are free."""
    found = model_at(path)
    return tuple(found.model_fields) if isinstance(found, type) and issubclass(found, BaseModel) else ()


def _bare(annotation: Any) -> Any:
    """Take off ``Annotated`` and ``| None``, and a name that may stand for a section."""
    while get_origin(annotation) is Annotated:
        annotation = get_args(annotation)[0]
    parts = [part for part in get_args(annotation) if part is not type(None)]
    if get_origin(annotation) in (Union, UnionType):
        sections = [
            part for part in map(_bare, parts) if isinstance(part, type) and issubclass(part, BaseModel)
        ]
        if len(parts) == 1 or len(sections) == 1:
            return _bare(sections[0] if sections else parts[0])
    return annotation
