"""What Airflow asks a provider for. Read early: the standard library and ``config.options`` only."""

from __future__ import annotations

from typing import Any

from airflow_agentic import __version__
from airflow_agentic.config.options import config_section

_INTEGRATION = "Agentic"


def get_provider_info() -> dict[str, Any]:
    """Return the registry entries of this provider."""
    return {
        "package-name": "airflow-provider-agentic",
        "name": "Agentic",
        "description": "Agents as production work: one lifecycle, a durable message bus, operators and a CLI.",
        "integrations": [{"integration-name": _INTEGRATION, "tags": ["software"]}],
        "connection-types": [_CONNECTION_TYPE, *_GUARDED_MODELS],
        "hooks": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": ["airflow_agentic.hooks.messaging", "airflow_agentic.hooks.ai"],
            }
        ],
        "operators": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    "airflow_agentic.operators.agents",
                    "airflow_agentic.operators.messaging",
                    "airflow_agentic.operators.requests",
                ],
            }
        ],
        "sensors": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": ["airflow_agentic.sensors.messaging", "airflow_agentic.sensors.resilience"],
            }
        ],
        "triggers": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    "airflow_agentic.triggers.messaging",
                    "airflow_agentic.triggers.agents",
                    "airflow_agentic.triggers.resilience",
                ],
            }
        ],
        "queues": ["airflow_agentic.queues.messaging.AgentMessageQueueProvider"],
        "task-decorators": [
            {"name": "agentic", "class-name": "airflow_agentic.decorators.agents.agentic_task"},
            {"name": "on_message", "class-name": "airflow_agentic.decorators.messaging.on_message_task"},
        ],
        "notifications": ["airflow_agentic.notifications.messaging.AgenticNotifier"],
        "extra-links": ["airflow_agentic.links.MessageTraceLink"],
        "cli": ["airflow_agentic.cli.definition.get_agentic_cli_commands"],
        "config": config_section(version_added=__version__),
    }


_CONNECTION_TYPE: dict[str, Any] = {
    "connection-type": "agentic",
    "hook-class-name": "airflow_agentic.hooks.messaging.AgenticHook",
    "hook-name": "Agentic store",
    "ui-field-behaviour": {
        "hidden-fields": ["host", "schema", "login", "password", "port", "extra"],
        "relabeling": {},
        "placeholders": {},
    },
    "conn-fields": {
        "url": {
            "label": "Store URL",
            "description": "Where messages and agents are kept, for example "
            "sqlite:////var/lib/airflow/agentic.db, postgresql://user@host:5432/database or redis://host:6379/0. Empty "
            "means [agentic] store_url.",
            "schema": {"type": ["string", "null"]},
        },
        "lease_seconds": {
            "label": "Lease (seconds)",
            "description": "How long a received message belongs to its receiver. Empty means [agentic].",
            "schema": {"type": ["number", "null"], "minimum": 0.1},
        },
        "max_attempts": {
            "label": "Attempts",
            "description": "How often a message is handed out before it goes to the dead letters.",
            "schema": {"type": ["integer", "null"], "minimum": 1},
        },
        "max_message_bytes": {
            "label": "Largest message (bytes)",
            "description": "A larger message is refused when it is sent.",
            "schema": {"type": ["integer", "null"], "minimum": 1024},
        },
        "claim_check_path": {
            "label": "Place for large data",
            "description": "URL of a directory that every worker reaches: file:///mnt/agentic, or "
            "s3://connection_id@bucket/agentic. Empty means [agentic].",
            "schema": {"type": ["string", "null"]},
        },
        "mailbox_limit": {
            "label": "Room in a mailbox",
            "description": "Largest number of messages that are neither done nor dead; 0 for none. Empty means [agentic].",
            "schema": {"type": ["integer", "null"], "minimum": 0},
        },
    },
}

_TEXT = {"type": ["string", "null"]}


def _guarded_model(suffix: str, hook: str, name: str, hidden: list[str], example: str) -> dict[str, Any]:
    """Return a connection type of common-ai behind guards; what its form lacks goes into the extra."""
    return {
        "connection-type": f"pydanticai_agentic{suffix}",
        "hook-class-name": f"airflow_agentic.hooks.ai.{hook}",
        "hook-name": name,
        "ui-field-behaviour": {
            "hidden-fields": ["schema", "port", "login", *hidden],
            "relabeling": {} if hidden else {"password": "API Key"},
            "placeholders": {"extra": f'{{"model": "{example}", "policy": "llm"}}'},
        },
        "conn-fields": {
            "model": {
                "label": "Model",
                "description": f"As provider:name, for example {example}.",
                "schema": _TEXT,
            },
            "fallback_conn_ids": {
                "label": "Fallback connections",
                "description": "Asked in order while this model cannot be; each has a breaker and a policy of its own.",
                "schema": {"type": ["array", "null"], "items": {"type": "string"}},
            },
            "policy": {
                "label": "Policy",
                "description": "Name of a policy of the project file. Empty means a breaker alone.",
                "schema": _TEXT,
            },
            "gateway": {
                "label": "A gateway guards",
                "description": "A gateway in front of the model has breakers, limits and retries: ours are off.",
                "schema": {"type": ["boolean", "null"]},
            },
            "agentic_conn_id": {
                "label": "Agentic store",
                "description": "Connection of the store where the guards are kept. Empty means the default.",
                "schema": _TEXT,
            },
        },
    }


_GUARDED_MODELS = [
    _guarded_model("", "ResilientPydanticAIHook", "Pydantic AI (guarded)", [], "openai:gpt-5"),
    _guarded_model(
        "_azure", "ResilientPydanticAIAzureHook", "Pydantic AI (Azure OpenAI, guarded)", [], "azure:gpt-5"
    ),
    _guarded_model(
        "_bedrock",
        "ResilientPydanticAIBedrockHook",
        "Pydantic AI (AWS Bedrock, guarded)",
        ["host", "password"],
        "bedrock:us.anthropic.claude-opus-4-5",
    ),
    _guarded_model(
        "_vertex",
        "ResilientPydanticAIVertexHook",
        "Pydantic AI (Google Vertex AI, guarded)",
        ["host", "password"],
        "google-cloud:gemini-2.5-flash",
    ),
]
