"""What needs no service: which mode holds, and what is a key."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klines.credential import key_id_of, new_key
from klines.errors import InvalidSettings, Unauthorized
from klines.settings import read_settings


def test_which_mode_holds() -> None:
    modes = {
        ("", "127.0.0.1", ""): "open",
        ("", "::1", ""): "open",
        ("", "localhost", ""): "open",
        ("", "0.0.0.0", ""): "write",  # noqa: S104
        ("", "::", ""): "write",
        ("", "127.0.0.1", "10.0.0.1"): "write",
        ("", "example.org", ""): "write",
        ("all", "127.0.0.1", ""): "all",
        ("open", "127.0.0.2", ""): "open",
    }
    for (auth, host, proxies), expected in modes.items():
        settings = read_settings({"AUTH": auth, "HOST": host, "KLINES_TRUSTED_PROXIES": proxies})
        assert settings.authority == expected, (auth, host, proxies)
    for environ in ({"HOST": "0.0.0.0"}, {"KLINES_TRUSTED_PROXIES": "10.0.0.1"}):  # noqa: S104
        with pytest.raises(InvalidSettings, match="AUTH=open"):
            read_settings({"AUTH": "open"} | environ)


@given(st.text())
def test_any_text_is_a_key_or_refused(text: str) -> None:
    with pytest.raises(Unauthorized):
        key_id_of(text)
    with pytest.raises(Unauthorized):
        key_id_of("klk_" + text)


def test_keys_are_told_from_typos() -> None:
    key = new_key()
    assert key_id_of(key.text) == key.key_id
    for place in range(len(key.text)):
        wrong = key.text[:place] + ("0" if key.text[place] != "0" else "1") + key.text[place + 1 :]
        with pytest.raises(Unauthorized):
            key_id_of(wrong)
    for wrong in (key.text[:-1], key.text + "0", key.text + "\n", " " + key.text, key.text.upper(), ""):
        with pytest.raises(Unauthorized):
            key_id_of(wrong)
    assert len({new_key().text for _ in range(1000)}) == 1000
