"""The commands of the service: the composition root, which alone imports client and planner.

What is heavy is imported inside the commands, so that help and completion stay quick.
"""

from expertplane_server.cli.demo import demo
from expertplane_server.cli.serve import serve
from expertplane_server.cli.simulate import simulate


__all__ = ["demo", "serve", "simulate"]
