"""What the commands share, here and in other packages. Needs click and rich."""

from .foreign import foreign_replicas
from .moves import MoveOptions, move_options
from .options import (
    COUNT,
    FILE,
    MODES,
    SOFT_MODE,
    address_option,
    ascending_numbers,
    group_options,
    json_option,
    model_class_option,
    plot_option,
    rank_options,
    slots_option,
)
from .output import (
    errors_in_one_line,
    print_error,
    print_json,
    print_notes,
    print_table,
    require_extra,
    require_packages,
    write_picture,
)
from .plans import SolvedPlan, deliver, dimensions
from .problems import (
    LoadOptions,
    ProblemOptions,
    load_options,
    problem_options,
    spill_problems_options,
)


__all__ = [
    "COUNT",
    "FILE",
    "MODES",
    "SOFT_MODE",
    "LoadOptions",
    "MoveOptions",
    "ProblemOptions",
    "SolvedPlan",
    "address_option",
    "ascending_numbers",
    "deliver",
    "dimensions",
    "errors_in_one_line",
    "foreign_replicas",
    "json_option",
    "load_options",
    "model_class_option",
    "move_options",
    "plot_option",
    "print_error",
    "print_json",
    "print_notes",
    "print_table",
    "problem_options",
    "require_extra",
    "require_packages",
    "group_options",
    "rank_options",
    "slots_option",
    "spill_problems_options",
    "write_picture",
]
