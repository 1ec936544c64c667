"""Carries out what the core wants done: clock, store thread, solver process, drivers, watchers."""
