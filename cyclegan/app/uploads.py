"""gradio's components for files, handing over what was uploaded as it is: not decoded, not rewritten."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr


def picture_upload(**options: Any) -> gr.Image:
    """One picture: dropped, chosen, pasted or taken with the camera; comes as the path of its file."""
    upload = gr.Image(sources=["upload", "webcam", "clipboard"], type="filepath", image_mode=None, **options)
    upload.preprocess = lambda payload: None if payload is None else _path(payload)
    return upload


def file_upload(**options: Any) -> gr.File:
    """A file; comes as its path."""
    upload = gr.File(file_count="single", **options)
    upload.preprocess = lambda payload: None if payload is None else _path(payload)
    return upload


def files_upload(**options: Any) -> gr.File:
    """Files; come as their paths."""
    upload = gr.File(file_count="multiple", **options)
    upload.preprocess = lambda payload: None if payload is None else _paths(payload)
    return upload


def _paths(payload: Any) -> list[Path]:
    files: Sequence[Any] = payload.root if hasattr(payload, "root") else [payload]
    return [_path(file) for file in files]


def _path(file: Any) -> Path:
    """Where the gate has found it to be: in the folder of uploads."""
    return Path(file.path)
