"""The sidecar: a participant in a process of its own, beside the engine that it speaks for.

From the outside in:

- `command` is the command line, `config` its file, `app` the process: signals, `health`, `metrics`
  (drawn from `figures`), and `logs`.
- `daemon` is the sidecar itself: a participant for each run of the engine. `memory` is what it
  keeps on disk.
- `desk` stands between participant and engine: what is asked waits there, engine or none.
- The ports carry it: `socket_port` and `directory_port` tell the engine what `desk.Port` says, and
  bring what it answers to a `reception`. Both speak the documents of `dialogue` and `arrays`.
- `engine` is for the other side, inside the engine, and needs the base install only.
"""
