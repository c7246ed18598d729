-- Late trades before `before` are refused from here on. Commit, then call `forget_below_v1`: writers must know the
-- floor before a trade below it is gone. True: go on with the second step.
CREATE FUNCTION klines_internal.raise_floor_v1(before timestamptz) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM klines_internal.refuse_to_forget_v1(before);
    UPDATE klines_internal.retention SET floor = greatest(floor, before);
    RETURN true;
END;
$$;

-- The second step: forgets the raw trades below `before`, and never one above the floor.
CREATE FUNCTION klines_internal.forget_below_v1(before timestamptz) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM klines_internal.refuse_to_forget_v1(before);
    PERFORM set_config('klines.forgetting', 'on', true);
    DELETE FROM public.trades WHERE time < least(before, (SELECT floor FROM klines_internal.retention));
    PERFORM set_config('klines.forgetting', 'off', true);
END;
$$;
