"""Agents: one lifecycle for every kind, a registry of names, and the runner. Knows no Airflow."""

from __future__ import annotations

from airflow_agentic.agents.base import BaseAgent
from airflow_agentic.agents.context import AgentContext, RunIdentity
from airflow_agentic.agents.function import FunctionAgent
from airflow_agentic.agents.http import HttpAgent, HttpAgentConfig
from airflow_agentic.agents.lifecycle import AgentState
from airflow_agentic.agents.registry import AgentDefinition, AgentRegistry, agent
from airflow_agentic.agents.runner import AgentRunner, MailboxReport
from airflow_agentic.agents.status import AgentStatus, PerformanceMetrics
from airflow_agentic.agents.transport import HttpRequest, HttpResponse
from airflow_agentic.config.injection.signatures import Named

__all__ = [
    "AgentContext",
    "AgentDefinition",
    "AgentRegistry",
    "AgentRunner",
    "AgentState",
    "AgentStatus",
    "BaseAgent",
    "FunctionAgent",
    "HttpAgent",
    "HttpAgentConfig",
    "HttpRequest",
    "HttpResponse",
    "MailboxReport",
    "Named",
    "PerformanceMetrics",
    "RunIdentity",
    "agent",
]
