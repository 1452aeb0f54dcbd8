"""X-Twilio-Signature, both ways, beside the validator of Twilio's own helper library."""

from __future__ import annotations

import base64
import hashlib
import hmac

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator  # type: ignore[import-untyped]

from talkpath.errors import ConfigError
from talkpath.wire.callback import callback
from talkpath.wire.twilio_signature import SIGNATURE_HEADER, sign, verify, verify_headers

TOKEN = "0123456789abcdef0123456789abcdef"
UPGRADE = "wss://app.example/media"
PROPERTY = settings(max_examples=150, deadline=None, derandomize=True)

names = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=8)
fields = st.dictionaries(names, st.text(st.characters(codec="utf-8"), max_size=12), max_size=6)
paths = st.text("abcXYZ019-._~/%=&?", max_size=20).filter(lambda path: not path.endswith("?"))
"""The library takes an empty query for none before it compares."""


def test_an_upgrade_is_signed_by_its_url_alone() -> None:
    by_hand = base64.b64encode(hmac.new(TOKEN.encode(), UPGRADE.encode(), hashlib.sha1).digest()).decode()
    assert sign(TOKEN, UPGRADE) == by_hand
    assert RequestValidator(TOKEN).validate(UPGRADE, {}, by_hand)


@PROPERTY
@given(paths, fields)
def test_the_official_validator_takes_what_we_sign(path: str, form: dict[str, str]) -> None:
    for scheme in ("https", "wss"):
        url = f"{scheme}://app.example/{path}"
        assert RequestValidator(TOKEN).validate(url, form, sign(TOKEN, url, form))


@PROPERTY
@given(paths, fields)
def test_we_take_what_the_official_library_signs(path: str, form: dict[str, str]) -> None:
    url = f"https://app.example/{path}"
    signature = RequestValidator(TOKEN).compute_signature(url, form)
    assert verify(TOKEN, signature, url, form)
    assert not verify(TOKEN[:-1] + "0", signature, url, form)
    assert not verify(TOKEN, signature, url + "x", form)
    assert not verify(TOKEN, signature, url, {**form, "one more": "field"})


@pytest.mark.parametrize("scheme", ["http", "https", "ws", "wss"])
@pytest.mark.parametrize("signed", ["http", "https", "ws", "wss"])
@pytest.mark.parametrize(("port", "signed_port"), [("", ""), (":8443", ":8443")])
def test_the_scheme_does_not_matter_when_verifying(scheme: str, signed: str, port: str, signed_port: str) -> None:
    """Behind a proxy nobody knows the scheme that the platform saw."""
    signature = RequestValidator(TOKEN).compute_signature(f"{signed}://app.example{signed_port}/media", {})
    assert verify(TOKEN, signature, f"{scheme}://app.example{port}/media")


def test_a_port_that_goes_without_saying_may_be_said() -> None:
    for said, unsaid in ((f"{UPGRADE[:17]}:443/media", UPGRADE), ("http://app.example:80/a", "http://app.example/a")):
        assert verify(TOKEN, sign(TOKEN, said), unsaid)
        assert verify(TOKEN, sign(TOKEN, unsaid), said)
    assert not verify(TOKEN, sign(TOKEN, "wss://app.example:8443/media"), UPGRADE)


@pytest.mark.parametrize("signature", ["", "x", "é" * 20, "\ud800", "A" * 100_000, sign(TOKEN, UPGRADE)[:-2]])
def test_what_is_no_signature_is_false_and_no_error(signature: str) -> None:
    assert not verify(TOKEN, signature, UPGRADE)
    assert not verify(TOKEN, signature, "\ud800")


def test_exactly_one_header_whatever_its_case() -> None:
    right = sign(TOKEN, UPGRADE)
    for name in (SIGNATURE_HEADER, SIGNATURE_HEADER.lower(), SIGNATURE_HEADER.upper().encode()):
        assert verify_headers(TOKEN, [("Host", "a"), (name, right)], UPGRADE)
        assert verify_headers(TOKEN, [(name, right.encode())], UPGRADE)
    assert not verify_headers(TOKEN, [], UPGRADE)
    assert not verify_headers(TOKEN, [(SIGNATURE_HEADER, right), (SIGNATURE_HEADER, right)], UPGRADE)
    assert not verify_headers(TOKEN, [(SIGNATURE_HEADER, "wrong"), ("X-Other", right)], UPGRADE)


def test_an_empty_token_is_nobodys() -> None:
    with pytest.raises(ConfigError, match="auth token is empty"):
        sign("", UPGRADE)
    with pytest.raises(ConfigError, match="auth token is empty"):
        verify("", "x", UPGRADE)


def test_a_callback_by_get_is_signed_with_its_query() -> None:
    request = callback("GET", "https://app.example/status", {"StreamEvent": "stream-started", "CallSid": "CA1"})
    assert RequestValidator(TOKEN).validate(request.url, {}, sign(TOKEN, request.url))
