-- A hypertable finds a range of time by its chunks; here a block-range index does it for all tokens at once.
CREATE INDEX trades_time ON public.trades USING brin (time);
