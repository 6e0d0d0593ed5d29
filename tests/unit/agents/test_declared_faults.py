"""What ``load_project`` finds wrong with the code and the configuration of agents."""

from __future__ import annotations

import pytest
from project_steps import Place

from airflow_agentic.agents.declared import plan, unchecked
from airflow_agentic.agents.registry import registry
from airflow_agentic.errors import ConfigurationError, UnknownAgent

CODE = """
    class Limits(BaseModel):
        low: int = 1
        high: int = 9

    class Settings(BaseModel):
        endpoint: str
        attempts: int = Field(3, ge=1)
        limits: Limits = Limits()
        pause: float = Field(0.5, alias="pauseSeconds")
        target: Limits | int = 1

    class Auditor(BaseAgent[int, int]):
        config_model = Settings

        def process(self, task, ctx):
            return task

    class Free(BaseModel):
        model_config = {"extra": "allow"}
        size: int = 1

    class Whatever(Auditor):
        config_model = Free

    class Narrow(BaseAgent[int, int]):
        def __init__(self, name):
            super().__init__(name)

        def process(self, task, ctx):
            return task

    class Enough(BaseAgent[int, int]):
        def __init__(self, name, config, store):
            super().__init__(name, config, store)

        def process(self, task, ctx):
            return task

    class Opaque: ...

    class OwnTypes(BaseAgent[Opaque, int]):
        def process(self, task, ctx):
            return task

    class Chief(BaseAgent[int, int]):
        def __init__(self, auditor: Auditor, **kwargs):
            super().__init__(**kwargs)

        def process(self, task, ctx):
            return task

    class Lost(BaseAgent[int, int]):
        def process(self, task, ctx, index: "NoSuchType"):
            return task

    def double(task: int) -> int:
        return 2 * task

    def nothing() -> int:
        return 2

    async def later(task: int) -> int:
        return task

    NUMBER = 5
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    registry._known.clear()  # modules of other tests register agents when they are collected
    made = Place(tmp_path)
    made.code(CODE)
    yield made
    made.forget()


class TestType:
    @pytest.mark.parametrize(
        ("type_", "text"),
        [
            ("no_such_module:Auditor", "module 'no_such_module' cannot be imported"),
            ("no_such_module.Auditor", "there is no agent 'no_such_module.Auditor'"),
            ("MODULE:Auditer", "has no 'Auditer' (did you mean 'Auditor'?)"),
            ("MODULE:Auditor.proces", "has no 'Auditor.proces' (did you mean 'process'?)"),
            ("MODULE:NUMBER", "5 is no agent: give a BaseAgent class or a function of (task, ctx)"),
            ("MODULE:Settings", "Settings'> is no agent"),
            ("MODULE:nothing", "'nothing' cannot be an agent: it must take (task)"),
            ("MODULE:later", "'later' cannot be an agent: its function is async"),
            ("MODULE:OwnTypes", "the input or output type of agent 'OwnTypes' cannot be used: Unable to gen"),
            ("MODULE:Lost", "a type in the signature of 'Lost.process' cannot be found"),
        ],
    )
    def test_what_cannot_be_an_agent_is_told_at_the_line_of_the_type(self, place, type_, text):
        line, key, found = place.fault(f"""
            flags: {{x: 1}}
            agents:
              auditor:
                policy:
                  ${{delete}}
                type: "{type_}"
        """)
        assert (line, key) == (6, "agents.auditor.type")
        assert text in found

    def test_an_agent_without_a_type_may_be_one_of_a_dag_file(self, place):
        project = place.project("agents: {auditor: {config: {any: thing}}, double: {type: 'MODULE:double'}}")
        assert unchecked(project) == ["auditor"]
        with pytest.raises(UnknownAgent, match=r"agentic.yaml:1: agents.auditor.type: it has no type:"):
            plan(project, "auditor")

    def test_of_a_registered_name_the_nearest_is_told(self, place):
        place.code('agent("license-auditor")(lambda task: task)', f"{place.module}_more")
        _, _, found = place.fault("""
            imports: [MODULE_more]
            agents: {a: {type: licence-auditor}}
        """)
        assert "did you mean 'license-auditor'?" in found

    def test_a_declared_name_is_not_offered_as_a_type(self, place):
        _, _, found = place.fault("""
            agents:
              license-auditor: {type: "MODULE:double"}
              other: {type: licence-auditor}
        """)
        assert "'license-auditor'" not in found


class TestConstructor:
    def test_one_that_does_not_take_what_every_agent_is_given_is_told_what_to_write(self, place):
        line, key, found = place.fault("""
            agents:
              narrow:
                type: "MODULE:Narrow"
        """)
        assert (line, key) == (3, "agents.narrow.type")
        assert found == (
            "the constructor of Narrow does not take config, store "
            "(let it take **kwargs, and call super().__init__(**kwargs))"
        )

    @pytest.mark.parametrize("type_", ["Enough", "Whatever", "double"])
    def test_one_that_takes_them_by_name_or_all_or_a_function_is_right(self, place, type_):
        assert place.project(f"""agents: {{a: {{type: "MODULE:{type_}"}}}}""").agents["a"].config == {}


class TestConfiguration:
    def fault(self, place, *lines):
        text = "".join(f"\n                  {line}" for line in lines)
        return place.fault(f"""
            agents:
              auditor:
                type: "MODULE:Auditor"
                config:{text}
        """)

    @pytest.mark.parametrize(
        ("lines", "place_of_fault", "text"),
        [
            (
                ["endpoint: x", "atempts: 1"],
                (6, "atempts"),
                "unknown key 'atempts' (did you mean 'attempts'?)",
            ),
            (
                ["endpoint: x", "zzz: 1"],
                (6, "zzz"),
                "unknown key 'zzz' (known here: endpoint, attempts, limits, pauseSeconds, target)",
            ),
            (
                ["endpoint: x", "pauseSecond: 1"],
                (6, "pauseSecond"),
                "unknown key 'pauseSecond' (did you mean 'pauseSeconds'?)",
            ),
            (["endpoint: x", "attempts: many"], (6, "attempts"), "must be a whole number"),
            (["attempts: 1.5", "endpoint: x"], (5, "attempts"), "must be a whole number"),
            (["endpoint: x", "limits: {low: no-number}"], (6, "limits.low"), "must be a whole number"),
            (["endpoint: x", "limits:", "  high: [1]"], (7, "limits.high"), "must be a whole number"),
            (["endpoint: [a]"], (5, "endpoint"), "must be a text"),
        ],
    )
    def test_what_does_not_fit_the_model_is_told_where_it_is_written(
        self, place, lines, place_of_fault, text
    ):
        line, key, found = self.fault(place, *lines)
        number, name = place_of_fault
        assert (line, key) == (number, f"agents.auditor.config.{name}")
        assert found == text

    def test_a_key_that_an_operator_can_still_give_is_not_missing_yet(self, place):
        project = place.project("""
            agents:
              auditor: {type: "MODULE:Auditor", config: {attempts: 2}}
              other: {type: "MODULE:Auditor"}
        """)
        with pytest.raises(ConfigurationError, match="endpoint: Field required"):
            plan(project, "auditor").definition.check_config({"attempts": 2})

    @pytest.mark.parametrize(
        ("config", "line"), [("{attempts: 2}", 4), ('{attempts: "${env:ATTEMPTS}"}', 4), ("${delete}", 2)]
    )
    def test_a_key_is_missing_from_an_agent_that_only_another_agent_needs(self, place, config, line):
        number, key, found = place.fault(f"""
            agents:
              auditor:
                type: "MODULE:Auditor"
                config: {config}
              chief: {{type: "MODULE:Chief", uses: {{auditor: auditor}}}}
        """)
        assert (number, key) == (line, "agents.auditor.config")
        assert found == "the key 'endpoint' is missing, and has no default (add endpoint: …)"

    @pytest.mark.parametrize(
        "lines",
        [
            ['endpoint: "${env:HOST}"'],
            ["endpoint: x", 'attempts: "${env:ATTEMPTS}"'],
            ["endpoint: x", 'attempts: "${var:a}0"'],
            ["endpoint: x", 'limits: "${var:limits}"'],
            ["endpoint: x", 'limits: {low: "${var:low}"}'],
            ["endpoint: x", 'target: {low: "${var:low}", high: 3}'],
        ],
    )
    def test_what_depends_on_a_reference_is_not_judged(self, place, lines):
        text = "".join(f"\n                  {line}" for line in lines)
        project = place.project(f"""
            agents:
              auditor:
                type: "MODULE:Auditor"
                config:{text}
        """)
        assert "${" in str(project.agents["auditor"].config)

    def test_what_does_not_depend_on_one_is_judged_beside_it(self, place):
        line, key, found = self.fault(place, 'endpoint: "${env:HOST}"', "attempts: many")
        assert (line, key, found) == (6, "agents.auditor.config.attempts", "must be a whole number")

    def test_a_mistyped_key_is_told_also_if_its_value_is_a_reference(self, place):
        _, _, found = self.fault(place, "endpoint: x", 'atempts: "${env:ATTEMPTS}"')
        assert found == "unknown key 'atempts' (did you mean 'attempts'?)"

    def test_an_agent_without_a_model_has_no_keys(self, place):
        _, key, found = place.fault("""agents: {a: {type: "MODULE:double", config: {x: 1}}}""")
        assert (key, found) == ("agents.a.config.x", "unknown key 'x' (known here: none)")

    def test_a_model_may_take_any_key(self, place):
        place.project("""
            agents: {a: {type: "MODULE:Whatever", config: {any: 1, size: 3}, overridable: [any]}}
        """)


class TestOverridable:
    def test_a_key_that_the_model_has_not_is_told_with_the_nearest(self, place):
        line, key, found = place.fault("""
            agents:
              auditor:
                type: "MODULE:Auditor"
                config: {endpoint: x}
                overridable:
                  - limits.low
                  - atempts
        """)
        assert (line, key) == (7, "agents.auditor.overridable.1")
        assert found == "the configuration has no key 'atempts' (did you mean 'attempts'?)"

    def test_a_key_is_meant_as_it_is_written_in_the_configuration(self, place):
        project = """
            agents: {{a: {{type: "MODULE:Auditor", config: {{endpoint: x}}, overridable: [{}]}}}}
        """
        place.project(project.format("pauseSeconds"))
        _, _, found = place.fault(project.format("pause"))
        assert "no key 'pause' (" in found


class TestImports:
    def test_each_module_that_cannot_be_imported_is_told_at_its_line_and_the_others_are_imported(self, place):
        place.code("raise RuntimeError('not today')", f"{place.module}_bad")
        place.code('agent("counter")(lambda task: task)', f"{place.module}_good")
        faults = place.faults("""
            imports:
              - MODULE_none
              - MODULE_bad
              - MODULE_good
            agents: {counter: {}}
        """)
        missing = f"ModuleNotFoundError: No module named '{place.module}_none'"
        assert faults == [
            (
                2,
                "imports.0",
                f"module '{place.module}_none' cannot be imported: {missing}",
            ),
            (
                3,
                "imports.1",
                f"module '{place.module}_bad' cannot be imported: RuntimeError: not today",
            ),
        ]


def test_all_faults_of_several_agents_are_told_at_once_by_line(place):
    faults = place.faults("""
        imports: [no_such_module]
        agents:
          one: {type: "MODULE:Auditer"}
          two: {type: "MODULE:Narrow", config: {x: 1}}
          three:
            type: "MODULE:Auditor"
            config: {attempts: many, zzz: 1}
            overridable: [nothing]
    """)
    assert [(line, key) for line, key, _ in faults] == [
        (1, "imports.0"),
        (3, "agents.one.type"),
        (4, "agents.two.config.x"),
        (4, "agents.two.type"),
        (7, "agents.three.config.attempts"),
        (7, "agents.three.config.zzz"),
        (8, "agents.three.overridable.0"),
    ]
