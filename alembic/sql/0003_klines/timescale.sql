-- Continuous aggregates say the same as the fold, from the raw trades: seconds from trades, minutes from seconds, and
-- so on. They hold what is older than the seam; `WITH NO DATA`, because policies fill them in batches.
CREATE MATERIALIZED VIEW klines_internal.aggregate_1s
    WITH (timescaledb.continuous, timescaledb.materialized_only = true) AS
SELECT token_id, public.time_bucket(INTERVAL '1 second', time) AS time,
       (array_agg(price ORDER BY time, trade_id))[1] AS open, max(price) AS high, min(price) AS low,
       (array_agg(price ORDER BY time, trade_id))[count(*)] AS close,
       sum(amount) AS volume, sum(price * amount) AS quote_volume, count(*) AS trades,
       coalesce(sum(amount) FILTER (WHERE side = 'buy'), 0) AS buy_volume,
       coalesce(sum(price * amount) FILTER (WHERE side = 'buy'), 0) AS buy_quote_volume,
       (array_agg(trade_id ORDER BY time, trade_id))[1] AS first_trade_id,
       (array_agg(trade_id ORDER BY time, trade_id))[count(*)] AS last_trade_id,
       min(time) AS first_time, max(time) AS last_time
FROM public.trades
GROUP BY token_id, public.time_bucket(INTERVAL '1 second', time)
WITH NO DATA;

UPDATE klines_internal.levels SET aggregate = 'klines_internal.' || replace(relation, 'klines', 'aggregate');

-- The time of a finer bar is unique in its token, so first() and last() are exact from here on.
DO $$
DECLARE
    level record;
BEGIN
    FOR level IN
        SELECT aggregate, seconds, lag(aggregate) OVER (ORDER BY seconds) AS finer FROM klines_internal.levels
        ORDER BY seconds OFFSET 1
    LOOP
        EXECUTE format($aggregate$
            CREATE MATERIALIZED VIEW %s
                WITH (timescaledb.continuous, timescaledb.materialized_only = true) AS
            SELECT token_id, public.time_bucket(INTERVAL '%s seconds', time) AS time,
                   public.first(open, time) AS open, max(high) AS high, min(low) AS low,
                   public.last(close, time) AS close,
                   sum(volume) AS volume, sum(quote_volume) AS quote_volume, sum(trades)::bigint AS trades,
                   sum(buy_volume) AS buy_volume, sum(buy_quote_volume) AS buy_quote_volume,
                   public.first(first_trade_id, time) AS first_trade_id,
                   public.last(last_trade_id, time) AS last_trade_id,
                   min(first_time) AS first_time, max(last_time) AS last_time
            FROM %s
            GROUP BY token_id, public.time_bucket(INTERVAL '%s seconds', time)
            WITH NO DATA
        $aggregate$, level.aggregate, level.seconds, level.finer, level.seconds);
    END LOOP;
END;
$$;

-- Seconds are most of the bars: as rows they can outgrow the trades they summarise.
ALTER MATERIALIZED VIEW klines_internal.aggregate_1s SET (
    timescaledb.enable_columnstore = true,
    timescaledb.segmentby = 'token_id',
    timescaledb.orderby = 'time'
);
CALL public.add_columnstore_policy('klines_internal.aggregate_1s', after => INTERVAL '7 days');

-- Hot: what is about to reach the seam. Its end lies far behind the live trades, so that they never write to the
-- invalidation log. Late: everything older that changed. A late trade is not waited for: its bar is live again.
SELECT public.add_continuous_aggregate_policy(
           aggregate::regclass, start_offset => keep * 2, end_offset => keep / 2,
           schedule_interval => greatest(INTERVAL '5 minutes', least(keep / 24, INTERVAL '1 hour')),
           buckets_per_batch => 3600),
       public.add_continuous_aggregate_policy(
           aggregate::regclass, start_offset => NULL, end_offset => keep * 2,
           schedule_interval => INTERVAL '10 minutes', buckets_per_batch => 3600)
FROM klines_internal.levels ORDER BY seconds;

-- A bar that is live wins over its aggregate: above the seam always, below it where a late trade brought it back.
-- The two sides have names of their own, because a reader with a LIMIT wants it inside each of them.
DO $$
DECLARE
    level record;
BEGIN
    FOR level IN SELECT * FROM klines_internal.levels LOOP
        EXECUTE format($view$
            CREATE VIEW klines_internal.%I AS
            SELECT token_id, time, open, high, low, close, volume, quote_volume, trades,
                   buy_volume, buy_quote_volume, first_trade_id, last_trade_id
            FROM %s AS a
            WHERE time < (SELECT seam FROM klines_internal.levels WHERE seconds = %s)
              AND NOT EXISTS (
                  SELECT FROM klines_internal.live_klines AS k
                  WHERE k.seconds = %s AND k.token_id = a.token_id AND k.time = a.time
              )
        $view$, replace(level.relation, 'klines', 'retired'), level.aggregate, level.seconds, level.seconds);
    END LOOP;
END;
$$;

-- Bars in which the fold and the raw trades disagreed. None is expected; each is corrected, kept and counted.
CREATE TABLE klines_internal.disagreements (
    found_at timestamptz NOT NULL DEFAULT now(),
    token_id integer NOT NULL,
    seconds  integer NOT NULL,
    time     timestamptz NOT NULL,
    folded   jsonb NOT NULL,
    truth    jsonb NOT NULL
);

-- Retires up to `batch` bars of one token and interval: deletes the live ones whose aggregate says the same, and has
-- the raw trades judge where it says something else. Returns how far it came, NULL at the seam.
CREATE FUNCTION klines_internal.retire_batch_v1(level klines_internal.levels, token integer, after timestamptz, batch integer)
    RETURNS timestamptz LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    until timestamptz;
    wrong bigint;
BEGIN
    -- A token whose writer takes its time is left for the next run: nobody waits for it here.
    PERFORM FROM klines_internal.feeds WHERE token_id = token FOR UPDATE SKIP LOCKED;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    -- The writers' lock, and as an update: a writer on an older snapshot fails instead of missing what is deleted.
    UPDATE klines_internal.feeds SET sequence = sequence WHERE token_id = token;
    SELECT max(time) INTO until FROM (
        SELECT time FROM klines_internal.live_klines
        WHERE token_id = token AND seconds = level.seconds AND time > after AND time < level.seam
        ORDER BY time LIMIT batch
    ) AS next;

    EXECUTE format($retire$
        DELETE FROM klines_internal.live_klines AS k USING %s AS a
        WHERE k.token_id = $1 AND k.seconds = $2 AND k.time > $3 AND k.time <= $4
          AND a.token_id = $1 AND a.time > $3 AND a.time <= $4 AND a.time = k.time
          AND (a.open, a.high, a.low, a.close, a.volume, a.quote_volume, a.trades, a.buy_volume, a.buy_quote_volume,
               a.first_trade_id, a.last_trade_id, a.first_time, a.last_time)
            = (k.open, k.high, k.low, k.close, k.volume, k.quote_volume, k.trades, k.buy_volume, k.buy_quote_volume,
               k.first_trade_id, k.last_trade_id, k.first_time, k.last_time)
    $retire$, level.aggregate) USING token, level.seconds, after, until;

    -- Usually the aggregate is merely not refreshed yet; then the fold and the trades are equal and nothing happens.
    EXECUTE format($judge$
        WITH suspect AS (
            SELECT k.* FROM klines_internal.live_klines AS k JOIN %s AS a ON a.token_id = k.token_id AND a.time = k.time
            WHERE k.token_id = $1 AND k.seconds = $2 AND k.time > $3 AND k.time <= $4
              AND k.time >= (SELECT floor FROM klines_internal.retention)
            ORDER BY k.time LIMIT 100
        ), wrong AS (
            SELECT to_jsonb(s) AS folded, t.* FROM suspect AS s
            JOIN LATERAL klines_internal.fold_of_trades_v1(
                s.token_id, s.seconds, s.time, s.time + make_interval(secs => s.seconds)) AS t ON true
            WHERE s IS DISTINCT FROM t
        ), corrected AS (
            UPDATE klines_internal.live_klines AS k SET
                open = w.open, high = w.high, low = w.low, close = w.close, volume = w.volume,
                quote_volume = w.quote_volume, trades = w.trades, buy_volume = w.buy_volume,
                buy_quote_volume = w.buy_quote_volume, first_trade_id = w.first_trade_id,
                last_trade_id = w.last_trade_id, first_time = w.first_time, last_time = w.last_time
            FROM wrong AS w WHERE k.token_id = w.token_id AND k.seconds = w.seconds AND k.time = w.time
            RETURNING k.*, w.folded
        )
        INSERT INTO klines_internal.disagreements (token_id, seconds, time, folded, truth)
        SELECT token_id, seconds, time, folded, to_jsonb(corrected) - 'folded' FROM corrected
    $judge$, level.aggregate) USING token, level.seconds, after, until;
    GET DIAGNOSTICS wrong = ROW_COUNT;
    IF wrong > 0 THEN
        RAISE WARNING 'klines: % bars of token % (% s) differed from its trades and were corrected',
            wrong, token, level.seconds;
    END IF;
    RETURN until;
END;
$$;

-- The job that moves the seams and lets the bars behind them retire, in transactions of at most 5,000 bars.
CREATE PROCEDURE klines_internal.retire_klines_v1(job_id integer DEFAULT NULL, config jsonb DEFAULT NULL)
    LANGUAGE plpgsql AS $$
DECLARE
    level klines_internal.levels;
    token integer;
    after timestamptz;
BEGIN
    UPDATE klines_internal.levels SET seam = greatest(seam, klines_internal.open_time(seconds, now() - keep))
    WHERE seam < klines_internal.open_time(seconds, now() - keep);
    DELETE FROM klines_internal.disagreements WHERE found_at < now() - INTERVAL '30 days';
    -- Writers must know the new seams before the first bar behind them is gone.
    COMMIT;
    FOR level IN SELECT * FROM klines_internal.levels ORDER BY seconds LOOP
        FOR token IN
            SELECT DISTINCT token_id FROM klines_internal.live_klines
            WHERE seconds = level.seconds AND time < level.seam ORDER BY 1
        LOOP
            after := '-infinity';
            LOOP
                after := klines_internal.retire_batch_v1(level, token, after, 5000);
                COMMIT;
                EXIT WHEN after IS NULL;
            END LOOP;
        END LOOP;
    END LOOP;
END;
$$;

SELECT public.add_job('klines_internal.retire_klines_v1', INTERVAL '1 minute', fixed_schedule => false);

-- Drops raw trades older than `before` for good; their bars stay, and late trades for them are refused from now on.
-- Refreshing seconds over dropped trades would delete them, so the late policy must begin above the floor before
-- anything is dropped: a call that had to move it, or that meets a refresh under way, leaves the dropping to the next.
CREATE PROCEDURE klines_internal.forget_trades_v1(before timestamptz)
    LANGUAGE plpgsql AS $$
DECLARE
    -- A day is one chunk: what is dropped ends that much before the window begins.
    above interval := greatest(now() - before - INTERVAL '1 day', INTERVAL '6 hours');
    moved bigint;
BEGIN
    UPDATE klines_internal.retention SET floor = greatest(floor, before);
    PERFORM public.alter_job(job_id, config => config || jsonb_build_object('start_offset', above::text))
    FROM timescaledb_information.jobs
    WHERE proc_name = 'policy_refresh_continuous_aggregate'
      AND (config ->> 'mat_hypertable_id')::integer = (
          SELECT mat_hypertable_id FROM _timescaledb_catalog.continuous_agg WHERE user_view_name = 'aggregate_1s')
      AND coalesce((config ->> 'start_offset')::interval > above, true);
    GET DIAGNOSTICS moved = ROW_COUNT;
    COMMIT;
    IF moved = 0 AND NOT EXISTS (
        SELECT FROM timescaledb_information.job_stats AS s JOIN timescaledb_information.jobs AS j USING (job_id)
        WHERE j.proc_name = 'policy_refresh_continuous_aggregate' AND s.job_status = 'Running'
    ) THEN
        PERFORM public.drop_chunks('public.trades', older_than => before);
    END IF;
END;
$$;
