"""The SQL of a copy. `source` statements only read; `target` statements run on the database that is filled.

A number that a client may see is compared as text without superfluous zeros; days are UTC.
"""

from __future__ import annotations

from typing import LiteralString

from klines.interval import Interval

# The bounds of what the schema allows, so that none has to be infinite.
BEGINNING, END = "2009-01-01 00:00:00+00", "2200-01-01 00:00:00+00"

# --- Which database this is, and whose copy

IDENTITY: LiteralString = """
    SELECT system_identifier || '/' || (SELECT oid FROM pg_database WHERE datname = current_database())
    FROM pg_control_system()
"""
HAS_TABLES: LiteralString = "SELECT to_regclass('klines_internal.retention') IS NOT NULL"
ORIGIN: LiteralString = "SELECT obj_description('klines_internal.retention'::regclass, 'pg_class')"
IS_EMPTY: LiteralString = "SELECT NOT EXISTS (SELECT FROM public.tokens)"
ALONE: LiteralString = "SELECT pg_try_advisory_lock($1)"

# Held as long as the copy: forgetting, which begins with an update of this row, waits, and nothing else does.
HOLD_FLOOR: LiteralString = "SELECT greatest(floor, '2009-01-01Z') FROM klines_internal.retention FOR SHARE"
FLOOR: LiteralString = "SELECT greatest(floor, '2009-01-01Z') FROM klines_internal.retention"
RAISE_FLOOR: LiteralString = "UPDATE klines_internal.retention SET floor = greatest(floor, $1)"

STAGE: LiteralString = """
    CREATE TEMP TABLE incoming_tokens (LIKE public.tokens);
    CREATE TEMP TABLE incoming_trades (LIKE public.trades);
    CREATE TEMP TABLE incoming_bars (LIKE klines_internal.live_klines);
    CREATE TEMP TABLE incoming_feeds (LIKE klines_internal.feeds);
    CREATE TEMP TABLE incoming_keys (LIKE klines_internal.api_keys);
"""

# --- Tokens and keys

TOKENS: LiteralString = "SELECT * FROM public.tokens WHERE token_id > $1 ORDER BY token_id LIMIT $2"
LAST_TOKEN: LiteralString = "SELECT coalesce(max(token_id), 0) FROM pg_temp.incoming_tokens"
# In the order of their ids, so that a fresh database mostly gives the same ones.
PUT_TOKENS: LiteralString = """
    INSERT INTO public.tokens AS t (symbol, name, base, quote, decimals, supply, metadata, created_at, updated_at)
    SELECT symbol, name, base, quote, decimals, supply, metadata, created_at, updated_at
    FROM pg_temp.incoming_tokens ORDER BY token_id
    ON CONFLICT (symbol) DO UPDATE SET
        name = excluded.name, base = excluded.base, quote = excluded.quote, decimals = excluded.decimals,
        supply = excluded.supply, metadata = excluded.metadata, updated_at = excluded.updated_at
    WHERE (t.name, t.base, t.quote, t.decimals, t.supply, t.metadata)
        IS DISTINCT FROM
          (excluded.name, excluded.base, excluded.quote, excluded.decimals, excluded.supply, excluded.metadata)
"""
PAIRS: LiteralString = """
    SELECT symbol, source.token_id AS source_id, target.token_id AS target_id
    FROM pg_temp.incoming_tokens AS source JOIN public.tokens AS target USING (symbol) ORDER BY source.token_id
"""
FOREIGN_TOKEN: LiteralString = """
    SELECT symbol FROM public.tokens WHERE symbol NOT IN (SELECT symbol FROM pg_temp.incoming_tokens) LIMIT 1
"""
KEYS: LiteralString = "SELECT * FROM klines_internal.api_keys"
PUT_KEYS: LiteralString = """
    INSERT INTO klines_internal.api_keys AS k
        (key_id, digest, name, scopes, created_at, expires_at, revoked_at, last_used_at)
    SELECT key_id, digest, name, scopes, created_at, expires_at, revoked_at, last_used_at
    FROM pg_temp.incoming_keys ORDER BY created_at
    ON CONFLICT (key_id) DO UPDATE SET
        digest = excluded.digest, name = excluded.name, scopes = excluded.scopes, expires_at = excluded.expires_at,
        revoked_at = excluded.revoked_at
    WHERE (k.digest, k.name, k.scopes, k.expires_at, k.revoked_at)
        IS DISTINCT FROM (excluded.digest, excluded.name, excluded.scopes, excluded.expires_at, excluded.revoked_at)
"""

# --- Trades

SEQUENCES: LiteralString = "SELECT token_id, sequence FROM klines_internal.feeds"
COUNT: LiteralString = "SELECT count(*) FROM public.trades WHERE time >= $1"
DAYS: LiteralString = """
    SELECT date_bin('1 day', time, '2000-01-01 00:00:00+00') AS day, count(*)
    FROM public.trades WHERE token_id = $1 AND time >= $2 GROUP BY 1 ORDER BY 1
"""
TRADES: LiteralString = """
    SELECT $1::integer, trade_id, time, price, amount, side FROM public.trades
    WHERE token_id = $2 AND time >= $3 AND time < $4 AND (time, trade_id) > ($3, $5::bigint)
    ORDER BY time, trade_id LIMIT $6
"""
LAST_TRADE: LiteralString = """
    SELECT time, trade_id FROM pg_temp.incoming_trades ORDER BY time DESC, trade_id DESC LIMIT 1
"""
PUT_TRADES: LiteralString = """
    INSERT INTO public.trades SELECT * FROM pg_temp.incoming_trades ORDER BY token_id, time, trade_id
    ON CONFLICT DO NOTHING
"""

# --- Bars whose trades were forgotten

# A token may have nothing left but such bars: what its last trade was is told by its feed.
FEED: LiteralString = """
    SELECT $1::integer, 0::bigint, last_time, last_trade_id, last_price FROM klines_internal.feeds WHERE token_id = $2
"""
PUT_FEED: LiteralString = """
    INSERT INTO klines_internal.feeds SELECT * FROM pg_temp.incoming_feeds ON CONFLICT DO NOTHING
"""
# The days of a token's bars are its bars of a day.
DAYS_OF_BARS: LiteralString = """
    SELECT time FROM public.klines_1d
    WHERE token_id = $1 AND time >= date_bin('1 day', $2, '2000-01-01 00:00:00+00') AND time < $3 ORDER BY time
"""
LOCK_FEED: LiteralString = "SELECT FROM klines_internal.feeds WHERE token_id = $1 FOR UPDATE"


def forgotten_bars(interval: Interval) -> str:
    """What the trades before the floor ($5) are worth of the bars that open in [$3, $4): read on the source.

    All of a bar that ended by the floor; of one that it cuts, the rest that the kept trades leave. That rest is the
    same whatever trades are still to come, and folding the kept ones into it makes the bar: sums add up, the highest
    and lowest price of the whole bar stay what they are, and every forgotten trade is older than every kept one.
    """
    width = interval.seconds
    return f"""
        WITH cut AS MATERIALIZED (
            SELECT klines_internal.open_time({width}, $5) AS time
        ), kept AS MATERIALIZED (
            SELECT k.* FROM cut, klines_internal.fold_of_trades_v1($2, {width}, $5,
                cut.time + make_interval(secs => {width})) AS k
        )
        SELECT $1::integer, {width}, b.time, b.open, b.high, b.low,
               CASE WHEN k.time IS NULL THEN b.close ELSE b.open END,
               b.volume - coalesce(k.volume, 0), b.quote_volume - coalesce(k.quote_volume, 0),
               b.trades - coalesce(k.trades, 0), b.buy_volume - coalesce(k.buy_volume, 0),
               b.buy_quote_volume - coalesce(k.buy_quote_volume, 0), b.first_trade_id,
               CASE WHEN k.time IS NULL THEN b.last_trade_id ELSE b.first_trade_id END, b.time, b.time
        FROM public.{interval.relation} AS b LEFT JOIN kept AS k ON k.time = b.time
        WHERE b.token_id = $2 AND b.time >= $3 AND b.time < $4
          AND b.trades > coalesce(k.trades, 0)
    """  # noqa: S608 - names of our own, here and below


# With the kept trades that are here already folded in again: a copy may have been cut off, and the floor have moved.
PUT_BARS: LiteralString = """
    INSERT INTO klines_internal.live_klines
    SELECT i.token_id, i.seconds, i.time, i.open, greatest(i.high, f.high), least(i.low, f.low),
           coalesce(f.close, i.close), i.volume + coalesce(f.volume, 0), i.quote_volume + coalesce(f.quote_volume, 0),
           i.trades + coalesce(f.trades, 0), i.buy_volume + coalesce(f.buy_volume, 0),
           i.buy_quote_volume + coalesce(f.buy_quote_volume, 0), i.first_trade_id,
           coalesce(f.last_trade_id, i.last_trade_id), i.first_time, coalesce(f.last_time, i.last_time)
    FROM pg_temp.incoming_bars AS i
    LEFT JOIN LATERAL klines_internal.fold_of_trades_v1(
        i.token_id, i.seconds, $1, i.time + make_interval(secs => i.seconds)
    ) AS f ON i.time + make_interval(secs => i.seconds) > $1
    ON CONFLICT (token_id, seconds, time) DO UPDATE SET
        open = excluded.open, high = excluded.high, low = excluded.low, close = excluded.close,
        volume = excluded.volume, quote_volume = excluded.quote_volume, trades = excluded.trades,
        buy_volume = excluded.buy_volume, buy_quote_volume = excluded.buy_quote_volume,
        first_trade_id = excluded.first_trade_id, last_trade_id = excluded.last_trade_id,
        first_time = excluded.first_time, last_time = excluded.last_time
"""

# --- Comparison

_NUMBERS = ("open", "high", "low", "close", "volume", "quote_volume", "buy_volume", "buy_quote_volume")
_COUNTS = ("trades", "first_trade_id", "last_trade_id")
_ROW = f"concat_ws(' ', {', '.join([f'trim_scale({name})' for name in _NUMBERS] + list(_COUNTS))})"


def digests(interval: Interval) -> str:
    """A token's ($1) days in [$2, $3): how many bars each has, and a digest of them."""
    return f"""
        SELECT date_bin('1 day', time, '2000-01-01 00:00:00+00') AS day, count(*),
               sha256(convert_to(string_agg(extract(epoch FROM time) || ' ' || {_ROW}, ';' ORDER BY time), 'UTF8'))
        FROM public.{interval.relation} WHERE token_id = $1 AND time >= $2 AND time < $3 GROUP BY 1 ORDER BY 1
    """  # noqa: S608


def bars(interval: Interval) -> str:
    """A token's ($1) bars in [$2, $3) as text."""
    return f"""
        SELECT time, {_ROW} FROM public.{interval.relation}
        WHERE token_id = $1 AND time >= $2 AND time < $3 ORDER BY time
    """  # noqa: S608
