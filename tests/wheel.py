"""Builds the wheel, installs it alone into a fresh environment, and uses it there: `make wheel`.

What a user gets from an index is not this checkout: a file missing from the wheel, or a dependency missing
from its metadata, shows only where the source tree is away.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]

USE = """
import importlib, json, pkgutil
import airflow_agentic
from airflow.sdk.exceptions import AirflowOptionalProviderFeatureException
assert "site-packages" in airflow_agentic.__file__, airflow_agentic.__file__
for module in pkgutil.walk_packages(airflow_agentic.__path__, "airflow_agentic."):
    if ".migrations.env" in module.name:
        continue
    try:
        importlib.import_module(module.name)
    except ModuleNotFoundError as error:
        # Of the extras, which are not installed here, and of those who write tests.
        extras = ("redis", "psycopg", "pydantic_ai", "airflow.providers.common.ai")
        wanted = ("pytest",) if module.name == "airflow_agentic.testing.faults" else extras
        assert error.name in wanted, (module.name, error)
    except AirflowOptionalProviderFeatureException as error:
        assert module.name == "airflow_agentic.hooks.ai" and "[ai]" in str(error), (module.name, error)
from airflow.providers_manager import ProvidersManager
manager = ProvidersManager()
assert "agentic" in manager.hooks, "connection type"
assert list(manager.hooks.items())  # each is imported, or left out with a word
assert "airflow-provider-agentic" in manager.providers
from airflow.sdk import task
assert task.agentic
from airflow.providers.common.messaging.triggers.msg_queue import MessageQueueTrigger
trigger = MessageQueueTrigger(scheme="agentic", mailbox="box").trigger
assert trigger.serialize()[1]["mailbox"] == "box"
from airflow_agentic.stores import open_store
from airflow_agentic.messaging import Message
with open_store("sqlite:///wheel.db") as store:
    store.bus.send(Message(source="wheel", recipient="box", data={"n": 1}))
    (delivery,) = store.bus.receive("box")
    delivery.ack()
    assert store.bus.stats("box").done == 1
print("the wheel works")
"""


def run(*command: str | Path, **options: object) -> str:
    """Run a command; show its output if it fails."""
    done = subprocess.run(
        [str(word) for word in command], text=True, capture_output=True, check=False, **options
    )  # type: ignore[call-overload]
    if done.returncode:
        sys.exit(f"{command[0]} failed:\n{done.stdout}\n{done.stderr}")
    return str(done.stdout)


def main() -> None:
    """Build, install, use."""
    with tempfile.TemporaryDirectory(prefix="agentic-wheel-") as name:
        folder = Path(name)
        run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, ROOT)
        (wheel,) = folder.glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            strange = [
                n
                for n in archive.namelist()
                if not n.startswith(("airflow_agentic/", "airflow_provider_agentic-"))
            ]
        if strange:
            sys.exit(f"the wheel brings files of others: {strange}")
        print(f"{wheel.name}: {wheel.stat().st_size // 1024} KiB", flush=True)
        venv = folder / "venv"
        run(sys.executable, "-m", "venv", venv)
        python = venv / "bin" / "python"
        constraints = ("--constraint", ROOT / "constraints.txt")
        run(python, "-m", "pip", "install", "--quiet", *constraints, "pip")
        run(python, "-m", "pip", "install", "--quiet", *constraints, wheel)
        home = folder / "home"
        home.mkdir()
        keep = {key: value for key, value in os.environ.items() if not key.startswith(("AIRFLOW", "PYTHON"))}
        environment = {**keep, "AIRFLOW_HOME": str(home), "PATH": f"{venv / 'bin'}:{keep['PATH']}"}
        print(run(python, "-c", USE, cwd=home, env=environment).splitlines()[-1], flush=True)
        stats = ("agentic", "messages", "stats", "--store-url", f"sqlite:///{home}/wheel.db", "-o", "plain")
        print(run(python, "-m", "airflow", *stats, cwd=home, env=environment))
    print("1 passed, 0 failed")


if __name__ == "__main__":
    main()
