-- Names this database in the cursors that it hands out: a cursor of another one continues nothing here.
CREATE TABLE klines_internal.epoch (
    epoch text NOT NULL
);
INSERT INTO klines_internal.epoch VALUES (left(replace(gen_random_uuid()::text, '-', ''), 12));

-- The latest trades of every token in the order of their commits, which no column of `trades` tells: what live streams
-- are read from. A row holds up to 256 trades of one statement, ordered by (time, trade_id); `sequence` is the number
-- of the last one in its token's feed.
CREATE TABLE klines_internal.tape (
    token_id  integer NOT NULL,
    sequence  bigint NOT NULL,
    taped_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    trade_ids bigint[] NOT NULL,
    times     timestamptz[] NOT NULL,
    prices    numeric[] NOT NULL,
    amounts   numeric[] NOT NULL,
    sides     public.trade_side[] NOT NULL,
    PRIMARY KEY (token_id, sequence)
) WITH (autovacuum_vacuum_scale_factor = 0.05);

CREATE INDEX tape_taped_at ON klines_internal.tape (taped_at);

-- Runs after the fold, whose lock on the token's feed makes `sequence` ours until we commit. Whoever writes, the tape
-- is bounded: `cut` lies 262,144 trades behind the multiple of 32,768 that the feed passed last, and no row ends there
-- or before it. A statement that moves the cut deletes the rows in between, and of its own trades, which that DELETE
-- cannot see, it tapes only what comes after the new cut. So nothing is left below the old one, and the index is not
-- searched there, where the dead rows are.
CREATE FUNCTION klines_internal.tape_trades_v1() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    WITH numbered AS MATERIALIZED (
        SELECT i.token_id, i.trade_id, i.time, i.price, i.amount, i.side,
               f.sequence - count(*) OVER (PARTITION BY i.token_id) AS before,
               row_number() OVER (PARTITION BY i.token_id ORDER BY i.time, i.trade_id) AS number,
               f.sequence / 32768 * 32768 - 262144 AS cut
        FROM inserted AS i JOIN klines_internal.feeds AS f USING (token_id)
    ), pruned AS (
        DELETE FROM klines_internal.tape AS t
        USING (SELECT token_id, before / 32768 * 32768 - 262144 AS since, cut FROM numbered WHERE number = 1) AS feed
        WHERE feed.since < feed.cut
          AND t.token_id = feed.token_id
          AND t.sequence > feed.since
          AND t.sequence <= feed.cut
    )
    INSERT INTO klines_internal.tape (token_id, sequence, trade_ids, times, prices, amounts, sides)
    SELECT token_id, max(before + number), array_agg(trade_id ORDER BY number), array_agg(time ORDER BY number),
           array_agg(price ORDER BY number), array_agg(amount ORDER BY number), array_agg(side ORDER BY number)
    FROM numbered WHERE before + number > cut GROUP BY token_id, (number - 1) / 256
    ORDER BY 1, 2;
    RETURN NULL;
END;
$$;

-- Statement triggers fire in the order of their names: trades_fold, trades_tape.
CREATE TRIGGER trades_tape
    AFTER INSERT ON public.trades
    REFERENCING NEW TABLE AS inserted
    FOR EACH STATEMENT EXECUTE FUNCTION klines_internal.tape_trades_v1();
