"""Durable state: deployments, plans, counters. One protocol, an embedded SQLite file."""

from expertplane_server.store.base import Store, StoreError, StoreInUseError
from expertplane_server.store.memory import MemoryStore
from expertplane_server.store.sqlite import SqliteStore


__all__ = ["MemoryStore", "SqliteStore", "Store", "StoreError", "StoreInUseError"]
