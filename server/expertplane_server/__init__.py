"""The planner service: load in over gRPC, durable versioned plans out.

The way of a plan: `rpc` turns messages into events, `runtime.driver` feeds them to `core.group`,
which answers with effects; the driver carries those out (solve, store, send) in their order.
"""
