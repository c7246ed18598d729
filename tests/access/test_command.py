"""`klines keys` as an operator runs it, and that nothing of a secret stays anywhere."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from click.testing import CliRunner, Result

from klines.cli.keys import keys_group
from klines.credential import NewKey, key_id_of, new_key
from klines.errors import BadRequest, Conflict, NotFound
from tests.access.keys import BODY, READ, STREAM, TICKETS, WRITE, bearer, execute, guarded, made, refused, socket
from tests.servers import Database
from tests.service.processes import klines, service


async def ran(database: Database, *arguments: str) -> Result:
    """Run the command in a thread of this process: a process of its own takes a second each."""
    environment = {"DATABASE_URL": database.url}
    return await asyncio.to_thread(CliRunner().invoke, keys_group, arguments, env=environment)


async def printed(database: Database, *arguments: str) -> NewKey:
    """The key that a command prints: alone on standard output, and only there."""
    ended = await ran(database, *arguments)
    assert ended.exit_code == 0, ended.exception
    text = ended.stdout.removesuffix("\n")
    assert text not in ended.stderr
    return NewKey(key_id_of(text), text)


async def listed(database: Database) -> dict[str, list[str]]:
    """The lines of `klines keys list` by id."""
    ended = await ran(database, "list")
    assert ended.exit_code == 0, ended.exception
    lines = [re.split(r"  +", line) for line in ended.stdout.splitlines()]
    assert lines[0] == ["ID", "SCOPES", "CREATED", "EXPIRES", "LAST USED", "STATE", "NAME"]
    return {line[0]: line[1:] for line in lines[1:]}


async def events(database: Database) -> list[tuple[str, str]]:
    rows = await execute(database, "SELECT key_id, event, who FROM klines_internal.key_events ORDER BY event_id")
    assert all(row["who"] for row in rows)
    return [(row["key_id"], row["event"]) for row in rows]


async def test_the_life_of_a_key(plain: Database) -> None:
    """Made, rotated with both good meanwhile, revoked; every act is on record, those of psql too."""
    async with guarded(plain, "all") as client:

        async def status(key: NewKey) -> int:
            return (await client.get("/api/v3/ping", headers=bearer(key))).status_code

        old = await printed(plain, "create", "the page", "--scopes", "write,read", "--expires", "30d")
        new = await printed(plain, "rotate", old.key_id, "--grace", "1h")
        assert [await status(old), await status(new)] == [200, 200]
        lines = await listed(plain)
        ends = datetime.fromisoformat(lines[old.key_id][2])
        assert timedelta(minutes=58) < ends - datetime.now(UTC) < timedelta(minutes=61)
        lasts = datetime.fromisoformat(lines[new.key_id][2]) - datetime.now(UTC)
        assert timedelta(days=29) < lasts <= timedelta(days=30)
        assert {line[0] for line in lines.values()} == {"read,write"}
        assert {line[-1] for line in lines.values()} == {"the page"}
        assert (await ran(plain, "revoke", new.key_id)).exit_code == 0
        assert (await listed(plain))[new.key_id][-2] == "revoked"
        again = await ran(plain, "rotate", new.key_id)
        assert (type(again.exception), again.stdout) == (Conflict, "")
        assert type((await ran(plain, "revoke", "0" * 12)).exception) is NotFound
    await execute(plain, "UPDATE klines_internal.api_keys SET name = 'renamed' WHERE key_id = $1", old.key_id)
    await execute(plain, "DELETE FROM klines_internal.api_keys WHERE key_id = $1", old.key_id)
    await execute(plain, "TRUNCATE klines_internal.api_keys")
    acts = [("created", old), ("created", new), ("changed", old), ("revoked", new), ("changed", old), ("deleted", old)]
    assert await events(plain) == [*((key.key_id, act) for act, key in acts), (None, "truncated")]
    told = await execute(plain, "SELECT before, after FROM klines_internal.key_events WHERE after->>'name' = 'renamed'")
    assert [tuple(row) for row in told] == [('{"name": "the page"}', '{"name": "renamed"}')]


async def test_the_command_as_a_process(plain: Database) -> None:
    """`KEY=$(klines keys create …)`: the key alone on standard output."""
    ended = await asyncio.to_thread(klines, "keys", "create", "a script", DATABASE_URL=plain.url)
    assert ended.returncode == 0, ended.stderr
    key = key_id_of(ended.stdout.removesuffix("\n"))
    assert ended.stderr.startswith(f"key {key} (read) for a script, good until it is revoked")
    async with guarded(plain, "all") as client:
        answer = await client.get("/api/v3/ping", headers={"X-API-Key": ended.stdout.strip()})
        assert answer.status_code == 200


def test_what_the_command_refuses() -> None:
    """Before it looks for a database, with the code of bad input; what may be a key is not repeated."""
    key = new_key()
    wrong = [
        ("create", ""),
        ("create", "x" * 65),
        ("create", "a\nb"),
        ("create", "x", "--scopes", "read,root"),
        ("create", "x", "--scopes", ""),
        ("create", "x", "--expires", "soon"),
        ("create", "x", "--expires", "2020-01-01T00:00:00Z"),
        ("create", "x", "--expires", "9999999w"),
        ("revoke", "short"),
        ("revoke", key.text),
        ("rotate", key.key_id, "--grace", "-1h"),
    ]
    for arguments in wrong:
        error = CliRunner().invoke(keys_group, arguments, env={"DATABASE_URL": "postgresql:///nowhere"}).exception
        assert isinstance(error, BadRequest), arguments
        assert error.exit_code == 2
        assert key.text not in error.detail


async def test_uses_are_noted_in_batches(plain: Database) -> None:
    used, unused = await made(plain, "read"), await made(plain, "read")
    async with guarded(plain, "all") as client:
        for _ in range(3):
            await client.get("/api/v3/ping", headers=bearer(used))
    noted = "SELECT key_id, last_used_at FROM klines_internal.api_keys WHERE last_used_at IS NOT NULL"
    (row,) = await execute(plain, noted)
    assert row["key_id"] == used.key_id
    # Noted within the last minute already: no second write, and neither is an act on record.
    async with guarded(plain, "all") as client:
        await client.get("/api/v3/ping", headers=bearer(used))
    assert await execute(plain, noted) == [row]
    assert await events(plain) == [(used.key_id, "created"), (unused.key_id, "created")]


async def test_keys_are_bounded(
    plain: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The command makes no more than a service knows; of more, made by hand, the newest count."""
    monkeypatch.setattr("klines.cli.keys.MAX_KEYS", 2)
    monkeypatch.setattr("klines.keyring.MAX_KEYS", 2)
    old, *newest = [await made(plain, "read") for _ in range(3)]
    assert type((await ran(plain, "create", "one more")).exception) is Conflict
    async with guarded(plain, "all") as client:
        answers = [await client.get("/api/v3/ping", headers=bearer(key)) for key in (old, *newest)]
    assert [answer.status_code for answer in answers] == [401, 200, 200]
    assert "more than 2 good API keys" in caplog.text


async def test_the_record_is_only_added_to(plain: Database) -> None:
    await made(plain, "read")
    for statement in ("UPDATE klines_internal.key_events SET who = 'x'", "DELETE FROM klines_internal.key_events"):
        with pytest.raises(Exception, match="only added to"):
            await execute(plain, statement)


@pytest.mark.slow
async def test_a_secret_stays_nowhere(plain: Database) -> None:
    """Shown in every way, good and bad, at the most talkative level: neither logs, answers nor tables have it."""
    key = await made(plain, "read", "write")
    wrong = key.text[:-1] + ("0" if key.text[-1] != "0" else "1")
    secret = key.text[20:50]
    environment = {"AUTH": "all", "LOG_LEVEL": "debug", "KLINES_LOGIN_LIMIT": "0"}
    bodies, shown = [], []
    with service(DATABASE_URL=plain.url, **environment) as running:
        async with httpx.AsyncClient(base_url=running.url()) as client:
            await client.post(WRITE, json=BODY, headers=bearer(key))
            for text in (key.text, wrong):
                fields = {"Authorization": f"Bearer {text}", "X-API-Key": text, "X-MBX-APIKEY": text}
                for one in [fields, *({name: value} for name, value in fields.items())]:
                    bodies += [
                        (await client.get(path, headers=one)).text for path in (READ, "/api/v3/ping", "/nothing")
                    ]
                for path in (READ, "/api/v3/ping", f"/api/v1/tokens/{text}", "/udf/history"):
                    bodies.append((await client.get(path, params={"token": text, "symbol": text})).text)
                await refused(client, f"{STREAM}?token={text}")
                await refused(client, f"{STREAM}?ticket={text}")
            for _ in range(2):
                shown.append((await client.post(TICKETS, headers=bearer(key))).json()["ticket"])
            async with socket(client, f"{STREAM}?ticket={shown[0]}"), socket(client, "/ws", key):
                pass
            await refused(client, f"/ws?ticket={shown[0]}")
            with suppress(AssertionError):
                await refused(client, f"/ws?ticket={shown[1]}&nonsense=1")
        list_output = await ran(plain, "list")
        running.stop()
    tables = await execute(
        plain,
        "SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace IN"
        " ('klines_internal'::regnamespace, 'public'::regnamespace)",
    )
    stored = [row for (name,) in tables for row in await execute(plain, f"SELECT t::text FROM {name} AS t")]
    for hidden in (secret, *(ticket[10:40] for ticket in shown)):
        assert hidden not in running.log, [line for line in running.log.splitlines() if hidden in line][:3]
        assert hidden not in list_output.stdout + list_output.stderr
        assert not any(hidden in str(row) for row in stored)
        assert not any(hidden in body for body in bodies)
