"""Plivo's signature: fixed vectors, an independent reference, and the official package where it is installed."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath.errors import ConfigError
from talkpath.wire.signature import (
    MAIN_ACCOUNT_HEADER,
    NONCE_HEADER,
    SIGNATURE_HEADER,
    sign,
    signature_headers,
    signed_text,
    verify,
    verify_headers,
)

PROPERTY = settings(max_examples=200, deadline=None, derandomize=True)
TOKEN = "not-a-real-token"
NONCE = "05429567804466091622"
URL = "http://app.example/media?b=2&a=1"


def reference(token: str, text: str, nonce: str) -> str:
    return base64.b64encode(hmac.new(token.encode(), (text + "." + nonce).encode(), hashlib.sha256).digest()).decode()


@pytest.mark.parametrize(
    ("method", "url", "fields", "text"),
    [
        ("GET", "http://app.example/media", None, "http://app.example/media"),
        ("GET", "http://app.example", None, "http://app.example"),
        ("GET", URL, None, "http://app.example/media?a=1&b=2"),
        ("GET", "http://a.example/x?k=2&k=10&k=1", None, "http://a.example/x?k=1&k=10&k=2"),
        ("GET", "http://a.example/x?e=&s=a%20b+c", None, "http://a.example/x?e=&s=a b c"),
        ("get", "http://a.example/x", {"b": "2", "a": "1"}, "http://a.example/x?a=1&b=2"),
        ("GET", "http://a.example/x?a=url", {"a": "field"}, "http://a.example/x?a=url"),
        ("POST", "http://a.example/x", None, "http://a.example/x"),
        ("POST", URL, {}, "http://app.example/media?a=1&b=2"),
        ("POST", "http://a.example/x", {"B": "2", "A": "1"}, "http://a.example/x?A1B2"),
        ("POST", URL, {"B": "2", "A": "1"}, "http://app.example/media?a=1&b=2.A1B2"),
        ("POST", "http://a.example/x", {"A": ["2", "1"]}, "http://a.example/x?A1A2"),
        ("GET", "http://a.example:8080/x;p=1?q=1#f", None, "http://a.example:8080/x?q=1"),
    ],
)
def test_the_signed_text(method: str, url: str, fields: Any, text: str) -> None:
    assert signed_text(method, url, fields) == text
    assert sign(TOKEN, NONCE, method, url, fields) == reference(TOKEN, text, NONCE)


def test_fixed_vectors() -> None:
    assert sign(TOKEN, NONCE, "GET", URL) == "62U8MwktQXBscKKNO0Up79BH/KzlRWZ8V7SCLlMM7+4="
    assert (
        sign(TOKEN, NONCE, "POST", "https://app.example/status", {"Event": "started", "CallUUID": "c"})
        == "+uqDDgrcw577UgPRZlip0DLP2w69tyKswPa8zZ49nZo="
    )


@pytest.mark.parametrize("scheme", ["http", "https", "ws", "wss"])
@pytest.mark.parametrize("port", ["", ":80", ":443", ":8080"])
@pytest.mark.parametrize("host", ["app.example", "[2001:db8::1]"])
def test_any_scheme_and_the_port_that_goes_without_saying_verify(scheme: str, port: str, host: str) -> None:
    signed = f"{scheme}://{host}{port}/media?b=2&a=1"
    signature = sign(TOKEN, NONCE, "GET", signed)
    default = {"http": ":80", "ws": ":80", "https": ":443", "wss": ":443"}[scheme]
    seen = {port} | ({"", default} if port in ("", default) else set())
    for seen_port in seen:
        assert verify(TOKEN, NONCE, signature, "GET", f"wss://{host}{seen_port}/media?b=2&a=1")
        assert verify(TOKEN, NONCE, signature, "GET", f"http://{host}{seen_port}/media?a=1&b=2")
    assert not verify(TOKEN, NONCE, signature, "GET", f"http://{host}:9999/media?a=1&b=2")


def test_only_the_right_request_verifies() -> None:
    right = sign(TOKEN, NONCE, "POST", URL, {"A": "1"})
    assert verify(TOKEN, NONCE, right, "POST", URL, {"A": "1"})
    assert verify(TOKEN, NONCE, f"wrong, {right},{right[:-2]}", "POST", URL, {"A": "1"})
    for token, nonce, signature, method, url, fields in (
        ("another", NONCE, right, "POST", URL, {"A": "1"}),
        (TOKEN, "another", right, "POST", URL, {"A": "1"}),
        (TOKEN, "", right, "POST", URL, {"A": "1"}),
        (TOKEN, NONCE, "", "POST", URL, {"A": "1"}),
        (TOKEN, NONCE, right[:-1], "POST", URL, {"A": "1"}),
        (TOKEN, NONCE, right + "\u00e9", "POST", URL, {"A": "1"}),
        (TOKEN, NONCE, right, "GET", URL, {"A": "1"}),
        (TOKEN, NONCE, right, "POST", URL + "&c=3", {"A": "1"}),
        (TOKEN, NONCE, right, "POST", URL, {"A": "2"}),
        (TOKEN, NONCE, right, "POST", URL, None),
        (TOKEN, NONCE, right, "POST", "no url", {"A": "1"}),
        (TOKEN, NONCE, right, "POST", "http://[::1", {"A": "1"}),
        (TOKEN, "x" * 5000, right, "POST", URL, {"A": "1"}),
        (TOKEN, NONCE, ",".join(["x"] * 16 + [right]), "POST", URL, {"A": "1"}),
        (TOKEN, NONCE, right + " " * 5000, "POST", URL, {"A": "1"}),
    ):
        assert not verify(token, nonce, signature, method, url, fields)


def test_headers_are_found_whatever_their_case() -> None:
    headers = signature_headers(TOKEN, NONCE, "GET", "wss://app.example/media", scheme="http")
    assert headers == (
        (SIGNATURE_HEADER, reference(TOKEN, "http://app.example/media", NONCE)),
        (NONCE_HEADER, NONCE),
    )
    assert verify_headers(TOKEN, headers, "GET", "https://app.example/media")
    raw = [(name.lower().encode(), value.encode()) for name, value in headers]
    assert verify_headers(TOKEN, raw, "GET", "https://app.example/media")
    main = [(SIGNATURE_HEADER, "of-the-subaccount"), (MAIN_ACCOUNT_HEADER, headers[0][1]), headers[1]]
    assert verify_headers(TOKEN, main, "GET", "https://app.example/media")
    assert not verify_headers(TOKEN, headers[:1], "GET", "https://app.example/media")
    assert not verify_headers(TOKEN, [*headers, headers[1]], "GET", "https://app.example/media")
    assert not verify_headers(TOKEN, [], "GET", "https://app.example/media")


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: sign("", NONCE, "GET", URL), "token is empty"),
        (lambda: verify("", NONCE, "x", "GET", URL), "token is empty"),
        (lambda: sign(TOKEN, "", "GET", URL), "needs a nonce"),
        (lambda: sign(TOKEN, NONCE, "PUT", URL), "GET or POST"),
        (lambda: verify(TOKEN, NONCE, "x", "PUT", URL), "GET or POST"),
        (lambda: sign(TOKEN, NONCE, "GET", "/media"), "absolute URL"),
        (lambda: sign(TOKEN, NONCE, "GET", "http://[::1"), "absolute URL"),
        (lambda: signature_headers(TOKEN, NONCE, "GET", URL, scheme="ftp"), "right is one of http"),
    ],
)
def test_what_cannot_be_signed_is_ours_to_mend(call: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        call()


words = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "Zs"]), min_size=1, max_size=10)
values = words | st.lists(words, min_size=1, max_size=3)


@PROPERTY
@given(words, st.dictionaries(words, values, max_size=4), st.dictionaries(words, values, max_size=4))
def test_what_is_signed_verifies(nonce: str, query: dict[str, Any], fields: dict[str, Any]) -> None:
    url = f"https://app.example/x?{urlencode(query, doseq=True)}"
    for method in ("GET", "POST"):
        signature = sign(TOKEN, nonce, method, url, fields)
        assert verify(TOKEN, nonce, signature, method, url, fields)
        assert not verify(TOKEN + "x", nonce, signature, method, url, fields)


@PROPERTY
@given(st.text(max_size=30), st.text(max_size=60), st.text(max_size=60) | st.just("http://"))
def test_nothing_the_peer_sends_raises(nonce: str, signature: str, url: str) -> None:
    assert not verify(TOKEN, nonce, signature, "GET", url)


@PROPERTY
@given(st.dictionaries(words, values, max_size=4), st.dictionaries(words, words, max_size=4))
def test_the_official_package_agrees(query: dict[str, Any], fields: dict[str, str]) -> None:
    official = pytest.importorskip("plivo.utils.signature_v3")
    url = f"https://app.example:8443/x?{urlencode(query, doseq=True)}"
    for method in ("GET", "POST"):
        text = (
            official.construct_get_url(url, dict(fields))
            if method == "GET"
            else official.construct_post_url(url, dict(fields))
        ).decode()
        assert signed_text(method, url, fields) == text
        assert (
            sign(TOKEN, NONCE, method, url, fields) == official.get_signature_v3(TOKEN.encode(), text, NONCE).decode()
        )
        assert official.validate_v3_signature(
            method, url, NONCE, TOKEN, sign(TOKEN, NONCE, method, url, fields), dict(fields)
        )
