CREATE EXTENSION IF NOT EXISTS timescaledb SCHEMA public;

CREATE FUNCTION klines_internal.storage_profile() RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
    RETURN 'timescale';
