-- The relation contract: live bars and retired ones under one name, the same in both profiles.
DO $$
DECLARE
    level record;
BEGIN
    FOR level IN SELECT * FROM klines_internal.levels LOOP
        EXECUTE format($view$
            CREATE VIEW public.%I AS
            SELECT token_id, time, open, high, low, close, volume, quote_volume, trades,
                   buy_volume, buy_quote_volume, first_trade_id, last_trade_id
            FROM klines_internal.live_klines WHERE seconds = %s
            UNION ALL
            SELECT token_id, time, open, high, low, close, volume, quote_volume, trades,
                   buy_volume, buy_quote_volume, first_trade_id, last_trade_id
            FROM klines_internal.%I
        $view$, level.relation, level.seconds, replace(level.relation, 'klines', 'retired'));
        EXECUTE format(
            $comment$COMMENT ON VIEW public.%I IS 'Bars of %s s, the open one included, current to the last commit.'$comment$,
            level.relation, level.seconds);
    END LOOP;
END;
$$;
