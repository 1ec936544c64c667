"""The offline commands: nothing but a recording is needed, no planner runs.

What is heavy is imported inside the commands, so that help and completion stay quick.
"""

from expertplane_client.console import require_packages


# Before anything is imported that needs it, so that whoever lacks it is told what to install.
require_packages("torch")

from expertplane_planner.cli.compare import compare  # noqa: E402
from expertplane_planner.cli.plan import plan  # noqa: E402
from expertplane_planner.cli.sweep import sweep  # noqa: E402


__all__ = ["compare", "plan", "sweep"]
