-- The seam never moves: every bar is a live bar and none retires.
DO $$
DECLARE
    level record;
BEGIN
    FOR level IN SELECT * FROM klines_internal.levels LOOP
        EXECUTE format($view$
            CREATE VIEW klines_internal.%I AS
            SELECT token_id, time, open, high, low, close, volume, quote_volume, trades,
                   buy_volume, buy_quote_volume, first_trade_id, last_trade_id
            FROM klines_internal.live_klines WHERE false
        $view$, replace(level.relation, 'klines', 'retired'));
    END LOOP;
END;
$$;

-- Drops raw trades older than `before` for good; their bars stay, and late trades for them are refused from now on.
CREATE PROCEDURE klines_internal.forget_trades_v1(before timestamptz)
    LANGUAGE plpgsql AS $$
BEGIN
    UPDATE klines_internal.retention SET floor = greatest(floor, before);
    COMMIT;
    PERFORM set_config('klines.forgetting', 'on', true);
    DELETE FROM public.trades WHERE time < before;
    COMMIT;
END;
$$;
