"""Domains, fetching, unpacking, the decoded store, and chance as a function of position."""

import contextlib
import hashlib
import http.server
import io
import re
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cyclegan import chance
from cyclegan.config import TrainSettings
from cyclegan.datasets import fetch, prepare, unpaired
from cyclegan.datasets.archive import extract, safe_members
from cyclegan.datasets.augment import Augment
from cyclegan.datasets.cards import ZipSource, load_card
from cyclegan.datasets.domain import open_domain
from cyclegan.datasets.scale import Scale, fit
from cyclegan.datasets.store import ImageStore
from cyclegan.datasets.unpaired import PositionSampler, UnpairedImages, loader, on_device, open_stores
from cyclegan.errors import BadInput
from cyclegan.images import list_images

NAMED_IN_THE_DESIGN = [
    "horse2zebra",
    "apple2orange",
    "summer2winter_yosemite",
    "monet2photo",
    "photo2monet",
    "vangogh2photo",
    "cezanne2photo",
    "ukiyoe2photo",
    "maps",
    "cityscapes",
    "facades",
    "iphone2dslr_flower",
    "ae_photos",
    "noto2twemoji",
]


@pytest.mark.parametrize("name", NAMED_IN_THE_DESIGN)
def test_cards(name):
    card = load_card(name)
    assert card.a.licence and card.b.licence and card.a.attribution and card.b.attribution


def test_folders_that_are_filled_by_hand_get_their_attribution(tmp_path, monkeypatch):
    monkeypatch.setenv("CYCLEGAN_DATASETS", str(tmp_path))
    with pytest.raises(BadInput, match="Register at .* Then put the images into "):
        prepare.prepare("cityscapes")
    for side in ("trainA", "trainB"):
        (tmp_path / "cityscapes" / side).mkdir(parents=True)
        (tmp_path / "cityscapes" / side / "a.png").write_bytes(b"")
    folder = prepare.prepare("cityscapes")
    assert "Cordts et al. 2016" in (folder / "ATTRIBUTION.md").read_text()


def test_the_default_domain_is_what_its_card_says(emoji):
    counts = prepare.count_images(emoji)
    assert counts == load_card("noto2twemoji").counts
    names = {split: {p.stem for p in (emoji / split).iterdir()} for split in counts}
    assert names["testA"] == names["testB"]
    # No skin tone or gender of a symbol is on another side than the others.
    variation = re.compile(r"-?U\+(1F3F[B-F]|200D|FE0F|2640|2642)")
    people = re.compile(r"U\+(1F468|1F469)(?=-|$)")
    symbols = {
        split: {people.sub("U+1F9D1", variation.sub("", name)) for name in found}
        for split, found in names.items()
    }
    assert not symbols["trainA"] & symbols["trainB"]
    assert not (symbols["trainA"] | symbols["trainB"]) & symbols["testA"]
    # Both halves show people and flags: else the discriminators learn that, in place of the style.
    for mark in ("U+1F9D1-", "U+1F1"):
        found = [sum(symbol.startswith(mark) for symbol in symbols[split]) for split in ("trainA", "trainB")]
        assert min(found) > 0.5 * max(found)
    assert "Apache-2.0" in (emoji / "ATTRIBUTION.md").read_text()
    assert "CC-BY-4.0" in (emoji / "ATTRIBUTION.md").read_text()
    assert Image.open(next((emoji / "trainA").iterdir())).mode == "RGB"


# --- zips from a server


class Server:
    """A real one on 127.0.0.1 that serves bytes by path, with ranges, and can break off or be slow."""

    def __init__(self):
        self.files, self.break_after, self.requests, self.delay = {}, None, [], 0.0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.0"

            def do_GET(self):
                outer.requests.append((self.path, self.headers.get("Range")))
                if self.path not in outer.files:
                    self.send_error(404)
                    return
                time.sleep(outer.delay)
                data, start = outer.files[self.path], 0
                if self.headers.get("Range"):
                    start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(data) - start))
                self.end_headers()
                self.wfile.write(
                    data[start:] if outer.break_after is None else data[start : outer.break_after]
                )

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def url(self, path):
        return f"http://127.0.0.1:{self.http.server_port}{path}"


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def make_zip(members, compression=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def picture(colour=(200, 30, 30), size=(64, 64)):
    buffer = io.BytesIO()
    noise = np.random.default_rng(sum(colour)).integers(0, 40, (*size, 3), np.uint8)
    Image.fromarray(noise + np.array(colour, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.fixture
def card_for(here, server):
    """Writes data/mine.yaml for a zip on the server."""

    def write(urls=None, **source):
        lines = ["title: Mine"]
        for side in "ab":
            lines.append(f"{side}: {{title: {side}, licence: CC0-1.0, attribution: me, url: http://x}}")
        urls = urls or [server.url("/mine.zip")]
        lines.append(
            f"source: {{kind: zip, urls: {urls}" + "".join(f", {k}: {v}" for k, v in source.items()) + "}"
        )
        (here / "data").mkdir(exist_ok=True)
        (here / "data" / "mine.yaml").write_text("\n".join(lines))

    return write


OFFICIAL = {
    f"mine/{split}/{i}.jpg": picture((200, 30 + 10 * i, 40 + n))
    for n, split in enumerate(("trainA", "trainB", "testA", "testB"))
    for i in range(2)
}


def test_a_broken_download_goes_on_from_where_it_broke(server, here):
    data = make_zip(OFFICIAL)
    server.files["/mine.zip"] = data
    server.break_after = 1000
    source = ZipSource(kind="zip", urls=(server.url("/mine.zip"),))
    with (
        pytest.raises(fetch.Unreachable, match="goes on from there"),
        fetch.fetch_zip(source, here, here / "lock"),
    ):
        pass
    server.break_after = None
    with fetch.fetch_zip(source, here, here / "lock") as path:
        assert path.read_bytes() == data
    assert server.requests[-1] == ("/mine.zip", "bytes=1000-")


def test_a_mirror_serves_when_the_first_address_does_not(server, here):
    server.files["/b/mine.zip"] = make_zip(OFFICIAL)
    source = ZipSource(kind="zip", urls=(server.url("/a/mine.zip"), server.url("/b/mine.zip")))
    with fetch.fetch_zip(source, here, here / "lock") as path:
        assert path.exists()


def test_the_first_digest_is_recorded_and_checked_ever_after(server, here, card_for):
    card_for()
    server.files["/mine.zip"] = make_zip(OFFICIAL)
    prepare.prepare("mine")
    assert server.url("/mine.zip") in (here / "datasets" / "checksums.lock").read_text()
    server.files["/mine.zip"] = make_zip({**OFFICIAL, "mine/trainA/new.jpg": picture()})
    for path in (here / "datasets" / ".downloads").iterdir():
        path.unlink()
    prepare.shutil.rmtree(here / "datasets" / "mine")
    with pytest.raises(BadInput, match=r"SHA-256 is .*, expected .*checksums\.lock.*set aside"):
        prepare.prepare("mine")
    assert not (here / "datasets" / "mine").exists()


def test_a_pinned_digest_wins(server, here, card_for):
    card_for(sha256="f" * 64)
    server.files["/mine.zip"] = make_zip(OFFICIAL)
    with pytest.raises(BadInput, match="expected ffff.*the card"):
        prepare.prepare("mine")


def test_sides_can_be_swapped(server, here, card_for):
    card_for(swap="true")
    server.files["/mine.zip"] = make_zip({**OFFICIAL, "mine/trainA/only_here.jpg": picture()})
    folder = prepare.prepare("mine")
    assert (folder / "trainB" / "only_here.jpg").exists()
    assert not (folder / "trainA" / "only_here.jpg").exists()


def test_processes_that_need_the_same_data_prepare_it_once(server, here, card_for):
    card_for()
    server.files["/mine.zip"] = make_zip(OFFICIAL)
    server.delay = 2
    command = [sys.executable, "-m", "cyclegan", "data", "prepare", "mine"]
    processes = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0], said
    assert len(server.requests) == 1
    assert sorted(path.name for path in (here / "datasets" / "mine").iterdir()) == [
        "ATTRIBUTION.md", "testA", "testB", "trainA", "trainB",
    ]  # fmt: skip


def test_a_host_that_cannot_be_reached(here, card_for):
    card_for(urls=["http://127.0.0.1:9/mine.zip"])
    with pytest.raises(BadInput) as caught:
        prepare.prepare("mine")
    for part in (
        "http://127.0.0.1:9/mine.zip",
        "datasets/mine/trainA",
        "datasets/mine/testB",
        "noto2twemoji",
    ):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def link():
    member = zipfile.ZipInfo("mine/trainA/link.jpg")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    return member


HARMFUL = {
    "climbs": ({"../evil.jpg": b"x"}, "would climb out"),
    "absolute": ({"/evil.jpg": b"x"}, "would climb out"),
    "backslash": ({"..\\evil.jpg": b"x"}, "would climb out"),
    "link": ({link(): b"/etc/passwd"}, "is a link"),
    "bomb": ({"mine/trainA/bomb.jpg": b"\0" * 30_000_000}, "that is a bomb"),
    "no images": ({"readme.txt": b"x"}, "has no images"),
    "twins": ({"x/trainA/1.jpg": b"x", "y/trainA/1.jpg": b"y"}, "two files for trainA/1.jpg"),
}


@pytest.mark.parametrize("name", HARMFUL)
def test_harmful_zips_leave_nothing_behind(name, server, here, card_for):
    card_for()
    members, message = HARMFUL[name]
    server.files["/mine.zip"] = make_zip(members)
    with pytest.raises(BadInput, match=message):
        prepare.prepare("mine")
    assert not (here / "evil.jpg").exists()
    assert {p.name for p in (here / "datasets").iterdir()} <= {".downloads", ".lock", "checksums.lock"}


def test_a_web_page_instead_of_a_zip(server, here, card_for):
    card_for()
    server.files["/mine.zip"] = b"<html>moved</html>"
    with pytest.raises(BadInput, match="sent a web page instead of a zip; nothing was kept"):
        prepare.prepare("mine")


def test_a_damaged_zip(server, here, card_for):
    card_for()
    server.files["/mine.zip"] = make_zip(OFFICIAL)[:-200]
    with pytest.raises(BadInput, match="is damaged or not a whole zip"):
        prepare.prepare("mine")


DAMAGED = "mine/trainB/0.jpg"


def flipped(data, offset):
    """The zip with a byte of one member's data changed."""
    at = data.index(DAMAGED.encode()) + len(DAMAGED) + offset
    return data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]


def described(data, **fields):
    """The zip with other 16-bit values, by their place, in what its directory says of one member."""
    at = data.rindex(DAMAGED.encode()) - 46
    for place, value in fields.values():
        data = data[: at + place] + value.to_bytes(2, "little") + data[at + place + 2 :]
    return data


STORED = make_zip(OFFICIAL, zipfile.ZIP_STORED)
DAMAGES = {
    "a wrong checksum": flipped(STORED, 500),
    "deflate": flipped(make_zip(OFFICIAL), 1),
    "bzip2": flipped(make_zip(OFFICIAL, zipfile.ZIP_BZIP2), 1),
    "lzma": flipped(make_zip(OFFICIAL, zipfile.ZIP_LZMA), 4),
    "an unknown compression": described(STORED, method=(10, 97)),
    "patched data": described(STORED, flags=(8, 0x20)),
    "lengths past its end": described(STORED, packed=(22, 1), whole=(26, 1)),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_one_damaged_member_spoils_the_zip_and_not_the_next_fetch(what, server, here, card_for):
    card_for()
    server.files["/mine.zip"] = DAMAGES[what]
    with pytest.raises(BadInput) as caught:
        prepare.prepare("mine")
    assert re.match(
        r"datasets/\.downloads/mine\.zip: is damaged or not a whole zip \(the member 'mine/trainB/0\.jpg': .+\); "
        "it was removed, fetch it again$",
        str(caught.value),
    )
    left = {str(path.relative_to(here / "datasets")) for path in (here / "datasets").rglob("*")}
    assert left == {".downloads", ".lock"}
    server.files["/mine.zip"] = good = make_zip(OFFICIAL)
    prepare.prepare("mine")
    lock = yaml.safe_load((here / "datasets" / "checksums.lock").read_text())
    assert lock == {server.url("/mine.zip"): hashlib.sha256(good).hexdigest()}


@pytest.mark.parametrize("value", [0x01, 0x80, 0xFF])
def test_whatever_byte_is_changed_a_zip_is_unpacked_or_named(value, here):
    """With a name that is not ASCII, which zipfile has errors of its own for."""
    (here / "in.zip").write_bytes(whole := make_zip({"trainA/\u00e9.jpg": bytes(range(60))}))
    for at in range(len(whole)):
        (here / "in.zip").write_bytes(whole[:at] + bytes([whole[at] ^ value]) + whole[at + 1 :])
        with contextlib.suppress(BadInput, zipfile.BadZipFile):
            for archive, member, _ in safe_members(here / "in.zip"):
                extract(archive, member, here / "out")
                assert (here / "out").read_bytes() == bytes(range(60))


def test_entries_that_name_the_folder_itself_are_passed_over(server, here, card_for):
    card_for()
    server.files["/mine.zip"] = make_zip({"./": b"", ".": b"", ".\\": b"", **OFFICIAL})
    assert prepare.count_images(prepare.prepare("mine")) == dict.fromkeys(prepare.SPLITS, 2)


def test_verify_names_what_is_wrong(server, here, card_for):
    card_for()
    server.files["/mine.zip"] = make_zip(OFFICIAL)
    folder = prepare.prepare("mine")
    assert prepare.verify("mine") == dict.fromkeys(("trainA", "trainB", "testA", "testB"), 2)
    (folder / "testB" / "0.jpg").write_text("not an image")
    with pytest.raises(BadInput, match="testB/0.jpg: is not a JPEG"):
        prepare.verify("mine")


# --- own pictures


def test_two_folders_are_split_by_the_seed(small_domain, here):
    def split(seed):
        data = {"a": small_domain / "trainA", "b": small_domain / "trainB", "held_out": 0.25}
        return open_domain(TrainSettings(data=data, seed=seed))

    one = split(1)
    assert (len(one.train_a), len(one.test_a), len(one.train_b), len(one.test_b)) == (18, 6, 15, 5)
    assert not set(one.train_a) & set(one.test_a)
    assert split(1) == one
    assert split(2).test_a != one.test_a


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"root": "nowhere"}, "nowhere/trainA: no such folder"),
        ({"a": "nowhere", "b": "empty"}, "nowhere: no such folder"),
        ({"a": "empty", "b": "empty"}, "empty: has no JPEG, PNG, WebP, TIFF or BMP images"),
        ({}, "no data: name a DOMAIN"),
    ],
)
def test_missing_pictures(data, message, here):
    (here / "empty").mkdir()
    with pytest.raises(BadInput, match=message):
        open_domain(TrainSettings(data=data))


# --- decoded once


def test_linked_folders_are_read_and_loops_are_not(small_domain, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "linked").symlink_to(small_domain / "trainA")
    (tmp_path / "mine" / "loop").symlink_to(tmp_path / "mine")
    names = [path.name for path in sorted((small_domain / "trainA").iterdir())]
    assert [path.name for path in list_images(tmp_path / "mine")] == names


def test_bad_files_are_listed_together_and_skipped_only_on_demand(tiny, small_domain, here):
    prepare.shutil.copytree(small_domain, here / "bad")
    (here / "bad" / "trainA" / "zz.png").write_bytes(b"")
    Image.new("RGB", (3, 3)).save(here / "bad" / "trainA" / "zzz.png")
    (here / "bad" / "trainB" / "zz.png").write_bytes(b"no image")
    (here / "bad" / "testB" / "0.png").write_bytes(b"no image either")
    settings = tiny(data__root=here / "bad")
    with pytest.raises(BadInput) as caught:
        open_stores(open_domain(settings), settings)
    first, *listed = str(caught.value).split("\n")
    # Of the held-out images, 6 and 7, three are translated and two shown: the first and the fourth.
    assert first.startswith("4 of 55 files cannot be used;") and first.endswith("--data.skip-bad:")
    assert listed == [
        f"  {here}/bad/trainA/zz.png: is empty (0 bytes)",
        f"  {here}/bad/trainA/zzz.png: 3x3 pixels are too few; 8 a side are needed for size 32",
        f"  {here}/bad/trainB/zz.png: is not a JPEG, PNG, WebP, TIFF or BMP image",
        f"  {here}/bad/testB/0.png: is not a JPEG, PNG, WebP, TIFF or BMP image",
    ]
    settings = tiny(data__root=here / "bad", data__skip_bad=True)
    a, b = open_stores(open_domain(settings), settings)
    assert (len(a), len(b)) == (24, 20)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"samples": {"count": 1, "translate": 0}}, {0}),
        ({"samples": {"count": 2, "translate": 0}}, {0, 3}),
        ({"samples": {"count": 1, "translate": 2}}, {0, 1}),
        ({"samples": {"count": 1, "translate": 0}, "evaluation": {"every": 5, "images": 3}}, {0, 2, 4}),
        ({"samples": {"count": 1, "translate": 0}, "evaluation": {"every": 5}}, {0, 1, 2, 3, 4, 5}),
    ],
)
def test_held_out_files_that_a_run_will_look_at_are_read_before_it(changes, found, tiny, small_domain, here):
    prepare.shutil.copytree(small_domain, here / "bad")
    held_out = sorted((here / "bad" / "testA").iterdir())
    for path in held_out:
        path.write_bytes(b"")
    settings = tiny(data__root=here / "bad", **changes)
    with pytest.raises(BadInput) as caught:
        open_stores(open_domain(settings), settings)
    assert [line.split(":")[0].strip() for line in str(caught.value).split("\n")[1:]] == [
        str(held_out[number]) for number in sorted(found)
    ]


def test_the_store_on_disk_holds_what_the_one_in_memory_does(tiny, here):
    in_memory, on_disk = tiny(), tiny(data__memory_gib=0)
    domain = open_domain(in_memory)
    for _ in range(2):  # written at first, found the second time
        for kept, mapped in zip(open_stores(domain, in_memory), open_stores(domain, on_disk), strict=True):
            assert kept.paths == mapped.paths
            for i in range(len(kept)):
                np.testing.assert_array_equal(kept[i], mapped[i])
    assert len(list((here / "datasets" / ".decoded").glob("*.bin"))) == 2


def test_processes_of_a_machine_share_decoded_images(tiny, here, monkeypatch):
    """The second opens what the first has made, and decodes no training image."""
    settings = tiny()
    domain = open_domain(settings)
    alone = open_stores(domain, settings)
    assert all(isinstance(store.images, list) for store in alone)
    first = open_stores(domain, settings, shared=True)
    read = unpaired.read_image
    decoded = []
    monkeypatch.setattr(unpaired, "read_image", lambda path, *more: decoded.append(path) or read(path, *more))
    second = open_stores(domain, settings, shared=True)
    assert not set(decoded) & {*domain.train_a, *domain.train_b}
    for ours, theirs, kept in zip(first, second, alone, strict=True):
        assert theirs.images.path == ours.images.path
        assert all(np.array_equal(theirs[i], kept[i]) for i in range(len(kept)))


def test_where_nothing_can_be_written_each_process_keeps_its_own(tiny, here):
    settings = tiny()
    (here / "datasets").mkdir(exist_ok=True)
    (here / "datasets" / ".decoded").write_text("a file in the folder's place")
    stores = open_stores(open_domain(settings), settings, shared=True)
    assert all(isinstance(store.images, list) for store in stores)


def test_what_was_left_out_of_decoded_images_on_disk_is_asked_for_again(tiny, small_domain, here):
    prepare.shutil.copytree(small_domain, here / "mine")
    (here / "mine" / "trainA" / "zz.png").write_bytes(b"no image")
    settings = tiny(data__root=here / "mine", data__memory_gib=0, data__skip_bad=True)
    open_stores(open_domain(settings), settings)
    settings = tiny(data__root=here / "mine", data__memory_gib=0)
    with pytest.raises(BadInput, match=r"1 of \d+ files cannot be used"):
        open_stores(open_domain(settings), settings)


def test_a_changed_file_is_decoded_anew(tiny, small_domain, here):
    prepare.shutil.copytree(small_domain, here / "mine")
    settings = tiny(data__root=here / "mine", data__memory_gib=0)
    before = open_stores(open_domain(settings), settings)[0]
    Image.new("RGB", (72, 72), "red").save(before.paths[0])
    after = open_stores(open_domain(settings), settings)[0]
    assert tuple(after[0][0, 0]) == (255, 0, 0) != tuple(before[0][0, 0])


# --- augmentation


@pytest.mark.parametrize(
    ("preset", "stored"),
    [
        ("resize_and_crop", (36, 36)),
        ("scale_shortside_and_crop", (36, 54)),
        ("crop", (40, 60)),
        ("resize", (32, 32)),
    ],
)
def test_presets(preset, stored):
    load_size = {"load_size": 36} if "and_crop" in preset else {}
    settings = TrainSettings(size=32, augment={"preset": preset, **load_size})
    image = fit(Scale.of(settings))(np.zeros((40, 60, 3), np.uint8))
    assert image.shape[:2] == stored
    assert Augment(settings)(image, "A", 0).shape == (32, 32, 3)


@pytest.mark.parametrize("preset", ["resize_and_crop", "scale_shortside_and_crop", "resize"])
def test_a_scale_that_blows_pictures_up_past_all_measure_is_refused(preset):
    """As a stranger's config.json may have it."""
    scale = Scale(preset=preset, size=65536 if preset == "resize" else 64, load_size=65536)
    with pytest.raises(ValueError, match="would become 65536x.* past the limit of 512,000,000"):
        fit(scale)(np.zeros((16384, 16384, 1), np.uint8))


def test_transforms_by_name_act():
    settings = TrainSettings(size=32, augment={"transforms": [{"name": "InvertImg", "p": 1.0}]})
    image = np.full((36, 36, 3), 10, np.uint8)
    assert (Augment(settings)(image, "A", 0) == 245).all()


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (
            {"name": "ColorJiter"},
            "augment.transforms.0: albumentations has no 'ColorJiter'; did you mean 'ColorJitter'",
        ),
        ({"hue": 1}, "augment.transforms.0: needs a name"),
        ({"name": "ColorJitter", "hew": 1}, "ColorJitter has no argument 'hew'; did you mean 'hue'"),
        ({"name": "GaussianBlur", "p": 7}, "augment.transforms.0: GaussianBlur:"),
    ],
)
def test_wrong_transforms(transform, message):
    with pytest.raises(BadInput) as caught:
        Augment(TrainSettings(augment={"transforms": [transform]}))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# --- chance is a function of the position


def numbered(count_a, count_b, **changes):
    """Images whose value is their number; no crop and no flip, so that the number can be read back."""
    settings = TrainSettings(size=16, augment={"preset": "resize", "flip": False}, seed=3, **changes)
    stores = [
        ImageStore([None] * n, [np.full((16, 16, 3), i, np.uint8) for i in range(n)])
        for n in (count_a, count_b)
    ]
    return UnpairedImages(*stores, settings)


def test_an_epoch_walks_all_of_a_and_b_in_an_order_of_its_own():
    data = numbered(12, 5)
    for epoch in range(3):
        shown = [data.index("A", p) for p in range(12 * epoch, 12 * (epoch + 1))]
        assert sorted(shown) == list(range(12))
    assert [data.index("A", p) for p in range(12)] != [data.index("A", p) for p in range(12, 24)]
    assert max(Counter(data.index("B", p) for p in range(20)).values()) == 4
    partners = {data.index("B", p) for p in range(0, 600) if data.index("A", p) == 0}
    assert partners == set(range(5))


def test_permutations_are_fair():
    firsts = Counter(int(chance.permutation(0, "order A", e, 4)[0]) for e in range(4000))
    assert all(abs(n - 1000) < 120 for n in firsts.values())  # four standard deviations


@pytest.mark.parametrize("parts", [1, 2])
def test_processes_share_the_global_batch(parts):
    """Two processes see together, in order, what one process sees; with accumulation too."""

    def batches(processes, count):
        samplers = [iter(PositionSampler(8, 40, rank, processes, parts)) for rank in range(processes)]
        return [[p for sampler in samplers for p in next(sampler)] for _ in range(count)]

    assert batches(1, 6) == batches(2, 6)
    assert sum(batches(2, parts), []) == list(range(40, 48))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_sample_is_the_same_whoever_makes_it(tiny, workers):
    settings = tiny(seed=5)
    data = UnpairedImages(*open_stores(open_domain(settings), settings), settings)
    batches = iter(loader(data, PositionSampler(4, 8, 0, 1), workers, pin=False))
    batch = next(batches), next(batches)
    for offset, found in zip((8, 12), batch, strict=True):
        assert found["images"].dtype == torch.uint8
        # A GPU's work would be waited for where a position is read.
        assert on_device(found, torch.device("meta"))["position"].device.type == "cpu"
        found = on_device(found, torch.device("cpu"))
        for i in range(4):
            alone = data[offset + i]
            assert torch.equal(found["real_a"][i], alone["real_a"])
            assert torch.equal(found["real_b"][i], alone["real_b"])


def test_augmentation_differs_between_positions_and_seeds():
    image = np.random.default_rng(0).integers(0, 255, (36, 36, 3), np.uint8)

    def shown(seed):
        augment = Augment(TrainSettings(size=32, seed=seed))
        return [augment(image, side, p).tobytes() for side in "AB" for p in range(20)]

    assert shown(0) == shown(0)
    assert len(set(shown(0))) > 15
    assert shown(0) != shown(1)


def test_a_crop_is_a_window_or_its_mirror_image_each_as_often():
    """Every pixel tells its place, in a read-only view, as images that live on disk are."""
    places = np.arange(36 * 36, dtype=np.uint16).reshape(36, 36, 1)
    places.flags.writeable = False
    augment = Augment(TrainSettings(size=32))
    corners, mirrored = Counter(), 0
    for position in range(2000):
        found = np.rint(augment(places, "A", position) * 65535).astype(int)[:, :, 0]
        step = found[0, 1] - found[0, 0]
        mirrored += step == -1
        window = found[:, ::step]
        top, left = divmod(int(window[0, 0]), 36)
        np.testing.assert_array_equal(window, places[top : top + 32, left : left + 32, 0])
        corners[top, left] += 1
    assert set(corners) == {(y, x) for y in range(5) for x in range(5)}
    assert all(abs(count - 80) < 45 for count in corners.values())  # five standard deviations
    assert abs(mirrored - 1000) < 112
    assert not (augment(places, "A", 0) == augment(places, "B", 0)).all()


def test_no_flip_where_it_is_turned_off():
    ramp = np.arange(36, dtype=np.uint8)[None, :, None].repeat(36, axis=0)
    augment = Augment(TrainSettings(size=32, augment={"flip": False}))
    assert all(np.diff(augment(ramp, "A", p)[0, :, 0].astype(int)).min() == 1 for p in range(40))


def test_one_deep_image_makes_the_batch_deep():
    settings = TrainSettings(size=16, augment={"preset": "resize", "flip": False})
    images = [np.full((16, 16, 3), 100, np.uint8), np.full((16, 16, 3), 25700, np.uint16)]
    data = UnpairedImages(*(ImageStore([None] * 2, images) for _ in "AB"), settings)
    batch = next(iter(loader(data, PositionSampler(2, 0, 0, 1), 0, pin=False)))
    assert batch["images"].dtype == torch.float32 and batch["position"].tolist() == [0, 1]
    torch.testing.assert_close(batch["images"], torch.full((4, 3, 16, 16), 100 / 255 * 2 - 1))


def test_deep_images_keep_their_depth_through_augmentation():
    settings = TrainSettings(size=16, augment={"preset": "resize", "flip": False})
    deep = np.full((16, 16, 1), 32769, np.uint16)
    data = UnpairedImages(*(ImageStore([None], [deep]) for _ in "AB"), settings)
    assert float(data[0]["real_a"][0, 0, 0]) == pytest.approx(32769 / 65535 * 2 - 1, abs=1e-7)
