-- Lets the role klines_analyst read the contract and nothing else, and creates the role where it may. Returns what an
-- administrator has to do about it, NULL if nothing. May be called at any time and again: `klines db upgrade` and
-- `klines db analyst` do, because roles belong to the cluster and come and go without this database.
CREATE FUNCTION klines_internal.grant_analyst_v1() RETURNS text
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    relation text;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'klines_analyst') THEN
        BEGIN
            CREATE ROLE klines_analyst NOLOGIN CONNECTION LIMIT 20;
        EXCEPTION
            -- Another database of this cluster creates it in the same moment.
            WHEN duplicate_object OR unique_violation THEN NULL;
            WHEN insufficient_privilege THEN
                RETURN 'an administrator has to CREATE ROLE klines_analyst; then run `klines db upgrade` again';
        END;
    END IF;

    -- Once and for all databases; what an administrator sets otherwise later, stays.
    IF NOT EXISTS (
        SELECT FROM pg_db_role_setting AS s, unnest(s.setconfig) AS setting
        WHERE s.setrole = 'klines_analyst'::regrole AND s.setdatabase = 0
          AND setting LIKE 'default_transaction_read_only=%'
    ) THEN
        BEGIN
            ALTER ROLE klines_analyst SET default_transaction_read_only = on;
            ALTER ROLE klines_analyst SET statement_timeout = '60s';
            ALTER ROLE klines_analyst SET lock_timeout = '10s';
            ALTER ROLE klines_analyst SET idle_in_transaction_session_timeout = '60s';
            ALTER ROLE klines_analyst SET timezone = 'UTC';
        EXCEPTION
            -- "tuple concurrently updated" is an internal error: another database sets the same.
            WHEN insufficient_privilege OR internal_error THEN NULL;
        END;
        BEGIN
            ALTER ROLE klines_analyst SET temp_file_limit = '4GB';
        EXCEPTION
            WHEN insufficient_privilege OR internal_error THEN NULL;
        END;
    END IF;

    FOREACH relation IN ARRAY ARRAY['tokens', 'trades'] || ARRAY(SELECT l.relation FROM klines_internal.levels AS l) LOOP
        EXECUTE format('GRANT SELECT ON public.%I TO klines_analyst', relation);
    END LOOP;

    -- PUBLIC has these two unless somebody took them away; only the owners can give them.
    BEGIN
        IF NOT has_schema_privilege('klines_analyst', 'public', 'USAGE') THEN
            GRANT USAGE ON SCHEMA public TO klines_analyst;
        END IF;
        IF NOT has_database_privilege('klines_analyst', current_database(), 'CONNECT') THEN
            EXECUTE format('GRANT CONNECT ON DATABASE %I TO klines_analyst', current_database());
        END IF;
    EXCEPTION
        WHEN insufficient_privilege THEN NULL;
    END;
    IF NOT has_schema_privilege('klines_analyst', 'public', 'USAGE') THEN
        RETURN 'an administrator has to GRANT USAGE ON SCHEMA public TO klines_analyst';
    END IF;
    IF NOT has_database_privilege('klines_analyst', current_database(), 'CONNECT') THEN
        RETURN format('an administrator has to GRANT CONNECT ON DATABASE %I TO klines_analyst', current_database());
    END IF;
    RETURN NULL;
END;
$$;

DO $$
DECLARE
    missing text := klines_internal.grant_analyst_v1();
BEGIN
    IF missing IS NOT NULL THEN
        RAISE NOTICE 'klines_analyst cannot read yet: %', missing;
    END IF;
END;
$$;
