"""Whether another runtime is faster on a CPU: one whole pass of the same network in each that is installed.

    python benchmarks/runtimes.py [--base-channels 32] [--size 512]

PyTorch plain, compiled, and as the Reconstructor runs it (everything clipped, so that nothing can be left out); ONNX
Runtime and OpenVINO where they are installed (`pip install onnx onnxruntime openvino`). Nothing here is asserted.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model import MaskedUNet, NetworkConfig, Reconstructor
from model.masked_unet import initialise


def main() -> None:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    parser = argparse.ArgumentParser(description="Runtimes side by side.")
    parser.add_argument("--base-channels", type=int, default=32, metavar="N", help="[32]")
    parser.add_argument("--size", type=int, default=512, metavar="N", help="side in pixels [512]")
    given = parser.parse_args()
    net = initialise(MaskedUNet(NetworkConfig(base_channels=given.base_channels)), 0).eval().requires_grad_(False)
    print(f"width {given.base_channels}, {given.size}×{given.size}, {torch.get_num_threads()} threads")
    ldr = np.ones((given.size, given.size, 3), np.float32)
    picture, mask = torch.from_numpy(ldr).permute(2, 0, 1)[None], torch.zeros(1, 3, given.size, given.size)
    base = None
    for name, make in runtimes(net, picture, mask, ldr).items():
        try:
            began = time.perf_counter()
            run = make()
            run()
            ready = time.perf_counter() - began
            seconds = best(run)
        except Exception as error:
            print(f"  {name:34} – ({type(error).__name__}: {str(error).splitlines()[0][:70]})")
            continue
        base = base or seconds
        print(f"  {name:34} {seconds * 1e3:7.0f} ms  {base / seconds:5.2f}×   ready after {ready:.1f} s", flush=True)


def best(run: Callable[[], Any], times: int = 5) -> float:
    found = float("inf")
    for _ in range(times):
        began = time.perf_counter()
        run()
        found = min(found, time.perf_counter() - began)
    return found


def runtimes(
    net: MaskedUNet, picture: torch.Tensor, mask: torch.Tensor, ldr: np.ndarray
) -> dict[str, Callable[[], Callable[[], Any]]]:
    """What prepares each, by its name."""
    half = initialise(MaskedUNet(net.config), 0).eval().requires_grad_(False).bfloat16()
    half.mean, half.std = net.mean, net.std

    def eager(own: MaskedUNet) -> Callable[[], Any]:
        def run() -> Any:
            with torch.inference_mode():
                return own(picture, mask)

        return run

    def compiled(own: MaskedUNet) -> Callable[[], Any]:
        fast = torch.compile(own)

        def run() -> Any:
            with torch.no_grad():
                return fast(picture, mask)

        return run

    def ours(precision: Any) -> Callable[[], Any]:
        reconstructor = Reconstructor(net, "cpu", precision)
        return lambda: reconstructor.predict_log(ldr)

    def exported() -> str:
        path = Path(tempfile.mkdtemp()) / "net.onnx"
        torch.onnx.export(net, (picture, mask), str(path), input_names=["ldr", "mask"], dynamo=False)
        return str(path)

    def onnx_runtime() -> Callable[[], Any]:
        import onnxruntime

        session = onnxruntime.InferenceSession(exported(), providers=["CPUExecutionProvider"])
        return lambda: session.run(None, {"ldr": picture.numpy(), "mask": mask.numpy()})

    def openvino(precision: str) -> Callable[[], Any]:
        import openvino as ov

        settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        model = ov.Core().compile_model(exported(), "CPU", settings)
        request = model.create_infer_request()
        return lambda: request.infer({"ldr": picture.numpy(), "mask": mask.numpy()})

    return {
        "PyTorch fp32": lambda: eager(net),
        "PyTorch bf16": lambda: eager(half),
        "PyTorch fp32, torch.compile": lambda: compiled(net),
        "PyTorch bf16, torch.compile": lambda: compiled(half),
        "Reconstructor fp32": lambda: ours("fp32"),
        "Reconstructor bf16": lambda: ours("bf16"),
        "ONNX Runtime fp32": onnx_runtime,
        "OpenVINO fp32": lambda: openvino("f32"),
        "OpenVINO bf16": lambda: openvino("bf16"),
    }


if __name__ == "__main__":
    main()
