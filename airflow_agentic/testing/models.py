"""A stand-in for the language models of agents. Needs pydantic-ai; for the HTTP below it see ``openai_server``."""

from __future__ import annotations

import json
from collections import deque
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydantic_ai import Agent
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models.function import AgentInfo


class FakeModel:
    """A language model that answers from a script: ``run_agent(Triage, task, models=FakeModel({"urgent": True}))``.

    Args:
        script: One step an answer: a text, JSON for a structured answer, an exception to raise, or a model of pydantic-ai
            that answers all that follows.

    Attributes:
        connections: Connection ids that a model was asked for, in order.
        prompts: What the model was asked, in order: instructions, and the last thing that was said to it.
    """

    def __init__(self, *script: Any) -> None:
        self.connections: list[str] = []
        self.prompts: list[tuple[str, str]] = []
        self._script = deque(script)

    def __call__(self, conn_id: str, model: str | None, agent: str) -> FakeModel:  # noqa: ARG002  # the port's
        """Return the model of a connection."""
        self.connections.append(conn_id)
        return self

    def create_agent(
        self, output_type: Any = str, *, instructions: str, **agent_kwargs: Any
    ) -> Agent[Any, Any]:
        """Make a pydantic-ai agent that asks this model."""
        from pydantic_ai import Agent
        from pydantic_ai.models import Model
        from pydantic_ai.models.function import FunctionModel

        whole = self._script[0] if self._script and isinstance(self._script[0], Model) else None
        made = whole or FunctionModel(self._answer)
        return Agent(made, output_type=output_type, instructions=instructions, **agent_kwargs)

    def _answer(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        from pydantic_ai.messages import ModelRequest, ModelResponse, TextPart, ToolCallPart

        last = messages[-1]
        assert isinstance(last, ModelRequest)
        said = getattr(last.parts[-1], "content", "") if last.parts else ""
        self.prompts.append(
            (last.instructions or "", said if isinstance(said, str) else json.dumps(said, default=str))
        )
        if not self._script:
            raise AssertionError(
                f"answer {len(self.prompts)} was not expected: the script has {len(self.prompts) - 1}"
            )
        step = self._script.popleft()
        if isinstance(step, Exception):
            raise step
        if info.output_tools:
            arguments = step if isinstance(step, dict) else {"response": step}
            return ModelResponse([ToolCallPart(info.output_tools[0].name, arguments)])
        return ModelResponse([TextPart(step if isinstance(step, str) else json.dumps(step))])
