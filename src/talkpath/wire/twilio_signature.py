"""Twilio's request signature, made and verified.

A platform signs its WebSocket upgrade and its callbacks with the account's auth token; an application that verifies
them knows that nobody else is streaming into it. The signed text is the URL and, for a form, its sorted names and
values; there is no nonce, so a signature can be replayed by whoever has seen it: TLS is part of the scheme.

Upgrades were seen signed with the ``wss://`` form of the URL. So the platform's end signs that form, and the
application's end tries all four schemes, with and without the port that goes without saying.

Source: Twilio's helper library 9.13.0 (request_validator) and its security pages, read 2026-11.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable, Mapping
from typing import Final

from talkpath.errors import ConfigError
from talkpath.wire.signature import url_forms

SIGNATURE_HEADER: Final = "X-Twilio-Signature"
_HEADER_MAX: Final = 4096


def sign(auth_token: str, url: str, fields: Mapping[str, str] | None = None) -> str:
    """Make the value of ``X-Twilio-Signature`` for a request.

    Args:
        auth_token: the account's; never logged.
        url: as the request is made, query included.
        fields: of the form; none for an upgrade or a GET.

    Raises:
        ConfigError: an empty token.
    """
    if not auth_token:
        raise ConfigError("the auth token is empty; with an empty one anybody could sign")
    text = url + "".join(f"{name}{value}" for name, value in sorted((fields or {}).items()))
    return base64.b64encode(hmac.digest(auth_token.encode(), text.encode(), hashlib.sha1)).decode()


def verify(auth_token: str, signature: str, url: str, fields: Mapping[str, str] | None = None) -> bool:
    """Whether a signature is right for a request, in any form of its URL.

    The URL is the one the request was made to; its scheme does not matter, and a port that goes without saying may be
    said. Compared in constant time: every form is computed and compared whatever the others gave.

    Raises:
        ConfigError: an empty token; never for what the peer sent.
    """
    if not auth_token:
        raise ConfigError("the auth token is empty; with an empty one anybody could sign")
    if len(signature) > _HEADER_MAX:
        return False
    given = signature.strip().encode("utf-8", "replace")
    right = False
    for form in url_forms(url):
        try:
            expected = sign(auth_token, form, fields).encode()
        except UnicodeEncodeError:
            return False
        right |= hmac.compare_digest(given, expected)
    return right


def verify_headers(
    auth_token: str,
    headers: Iterable[tuple[bytes | str, bytes | str]],
    url: str,
    fields: Mapping[str, str] | None = None,
) -> bool:
    """Whether a request's headers bear a right signature; exactly one such header, whatever the case of its name."""
    found: list[str] = []
    for raw_name, raw_value in headers:
        name = raw_name.decode("latin-1") if isinstance(raw_name, bytes) else raw_name
        if name.lower() == SIGNATURE_HEADER.lower():
            found.append(raw_value.decode("latin-1") if isinstance(raw_value, bytes) else raw_value)
    return len(found) == 1 and verify(auth_token, found[0], url, fields)
