"""Steps of the tests of language models: ask as common-ai's operators do."""

from __future__ import annotations

import asyncio

from airflow.providers.common.ai.hooks.pydantic_ai import PydanticAIHook


def ask(conn_id="primary", text="hello", **settings):
    """Ask once, with a hook of its own: as one task does."""
    hook = PydanticAIHook.get_hook(conn_id)
    agent = hook.create_agent(instructions="Be brief.")

    async def run():
        async with agent:
            return await agent.run(text, model_settings=settings or None)

    return asyncio.run(run()).output


def read(conn_id="primary", meanwhile=None):
    """Ask for an answer in pieces; return the pieces."""
    agent = PydanticAIHook.get_hook(conn_id).create_agent(instructions="Be brief.")

    async def run():
        async with agent, agent.run_stream("hello") as answer:
            pieces = [piece async for piece in answer.stream_text(delta=True, debounce_by=None)]
            if meanwhile:
                meanwhile()
            return pieces

    return asyncio.run(run())


def failures_of(times, **how):
    """Ask so often; return the errors."""
    errors = []
    for _ in range(times):
        try:
            ask(**how)
        except Exception as error:  # noqa: BLE001  # they are what is wanted
            errors.append(error)
    return errors
