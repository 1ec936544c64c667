"""The sidecar: a participant in a process of its own, beside the engine that it speaks for.

`command` starts it, `daemon` runs it, `desk` stands between participant and engine, and the ports
(`socket_port`, `directory_port`) are the ways to reach the engine. `engine` is for the other side
and needs the base install only.
"""
