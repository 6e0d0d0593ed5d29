"""URLs of stores as they may be shown."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

_WITHOUT_SECRETS = ("", "memory", "sqlite")
_SECRET_OPTIONS = ("password", "sslpassword")


def masked(url: str) -> str:
    """Return the URL of a store with ``***`` for its password.

    Args:
        url: Any text that somebody gave as a URL.
    """
    scheme = urlsplit(url).scheme
    if scheme in _WITHOUT_SECRETS and "@" not in url:
        return url
    # Late: SQLAlchemy is heavy, and most stores are files.
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        return f"{scheme}://***"
    secret = {name: "***" for name in _SECRET_OPTIONS if name in parsed.query}
    shown = parsed.update_query_dict(secret) if secret else parsed
    return shown.render_as_string(hide_password=True).replace(quote("***", safe=""), "***")
