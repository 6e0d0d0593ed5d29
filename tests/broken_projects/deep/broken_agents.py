"""The code that the projects in this folder declare: nothing is wrong with it until it is put together wrongly."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict

from airflow_agentic.agents import AgentContext, BaseAgent

NOT_AN_AGENT = 3


class SearchIndex:
    """What an agent needs."""


class Limits(BaseModel):
    model_config = ConfigDict(extra="forbid")

    limit: int
    label: str = ""


class Limited(BaseAgent[dict[str, Any], int]):
    config_model = Limits

    def process(self, task: dict[str, Any], ctx: AgentContext) -> int:
        return len(task)


class Searcher(BaseAgent[dict[str, Any], str]):
    def __init__(self, index: SearchIndex, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.index = index

    def process(self, task: dict[str, Any], ctx: AgentContext) -> str:
        return type(self.index).__name__


class Head(BaseAgent[dict[str, Any], int]):
    def __init__(self, limited: Limited, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.limited = limited

    def process(self, task: dict[str, Any], ctx: AgentContext) -> int:
        return self.limited.process(task, ctx)


class Closed(BaseAgent[dict[str, Any], str]):
    """Its constructor does not take what every agent is given."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name)

    def process(self, task: dict[str, Any], ctx: AgentContext) -> str:
        return self.name


class Chicken:
    def __init__(self, egg: Egg) -> None:
        self.egg = egg


class Egg:
    def __init__(self, chicken: Chicken) -> None:
        self.chicken = chicken


def open_index(path: str, size: int = 10) -> Iterator[SearchIndex]:
    yield SearchIndex()
