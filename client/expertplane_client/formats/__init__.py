"""Files that engines write and read: recordings of load in, placements out, and both ways back.

Each engine's files are in the module of its name (`sglang`, `sglang_per_pass`, `vllm`, `hygon`,
`trtllm`, `ascend`, `omni`, `lmdeploy`, `fastdeploy`, `rtp_llm`; `own` for Expertplane's). `loads`
and `placements` know all of them and tell them apart, `rows` says which layers the rows of a file
are, `profiles` has the engines' rules, `layer_rules` what these ask of a recording. Nothing in a
file is executed, and every file is bounded before memory is asked for.
"""

from expertplane_client.errors import FormatError

from .layer_ids import parse_layer_ids
from .loads import (
    INPUT_FORMATS,
    LOAD_DESCRIPTIONS,
    LOAD_OUTPUT_FORMATS,
    read_load,
    write_load,
)
from .own import write_plan_npz
from .placement import PlacementMap
from .placements import (
    PLACEMENT_DESCRIPTIONS,
    PLACEMENT_FORMATS,
    check_layers,
    check_placement_path,
    read_placement,
    write_placement,
)
from .profiles import ENGINES, EngineProfile, engine_profile
from .recording import Recording
from .report import write_report
from .tables import Model


__all__ = [
    "ENGINES",
    "INPUT_FORMATS",
    "LOAD_DESCRIPTIONS",
    "LOAD_OUTPUT_FORMATS",
    "PLACEMENT_DESCRIPTIONS",
    "PLACEMENT_FORMATS",
    "EngineProfile",
    "FormatError",
    "Model",
    "PlacementMap",
    "Recording",
    "check_layers",
    "check_placement_path",
    "engine_profile",
    "parse_layer_ids",
    "read_load",
    "read_placement",
    "write_load",
    "write_placement",
    "write_plan_npz",
    "write_report",
]
