"""Whether Airflow sees this provider, and everything it registers."""

from __future__ import annotations

from collections.abc import Callable

from airflow_agentic.cli.checks.finding import Finding, Result, examined
from airflow_agentic.config.options import SECTION

PACKAGE = "airflow-provider-agentic"
MINIMUM = "3.3"

_REINSTALL = (
    f"install {PACKAGE} into the environment of this `airflow` command; `airflow providers list` must show it"
)


def findings() -> list[Finding]:
    """Look at the installation."""
    checks: dict[str, Callable[[], Finding]] = {
        "Airflow": _airflow,
        "provider": _provider,
        "connection type": _connection_type,
        "queue scheme": _queue_scheme,
        "config section": _config_section,
        "task decorator": _task_decorator,
    }
    return [examined(name, look) for name, look in checks.items()]


def _airflow() -> Finding:
    from airflow import __version__
    from packaging.version import Version

    # Of a pre-release only the numbers count.
    if Version(Version(__version__).base_version) < Version(MINIMUM):
        return Finding(
            "Airflow",
            Result.FAIL,
            f"version {__version__} is too old",
            f"upgrade Airflow to {MINIMUM} or newer, and run `airflow db migrate`",
        )
    return Finding("Airflow", Result.OK, f"version {__version__}")


def _provider() -> Finding:
    from airflow.providers_manager import ProvidersManager

    provider = ProvidersManager().providers.get(PACKAGE)
    if provider is None:
        return Finding("provider", Result.FAIL, f"Airflow does not see {PACKAGE}", _REINSTALL)
    return Finding("provider", Result.OK, f"{PACKAGE} {provider.version}")


def _connection_type() -> Finding:
    from airflow.providers_manager import ProvidersManager

    hook = ProvidersManager().hooks.get("agentic")
    if hook is None:
        return Finding("connection type", Result.FAIL, "there is no connection type 'agentic'", _REINSTALL)
    return Finding("connection type", Result.OK, f"agentic ({hook.hook_name})")


def _queue_scheme() -> Finding:
    from airflow.providers.common.messaging.triggers.msg_queue import MESSAGE_QUEUE_PROVIDERS

    if not any(provider.scheme_matches("agentic") for provider in MESSAGE_QUEUE_PROVIDERS):
        return Finding("queue scheme", Result.FAIL, "MessageQueueTrigger has no scheme 'agentic'", _REINSTALL)
    return Finding("queue scheme", Result.OK, 'MessageQueueTrigger(scheme="agentic")')


def _config_section() -> Finding:
    from airflow.providers_manager import ProvidersManager

    if not any(SECTION in config for _, config in ProvidersManager().provider_configs):
        return Finding(
            "config section", Result.FAIL, f"Airflow does not know the options of [{SECTION}]", _REINSTALL
        )
    return Finding("config section", Result.OK, f"[{SECTION}]")


def _task_decorator() -> Finding:
    from airflow.sdk import task

    try:
        task.agentic  # noqa: B018  # looking it up imports it
    except AttributeError:
        return Finding("task decorator", Result.FAIL, "there is no @task.agentic", _REINSTALL)
    return Finding("task decorator", Result.OK, "@task.agentic")
