from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Any

import pytest

from airflow_agentic.config import ProjectInvalid, load_project
from airflow_agentic.config.options import OPTIONS
from airflow_agentic.config.project import CODED, assemble
from airflow_agentic.config.sources import FileSource, ProjectSettings, files_of, find_path
from airflow_agentic.config.tree import DELETE, Origin, nested, parse_path, planted

# A project that every key below fits into; of a sort that no check of users' code is needed for.
BASE = ("base.yaml", b"agents: {x: {}}\npolicies: {p: {description: a policy}}\n")

SETTING, CONFIG, POLICY = "settings.max_attempts", "agents.x.config.n", "policies.p.lease_seconds"
KEYS = (SETTING, CONFIG, POLICY)


@dataclass(frozen=True)
class Said:
    """What a source says about a key: how it is given to ``assemble``, and what is told of it."""

    kind: str
    given: dict[str, Any]
    source: str


def as_json(key, value):
    return json.dumps(nested(parse_path(key), planted(value, Origin("x"))).plain()).encode()


def as_yaml(key, value):
    # Three lines above it, so that the line is one that must be counted.
    section, *rest = key.split(".")
    text = f"# one\n# two\n{section}:\n"
    for depth, part in enumerate(rest, 1):
        text += "  " * depth + part + ":" + (f" {json.dumps(value)}\n" if depth == len(rest) else "\n")
    return text.encode(), 3 + len(rest)


def as_toml(key, value):
    head, _, last = key.rpartition(".")
    return f"# one\n[{head}]\n{last} = {json.dumps(value)}\n".encode(), 3


def yaml_file(name):
    def say(key, value):
        data, line = as_yaml(key, value)
        return Said("file", {"texts": [(name, data)]}, f"{name}:{line}")

    return say


def toml_file(key, value):
    data, line = as_toml(key, value)
    return Said("file", {"texts": [("third.toml", data)]}, f"third.toml:{line}")


def cfg(key, value):
    option = key.removeprefix("settings.")
    return Said("options", {"options": {option: str(value)}}, f"airflow.cfg [agentic] {option}")


def airflow_variable(key, value):
    name = f"AIRFLOW__AGENTIC__{key.removeprefix('settings.').upper()}"
    return Said("env", {"env": {name: str(value)}}, f"environment variable {name}")


def variable(key, value):
    name = "AGENTIC__" + key.replace(".", "__").upper()
    return Said("env", {"env": {name: str(value)}}, f"environment variable {name}")


def override_text(key, value):
    return Said("text", {"overrides": [f"{key}={value}"]}, f"--set {key}")


def override_map(key, value):
    return Said("map", {"overrides": {key: value}}, f"--set {key}")


def default(key, value):
    return Said("default", {"coded": nested(parse_path(key), planted(value, Origin(CODED)))}, CODED)


# Lowest first. Both kinds of overrides are one layer, and nobody gives both.
SOURCES = {
    "default": default,
    "airflow.cfg": cfg,
    "first file": yaml_file("first.yaml"),
    "second file": yaml_file("second.yml"),
    "TOML file": toml_file,
    "AIRFLOW__ variable": airflow_variable,
    "AGENTIC__ variable": variable,
    "override as text": override_text,
    "override as map": override_map,
}
OF_SETTINGS_ONLY = {"airflow.cfg", "AIRFLOW__ variable"}
OVERRIDES = {"override as text", "override as map"}


def sources_of(key):
    return [name for name in SOURCES if key == SETTING or name not in OF_SETTINGS_ONLY]


PAIRS = [
    pytest.param(key, low, high, id=f"{key}: {high} over {low}")
    for key in KEYS
    for low, high in itertools.combinations(sources_of(key), 2)
    if {low, high} != OVERRIDES
]
EACH = [(key, name) for key in KEYS for name in sources_of(key) if name != "default"]
CHAINS = [
    pytest.param(key, [name for name in sources_of(key) if name not in left_out], id=f"{key}: {kept}")
    for key in KEYS
    for kept, left_out in (("with texts", {"override as map"}), ("with a map", {"override as text"}))
]


def put_together(said):
    """Load what sources say together, and return the project and the coded defaults."""
    given: dict[str, Any] = {"texts": [BASE], "options": {}, "env": {}, "overrides": None}
    coded = planted({}, Origin(CODED))
    for one in said:
        coded = one.given.get("coded", coded)
        given["texts"] = [*given["texts"], *one.given.get("texts", ())]
        given["options"] |= one.given.get("options", {})
        given["env"] |= one.given.get("env", {})
        given["overrides"] = one.given.get("overrides", given["overrides"])
    texts = given.pop("texts")
    return assemble(texts, **given), coded


def value_in(project, key):
    """The value as users' code gets it."""
    if key == SETTING:
        return project.settings.max_attempts
    if key == CONFIG:
        return project.agents["x"].config.get("n")
    return project.policies["p"].lease_seconds


def is_text(name, key):
    """Whether a source gives a text where no model makes a number of it."""
    return key == CONFIG and ("variable" in name or name == "override as text")


def explained(project, key, coded=None):
    (found,) = project.explain(project.path(key), coded)
    return found


def refused(*args, **kwargs):
    with pytest.raises(ProjectInvalid) as caught:
        assemble(*args, **kwargs)
    return caught.value.errors


def of_text(text, name="project.yaml"):
    return [(name, text.encode())]


class TestWhichSourceWins:
    @pytest.mark.parametrize(("key", "low", "high"), PAIRS)
    def test_the_higher_of_two_sources_wins_and_says_what_it_overrode(self, key, low, high):
        lower, higher = SOURCES[low](key, 3), SOURCES[high](key, 7)
        project, coded = put_together([lower, higher])
        value = "7" if is_text(high, key) else 7
        assert value_in(project, key) == value
        found = explained(project, key, coded)
        assert (found.key, found.value, found.source) == (key, value, higher.source)
        raw = str if "variable" in low or low in {"airflow.cfg", "override as text"} else int
        assert found.overrides == ((raw(3), lower.source),)

    @pytest.mark.parametrize(("key", "name"), EACH)
    def test_a_source_alone_overrides_nothing_and_is_named(self, key, name):
        said = SOURCES[name](key, 7)
        project, _ = put_together([said])
        found = explained(project, key)
        assert str(value_in(project, key)).removesuffix(".0") == "7"
        assert (found.source, found.overrides) == (said.source, ())

    @pytest.mark.parametrize(("key", "names"), CHAINS)
    def test_of_all_sources_at_once_the_highest_wins_and_all_others_are_told_nearest_first(self, key, names):
        said = [SOURCES[name](key, number) for number, name in enumerate(names, 2)]
        project, coded = put_together(said)
        found = explained(project, key, coded)
        assert found.source == said[-1].source
        assert str(found.value).removesuffix(".0") == str(len(names) + 1)
        assert [source for _, source in found.overrides] == [one.source for one in reversed(said[:-1])]
        assert [int(value) for value, _ in found.overrides] == list(range(len(names), 1, -1))

    @pytest.mark.parametrize(("key", "names"), CHAINS)
    def test_when_the_highest_source_falls_silent_the_next_one_is_heard(self, key, names):
        said = [SOURCES[name](key, number) for number, name in enumerate(names, 2)]
        while len(said) > 1:
            project, coded = put_together(said)
            found = explained(project, key, coded)
            assert found.source == said[-1].source
            assert len(found.overrides) == len(said) - 1
            said.pop()

    def test_the_order_of_files_is_that_in_which_they_are_given(self):
        one, two = of_text("flags: {f: 1}", "b.yaml"), of_text("flags: {f: 2}", "a.yaml")
        assert assemble([*one, *two]).flags["f"] == 2
        assert assemble([*two, *one]).flags["f"] == 1

    def test_of_two_overrides_of_one_key_the_later_wins_and_names_the_earlier(self):
        project = assemble([], overrides=["flags.f=1", "flags.f=2"])
        found = explained(project, "flags.f")
        assert (found.value, found.overrides) == (2, ((1, "--set flags.f"),))

    def test_maps_are_merged_and_each_value_names_its_own_source(self):
        project = assemble(
            [
                *of_text("agents:\n  x:\n    config:\n      deep: {a: 1, b: 2}\n", "low.yaml"),
                *of_text("agents:\n  x:\n    config:\n      deep: {b: 3, c: 4}\n", "high.yaml"),
            ],
            env={"AGENTIC__AGENTS__X__CONFIG__DEEP__C": "5"},
        )
        assert project.agents["x"].config == {"deep": {"a": 1, "b": 3, "c": "5"}}
        found = project.explain(project.path("agents.x.config"))
        assert {one.key.rpartition(".")[2]: (one.source, one.overrides) for one in found} == {
            "a": ("low.yaml:4", ()),
            "b": ("high.yaml:4", ((2, "low.yaml:4"),)),
            "c": ("environment variable AGENTIC__AGENTS__X__CONFIG__DEEP__C", ((4, "high.yaml:4"),)),
        }

    def test_lists_are_replaced_as_a_whole(self):
        low = of_text("agents: {x: {subscriptions: [a, b, c]}}", "low.yaml")
        high = of_text("agents: {x: {subscriptions: [d]}}", "high.yaml")
        project = assemble([*low, *high])
        assert [each.topic for each in project.agents["x"].subscriptions] == ["d"]
        (found,) = project.explain(project.path("agents.x.subscriptions"))
        assert (found.key, found.source) == ("agents.x.subscriptions", "high.yaml:1")
        assert (found.value, found.overrides) == (["d"], ((["a", "b", "c"], "low.yaml:1"),))

    def test_a_shorter_list_below_is_told_whole_for_an_item_that_it_does_not_have(self):
        low = of_text("agents: {x: {subscriptions: [a]}}", "low.yaml")
        high = of_text("agents: {x: {subscriptions: [b, c]}}", "high.yaml")
        project = assemble([*low, *high])
        second = project.explain(("agents", "x", "subscriptions", 1))
        assert second[0].overrides == ((["a"], "low.yaml:1"),)

    def test_a_map_in_the_place_of_a_list_and_a_list_in_the_place_of_a_map_replace_it(self):
        low = of_text("agents: {x: {config: {m: {a: 1}, l: [1]}}}", "low.yaml")
        high = of_text("agents: {x: {config: {m: [2], l: {b: 2}}}}", "high.yaml")
        assert assemble([*low, *high]).agents["x"].config == {"m": (2,), "l": {"b": 2}}

    def test_what_nobody_says_is_not_explained(self):
        project = assemble([BASE])
        assert project.explain(("settings", "max_attempts")) == []
        assert project.explain(("agents", "nobody")) == []
        assert project.settings.max_attempts == 5


class TestDeleting:
    @pytest.mark.parametrize(("key", "name"), [one for one in EACH if one[1] != "airflow.cfg"])
    def test_a_deletion_lets_the_coded_default_apply_and_is_told(self, key, name):
        low = yaml_file("a-low.yaml")(key, 3)
        gone, coded_default = SOURCES[name](key, DELETE), default(key, 4)
        project, coded = put_together([coded_default, low, gone])
        assert value_in(project, key) == {SETTING: 5, CONFIG: None, POLICY: None}[key]
        assert project.explain(parse_path(key)) == []
        found = explained_with(project, key, coded)
        assert (found.value, found.source) == (4, CODED)
        assert found.overrides == ((DELETE, gone.source), (3, low.source))

    def test_airflow_cfg_can_delete_too_though_nothing_but_the_default_is_below(self):
        assert assemble([], options={"max_attempts": DELETE}).settings.max_attempts == 5

    def test_what_is_above_a_deletion_is_heard_and_the_deletion_is_told(self):
        project = assemble(
            of_text("flags: {f: 1}", "low.yaml"), env={"AGENTIC__FLAGS__F": DELETE}, overrides=["flags.f=2"]
        )
        found = explained(project, "flags.f")
        assert found.value == 2
        assert found.overrides == ((DELETE, "environment variable AGENTIC__FLAGS__F"), (1, "low.yaml:1"))

    def test_a_whole_agent_can_be_deleted_and_declared_anew_without_a_trace(self):
        low = of_text("agents: {x: {version: old, config: {a: 1}}, y: {}}", "1.yaml")
        gone = of_text("agents: {x: '${delete}'}", "2.yaml")
        high = of_text("agents: {x: {config: {b: 2}}}", "3.yaml")
        assert list(assemble([*low, *gone]).agents) == ["y"]
        again = assemble([*low, *gone, *high]).agents["x"]
        assert (again.version, again.config) == (None, {"b": 2})

    def test_a_deletion_of_what_is_not_there_is_no_fault(self):
        assert assemble([BASE], overrides=["agents.nobody=${delete}"]).agents.keys() == {"x"}

    @pytest.mark.parametrize(
        "value",
        ["[1, '${delete}']", "[{a: '${delete}'}]", "'not ${delete} this'", "[[{a: {b: '${delete}'}}]]"],
    )
    def test_a_deletion_in_a_list_or_a_text_is_refused_for_nothing_would_be_deleted(self, value):
        (fault,) = refused(of_text(f"agents: {{x: {{config: {{v: {value}}}}}}}"))
        assert "deletes a whole value of a map" in fault.message

    def test_an_escaped_deletion_is_a_text(self):
        project = assemble(of_text("agents: {x: {config: {v: '$${delete}'}}}"))
        assert project.agents["x"].config == {"v": "$${delete}"}


def explained_with(project, key, coded):
    (found,) = project.explain(parse_path(key), coded)
    return found


class TestNamesInVariables:
    @pytest.mark.parametrize(
        ("agent", "part"),
        [
            ("license-auditor", "LICENSE_AUDITOR"),
            ("LicenseAuditor", "LICENSEAUDITOR"),
            ("eu.license-auditor.v2", "EU_LICENSE_AUDITOR_V2"),
            ("a__b", "A_B"),
            ("x", "x"),
            ("7", "7"),
        ],
    )
    def test_a_part_stands_for_the_name_with_the_same_letters_and_digits(self, agent, part):
        project = assemble(
            of_text(f'agents: {{"{agent}": {{config: {{n: 1}}}}}}'),
            env={f"AGENTIC__AGENTS__{part}__CONFIG__N": "2"},
        )
        assert {name: section.config["n"] for name, section in project.agents.items()} == {agent: "2"}

    def test_keys_of_a_configuration_are_found_whatever_their_case(self):
        project = assemble(
            of_text("agents: {x: {config: {pauseSeconds: 1, dash-ed: 1}}}"),
            env={"AGENTIC__AGENTS__X__CONFIG__PAUSESECONDS": "2", "AGENTIC__AGENTS__X__CONFIG__DASH_ED": "3"},
        )
        assert project.agents["x"].config == {"pauseSeconds": "2", "dash-ed": "3"}

    def test_what_may_be_a_name_or_a_section_takes_both(self):
        text = of_text("budgets: {daily: {}}\npolicies: {p: {}}")
        named = assemble(text, env={"AGENTIC__POLICIES__P__BUDGET": "daily"})
        section = assemble(text, env={"AGENTIC__POLICIES__P__BUDGET__RESERVE_TOKENS": "5"})
        assert named.policies["p"].budget == "daily"
        assert section.policies["p"].budget.reserve_tokens == 5

    def test_a_name_that_nobody_has_declared_is_a_new_one_in_small_letters(self):
        env = {"AGENTIC__AGENTS__NEW_ONE__TYPE": "m:A", "AGENTIC__AGENTS__NEW_ONE__CONFIG__N": "1"}
        project = assemble([], env=env)
        assert project.agents["new_one"].type == "m:A"
        assert project.agents["new_one"].config == {"n": "1"}

    def test_a_part_that_can_be_two_names_is_refused(self):
        (fault,) = refused(
            of_text("flags: {}\npolicies: {a-b: {}, a_b: {}}"),
            env={"AGENTIC__POLICIES__A_B__LEASE_SECONDS": "2"},
        )
        assert fault.source == "environment variable AGENTIC__POLICIES__A_B__LEASE_SECONDS"
        assert "'a-b' and 'a_b'" in fault.message
        assert "--set" in fault.message

    @pytest.mark.parametrize(
        ("name", "key", "near"),
        [
            ("AGENTIC__AGENT__X__TYPE", "agent", "agents"),
            ("AGENTIC__SETTING__MAX_ATTEMPTS", "setting", "settings"),
            ("AGENTIC__SETTINGS__MAX_ATTEMPT", "settings.max_attempt", "max_attempts"),
            ("AGENTIC__AGENTS__X__POLICYS", "agents.x.policys", "policy"),
            ("AIRFLOW__AGENTIC__MAX_ATTEMPS", "max_attemps", "max_attempts"),
        ],
    )
    def test_a_variable_that_means_nothing_is_refused_with_the_nearest_name(self, name, key, near):
        (fault,) = refused([BASE], env={name: "1"})
        assert (fault.file, fault.line, fault.key) == (None, None, key)
        assert fault.source == f"environment variable {name}"
        assert fault.suggestion == f"did you mean {near!r}?"
        assert str(fault).startswith(f"environment variable {name}: ")

    @pytest.mark.parametrize(
        "name", ["AGENTIC__", "AGENTIC__AGENTS__", "AGENTIC____X", "AGENTIC__AGENTS____TYPE"]
    )
    def test_a_variable_with_an_empty_part_is_refused(self, name):
        (fault,) = refused([BASE], env={name: "1"})
        assert name in fault.source
        assert "empty part" in fault.message

    @pytest.mark.parametrize("name", ["AGENTIC_AGENTS__X", "AIRFLOW__CORE__X", "agentic__agents__x", "PATH"])
    def test_variables_of_others_are_none_of_ours(self, name):
        assert assemble([BASE], env={name: "{"}) is assemble([BASE])

    @pytest.mark.parametrize("how", ["CMD", "SECRET"])
    def test_where_airflow_takes_an_option_from_elsewhere_the_variable_is_airflows(self, how):
        assert assemble([], env={f"AIRFLOW__AGENTIC__STORE_URL_{how}": "cat /x"}).settings.store_url == ""
        (fault,) = refused([], env={f"AIRFLOW__AGENTIC__MAX_ATTEMPTS_{how}": "1"})
        assert "max_attempts" in str(fault.suggestion)

    def test_the_project_file_cannot_be_named_in_the_project(self):
        for given in (
            {"texts": of_text("settings: {project_file: x}")},
            {"texts": [], "env": {"AGENTIC__SETTINGS__PROJECT_FILE": "x"}},
            {"texts": [], "overrides": ["settings.project_file=x"]},
        ):
            (fault,) = refused(**given)
            assert "set it in airflow.cfg" in fault.suggestion
        # Where it may be said it is no part of the project.
        assert assemble([], env={"AIRFLOW__AGENTIC__PROJECT_FILE": "x"}).root.plain() == {}

    @pytest.mark.parametrize("option", [o for o in OPTIONS if o.key != "project_file"], ids=lambda o: o.key)
    def test_every_option_can_be_said_by_either_variable_and_in_airflow_cfg(self, option):
        want = type(option.default)(option.example)
        for given in (
            {"env": {f"AIRFLOW__AGENTIC__{option.key.upper()}": option.example}},
            {"env": {f"AGENTIC__SETTINGS__{option.key.upper()}": option.example}},
            {"options": {option.key: option.example}},
        ):
            assert getattr(assemble([], **given).settings, option.key) == want

    def test_an_option_that_is_set_to_nothing_is_not_set(self):
        for given in ({"env": {"AIRFLOW__AGENTIC__MAX_ATTEMPTS": ""}}, {"options": {"max_attempts": ""}}):
            assert assemble([], **given).settings.max_attempts == 5


class TestValuesAsText:
    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ('["a", 1, {"b": null}]', ("a", 1, {"b": None})),
            (' {"a": {"b": [1.5, true]}} ', {"a": {"b": (1.5, True)}}),
            ('"007"', "007"),
            ('"null"', "null"),
            ("null", None),
            ("", ""),
            ("007", "007"),
            ("7", "7"),
            ("1e3", "1e3"),
            ("true", "true"),
            ("NaN", "NaN"),
            ("a=b=c", "a=b=c"),
            ("  spaced  ", "  spaced  "),
            ("${env:HOME}", "${env:HOME}"),
            ("${conn:db.password}", "${conn:db.password}"),
        ],
    )
    def test_what_begins_as_json_is_json_and_anything_else_stays_text(self, text, value):
        by_env = assemble([BASE], env={"AGENTIC__AGENTS__X__CONFIG__N": text})
        by_set = assemble([BASE], overrides=[f"agents.x.config.n={text}"])
        for project in (by_env, by_set):
            found = project.agents["x"].config["n"]
            assert found == value
            assert isinstance(found, type(value))

    @pytest.mark.parametrize(
        "text", ["[1", "{a: 1}", '"a', "[NaN]", '{"a": Infinity}', "[1e999]", "[" * 100_000]
    )
    def test_what_begins_as_json_and_is_none_is_refused_without_the_value(self, text):
        (fault,) = refused([BASE], env={"AGENTIC__AGENTS__X__CONFIG__N": text})
        assert (fault.key, fault.message) == ("agents.x.config.n", "the value begins as JSON and is not JSON")
        (fault,) = refused([BASE], overrides=[f"agents.x.config.n={text}"])
        assert fault.source == "--set agents.x.config.n"

    def test_text_becomes_a_number_where_the_model_has_one_and_is_explained_as_that(self):
        project = assemble(
            [BASE], env={"AGENTIC__POLICIES__P__LEASE_SECONDS": "7"}, overrides=["settings.max_attempts= 7 "]
        )
        assert repr(project.policies["p"].lease_seconds) == "7.0"
        assert repr(project.settings.max_attempts) == "7"
        assert repr(explained(project, POLICY).value) == "7.0"
        assert repr(explained(project, SETTING).value) == "7"

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("true", True),
            ("1", 1),
            ("1.5", 1.5),
            ("null", None),
            ("on", "on"),
            ("007", "007"),
            ('"7"', "7"),
            ("", ""),
        ],
    )
    def test_flags_have_no_model_and_so_are_read_as_json(self, text, value):
        by_env = assemble(of_text("flags: {f: x}"), env={"AGENTIC__FLAGS__F": text}).flags["f"]
        by_set = assemble([], overrides=[f"flags.f={text}"]).flags["f"]
        assert (type(by_env), by_env) == (type(by_set), by_set) == (type(value), value)

    @pytest.mark.parametrize("text", ["inf", "nan", "-inf", "1e999"])
    @pytest.mark.parametrize(
        "key", ["settings.lease_seconds", "policies.p.lease_seconds", "budgets.b.cost_usd"]
    )
    def test_a_number_is_finite(self, key, text):
        (fault,) = refused([BASE], overrides=[f"{key}={text}"])
        assert (fault.key, fault.message) == (key, f"must be a finite number, not {text!r}")

    @pytest.mark.parametrize(
        "key",
        [
            "settings.max_attempts",
            "policies.p.lease_seconds",
            "policies.p.breaker.failure_rate",
            "policies.p.retry.budget",
            "policies.p.budget.tokens",
            "rules.min_retries",
        ],
    )
    def test_true_is_no_number(self, key):
        (fault,) = refused([BASE], overrides={key: True})
        assert fault.message == "must be a number, not true"

    def test_references_stay_as_they_are(self):
        text = (
            "agents: {x: {config: {a: '${env:A}', b: 'x ${conn:a.b.host} y', c: ['${var:v}', '$${env:A}']}}}"
        )
        config = assemble(of_text(text), env={"A": "leads somewhere"}).agents["x"].config
        assert config == {"a": "${env:A}", "b": "x ${conn:a.b.host} y", "c": ("${var:v}", "$${env:A}")}


class TestOverrides:
    def test_names_with_dots_in_them_need_no_quotes_where_they_are_declared(self):
        base = of_text("agents: {eu.auditor: {config: {n: 1}}, eu: {config: {n: 1}}}")
        for key in ("agents.eu.auditor.config.n", 'agents."eu.auditor".config.n'):
            agents = assemble(base, overrides=[f"{key}=2"]).agents
            assert (agents["eu.auditor"].config["n"], agents["eu"].config["n"]) == ("2", 1)

    def test_a_name_with_dots_that_nobody_has_declared_is_quoted(self):
        assert "a.b" in assemble([], overrides=['agents."a.b".type=m:A']).agents
        (fault,) = refused([], overrides=["agents.a.b.type=m:A"])
        assert fault.key == "agents.a.b"

    def test_names_of_digits_stay_as_they_are_written(self):
        assert assemble([], overrides=["flags.007=1", "flags.7=2"]).flags == {"007": 1, "7": 2}

    def test_a_map_may_be_nested_dotted_or_both(self):
        nested_map = {"agents": {"x": {"config": {"n": 2}}}, "agents.x.config": {"m": [1]}}
        assert assemble([BASE], overrides=nested_map).agents["x"].config == {"n": 2, "m": (1,)}

    def test_a_single_text_is_one_override(self):
        assert assemble([], overrides="settings.max_attempts=3").settings.max_attempts == 3

    def test_a_value_may_have_equals_signs(self):
        project = assemble([BASE], overrides=["agents.x.config.n==a=b"])
        assert project.agents["x"].config["n"] == "=a=b"

    @pytest.mark.parametrize("text", ["settings.max_attempts", "", "settings.max_attempts:3", "a b"])
    def test_an_override_without_an_equals_sign_is_refused_with_what_to_write(self, text):
        (fault,) = refused([], overrides=[text])
        assert fault.message == "an override must be key=value"
        assert "=value" in fault.suggestion

    @pytest.mark.parametrize("key", ["", ".", "a..b", "a.", '"a'])
    def test_an_override_of_no_key_is_refused(self, key):
        (fault,) = refused([], overrides=[f"{key}=1"])
        assert "is no key" in fault.message

    @pytest.mark.parametrize(
        "given",
        [
            {"overrides": ["agents.x.config.l.0=9"]},
            {"overrides": ["agents.x.config.l.new=9"]},
            {"overrides": {"agents.x.config.l.1.a": 9}},
            {"env": {"AGENTIC__AGENTS__X__CONFIG__L__0": "9"}},
        ],
        ids=str,
    )
    def test_a_part_of_a_list_cannot_be_set_for_lists_are_replaced_as_a_whole(self, given):
        (fault,) = refused(of_text("agents: {x: {config: {l: [1, {a: 2}]}}}"), **given)
        assert "a list is replaced as a whole" in fault.message
        assert fault.key.startswith("agents.x.config.l.")

    @pytest.mark.parametrize(
        ("key", "path"),
        [
            ("agents.eu.auditor.config", ("agents", "eu.auditor", "config")),
            ("agents.eu.config", ("agents", "eu", "config")),
            ("agents.eu.auditor.v2.type", ("agents", "eu.auditor.v2", "type")),
            ("agents.eu.auditor", ("agents", "eu.auditor")),
            ("agents.other.x", ("agents", "other", "x")),
            ("agents.l.1.a", ("agents", "l", 1, "a")),
            ("agents.7.1", ("agents", "7", "1")),
        ],
    )
    def test_the_longest_name_that_is_there_is_meant(self, key, path):
        names = {"eu": {}, "eu.auditor": {"config": {}}, "eu.auditor.v2": {}, "l": [0, {"a": 1}], "7": {}}
        assert find_path(planted({"agents": names}, Origin("x")), key) == path


class TestFiles:
    def test_a_directory_stands_for_its_files_in_the_order_of_their_names(self, tmp_path):
        for name in ("20-b.toml", "10-a.yaml", "30-c.yml", "readme.md", "x.json", "40.YAML"):
            (tmp_path / name).write_text("")
        (tmp_path / "15-folder.yaml").mkdir()
        files, faults = files_of(tmp_path)
        assert files == [str(tmp_path / name) for name in ("10-a.yaml", "20-b.toml", "30-c.yml", "40.YAML")]
        assert faults == []

    def test_files_of_a_directory_are_merged_in_that_order(self, tmp_path):
        (tmp_path / "1.yaml").write_text("flags: {a: 1, b: 1, c: 1}")
        (tmp_path / "2.toml").write_text("[flags]\nb = 2\nc = 2\n")
        (tmp_path / "3.yml").write_text("flags: {c: 3}")
        assert load_project(tmp_path, env={}).flags == {"a": 1, "b": 2, "c": 3}

    def test_paths_are_taken_in_the_order_in_which_they_are_given(self, tmp_path):
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "a.yaml").write_text("flags: {f: folder}")
        (tmp_path / "file.yaml").write_text("flags: {f: file}")
        paths = [tmp_path / "folder", str(tmp_path / "file.yaml")]
        assert load_project(paths, env={}).flags["f"] == "file"
        assert load_project(reversed(paths), env={}).flags["f"] == "folder"

    def test_a_directory_without_files_is_a_fault(self, tmp_path):
        with pytest.raises(ProjectInvalid) as caught:
            load_project(tmp_path, env={})
        (fault,) = caught.value.errors
        assert fault.file == str(tmp_path)
        assert fault.message == "the directory has no project file: none of *.yaml, *.yml, *.toml"

    def test_a_missing_file_is_told_together_with_the_faults_of_the_others(self, tmp_path):
        (tmp_path / "there.yaml").write_text("agent: {}")
        with pytest.raises(ProjectInvalid) as caught:
            load_project([tmp_path / "missing.yaml", tmp_path / "there.yaml"], env={})
        missing, there = caught.value.errors
        assert missing.message == "the project file cannot be read: No such file or directory"
        assert missing.file == str(tmp_path / "missing.yaml")
        assert there.suggestion == "did you mean 'agents'?"
        assert str(caught.value).startswith("the project configuration has 2 faults:\n")

    def test_a_source_of_pydantic_settings_tells_of_a_missing_file_too(self, tmp_path):
        source = FileSource(str(tmp_path / "missing.yaml"))
        assert source() == {}
        assert "cannot be read" in source.faults[0].message

    def test_nothing_declared_is_a_project_with_the_coded_defaults(self, tmp_path):
        (tmp_path / "empty.yaml").write_text("")
        for project in (load_project(env={}), load_project(tmp_path / "empty.yaml", env={})):
            assert project.root.plain() == {}
            assert project.settings.max_attempts == 5

    def test_the_environment_of_the_process_is_heard_unless_another_is_given(self, monkeypatch):
        monkeypatch.setenv("AGENTIC__FLAGS__F", "1")
        assert load_project().flags == {"f": 1}
        assert load_project(env={}).flags == {}

    def test_a_file_can_be_a_source_of_a_users_own_settings(self, tmp_path):
        (tmp_path / "a.yaml").write_text("settings: {max_attempts: 9}\nflags: {f: true}")

        class Mine(ProjectSettings):
            @classmethod
            def settings_customise_sources(cls, settings_cls, **_):
                return (FileSource(str(tmp_path / "a.yaml")),)

        mine = Mine()
        assert (mine.settings.max_attempts, mine.flags) == (9, {"f": True})


class TestKeeping:
    def test_an_unchanged_file_gives_the_very_same_project_and_a_changed_one_is_read_anew(self, tmp_path):
        file = tmp_path / "a.yaml"
        file.write_text("flags: {f: 1}")
        first = load_project(file, env={})
        file.write_text("flags: {f: 1}")
        assert load_project(str(file), env={"OTHER": "x"}) is first
        file.write_text("flags: {f: 2}")
        second = load_project(file, env={})
        assert (first.flags["f"], second.flags["f"]) == (1, 2)
        file.write_text("flags: {f: 1}")
        assert load_project(file, env={}) is first

    def test_a_file_is_found_anew_under_another_name(self, tmp_path):
        for name in ("a.yaml", "b.yaml"):
            (tmp_path / name).write_text("flags: {f: 1}")
        sources = [
            explained(load_project(tmp_path / name, env={}), "flags.f").source
            for name in ("a.yaml", "b.yaml")
        ]
        assert sources == [f"{tmp_path / name}:1" for name in ("a.yaml", "b.yaml")]

    @pytest.mark.parametrize(
        "given",
        [
            {},
            {"options": {"max_attempts": "3"}},
            {"env": {"AGENTIC__FLAGS__F": "1"}},
            {"overrides": ["flags.f=1"]},
        ],
        ids=str,
    )
    def test_the_same_texts_give_the_same_project(self, given):
        assert assemble([BASE], **given) is assemble([BASE], **given)

    @pytest.mark.parametrize(
        "given",
        [
            {"options": {"max_attempts": "3"}},
            {"env": {"AGENTIC__FLAGS__F": "1"}},
            {"overrides": ["flags.f=1"]},
            {"overrides": {"flags.f": 1}},
        ],
        ids=str,
    )
    def test_every_layer_makes_another_project(self, given):
        assert assemble([BASE], **given) is not assemble([BASE])

    def test_faults_are_told_again_each_time(self):
        for _ in range(2):
            assert len(refused(of_text("agent: {}\nsettings: {max_attempts: 0}"))) == 2

    def test_a_project_cannot_be_changed(self):
        project = assemble(of_text("agents: {x: {config: {a: {b: [1]}}}}\nflags: {f: 1}"))
        with pytest.raises(TypeError, match="frozen"):
            project.flags["f"] = 2
        with pytest.raises(TypeError, match="frozen"):
            project.agents["x"].config["a"]["b"] = 2
        with pytest.raises(TypeError, match="frozen"):
            project.agents.pop("x")
        with pytest.raises(ValueError, match="frozen"):
            project.agents["x"].version = "2"


def test_the_name_of_an_environment_is_not_taken_for_its_variables():
    with pytest.raises(TypeError, match="another environment is another file"):
        load_project([], env="production")


def test_what_a_file_keeps_under_x_is_a_place_for_anchors_and_nothing_else():
    project = assemble(
        of_text("x-patient: &patient {lease_seconds: 9}\npolicies: {p: *patient, q: {<<: *patient}}")
    )
    assert {name: policy.lease_seconds for name, policy in project.policies.items()} == {"p": 9, "q": 9}
    assert project.root.child("x-patient") is None
