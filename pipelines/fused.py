"""The fused operator: a training view from its decoded crop, inside DALI, on a CPU.

`fused.c` holds the arithmetic. DALI's Numba operator calls a compiled function by its address, in parallel over
samples; ours is the same operator with the address of a C function, so nothing is compiled at run time.
`graph.train_graph` does the same with DALI's own operators; tests compare the two.
"""

from __future__ import annotations

import ctypes
import inspect
import warnings
from functools import lru_cache
from importlib.util import find_spec

import numpy as np

from .dali import ops, types
from .views import STEP, colour_steps

# Parameters of a view, as `fused.c` reads them.
PARAMETERS = np.dtype(
    [
        ("steps", STEP, 6),
        ("scale", "<f4", 3),
        ("offset", "<f4", 3),
        ("blur", "<f4"),
        ("flip", "<f4"),
        ("fold", "<f4"),
        ("difference", "<f4"),
    ]
)

_NO_FOLD = 1e30  # no level is above half of it


def parameters(rows: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    """`[N, 52]` float32 for view rows `[N]`; the output is (pixel - mean) / std, in grey levels `[3]` each."""
    found = np.empty(len(rows), PARAMETERS)
    found["steps"] = colour_steps(rows)
    found["scale"], found["offset"] = 1 / std, -mean / std
    found["blur"], found["flip"] = rows["blur"], rows["flip"]
    found["difference"] = rows["difference"]
    found["fold"] = np.where(rows["solarize"], 255, _NO_FOLD)
    return found.view(np.float32).reshape(len(rows), -1)


@lru_cache(maxsize=1)
def library() -> ctypes.CDLL | None:
    """The compiled `fused.c`; None, with a warning, if it was not built."""
    spec = find_spec("pipelines._fused")
    if spec is None:
        warnings.warn(
            "pipelines/fused.c is not compiled, so training views take several times longer on a CPU; install a C "
            "compiler, then bassl-fast again",
            stacklevel=2,
        )
        return None
    return ctypes.CDLL(spec.origin)


def view(crop, row, size: int, bfloat16: bool, following=None):
    """Normalised views `[size, size, 3]`, float32 or the bits of bfloat16 as int16.

    Args:
        crop: DALI node of uint8 `[h, w, 3]`.
        row: DALI node of `parameters`.
        following: DALI node like `crop`, of the next frame; anything for rows without `difference`.
    """
    crops = [] if following is None else [following]
    return _operator()(
        types.Constant(np.zeros(size, np.uint8), device="cpu"),
        crop,
        row,
        *crops,
        run_fn=_address("view_bfloat16" if bfloat16 else "view_float32"),
        setup_fn=_address("view_shape"),
        in_types=[types.UINT8, types.UINT8, types.FLOAT, *(types.UINT8 for _ in crops)],
        ins_ndim=[1, 3, 1, *(3 for _ in crops)],
        out_types=[types.INT16 if bfloat16 else types.FLOAT],
        outs_ndim=[3],
        batch_processing=False,
    )


def _address(function: str) -> int | None:
    return ctypes.cast(getattr(library(), function), ctypes.c_void_p).value


@lru_cache(maxsize=1)
def _operator():
    """DALI's operator that calls a compiled function; its schema has two names in DALI 2."""
    if "internal_schema_name" in inspect.signature(ops.python_op_factory).parameters:
        return ops.python_op_factory("FusedView", "NumbaFunction", "NumbaFuncImpl", generated=False)()
    return ops.python_op_factory("FusedView", "NumbaFuncImpl")()
