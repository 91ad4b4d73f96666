"""A bounded cache that needs no lock, so neither threads nor a fork can leave it locked."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any


class BoundedCache:
    """At most `limit` entries; forgets all of them when a new one finds it full.

    Reading and replacing a dict are atomic in CPython. A race can lose an entry, which is then worked out again.

    Examples
    --------
    >>> cache = BoundedCache(2)
    >>> for key in "abc":
    ...     cache.put(key, key.upper())
    >>> cache.get("a"), cache.get("c"), len(cache)
    (None, 'C', 1)
    """

    def __init__(self, limit: int):
        self.limit = limit
        self._entries: dict[Hashable, Any] = {}

    def get(self, key: Hashable) -> Any:
        """The value of `key`, or None."""
        return self._entries.get(key)

    def put(self, key: Hashable, value: Any) -> None:
        """Remember a value."""
        if len(self._entries) >= self.limit:
            self._entries = {}
        self._entries[key] = value

    def __len__(self) -> int:
        return len(self._entries)
