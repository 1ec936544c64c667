"""The commands of the service: the composition root, which alone imports client and planner.

What is heavy is imported inside the commands, so that help and completion stay quick.
"""

from expertplane_client.console import require_packages


# Before anything is imported that needs them, so that whoever lacks them is told what to install.
require_packages("torch", "prometheus_client", "grpc_reflection", "google.rpc", "platformdirs")

from expertplane_server.cli.backup import backup  # noqa: E402
from expertplane_server.cli.demo import demo  # noqa: E402
from expertplane_server.cli.serve import serve  # noqa: E402
from expertplane_server.cli.simulate import simulate  # noqa: E402


__all__ = ["backup", "demo", "serve", "simulate"]
