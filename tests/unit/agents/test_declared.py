from __future__ import annotations

import textwrap

import pytest
from project_steps import Place, run

from airflow_agentic.agents import AgentDefinition
from airflow_agentic.agents.declared import coded_defaults, plan, secret_paths
from airflow_agentic.agents.registry import registry
from airflow_agentic.config.run_time import overlay
from airflow_agentic.errors import ConfigurationError, UnknownAgent

AUDITORS = """
    class Limits(BaseModel):
        low: int = 1
        high: int = 9

    class Settings(BaseModel):
        pause: float = 0.5
        tags: list[str] = []
        limits: Limits = Limits()

    class Auditor(BaseAgent[int, int]):
        config_model = Settings

        def __init__(self, **kwargs):
            MADE.append(type(self).__name__)
            super().__init__(**kwargs)

        def process(self, task, ctx):
            return task

    class Strict(Auditor):
        pass

    def double(task: int) -> int:
        return 2 * task

    class Thing:
        def __init__(self):
            MADE.append("Thing")

    def open_thing() -> Thing:
        MADE.append("open_thing")
        yield Thing()
"""


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    registry._known.clear()  # modules of other tests register agents when they are collected
    made = Place(tmp_path)
    yield made
    made.forget()


@pytest.fixture
def auditors(place):
    place.code(AUDITORS)
    return place


class TestImplementation:
    @pytest.mark.parametrize("path", ["MODULE:Auditor", "MODULE.Auditor"], ids=["colon", "dot"])
    def test_a_type_by_path_makes_an_agent_of_the_declared_name(self, auditors, path):
        project = auditors.project(f"""agents: {{auditor: {{type: "{path}"}}}}""")
        planned = plan(project, "auditor")
        assert planned.definition.target is auditors.python().Auditor
        assert (planned.name, planned.definition.name) == ("auditor", "auditor")
        assert planned.definition.create().name == "auditor"

    def test_two_agents_of_one_type_are_two_agents(self, auditors):
        project = auditors.project("""
            agents:
              one: {type: "MODULE:Auditor", config: {pause: 1}}
              other: {type: "MODULE:Auditor", config: {pause: 2}}
        """)
        made = [plan(project, name).definition.create(plan(project, name).config) for name in project.agents]
        assert [(agent.name, agent.configuration.pause) for agent in made] == [("one", 1), ("other", 2)]

    def test_a_type_may_be_a_registered_name_if_imports_says_where_it_is_registered(self, place):
        place.code("""
            @agent("counter")
            def count(task: str) -> int:
                return len(task)
        """)
        project = place.project("""
            imports: [MODULE]
            agents: {my-counter: {type: counter}}
        """)
        planned = plan(project, "my-counter")
        assert planned.definition.name == "my-counter"
        assert run(planned.definition.create(), "four") == 4

    def test_without_a_type_the_name_itself_is_looked_up(self, place):
        place.code("""
            @agent("counter")
            def count(task: str) -> int:
                return len(task)
        """)
        project = place.project("""
            imports: [MODULE]
            agents: {counter: {}}
        """)
        assert plan(project, "counter").definition.target is place.python().count.target

    def test_imports_are_imported_again_when_the_registry_has_them_not_yet(self, place):
        place.code("@agent\ndef count(task: str) -> int:\n    return len(task)\n")
        project = place.project("imports: [MODULE]")
        assert plan(project, "count").config == {}

    def test_an_agent_that_is_not_declared_is_one_that_is_registered(self, auditors):
        auditors.code(
            textwrap.dedent(AUDITORS) + '\nagent("known-in-code")(Auditor)\n',
        )
        project = auditors.project("imports: [MODULE]")
        planned = plan(project, "known-in-code", overlay(project, "known-in-code", {"pause": 3}, {}))
        assert planned.definition.name == "known-in-code"
        assert (planned.config, planned.overlay) == ({"pause": 3}, {"pause": 3})
        assert (planned.uses, planned.sends_to, planned.policy) == ({}, {}, None)

    def test_an_agent_that_is_not_declared_may_be_a_path(self, auditors):
        planned = plan(auditors.project("agents: {}"), f"{auditors.module}:double")
        assert run(planned.definition.create(), 4) == 8

    def test_a_chosen_definition_beats_the_type_and_the_rest_comes_from_the_project(self, auditors):
        project = auditors.project("""
            policies: {calm: {lease_seconds: 30}}
            services: {thing: {type: "MODULE:Thing"}}
            agents:
              other: {type: "MODULE:double"}
              auditor:
                type: "MODULE:Auditor"
                config: {pause: 2}
                policy: calm
                sends_to: {reviewer: other}
        """)
        chosen = AgentDefinition("chosen", auditors.python().Strict)
        planned = plan(project, "auditor", definition=chosen)
        assert planned.definition == AgentDefinition("auditor", auditors.python().Strict)
        assert planned.config == {"pause": 2}
        assert planned.policy.lease_seconds == 30
        assert planned.sends_to == {"reviewer": "other"}

    def test_a_chosen_definition_gets_what_the_project_says_that_it_uses(self, place):
        place.code("""
            class Index: ...

            class Auditor(BaseAgent[int, int]):
                def process(self, task, ctx, index: Index):
                    return task
        """)
        project = place.project("""
            services: {fast: {type: "MODULE:Index"}, slow: {type: "MODULE:Index"}}
            agents: {auditor: {type: "MODULE:Auditor", uses: {index: slow}}}
        """)
        chosen = AgentDefinition("chosen", place.python().Auditor)
        assert plan(project, "auditor", definition=chosen).uses == {"index": "slow"}

    def test_a_chosen_definition_is_not_looked_up(self, auditors):
        project = auditors.project("agents: {}")
        chosen = AgentDefinition("nobody-registered-this", auditors.python().double)
        assert plan(project, "nobody-registered-this", definition=chosen).definition is chosen


class TestOverlay:
    def plan(self, place, config, laid):
        project = place.project(f"""agents: {{auditor: {{type: "MODULE:Auditor", config: {config}}}}}""")
        return plan(project, "auditor", overlay(project, "auditor", laid, {}))

    def test_maps_are_merged_and_everything_else_is_replaced(self, auditors):
        planned = self.plan(
            auditors,
            "{pause: 2, tags: [a, b], limits: {low: 3, high: 4}}",
            {"tags": ["c"], "limits": {"high": 7}},
        )
        assert planned.config == {"pause": 2, "tags": ["c"], "limits": {"low": 3, "high": 7}}
        assert planned.overlay == {"tags": ["c"], "limits": {"high": 7}}

    def test_what_is_deleted_falls_back_to_the_coded_default(self, auditors):
        laid = {"pause": "${delete}", "limits": {"low": "${delete}"}}
        planned = self.plan(auditors, "{pause: 2, limits: {low: 3, high: 4}}", laid)
        assert planned.config == {"limits": {"high": 4}}
        made = planned.definition.create(planned.config)
        assert (made.configuration.pause, made.configuration.limits.low) == (0.5, 1)
        assert planned.overlay == laid

    def test_a_deletion_of_what_nobody_said_is_nothing(self, auditors):
        assert self.plan(auditors, "{}", {"pause": "${delete}"}).config == {}

    def test_references_stay_as_they_are_written(self, auditors):
        assert self.plan(auditors, '{pause: "${env:PAUSE}"}', None).config == {"pause": "${env:PAUSE}"}

    def test_a_plan_can_be_changed_without_changing_the_project(self, auditors):
        planned = self.plan(auditors, "{tags: [a]}", None)
        planned.config["tags"].append("b")
        assert self.plan(auditors, "{tags: [a]}", None).config == {"tags": ["a"]}


class TestUnknown:
    def test_the_nearest_declared_agent_is_named(self, auditors):
        project = auditors.project("""agents: {license-auditor: {type: "MODULE:Auditor"}}""")
        with pytest.raises(
            UnknownAgent, match=r"no agent 'licence-auditor'\. Did you mean 'license-auditor'\?"
        ):
            plan(project, "licence-auditor")

    @pytest.mark.parametrize(
        ("type_", "text"),
        [
            ("MODULE:Auditer", "Auditer'; did you mean 'Auditor'?"),
            ("no_such_module:Auditor", "module 'no_such_module' cannot be imported"),
            ("nobody", "there is no agent 'nobody'"),
        ],
    )
    def test_of_a_bad_type_the_file_and_the_line_are_named(self, auditors, type_, text):
        project = auditors.unchecked(f"""
            agents:
              auditor:
                type: "{type_}"
        """)
        with pytest.raises(UnknownAgent) as caught:
            plan(project, "auditor")
        assert str(caught.value).startswith(f"{auditors.file}:3: agents.auditor.type: ")
        assert text in str(caught.value)

    def test_of_an_agent_without_a_type_the_line_of_its_name(self, place):
        project = place.unchecked("""
            flags: {x: 1}
            agents:
              auditor: {}
        """)
        with pytest.raises(UnknownAgent) as caught:
            plan(project, "auditor")
        text = str(caught.value)
        assert text.startswith(
            f"{place.file}:3: agents.auditor.type: it has no type:, and no agent is regist"
        )
        assert "Did you mean 'auditor'?" not in text

    def test_a_module_of_imports_that_fails_is_named_with_its_line(self, place):
        place.code("raise RuntimeError('not today')")
        project = place.unchecked("""
            imports:
              - math
              - MODULE
            agents: {a: {type: "textwrap:dedent"}}
        """)
        with pytest.raises(ConfigurationError) as caught:
            plan(project, "a")
        assert str(caught.value) == (
            f"{place.file}:3: imports.1: module {place.module!r} cannot be imported: RuntimeError: not today"
        )


DEFAULTS = """
    from pydantic import AliasChoices, SecretBytes, SecretStr

    class Login(BaseModel):
        user: str = "me"
        pin: SecretStr = SecretStr("1234")

    class Tree(BaseModel):
        mark: SecretStr | None = None
        child: "Tree | None" = None

    class Leaf(BaseModel):
        child: "Leaf | None" = None
        size: int = 1

    class Settings(BaseModel):
        needed: int
        pause: float = Field(0.5, alias="pauseSeconds")
        labels: dict[str, int] = {"a": 1}
        login: Login = Login()
        maybe: Login | None = None
        logins: list[Login] = []
        by_name: dict[str, Login] = {}
        tree: Tree = Tree()
        leaf: Leaf = Leaf()
        keys: list[SecretStr] = []
        either: SecretBytes | None = Field(None, validation_alias=AliasChoices("one", "other"))

    class Auditor(BaseAgent[int, int]):
        config_model = Settings

        def process(self, task, ctx):
            return task
"""


class TestCodedDefaults:
    def of(self, place, config):
        place.code(DEFAULTS)
        project = place.project(f"""agents: {{a: {{type: "MODULE:Auditor", config: {config}}}}}""")
        return coded_defaults(project).find(("agents", "a", "config"))

    def test_they_are_those_of_the_model_by_the_name_that_one_writes(self, place):
        found = self.of(place, "{needed: 1}").plain()
        assert found["pauseSeconds"] == 0.5
        assert "pause" not in found
        assert (found["one"], "either" in found) == (None, False)
        assert found["labels"] == {"a": 1}
        assert found["tree"] == {"mark": None, "child": None}

    def test_what_has_no_default_is_not_among_them(self, place):
        assert "needed" not in self.of(place, "{needed: 1}").plain()

    def test_a_default_that_is_secret_is_not_shown(self, place):
        found = self.of(place, "{needed: 1}").plain()
        assert found["login"]["user"] == "me"
        assert "1234" not in str(found)

    def test_a_map_that_is_declared_takes_the_place_of_a_map_and_goes_into_a_model(self, place):
        found = self.of(place, "{needed: 1, labels: {b: 2}, login: {pin: x}, maybe: {}}").plain()
        assert "labels" not in found
        assert found["login"]["user"] == "me"
        assert found["maybe"]["user"] == "me"

    def test_each_says_which_model_says_so(self, place):
        assert self.of(place, "{needed: 1}").child("labels").origin.source == "coded default (Settings)"

    def test_sections_and_options_have_theirs(self, place):
        place.code(DEFAULTS)
        coded = coded_defaults(
            place.project("""
                agents: {a: {type: "MODULE:Auditor", config: {needed: 1}}}
                policies: {calm: {}}
                services: {login: {type: "MODULE:Login"}}
                budgets: {small: {}}
            """)
        ).plain()
        assert coded["agents"]["a"]["overridable"] == []
        # What has no default says nothing: None would look like a value.
        calm = {"limits": [], "max_wait": 0.0, "when_refused": "wait", "without_store": "closed"}
        assert coded["policies"]["calm"] == calm
        assert (coded["services"]["login"]["scope"], coded["budgets"]["small"]["period"]) == ("run", "day")
        assert coded["rules"]["min_retries"] == 0

    def test_an_agent_whose_code_is_not_there_has_none_of_its_own(self, place):
        project = place.unchecked("""agents: {a: {type: "no_such_module:A", config: {x: 1}}}""")
        assert "a" not in coded_defaults(project).plain()["agents"]


class TestSecretPaths:
    def test_types_say_what_is_secret_by_every_name_that_it_can_be_given(self, place):
        place.code(DEFAULTS)
        project = place.project("""agents: {a: {type: "MODULE:Auditor", config: {needed: 1}}}""")
        found = {".".join(path[3:]) for path in secret_paths(project)}
        assert {path[:3] for path in secret_paths(project)} == {("agents", "a", "config")}
        assert found >= {"login.pin", "maybe.pin", "tree.mark", "keys", "one", "other", "either"}
        assert not {path.partition(".")[0] for path in found} & {"needed", "pause", "labels", "leaf"}

    @pytest.mark.parametrize(
        "config",
        [
            "{needed: 1, logins: [{pin: hush-hush}]}",
            "{needed: 1, by_name: {x: {pin: hush-hush}}}",
            "{needed: 1, tree: {child: {mark: hush-hush}}}",
            "{needed: 1, tree: {child: {child: {child: {mark: hush-hush}}}}}",
            "{needed: 1, keys: [a, hush-hush]}",
            "{needed: 1, one: hush-hush}",
            "{needed: 1, maybe: {pin: hush-hush}}",
        ],
    )
    def test_what_is_explained_never_shows_one_however_deep_it_stands(self, place, config):
        place.code(DEFAULTS)
        project = place.project(f"""agents: {{a: {{type: "MODULE:Auditor", config: {config}}}}}""")
        told = project.explain((), coded_defaults(project), secret_paths(project))
        assert "hush-hush" not in repr(told)
        assert "***" in repr(told)
        assert next(one.value for one in told if one.key == "agents.a.config.needed") == 1


class TestNothingIsMade:
    def test_loading_planning_and_explaining_a_project_make_no_agent_and_no_service(self, place):
        place.code(
            AUDITORS
            + """
    class Team(Auditor):
        def process(self, task, ctx, auditor: Auditor, thing: Thing):
            return task
"""
        )
        project = place.project("""
            services:
              thing: {type: "MODULE:open_thing"}
              other: {type: "MODULE:Thing", scope: process}
            agents:
              auditor: {type: "MODULE:Auditor"}
              team: {type: "MODULE:Team", uses: {auditor: auditor, thing: thing}}
        """)
        planned = plan(project, "team")
        coded_defaults(project)
        secret_paths(project)
        assert place.python().MADE == []
        planned.definition.target()
        assert place.python().MADE == ["Team"]
