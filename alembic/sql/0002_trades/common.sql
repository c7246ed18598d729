CREATE TABLE public.tokens (
    token_id   integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    symbol     text NOT NULL UNIQUE,
    name       text,
    base       text,
    quote      text,
    decimals   integer,
    supply     numeric,
    metadata   jsonb NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now(),
    -- One spelling per token: what the service canonicalises, psql must write canonically.
    CONSTRAINT tokens_symbol_is_canonical CHECK (
        char_length(symbol) BETWEEN 1 AND 32
        AND symbol !~ '[a-z[:space:][:cntrl:]/?#%]'
        AND symbol IS NFC NORMALIZED
    ),
    CONSTRAINT tokens_decimals_in_range CHECK (decimals BETWEEN 0 AND 36),
    CONSTRAINT tokens_supply_is_finite CHECK (supply >= 0 AND supply < 1e36)
);

COMMENT ON TABLE public.tokens IS 'One row per token: its canonical symbol and what is known of it.';

CREATE TYPE public.trade_side AS ENUM ('buy', 'sell');

-- The key is also the index of every range read. It holds the time because a hypertable's unique index must.
-- token_id has no foreign key of its own: the fold trigger checks it once per statement, not once per row.
CREATE TABLE public.trades (
    token_id integer NOT NULL,
    trade_id bigint NOT NULL,
    time     timestamptz NOT NULL,
    price    numeric NOT NULL,
    amount   numeric NOT NULL,
    side     public.trade_side NOT NULL,
    CONSTRAINT trades_pkey PRIMARY KEY (token_id, time, trade_id),
    CONSTRAINT trades_id_not_negative CHECK (trade_id >= 0),
    CONSTRAINT trades_time_in_range CHECK (time >= '2009-01-01 00:00:00+00' AND time < '2200-01-01 00:00:00+00'),
    -- NaN and infinity sort above every number, so the upper bounds refuse them too.
    CONSTRAINT trades_price_in_range CHECK (price > 0 AND price < 1e24 AND scale(price) <= 36),
    CONSTRAINT trades_amount_in_range CHECK (amount > 0 AND amount < 1e24 AND scale(amount) <= 36)
);

COMMENT ON TABLE public.trades IS
    'Every trade: side is the taker''s, price is quote per base, amount is base. Append only.';

-- Bars are a pure function of the stored trades, so a stored trade never changes behind their back.
CREATE FUNCTION klines_internal.refuse_change_v1() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP = 'DELETE' AND current_setting('klines.forgetting', true) = 'on'
       AND klines_internal.storage_profile() = 'plain' THEN
        RETURN NULL;
    END IF;
    RAISE EXCEPTION 'trades are append only: % is refused', TG_OP
        USING ERRCODE = 'feature_not_supported',
              HINT = 'Old trades leave with CALL klines_internal.forget_trades_v1(before).';
END;
$$;

CREATE TRIGGER trades_append_only
    BEFORE UPDATE OR DELETE OR TRUNCATE ON public.trades
    FOR EACH STATEMENT EXECUTE FUNCTION klines_internal.refuse_change_v1();

-- Services and importers remember which id a symbol has; a token is for good, only what is known of it changes.
CREATE FUNCTION klines_internal.refuse_token_change_v1() RETURNS trigger
    LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF TG_OP <> 'UPDATE' OR (new.token_id, new.symbol) IS DISTINCT FROM (old.token_id, old.symbol) THEN
        RAISE EXCEPTION 'a token keeps its id and its symbol: % is refused', TG_OP
            USING ERRCODE = 'feature_not_supported';
    END IF;
    RETURN new;
END;
$$;

CREATE TRIGGER tokens_keep_their_identity
    BEFORE UPDATE OR DELETE ON public.tokens
    FOR EACH ROW EXECUTE FUNCTION klines_internal.refuse_token_change_v1();
