"""ONNX files: written from a torch.export program, quantized, opened."""

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from pydantic import ValidationError
from torch import Tensor

from cyclegan import __version__
from cyclegan.artifacts.generator import GeneratorConfig
from cyclegan.errors import BadInput, optional
from cyclegan.recipes import explain

if TYPE_CHECKING:
    import onnx
    import onnxruntime

INPUT, OUTPUT = "images", "translated"
# Metadata in exported files: config.json, the precision, and the digest of model.safetensors.
CONFIG_KEY, PRECISION_KEY, SOURCE_KEY = "cyclegan.config", "cyclegan.precision", "cyclegan.weights_sha256"
METADATA = (CONFIG_KEY, PRECISION_KEY, SOURCE_KEY)
_CONVOLUTIONS = ["Conv", "ConvTranspose"]


def write_onnx(program: torch.export.ExportedProgram, path: Path, metadata: dict[str, str]) -> None:
    """One file with weights and metadata; of how it came to be, no local paths."""
    import onnx

    converted = torch.onnx.export(
        program, dynamo=True, input_names=[INPUT], output_names=[OUTPUT], verbose=False
    )
    model = converted.model_proto
    _strip(model)
    model.producer_name, model.producer_version = "cyclegan", __version__
    onnx.helper.set_model_props(model, metadata)
    onnx.save(model, path)


def _strip(model: "onnx.ModelProto") -> None:
    """Take out the exporter's notes (stack traces among them) and give the free dimensions names."""
    graph = model.graph
    for part in (graph, *graph.node, *graph.value_info, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        for position, name in ((0, "batch"), (2, "height"), (3, "width")):
            value.type.tensor_type.shape.dim[position].dim_param = name


def quantize(source: Path, target: Path, images: Sequence[Tensor]) -> None:
    """Make an fp32 file's convolutions integer (8 bits), with ranges as ``images`` (1, C, H, W) have them.

    The first and the last convolution, which see and make the picture itself, stay as they are, and the
    convolutions' results are not quantized: an instance norm after them would enlarge the error of its
    weakest channels (on a trained generator 29.7 grey levels on average in place of 1.5).
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(images)

        def get_next(self) -> dict | None:
            found = next(self.left, None)
            return None if found is None else {INPUT: found.numpy()}

    convolutions = [node.name for node in onnx.load(source).graph.node if node.op_type in _CONVOLUTIONS]
    with _quiet():
        quantize_static(
            source,
            target,
            Images(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=_CONVOLUTIONS,
            nodes_to_exclude=[convolutions[0], convolutions[-1]],
            extra_options={"OpTypesToExcludeOutputQuantization": _CONVOLUTIONS},
        )
    _keep_metadata(source, target)


def _keep_metadata(source: Path, target: Path) -> None:
    import onnx

    model = onnx.load(target)
    metadata = {entry.key: entry.value for entry in onnx.load(source).metadata_props}
    onnx.helper.set_model_props(model, metadata)
    model.producer_name, model.producer_version = "cyclegan", __version__
    onnx.save(model, target)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The quantizer advises, on the root logger, steps that the exporter has done already."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def onnx_session(path: Path) -> "onnxruntime.InferenceSession":
    """Open a file with onnxruntime on the CPU, with as many threads as torch has.

    Raises:
        BadInput: onnxruntime is missing, or the file is damaged.
    """
    runtime = optional("onnxruntime", "export", f"running {path.name}")
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that wait asleep leave the cores to decoding and encoding.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's own exceptions share no base class
        findings = " ".join(str(error).split())
        raise BadInput(f"{path}: is not an ONNX file that can be run ({findings})") from error


def run_session(session: "onnxruntime.InferenceSession", images: Tensor) -> Tensor:
    (result,) = session.run(None, {INPUT: images.contiguous().numpy()})
    return torch.from_numpy(result)


def read_metadata(path: Path, metadata: Mapping[str, str]) -> tuple[GeneratorConfig, str, str | None]:
    """What an exported file says: its generator's config, its precision, the digest of the weights.

    Raises:
        BadInput: the file is somebody else's, or its config does not hold.
    """
    if CONFIG_KEY not in metadata or PRECISION_KEY not in metadata:
        raise BadInput(f"{path}: does not say what images it takes; write it with 'cyclegan export'")
    try:
        config = GeneratorConfig.model_validate_json(metadata[CONFIG_KEY])
    except ValidationError as error:
        raise BadInput(f"{path}: {explain(error, GeneratorConfig)}") from error
    return config, metadata[PRECISION_KEY], metadata.get(SOURCE_KEY)
