"""The GPU kernel of the exact filter without a GPU: Triton's interpreter runs it, and Triton's compiler compiles it.

The project does not require Triton; PyTorch's GPU builds include it. tests/test_cuda.py runs the kernel on a GPU.
"""

import os
import subprocess
import sys

import numpy as np
import pytest

triton = pytest.importorskip("triton", reason="Triton is not installed")

INTERPRETED = """
import torch
from ssvos.losses import exact_filter_triton as fused_exact
from ssvos.losses.exact_filter import ExactFilter

fused_exact._MIN_PART_LENGTH = 48  # several parts of few points
generator = torch.Generator().manual_seed(0)
for batch, channels, num_points in ((1, 1, 1), (2, 3, 150), (1, 2, 64)):
    features = 3.0 * torch.randn(batch, 5, num_points, generator=generator)
    values = torch.randn(batch, channels, num_points, generator=generator)
    expected = ExactFilter(features.double()).multiply(values.double())
    result = fused_exact.FusedExactFilter(features, rows=64).multiply(values)
    torch.testing.assert_close(result.double(), expected, rtol=1e-5, atol=1e-6)
"""


@pytest.mark.skipif(
    tuple(map(int, np.__version__.split(".")[:2])) >= (2, 4),
    reason="the interpreter of Triton 3.6 needs NumPy below 2.4",
)
def test_the_interpreted_kernel_equals_the_exact_sum():
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    process = subprocess.run(
        [sys.executable, "-c", INTERPRETED], env=environment, capture_output=True, text=True, check=False
    )
    assert process.returncode == 0, process.stderr


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_the_kernel_compiles_for_a_gpu_with_no_shared_memory(channels):
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from ssvos.losses.exact_filter_triton import _multiply

    constants = {"dim": 5, "channels": channels, "num_rows": 512}
    pointers = dict.fromkeys(("features", "values", "parts"), "*fp32")
    signature = {name: pointers.get(name, "i32") for name in _multiply.arg_names} | dict.fromkeys(
        constants, "constexpr"
    )
    source = ASTSource(_multiply, signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    # threads would exchange values through shared memory
    assert compiled.metadata.shared == 0
