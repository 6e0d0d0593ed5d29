"""The connection types ``pydanticai_agentic…``: those of common-ai, behind guards that all workers share.

An operator of common-ai is guarded by changing the type of its connection alone. Each member of its chain of fallbacks
has guards of its own, with the key ``conn:CONN_ID``.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowOptionalProviderFeatureException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from airflow_agentic import runtime
from airflow_agentic.agents.contracts import faults
from airflow_agentic.config.names import did_you_mean
from airflow_agentic.errors import ConfigurationError, GuardsUnavailable, StoreUnavailable
from airflow_agentic.resilience import Breaker, Classifier, Guard, Policy, Subject
from airflow_agentic.resilience.guards import GuardOptions
from airflow_agentic.stores import Store, open_store

try:
    from airflow.providers.common.ai.hooks.pydantic_ai import (
        PydanticAIAzureHook,
        PydanticAIBedrockHook,
        PydanticAIHook,
        PydanticAIVertexHook,
    )

    from airflow_agentic.agents.guarded_models import GuardedChain, GuardedModel, Prices
except ImportError as error:
    raise AirflowOptionalProviderFeatureException(
        f"language models need a package that is not there ({error}): install airflow-provider-agentic[ai]"
    ) from error

if TYPE_CHECKING:
    from pydantic_ai.models import Model

_log = logging.getLogger(__name__)

DEFAULT_POLICY = Policy(breaker=Breaker())
"""Guards a connection that names no policy: a breaker, and no limits."""

_AGAIN_SECONDS = 5.0


class GuardExtra(BaseModel):
    """What the extra of a connection says about guards; the rest of the extra is for common-ai.

    Attributes:
        policy: Name of a policy of the project file.
        gateway: Whether a gateway in front of the models has breakers, limits and retries already: ours are off then,
            and only the timeout and the budget of the policy stay.
        agentic_conn_id: Where the guards are kept; default as for operators.
        prices: What a model costs that has no published price.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)

    policy: str | None = None
    gateway: bool = False
    agentic_conn_id: str | None = None
    prices: Prices | None = Field(default=None)

    @classmethod
    def of(cls, conn_id: str, extra: Mapping[str, Any]) -> GuardExtra:
        """Read the extra of a connection.

        Raises:
            ConfigurationError: A value cannot be used.
        """
        said = {key: value for key, value in extra.items() if value not in (None, "")}
        try:
            return cls.model_validate(said)
        except ValidationError as error:
            raise ConfigurationError(f"connection {conn_id!r}, in its extra: {faults(error)}") from None

    def chosen(self, conn_id: str) -> Policy:
        """Return the policy that is meant.

        Raises:
            ConfigurationError: There is none of that name.
        """
        policy = DEFAULT_POLICY if self.policy is None else _named(self.policy, conn_id)
        if self.gateway:
            return policy.model_copy(update={"breaker": None, "limits": (), "bulkhead": None, "retry": None})
        return policy


class ResilientPydanticAIHook(PydanticAIHook):
    """``pydanticai`` behind guards: any provider that takes an API key and a base URL."""

    conn_type = "pydanticai_agentic"
    default_conn_name = "pydanticai_agentic_default"
    hook_name = "Pydantic AI (guarded)"
    _guarded: Model | None = None

    def get_conn(self) -> Model:
        """Return the model, or the chain of models, behind guards.

        Raises:
            ConfigurationError: The extra of a connection cannot be used.
        """
        if self._guarded is None:
            self._guarded = behind_guards(self, super().get_conn())
        return self._guarded


class ResilientPydanticAIAzureHook(PydanticAIAzureHook):
    """``pydanticai_azure`` behind guards."""

    conn_type = "pydanticai_agentic_azure"
    default_conn_name = "pydanticai_agentic_azure_default"
    hook_name = "Pydantic AI (Azure OpenAI, guarded)"
    _guarded: Model | None = None

    def get_conn(self) -> Model:
        """Do what :meth:`ResilientPydanticAIHook.get_conn` does."""
        if self._guarded is None:
            self._guarded = behind_guards(self, super().get_conn())
        return self._guarded


class ResilientPydanticAIBedrockHook(PydanticAIBedrockHook):
    """``pydanticai_bedrock`` behind guards."""

    conn_type = "pydanticai_agentic_bedrock"
    default_conn_name = "pydanticai_agentic_bedrock_default"
    hook_name = "Pydantic AI (AWS Bedrock, guarded)"
    _guarded: Model | None = None

    def get_conn(self) -> Model:
        """Do what :meth:`ResilientPydanticAIHook.get_conn` does."""
        if self._guarded is None:
            self._guarded = behind_guards(self, super().get_conn())
        return self._guarded


class ResilientPydanticAIVertexHook(PydanticAIVertexHook):
    """``pydanticai_vertex`` behind guards."""

    conn_type = "pydanticai_agentic_vertex"
    default_conn_name = "pydanticai_agentic_vertex_default"
    hook_name = "Pydantic AI (Google Vertex AI, guarded)"
    _guarded: Model | None = None

    def get_conn(self) -> Model:
        """Do what :meth:`ResilientPydanticAIHook.get_conn` does."""
        if self._guarded is None:
            self._guarded = behind_guards(self, super().get_conn())
        return self._guarded


def behind_guards(hook: PydanticAIHook, model: Model) -> Model:
    """Put what a hook of common-ai made behind guards: each member of a chain behind those of its own connection.

    Args:
        hook: The hook.
        model: What it made: a model, or a ``FallbackModel``.

    Raises:
        ConfigurationError: The extra of a connection cannot be used.
    """
    from pydantic_ai.models.fallback import FallbackModel

    models = model.models if isinstance(model, FallbackModel) else [model]
    conn_ids = [hook.llm_conn_id, *(_fallbacks(hook) if len(models) > 1 else ())]
    if len(conn_ids) != len(models):
        raise ConfigurationError(
            f"connection {hook.llm_conn_id!r} names {len(conn_ids)} connections, and common-ai made {len(models)} models "
            "of them: use a version of apache-airflow-providers-common-ai that this one knows (>=1.0,<2)"
        )
    subject = _subject(getattr(hook, _ASKED_BY, ""))
    guarded = [
        _guarded_model(each, conn_id, hook, subject) for each, conn_id in zip(models, conn_ids, strict=True)
    ]
    return guarded[0] if len(guarded) == 1 else GuardedChain(guarded, hook.llm_conn_id)


_ASKED_BY = "agentic_agent"


def ask_for(hook: PydanticAIHook, agent: str) -> None:
    """Let a hook ask for an agent: its budgets are counted by that."""
    setattr(hook, _ASKED_BY, agent)


def _guarded_model(model: Model, conn_id: str, hook: PydanticAIHook, subject: Subject) -> GuardedModel:
    extra = GuardExtra.of(conn_id, hook.get_connection(conn_id).extra_dejson)
    member = _Member(conn_id, extra.chosen(conn_id), subject, extra.agentic_conn_id)
    return GuardedModel(model, conn_id, member.guard, extra.prices)


class _Member:
    """The guards of one connection. Its store is opened when it is asked first, and closed with the hook."""

    def __init__(self, conn_id: str, policy: Policy, subject: Subject, store_conn_id: str | None) -> None:
        self._conn_id = conn_id
        self._policy = policy
        self._subject = subject
        self._store_conn_id = store_conn_id
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._made: dict[bool, Guard] = {}
        self._alone_until = 0.0

    def guard(self, retries: bool) -> Guard:
        """Return the guard, with the retries of its policy or without.

        Raises:
            GuardsUnavailable: The store cannot be opened, and the policy says ``without_store: open``.
            ConfigurationError: The store, or the budget of the policy, is not there.
        """
        with self._lock:
            if self._store is None or (self._alone_until and time.monotonic() > self._alone_until):
                self._store, self._made = self._opened(), {}
            if retries not in self._made:
                policy = self._policy if retries else self._policy.model_copy(update={"retry": None})
                self._made[retries] = self._store.guard(policy, f"conn:{self._conn_id}", self._subject)
            return self._made[retries]

    def _opened(self) -> Store:
        self._alone_until = 0.0
        try:
            store = runtime.open_store(self._store_conn_id)
        except StoreUnavailable as error:
            return self._alone(error)
        weakref.finalize(self, store.close)
        return store

    def _alone(self, error: StoreUnavailable) -> Store:
        """Return a store of this process's own, to be used until the shared one can be opened."""
        if self._policy.without_store == "open":
            raise GuardsUnavailable(
                f"the store of the guards of connection {self._conn_id!r} cannot be opened, and its policy says "
                f"`without_store: open`: {error}",
                f"conn:{self._conn_id}",
                datetime.fromtimestamp(time.time() + _AGAIN_SECONDS, UTC),
            ) from error
        self._alone_until = time.monotonic() + _AGAIN_SECONDS
        if self._store is not None:
            return self._store
        _log.warning(
            "[%s] the store of the guards of connection %r cannot be opened; this process guards alone, and tries again: "
            "%s",
            error.category,
            self._conn_id,
            error,
        )
        declared = runtime.project()
        return open_store(
            "memory://", guard_options=GuardOptions(Classifier(declared.failures), declared.budgets)
        )


def _named(name: str, conn_id: str) -> Policy:
    policies = runtime.project().policies
    if name in policies:
        return policies[name]
    hint = did_you_mean(name, policies) or f"declared: {', '.join(policies) or 'none'}"
    raise ConfigurationError(
        f"connection {conn_id!r} names the policy {name!r}, and the project declares none of that name ({hint})"
    )


def _fallbacks(hook: PydanticAIHook) -> Sequence[str]:
    """Return the connections of a chain after the first, read as common-ai reads them."""
    said: Sequence[str] | None = hook.fallback_conn_ids
    if said is None:
        said = hook.get_connection(hook.llm_conn_id).extra_dejson.get("fallback_conn_ids")
    return [each.strip() for each in said or () if each.strip()]


def _subject(agent: str) -> Subject:
    """Return for whom the model is asked: the agent, or the task of a plain operator."""
    from airflow.sdk import get_current_context

    try:
        run = runtime.identity(get_current_context())
    except RuntimeError:
        return Subject(agent=agent)
    return Subject(
        agent=agent or f"{run.dag_id}.{run.task_id}", dag=run.dag_id, team=run.team, run=run.correlation_id
    )
