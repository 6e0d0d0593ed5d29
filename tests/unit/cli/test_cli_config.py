from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from commandline import Run
from pydantic import BaseModel, SecretStr

from airflow_agentic.agents import agent
from airflow_agentic.config.schema import json_schema

PLANTED = "pl4nted-s3cret"
OUTPUTS = ("table", "plain", "json", "yaml")
PAUSE = "agents.license-auditor.config.pause_seconds"
PAUSE_VARIABLE = "AGENTIC__AGENTS__LICENSE_AUDITOR__CONFIG__PAUSE_SECONDS"


class AuditorConfig(BaseModel):
    pause_seconds: float = 0
    api_token: str = ""
    phrase: SecretStr = SecretStr("coded")
    greeting: str = ""


@agent(name="audit-of-the-command-line", config=AuditorConfig)
def audit(task: dict[str, Any]) -> dict[str, Any]:
    return task


BASE = """\
settings:
  max_attempts: 7
agents:
  license-auditor:
    type: test_cli_config:audit
    config:
      pause_seconds: 0.05
    overridable: [pause_seconds]
"""
OVERLAY = """\
agents:
  license-auditor:
    config:
      pause_seconds: 0.1
"""
FAULTY = """\
agents:
  one:
    polcy: strict
    type: test_cli_config:audit
rules:
  min_retrys: 1
"""

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str, name: str = "agentic.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return written


@pytest.fixture
def configured(write: Write, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a project file, and let ``[agentic] project_file`` name all that were written so."""
    named: list[str] = []

    def configure(text: str, name: str = "agentic.yaml") -> Path:
        path = write(text, name)
        named.append(str(path))
        monkeypatch.setenv("AIRFLOW__AGENTIC__PROJECT_FILE", ",".join(named))
        return path

    return configure


@pytest.fixture
def three_layers(configured: Write, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    files = configured(BASE), configured(OVERLAY, "production.yaml")
    monkeypatch.setenv(PAUSE_VARIABLE, "0.5")
    return files


class TestShow:
    def test_it_lists_what_is_declared_with_its_source(
        self, agentic: Run, three_layers: tuple[Path, Path]
    ) -> None:
        ended = agentic("config", "show", "-o", "plain")

        assert ended.code == 0, ended.err
        base, _ = three_layers
        rows = [line.split(maxsplit=2) for line in ended.out.splitlines()]
        assert rows == [
            ["key", "value", "source"],
            ["settings.max_attempts", "7", f"{base}:2"],
            ["agents.license-auditor.type", "test_cli_config:audit", f"{base}:5"],
            [PAUSE, "0.5", f"environment variable {PAUSE_VARIABLE}"],
            ["agents.license-auditor.overridable", '["pause_seconds"]', f"{base}:8"],
        ]

    def test_programs_get_what_was_overridden_too(
        self, agentic: Run, three_layers: tuple[Path, Path]
    ) -> None:
        base, overlay = three_layers

        assert agentic("config", "show", PAUSE, "-o", "json").json == [
            {
                "key": PAUSE,
                "value": "0.5",  # text, until the agent's own model makes a number of it
                "source": f"environment variable {PAUSE_VARIABLE}",
                "overrides": [
                    {"value": 0.1, "source": f"{overlay}:4"},
                    {"value": 0.05, "source": f"{base}:7"},
                ],
            }
        ]

    def test_a_key_limits_the_list_to_what_is_below_it(self, agentic: Run, configured: Write) -> None:
        configured(BASE)

        shown = agentic("config", "show", "agents.license-auditor.config", "-o", "json").json

        assert [value["key"] for value in shown] == [PAUSE]

    @pytest.mark.usefixtures("three_layers")
    def test_all_adds_coded_defaults(self, agentic: Run) -> None:
        declared = agentic("config", "show", "-o", "json").json
        everything = {value["key"]: value for value in agentic("config", "show", "--all", "-o", "json").json}

        assert {value["key"] for value in declared} < set(everything)
        assert everything["settings.lease_seconds"]["source"] == "coded default"
        assert everything["settings.max_attempts"]["overrides"] == [{"value": 5, "source": "coded default"}]

    def test_without_a_declaration_it_says_how_to_begin(self, agentic: Run) -> None:
        ended = agentic("config", "show")

        assert ended.code == 0
        assert ended.out.startswith("nothing is declared. To begin, write a project file")
        assert "[agentic] project_file" in ended.out

    def test_without_a_declaration_programs_get_an_empty_list(self, agentic: Run) -> None:
        ended = agentic("config", "show", "-o", "json")

        assert (ended.code, ended.json) == (0, [])
        assert "[agentic] project_file" in ended.err

    def test_options_alone_are_no_beginning(self, agentic: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("AIRFLOW__AGENTIC__MAX_ATTEMPTS", "3")

        ended = agentic("config", "show", "-o", "json")

        assert [value["key"] for value in ended.json] == ["settings.max_attempts"]
        assert ended.err.startswith("there is no project file. To begin, ")

    @pytest.mark.parametrize("key", ["lease_seconds", "policies", "rules.min_retries"])
    def test_a_key_of_which_nothing_is_declared_has_its_default(
        self, agentic: Run, configured: Write, key: str
    ) -> None:
        configured(BASE)

        ended = agentic("config", "show", key)

        assert ended.code == 0
        assert "coded defaults apply (--all shows them)" in ended.out

    def test_named_files_take_the_place_of_the_configured_ones(
        self, agentic: Run, configured: Write, write: Write
    ) -> None:
        configured("settings: {max_attempts: 2}")
        base, overlay = write(BASE, "base.yaml"), write(OVERLAY, "overlay.yaml")

        shown = agentic("config", "show", "--project", base, "--project", overlay, "-o", "json").json

        assert {value["key"]: value["value"] for value in shown} == {
            "settings.max_attempts": 7,
            "agents.license-auditor.type": "test_cli_config:audit",
            PAUSE: 0.1,
            "agents.license-auditor.overridable": ["pause_seconds"],
        }

    def test_a_value_of_the_command_line_is_over_all(
        self, agentic: Run, three_layers: tuple[Path, Path]
    ) -> None:
        (shown,) = agentic("config", "show", PAUSE, "--set", f"{PAUSE}=2", "-o", "json").json

        assert (shown["value"], shown["source"]) == ("2", f"--set {PAUSE}")
        assert [over["source"] for over in shown["overrides"]] == [
            f"environment variable {PAUSE_VARIABLE}",
            f"{three_layers[1]}:4",
            f"{three_layers[0]}:7",
        ]

    def test_a_long_value_is_cut_for_people_only(self, agentic: Run, write: Write) -> None:
        path = write(f"flags:\n  note: {'word ' * 100}\n")

        row = agentic("config", "show", "--project", path, "-o", "plain").out.splitlines()[1]

        assert row.split()[-2].endswith("...")
        assert len(row) < 200
        assert len(agentic("config", "show", "--project", path, "-o", "json").json[0]["value"]) > 400

    def test_control_characters_do_not_reach_the_terminal(self, agentic: Run, write: Write) -> None:
        path = write('flags:\n  note: "a\\e[31mb"\n')

        for command in ("show", "explain"):
            assert "\x1b" not in agentic("config", command, "flags", "--project", path).out


class TestExplain:
    def test_it_tells_the_layers_from_the_nearest_to_the_farthest(
        self, agentic: Run, three_layers: tuple[Path, Path]
    ) -> None:
        base, overlay = three_layers

        ended = agentic("config", "explain", PAUSE)

        assert ended.code == 0
        assert ended.out.splitlines() == [
            f"{PAUSE} = 0.5",
            f"  from   environment variable {PAUSE_VARIABLE}",
            f"  over   0.1    {overlay}:4",
            f"         0.05   {base}:7",
            "         0      coded default (AuditorConfig)",
            "  may be set by DAG params and dag_run.conf",
        ]

    def test_a_single_value_is_one_object_for_programs(
        self, agentic: Run, three_layers: tuple[Path, Path]
    ) -> None:
        explained = agentic("config", "explain", PAUSE, "-o", "json").json

        assert set(explained) == {"key", "value", "source", "overrides"}
        assert [over["value"] for over in explained["overrides"]] == [0.1, 0.05, 0]
        assert explained["overrides"][0]["source"] == f"{three_layers[1]}:4"

    @pytest.mark.usefixtures("three_layers")
    def test_a_map_explains_each_value_with_a_blank_line_between(self, agentic: Run) -> None:
        blocks = agentic("config", "explain", "agents.license-auditor.config").out.split("\n\n")

        assert [block.split(" ")[0].rsplit(".")[-1] for block in blocks] == list(AuditorConfig.model_fields)

    @pytest.mark.usefixtures("three_layers")
    def test_a_map_is_a_list_for_programs(self, agentic: Run) -> None:
        explained = agentic("config", "explain", "agents.license-auditor.config", "-o", "json").json

        assert {value["key"].rsplit(".")[-1] for value in explained} == set(AuditorConfig.model_fields)

    def test_the_bare_name_of_an_option_will_do(self, agentic: Run, configured: Write) -> None:
        path = configured(BASE)

        assert agentic("config", "explain", "max_attempts").out.splitlines() == [
            "settings.max_attempts = 7",
            f"  from   {path}:2",
            "  over   5   coded default",
        ]

    @pytest.mark.parametrize(
        ("key", "hint"),
        [
            (
                "agents.licence-auditor",
                "agents has no key 'licence-auditor': did you mean 'license-auditor'?",
            ),
            (
                "agents.license-auditor.config.pause_secnds",
                "agents.license-auditor.config has no key 'pause_secnds': did you mean 'pause_seconds'?",
            ),
            ("agnets", "there is no key 'agnets': did you mean 'agents'?"),
            ("max_atempts", "there is no key 'max_atempts': did you mean 'max_attempts'?"),
            ("rules.zzz", "rules has no key 'zzz': known here: declared_agents_only, "),
            ("settings.max_attempts.x", "settings.max_attempts has no key 'x': nothing is known here"),
            ("project_file", "says where the project is and is no part of it"),
            ("a..b", "is no key: give names with dots between them"),
        ],
    )
    @pytest.mark.parametrize("command", ["explain", "show"])
    def test_an_unknown_key_is_an_error_with_the_nearest_known_one(
        self, agentic: Run, configured: Write, command: str, key: str, hint: str
    ) -> None:
        configured(BASE)

        ended = agentic("config", command, key)

        assert (ended.code, ended.out) == (1, "")
        assert ended.err.startswith("error: ")
        assert hint in ended.err

    def test_a_name_with_a_dot_needs_no_quotes(self, agentic: Run, write: Write) -> None:
        path = write("flags:\n  v1.beta: true\n")

        ended = agentic("config", "explain", "flags.v1.beta", "--project", path)

        assert ended.out.splitlines()[0] == 'flags."v1.beta" = true'

    def test_only_what_may_be_set_at_run_time_says_so(self, agentic: Run, configured: Write) -> None:
        configured(BASE)

        said = agentic("config", "explain", "agents.license-auditor.config").out

        assert said.count("may be set by DAG params and dag_run.conf") == 1

    def test_a_deletion_brings_the_coded_default_back(
        self, agentic: Run, configured: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = configured(BASE)
        monkeypatch.setenv(PAUSE_VARIABLE, "${delete}")

        explained = agentic("config", "explain", PAUSE, "-o", "json").json

        assert (explained["value"], explained["source"]) == (0, "coded default (AuditorConfig)")
        assert {"value": 0.05, "source": f"{path}:7"} in explained["overrides"]

    def test_an_agent_whose_code_cannot_be_imported_is_explained_as_it_is_declared(
        self, agentic: Run, write: Write
    ) -> None:
        path = write("agents:\n  lost:\n    type: no_such_module_here:agent\n    config: {depth: 3}\n")

        ended = agentic("config", "explain", "agents.lost.config.depth", "--project", path)

        assert ended.code == 0, ended.err
        assert ended.out.startswith("agents.lost.config.depth = 3\n")
        ended = agentic("config", "explain", "agents.lost.policy", "--project", path)
        assert (ended.code, ended.out) == (0, "")
        assert "nothing is declared at agents.lost.policy, and it has no coded default" in ended.err


class TestValidate:
    def test_a_project_in_order_is_one_line(self, agentic: Run, write: Write) -> None:
        base, overlay = write(BASE), write(OVERLAY, "overlay.yaml")

        ended = agentic("config", "validate", base, overlay)

        assert (ended.code, ended.out, ended.err) == (0, "2 files, 1 agent, 0 services: ok\n", "")

    @pytest.mark.usefixtures("three_layers")
    def test_without_files_it_is_the_configured_project(self, agentic: Run) -> None:
        ended = agentic("config", "validate")

        assert (ended.code, ended.out) == (0, "2 files, 1 agent, 0 services: ok\n")

    def test_a_directory_stands_for_its_files(self, agentic: Run, write: Write, tmp_path: Path) -> None:
        write(BASE, "10-base.yaml")
        write(OVERLAY, "20-overlay.yaml")

        assert agentic("config", "validate", tmp_path).out.startswith("2 files, 1 agent")

    def test_what_was_not_held_against_its_code_is_told(self, agentic: Run, write: Write) -> None:
        ended = agentic("config", "validate", write("agents: {of-a-dag-file: {config: {any: thing}}}"))

        assert (ended.code, ended.out) == (0, "1 file, 1 agent, 0 services: ok\n")
        assert ended.err.startswith("note: of-a-dag-file: no type, and nothing registered here")

    def test_every_fault_is_a_line_that_an_editor_can_follow(self, agentic: Run, write: Write) -> None:
        path = write(FAULTY)

        ended = agentic("config", "validate", path)

        assert ended.code == 1
        assert ended.out.splitlines() == [
            f"{path}:3: agents.one.polcy: unknown key 'polcy' (did you mean 'policy'?)",
            f"{path}:6: rules.min_retrys: unknown key 'min_retrys' (did you mean 'min_retries'?)",
        ]
        assert ended.err == "2 faults\n"

    def test_faults_for_programs_are_a_list(self, agentic: Run, write: Write) -> None:
        path = write(FAULTY)

        ended = agentic("config", "validate", path, "-o", "json")

        assert ended.code == 1
        assert ended.json[0] == {
            "file": str(path),
            "line": 3,
            "key": "agents.one.polcy",
            "message": "unknown key 'polcy'",
            "suggestion": "did you mean 'policy'?",
            "source": f"{path}:3",
        }
        assert len(ended.json) == 2

    def test_no_fault_is_an_empty_list_and_nothing_else(self, agentic: Run, write: Write) -> None:
        ended = agentic("config", "validate", write(BASE), "-o", "json")

        assert (ended.code, ended.out) == (0, "[]\n")

    def test_users_code_is_imported_and_checked(self, agentic: Run, write: Write) -> None:
        path = write(BASE.replace("0.05", "soon"))

        ended = agentic("config", "validate", path)

        assert ended.code == 1
        assert f"{path}:7: {PAUSE}: " in ended.out

    def test_what_users_code_prints_stays_out_of_the_answer(
        self, agentic: Run, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.syspath_prepend(tmp_path)
        write("print('hello from my module')\n", "chatty_module_of_a_user.py")
        path = write(f"imports: [chatty_module_of_a_user]\n{BASE}")

        ended = agentic("config", "validate", path, "-o", "json")

        assert (ended.code, ended.out) == (0, "[]\n")

    def test_a_file_that_is_not_there_is_a_fault(self, agentic: Run, write: Write, tmp_path: Path) -> None:
        ended = agentic("config", "validate", write(BASE), tmp_path / "missing.yaml")

        assert ended.code == 1
        assert f"{tmp_path}/missing.yaml: the project file cannot be read: No such file" in ended.out

    def test_with_nothing_to_check_it_says_what_to_do(self, agentic: Run) -> None:
        ended = agentic("config", "validate", "-o", "json")

        assert (ended.code, ended.out) == (1, "")
        assert "no project is configured" in ended.err
        assert "[agentic] project_file" in ended.err

    def test_a_wrong_variable_is_a_fault_without_any_file(
        self, agentic: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AGENTIC__RULES__MIN_RETRYS", "1")

        ended = agentic("config", "validate")

        assert ended.code == 1
        assert "environment variable AGENTIC__RULES__MIN_RETRYS: rules.min_retrys: unknown key" in ended.out

    def test_what_this_version_does_not_enforce_is_noted_beside_the_answer(
        self, agentic: Run, write: Write
    ) -> None:
        path = write(
            "roles: {reader: {permissions: [read]}}\n"
            "agents: {a: {type: 'test_cli_config:audit', version: '2', subscriptions: [orders.*]}}\n"
        )

        ended = agentic("config", "validate", path, "-o", "json")

        assert (ended.code, ended.out) == (0, "[]\n")
        assert "note: permissions of roles, versions: declared and checked, but not enforced" in ended.err

    def test_files_and_project_together_are_refused(self, agentic: Run, write: Write) -> None:
        path = write(BASE)

        ended = agentic("config", "validate", path, "--project", path)

        assert ended.code == 1
        assert "give one of them" in ended.err


class TestOtherCommands:
    @pytest.mark.parametrize("command", [("show",), ("explain", "agents")])
    def test_each_fault_of_the_project_has_its_line_on_stderr(
        self, agentic: Run, configured: Write, command: tuple[str, ...]
    ) -> None:
        path = configured(FAULTY)

        ended = agentic("config", *command, "-o", "json")

        assert (ended.code, ended.out) == (1, "")
        assert ended.err.splitlines() == [
            "error: the project configuration has 2 faults:",
            f"  {path}:3: agents.one.polcy: unknown key 'polcy' (did you mean 'policy'?)",
            f"  {path}:6: rules.min_retrys: unknown key 'min_retrys' (did you mean 'min_retries'?)",
        ]

    def _project(self, agentic: Run, store_url: str) -> tuple[int, dict[str, Any]]:
        ended = agentic("doctor", "--store-url", store_url, "-o", "json")
        (found,) = [finding for finding in ended.json if finding["check"] == "project"]
        return ended.code, found

    def test_the_doctor_counts_files_and_agents(
        self, agentic: Run, store_url: str, three_layers: tuple[Path, Path]
    ) -> None:
        _, finding = self._project(agentic, store_url)

        assert (finding["result"], finding["text"]) == ("ok", f"{len(three_layers)} files, 1 agent")

    def test_the_doctor_is_content_without_a_project(self, agentic: Run, store_url: str) -> None:
        _, finding = self._project(agentic, store_url)

        assert (finding["result"], finding["text"]) == ("ok", "none is configured")

    def test_the_doctor_tells_the_number_of_faults_and_the_first(
        self, agentic: Run, store_url: str, configured: Write
    ) -> None:
        path = configured(FAULTY)

        code, finding = self._project(agentic, store_url)

        assert (code, finding["result"]) == (1, "FAIL")
        assert finding["text"].startswith(f"2 faults, the first: {path}:3: agents.one.polcy: unknown key")
        # No option of a store: this command is about none.
        assert finding["way_out"] == "run `airflow agentic config validate`"

    def test_the_doctor_does_not_tell_the_faults_again_for_the_store(
        self, agentic: Run, store_url: str, configured: Write
    ) -> None:
        configured(FAULTY)

        ended = agentic("doctor", "--store-url", store_url)

        assert ended.out.count("did you mean") == 1
        assert "FAIL     store: the project may say where it is, and cannot be read" in ended.out

    def test_control_characters_in_a_fault_do_not_reach_the_terminal(
        self, agentic: Run, configured: Write
    ) -> None:
        configured('agents:\n  one:\n    "po\\e[31mlcy\\nline": x\n')

        shown, validated = agentic("config", "show"), agentic("config", "validate")

        assert (shown.code, validated.code) == (1, 1)
        assert "\x1b" not in shown.err + validated.out
        assert (len(shown.err.splitlines()), len(validated.out.splitlines())) == (2, 1)


SECRETS = f"""\
flags:
  api_key: {PLANTED}
agents:
  license-auditor:
    type: test_cli_config:audit
    config:
      api_token: {PLANTED}
      phrase: {PLANTED}
      greeting: https://user:{PLANTED}@example.org/
services:
  index:
    type: builtins:dict
    config:
      password: {PLANTED}
"""
COMMANDS = [
    ("config", "show"),
    ("config", "show", "--all"),
    ("config", "explain", "agents"),
    ("config", "explain", "store_url"),
    ("config", "explain", "agents.license-auditor.config.api_token"),
    ("config", "explain", "flags"),
    ("config", "validate"),
]


class TestSecrets:
    @pytest.fixture
    def planted(self, configured: Write, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """A secret in each layer; return the arguments that lay others over them."""
        url = f"postgresql://user:{PLANTED}@db/agentic"
        configured(f"settings: {{store_url: '{url}'}}\n{SECRETS}")
        configured(f"settings: {{store_url: '{url}'}}\n{SECRETS}", "overlay.yaml")
        monkeypatch.setenv("AIRFLOW__AGENTIC__STORE_URL", url)
        monkeypatch.setenv("AGENTIC__AGENTS__LICENSE_AUDITOR__CONFIG__API_TOKEN", PLANTED)
        monkeypatch.setenv("AGENTIC__AGENTS__LICENSE_AUDITOR__CONFIG__PHRASE", PLANTED)
        keys = ("agents.license-auditor.config.api_token", "flags.api_key")
        return [word for key in keys for word in ("--set", f"{key}={PLANTED}")]

    @pytest.mark.parametrize("output", OUTPUTS)
    @pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
    @pytest.mark.parametrize("laid_over", [True, False])
    def test_no_command_shows_one(
        self, agentic: Run, planted: list[str], command: tuple[str, ...], output: str, laid_over: bool
    ) -> None:
        ended = agentic(*command, "-o", output, *(planted if laid_over else ()))

        assert ended.code == 0, ended.err
        assert PLANTED not in ended.out + ended.err
        assert command[1] == "validate" or "***" in ended.out

    @pytest.mark.parametrize("output", OUTPUTS)
    @pytest.mark.parametrize("command", [*COMMANDS, ("doctor",)], ids=" ".join)
    def test_no_fault_shows_one(
        self, agentic: Run, configured: Write, command: tuple[str, ...], output: str
    ) -> None:
        configured(
            "settings:\n"
            f"  max_attempts: postgresql://user:{PLANTED}@db/agentic\n"
            "agents:\n"
            "  license-auditor:\n"
            "    type: test_cli_config:audit\n"
            "    config:\n"
            f"      api_token: [{PLANTED}]\n"
            f"      api_tokn: {PLANTED}\n"
            f"      phrase: [{PLANTED}]\n"
        )

        ended = agentic(*command, "-o", output)

        assert ended.code == 1
        assert PLANTED not in ended.out + ended.err

    @pytest.mark.parametrize("output", OUTPUTS)
    def test_no_fault_of_users_code_shows_one(self, agentic: Run, configured: Write, output: str) -> None:
        configured(
            BASE + f"  other:\n    type: test_cli_config:audit\n    config: {{api_token: [{PLANTED}]}}\n"
        )

        ended = agentic("config", "validate", "-o", output)

        assert ended.code == 1
        assert "agents.other.config.api_token" in ended.out
        assert PLANTED not in ended.out + ended.err

    @pytest.mark.parametrize("output", OUTPUTS)
    @pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
    def test_a_reference_is_shown_as_it_is_written(
        self,
        agentic: Run,
        configured: Write,
        monkeypatch: pytest.MonkeyPatch,
        command: tuple[str, ...],
        output: str,
    ) -> None:
        monkeypatch.setenv("SECRET_OF_THIS_TEST", PLANTED)
        text = SECRETS.replace(PLANTED, "${env:SECRET_OF_THIS_TEST}").replace("  api_key: ", "  api_key: $")
        configured(text)

        ended = agentic(*command, "-o", output)

        assert ended.code == 0, ended.err + ended.out
        assert PLANTED not in ended.out + ended.err
        assert "agents" not in command or "${env:SECRET_OF_THIS_TEST}" in ended.out


class TestSchema:
    def test_it_is_printed_as_json_and_the_same_each_time(self, agentic: Run) -> None:
        ended = agentic("config", "schema")

        assert ended.code == 0
        assert ended.json == json_schema()
        assert agentic("config", "schema").out == ended.out

    def test_its_help_tells_an_editor_how_to_find_it(self, agentic: Run) -> None:
        assert (
            "# yaml-language-server: $schema=agentic.schema.json" in agentic("config", "schema", "--help").out
        )

    def test_it_is_a_schema_of_its_draft(self) -> None:
        schema = json_schema()

        assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
        assert {"$id", "title"} <= set(schema)
        jsonschema.Draft202012Validator.check_schema(schema)

    def test_nothing_is_required_and_descriptions_are_kept(self) -> None:
        assert '"required"' not in json.dumps(json_schema())
        assert json_schema()["properties"]["agents"]["description"] == "Agents by name."

    @pytest.mark.parametrize(
        "text",
        [
            "{}",
            BASE,
            OVERLAY,
            SECRETS,
            "agents: ${delete}",
            "agents: {a: '${delete}'}",
            "agents: {a: {policy: '${delete}', config: '${delete}', uses: {index: '${delete}'}}}",
            "settings: {max_attempts: '${delete}'}",
            "policies: {strict: {retry: '${delete}'}}",
            "policies: {strict: {retry: {max_attempts: 3}}}",
            "flags: {a: true, b: 1.5, c: text, d: null}",
            "agents: {a: {subscriptions: [orders.#, {filter: msg.priority > 7}], tags: [eu], mailbox: {limit: 3}}}",
            "agents: {a: {subscriptions: '${delete}', mailbox: {overflow: '${delete}'}}}",
            "mailboxes: {log: {overflow: block, subscriptions: ['#'], role: clerk}}",
            "routes: {r: {topic: orders.#}}",  # an overlay, over what says to whom
        ],
    )
    def test_it_takes_what_a_file_may_say(self, text: str) -> None:
        jsonschema.validate(yaml.safe_load(text), json_schema(), jsonschema.Draft202012Validator)

    @pytest.mark.parametrize(
        "text",
        [
            "[]",
            "agnets: {}",
            "agents: {a: {polcy: x}}",
            "agents: {a b: {}}",
            "agents: {a: {uses: {index: 3}}}",
            "settings: {max_attempts: 0}",
            "settings: {max_attempts: many}",
            "settings: {project_file: x}",
            "services: {a: {scope: forever}}",
            "flags: {a: [1]}",
            "rules: {min_retries: '${remove}'}",
            "agents: {a: {subscriptions: orders.#}}",
            "agents: {a: {subscriptions: [{topc: orders.#}]}}",
            "mailboxes: {log: {overflow: drop}}",
            "routes: {r: {to: a b}}",
            "settings: {mailbox_overflow: drop}",
        ],
    )
    def test_it_refuses_what_no_file_may_say(self, text: str) -> None:
        validator = jsonschema.Draft202012Validator(json_schema())

        assert not validator.is_valid(yaml.safe_load(text))
