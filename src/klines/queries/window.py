"""A window of time on one token's rows: the part that bars and trades have in common."""

from __future__ import annotations

from typing import Any, NamedTuple

from sqlalchemy import DateTime, Integer, Select, bindparam, literal_column

from klines.timestamp import to_datetime

MOMENT = DateTime(timezone=True)


class Window(NamedTuple):
    """At most `limit` rows whose time lies in `[from_us, to_us)`: the oldest if `from_us` is given, else the latest.

    `since_us` narrows the search for the latest rows without turning the page around.
    """

    limit: int
    from_us: int | None = None
    to_us: int | None = None
    since_us: int | None = None

    @property
    def shape(self) -> Shape:
        """What of the window decides the statement."""
        return Shape(self.from_us is not None, self.to_us is not None, self.since_us is not None)

    def values(self, token_id: int) -> dict[str, object]:
        """What of the window is bound."""
        values: dict[str, object] = {"token": token_id, "page": self.limit}
        if self.from_us is not None:
            values["begin"] = to_datetime(self.from_us)
        if self.to_us is not None:
            values["end"] = to_datetime(self.to_us)
        if self.since_us is not None:
            values["since"] = to_datetime(self.since_us)
        return values


class Shape(NamedTuple):
    """Which ends a window has; `before` turns it into the one row before its beginning."""

    begins: bool
    ends: bool
    since: bool = False
    before: bool = False

    def restrict(self, statement: Select[Any], source: Any) -> Select[Any]:
        """The rows of `source` (with `token_id` and `time`) inside the window, unordered."""
        statement = statement.where(source.c.token_id == bindparam("token", type_=Integer))
        if self.before:
            return statement.where(source.c.time < bindparam("begin", type_=MOMENT))
        if self.begins:
            statement = statement.where(source.c.time >= bindparam("begin", type_=MOMENT))
        if self.ends:
            statement = statement.where(source.c.time < bindparam("end", type_=MOMENT))
        if self.since:
            statement = statement.where(source.c.time >= bindparam("since", type_=MOMENT))
        return statement

    def page(self, statement: Select[Any], *order: Any, parts: Any = None) -> Select[Any]:
        """Ordered and limited: with a beginning the page runs forward from it, without one it ends at the end.

        With `parts` the limit is that many times as large.
        """
        forward = self.begins and not self.before
        ordering = [column.asc() if forward else column.desc() for column in order]
        limit: Any = literal_column("1") if self.before else bindparam("page", type_=Integer)
        return statement.order_by(*ordering).limit(limit if parts is None else limit * parts)


BEFORE = Shape(begins=True, ends=False, before=True)
