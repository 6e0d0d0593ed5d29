"""Agents that are a language model with instructions and tools. pydantic-ai runs the loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import json
from collections.abc import Coroutine, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from pydantic import BaseModel, ConfigDict, Field

from airflow_agentic.agents.base import BaseAgent
from airflow_agentic.agents.context import AgentContext
from airflow_agentic.config.loading import load
from airflow_agentic.errors import ConfigurationError, DeadlineExceeded
from airflow_agentic.resilience import remaining

if TYPE_CHECKING:
    from pydantic_ai.settings import ModelSettings
    from pydantic_ai.toolsets import AbstractToolset
    from pydantic_ai.usage import UsageLimits

InputT = TypeVar("InputT")
OutputT = TypeVar("OutputT")
T = TypeVar("T")


class LLMLimits(BaseModel):
    """What a language model may use for one task; more is an error that no retry helps. ``None`` is no limit.

    Attributes:
        requests: How often the model is asked.
        tool_calls: How often tools are called.
        input_tokens: Tokens that it reads.
        output_tokens: Tokens that it writes.
        total_tokens: Both.
        cost_usd: Money, where the price of the model is known.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    requests: int | None = Field(default=50, ge=1)
    tool_calls: int | None = Field(default=None, ge=0)
    input_tokens: int | None = Field(default=None, ge=1)
    output_tokens: int | None = Field(default=None, ge=1)
    total_tokens: int | None = Field(default=None, ge=1)
    cost_usd: float | None = Field(default=None, gt=0)


class LLMAgentConfig(BaseModel):
    """How a language model is asked.

    Attributes:
        conn_id: Airflow connection of type ``pydanticai_agentic``, or of any other that pydantic-ai's hooks know.
        model: ``provider:name``; default that of the connection.
        instructions: What the model is told before any task.
        toolsets: Toolsets of pydantic-ai, or functions that make one, as ``package.module:Attribute``.
        output_schema: JSON Schema of the answer, an object, for an agent whose class names no output type.
        output_retries: How often the model is asked again when its answer does not fit the output type.
        temperature: How freely it answers.
        max_tokens: Longest answer.
        timeout_seconds: For one answer of the model.
        settings: Whatever else pydantic-ai's ``ModelSettings`` know, over the three above.
        limits: What it may use for one task.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    conn_id: str = "pydanticai_default"
    model: str | None = Field(default=None, min_length=1)
    instructions: str = ""
    toolsets: tuple[str, ...] = ()
    output_schema: dict[str, Any] | None = None
    output_retries: int = Field(default=1, ge=0)
    temperature: float | None = Field(default=None, ge=0)
    max_tokens: int | None = Field(default=None, ge=1)
    timeout_seconds: float | None = Field(default=None, gt=0)
    settings: dict[str, Any] = Field(default_factory=dict)
    limits: LLMLimits = Field(default_factory=lambda: LLMLimits())  # noqa: PLW0108  # mypy's pydantic plugin wants a call


class LLMAgent(BaseAgent[InputT, OutputT]):
    """An agent that is a language model: the task is its prompt, its answer is the result.

    Subclasses set the types, and may override :meth:`instructions`, :meth:`prompt` and :meth:`toolsets`; their own
    ``config_model`` is one derived from :class:`LLMAgentConfig`. The model answers with the output type; without one,
    with an object of ``output_schema``, or with a text. Tools that take pydantic-ai's ``RunContext`` find the agent's
    context in its ``deps``.
    """

    config_model: ClassVar[type[BaseModel]] = LLMAgentConfig

    def instructions(self, task: InputT, ctx: AgentContext) -> str:  # noqa: ARG002  # for subclasses
        """Return what the model is told before the task; default ``instructions`` of the configuration."""
        return self._settings.instructions

    def prompt(self, task: InputT, ctx: AgentContext) -> str:  # noqa: ARG002  # for subclasses
        """Return what the model is asked; default the task itself, as JSON unless it is a text."""
        if isinstance(task, str):
            return task
        if isinstance(task, BaseModel):
            return task.model_dump_json()
        return json.dumps(task, ensure_ascii=False, default=str)

    def toolsets(self, ctx: AgentContext) -> Sequence[AbstractToolset[Any]]:  # noqa: ARG002  # for subclasses
        """Return the tools of the model; default ``toolsets`` of the configuration.

        Raises:
            ConfigurationError: One of them is no toolset.
        """
        return [_toolset(path) for path in self._settings.toolsets]

    def process(self, task: InputT, ctx: AgentContext, **things: Any) -> OutputT:  # noqa: ARG002  # for subclasses
        """Ask the model, and run the tools that it asks for.

        Raises:
            NotAdmitted: A guard of the connection, or of its whole chain, refuses: ``CircuitOpen`` and its kin.
            ServiceError: The model failed, or did not answer.
            ServiceThrottled: It is asked too often or too much.
            ServiceRefused: It refused the request.
            InvalidResult: Its answers did not fit the output type.
            RejectMessage: The provider's content filter stopped the answer.
            AgentError: It needs more than ``limits`` allow.
            DeadlineExceeded: The deadline of the work came first.
        """
        model = ctx.model(self._settings.conn_id, self._settings.model)
        # What the model needs is heavy: only agents that ask one pay for it.
        from airflow_agentic.agents.model_failures import agent_error

        agent = model.create_agent(
            self._answer_type(),
            instructions=self.instructions(task, ctx),
            name=self.name,
            deps_type=AgentContext,
            retries=self._settings.output_retries,
            model_settings=self._model_settings(),
            toolsets=self.toolsets(ctx),
        )
        prompt, limits = self.prompt(task, ctx), self._usage_limits()

        async def ask() -> Any:
            # Entered, so that its connections are closed with the loop that they belong to.
            async with agent, asyncio.timeout(remaining()):
                return await agent.run(prompt, deps=ctx, usage_limits=limits)

        try:
            result = _finished(ask())
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"agent {self.name!r}: the model had no answer when the deadline came"
            ) from error
        except Exception as error:
            found = agent_error(error, self.name, self._settings.conn_id)
            if found is error:
                raise
            raise found from error
        used = result.usage
        ctx.log.info(
            "agent %r: %d requests, %d tool calls, %d + %d tokens, %s",
            self.name,
            used.requests,
            used.tool_calls,
            used.input_tokens,
            used.output_tokens,
            "cost unknown" if used.cost is None else f"${used.cost:.4f}",
        )
        return cast("OutputT", result.output)

    @property
    def _settings(self) -> LLMAgentConfig:
        config = self.configuration
        assert isinstance(config, LLMAgentConfig)
        return config

    def _answer_type(self) -> Any:
        _, declared = self._types()
        if declared is not Any:
            return declared
        if self._settings.output_schema is None:
            return str
        from pydantic_ai import StructuredDict
        from pydantic_ai.exceptions import UserError

        try:
            return StructuredDict(self._settings.output_schema, name="answer")
        except UserError as error:
            raise ConfigurationError(
                f"agent {self.name!r}: its output_schema is no JSON Schema of an object: {error}"
            ) from None

    def _model_settings(self) -> ModelSettings:
        config = self._settings
        said = {
            "temperature": config.temperature,
            "max_tokens": config.max_tokens,
            "timeout": config.timeout_seconds,
        }
        given = {key: value for key, value in said.items() if value is not None}
        return cast("ModelSettings", {**given, **config.settings})

    def _usage_limits(self) -> UsageLimits:
        from pydantic_ai.usage import UsageLimits

        said = self._settings.limits
        return UsageLimits(
            request_limit=said.requests,
            tool_calls_limit=said.tool_calls,
            input_tokens_limit=said.input_tokens,
            output_tokens_limit=said.output_tokens,
            total_tokens_limit=said.total_tokens,
            cost_limit=None if said.cost_usd is None else Decimal(str(said.cost_usd)),
        )


def _finished(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a loop of its own; beside one that runs in this thread, in another thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    # What the work knows by context variables, its deadline for one, it knows there too.
    context = contextvars.copy_context()
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(context.run, asyncio.run, work).result()


def _toolset(path: str) -> AbstractToolset[Any]:
    from pydantic_ai.toolsets import AbstractToolset

    found = load(path)
    made = found if isinstance(found, AbstractToolset) or not callable(found) else found()
    if not isinstance(made, AbstractToolset):
        raise ConfigurationError(
            f"{path!r} is a {type(made).__name__}, and no toolset: name an instance of pydantic-ai's AbstractToolset, "
            "FunctionToolset([your_function]) for example, or a function that returns one"
        )
    return made
