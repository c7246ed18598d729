"""Crowds and attackers: what is served stays served, what is refused is told, and nothing is held for long."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import ClassVar

import httpx
import pytest

from klines.app import create_app
from klines.models import Trade
from klines.web.transport.http import Http
from tests.application import serving, serving_app, settings_for
from tests.limits.attackers import ATTACKS, BIG, Good, Opened, attack, open_stream, statements, streams
from tests.limits.clients import PROXY
from tests.live.streams import post
from tests.servers import Database
from tests.service.processes import service

STREAM = "/ws/transactions/PEPE"
TRADE = Trade("PEPE", 1, 1_700_000_100_000_000, "0.5", "2", "buy")
DEADLINE = 60
FEW = pytest.param(120, id="few")


def many(count: int) -> object:
    return pytest.param(count, id="many", marks=pytest.mark.slow)


def port_of(client: httpx.AsyncClient) -> int:
    assert client.base_url.port
    return client.base_url.port


def retried(opened: Opened, status: int) -> bool:
    """Whether it was refused so, and told when to come again."""
    assert opened.status == status, opened.head
    return b"retry-after: " in opened.head.lower()


async def reconnected(port: int, wanted: int, most: int) -> tuple[list[Opened], int]:
    """Many at once, again and again, until so many streams stand; those, and how many upgrades were refused."""
    standing: list[Opened] = []
    refused = 0
    async with asyncio.timeout(DEADLINE):
        while len(standing) < wanted:
            asked = await asyncio.gather(*(open_stream(port, STREAM) for _ in range(most - len(standing))))
            standing += [one for one in asked if one.status == 101]
            assert all(retried(one, 503) for one in asked if one.status != 101)
            refused += sum(one.status != 101 for one in asked)
            for one in asked:
                if one.status != 101:
                    one.cut()
    return standing, refused


@pytest.mark.fault("F32")
@pytest.mark.parametrize("count", [FEW, many(1000)])
async def test_a_crowd_that_comes_back_at_once_is_served_to_the_limit(
    plain: Database, count: int, figures: Callable[..., None]
) -> None:
    limit = count * 4 // 5
    settings = settings_for(plain, max_connections=limit)
    async with serving(settings) as url, httpx.AsyncClient(base_url=url, timeout=DEADLINE) as client:
        await post(client, TRADE)
        async with streams(port_of(client), STREAM, count) as first:
            assert Counter(one.status for one in first) == {101: limit, 503: count - limit}
        began = time.monotonic()
        with statements() as asked:
            standing, refused = await reconnected(port_of(client), limit, count)
            took = time.monotonic() - began
            assert len(standing) == limit
            reading = [statement for statement in asked if "FROM" in statement]
        async with streams(port_of(client), STREAM, 1) as over:
            assert retried(over[0], 503)
        for one in standing:
            one.cut()
    # As many as there are streams and moments, not clients.
    assert len(reading) <= count / 4, Counter(reading)
    figures("F32", clients=count, admitted=limit, refused=refused, statements=len(reading), full_s=took)


@pytest.mark.fault("F32")
async def test_a_crowd_of_one_client_is_admitted_at_its_rate(plain: Database, figures: Callable[..., None]) -> None:
    settings = settings_for(plain, auth="write", klines_trusted_proxies=PROXY, klines_upgrade_limit=60)
    async with serving(settings) as url, httpx.AsyncClient(base_url=url) as client:
        began = time.monotonic()
        with statements() as asked:
            async with streams(port_of(client), "/ws", 150) as crowd:
                told = Counter(one.status for one in crowd)
                took = time.monotonic() - began
                assert set(told) == {101, 429}
                assert 60 <= told[101] <= 61 + took
                assert all(retried(one, 429) for one in crowd if one.status != 101)
        assert (await client.get("/health/live")).status_code == 200
    figures("F32", clients=150, admitted=told[101], refused=told[429], statements=len(asked), took_s=took)


@pytest.mark.fault("F33")
@pytest.mark.parametrize("count", [FEW, many(2000)])
async def test_a_flood_beyond_the_limit_harms_nobody_who_is_served(
    plain: Database, count: int, figures: Callable[..., None]
) -> None:
    settings = settings_for(plain, max_connections=20)
    async with serving(settings) as url, httpx.AsyncClient(base_url=url, timeout=DEADLINE) as client:
        await post(client, TRADE)
        async with streams(port_of(client), STREAM, 20) as served:
            assert {one.status for one in served} == {101}
            began = time.monotonic()
            flood = asyncio.gather(*(open_stream(port_of(client), STREAM) for _ in range(count)))
            await post(client, TRADE._replace(trade_id=7))
            async with asyncio.timeout(DEADLINE):
                for one in served:
                    await one.reader.readuntil(b'"trade_id":7,')
            heard = time.monotonic() - began
            refused = await flood
            took = time.monotonic() - began
            assert all(retried(one, 503) for one in refused)
            for one in refused:
                one.cut()
            assert (await client.get("/health/live")).status_code == 200
    figures("F33", served=20, refused=count, told_after_s=heard, refused_per_s=count / took)


class Brief(Http):
    """The same times, a tenth of them."""

    BEGIN: ClassVar[float] = 1.0
    HEAD: ClassVar[float] = 1.0
    BODY: ClassVar[float] = 1.2
    TAKEN: ClassVar[float] = 1.0


@pytest.mark.fault("F34")
@pytest.mark.parametrize(
    ("kind", "each"), [pytest.param(Brief, 8, id="brief"), pytest.param(Http, 50, id="real", marks=pytest.mark.slow)]
)
async def test_attackers_hold_nothing_for_long_and_others_do_not_feel_it(
    plain: Database, kind: type[Http], each: int, figures: Callable[..., None]
) -> None:
    async with (
        serving_app(create_app(settings_for(plain)), http=kind) as url,
        httpx.AsyncClient(base_url=url, timeout=DEADLINE) as client,
    ):
        await post(client, *(TRADE._replace(trade_id=number) for number in range(5000)))
        assert len((await client.get(BIG)).content) > 400_000
        good = Good(client)
        await good.p99(20)
        alone = await good.p99(100)
        attacks = {how: [asyncio.create_task(attack(port_of(client), how)) for _ in range(each)] for how in ATTACKS}
        beside = await good.p99(100)
        held = {how: max(await asyncio.gather(*tasks)) for how, tasks in attacks.items()}
        after = await good.p99(100)
    assert all(seconds < kind.BODY + 5 for seconds in held.values()), held
    told = {f"{how.replace(' ', '_')}_s": seconds for how, seconds in held.items()}
    figures("F34", attackers=4 * each, p99_alone_s=alone, p99_beside_s=beside, p99_after_s=after, **told)


@pytest.mark.slow
@pytest.mark.fault("F35")
async def test_out_of_open_files_who_comes_is_told_and_later_served(
    plain: Database, figures: Callable[..., None]
) -> None:
    with service("prlimit", "--nofile=256:256", DATABASE_URL=plain.url, MAX_CONNECTIONS="5000") as running:
        url = await asyncio.to_thread(running.url)
        async with httpx.AsyncClient(base_url=url) as client:
            port = port_of(client)
            idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(160)]
            told = [await asyncio.wait_for(reader.read(12), 5) for reader, _ in idle[128:]]
            assert set(told) == {b"HTTP/1.1 503"}
            for _, writer in idle:
                writer.transport.abort()
            began = time.monotonic()
            while not (await client.get("/health/live")).is_success:
                assert time.monotonic() - began < 5
            took = time.monotonic() - began
            assert (await client.get("/api/v1/tokens")).status_code == 200
        running.has_said(lambda line: "connections_exhausted" in line)
    figures("F35", files=256, held=128, refused=len(told), rto_s=took)
