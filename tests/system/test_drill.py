"""The drill over the licence audit, with every kind of fault, on an Airflow that runs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from airflow_agentic.cli.drill.plan import KINDS
from localairflow.stack import LocalAirflow

EXAMPLES = Path(__file__).parents[2] / "dags"
# What a person would wait for is waited for shortly: leases of workers that were killed, and retries.
_QUICK = {
    "AIRFLOW__AGENTIC__FAULT_INJECTION": "True",
    "AIRFLOW__AGENTIC__POLL_SECONDS": "0.1",
    "AGENTIC__POLICIES__PATIENT__LEASE_SECONDS": "3",
    "AGENTIC__POLICIES__PATIENT__RETRY__MAX_SECONDS": "1",
}


# Each kind takes a run of the DAG or two; `make chaos` takes the time for all of them.
_TRIED = KINDS if os.environ.get("CHAOS") == "long" else ("error", "sigkill", "corrupt")


@pytest.fixture(scope="module")
def disturbed(homes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalAirflow]:
    dags = tmp_path_factory.mktemp("dags") / "examples"
    shutil.copytree(EXAMPLES, dags, ignore=shutil.ignore_patterns("__pycache__"))
    with LocalAirflow(homes / "disturbed", dags, extra_env=_QUICK) as running:
        running.client.wait_for_dag("dependency_audit", timeout_s=60)
        yield running


@pytest.mark.timeout(1200)
def test_every_promise_holds_with_each_kind_of_fault(disturbed: LocalAirflow, capsys) -> None:
    words = [
        "agentic",
        "faults",
        "plan",
        "dependency_audit",
        "--timeout",
        "3m",
        "-o",
        "json",
        "--kinds",
        *_TRIED,
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "airflow", *words],
        env=disturbed.env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr + ended.stdout
    found = json.loads(ended.stdout)
    with capsys.disabled():
        for each in found:
            for judged in each["promises"]:
                print(each["kind"], each["injected"], *judged.values(), sep=" | ")
    assert [each["kind"] for each in found] == list(_TRIED)
    assert {each["place"] for each in found} == {"the running Airflow"}
    for each in found:
        assert each["injected"] > 0, each
        assert not each["broke"], each
        assert {judged["verdict"] for judged in each["promises"]} <= {"held", "not exercised"}
    [damage] = [
        judged
        for each in found
        for judged in each["promises"]
        if judged["promise"][:2] == "P8" and each["kind"] == "corrupt"
    ]
    assert damage["verdict"] == "held"
