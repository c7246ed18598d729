SELECT public.create_hypertable(
    'public.trades', public.by_range('time', INTERVAL '1 day'), create_default_indexes => false
);

ALTER TABLE public.trades SET (
    timescaledb.enable_columnstore = true,
    timescaledb.segmentby = 'token_id',
    timescaledb.orderby = 'time, trade_id'
);

-- Two days leave the chunks that live and slightly late trades go to as rows.
CALL public.add_columnstore_policy('public.trades', after => INTERVAL '2 days');
