"""Whatever the bytes, the readers give what they read or say in one line why not (BadInput), and stop there.

`CYCLEGAN_FUZZ=20000 pytest tests/test_fuzz.py` looks longer, and elsewhere each time.
"""

import io
import json
import os
import shutil

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from cyclegan.artifacts import load_generator
from cyclegan.config import TrainSettings
from cyclegan.errors import BadInput
from cyclegan.images import image_size, read_image, read_metadata
from cyclegan.recipes import project_files, read_yaml, spelled_keys, to_yaml, validated

EXAMPLES = int(os.environ.get("CYCLEGAN_FUZZ", 0))
fuzz = settings(
    max_examples=EXAMPLES or 80,
    derandomize=not EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def encoded(kind, mode, **options):
    pixels = np.random.default_rng(0).integers(0, 255, (9, 11, 3), np.uint8)
    image = Image.fromarray(pixels)
    if mode == "I;16":
        image = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
    elif mode == "P":
        image = image.quantize(8)
    elif mode != "RGB":
        image = image.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


EXIF = Image.Exif()
EXIF[0x0112], EXIF[0x010E] = 6, "words"
FILES = [
    encoded("PNG", "RGB", exif=EXIF), encoded("PNG", "RGBA"), encoded("PNG", "P"), encoded("PNG", "I;16"), encoded("PNG", "1"),
    encoded("JPEG", "RGB", exif=EXIF), encoded("JPEG", "CMYK"), encoded("JPEG", "L", progressive=True),
    encoded("WEBP", "RGB", exif=EXIF), encoded("WEBP", "RGBA", lossless=True),
    encoded("TIFF", "RGB", exif=EXIF), encoded("TIFF", "RGBA", compression="tiff_lzw"), encoded("TIFF", "I;16"), encoded("TIFF", "1", compression="group4"),
    encoded("BMP", "RGB"), encoded("BMP", "P"),
]  # fmt: skip


@st.composite
def damaged(draw, whole):
    """Some of the bytes changed, taken out, put in or cut off; most of it as it was."""
    data = bytearray(draw(st.sampled_from(whole)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        new = draw(
            st.one_of(
                st.binary(max_size=8), st.sampled_from([b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80"])
            )
        )
        width = draw(st.sampled_from([0, 1, 2, 4, len(new)]))
        data[at : at + width] = new
    return bytes(data[: draw(st.integers(0, len(data)))] if draw(st.booleans()) else data)


def said_in_one_line(error, path):
    assert str(path) in str(error)
    assert "\n" not in str(error).replace(str(path), "")


@fuzz
@given(data=st.one_of(damaged(FILES), st.binary(max_size=200)), channels=st.sampled_from([1, 3]))
def test_images(data, channels, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "fuzzed.png"
    path.write_bytes(data)
    for read in (
        lambda: read_image(path, channels, max_pixels=10**6),
        lambda: image_size(path),
        lambda: read_metadata(path, 10**6),
    ):
        try:
            found = read()
        except BadInput as error:
            said_in_one_line(error, path)
            continue
        if hasattr(found, "pixels"):
            assert found.pixels.dtype in (np.uint8, np.uint16) and found.pixels.shape[2] == channels


RECIPES = [path.read_bytes() for path in project_files("experiments").values()] + [
    to_yaml(TrainSettings()).encode()
]
PLAIN = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates(), st.binary(max_size=4),
    st.sampled_from(["auto", "resnet", "no", "", "../x", "\0", "1e999", 10**30, -1]),
)  # fmt: skip
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)
KEYS = sorted(spelled_keys(TrainSettings))


def tables(pairs):
    """Dotted names and values as the tables that a recipe has."""
    whole = {}
    for name, value in pairs:
        *parts, last = name.split(".")
        table = whole
        for part in parts:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                return whole
        table[last] = value
    return whole


@fuzz
@given(
    data=st.one_of(
        damaged(RECIPES),
        st.lists(st.tuples(st.sampled_from(KEYS), VALUES), max_size=5).map(
            lambda pairs: yaml.dump(tables(pairs)).encode()
        ),
        st.text(alphabet="{}[]:,-&*!|>'\"#%@` \t\n~?0ae.<x", max_size=40).map(str.encode),
        st.binary(max_size=60),
    )
)
def test_settings(data, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
    path.write_bytes(data)
    try:
        found = validated(TrainSettings, read_yaml(path), path)
    except BadInput as error:
        said_in_one_line(error, path)
        return
    again = TrainSettings(**yaml.safe_load(to_yaml(found)))
    assert again == found


@pytest.fixture(scope="module")
def saved(generator, tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzzed") / "G"
    shutil.copytree(generator, folder)
    return folder, (folder / "config.json").read_bytes(), (folder / "model.safetensors").read_bytes()


def loaded_or_told(folder):
    try:
        network, config = load_generator(folder)
    except BadInput as error:
        assert "\n" not in str(error)
        return
    assert all(bool(p.isfinite().all()) for p in network.parameters())
    assert config.multiple_of == network.multiple_of


@fuzz
@given(data=st.data())
def test_generators(data, saved):
    folder, config, weights = saved
    kind = data.draw(st.sampled_from(["config bytes", "config values", "weights", "weights header"]))
    (folder / "config.json").write_bytes(config)
    (folder / "model.safetensors").write_bytes(weights)
    if kind == "config bytes":
        (folder / "config.json").write_bytes(data.draw(damaged([config])))
    elif kind == "config values":
        values = json.loads(config)
        table = values["network"]["arguments"] if data.draw(st.booleans()) else values
        json_values = VALUES.filter(lambda value: not _has_dates(value))
        table[data.draw(st.sampled_from([*sorted(table), "more"]))] = data.draw(json_values)
        (folder / "config.json").write_text(json.dumps(values))
    elif kind == "weights":
        (folder / "model.safetensors").write_bytes(data.draw(damaged([weights])))
    else:
        size = int.from_bytes(weights[:8], "little")
        header = data.draw(damaged([weights[8 : 8 + size]]))
        whole = len(header).to_bytes(8, "little") + header + weights[8 + size :]
        (folder / "model.safetensors").write_bytes(whole)
    loaded_or_told(folder)


def _has_dates(value):
    try:
        json.dumps(value)
    except TypeError:
        return True
    return False


def test_a_key_of_a_line_break_is_told_in_one_line(saved):
    """Found by the above: tables whose keys are the user's own, such as licences."""
    folder, config, _ = saved
    (folder / "config.json").write_text(json.dumps({**json.loads(config), "licences": {"\n": None}}))
    with pytest.raises(BadInput, match=r"licences\.'\\n': input should be a valid string, not None"):
        load_generator(folder)
