-- Late trades before `before` are refused from here on. Refreshing seconds over dropped trades would delete them, so
-- the late policy must begin above the floor before anything is dropped. Commit, then call `forget_below_v1` if this
-- says true: a call that had to move the policy, or that meets a refresh under way, leaves the dropping to the next.
CREATE FUNCTION klines_internal.raise_floor_v1(before timestamptz) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- A day is one chunk: what is dropped ends that much before the window begins.
    above interval := greatest(now() - before - INTERVAL '1 day', INTERVAL '6 hours');
    moved bigint;
BEGIN
    PERFORM klines_internal.refuse_to_forget_v1(before);
    UPDATE klines_internal.retention SET floor = greatest(floor, before);
    PERFORM public.alter_job(job_id, config => config || jsonb_build_object('start_offset', above::text))
    FROM timescaledb_information.jobs
    WHERE proc_name = 'policy_refresh_continuous_aggregate'
      AND (config ->> 'mat_hypertable_id')::integer = (
          SELECT mat_hypertable_id FROM _timescaledb_catalog.continuous_agg
          WHERE user_view_schema = 'klines_internal' AND user_view_name = 'aggregate_1s')
      AND coalesce((config ->> 'start_offset')::interval > above, true);
    GET DIAGNOSTICS moved = ROW_COUNT;
    RETURN moved = 0;
END;
$$;

-- The second step: drops whole chunks of raw trades below `before`, and never one above the floor.
CREATE FUNCTION klines_internal.forget_below_v1(before timestamptz) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    until timestamptz := least(before, (SELECT floor FROM klines_internal.retention));
BEGIN
    PERFORM klines_internal.refuse_to_forget_v1(before);
    IF EXISTS (
        SELECT FROM timescaledb_information.job_stats AS s JOIN timescaledb_information.jobs AS j USING (job_id)
        WHERE j.proc_name = 'policy_refresh_continuous_aggregate' AND s.job_status = 'Running'
    ) THEN
        RETURN;
    END IF;
    PERFORM public.drop_chunks('public.trades', older_than => until);
END;
$$;

-- As before, and nothing in it is looked up anywhere but in pg_catalog: it commits, so it cannot carry a SET of its
-- own, and a path that is set for a transaction ends with it.
CREATE OR REPLACE PROCEDURE klines_internal.retire_klines_v1(job_id integer DEFAULT NULL, config jsonb DEFAULT NULL)
    LANGUAGE plpgsql AS $$
DECLARE
    level klines_internal.levels;
    token integer;
    after timestamptz;
BEGIN
    SET LOCAL search_path = pg_catalog, pg_temp;
    UPDATE klines_internal.levels SET seam = greatest(seam, klines_internal.open_time(seconds, now() - keep))
    WHERE seam < klines_internal.open_time(seconds, now() - keep);
    DELETE FROM klines_internal.disagreements WHERE found_at < now() - INTERVAL '30 days';
    -- Writers must know the new seams before the first bar behind them is gone.
    COMMIT;
    SET LOCAL search_path = pg_catalog, pg_temp;
    FOR level IN SELECT * FROM klines_internal.levels ORDER BY seconds LOOP
        FOR token IN
            SELECT DISTINCT token_id FROM klines_internal.live_klines
            WHERE seconds = level.seconds AND time < level.seam ORDER BY 1
        LOOP
            after := '-infinity';
            LOOP
                after := klines_internal.retire_batch_v1(level, token, after, 5000);
                COMMIT;
                SET LOCAL search_path = pg_catalog, pg_temp;
                EXIT WHEN after IS NULL;
            END LOOP;
        END LOOP;
    END LOOP;
END;
$$;

-- The job of ours has an owner of its own, which follows no table: it is made anew, in the owner's name.
CREATE FUNCTION klines_internal.hand_over_jobs_v1() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    job record;
    before text := current_setting('role');
BEGIN
    FOR job IN
        SELECT job_id, schedule_interval, scheduled FROM timescaledb_information.jobs
        WHERE proc_schema = 'klines_internal' AND owner::regrole::text <> 'klines_owner'
    LOOP
        PERFORM public.delete_job(job.job_id);
        PERFORM set_config('role', 'klines_owner', true);
        PERFORM public.add_job(
            'klines_internal.retire_klines_v1', job.schedule_interval, fixed_schedule => false, scheduled => job.scheduled);
        PERFORM set_config('role', before, true);
    END LOOP;
END;
$$;
