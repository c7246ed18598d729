"""Header fields that protect whoever reads an answer in a browser; on every answer, also those of the server itself."""

from __future__ import annotations

# No guessing of types, no address of ours told elsewhere, no frame of ours on other pages.
GUARDS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
)
# Only where no page elsewhere was allowed to read: it would keep from it what CORS gives.
OURS = (b"cross-origin-resource-policy", b"same-origin")

Headers = list[tuple[bytes, bytes]]


def completed(headers: Headers, fields: Headers, *, private: bool, any_origin: bool) -> Headers:
    """The header fields of an answer with `fields` and those it lacks of ours.

    `private`: whoever asks needs a key, so that no cache may keep the answer for others. `any_origin`: every page may
    read it.
    """
    given = {name.lower() for name, _ in headers}
    ours = GUARDS if any_origin else (*GUARDS, OURS)
    full = [*headers, *fields, *(field for field in ours if field[0] not in given)]
    if not private:
        return full
    if b"cache-control" not in given:
        return [*full, (b"cache-control", b"private, no-store")]
    return [
        (name, value.replace(b"public", b"private") if name.lower() == b"cache-control" else value)
        for name, value in full
    ]
