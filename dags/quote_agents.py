"""Agents that say what something costs: one asks a service, the other one guesses."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel

from airflow_agentic.agents import HttpAgent, agent
from airflow_agentic.agents.http import HttpAgentConfig


class Article(BaseModel):
    """What is asked for."""

    name: str


class Quote(BaseModel):
    """What it costs."""

    price: float | None
    degraded: bool = False
    degraded_reason: str | None = None


class QuotesConfig(HttpAgentConfig):
    """Where the service is: the Airflow connection `quotes`, of type HTTP."""

    conn_id: str = "quotes"
    endpoint: str = "quote"
    timeout_seconds: float = 5.0


class Quotes(HttpAgent[Article, Quote]):
    """Asks the service behind the connection `quotes`."""

    config_model: ClassVar[type[BaseModel]] = QuotesConfig


@agent(name="estimator")
def estimate(article: Article) -> Quote:
    """Estimate a price by the length of the name: better than nothing."""
    return Quote(price=float(len(article.name)))
