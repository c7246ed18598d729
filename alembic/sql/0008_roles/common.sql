-- Five roles of the cluster, without a password each. klines_owner owns what the migrations made; it may log in, since
-- TimescaleDB runs no job for a role that may not, but into no session: its limit is none, and jobs do not count.
-- klines_migrator may become the owner. klines_writer stores trades, and holds klines_reader, which reads. The fifth is
-- klines_analyst. Roles belong to the cluster and come and go without this database, so all of this may be run again.

-- What nobody but our own roles is to call here, and which of them is (NULL: the owner alone): locks by number, which
-- could stop the one process that does a work; large objects, messages of the log and exported snapshots, which fill the
-- disk of who may write nothing; notifications by the million; jobs of TimescaleDB, which go on when a session is over.
-- Left open is what the commands NOTIFY and BEGIN do anyway, which no right governs: one notification for a round trip,
-- and numbers of transactions.
CREATE FUNCTION klines_internal.closed_routines_v1() RETURNS TABLE (routine regprocedure, for_role name)
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.oid::regprocedure,
           -- A service asks for an echo where it listens, and it listens as who reads.
           CASE WHEN p.proname ~ 'advisory' THEN 'klines_writer' WHEN p.proname = 'pg_notify' THEN 'klines_reader' END
    FROM pg_proc AS p
    WHERE (p.pronamespace = 'pg_catalog'::regnamespace AND p.proname ~ '^pg_(try_)?advisory_(xact_)?lock')
       OR (p.pronamespace = 'pg_catalog'::regnamespace
           AND p.proname IN ('lo_creat', 'lo_create', 'lo_from_bytea', 'lo_put', 'lowrite', 'lo_truncate', 'lo_truncate64',
                             'pg_logical_emit_message', 'pg_export_snapshot', 'pg_notify'))
       OR (p.proname IN ('add_job', 'alter_job', 'delete_job', 'run_job')
           AND EXISTS (SELECT FROM pg_depend AS d JOIN pg_extension AS e ON e.oid = d.refobjid
                       WHERE d.objid = p.oid AND d.deptype = 'e' AND e.extname = 'timescaledb'))
$$;

-- Those of them that PUBLIC may call.
CREATE FUNCTION klines_internal.open_routines_v1() RETURNS SETOF regprocedure
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.routine FROM klines_internal.closed_routines_v1() AS c JOIN pg_proc AS p ON p.oid = c.routine
    WHERE EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
                  WHERE a.grantee = 0 AND a.privilege_type = 'EXECUTE')
$$;

-- The relations of ours: all of klines_internal, and the contract; sequences and indexes go with their tables.
CREATE FUNCTION klines_internal.our_relations_v1() RETURNS SETOF regclass
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.oid::regclass FROM pg_class AS c
    WHERE c.relkind IN ('r', 'v', 'm', 'p') AND (
        c.relnamespace = 'klines_internal'::regnamespace
        OR (c.relnamespace = 'public'::regnamespace
            AND (c.relname IN ('trades', 'tokens', 'alembic_version')
                 OR c.relname IN (SELECT relation FROM klines_internal.levels))))
    -- Writers lock the trades first; who follows them cannot get into their way.
    ORDER BY c.relname <> 'trades', c.relkind <> 'r', c.relname
$$;

CREATE FUNCTION klines_internal.create_roles_v1() RETURNS text
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    wanted record;
BEGIN
    FOR wanted IN
        SELECT * FROM (VALUES
            ('klines_owner', 'LOGIN CONNECTION LIMIT 0'), ('klines_migrator', 'NOLOGIN'),
            ('klines_writer', 'NOLOGIN'), ('klines_reader', 'NOLOGIN')
        ) AS role (name, options) WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name)
    LOOP
        BEGIN
            EXECUTE format('CREATE ROLE %I %s', wanted.name, wanted.options);
        EXCEPTION
            -- Another database of this cluster creates it in the same moment.
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RETURN format('an administrator has to CREATE ROLE %I %s; then run `klines db upgrade` again',
                              wanted.name, wanted.options);
        END;
    END LOOP;
    FOR wanted IN
        SELECT * FROM (VALUES
            ('klines_owner', 'klines_migrator'), ('klines_reader', 'klines_writer'),
            -- Who migrates and serves with one login, and is no superuser, keeps on doing both.
            ('klines_owner', current_user::text), ('klines_writer', current_user::text),
            -- For the end of analysts' sessions.
            ('pg_signal_backend', 'klines_owner'), ('pg_read_all_stats', 'klines_owner')
        ) AS grants (name, member) WHERE NOT pg_has_role(member, name, 'USAGE')
    LOOP
        BEGIN
            EXECUTE format('GRANT %I TO %I WITH INHERIT TRUE, SET TRUE', wanted.name, wanted.member);
        EXCEPTION
            -- "tuple concurrently updated" is an internal error: another database grants the same.
            WHEN insufficient_privilege OR internal_error OR unique_violation THEN NULL;
        END;
    END LOOP;
    RETURN NULL;
END;
$$;

-- Makes klines_owner the owner of everything of ours, where we may. It takes the strongest lock for a moment, of every
-- chunk too. Who owned it before, and is no superuser, becomes a member of the roles, so that it still can what it could.
CREATE FUNCTION klines_internal.hand_over_v1() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ours regclass;
    routine regprocedure;
    former name;
BEGIN
    FOR former IN
        SELECT DISTINCT r.rolname FROM klines_internal.our_relations_v1() AS o (oid)
        JOIN pg_class AS c USING (oid) JOIN pg_roles AS r ON r.oid = c.relowner
        WHERE NOT r.rolsuper AND NOT pg_has_role(r.oid, 'klines_owner', 'MEMBER')
    LOOP
        EXECUTE format('GRANT klines_migrator, klines_writer TO %I WITH INHERIT TRUE, SET TRUE', former);
    END LOOP;
    IF NOT has_schema_privilege('klines_owner', 'public', 'USAGE')
       OR NOT has_schema_privilege('klines_owner', 'public', 'CREATE') THEN
        GRANT USAGE, CREATE ON SCHEMA public TO klines_owner;
    END IF;
    -- First: whoever is no superuser can give a table only to who may create in its schema.
    IF (SELECT nspowner <> 'klines_owner'::regrole FROM pg_namespace WHERE nspname = 'klines_internal') THEN
        ALTER SCHEMA klines_internal OWNER TO klines_owner;
    END IF;
    FOR ours IN
        SELECT c.oid::regclass FROM klines_internal.our_relations_v1() AS o (oid) JOIN pg_class AS c USING (oid)
        WHERE c.relowner <> 'klines_owner'::regrole
    LOOP
        EXECUTE format(
            'ALTER %s %s OWNER TO klines_owner',
            CASE WHEN EXISTS (SELECT FROM klines_internal.levels WHERE aggregate::regclass = ours)
                 THEN 'MATERIALIZED VIEW'
                 ELSE (SELECT CASE relkind WHEN 'v' THEN 'VIEW' ELSE 'TABLE' END FROM pg_class WHERE oid = ours) END,
            ours);
    END LOOP;
    FOR routine IN
        SELECT p.oid::regprocedure FROM pg_proc AS p
        WHERE p.pronamespace = 'klines_internal'::regnamespace AND p.proowner <> 'klines_owner'::regrole
    LOOP
        EXECUTE format('ALTER ROUTINE %s OWNER TO klines_owner', routine);
    END LOOP;
    ALTER TYPE public.trade_side OWNER TO klines_owner;
    IF to_regprocedure('klines_internal.hand_over_jobs_v1()') IS NOT NULL THEN
        EXECUTE 'SELECT klines_internal.hand_over_jobs_v1()';
    END IF;
END;
$$;

-- What each role may: the list that tests go through verb by verb.
CREATE FUNCTION klines_internal.grant_relations_v1() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    ours regclass;
    reads regprocedure;
BEGIN
    GRANT USAGE ON SCHEMA klines_internal TO klines_reader;
    -- Keys and what was done with them are no reading of the market; the aggregates are read through their views.
    FOR ours IN
        SELECT c.oid::regclass FROM klines_internal.our_relations_v1() AS o (oid) JOIN pg_class AS c USING (oid)
        WHERE c.relname NOT IN ('api_keys', 'key_events', 'key_stamp', 'tickets') AND c.relname !~ '^aggregate_'
    LOOP
        EXECUTE format('GRANT SELECT ON %s TO klines_reader', ours);
    END LOOP;
    GRANT INSERT ON public.trades TO klines_writer;
    GRANT INSERT (symbol, name, base, quote, decimals, supply, metadata),
          UPDATE (name, base, quote, decimals, supply, metadata, updated_at) ON public.tokens TO klines_writer;
    -- Who breaks into the service is not to make a key that outlasts it: keys are made and ended by the owner alone.
    GRANT SELECT, UPDATE (last_used_at) ON klines_internal.api_keys TO klines_writer;
    GRANT SELECT ON klines_internal.key_events, klines_internal.key_stamp TO klines_writer;
    GRANT SELECT, INSERT (digest, key_id, expires_at), UPDATE (expires_at), DELETE ON klines_internal.tickets
        TO klines_writer;
    -- Who may call what a trigger calls can make it a trigger of his own table, where it acts for the owner.
    REVOKE EXECUTE ON ALL ROUTINES IN SCHEMA klines_internal FROM PUBLIC;
    IF pg_has_role('klines_owner', 'USAGE') THEN
        ALTER DEFAULT PRIVILEGES FOR ROLE klines_owner REVOKE EXECUTE ON ROUTINES FROM PUBLIC;
    END IF;
    -- What computes and acts for nobody but its caller.
    FOR reads IN
        SELECT p.oid::regprocedure FROM pg_proc AS p
        WHERE p.pronamespace = 'klines_internal'::regnamespace AND p.prokind = 'f' AND p.provolatile <> 'v'
          AND NOT p.prosecdef AND p.prorettype <> 'trigger'::regtype
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION %s TO klines_reader', reads);
    END LOOP;
    GRANT EXECUTE ON FUNCTION klines_internal.raise_floor_v1(timestamptz), klines_internal.forget_below_v1(timestamptz),
        klines_internal.forget_tape_v1(double precision), klines_internal.end_analyst_sessions_v1(integer)
        TO klines_writer;
END;
$$;

-- Takes from PUBLIC what a new database gives it, and what only our own roles need here, where we may.
CREATE FUNCTION klines_internal.restrict_public_v1() RETURNS void
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    closed record;
    -- The fold rings for whoever owns it.
    owner name := (SELECT relowner::regrole FROM pg_class WHERE oid = 'public.trades'::regclass);
BEGIN
    IF pg_has_role((SELECT datdba FROM pg_database WHERE datname = current_database()), 'USAGE') THEN
        EXECUTE format('GRANT CONNECT, TEMPORARY ON DATABASE %I TO klines_owner, klines_writer', current_database());
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO klines_reader', current_database());
        EXECUTE format('REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    END IF;
    IF pg_has_role((SELECT nspowner FROM pg_namespace WHERE nspname = 'public'), 'USAGE') THEN
        REVOKE CREATE ON SCHEMA public FROM PUBLIC;
        GRANT USAGE ON SCHEMA public TO klines_reader;
    END IF;
    FOR closed IN
        SELECT o.routine, c.for_role FROM klines_internal.open_routines_v1() AS o (routine)
        JOIN klines_internal.closed_routines_v1() AS c USING (routine) JOIN pg_proc AS p ON p.oid = o.routine
        WHERE pg_has_role(p.proowner, 'USAGE')
    LOOP
        EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO klines_owner, %I', closed.routine, owner);
        IF closed.for_role IS NOT NULL THEN
            EXECUTE format('GRANT EXECUTE ON ROUTINE %s TO %I', closed.routine, closed.for_role);
        END IF;
        EXECUTE format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', closed.routine);
    END LOOP;
    -- DO is a loop for whoever may connect.
    IF pg_has_role((SELECT lanowner FROM pg_language WHERE lanname = 'plpgsql'), 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON LANGUAGE plpgsql TO klines_owner, %I', owner);
        REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC;
    END IF;
END;
$$;

-- What keeps each role from having the least and no more, one sentence each, and who can change it; empty: nothing.
CREATE FUNCTION klines_internal.roles_left_v1() RETURNS text[]
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    missing text;
    found text[] := '{}';
BEGIN
    SELECT string_agg(name, ', ') INTO missing
    FROM unnest(ARRAY['klines_owner', 'klines_migrator', 'klines_writer', 'klines_reader']) AS name
    WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name);
    IF missing IS NOT NULL THEN
        RETURN ARRAY[format('everything is owned by and done as the login, because %s cannot be created by it', missing)];
    END IF;
    SELECT string_agg(DISTINCT c.relowner::regrole::text, ', ') INTO missing
    FROM klines_internal.our_relations_v1() AS o (oid) JOIN pg_class AS c USING (oid)
    WHERE c.relowner <> 'klines_owner'::regrole;
    IF missing IS NOT NULL THEN
        found := found || format('tables belong to %s, not to klines_owner: who may do both runs `klines db upgrade`', missing);
    END IF;
    IF NOT has_schema_privilege('klines_reader', 'klines_internal', 'USAGE')
       OR NOT has_table_privilege('klines_reader', 'klines_internal.live_klines', 'SELECT')
       OR NOT has_table_privilege('klines_writer', 'public.trades', 'INSERT') THEN
        found := found || 'klines_reader or klines_writer lacks its rights: run `klines db upgrade` as the owner'::text;
    END IF;
    IF EXISTS (
        SELECT FROM pg_database AS d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a
        WHERE d.datname = current_database() AND a.grantee = 0 AND a.privilege_type = 'TEMPORARY'
    ) THEN
        found := found || format('every login may make temporary tables: the owner of the database has to '
                                 'REVOKE TEMPORARY ON DATABASE %I FROM PUBLIC', current_database());
    END IF;
    IF EXISTS (
        SELECT FROM pg_namespace AS n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) AS a
        WHERE n.nspname = 'public' AND a.grantee = 0 AND a.privilege_type = 'CREATE'
    ) THEN
        found := found || 'every login may create in public: an administrator has to '
                          'REVOKE CREATE ON SCHEMA public FROM PUBLIC'::text;
    END IF;
    SELECT string_agg(DISTINCT split_part(o.routine::text, '(', 1), ', ') INTO missing
    FROM klines_internal.open_routines_v1() AS o (routine);
    IF missing IS NOT NULL THEN
        found := found || format('every login may call %s: a superuser has to run `klines db upgrade`', missing);
    END IF;
    IF EXISTS (
        SELECT FROM pg_proc AS p, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) AS a
        WHERE p.pronamespace = 'klines_internal'::regnamespace AND a.grantee = 0
    ) THEN
        found := found || 'every login may call what acts for the owner: run `klines db upgrade` as the owner'::text;
    END IF;
    IF NOT pg_has_role('klines_owner', 'pg_signal_backend', 'USAGE')
       OR NOT pg_has_role('klines_owner', 'pg_read_all_stats', 'USAGE') THEN
        found := found || 'analysts'' sessions are not ended: a superuser has to '
                          'GRANT pg_signal_backend, pg_read_all_stats TO klines_owner'::text;
    END IF;
    RETURN found;
END;
$$;

-- What a hand-over takes that the server has no room for, in words. All of it is locked at once, by one transaction:
-- tables, chunks, their indexes and TOAST. The server has room for max_locks_per_transaction times its connections; what
-- is held already is asked for on top.
CREATE FUNCTION klines_internal.locks_short_v1() RETURNS text
    LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH held AS (
        SELECT c.oid, c.reltoastrelid FROM pg_class AS c
        WHERE c.relnamespace IN ('klines_internal'::regnamespace, to_regnamespace('_timescaledb_internal'))
           OR c.oid IN (SELECT klines_internal.our_relations_v1())
    ), locks AS (
        SELECT oid FROM held
        UNION SELECT reltoastrelid FROM held WHERE reltoastrelid <> 0
        UNION SELECT i.indexrelid FROM pg_index AS i JOIN held AS h ON i.indrelid IN (h.oid, h.reltoastrelid)
    )
    SELECT format('klines_owner owns nothing yet: to hand over takes %s locks at once, and the server has no room: set '
                  'max_locks_per_transaction = %s (now %s), restart it, and run `klines db upgrade` again',
                  count(*),
                  current_setting('max_locks_per_transaction')::integer
                      + ceil(count(*)::numeric / current_setting('max_connections')::integer),
                  current_setting('max_locks_per_transaction'))
    FROM locks
$$;

-- Creates the roles, hands everything of ours to klines_owner and grants the rest, each where we may. Returns what is
-- left to an administrator, as `roles_left_v1` does, and changes nothing that is so already.
CREATE FUNCTION klines_internal.grant_roles_v1() RETURNS text[]
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    missing text := klines_internal.create_roles_v1();
    in_the_way text;
    acting regprocedure;
BEGIN
    -- Also where there will be no roles.
    FOR acting IN
        SELECT p.oid::regprocedure FROM pg_proc AS p
        WHERE p.pronamespace = 'klines_internal'::regnamespace AND p.prosecdef AND pg_has_role(p.proowner, 'USAGE')
    LOOP
        EXECUTE format('REVOKE EXECUTE ON FUNCTION %s FROM PUBLIC', acting);
    END LOOP;
    IF missing IS NOT NULL THEN
        RETURN missing || klines_internal.roles_left_v1();
    END IF;
    BEGIN
        IF pg_has_role('klines_owner', 'SET') THEN
            PERFORM klines_internal.hand_over_v1();
        END IF;
    EXCEPTION
        -- The owner stays who it is; everything works as that login.
        WHEN out_of_memory THEN
            in_the_way := klines_internal.locks_short_v1();
        WHEN insufficient_privilege THEN
            -- Nobody but a superuser gives chunks away, which lie in a schema of the extension's.
            in_the_way := format('klines_owner owns nothing yet (%s), and %s goes on owning it: a superuser can change '
                                 'that by `klines db upgrade`', SQLERRM, current_user);
    END;
    IF pg_has_role((SELECT nspowner FROM pg_namespace WHERE nspname = 'klines_internal'), 'USAGE') THEN
        PERFORM klines_internal.grant_relations_v1();
    END IF;
    PERFORM klines_internal.restrict_public_v1();
    RETURN array_remove(ARRAY[in_the_way], NULL) || klines_internal.roles_left_v1();
END;
$$;

-- Who stores trades may let old ones be forgotten, and must not be able to forget all of them: the last day stays
-- whatever is asked for. An hour is left to clocks that differ.
CREATE FUNCTION klines_internal.refuse_to_forget_v1(before timestamptz) RETURNS void
    LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF before IS NULL OR NOT isfinite(before) OR before > now() - INTERVAL '23 hours' THEN
        RAISE EXCEPTION 'before %: must be a time at least a day ago', coalesce(before::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
END;
$$;

-- Forgets what has been on the tape for longer than so many seconds, at most a thousand rows; how many it were. Writers
-- cut the tape too, in an order of their own: what one of them holds is left to it, as waiting could deadlock.
CREATE FUNCTION klines_internal.forget_tape_v1(seconds double precision) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    many bigint;
BEGIN
    IF seconds IS NULL OR seconds NOT BETWEEN 60 AND 1e9 THEN
        RAISE EXCEPTION 'seconds %: must be 60 to 1e9', coalesce(seconds::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    WITH forgotten AS (
        DELETE FROM klines_internal.tape WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM klines_internal.tape WHERE taped_at < now() - make_interval(secs => $1) LIMIT 1000
            FOR UPDATE SKIP LOCKED
        )) RETURNING 1
    )
    SELECT count(*) INTO many FROM forgotten;
    RETURN many;
END;
$$;

-- As before, in one call: `psql` is not to think of the commit between the two steps.
CREATE OR REPLACE PROCEDURE klines_internal.forget_trades_v1(before timestamptz)
    LANGUAGE plpgsql AS $$
DECLARE
    ready boolean;
BEGIN
    ready := klines_internal.raise_floor_v1(before);
    COMMIT;
    IF ready THEN
        PERFORM klines_internal.forget_below_v1(before);
    END IF;
    COMMIT;
END;
$$;

-- Ends the sessions of klines_analyst and its members that hold one transaction, or run one statement, for longer than
-- so many seconds: the limits that the role has are defaults, which a session can lift. Nobody can see who listens, but
-- a listener that idles in a transaction shows in the queue of notifications, and a full queue would fail commits: while
-- it fills, an analyst may not idle in a transaction. At most 100 at a time; a superuser, and whoever can also write, is
-- no analyst.
CREATE FUNCTION klines_internal.end_analyst_sessions_v1(seconds integer)
    RETURNS TABLE (pid integer, login name, why text, lasted integer)
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF seconds IS NULL OR seconds NOT BETWEEN 1 AND 86400 THEN
        RAISE EXCEPTION 'seconds %: must be 1 to 86400', coalesce(seconds::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value';
    END IF;
    RETURN QUERY WITH RECURSIVE analysts AS (
        SELECT oid FROM pg_roles WHERE rolname = 'klines_analyst'
        UNION
        SELECT m.member FROM pg_auth_members AS m JOIN analysts AS a ON a.oid = m.roleid
        WHERE m.inherit_option OR m.set_option
    ), sessions AS (
        SELECT s.pid, s.usename, s.state, s.xact_start, s.query_start, s.state_change
        FROM pg_stat_activity AS s JOIN analysts AS a ON a.oid = s.usesysid JOIN pg_roles AS r ON r.oid = a.oid
        WHERE s.datname = current_database() AND s.backend_type = 'client backend' AND NOT r.rolsuper
          AND NOT EXISTS (
              SELECT FROM pg_roles AS w
              WHERE w.rolname IN ('klines_owner', 'klines_writer') AND pg_has_role(r.oid, w.oid, 'MEMBER'))
    ), judged AS (
        SELECT s.*, CASE
            WHEN s.state LIKE 'idle in transaction%' AND pg_notification_queue_usage() > 0.01
                 AND s.state_change < clock_timestamp() - INTERVAL '5 seconds'
                THEN 'idle in a transaction while the queue of notifications fills'
            WHEN s.xact_start < clock_timestamp() - make_interval(secs => $1) THEN 'one transaction'
            WHEN s.state = 'active' AND s.query_start < clock_timestamp() - make_interval(secs => $1)
                THEN 'one statement'
        END AS why
        FROM sessions AS s
    )
    SELECT j.pid, j.usename, j.why,
           extract(epoch FROM clock_timestamp() - coalesce(j.xact_start, j.query_start))::integer
    FROM (SELECT * FROM judged AS l WHERE l.why IS NOT NULL ORDER BY l.xact_start LIMIT 100) AS j
    WHERE pg_terminate_backend(j.pid);
END;
$$;

-- As before, with names that were looked up when it was made, and not in the path of whoever calls it.
CREATE OR REPLACE FUNCTION klines_internal.fold_of_trades_v1(
    token integer, seconds integer, since timestamptz, until timestamptz
) RETURNS SETOF klines_internal.live_klines
    LANGUAGE sql STABLE PARALLEL SAFE
BEGIN ATOMIC
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
    GROUP BY 1, 3;
END;
