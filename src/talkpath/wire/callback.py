"""One request that tells somebody's web server what happened: a status callback, as a value.

A callback is the same set of fields whether it goes by GET (in the query of the URL) or by POST (as a form). This
module only writes it down; `talkpath.transport.http` delivers it.

Source: WHATWG URL standard, ``application/x-www-form-urlencoded``; RFC 9110 for methods and header names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlencode, urlsplit

from talkpath.errors import ConfigError

URL_MAX: Final = 8192
"""Characters of a callback's URL, its query included."""

FORM_TYPE: Final = "application/x-www-form-urlencoded"

_HEADER_NAME: Final = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class CallbackRequest:
    """A request to make, whole and checked.

    Raises:
        ConfigError: a method, URL or header that no request can have; says what would be right.
    """

    method: str
    """``GET`` or ``POST``."""
    url: str = field(repr=False)
    """``http`` or ``https``, in ASCII (percent-encoded), without user name or fragment."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Beyond those every request has (Host, Content-Length, ...)."""
    body: bytes = field(default=b"", repr=False)

    def __post_init__(self) -> None:
        if self.method not in ("GET", "POST"):
            raise ConfigError(f"the callback's method is {self.method!r}; right is GET or POST")
        check_callback_url(self.url)
        for name, value in self.headers:
            if not _HEADER_NAME.fullmatch(name) or not value.isascii() or not value.isprintable():
                raise ConfigError(f"{name!r} is no header, or its value is not printable ASCII on one line")


def check_callback_url(url: str) -> None:
    """Refuse what is no URL a callback can be delivered to.

    Raises:
        ConfigError: says what would be right; never repeats the URL, which may hold secrets.
    """
    right = "right is for example https://app.example/status"
    if len(url) > URL_MAX:
        raise ConfigError(f"the callback's URL has {len(url)} characters; right is at most {URL_MAX}")
    if not url.isascii() or not url.isprintable() or " " in url:
        raise ConfigError(f"the callback's URL is not printable ASCII; percent-encode the rest ({right})")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ConfigError(f"the callback's URL has a bad host or port; {right}") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ConfigError(f"the callback's URL is not http or https, or has no host; {right}")
    if "@" in parts.netloc or parts.fragment:
        raise ConfigError(f"the callback's URL has a user name or a fragment; {right}")


def form(fields: Mapping[str, str]) -> str:
    """Write fields as a form: ``a=1&b=two+words``, in the order given."""
    return urlencode(fields)


def json_callback(url: str, body: Mapping[str, object]) -> CallbackRequest:
    """Make the request that posts a JSON object. Raises ConfigError as `CallbackRequest`."""
    return CallbackRequest("POST", url, (("Content-Type", "application/json"),), json.dumps(body).encode())


def callback(
    method: str, url: str, fields: Mapping[str, str], *, headers: tuple[tuple[str, str], ...] = ()
) -> CallbackRequest:
    """Make the request that carries `fields`: behind the URL's query for GET, as a form for POST.

    Raises:
        ConfigError: as `CallbackRequest`.
    """
    if method != "GET":
        return CallbackRequest(method, url, (("Content-Type", FORM_TYPE), *headers), form(fields).encode())
    if fields:
        address, _, query = url.partition("?")
        url = f"{address}?{query}{'&' if query else ''}{form(fields)}"
    return CallbackRequest(method, url, headers)
