-- The keys of the service's callers, as `klines keys` makes them. A key itself is nowhere: `digest` is the SHA-256 of
-- its text, which has 256 random bits. A revoked or expired key stays, so that its id is never another one's.
CREATE TABLE klines_internal.api_keys (
    key_id       text COLLATE "C" PRIMARY KEY,
    digest       bytea NOT NULL,
    name         text NOT NULL,
    scopes       text[] NOT NULL,
    created_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at   timestamptz,
    revoked_at   timestamptz,
    -- Coarse: written at most once a minute.
    last_used_at timestamptz,
    CONSTRAINT api_keys_id_is_base62 CHECK (key_id ~ '^[0-9A-Za-z]{12}$'),
    CONSTRAINT api_keys_digest_is_sha256 CHECK (octet_length(digest) = 32),
    CONSTRAINT api_keys_name_is_short CHECK (char_length(name) BETWEEN 1 AND 64 AND name !~ '[[:cntrl:]]'),
    CONSTRAINT api_keys_scopes_are_known CHECK (
        cardinality(scopes) BETWEEN 1 AND 3
        AND scopes <@ ARRAY['read', 'write', 'admin']
    )
);

-- Who did what to which key, and when, psql included: written by the trigger below alone.
CREATE TABLE klines_internal.key_events (
    event_id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    who      text NOT NULL,
    event    text NOT NULL,
    key_id   text,
    -- The members of the row that changed, as they were and as they are; of the digest only that it did.
    before   jsonb,
    after    jsonb
);

-- Another value after every commit that changed a key. A process that knows the value of its last reading knows
-- whether there is anything to read; the row's lock makes the value visible with the change and never before it.
CREATE TABLE klines_internal.key_stamp (
    stamp uuid NOT NULL
);
INSERT INTO klines_internal.key_stamp VALUES (gen_random_uuid());

-- What a browser shows instead of a key when it opens a WebSocket: once, within half a minute. Lost in a crash.
CREATE UNLOGGED TABLE klines_internal.tickets (
    digest     bytea PRIMARY KEY,
    -- NULL: of a caller without a key.
    key_id     text COLLATE "C",
    made_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    expires_at timestamptz NOT NULL,
    CONSTRAINT tickets_last_a_minute CHECK (expires_at <= made_at + INTERVAL '60 seconds')
);

CREATE INDEX tickets_expires_at ON klines_internal.tickets (expires_at);

CREATE FUNCTION klines_internal.note_key_event_v1() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    was jsonb;
    became jsonb;
BEGIN
    IF TG_RELID <> 'klines_internal.api_keys'::regclass THEN
        RAISE EXCEPTION 'this records what is done to keys, and to no other table'
            USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF TG_OP IN ('UPDATE', 'DELETE') THEN
        was := to_jsonb(old) - 'digest' - 'last_used_at';
    END IF;
    IF TG_OP IN ('INSERT', 'UPDATE') THEN
        became := to_jsonb(new) - 'digest' - 'last_used_at';
    END IF;
    IF TG_OP = 'UPDATE' THEN
        IF new.digest <> old.digest THEN
            became := became || '{"digest": "changed"}';
        END IF;
        SELECT jsonb_object_agg(key, value) INTO became
            FROM jsonb_each(became) WHERE value IS DISTINCT FROM was -> key;
        SELECT jsonb_object_agg(key, value) INTO was
            FROM jsonb_each(was) WHERE became ? key;
        IF became IS NULL THEN
            RETURN NULL;
        END IF;
    END IF;
    INSERT INTO klines_internal.key_events (who, event, key_id, before, after)
    VALUES (
        session_user,
        CASE
            WHEN TG_OP = 'INSERT' THEN 'created'
            WHEN TG_OP = 'DELETE' THEN 'deleted'
            WHEN TG_OP = 'TRUNCATE' THEN 'truncated'
            WHEN old.revoked_at IS NULL AND new.revoked_at IS NOT NULL THEN 'revoked'
            ELSE 'changed'
        END,
        CASE TG_OP WHEN 'TRUNCATE' THEN NULL WHEN 'DELETE' THEN old.key_id ELSE new.key_id END,
        was,
        became
    );
    UPDATE klines_internal.key_stamp SET stamp = gen_random_uuid();
    RETURN NULL;
END;
$$;

-- Not for `last_used_at`, which is no act of anybody.
CREATE TRIGGER api_keys_noted
    AFTER INSERT OR DELETE OR UPDATE OF key_id, digest, name, scopes, created_at, expires_at, revoked_at
    ON klines_internal.api_keys
    FOR EACH ROW EXECUTE FUNCTION klines_internal.note_key_event_v1();

CREATE TRIGGER api_keys_truncation_noted
    AFTER TRUNCATE ON klines_internal.api_keys
    FOR EACH STATEMENT EXECUTE FUNCTION klines_internal.note_key_event_v1();

-- Whoever does it: services drop a revoked key for good.
CREATE FUNCTION klines_internal.refuse_revival_v1() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'key % was revoked, which is not taken back', old.key_id
        USING ERRCODE = 'feature_not_supported';
END;
$$;

CREATE TRIGGER api_keys_stay_revoked
    BEFORE UPDATE OF revoked_at ON klines_internal.api_keys
    FOR EACH ROW WHEN (old.revoked_at IS NOT NULL AND new.revoked_at IS DISTINCT FROM old.revoked_at)
    EXECUTE FUNCTION klines_internal.refuse_revival_v1();

CREATE FUNCTION klines_internal.refuse_key_event_change_v1() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION 'what was done to keys is only added to: % is refused', TG_OP
        USING ERRCODE = 'feature_not_supported';
END;
$$;

CREATE TRIGGER key_events_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON klines_internal.key_events
    FOR EACH STATEMENT EXECUTE FUNCTION klines_internal.refuse_key_event_change_v1();
