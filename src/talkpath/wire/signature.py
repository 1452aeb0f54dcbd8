"""Plivo's request signature, version 3, made and verified.

A platform signs its WebSocket upgrade and its status callbacks with the account's auth token; an application that
verifies them knows that nobody else is streaming into it. The signed text is the URL (query sorted), for a form the
sorted fields, and a nonce that travels in a header of its own.

Which scheme stands in the signed URL is where implementations differ: live upgrades of ``wss://`` URLs were seen signed
as ``http://``. So the platform's end signs that form unless told otherwise, and the application's end tries all four
schemes, with and without the port that goes without saying.

Source: Plivo's Python SDK 4.63.0 (utils/signature_v3) and its published agent notes, read 2026-11.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping, Sequence
from typing import Final
from urllib.parse import parse_qs, urlparse

from talkpath.errors import ConfigError

SIGNATURE_HEADER: Final = "X-Plivo-Signature-V3"
MAIN_ACCOUNT_HEADER: Final = "X-Plivo-Signature-Ma-V3"
"""Signed with the main account's token where a subaccount's is in `SIGNATURE_HEADER`."""
NONCE_HEADER: Final = "X-Plivo-Signature-V3-Nonce"

SCHEMES: Final = ("http", "https", "ws", "wss")

_HEADER_MAX: Final = 4096
_CANDIDATES_MAX: Final = 16
_DEFAULT_PORTS: Final = {"http": 80, "ws": 80, "https": 443, "wss": 443}

FormFields = Mapping[str, str | Sequence[str]]
"""Fields of a form, or of a query: a name and its value, or its values."""


def signed_text(method: str, url: str, fields: FormFields | None = None) -> str:
    """Write what a signature covers, the nonce excepted.

    A WebSocket upgrade is a GET without fields. A callback by GET carries its fields in the URL's query, or in
    `fields`; one by POST carries them in `fields`. Values of one name are sorted; fragments and path parameters do not
    count.

    Raises:
        ConfigError: neither GET nor POST, or no absolute URL.
    """
    try:
        parts = urlparse(url)
        query = dict[str, str | Sequence[str]](parse_qs(parts.query, keep_blank_values=True))
    except ValueError as error:
        raise ConfigError(f"not an absolute URL ({error})") from None
    if not parts.scheme or not parts.netloc:
        raise ConfigError("not an absolute URL; right is for example https://app.example/audio")
    base = f"{parts.scheme}://{parts.netloc}{parts.path}"
    match method.upper():
        case "GET":
            text = _sorted({**(fields or {}), **query}, "=", "&")
            return f"{base}?{text}" if text else base
        case "POST":
            text = _sorted(query, "=", "&")
            if not fields:
                return f"{base}?{text}" if text else base
            return f"{base}?{text}{'.' if text else ''}{_sorted(fields, '', '')}"
    raise ConfigError("the method is GET or POST")


def sign(auth_token: str, nonce: str, method: str, url: str, fields: FormFields | None = None) -> str:
    """Make the value of ``X-Plivo-Signature-V3`` for a request.

    Raises:
        ConfigError: an empty token or nonce, neither GET nor POST, or no absolute URL.
    """
    _check_token(auth_token)
    if not nonce:
        raise ConfigError("a signature needs a nonce; right is a fresh random text for each request")
    return _signature(auth_token, nonce, signed_text(method, url, fields))


def signature_headers(
    auth_token: str,
    nonce: str,
    method: str,
    url: str,
    fields: FormFields | None = None,
    *,
    scheme: str | None = None,
) -> tuple[tuple[str, str], ...]:
    """Make the headers that sign a request.

    Args:
        auth_token: The account's; never logged.
        nonce: Fresh for each request.
        method: ``GET`` or ``POST``.
        url: As the request is made.
        fields: Of the form (POST), or those that are not in the URL's query yet (GET).
        scheme: Stands in for the URL's own in the signed text; a platform signs its upgrades with ``http``.

    Raises:
        ConfigError: as `sign`, or an unknown scheme.
    """
    if scheme is not None:
        if scheme not in SCHEMES:
            raise ConfigError(f"the signed scheme is {scheme!r}; right is one of {', '.join(SCHEMES)}")
        url = f"{scheme}://{url.partition('://')[2]}"
    return ((SIGNATURE_HEADER, sign(auth_token, nonce, method, url, fields)), (NONCE_HEADER, nonce))


def verify(
    auth_token: str, nonce: str, signature: str, method: str, url: str, fields: FormFields | None = None
) -> bool:
    """Whether one of the comma-separated signatures in a header is right for a request, in any form of its URL.

    The URL is the one the request was made to; its scheme does not matter, and a port that goes without saying
    may be said. Compared in constant time: every candidate is computed and compared whatever the others gave.

    Raises:
        ConfigError: an empty token, or a method that is neither GET nor POST; never for what the peer sent.
    """
    _check_token(auth_token)
    if method.upper() not in ("GET", "POST"):
        raise ConfigError("the method is GET or POST")
    if not nonce or len(nonce) > _HEADER_MAX or len(signature) > _HEADER_MAX:
        return False
    given = [part.strip().encode("utf-8", "replace") for part in signature.split(",")]
    if len(given) > _CANDIDATES_MAX:
        return False
    right = False
    for form in url_forms(url):
        try:
            expected = _signature(auth_token, nonce, signed_text(method, form, fields)).encode()
        except (ConfigError, UnicodeEncodeError):
            return False
        for candidate in given:
            right |= hmac.compare_digest(candidate, expected)
    return right


def verify_headers(
    auth_token: str,
    headers: Iterable[tuple[bytes | str, bytes | str]],
    method: str,
    url: str,
    fields: FormFields | None = None,
) -> bool:
    """Whether a request's headers bear a right signature, by the account's own or its main account's token.

    Header names are compared ignoring case; a header that occurs twice counts as its values joined by commas.

    Raises:
        ConfigError: as `verify`.
    """
    found: dict[str, list[str]] = {}
    for raw_name, raw_value in headers:
        name = raw_name.decode("latin-1") if isinstance(raw_name, bytes) else raw_name
        value = raw_value.decode("latin-1") if isinstance(raw_value, bytes) else raw_value
        found.setdefault(name.lower(), []).append(value)
    signatures = found.get(SIGNATURE_HEADER.lower(), []) + found.get(MAIN_ACCOUNT_HEADER.lower(), [])
    nonces = found.get(NONCE_HEADER.lower(), [])
    nonce = nonces[0] if len(nonces) == 1 else ""
    return verify(auth_token, nonce, ",".join(signatures), method, url, fields)


def _check_token(auth_token: str) -> None:
    if not auth_token:
        raise ConfigError("the auth token is empty; with an empty one anybody could sign")


def _signature(auth_token: str, nonce: str, text: str) -> str:
    digest = hmac.digest(auth_token.encode(), f"{text}.{nonce}".encode(), hashlib.sha256)
    return base64.b64encode(digest).decode()


def _sorted(fields: FormFields, between: str, after: str) -> str:
    pairs: list[str] = []
    for name in sorted(fields):
        value = fields[name]
        values = [value] if isinstance(value, str) else sorted(value)
        pairs.extend(f"{name}{between}{one}" for one in values)
    return after.join(pairs)


def url_forms(url: str) -> list[str]:
    """The URL in each scheme, its port as given and, where it is the scheme's default, the other way too."""
    rest = url.partition("://")[2]
    end = next((i for i, c in enumerate(rest) if c in "/?#"), len(rest))
    host, path = rest[:end], rest[end:]
    head, colon, port = host.rpartition(":")
    explicit = bool(colon) and port.isascii() and port.isdigit()
    forms: list[str] = []
    for scheme in SCHEMES:
        default = str(_DEFAULT_PORTS[scheme])
        forms.append(f"{scheme}://{host}{path}")
        if not explicit:
            forms.append(f"{scheme}://{host}:{default}{path}")
        elif port in ("80", "443"):
            forms.append(f"{scheme}://{head}{path}")
    return forms
