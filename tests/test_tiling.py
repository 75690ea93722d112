"""Images of any size: what tiles make is compared with the whole image at once."""

import copy
import json

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from cyclegan.errors import BadInput
from cyclegan.images import from_tensor, read_image, to_tensor
from cyclegan.networks import build
from cyclegan.networks.inference import translate
from cyclegan.networks.layers import ReflectionPad, initialize
from cyclegan.translation import Translator, pipeline
from cyclegan.translation.options import Tiling
from cyclegan.translation.tiling import lazy, statistics, strategy
from cyclegan.translation.tiling.exact import exact_bands
from cyclegan.translation.tiling.geometry import bands
from cyclegan.translation.tiling.lazy import Moments, Padded, Region, Stored
from cyclegan.translation.tiling.memory import WORKING_COPIES, bytes_per_pixel
from cyclegan.translation.tiling.source import ArraySource
from cyclegan.translation.tiling.statistics import held_bytes_per_pixel, with_statistics_of
from cyclegan.translation.tiling.strategy import Tiler
from cyclegan.translation.tiling.tiff import TiffSource, write_tiff
from cyclegan.translation.tiling.tiles import dense_bands, naive_bands, sample_patches

SMALL = {"filters": 8, "blocks": 2}
NETWORKS = {
    "transpose": SMALL,
    "resize": {**SMALL, "upsample": "resize"},
    "residual, batch norm": {**SMALL, "residual": True, "norm": "batch"},
    "coarse residual": {**SMALL, "residual": "coarse"},
    "bilinear": {**SMALL, "upsample": "bilinear"},
}


def network(**arguments: object) -> nn.Module:
    torch.manual_seed(0)
    return initialize(build("generator", "resnet", arguments), std=0.05).eval()


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    from skimage import data

    return np.ascontiguousarray(data.astronaut())


def at_once(net: nn.Module, pixels: np.ndarray) -> np.ndarray:
    return from_tensor(translate(net, to_tensor(pixels)[None], 4)[0], pixels.dtype)


def apart(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.abs(x.astype(int) - y.astype(int))


@pytest.mark.parametrize("name", NETWORKS)
def test_exact_is_the_whole_image_to_one_level(name, astronaut):
    net, pixels = network(**NETWORKS[name]), astronaut[:150, :203]  # not multiples of 4: padded and cropped
    made = np.concatenate(list(exact_bands(net, ArraySource(pixels), 4, 1 << 20, 1 << 30)))
    assert apart(made, at_once(net, pixels)).max() <= 1


def test_exact_through_files_is_the_same(astronaut, tmp_path, monkeypatch):
    monkeypatch.setattr(lazy.tempfile, "tempdir", str(tmp_path))
    net, source = network(**SMALL), ArraySource(astronaut[:120, :100])
    in_memory = np.concatenate(list(exact_bands(net, source, 4, 1 << 20, 1 << 30)))
    files = []
    reserve = lazy._reserve
    monkeypatch.setattr(lazy, "_reserve", lambda *args: (files.append(1), reserve(*args)))
    assert (np.concatenate(list(exact_bands(net, source, 4, 1 << 20, 1000))) == in_memory).all()
    assert files and not list(tmp_path.iterdir())  # used, and nothing left behind


def test_exact_without_room_says_which_folder(astronaut, monkeypatch):
    def full(handle: int, size: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(lazy, "_reserve", full)
    with pytest.raises(BadInput, match=r"has no room for a feature map.*point TMPDIR.*or use --tiling dense"):
        list(exact_bands(network(**SMALL), ArraySource(astronaut[:120, :100]), 4, 1 << 20, 1000))


class UNetLike(nn.Module):
    """Strides, a skip connection, zero padding: the layers that U-Nets are made of."""

    multiple_of = 2

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(3, 6, 4, stride=2, padding=1)
        self.norm = nn.InstanceNorm2d(6)
        self.inner = nn.Conv2d(6, 6, 3, padding=1, padding_mode="reflect")
        self.up = nn.ConvTranspose2d(12, 3, 4, stride=2, padding=1)
        self.act = nn.LeakyReLU(0.2, inplace=True)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.down(x))
        return torch.tanh(self.up(torch.cat([y, self.inner(self.drop(self.act(y * 1.0)))], 1)))


def test_exact_follows_other_layers_or_says_which_it_cannot(astronaut):
    net, pixels = initialize(UNetLike(), std=0.1).eval(), astronaut[:90, :70]
    with pytest.raises(BadInput, match="cannot follow UNetLike layer by layer"):
        list(exact_bands(net, ArraySource(pixels), 2, 1 << 20, 1 << 30))


def test_exact_follows_a_u_net(astronaut):
    class Plain(UNetLike):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.norm(self.down(x))
            return torch.tanh(self.up(torch.cat([y, self.inner(self.drop(self.act(y)))], 1)))

    net, pixels = initialize(Plain(), std=0.1).eval(), astronaut[:90, :70]
    net.act.inplace = False  # else torch itself changes the skip connection's map
    made = np.concatenate(list(exact_bands(net, ArraySource(pixels), 2, 1 << 18, 1 << 30)))
    whole = from_tensor(translate(net, to_tensor(pixels)[None], 2)[0])
    assert apart(made, whole).max() <= 1
    with pytest.raises(BadInput, match=r"use --tiling exact"):
        list(dense_bands(net, ArraySource(pixels), 32, 2, 10_000))


def test_tiles_are_the_whole_image_under_shared_statistics(astronaut):
    """The halo holds all that a pixel sees: with the statistics fixed, no seam can be."""
    net, pixels = network(**NETWORKS["resize"]), astronaut[:200, :180]
    source = ArraySource(pixels)
    fixed = with_statistics_of(net, sample_patches(source, 180 * 200, 4))
    made = np.concatenate(list(dense_bands(net, source, 48, 4, 180 * 200)))
    assert apart(made, at_once(fixed, pixels)).max() <= 1


def test_dense_is_nearer_to_the_whole_than_naive_and_has_no_seams(astronaut):
    net, pixels = network(**SMALL), astronaut[:256, :256]
    whole = at_once(net, pixels)
    made = {
        "dense": np.concatenate(list(dense_bands(net, ArraySource(pixels), 64, 4, 256 * 256))),
        "naive": np.concatenate(list(naive_bands(net, ArraySource(pixels), 64, 4))),
    }
    far = {name: apart(x, whole).mean() for name, x in made.items()}
    assert far["dense"] < 0.3 * far["naive"]

    def seam(x: np.ndarray) -> float:
        """By how many levels the error steps more across tile borders than elsewhere."""
        error = x.astype(int) - whole
        steps = apart(error[:, 1:], error[:, :-1]).mean(axis=(0, 2))
        across = np.zeros(len(steps), bool)
        across[63::64] = True
        return steps[across].mean() - steps[~across].mean()

    assert seam(made["dense"]) < 0.1
    assert seam(made["naive"]) > 1


@pytest.mark.parametrize("norm", ["instance", "instance_affine"])
def test_dense_at_bf16_is_near_fp32(norm, astronaut):
    net, pixels = network(**SMALL, norm=norm), astronaut[:200, :180]
    made = []
    for dtype in (torch.float32, torch.bfloat16):
        tiles = dense_bands(net.to(dtype), ArraySource(pixels), 64, 4, 200 * 180)
        made.append(np.concatenate(list(tiles)))
    assert 0 < apart(*made).mean() < 8


def test_reach_is_as_far_as_a_pixel_looks():
    one = {**SMALL, "blocks": 1}
    blur = {**one, "upsample": "blur", "downsample": "blur"}
    for arguments in (one, {**one, "upsample": "resize"}, blur, {**one, "upsample": "bilinear"}):
        net = with_statistics_of(network(**arguments), [torch.randn(1, 3, 128, 128)])
        found = 0
        for place in range(64, 68):  # strides make neighbours look differently far
            image = torch.randn(1, 3, 128, 128, requires_grad=True)
            (gradient,) = torch.autograd.grad(net(image)[0, :, place, place].sum(), image)
            found = max(found, int((gradient[0].abs().sum(0).nonzero() - place).abs().max()))
        assert found <= network(**arguments).reach <= found + 12


def test_statistics_leave_the_network_as_it_was():
    net, image = network(**SMALL), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = net(image)
        steady = with_statistics_of(net, [image])
        assert torch.allclose(steady(image), before, atol=1e-5)  # its own statistics change nothing
        assert torch.equal(net(image), before)
    ours, theirs = list(net.parameters()), list(steady.parameters())
    assert all(a is b for a, b in zip(ours, theirs, strict=True))  # weights are shared, not copied


@pytest.mark.parametrize("name", [*NETWORKS, "affine, blur"])
def test_patches_in_turns_are_patches_at_once(name):
    """In batches of any size, and freed on the way, they say what torch finds in all of them together."""
    arguments = {**SMALL, "norm": "instance_affine", "downsample": "blur", "upsample": "blur"}
    net = network(**NETWORKS.get(name, arguments))
    patches = torch.randn(5, 3, 32, 48, generator=torch.Generator().manual_seed(1))
    steady = with_statistics_of(net, (part.clone() for part in patches.split([2, 1, 2])))
    at_once = copy.deepcopy(net)
    for module in at_once.modules():
        if isinstance(module, nn.InstanceNorm2d):  # over images as over positions: batch norm's training
            over = nn.BatchNorm2d(module.num_features, affine=module.affine)
            over.load_state_dict(module.state_dict(), strict=False)
            module.forward = over.train().forward
    with torch.no_grad():
        assert torch.allclose(steady(patches), at_once(patches), atol=1e-5)


def test_a_sample_holds_one_map_and_not_all(monkeypatch):
    """The widest map of 9 blocks is 64 channels at full size; in and out at once would be twice that."""
    net = network(filters=64, blocks=1)
    assert 256 <= held_bytes_per_pixel(net, 3, 64) < 1.25 * 256
    layers, living = [], []
    kept = statistics._LayerAfterLayer.call_module

    def call_module(self, target, args, kwargs):
        made = kept(self, target, args, kwargs)
        layers.append(target)
        living.append(sum(group.bytes() > 0 for group in self.env.values() if hasattr(group, "bytes")))
        return made

    monkeypatch.setattr(statistics._LayerAfterLayer, "call_module", call_module)
    with_statistics_of(net, [torch.randn(1, 3, 32, 32) for _ in range(3)])
    assert len(layers) > 10 and max(living) == 1  # what a residual block adds to, while it is computed


def test_patches_come_from_everywhere_and_do_not_keep_time():
    image = np.indices((700, 1000)).transpose(1, 2, 0).astype(np.uint16)
    source = ArraySource(np.concatenate([image, image[:, :, :1]], axis=2))
    parts = torch.cat(list(sample_patches(source, 20 * 140 * 140, 4)))
    assert parts.shape == (20, 3, 140, 140)
    places = ((parts[:, :2, 0, 0] + 1) / 2 * 65535).round().long()
    cells = {(int(y) * 4 // 700, int(x) * 5 // 1000) for y, x in places + 1}
    assert len(cells) > 15 and len({int(x) for x in places[:, 1]}) > 15  # of 5 columns of cells
    assert torch.equal(parts, torch.cat(list(sample_patches(source, 20 * 140 * 140, 4))))
    every = torch.cat(list(sample_patches(ArraySource(source.pixels[:512, :512]), 10**7, 4)))
    found = ((every[:, 0] + 1) / 2 * 65535).round().long() * 512 + (
        (every[:, 1] + 1) / 2 * 65535
    ).round().long()
    assert len(found.unique()) == 512 * 512  # enough for all: all of it


def test_a_network_that_cannot_be_followed_is_one_line(astronaut):
    class Capricious(nn.Module):
        reach = 2

        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.InstanceNorm2d(3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.norm(x) if x.mean() > 0 else x

    with pytest.raises(BadInput, match="--tiling dense: cannot follow Capricious layer by layer"):
        list(dense_bands(Capricious(), ArraySource(astronaut[:64, :64]), 32, 4, 10_000))


def test_a_u_net_at_half_precision_is_cut_exactly(astronaut):
    """What ``auto`` comes to on CPUs that are fast at bf16: maps at fp32, by weights that were rounded."""
    torch.manual_seed(0)
    net = initialize(build("generator", "unet", {"depth": 5, "filters": 4}), std=0.1).eval()
    pixels = astronaut[:100, :130]
    whole = from_tensor(translate(net.bfloat16().float(), to_tensor(pixels)[None], 32)[0])
    made = np.concatenate(list(Tiler(net.bfloat16(), 3, 32, Tiling(64)).bands(ArraySource(pixels))))
    assert apart(made, whole).max() <= 1
    assert next(net.parameters()).dtype == torch.bfloat16  # the one that computes whole images stays


def test_moments_are_those_of_the_whole():
    values = torch.randn(1, 3, 40, 50) * 3 + 7
    moments = Moments()
    for top in range(0, 40, 11):
        moments.add(values[:, :, top : top + 11])
    assert torch.allclose(moments.mean.float(), values.mean(dim=(0, 2, 3)), atol=1e-5)
    assert torch.allclose(moments.variance.float(), values.var(dim=(0, 2, 3), correction=0), atol=1e-4)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "zeros"])
def test_padding_by_regions_is_torchs(mode):
    values = torch.randn(1, 2, 9, 7)
    padded = Padded(Stored(values, Moments(), torch.device("cpu")), (3, 4, 2, 5), mode)
    whole = nn.functional.pad(values, (3, 4, 2, 5), mode="constant" if mode == "zeros" else mode)
    assert (padded.height, padded.width) == whole.shape[2:]
    for region in (Region(0, 16, 0, 14), Region(0, 2, 0, 3), Region(12, 16, 11, 14), Region(4, 9, 2, 12)):
        part = whole[:, :, region.top : region.bottom, region.left : region.right]
        assert torch.equal(padded.read(region), part)


def test_tiles_cover_every_pixel_once():
    covered = np.zeros((101, 67), int)
    for row in bands(101, 67, 16, 8):
        for t in row:
            covered[t.top : t.bottom, t.left : t.right] += 1
            assert t.window_top % 8 == t.window_left % 8 == 0
            assert t.window_top <= max(0, t.top - 8) and t.window_bottom >= min(101, t.bottom + 8)
    assert (covered == 1).all()


def test_auto_tiles_only_what_memory_cannot_hold(astronaut, monkeypatch):
    net, source = network(**SMALL), ArraySource(astronaut[:160, :160])
    used = []
    for way in ("dense_bands", "exact_bands", "naive_bands"):
        kept = getattr(strategy, way)
        monkeypatch.setattr(strategy, way, lambda *a, kept=kept, way=way: (used.append(way), kept(*a))[1])

    def way_of(tiling: Tiling) -> str:
        used.clear()
        tiler = Tiler(net, 3, 4, tiling)
        if not tiler.applies(160, 160):
            return "whole"
        assert sum(len(band) for band in tiler.bands(source)) == 160
        return used[0]

    assert way_of(Tiling()) == "whole"
    assert way_of(Tiling(64)) == "dense_bands"
    assert way_of(Tiling(64, "naive")) == "naive_bands"
    assert way_of(Tiling("auto", "exact")) == "exact_bands"
    assert way_of(Tiling("off")) == "whole"
    assert way_of(Tiling(200, "naive")) == "whole"  # it fits into one tile
    monkeypatch.setattr(strategy, "memory_bytes", lambda device: 8 << 20)
    assert way_of(Tiling()) == "whole"  # small enough for any machine
    monkeypatch.setattr(strategy, "SMALL_PIXELS", 100)
    assert way_of(Tiling()) == "dense_bands"


def test_memory_is_measured_apart_from_what_other_threads_compute():
    """A reader asks for it while the network is at work on another image; both give what they give alone."""

    class Busy(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.shape[-1] == 64:
                net(torch.zeros(1, 3, 256, 256))  # what the other thread does in this moment
            return super().forward(x)

    net = nn.Sequential(Busy(3, 8, 1), nn.ReLU())
    assert bytes_per_pixel(net, 3, 64) == WORKING_COPIES * (8 + 8) * 4
    assert not any(module._forward_hooks for module in net.modules())


def test_a_files_tiling_is_chosen_by_options_and_recorded(generator, photograph, tmp_path):
    large = photograph("in/large.png", size=(150, 130))
    written = {}
    for name, tiling in {"whole": Tiling("off"), "exact": Tiling(64, "exact")}.items():
        translator = Translator.from_pretrained(generator, precision="fp32", tiling=tiling)
        assert [r.error for r in translator.folder(large.parent, tmp_path / name)] == [None]
        written[name] = read_image(tmp_path / name / "large.png").pixels
        line = json.loads((tmp_path / name / "manifest.jsonl").read_text())
        assert line["settings"]["tiling"] == str(tiling)
    assert apart(written["whole"], written["exact"]).max() <= 1


def test_exact_wants_fp32(generator):
    with pytest.raises(
        BadInput, match=r"--tiling exact: computes at fp32, not at bf16; use --precision fp32"
    ):
        Translator.from_pretrained(generator, precision="bf16", tiling=Tiling("auto", "exact"))


def test_a_slide_goes_by_regions(generator, astronaut, tmp_path, monkeypatch):
    """What is said to be too large for memory is never decoded as a whole, and gives the same."""
    (tmp_path / "in").mkdir()
    pixels = astronaut[:140, :120].astype(np.uint16) * 257
    tifffile.imwrite(tmp_path / "in" / "slide.tif", pixels, tile=(64, 64), compression="zlib")
    tifffile.imwrite(tmp_path / "in" / "plain.tif", pixels)
    translator = Translator.from_pretrained(generator, precision="fp32", tiling=Tiling(64, "exact"))
    usual = tmp_path / "usual"
    assert [r.error for r in translator.folder(tmp_path / "in", usual)] == [None, None]
    monkeypatch.setattr(pipeline, "SLIDE_PIXELS", 100)
    monkeypatch.setattr(translator, "read", None)
    assert [r.error for r in translator.folder(tmp_path / "in", tmp_path / "out")] == [None, None]
    for name in ("slide.tif", "plain.tif"):
        made, expected = (tifffile.imread(folder / name) for folder in (tmp_path / "out", usual))
        assert made.dtype == np.uint16 and apart(made, expected).max() <= 257
        xmp = tifffile.TiffFile(tmp_path / "out" / name).pages[0].tags.valueof(700)
        assert b"trainedAlgorithmicMedia" in bytes(xmp)
    again = list(translator.folder(tmp_path / "in", tmp_path / "out"))
    assert all(item.kept for item in again)
    (failed,) = translator.folder(tmp_path / "in" / "slide.tif", tmp_path / "png", format="png")
    assert "slide.tif: is larger than memory should hold; make it smaller before, or write it" in failed.error


@pytest.mark.parametrize(
    ("name", "dtype", "options"),
    [
        ("strips", np.uint8, {"rowsperstrip": 7}),
        ("tiles", np.uint16, {"tile": (64, 128), "compression": "zlib", "predictor": True}),
        ("lzw", np.uint16, {"rowsperstrip": 5, "compression": "lzw"}),
        ("jpeg", np.uint8, {"tile": (128, 128), "compression": "jpeg"}),
        ("grey", np.uint16, {"tile": (64, 64)}),
        ("inverted", np.uint8, {"photometric": "miniswhite"}),
    ],
)
def test_tiff_by_regions(name, dtype, options, astronaut, tmp_path):
    pixels = astronaut[:300, :401].astype(dtype) * (257 if dtype == np.uint16 else 1)
    pixels = pixels[:, :, 0] if name in ("grey", "inverted") else pixels
    tifffile.imwrite(tmp_path / "in.tif", pixels, resolution=(300, 300), **options)
    read_by_tifffile = tifffile.imread(tmp_path / "in.tif").reshape(300, 401, -1)
    expected = 255 - read_by_tifffile if name == "inverted" else read_by_tifffile
    source = TiffSource(tmp_path / "in.tif", expected.shape[2])
    assert (source.read(13, 211, 31, 389) == expected[13:211, 31:389]).all()
    rows = (source.read(t, min(t + 90, 300), 0, 401) for t in range(0, 300, 90))
    write_tiff(tmp_path / "out.tif", rows, source, b"<x:xmpmeta/>")
    with tifffile.TiffFile(tmp_path / "out.tif") as written:
        page = written.pages[0]
        assert (page.asarray().reshape(expected.shape) == expected).all()
        assert page.dtype == dtype and page.tags.valueof(700) == b"<x:xmpmeta/>"
        assert page.resolution == source.page.resolution


def test_a_tiff_that_breaks_off_leaves_nothing(astronaut, tmp_path):
    tifffile.imwrite(tmp_path / "in.tif", astronaut)
    source = TiffSource(tmp_path / "in.tif", 3)

    def breaks_off():
        yield source.read(0, 300, 0, 512)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_tiff(tmp_path / "out.tif", breaks_off(), source)
    assert [path.name for path in tmp_path.iterdir()] == ["in.tif"]


def test_mirrored_borders_are_a_leaf():
    """Exact tiling does ReflectionPad by regions; torch's own trace could not look into it."""
    assert isinstance(network(**SMALL).layers[0], ReflectionPad)


def test_what_is_seen_whole_and_memory_cannot_hold_is_refused(monkeypatch):
    """Linux would kill, not say."""
    network = build("generator", "vit_unet", {"filters": 4, "features": 16, "heads": 2, "blocks": 1}).eval()
    tiler = Tiler(network, 3, network.multiple_of, Tiling())
    assert not tiler.applies(7000, 7000)
    monkeypatch.setattr(strategy, "memory_bytes", lambda device: 2**30)
    with pytest.raises(BadInput, match="7000x6000 pixels are more than memory holds.*--size"):
        tiler.applies(6000, 7000)
    assert not tiler.applies(256, 256)
