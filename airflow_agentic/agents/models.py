"""Port: how an agent asks a language model. The runtime binds it to an Airflow connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pydantic_ai import Agent


class LanguageModel(Protocol):
    """A language model that can be asked, as the hooks of ``apache-airflow-providers-common-ai`` are."""

    def create_agent(
        self, output_type: Any = ..., *, instructions: str, **agent_kwargs: Any
    ) -> Agent[Any, Any]:
        """Make a pydantic-ai agent that asks this model.

        Args:
            output_type: What it answers with.
            instructions: What it is told before any task.
            agent_kwargs: Whatever else ``pydantic_ai.Agent`` takes.
        """
        ...


OpenModel = Callable[[str, str | None, str], LanguageModel]
"""Takes a connection id, the name of a model (``None`` for that of the connection), and the agent that asks."""
