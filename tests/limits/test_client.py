"""Who is taken for the client: what proxies of ours say is believed, what anybody else says is not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from klines.errors import InvalidSettings
from klines.network import networks
from klines.settings import read_settings
from klines.web.admission.client import CLIENT, Clients

TRUSTED = "10.0.0.0/8, 192.0.2.7, 2001:db8:ffff::/48"

# peer, the values of X-Forwarded-For, client
CASES = [
    ("203.0.113.9", (), "203.0.113.9"),
    ("203.0.113.9", ("198.51.100.1",), "203.0.113.9"),
    ("10.1.2.3", (), "10.1.2.3"),
    ("10.1.2.3", ("198.51.100.1",), "198.51.100.1"),
    ("10.1.2.3", ("6.6.6.6, 198.51.100.1",), "198.51.100.1"),
    ("10.1.2.3", ("6.6.6.6", "198.51.100.1"), "198.51.100.1"),
    ("10.1.2.3", ("6.6.6.6, 198.51.100.1, 192.0.2.7",), "198.51.100.1"),
    ("10.1.2.3", ("10.9.9.9, 192.0.2.7",), "10.9.9.9"),
    ("10.1.2.3", ("198.51.100.1:5432",), "198.51.100.1"),
    ("10.1.2.3", ("[2001:db8:1:2:3::4]:5432",), "2001:db8:1:2::/64"),
    ("10.1.2.3", ("198.51.100.1, unknown",), "10.1.2.3"),
    ("10.1.2.3", ("198.51.100.1, unknown, 192.0.2.7",), "192.0.2.7"),
    ("10.1.2.3", ("",), "10.1.2.3"),
    ("192.0.2.8", ("198.51.100.1",), "192.0.2.8"),
    ("2001:db8:ffff::1", ("198.51.100.1",), "198.51.100.1"),
    ("2001:db8:1:2:3:4:5:6", (), "2001:db8:1:2::/64"),
    ("2001:db8:1:2:ffff::1", (), "2001:db8:1:2::/64"),
    ("::ffff:203.0.113.9", (), "203.0.113.9"),
    ("::ffff:10.1.2.3", ("198.51.100.1",), "198.51.100.1"),
    ("fe80::1%eth0", (), "fe80::/64"),
    ("", (), "unknown"),
]


def scope_of(peer: str, told: tuple[str, ...], proto: str | None = None, kind: str = "http") -> dict[str, Any]:
    headers = [(b"x-forwarded-for", value.encode()) for value in told]
    if proto:
        headers.append((b"x-forwarded-proto", proto.encode()))
    return {"type": kind, "client": (peer, 1) if peer else None, "headers": headers, "scheme": "http"}


@pytest.mark.parametrize(("peer", "told", "client"), CASES)
def test_the_client_is_the_last_hop_that_is_no_proxy_of_ours(peer: str, told: tuple[str, ...], client: str) -> None:
    scope = scope_of(peer, told)
    Clients(TRUSTED).note(scope)
    assert scope[CLIENT] == client


@given(told=st.lists(st.text(max_size=60), max_size=5), peer=st.ip_addresses(network="203.0.113.0/24"))
def test_nobody_but_a_proxy_is_believed(told: list[str], peer: Any) -> None:
    for trusted in ("", TRUSTED):
        scope = scope_of(str(peer), ())
        scope["headers"] = [(b"x-forwarded-for", value.encode("utf-8", "replace")) for value in told]
        Clients(trusted).note(scope)
        assert scope[CLIENT] == str(peer)


@given(told=st.text(alphabet="0123456789abcdef:.[], %", max_size=200))
def test_whatever_a_proxy_passes_on_there_is_a_client(told: str) -> None:
    scope = scope_of("10.0.0.1", (told,))
    Clients(TRUSTED).note(scope)
    assert scope[CLIENT]


@pytest.mark.parametrize(
    ("peer", "proto", "kind", "scheme"),
    [
        ("10.0.0.1", "https", "http", "https"),
        ("10.0.0.1", "https", "websocket", "wss"),
        ("10.0.0.1", "wss", "websocket", "wss"),
        ("10.0.0.1", "gopher", "http", "http"),
        ("203.0.113.9", "https", "http", "http"),
    ],
)
def test_the_scheme_is_believed_on_the_same_terms(peer: str, proto: str, kind: str, scheme: str) -> None:
    scope = scope_of(peer, (), proto, kind)
    Clients(TRUSTED).note(scope)
    assert scope["scheme"] == scheme


@pytest.mark.parametrize("text", ["proxy.example", "10.0.0.1/8", "10.0.0.0/33", "1.2.3", "10.0.0.1;10.0.0.2"])
def test_a_bad_proxy_stops_the_start(text: str) -> None:
    with pytest.raises(InvalidSettings, match="KLINES_TRUSTED_PROXIES"):
        read_settings({"KLINES_TRUSTED_PROXIES": text})


def test_proxies_may_be_many_or_none() -> None:
    assert networks("") == ()
    assert len(networks("10.0.0.1, ::1,,10.1.0.0/16 ")) == 3
