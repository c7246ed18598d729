-- The intervals, finest first. `seam`: live bars that begin at or after it have never been deleted; older ones may
-- have retired into `aggregate`. `keep`: how far behind the clock the seam follows (the hot set of most requests).
CREATE TABLE klines_internal.levels (
    seconds   integer PRIMARY KEY,
    relation  text NOT NULL UNIQUE,
    keep      interval NOT NULL,
    seam      timestamptz NOT NULL DEFAULT '-infinity',
    aggregate text
);

INSERT INTO klines_internal.levels (seconds, relation, keep) VALUES
    (1,     'klines_1s',  INTERVAL '2 hours'),
    (60,    'klines_1m',  INTERVAL '4 days'),
    (300,   'klines_5m',  INTERVAL '16 days'),
    (900,   'klines_15m', INTERVAL '48 days'),
    (3600,  'klines_1h',  INTERVAL '120 days'),
    (14400, 'klines_4h',  INTERVAL '400 days'),
    (86400, 'klines_1d',  INTERVAL '1000 days');

-- Bars as the trigger keeps them, for all intervals. The times of the first and the last trade are what makes two
-- bars of one bucket mergeable: (time, trade_id) decides open and close.
CREATE TABLE klines_internal.live_klines (
    token_id         integer NOT NULL,
    seconds          integer NOT NULL,
    time             timestamptz NOT NULL,
    open             numeric NOT NULL,
    high             numeric NOT NULL,
    low              numeric NOT NULL,
    close            numeric NOT NULL,
    volume           numeric NOT NULL,
    quote_volume     numeric NOT NULL,
    trades           bigint NOT NULL,
    buy_volume       numeric NOT NULL,
    buy_quote_volume numeric NOT NULL,
    first_trade_id   bigint NOT NULL,
    last_trade_id    bigint NOT NULL,
    first_time       timestamptz NOT NULL,
    last_time        timestamptz NOT NULL,
    PRIMARY KEY (token_id, seconds, time)
) WITH (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1);

-- One row per token with trades. Its lock serialises the writers of a token until they commit, so `sequence` counts
-- trades in commit order; taken in token order, it cannot deadlock.
CREATE TABLE klines_internal.feeds (
    token_id      integer PRIMARY KEY REFERENCES public.tokens,
    sequence      bigint NOT NULL,
    last_time     timestamptz NOT NULL,
    last_trade_id bigint NOT NULL,
    last_price    numeric NOT NULL
) WITH (fillfactor = 50);

-- Trades older than `floor` were forgotten; new ones there would make bars of what is left.
CREATE TABLE klines_internal.retention (
    floor timestamptz NOT NULL
);
INSERT INTO klines_internal.retention VALUES ('-infinity');

CREATE FUNCTION klines_internal.open_time(seconds integer, at timestamptz) RETURNS timestamptz
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN date_bin(make_interval(secs => seconds), at, '2000-01-01 00:00:00+00'::timestamptz);

-- Folds a statement's trades into the live bars of every interval, in the writer's own transaction.
CREATE FUNCTION klines_internal.fold_trades_v1() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    earliest timestamptz;
    latest   timestamptz;
    changed  text;
    level    record;
BEGIN
    -- First the token locks: everything below then sees what earlier writers of these tokens committed.
    WITH batch AS (
        SELECT token_id, count(*) AS trades, max(time) AS last_time
        FROM inserted GROUP BY token_id
    ), latest AS (
        SELECT DISTINCT ON (b.token_id) b.token_id, b.trades, i.time, i.trade_id, i.price
        FROM batch b JOIN inserted i ON i.token_id = b.token_id AND i.time = b.last_time
        ORDER BY b.token_id, i.trade_id DESC
    ), locked AS (
        INSERT INTO klines_internal.feeds AS f (token_id, sequence, last_time, last_trade_id, last_price)
        SELECT token_id, trades, time, trade_id, price FROM latest ORDER BY token_id
        ON CONFLICT (token_id) DO UPDATE SET
            sequence = f.sequence + excluded.sequence,
            last_price = CASE WHEN (excluded.last_time, excluded.last_trade_id) > (f.last_time, f.last_trade_id)
                              THEN excluded.last_price ELSE f.last_price END,
            last_trade_id = CASE WHEN (excluded.last_time, excluded.last_trade_id) > (f.last_time, f.last_trade_id)
                                 THEN excluded.last_trade_id ELSE f.last_trade_id END,
            last_time = greatest(f.last_time, excluded.last_time)
        RETURNING f.token_id
    )
    SELECT string_agg(token_id::text, ',' ORDER BY token_id) INTO changed FROM locked;
    IF changed IS NULL THEN
        RETURN NULL;
    END IF;

    SELECT min(time), max(time) INTO earliest, latest FROM inserted;
    -- A trade that never could be taken back must not be the last one for days.
    IF latest > clock_timestamp() + INTERVAL '1 hour' THEN
        RAISE EXCEPTION 'a trade at % lies in the future', latest
            USING ERRCODE = 'check_violation', CONSTRAINT = 'trades_time_not_future', TABLE = 'trades';
    END IF;
    IF earliest < (SELECT floor FROM klines_internal.retention) THEN
        RAISE EXCEPTION 'a trade at % is older than the retained trades', earliest
            USING ERRCODE = 'check_violation', CONSTRAINT = 'trades_not_forgotten', TABLE = 'trades';
    END IF;

    -- A late trade's bar may have retired: bring it back, so that the merge below has all of it.
    FOR level IN SELECT * FROM klines_internal.levels WHERE seam > earliest ORDER BY seconds LOOP
        -- An older snapshot may miss rows of an aggregate that was recompressed since.
        IF current_setting('transaction_isolation') <> 'read committed' THEN
            RAISE EXCEPTION 'a late trade must be written in READ COMMITTED' USING ERRCODE = 'serialization_failure';
        END IF;
        EXECUTE format($late$
            INSERT INTO klines_internal.live_klines
            SELECT a.token_id, $1, a.time, a.open, a.high, a.low, a.close, a.volume, a.quote_volume, a.trades,
                   a.buy_volume, a.buy_quote_volume, a.first_trade_id, a.last_trade_id, a.first_time, a.last_time
            FROM (
                SELECT DISTINCT token_id, klines_internal.open_time($1, time) AS time FROM inserted WHERE time < $2
            ) AS late
            JOIN %s AS a USING (token_id, time)
            WHERE a.time >= klines_internal.open_time($1, $3) AND a.time < $2
            ORDER BY a.token_id, a.time
            ON CONFLICT DO NOTHING
        $late$, level.aggregate) USING level.seconds, level.seam, earliest;
    END LOOP;

    -- Seconds from the trades, minutes from the seconds, the rest from the minutes: all exact, all mergeable.
    WITH second AS MATERIALIZED (
        SELECT token_id, klines_internal.open_time(1, time) AS time,
               (array_agg(price ORDER BY time, trade_id))[1] AS open, max(price) AS high, min(price) AS low,
               (array_agg(price ORDER BY time, trade_id))[count(*)] AS close,
               sum(amount) AS volume, sum(price * amount) AS quote_volume, count(*) AS trades,
               coalesce(sum(amount) FILTER (WHERE side = 'buy'), 0) AS buy_volume,
               coalesce(sum(price * amount) FILTER (WHERE side = 'buy'), 0) AS buy_quote_volume,
               (array_agg(trade_id ORDER BY time, trade_id))[1] AS first_trade_id,
               (array_agg(trade_id ORDER BY time, trade_id))[count(*)] AS last_trade_id,
               min(time) AS first_time, max(time) AS last_time
        FROM inserted GROUP BY 1, 2
    ), minute AS MATERIALIZED (
        SELECT token_id, klines_internal.open_time(60, time) AS time,
               (array_agg(open ORDER BY time))[1] AS open, max(high) AS high, min(low) AS low,
               (array_agg(close ORDER BY time))[count(*)] AS close,
               sum(volume) AS volume, sum(quote_volume) AS quote_volume, sum(trades)::bigint AS trades,
               sum(buy_volume) AS buy_volume, sum(buy_quote_volume) AS buy_quote_volume,
               (array_agg(first_trade_id ORDER BY time))[1] AS first_trade_id,
               (array_agg(last_trade_id ORDER BY time))[count(*)] AS last_trade_id,
               min(first_time) AS first_time, max(last_time) AS last_time
        FROM second GROUP BY 1, 2
    ), coarser AS (
        SELECT m.token_id, l.seconds, klines_internal.open_time(l.seconds, m.time) AS time,
               (array_agg(open ORDER BY m.time))[1] AS open, max(high) AS high, min(low) AS low,
               (array_agg(close ORDER BY m.time))[count(*)] AS close,
               sum(volume) AS volume, sum(quote_volume) AS quote_volume, sum(trades)::bigint AS trades,
               sum(buy_volume) AS buy_volume, sum(buy_quote_volume) AS buy_quote_volume,
               (array_agg(first_trade_id ORDER BY m.time))[1] AS first_trade_id,
               (array_agg(last_trade_id ORDER BY m.time))[count(*)] AS last_trade_id,
               min(first_time) AS first_time, max(last_time) AS last_time
        FROM minute m CROSS JOIN klines_internal.levels l WHERE l.seconds > 60 GROUP BY 1, 2, 3
    )
    INSERT INTO klines_internal.live_klines AS k
    SELECT token_id, 1, time, open, high, low, close, volume, quote_volume, trades, buy_volume, buy_quote_volume,
           first_trade_id, last_trade_id, first_time, last_time FROM second
    UNION ALL
    SELECT token_id, 60, time, open, high, low, close, volume, quote_volume, trades, buy_volume, buy_quote_volume,
           first_trade_id, last_trade_id, first_time, last_time FROM minute
    UNION ALL
    SELECT * FROM coarser
    ORDER BY 1, 2, 3
    ON CONFLICT (token_id, seconds, time) DO UPDATE SET
        open = CASE WHEN (excluded.first_time, excluded.first_trade_id) < (k.first_time, k.first_trade_id)
                    THEN excluded.open ELSE k.open END,
        high = greatest(k.high, excluded.high),
        low = least(k.low, excluded.low),
        close = CASE WHEN (excluded.last_time, excluded.last_trade_id) > (k.last_time, k.last_trade_id)
                     THEN excluded.close ELSE k.close END,
        volume = k.volume + excluded.volume,
        quote_volume = k.quote_volume + excluded.quote_volume,
        trades = k.trades + excluded.trades,
        buy_volume = k.buy_volume + excluded.buy_volume,
        buy_quote_volume = k.buy_quote_volume + excluded.buy_quote_volume,
        first_trade_id = CASE WHEN (excluded.first_time, excluded.first_trade_id) < (k.first_time, k.first_trade_id)
                              THEN excluded.first_trade_id ELSE k.first_trade_id END,
        last_trade_id = CASE WHEN (excluded.last_time, excluded.last_trade_id) > (k.last_time, k.last_trade_id)
                             THEN excluded.last_trade_id ELSE k.last_trade_id END,
        first_time = least(k.first_time, excluded.first_time),
        last_time = greatest(k.last_time, excluded.last_time);

    -- A doorbell: which tokens changed. Too many for one payload (8000 bytes): all of them.
    PERFORM pg_notify('klines_v1', CASE WHEN octet_length(changed) < 7900 THEN changed ELSE '*' END);
    RETURN NULL;
END;
$$;

CREATE TRIGGER trades_fold
    AFTER INSERT ON public.trades
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION klines_internal.fold_trades_v1();

-- The bars of one token that the raw trades of [since, until) make: what every other path must be equal to.
CREATE FUNCTION klines_internal.fold_of_trades_v1(
    token integer, seconds integer, since timestamptz, until timestamptz
) RETURNS SETOF klines_internal.live_klines
    LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT t.token_id, $2, klines_internal.open_time($2, t.time),
           (array_agg(t.price ORDER BY t.time, t.trade_id))[1], max(t.price), min(t.price),
           (array_agg(t.price ORDER BY t.time, t.trade_id))[count(*)],
           sum(t.amount), sum(t.price * t.amount), count(*),
           coalesce(sum(t.amount) FILTER (WHERE t.side = 'buy'), 0),
           coalesce(sum(t.price * t.amount) FILTER (WHERE t.side = 'buy'), 0),
           (array_agg(t.trade_id ORDER BY t.time, t.trade_id))[1],
           (array_agg(t.trade_id ORDER BY t.time, t.trade_id))[count(*)],
           min(t.time), max(t.time)
    FROM public.trades AS t
    WHERE t.token_id = $1 AND t.time >= $3 AND t.time < $4
    GROUP BY 1, 3
$$;
