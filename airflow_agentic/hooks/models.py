"""The language models of agents, on the hooks of ``apache-airflow-providers-common-ai``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_agentic.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow_agentic.agents.models import LanguageModel


def open_model(conn_id: str, model: str | None, agent: str) -> LanguageModel:
    """Return the model that a connection leads to, guarded if its type is one of ``pydanticai_agentic``.

    Args:
        conn_id: A connection of any type that pydantic-ai's hooks know.
        model: ``provider:name``; ``None`` for that of the connection.
        agent: Who asks; what budgets are counted by.

    Raises:
        ConfigurationError: common-ai is not installed, or the connection is of another type.
    """
    # Heavy: only agents that ask a model pay for it.
    try:
        from airflow.providers.common.ai.hooks.pydantic_ai import PydanticAIHook

        from airflow_agentic.hooks.ai import ask_for
    except ImportError as error:
        raise ConfigurationError(
            f"agent {agent!r} asks a language model, and that needs a package that is not there: {error}. "
            "Install airflow-provider-agentic[ai]."
        ) from error
    try:
        hook = PydanticAIHook.get_hook(conn_id, hook_params={"model_id": model})
    except ValueError as error:
        raise ConfigurationError(f"agent {agent!r}: {error}") from error
    ask_for(hook, agent)
    found: LanguageModel = hook
    return found
