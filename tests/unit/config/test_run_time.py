from __future__ import annotations

import textwrap

import pytest

from airflow_agentic.config.project import assemble
from airflow_agentic.config.run_time import overlay
from airflow_agentic.config.tree import pruned
from airflow_agentic.errors import ProjectInvalid

PROJECT = """
    agents:
      auditor:
        type: "some.module:Auditor"
        config: {pause: 1, tags: [a], limits: {low: 1, high: 9}, secret: x}
        overridable: [pause, limits, tags, deep.inner]
      v1.5-auditor:
        type: "some.module:Auditor"
        overridable: [pause]
      closed: {type: "some.module:Auditor"}
"""
PARAMS, CONF = "DAG params", "dag_run.conf"


@pytest.fixture(scope="module")
def project():
    return assemble([("agentic.yaml", textwrap.dedent(PROJECT).encode())])


def config(agent="auditor", **values):
    return {"agents": {agent: {"config": values}}}


def laid(project, arguments=None, agent="auditor", **asked):
    sources = {"params": PARAMS, "conf": CONF}
    return overlay(project, agent, arguments, {sources[key]: value for key, value in asked.items()})


def refused(project, asked, source=CONF):
    with pytest.raises(ProjectInvalid) as caught:
        overlay(project, "auditor", None, {source: asked})
    return [(fault.key, fault.message, fault.suggestion) for fault in caught.value.errors]


class TestOrder:
    def test_an_operator_then_dag_params_then_the_run_says_it(self, project):
        arguments = {"pause": 1, "tags": ["operator"], "secret": "y"}
        params = config(pause=2, limits={"low": 2})
        node = laid(project, arguments, params=params, conf=config(pause=3))
        assert node.plain() == {"pause": 3, "tags": ["operator"], "secret": "y", "limits": {"low": 2}}

    def test_each_value_knows_who_said_it(self, project):
        node = laid(project, {"secret": 1}, params=config(pause=2), conf=config(tags=["b"]))
        origins = {key: child.origin.source for key, child in node.children()}
        assert origins == {
            "secret": "config= of the operator",
            "pause": f"{PARAMS} agents",
            "tags": f"{CONF} agents",
        }

    def test_maps_are_merged_and_lists_replaced(self, project):
        node = laid(
            project,
            {"limits": {"low": 1, "high": 2}, "tags": ["a"]},
            conf=config(limits={"high": 5}, tags=["b"]),
        )
        assert node.plain() == {"limits": {"low": 1, "high": 5}, "tags": ["b"]}

    def test_a_deletion_forgets_what_was_said_below_and_stays_a_mark(self, project):
        node = laid(project, params=config(pause=2), conf=config(pause="${delete}"))
        assert node.plain() == {"pause": "${delete}"}
        assert pruned(node).plain() == {}

    @pytest.mark.parametrize("arguments", [None, {}])
    def test_nothing_said_is_nothing(self, project, arguments):
        assert laid(project, arguments, conf={}, params={}).plain() == {}

    def test_what_is_said_of_another_agent_is_not_for_this_one(self, project):
        assert laid(project, conf=config("v1.5-auditor", pause=2)).plain() == {}

    def test_an_operator_may_set_any_key_of_any_agent(self, project):
        assert laid(project, {"anything": 1}, "nobody-declared-it").plain() == {"anything": 1}


class TestForms:
    @pytest.mark.parametrize(
        "asked",
        [
            {"agents": {"auditor": {"config": {"limits": {"low": 5}}}}},
            {"agents.auditor.config.limits.low": 5},
            {"agents.auditor.config": {"limits": {"low": 5}}},
        ],
        ids=["nested", "dotted", "both"],
    )
    def test_keys_may_be_nested_or_dotted(self, project, asked):
        assert laid(project, conf=asked).plain() == {"limits": {"low": 5}}

    def test_a_name_with_dots_in_it_is_found(self, project):
        asked = {"agents.v1.5-auditor.config.pause": 4}
        assert laid(project, agent="v1.5-auditor", conf=asked).plain() == {"pause": 4}

    def test_several_dotted_keys_come_together(self, project):
        asked = {"agents.auditor.config.limits.low": 5, "agents.auditor.config.pause": 2}
        assert laid(project, conf=asked).plain() == {"limits": {"low": 5}, "pause": 2}

    def test_what_is_no_key_is_refused(self, project):
        ((key, message, _),) = refused(project, {"agents..config": 1})
        assert (key, "is no key" in message) == ("agents..config", True)


class TestOverridable:
    @pytest.mark.parametrize(
        "values",
        [
            {"pause": 3},
            {"limits": {"low": 3}},
            {"limits": {"low": {"lower": 3}}},
            {"limits": {}},
            {"limits": "${delete}"},
            {"limits": {"low": "${delete}"}},
            {"tags": []},
            {"tags": ["a", {"b": 1}]},
            {"deep": {"inner": 1}},
            {"deep": {"inner": {"most": 1}}},
        ],
    )
    def test_a_key_and_all_below_it_may_be_set(self, project, values):
        assert laid(project, conf=config(**values)).plain() == values

    @pytest.mark.parametrize(
        ("values", "key"),
        [
            ({"secret": 1}, "secret"),
            ({"secret": "${delete}"}, "secret"),
            ({"pauses": 1}, "pauses"),
            ({"deep": {"other": 1}}, "deep.other"),
            ({"deep": 1}, "deep"),
            ({"deep": {}}, "deep"),
            ({"deep": "${delete}"}, "deep"),
            ({"deep": {"inner2": 1}}, "deep.inner2"),
            ({"deep.inner": 1}, '"deep.inner"'),
        ],
    )
    def test_another_one_may_not_and_how_to_allow_it_is_told(self, project, values, key):
        assert refused(project, config(**values)) == [
            (
                f"agents.auditor.config.{key}",
                "run time may set only what is declared overridable",
                f"declare it: agents.auditor.overridable: [{key}]",
            )
        ]

    def test_an_agent_that_says_nothing_lets_nothing_be_set(self, project):
        ((key, _, hint),) = refused(project, config("closed", pause=1))
        assert (key, hint) == (
            "agents.closed.config.pause",
            "declare it: agents.closed.overridable: [pause]",
        )

    def test_all_of_an_agents_configuration_cannot_be_deleted(self, project):
        ((key, _, _),) = refused(project, {"agents": {"auditor": {"config": "${delete}"}}})
        assert key == "agents.auditor.config"


class TestRefused:
    def test_an_unknown_agent_is_told_with_the_nearest(self, project):
        assert refused(project, config("auditer", pause=1)) == [
            ("agents.auditer.config.pause", "there is no agent 'auditer'", "did you mean 'auditor'?")
        ]

    def test_without_a_nearest_the_form_is_told(self, project):
        ((_, message, hint),) = refused(project, config("zzz", pause=1))
        assert (message, hint) == ("there is no agent 'zzz'", "agents.NAME.config.KEY")

    @pytest.mark.parametrize(
        ("asked", "key"),
        [
            ({"flags": {"x": True}}, "flags.x"),
            ({"settings.poll_seconds": 1}, "settings.poll_seconds"),
            ({"agents": {"auditor": {"type": "os:system"}}}, "agents.auditor.type"),
            ({"agents": {"auditor": {"overridable": ["secret"]}}}, "agents.auditor.overridable"),
            ({"agents": {"auditor": {"policy": "${delete}"}}}, "agents.auditor.policy"),
            ({"agents": "${delete}"}, "agents"),
            ({"agents": ["auditor"]}, "agents"),
            ({"pause": 1}, "pause"),
        ],
    )
    def test_nothing_but_configuration_may_be_set(self, project, asked, key):
        ((found, message, hint),) = refused(project, asked)
        assert found == key
        assert "run time may set keys of agents' config only" in message
        assert hint == "agents.NAME.config.KEY"

    def test_all_faults_of_all_sources_are_told_at_once(self, project):
        with pytest.raises(ProjectInvalid) as caught:
            overlay(
                project,
                "auditor",
                None,
                {
                    PARAMS: {**config(secret=1), "flags.x": 1},
                    CONF: {"agents.auditer.config.pause": 1, "agents.auditor.config.pause": 2},
                },
            )
        assert [(fault.source, fault.key) for fault in caught.value.errors] == [
            (f"{PARAMS} agents", "agents.auditor.config.secret"),
            (f"{PARAMS} flags.x", "flags.x"),
            (f"{CONF} agents.auditer.config.pause", "agents.auditer.config.pause"),
        ]
        assert "the project configuration has 3 faults:" in str(caught.value)

    def test_what_is_wrong_for_another_agent_is_refused_too(self, project):
        with pytest.raises(ProjectInvalid):
            overlay(project, "closed", None, {CONF: config("auditor", secret=1)})


class TestReferences:
    @pytest.mark.parametrize("value", ["${conn:bank.password}", "Bearer ${env:KEY}", ["a", "${var:key}"]])
    @pytest.mark.parametrize("source", [PARAMS, CONF])
    def test_who_starts_a_run_cannot_point_a_key_at_a_secret(self, project, source, value):
        message, hint = "run time may not refer to what is kept elsewhere", "give the value itself"
        assert refused(project, config(tags=value), source) == [("agents.auditor.config.tags", message, hint)]

    def test_the_author_of_the_dag_may(self, project):
        assert laid(project, {"secret": "${env:KEY}"}).plain() == {"secret": "${env:KEY}"}

    def test_a_dollar_that_is_meant_is_no_reference(self, project):
        assert laid(project, conf=config(tags="$${x}")).plain() == {"tags": "$${x}"}
