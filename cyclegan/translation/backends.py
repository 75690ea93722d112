"""What computes a generator: torch, onnxruntime or OpenVINO, as one kind of function."""

import copy
import importlib.util
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Literal, Protocol

import torch
from torch import Tensor, nn

from cyclegan.artifacts import WEIGHTS, load_generator
from cyclegan.artifacts.export import cached_onnx
from cyclegan.artifacts.onnx_file import METADATA, onnx_session, read_metadata, run_session
from cyclegan.datasets.fetch import sha256_of
from cyclegan.errors import BadInput, optional
from cyclegan.networks.deployed import cpu_is_faster_in_bf16, for_cpu, gpu_half_format
from cyclegan.networks.inference import inference_device

BackendName = Literal["auto", "torch", "onnx", "openvino"]
Precision = Literal["auto", "fp32", "bf16", "fp16"]
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}

# Below this many pictures, exporting a generator (seconds) costs more than a faster backend gives back.
WORTH_EXPORTING = 100


class Takes(Protocol):
    """What images a backend takes; ``GeneratorConfig`` says it, among other things."""

    @property
    def channels(self) -> int: ...
    @property
    def multiple_of(self) -> int: ...
    @property
    def background(self) -> tuple[int, int, int]: ...


class Backend(Protocol):
    """Maps (N, C, H, W) float32 on ``device``, values in [-1, 1], to the same shape.

    C is ``config.channels``; H and W are multiples of ``config.multiple_of``. ``weights_sha256`` is the
    digest of the model.safetensors that it comes from; None for a network that comes from no file.
    """

    name: str
    precision: str
    config: Takes
    device: torch.device
    weights_sha256: str | None

    def __call__(self, images: Tensor) -> Tensor: ...


class TorchBackend:
    """A network in torch, its own copy, at one precision.

    On CPUs images go one by one: a batch falls out of the caches (4 images at 256 px at bf16 took 1.25
    times as long as one after the other), and so a result does not depend on what else is in its batch.

    Args:
        network: in evaluation mode.
        config: what the generator says of itself.
        device: where to compute; default the fastest there is.
        precision: ``auto`` is bf16 or fp16 on CUDA, bf16 where the CPU is faster in it, else fp32.
        weights_sha256: digest of the file that the weights come from.
    """

    name = "torch"

    def __init__(
        self,
        network: nn.Module,
        config: Takes,
        device: torch.device | str | None = None,
        precision: Precision = "auto",
        weights_sha256: str | None = None,
    ) -> None:
        self.device = inference_device() if device is None else torch.device(device)
        self.config = config
        self.weights_sha256 = weights_sha256
        self.precision = _torch_precision(self.device) if precision == "auto" else precision
        self.dtype = DTYPES[self.precision]
        network = copy.deepcopy(network).eval()
        self.on_cpu = self.device.type == "cpu"
        self.network = for_cpu(network, self.dtype) if self.on_cpu else network.to(self.device, self.dtype)

    def __call__(self, images: Tensor) -> Tensor:
        images = images.to(self.dtype)
        if not self.on_cpu:
            return self.network(images).float()
        if self.dtype != torch.float32:
            images = images.contiguous(memory_format=torch.channels_last)
        return torch.cat([self.network(image).float().contiguous() for image in images.split(1)])


def _torch_precision(device: torch.device) -> Precision:
    if device.type == "cuda":
        return gpu_half_format()
    return "bf16" if device.type == "cpu" and cpu_is_faster_in_bf16() else "fp32"


class OnnxBackend:
    """An exported file in onnxruntime, on the CPU, at the precision that it was exported at."""

    name, device = "onnx", torch.device("cpu")

    def __init__(self, path: Path) -> None:
        self.session = onnx_session(path)
        metadata = self.session.get_modelmeta().custom_metadata_map
        self.config, self.precision, self.weights_sha256 = read_metadata(path, metadata)

    def __call__(self, images: Tensor) -> Tensor:
        return torch.cat([run_session(self.session, image) for image in images.split(1)])


class OpenVinoBackend:
    """An exported file in OpenVINO, on the CPU.

    Args:
        path: .onnx; the convolutions of an int8 file stay integer, ``precision`` is for the rest.
        precision: ``auto`` is bf16 where the CPU is faster in it, else fp32.
    """

    name, device = "openvino", torch.device("cpu")

    def __init__(self, path: Path, precision: Precision = "auto") -> None:
        openvino = _openvino()
        if precision == "auto":
            precision = "bf16" if cpu_is_faster_in_bf16() else "fp32"
        settings = {
            "INFERENCE_PRECISION_HINT": {"fp32": "f32", "bf16": "bf16", "fp16": "f16"}[precision],
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        core = openvino.Core()
        try:
            model = core.read_model(path)
            # OpenVINO gives the thread that compiles a signal stack, and frees it when the model goes: the
            # next signal would end the process. This thread goes with it.
            with ThreadPoolExecutor(1, "openvino compile") as thread:
                compiled = thread.submit(core.compile_model, model, "CPU", settings).result()
            self.request = compiled.create_infer_request()
        except RuntimeError as error:
            findings = " ".join(str(error).split())
            raise BadInput(f"{path}: is not an ONNX file that can be run ({findings})") from error
        found = model.get_rt_info()
        found = found["framework"] if "framework" in found else {}  # noqa: SIM401 (it has no get)
        metadata = {key: found[key].astype(str) for key in METADATA if key in found}
        self.config, exported, self.weights_sha256 = read_metadata(path, metadata)
        self.precision = f"int8 and {precision}" if exported == "int8" else precision

    def __call__(self, images: Tensor) -> Tensor:
        results = [self.request.infer([image.contiguous().numpy()])[0].copy() for image in images.split(1)]
        return torch.cat([torch.from_numpy(result) for result in results])


def _openvino() -> ModuleType:
    """OpenVINO, without the report to its maker's statistics that importing it would send."""
    if sys.modules.get("openvino") is not None:
        return sys.modules["openvino"]
    sys.modules["openvino_telemetry"] = None
    try:
        return optional("openvino", "openvino", "--backend openvino")
    finally:
        del sys.modules["openvino_telemetry"]


def pick_backend(
    generator: Path, precision: Precision = "auto", pictures: int | None = None
) -> Literal["torch", "onnx", "openvino"]:
    """What ``auto`` means: the fastest that is installed, for as many ``pictures`` (None: very many).

    A folder's generator is computed by torch, but by OpenVINO where the CPU is fast at bf16, OpenVINO and
    the exporter are installed, and the pictures are enough to be worth an export. For an .onnx file it is
    OpenVINO, else onnxruntime.
    """
    if generator.suffix == ".onnx":
        return "openvino" if _installed("openvino") else "onnx"
    worth_it = pictures is None or pictures >= WORTH_EXPORTING
    at_bf16 = precision in ("auto", "bf16") and inference_device().type == "cpu" and cpu_is_faster_in_bf16()
    ready = _installed("openvino", "onnx", "onnxscript", "onnxruntime")
    return "openvino" if worth_it and at_bf16 and ready else "torch"


def _installed(*packages: str) -> bool:
    return all(importlib.util.find_spec(package) is not None for package in packages)


def open_backend(
    generator: Path,
    name: BackendName = "auto",
    precision: Precision = "auto",
    device: torch.device | str | None = None,
) -> Backend:
    """Open a generator for one of the backends.

    Args:
        generator: a saved generator's folder, or an exported .onnx file. For onnx and openvino a folder is
            exported once into the user's cache (``cached_onnx``).
        name: what computes; ``auto`` as ``pick_backend``.
        precision: ``auto`` is the fastest that the machine and the backend have.
        device: for torch; the others compute on the CPU.

    Raises:
        BadInput: not a generator, a missing package, or a backend that cannot do what is asked.
    """
    is_file = generator.suffix == ".onnx"
    if is_file and not generator.is_file():
        raise BadInput(f"{generator}: no such file; 'cyclegan export' makes one of a saved generator")
    if name == "auto":
        elsewhere = device is not None and torch.device(device).type != "cpu"
        name = "torch" if elsewhere and not is_file else pick_backend(generator, precision)
    if name == "torch":
        if is_file:
            raise BadInput(f"{generator}: torch takes a generator's folder; use --backend onnx or openvino")
        network, config = load_generator(generator)
        return TorchBackend(network, config, device, precision, sha256_of(generator / WEIGHTS))
    if device is not None and torch.device(device).type != "cpu":
        raise BadInput(f"--backend {name}: computes on the CPU, not on {device}; use torch")
    path = generator if is_file else cached_onnx(generator)
    if name == "openvino":
        return OpenVinoBackend(path, precision)
    backend = OnnxBackend(path)
    if precision not in ("auto", backend.precision):
        raise BadInput(
            f"--precision {precision}: onnxruntime computes as the file was exported, here at "
            f"{backend.precision}; 'cyclegan export --precision' writes others"
        )
    return backend
