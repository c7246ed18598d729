-- Everything that is not part of the relation contract lives in this schema.
CREATE SCHEMA klines_internal;

COMMENT ON SCHEMA klines_internal IS
    'How klines keeps its promises. The contract is tokens, trades and klines_* in public; nothing here is.';
