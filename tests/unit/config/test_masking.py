from __future__ import annotations

import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from airflow_agentic.config import ProjectInvalid
from airflow_agentic.config.masking import MASK, is_secret, mask_text, shown
from airflow_agentic.config.project import assemble
from airflow_agentic.config.tree import Origin, nested, planted

# Letters of which nothing else in a message is made: what is found of a secret is of the secret.
ODD = "ÆØŁĐŦŊ"
SECRETS = st.text(alphabet=f"{ODD}${{}}:./@?#%&'\"\\-[] ", max_size=10).map(
    lambda text: f"{ODD}{text}{ODD[::-1]}"
)
IN_URLS = st.text(alphabet=f"{ODD}/@?#%&:;=+", max_size=10).map(lambda text: f"{ODD}{text}{ODD[::-1]}")
SECRET_KEYS = st.sampled_from(
    [
        "password",
        "db_password",
        "PASSWORD",
        "passwd",
        "pass",
        "db-pass",
        "client_secret",
        "client-secret",
        "clientSecret",
        "api_token",
        "api_tokens",
        "auth_tokens",
        "token",
        "apiKey",
        "api-key",
        "aws_secret_access_key",
        "private_key",
        "credentials",
        "Authorization",
        "basic_auth",
        "cookie",
        "session_id",
        "dsn",
    ]
)
KEYS = st.sampled_from(["n", "server", "options", "max_tokens", "author"])
HARMLESS = [
    "max_tokens",
    "tokens",
    "tokens_per_minute",
    "token" + "izer",
    "author",
    "authors",
    "keyboard",
    "monkey",
    "key",
    "passenger",
    "bypass",
    "compass",
    "pinned",
    "spin",
    "session",
    "cookies_per_jar",
]
LAYERS = ("low", "high", "env", "text", "map")


@st.composite
def places(draw):
    """Paths with a key that says that what is there is secret, at the end or above it; and list items."""
    path = ["agents", "x", "config", *draw(st.lists(KEYS, max_size=2)), draw(SECRET_KEYS)]
    return (*path, *draw(st.lists(KEYS, max_size=2)))


@st.composite
def as_items(draw, secret):
    """The secret, or a list or map of it."""
    how = draw(st.sampled_from(["plain", "list", "deep"]))
    return {"plain": secret, "list": [secret, "x"], "deep": [{"n": [secret]}]}[how]


def plain(path, value):
    return nested(path, planted(value, Origin("x"))).plain()


def laid(path, value, layer):
    """Arguments of ``assemble`` that say a value at a path in one layer."""
    if layer == "low":
        return {"texts": [("low.yaml", json.dumps(plain(path, value)).encode())]}
    if layer == "high":
        text = json.dumps(plain(path, value)).encode()
        return {"texts": [("low.yaml", b"agents: {x: {}}"), ("high.yaml", text)]}
    if layer == "env":
        # The path that is quoted must be in the tree before, as names in variables lose their case.
        base = json.dumps(plain(path, "low")).encode()
        name = "__".join(part.replace("-", "_").upper() for part in path)
        return {"texts": [("low.yaml", base)], "env": {f"AGENTIC__{name}": json.dumps(value)}}
    if layer == "text":
        return {"texts": [], "overrides": [".".join(path) + "=" + json.dumps(value)]}
    return {"texts": [], "overrides": {".".join(path): value}}


def with_fault(given, *texts):
    """The same arguments with a fault elsewhere."""
    return {**given, "texts": [*given["texts"], *texts, ("zz.yaml", b"agent: {}")]}


def told(project):
    """All that is printed of a project."""
    parts = [repr(project), str(project)]
    for one in project.explain(()):
        parts += [repr(one), json.dumps([one.value, one.overrides], ensure_ascii=False)]
    parts.append(json.dumps(shown(project.root, ()), ensure_ascii=False))
    return "\n".join(parts)


def refusal(**given):
    with pytest.raises(ProjectInvalid) as caught:
        assemble(given.pop("texts", ()), **given)
    error = caught.value
    return "\n".join([str(error), repr(error), repr(error.errors), *map(str, error.errors), str(error.args)])


def shows(text, secret):
    return any(letter in text for letter in ODD) or repr(secret)[1:-1] in text


class TestSecretsUnderSecretKeys:
    @settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
    @given(st.data(), SECRETS, places(), st.sampled_from(LAYERS))
    def test_no_project_that_is_printed_or_explained_shows_one(self, data, secret, path, layer):
        value = data.draw(as_items(secret.replace("${", "")))
        given_ = laid(path, value, layer)
        project = assemble(given_.pop("texts"), **given_)
        assert not shows(told(project), secret)
        # It is there, though.
        found = project.agents["x"].config
        for key in path[3:]:
            found = found[key]
        assert ODD in json.dumps(found, ensure_ascii=False)

    @settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
    @given(st.data(), SECRETS, places(), st.sampled_from(LAYERS))
    def test_no_error_about_it_or_about_something_else_shows_one(self, data, secret, path, layer):
        value = data.draw(as_items(secret))
        assert not shows(refusal(**with_fault(laid(path, value, layer))), secret)

    @given(SECRETS, SECRETS, places(), st.tuples(st.sampled_from(LAYERS[1:]), st.sampled_from(LAYERS[1:])))
    def test_one_that_was_overridden_is_not_shown_either(self, low, high, path, layers):
        first = laid(path, low.replace("${", ""), "low")["texts"]
        for layer in layers:
            given_ = laid(path, high.replace("${", ""), layer)
            texts = [*first, *given_.pop("texts")]
            assert not shows(told(assemble(texts, **given_)), high)

    @given(SECRETS, SECRET_KEYS)
    def test_a_flag_can_be_one(self, secret, key):
        given_ = laid(("flags", key), secret.replace("${", ""), "low")
        assert not shows(told(assemble(given_["texts"])), secret)

    @settings(suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.data(),
        SECRETS,
        SECRET_KEYS,
        st.sampled_from(
            [
                (),
                ("agents", "x"),
                ("agents", "x", "uses"),
                ("agents", "x", "sends_to"),
                ("agents", "x", "subscriptions"),
                ("agents", "x", "mailbox"),
                ("mailboxes", "m"),
                ("routes", "r"),
                ("policies", "p"),
                ("policies", "p", "retry"),
                ("services", "s"),
                ("services", "s", "uses"),
                ("roles", "r", "permissions"),
                ("budgets", "b"),
                ("flags",),
                ("settings",),
                ("rules",),
            ]
        ),
    )
    def test_one_that_stands_where_no_value_can_be_is_not_shown(self, data, secret, key, above):
        value = data.draw(as_items(secret))
        given_ = laid((*above, key), value, "low")
        assert not shows(refusal(**with_fault(given_)), secret)

    @given(SECRETS, places(), st.sampled_from(["text", "env"]))
    def test_one_that_is_no_json_is_not_shown(self, secret, path, layer):
        raw = f"[{secret}"
        if layer == "text":
            assert not shows(refusal(overrides=[".".join(path) + "=" + raw]), secret)
        else:
            name = "__".join(part.replace("-", "_").upper() for part in path)
            assert not shows(refusal(env={f"AGENTIC__{name}": raw}), secret)

    @pytest.mark.parametrize("between", [":", " ", ": ", "->", "\t", "/", ""])
    def test_one_in_an_override_that_lacks_its_equals_sign_is_not_shown(self, between):
        text = refusal(overrides=[f"agents.x.config.password{between}{ODD}" if between else f'"{ODD}"'])
        assert "must be key=value" in text
        assert not between or not shows(text, ODD)

    def test_whoever_says_that_a_path_is_secret_is_believed(self):
        project = assemble(
            [("a.yaml", b"agents: {x: {config: {pepper: hunter2, salt: s, deep: {pepper: p}}}}")]
        )
        path = ("agents", "x", "config", "pepper")
        found = {
            one.key.removeprefix("agents.x.config."): one.value for one in project.explain((), None, [path])
        }
        assert found == {"pepper": MASK, "salt": "s", "deep.pepper": "p"}

    @pytest.mark.parametrize(
        ("value", "said"),
        [
            ("hunter2", MASK),
            ("", MASK),
            (7, MASK),
            (1.5, MASK),
            (True, True),
            (None, None),
            ("${env:PW}", "${env:PW}"),
            ("${conn:db.login} ${conn:db.password}", "${conn:db.login} ${conn:db.password}"),
            ("${delete}", "${delete}"),
            ("Bearer abc${var:x}", MASK),
            ("$${env:PW}", MASK),
            ("${hunter2}", MASK),
            ("${env:PW}$${hunter2}", MASK),
            ([1, "a", {"b": "c"}], [MASK, MASK, {"b": MASK}]),
        ],
    )
    def test_of_a_secret_key_references_are_shown_and_values_are_not(self, value, said):
        assert shown(value, ("agents", "x", "config", "password")) == said


class TestSecretsInTexts:
    @settings(max_examples=200, suppress_health_check=[HealthCheck.too_slow])
    @given(
        IN_URLS,
        st.sampled_from(
            ["postgresql+psycopg2://user:{}@host:5432/db?a=b", "https://u%40x:{}@h", "redis://:{}@h/0"]
        ),
        st.lists(KEYS, min_size=1, max_size=3),
        st.sampled_from(LAYERS),
    )
    def test_no_password_in_a_url_is_shown_at_any_key(self, password, url, keys, layer):
        value = url.format(password)
        given_ = laid(("agents", "x", "config", *keys), value, layer)
        project = assemble(given_.pop("texts"), **given_)
        assert not shows(told(project), password)
        assert "@h" in told(project)

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (("settings", "store_url"), ["{}"]),
            (("settings", "store_url"), {"url": "{}"}),
            (("settings", "max_attempts"), "{}"),
            (("settings", "max_attempts"), ["{}"]),
            (("agents", "x", "policy"), "{}"),
            (("agents", "x", "uses", "index"), "{}"),
            (("agents", "x", "subscriptions"), "{}"),
            (("agents", "x", "subscriptions"), ["{}"]),
            (("agents", "x", "subscriptions"), [{"topic": "{}"}]),
            (("agents", "x", "tags"), ["{}"]),
            (("agents", "x", "mailbox", "overflow"), "{}"),
            (("mailboxes", "m", "limit"), "{}"),
            (("mailboxes", "m", "role"), "{}"),
            (("routes", "r", "to"), "{}"),
            (("settings", "mailbox_overflow"), "{}"),
            (("agents", "x"), "{}"),
            (("agents",), "{}"),
            (("imports",), ["{}"]),
            (("imports",), "{}"),
            (("services", "s", "scope"), "{}"),
            (("policies", "p", "retry", "base_seconds"), "{}"),
            (("flags", "f"), ["{}"]),
            (("rules", "require_policy"), "{}"),
            (("services", "s", "uses", "store"), "{}"),
            (("agents", "x", "type"), {"a": "{}"}),
            (("settings", "store_url"), "{} ${{env:X"),
            (("agents", "x", "config", "url"), "{} ${{evn:X}}"),
        ],
        ids=str,
    )
    @given(password=IN_URLS)
    def test_no_error_about_a_value_of_the_wrong_kind_shows_a_password(self, path, value, password):
        url = f"postgresql://u:{password}@h/db"
        given_ = laid(
            path,
            json.loads(json.dumps(value).replace("{{", "{").replace("}}", "}").replace("{}", "URL")),
            "low",
        )
        texts = [
            (name, data.replace(b"URL", json.dumps(url)[1:-1].encode())) for name, data in given_["texts"]
        ]
        assert not shows(refusal(texts=texts), password)

    def test_the_url_of_the_store_is_shown_without_its_password_whoever_says_it(self):
        given_ = {
            "texts": [("a.yaml", b"settings: {store_url: 'postgresql://u:one@h/d'}")],
            "options": {"store_url": "postgresql://u:two@h/d"},
            "env": {"AIRFLOW__AGENTIC__STORE_URL": "postgresql://u:three@h/d"},
            "overrides": ["settings.store_url=postgresql://u:four@h/d"],
        }
        project = assemble(given_.pop("texts"), **given_)
        (found,) = project.explain(("settings", "store_url"))
        assert {found.value, *(value for value, _ in found.overrides)} == {"postgresql://u:***@h/d"}
        assert len(found.overrides) == 3
        assert project.settings.store_url == "postgresql://u:four@h/d"

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("postgresql://u:p/w@d@host/db", "postgresql://u:***@host/db"),
            ("postgres://me@corp:pw@h/d", "postgres://me@corp:***@h/d"),
            ("a postgresql://u:pw@h and https://v:qw@i.", "a postgresql://u:***@h and https://v:***@i."),
            ("https://h/x?api_key=abc&page=2&auth=d#e", "https://h/x?api_key=***&page=2&auth=***#e"),
            ("postgresql://h/d?user=u&password=a@b", "postgresql://h/d?user=u&password=***"),
            ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
            ("bearer abc", "bearer ***"),
        ],
    )
    def test_what_is_secret_in_a_text_is_masked_and_nothing_else(self, text, said):
        assert mask_text(text) == said

    @pytest.mark.parametrize(
        "text",
        [
            "http://host:8080/path",
            "postgresql://user@host:5432/db",
            "sqlite:////var/lib/agentic.db",
            "mailto:me@example.com",
            "https://h/x?page=2&tokens=5",
            "at 10:30 @ home",
            "a:b@c",
            "",
        ],
    )
    def test_a_text_without_a_secret_is_shown_as_it_is(self, text):
        assert mask_text(text) == text


class TestHarmlessKeys:
    @pytest.mark.parametrize("key", HARMLESS)
    @pytest.mark.parametrize("value", ["text", 7, ["text", 7], {"n": 1}], ids=str)
    def test_their_values_are_shown(self, key, value):
        project = assemble([("a.yaml", json.dumps({"agents": {"x": {"config": {key: value}}}}).encode())])
        assert shown(project.root, ()) == {"agents": {"x": {"config": {key: value}}}}

    @pytest.mark.parametrize("section", ["agents", "services", "policies", "roles", "budgets"])
    @pytest.mark.parametrize("name", ["token-counter", "secret-scanner", "password-reset", "auth"])
    def test_the_name_of_a_thing_makes_no_secret_of_what_is_said_of_it(self, section, name):
        field = "config" if section in {"agents", "services"} else "description"
        value = {"n": "text"} if field == "config" else "text"
        project = assemble([("a.yaml", json.dumps({section: {name: {field: value}}}).encode())])
        assert shown(project.root, ()) == {section: {name: {field: value}}}
        assert not is_secret((section, name))

    def test_what_is_wrong_with_a_harmless_value_is_said_with_the_value(self):
        text = refusal(texts=[("a.yaml", b"budgets: {token-counter: {tokens: many}}")])
        assert "budgets.token-counter.tokens: must be a whole number, not 'many'" in text
