"""Connections to language models for tests: their servers run on this machine."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import warnings
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from airflow_agentic.testing.openai_server import OpenAIServer

KEY = "sk-a-key-that-nobody-may-read"


def require() -> None:
    """Skip the tests of a module where common-ai or pydantic-ai is not installed; on CI they must be."""
    missing = [name for name in ("pydantic_ai", "openai") if importlib.util.find_spec(name) is None]
    if not missing:
        missing = [] if importlib.util.find_spec("airflow.providers.common.ai") else ["common-ai"]
    reason = f"{' and '.join(missing)} not installed: pip install airflow-provider-agentic[ai]"
    if missing and os.environ.get("CI") == "true":
        raise RuntimeError(reason)
    if missing:
        pytest.skip(reason, allow_module_level=True)


def variable(conn_id: str, server: OpenAIServer, conn_type: str, **extra: Any) -> tuple[str, str]:
    """Return the environment variable that makes a connection, and its value."""
    said = {
        "conn_type": conn_type,
        "host": server.url,
        "password": KEY,
        "extra": {"model": "openai-chat:gpt-5", **extra},
    }
    return f"AIRFLOW_CONN_{conn_id.upper()}", json.dumps(said)


def collect() -> None:
    """Let go of clients of models now, while nobody takes for a fault of another test what they say of their connections."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
