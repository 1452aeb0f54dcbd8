"""Callbacks as values: what a request may be, and how fields are written into it."""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from talkpath.errors import ConfigError
from talkpath.wire.callback import FORM_TYPE, CallbackRequest, callback, check_callback_url

PROPERTY = settings(max_examples=200, deadline=None, derandomize=True)
fields = st.dictionaries(st.text(st.characters(codec="utf-8"), min_size=1), st.text(st.characters(codec="utf-8")))


@PROPERTY
@given(fields)
def test_a_form_holds_its_fields(values: dict[str, str]) -> None:
    request = callback("POST", "https://app.example/status?x=1", values)
    assert request.url == "https://app.example/status?x=1"
    assert dict(request.headers) == {"Content-Type": FORM_TYPE}
    assert dict(parse_qsl(request.body.decode("ascii"), keep_blank_values=True)) == values


@PROPERTY
@given(fields)
def test_a_query_holds_its_fields_behind_its_own(values: dict[str, str]) -> None:
    request = callback("GET", "https://app.example/status?own=1", values)
    assert (request.body, request.headers) == (b"", ())
    query = parse_qsl(urlsplit(request.url).query, keep_blank_values=True)
    assert query == [("own", "1"), *values.items()]
    assert callback("GET", "https://app.example", {"a": "b c"}).url == "https://app.example?a=b+c"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "app.example/status",
        "ftp://app.example/",
        "https://",
        "https://app.example:0/",
        "https://app.example:99999/",
        "https://[::1/",
        "https://user:word@app.example/",
        "https://app.example/#part",
        "https://app.example/a b",
        "https://app.example/a\r\nX-Injected: 1",
        "https://app.example/é",
        "https://app.example/" + "a" * 8192,
    ],
)
def test_what_is_no_callback_url_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(ConfigError, match="the callback's URL") as refusal:
        check_callback_url(url)
    assert "word" not in str(refusal.value)


@pytest.mark.parametrize("header", [("a b", "c"), ("", "c"), ("A", "b\r\nC: d"), ("A", "é")])
def test_headers_cannot_be_injected(header: tuple[str, str]) -> None:
    with pytest.raises(ConfigError, match="is no header"):
        CallbackRequest("POST", "https://app.example/", (header,))


def test_other_methods_are_refused() -> None:
    with pytest.raises(ConfigError, match="right is GET or POST"):
        callback("PUT", "https://app.example/", {})
