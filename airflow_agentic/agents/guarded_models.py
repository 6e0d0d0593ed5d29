"""Models of pydantic-ai behind guards that all workers share. Needs pydantic-ai: import it late."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from pydantic_ai.exceptions import ContentFilterError, ModelAPIError, UnexpectedModelBehavior
from pydantic_ai.messages import ModelMessage, ModelResponse
from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse
from pydantic_ai.models.fallback import FallbackModel
from pydantic_ai.models.wrapper import WrapperModel
from pydantic_ai.settings import ModelSettings

from airflow_agentic.agents.model_failures import chain_error, model_error
from airflow_agentic.errors import DeadlineExceeded, NotAdmitted
from airflow_agentic.resilience.guard import Guard, spend

_log = logging.getLogger(__name__)

_MILLION = 1_000_000


@dataclass(frozen=True)
class Prices:
    """What a model costs that has no published price.

    Attributes:
        input_usd: US dollars for a million tokens that it reads.
        output_usd: US dollars for a million tokens that it writes.
    """

    input_usd: float
    output_usd: float


class GuardedModel(WrapperModel):
    """A model that is asked behind the guards of its connection.

    The client's own retries are off unless the settings of the request say otherwise: it is the guards' part to try
    again, and a model that is down is not to be asked three times a call.

    Args:
        wrapped: The model.
        conn_id: The connection that leads to it.
        guard: Makes the guard of one request, with retries or, for a streamed answer, without; blocking.
        prices: What it costs; default as published.
    """

    def __init__(
        self,
        wrapped: Model,
        conn_id: str,
        guard: Callable[[bool], Guard],
        prices: Prices | None = None,
    ) -> None:
        super().__init__(wrapped)
        self.conn_id = conn_id
        self._guard = guard
        self._prices = prices
        self._said_free = False

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Ask the model.

        Raises:
            NotAdmitted: A guard refuses.
            ModelUnavailable: It failed or did not answer.
            ModelThrottled: It is asked too often.
            ModelRefused: It refused the request.
        """

        async def ask() -> ModelResponse:
            response = await self.wrapped.request(messages, settings, model_request_parameters)
            self._spend(response)
            return response

        settings = self._without_retries(model_settings)
        guard = await asyncio.to_thread(self._guard, True)
        with self._ours():
            return await guard.acall(ask)

    @contextlib.asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: Any = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """Ask the model for an answer in pieces; the call lasts as long as it is read. The same errors."""
        readers_own: Exception | None = None
        settings = self._without_retries(model_settings)
        guard = await asyncio.to_thread(self._guard, False)
        with self._ours():
            async with (
                _held(guard) as finish,
                self.wrapped.request_stream(
                    messages, settings, model_request_parameters, run_context
                ) as stream,
            ):
                try:
                    yield stream
                except (ModelAPIError, UnexpectedModelBehavior):
                    raise
                except Exception as error:  # noqa: BLE001  # it goes on below
                    # What its reader raises says nothing of the model.
                    readers_own = error
                finally:
                    response = stream.get()
                    finish(lambda: self._spend(response))
        if readers_own is not None:
            raise readers_own

    def _without_retries(self, said: ModelSettings | None) -> ModelSettings | None:
        unknown = cast("frozenset[str]", getattr(self.wrapped, "unsupported_settings", frozenset()))
        if "max_retries" in unknown:
            return said
        return cast("ModelSettings", {"max_retries": 0, **(said or {})})

    @contextlib.contextmanager
    def _ours(self) -> Any:
        try:
            yield
        except ContentFilterError:
            raise
        except (ModelAPIError, UnexpectedModelBehavior) as error:
            found = model_error(error, self.conn_id)
            if found is error:
                raise
            raise found from error

    def _spend(self, response: ModelResponse) -> None:
        used = response.usage
        spend(tokens=used.input_tokens + used.output_tokens, cost_usd=self._cost(response))

    def _cost(self, response: ModelResponse) -> float:
        used = response.usage
        if used.cost is not None:
            return float(used.cost)
        if self._prices is not None:
            asked, said = (
                self._prices.input_usd * used.input_tokens,
                self._prices.output_usd * used.output_tokens,
            )
            return (asked + said) / _MILLION
        try:
            return float(response.cost().total_price)
        except (LookupError, ValueError, AssertionError):
            if not self._said_free:
                self._said_free = True
                _log.info(
                    "connection %r: nobody knows what the model %s costs, and budgets count no money for it; say "
                    'prices in the extra of the connection: {"input_usd": …, "output_usd": …} for a million tokens',
                    self.conn_id,
                    response.model_name,
                )
            return 0.0


class GuardedChain(FallbackModel):
    """Models in order, the next of which is asked when one fails or its guards refuse.

    Args:
        models: The models, each behind its guards.
        conn_id: The connection that names the chain.
    """

    def __init__(self, models: Sequence[GuardedModel], conn_id: str) -> None:
        super().__init__(*models, fallback_on=(ModelAPIError, NotAdmitted, DeadlineExceeded))
        self._conn_id = conn_id

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Ask the first that answers.

        Raises:
            NotAdmitted: All were refused by their guards; ``retry_at`` is the earliest of theirs.
            ServiceError: The best of what they failed with: the one that gives the most hope.
        """
        with self._one_error():
            return await super().request(messages, model_settings, model_request_parameters)

    @contextlib.asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: Any = None,
    ) -> AsyncGenerator[StreamedResponse]:
        """Ask the first that answers, for an answer in pieces. The same errors."""
        with self._one_error():
            async with super().request_stream(
                messages, model_settings, model_request_parameters, run_context
            ) as stream:
                yield stream

    @contextlib.contextmanager
    def _one_error(self) -> Any:
        try:
            yield
        except ExceptionGroup as group:
            found = chain_error(group, self._conn_id)
            if found is None:
                raise
            raise found from group


@contextlib.asynccontextmanager
async def _held(guard: Guard) -> AsyncIterator[Callable[[Callable[[], None]], None]]:
    """Guard what is done inside, which is one try, without blocking the loop.

    Yields:
        Takes what is to be done last, as part of the try.
    """
    loop = asyncio.get_running_loop()
    begun: asyncio.Future[None] = loop.create_future()
    over: asyncio.Future[None] = loop.create_future()
    last: list[Callable[[], None]] = []

    async def hold() -> None:
        begun.set_result(None)
        try:
            await over
        finally:
            for each in last:
                each()

    call = asyncio.ensure_future(guard.acall(hold))
    try:
        await asyncio.wait({call, begun}, return_when=asyncio.FIRST_COMPLETED)
        if not begun.done():
            await call  # raises why not
        yield last.append
    except BaseException as error:
        if not over.done() and begun.done():
            over.set_exception(error) if isinstance(error, Exception) else over.cancel()
        if not begun.done():
            call.cancel()
        with contextlib.suppress(BaseException):
            await asyncio.shield(call)
        raise
    else:
        over.set_result(None)
        await call
