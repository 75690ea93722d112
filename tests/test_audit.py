"""Licences and attribution: what cards and files say is put together, and what is not allowed is refused."""

import json
import re
import shutil
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from test_rights import ZERO, with_exiv2

from cyclegan.cli import main
from cyclegan.config import TrainSettings
from cyclegan.datasets.audit import audit_folder
from cyclegan.datasets.cards import Card, list_cards, load_card
from cyclegan.datasets.clearing import ask_card, cleared
from cyclegan.datasets.domain import Domain, open_domain
from cyclegan.datasets.licences import licence_of
from cyclegan.errors import BadInput
from cyclegan.images import write_image
from cyclegan.reporting.report.about import begin_about
from cyclegan.reporting.report.page import _remarks
from cyclegan.training.train import train
from cyclegan.translation.inspection import inspect_file

ALLOWED = "CC0-1.0,CC-BY-4.0,Apache-2.0"


@pytest.mark.parametrize("name", sorted(list_cards()))
def test_a_card_that_names_licences_names_those_of_its_originals(name):
    card = load_card(name)
    if card.source.kind == "made":
        parts = {licence_of(original.licence) for original in card.source.originals} - {None}
        for side in (card.a, card.b):
            assert set((licence_of(side.licence) or "").split(" AND ")) - {""} == parts


@pytest.fixture
def folder(tmp_path):
    """A domain of own pictures; all of them say that they are under CC0."""
    for number, split in enumerate(("trainA", "trainB", "testA", "testB")):
        for each in range(2):
            pixels = np.random.default_rng(10 * number + each).integers(0, 256, (48, 48, 3), np.uint8)
            path = tmp_path / "own" / split / f"{each}.png"
            write_image(path, pixels)
            with_exiv2(path, xmp={"Xmp.xmpRights.WebStatement": ZERO, "Xmp.dc.creator": [f"Maker {number}"]})
    return tmp_path / "own"


def own(folder):
    return open_domain(TrainSettings(data={"root": folder}))


def refused(folder, allowed=ALLOWED, **styles):
    with pytest.raises(BadInput) as error:
        cleared(own(folder), allowed, styles)
    return str(error.value).removeprefix("require_license: ")


def test_own_pictures_that_say_enough_are_let_in(folder):
    domain = cleared(own(folder), ALLOWED, {})
    assert domain.licences == {"A": "CC0-1.0", "B": "CC0-1.0"}
    assert domain.attribution == {"A": "Maker 0; Maker 2", "B": "Maker 1; Maker 3"}
    path = folder / "trainB" / "1.png"
    with_exiv2(path, exif={"Exif.Image.Copyright": "Jo, CC BY 4.0"})
    assert cleared(own(folder), ALLOWED, {}).licences == {"A": "CC0-1.0", "B": "CC-BY-4.0 AND CC0-1.0"}
    assert refused(folder, "CC0-1.0") == f"{path}: is under CC-BY-4.0 AND CC0-1.0, which is not among CC0-1.0"


def test_each_thing_that_is_not_allowed_is_named(folder):
    path = folder / "testA" / "1.png"
    with_exiv2(path, exif={"Exif.Image.Copyright": "© Jo, all rights reserved"})
    assert refused(folder) == f"{path}: its EXIF Copyright says '© Jo, all rights reserved'"
    with_exiv2(
        path,
        exif={"Exif.Image.Copyright": "Jo"},
        xmp={"Xmp.plus.DataMining": "http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED-AIMLTRAINING"},
    )
    assert refused(folder).startswith(f"{path}: its XMP plus:DataMining says 'http://ns.useplus.org")
    write_image(path, np.zeros((48, 48, 3), np.uint8))
    assert refused(folder).startswith(f"{path}: says nothing of a licence, and there is no card that does")


@pytest.mark.parametrize("terms", ["CC BY-NC-ND", "Editorial use only"])
def test_words_that_are_no_known_licence_are_not_passed_over(folder, terms):
    """Beside a licence that is named, in the file or by a card."""
    path = folder / "trainA" / "1.png"
    with_exiv2(path, xmp={"Xmp.xmpRights.UsageTerms": {'lang="x-default"': terms}})
    said = f"its XMP xmpRights:UsageTerms says {terms!r}, which is no licence that is known"
    assert refused(folder) == f"{path}: {said}"
    assert audit_folder(folder).unknown() == [path]
    with_exiv2(path, xmp={"Xmp.xmpRights.UsageTerms": {'lang="x-default"': "CC0 1.0"}})
    with_exiv2(path, exif={"Exif.Image.Copyright": f"© J. Doe, {terms}"})
    assert refused(folder).startswith(f"{path}: its EXIF Copyright says '© J. Doe, {terms}'")
    with pytest.raises(BadInput, match="which is no licence that is known"):
        cleared(Domain("x", [path], [], [], [], load_card("noto2twemoji")), ALLOWED, {})


LIMITED = [
    "CC BY 4.0, non-commercial use only", "© Jo. CC BY 4.0. Not for AI training", "CC BY 4.0; no commercial use",
    "This work is not licensed under CC BY 4.0; editorial use only", "This work is not licensed under CC BY 4.0.",
    "© Jo. This picture is NOT available under CC-BY-4.0", "Not under http://creativecommons.org/licenses/by/4.0/",
    "CC BY 4.0 (but CC BY-NC for the frame)", "CC0 1.0; no derivatives", "Apache License 2.0, rights-managed",
    "CC BY 4.0. May not be used to develop AI models.", "CC BY 4.0, AI training is not permitted",
    "CC0 1.0. Rights for text and data mining are reserved.", "CC BY 4.0, for research purposes only",
    "CC BY 4.0. Not to be copied, in any form, without prior written consent.", "CC BY 4.0, not for resale",
    "CC BY 4.0. This picture cannot be used to train AI models", "CC BY 4.0. Please don't use it to train AI",
    "CC BY 4.0 except for AI training", "CC0 1.0, AI training excluded", "CC BY 4.0. Not to be trained on", "CC0, NoAI",
    "CC BY 4.0. Do not feed to generative models", "CC0 1.0. Cannot be used without permission",
    "CC0 1.0, permission required for prints", "CC BY 4.0, only with the maker's permission", "CC0 or CC BY-SA",
    "CC BY 4.0. Do not train neural networks on this", "CC0, no deep learning", "CC BY 4.0, No ML",
    "CC BY 4.0. Do not include in datasets", "CC BY 4.0, no modifications", "CC0 1.0, may not be altered",
    "CC BY 4.0. All uses require permission", "CC BY 4.0. Any use needs my written consent",
    "CC BY 4.0 does not apply to this photo", "This photo is excluded from our CC BY 4.0 licence",
    "CC BY 4.0. Not\u00a0for\nAI training", "CC0.\n No\n machine\u00a0learning",
    "© CC0 Not for AI training",
]  # fmt: skip
FORBIDDING = [
    "© Jo. Use for AI training prohibited.", "No reuse without permission.", "No machine learning, © Jo",
    "No permission for data mining is given.", "Opted out of AI training", "Ask for commercial or non-commercial use",
    "Do not train neural networks on this", "All uses require permission", "Licensed\n under terms of mine",
]  # fmt: skip


@pytest.mark.parametrize("terms", LIMITED + FORBIDDING)
def test_a_licence_that_is_named_does_not_outweigh_what_is_forbidden_beside_it(folder, terms):
    path = folder / "trainA" / "1.png"
    domain = Domain("x", [path], [], [], [], load_card("noto2twemoji"))
    for field in ("xmpRights.UsageTerms", "dc.rights"):
        write_image(path, np.zeros((48, 48, 3), np.uint8))
        with_exiv2(
            path, xmp={"Xmp.xmpRights.WebStatement": ZERO, f"Xmp.{field}": {'lang="x-default"': terms}}
        )
        words = " ".join(terms.split())  # told in one line
        said = f"its XMP {field.replace('.', ':')} says {words!r}, which is no licence that is known"
        assert refused(folder) == f"{path}: {said}"
        with pytest.raises(BadInput, match="which is no licence that is known"):
            cleared(domain, ALLOWED, {})


def test_the_address_of_a_page_may_stand_beside_a_licence_that_is_named(folder):
    path = folder / "trainA" / "1.png"
    xmp = {"Xmp.xmpRights.WebStatement": "https://example.org/rights"}
    with_exiv2(path, xmp=xmp)
    assert "https://example.org/rights" in refused(folder)
    with_exiv2(path, xmp={**xmp, "Xmp.xmpRights.UsageTerms": {'lang="x-default"': "CC BY 4.0"}})
    assert cleared(own(folder), ALLOWED, {}).licences["A"] == "CC-BY-4.0 AND CC0-1.0"


def test_a_picture_that_only_lends_its_style_is_one_of_those_used(folder, tmp_path):
    path = tmp_path / "painting.png"
    write_image(path, np.zeros((48, 48, 3), np.uint8))
    assert refused(folder, B=path).startswith(f"{path}: says nothing of a licence, and there is no card that")
    with_exiv2(path, exif={"Exif.Image.Copyright": "© Jo, all rights reserved"})
    assert refused(folder, B=path) == f"{path}: its EXIF Copyright says '© Jo, all rights reserved'"
    with_exiv2(path, exif={"Exif.Image.Copyright": "Jo, CC BY 4.0"})
    domain = cleared(own(folder), ALLOWED, {"B": path})
    assert domain.licences == {"A": "CC0-1.0", "B": "CC-BY-4.0 AND CC0-1.0"}
    assert "Jo" in domain.attribution["B"]
    # One of the domain's own was looked at already.
    assert cleared(own(folder), ALLOWED, {"A": folder / "trainB/0.png"}).licences["A"] == "CC0-1.0"


def test_a_card_says_nothing_of_a_style_picture(emoji, tmp_path):
    """The domain is cleared by its card, a picture from elsewhere is not."""
    domain, allowed = open_domain(TrainSettings(domain="noto2twemoji")), "Apache-2.0,CC-BY-4.0"
    write_image(tmp_path / "painting.png", np.zeros((48, 48, 3), np.uint8))
    with pytest.raises(BadInput, match="painting.png: says nothing of a licence"):
        cleared(domain, allowed, {"B": tmp_path / "painting.png"})


def test_the_card_comes_first_and_its_words_are_no_licence(emoji):
    nothing = Domain("x", [], [], [], [], load_card("noto2twemoji"))
    with pytest.raises(
        BadInput,
        match=r"side A \(Noto Emoji, as Google draws them\) is under Apache-2.0, which is not among CC0-1.0",
    ):
        cleared(nothing, "CC0-1.0", {})
    horses = [sorted((emoji / "testA").iterdir())[0]]
    zebras = Domain("x", horses, horses, [], [], load_card("horse2zebra"))
    with pytest.raises(
        BadInput, match=r"side A \(horses\) is under no licence that is known: ImageNet terms"
    ):
        cleared(zebras, ALLOWED, {})


def test_duplicates_are_found_by_their_pixels(folder):
    first, other = folder / "trainA" / "0.png", folder / "testA" / "same.tif"
    Image.open(first).save(other)
    audit = audit_folder(folder)
    assert [set(group) for group in audit.duplicates()] == [{first, other}]
    assert audit.unknown() == [other]
    (folder / "trainB" / "bad.png").write_bytes(b"no picture")
    audit = audit_folder(folder)
    assert [path.name for path, _ in audit.unread()] == ["bad.png"]
    assert len(audit.duplicates()) == 1


def call(capsys, *words):
    with pytest.raises(SystemExit) as done:
        main([str(word) for word in words])
    printed = capsys.readouterr()
    return done.value.code, printed.out, printed.err


def test_the_command(folder, capsys):
    status, out, _ = call(capsys, "data", "audit", folder)
    assert status == 0 and "8 pictures" in out and "Maker 3 (2)" in out and "CC0-1.0 2" in out
    status, out, err = call(capsys, "data", "audit", folder, "--require-license", "CC-BY-4.0", "--json")
    found = json.loads(out)
    assert status == 2 and len(err.splitlines()) == 1
    assert found["licences"]["trainA"] == {"CC0-1.0": 2} and found["unknown"] == []
    assert found["objection"] in err and found["files"][0]["says"]


def test_a_file_that_cannot_be_decoded_is_no_allowed_picture(tmp_path, capsys):
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"no picture")
    command = ("data", "audit", tmp_path, "--require-license", "CC0-1.0")
    status, out, err = call(capsys, *command)
    assert status == 2 and "unread    1" in out and len(err.splitlines()) == 1
    assert f"1 of 1 files cannot be used; mend or remove them: {bad}: is not a JPEG" in err
    good = tmp_path / "good.png"
    write_image(good, np.zeros((8, 8, 3), np.uint8))
    with_exiv2(good, xmp={"Xmp.xmpRights.WebStatement": ZERO})
    for number in range(11):
        (tmp_path / f"none{number:02}.jpg").write_bytes(b"")
    status, _, err = call(capsys, *command)
    assert status == 2 and len(err.splitlines()) == 1 and str(good) not in err
    assert "12 of 13 files cannot be used" in err and f"{bad}: " in err and "; and 2 more" in err
    assert call(capsys, "data", "audit", tmp_path)[0] == 0  # it only tells


def test_training_refuses_what_cannot_be_decoded_or_leaves_it_out(tiny, folder):
    """The audit before it does not stand in the way of --data.skip-bad."""
    (folder / "trainA" / "bad.png").write_bytes(b"no picture")
    assert cleared(own(folder), ALLOWED, {}).licences["A"] == "CC0-1.0"
    with pytest.raises(BadInput, match="1 of 9 files cannot be used"):
        train(tiny(data__root=folder, require_license=["CC0-1.0"], tracker="none"))


@pytest.mark.parametrize("by_path", [False, True])
def test_of_a_prepared_domain_the_card_speaks(emoji, capsys, monkeypatch, by_path):
    monkeypatch.setenv("CYCLEGAN_DATASETS", str(emoji.parent))
    monkeypatch.setattr("cyclegan.datasets.audit.list_images", lambda f: sorted(f.iterdir())[:3])
    name = emoji.parent / "noto2twemoji" if by_path else "noto2twemoji"
    status, out, _ = call(capsys, "data", "audit", name, "--require-license", "Apache-2.0,CC-BY-4.0")
    assert status == 0 and "Twemoji, Twitter, Inc." in out and "Apache-2.0 3" in out


def test_run_generator_and_outputs_carry_the_list(tiny, folder, here, capsys, photograph):
    settings = tiny(data__root=folder, require_license=["CC0-1.0", "CC-BY-4.0"], tracker="none")
    result = train(settings)
    about = json.loads((result.run.folder / "about.json").read_text())
    licences, by = {"A": "CC0-1.0", "B": "CC0-1.0"}, {"A": "Maker 0; Maker 2", "B": "Maker 1; Maker 3"}
    assert (about["licences"], about["attribution"]) == (licences, by)
    assert about["required_licences"] == ["CC0-1.0", "CC-BY-4.0"]
    assert "require_license: CC0-1.0,CC-BY-4.0" in (result.run.folder / "config.yaml").read_text()
    report = (result.run.folder / "report.html").read_text()
    assert (
        "only pictures under CC0-1.0, CC-BY-4.0 were let in" in report
        and "A is by Maker 0; Maker 2." in report
    )
    generator = result.run.generator("G_AB")
    config = json.loads((generator / "config.json").read_text())
    assert (config["licences"], config["attribution"]) == (licences, by)
    assert "training images of A: CC0-1.0; by Maker 0; Maker 2" in (generator / "README.md").read_text()
    photograph("in/a.jpg")
    status, _, _ = call(capsys, "translate", generator, here / "in", here / "out")
    label = inspect_file(here / "out" / "a.jpg").label
    assert status == 0 and (label["licences"], label["attribution"]) == (licences, by)
    manifest = (here / "out" / "manifest.jsonl").read_text()
    assert json.dumps(by) in manifest and json.dumps(licences) in manifest


def test_training_refuses_in_one_line_before_anything_is_written(folder, here, capsys):
    (folder / "trainA" / "0.png").unlink()
    write_image(folder / "trainA" / "0.png", np.zeros((48, 48, 3), np.uint8))
    status, _, err = call(
        capsys,
        "train",
        "--data.root",
        folder,
        "--require-license",
        ALLOWED,
        "--steps",
        "1",
        "--tracker",
        "none",
    )
    assert status == 2 and len(err.splitlines()) == 1
    assert f"{folder / 'trainA' / '0.png'}: says nothing of a licence" in err
    assert not (here / "runs").exists()


def test_training_refuses_a_style_picture_too(tiny, folder, here):
    write_image(here / "painting.png", np.zeros((48, 48, 3), np.uint8))
    style = {"lambda_style": 1, "style_picture_b": here / "painting.png"}
    with pytest.raises(BadInput, match="painting.png: says nothing of a licence"):
        train(tiny(data__root=folder, require_license="CC0-1.0", tracker="none", losses=style))
    assert not (here / "runs").exists()


def with_card(folder, **sides):
    """The domain of own pictures, with a card of the user's own."""
    side = {"title": "pictures", "attribution": "Jo", "url": "https://example.org"}
    card = Card(
        title="mine",
        a={**side, "licence": sides.get("a", "CC0-1.0")},
        b={**side, "licence": sides.get("b", "CC0-1.0")},
        source={"kind": "folder", "instructions": "Ask Jo."},
    )
    return replace(own(folder), card=card)


@pytest.mark.parametrize(
    "words",
    [
        "CC BY 4.0, non-commercial research only", "All rights reserved", "CC-BY-4.0 AND Proprietary",
        "CC BY 4.0 NC", "CC BY 4.0. Tous droits réservés", "CC0, not for AI training",
    ],
)  # fmt: skip
def test_a_cards_words_count_as_a_files_do(folder, words):
    """Terms beside a licence limit it, and what a picture says of itself does not undo them."""
    domain = with_card(folder, b=words)
    with pytest.raises(BadInput) as error:
        cleared(domain, ALLOWED, {})
    assert str(error.value).endswith(f"side B (pictures) is under no licence that is known: {words}")
    for plain in ("CC BY 4.0", "Licensed under CC BY 4.0 by Jo"):
        assert cleared(with_card(folder, b=plain), ALLOWED, {}).licences["B"] == "CC-BY-4.0 AND CC0-1.0"
    # Where a card has neither a licence nor terms, a picture's own is enough.
    assert cleared(with_card(folder, b="not stated"), ALLOWED, {}).licences["B"] == "CC0-1.0"


@pytest.mark.parametrize("field", ["Exif.Image.Artist", "Iptc.Application2.Credit", "Xmp.photoshop.Credit"])
def test_a_creator_who_reserves_all_rights_is_heard(folder, field):
    path = folder / "trainA" / "1.png"
    kind = field.partition(".")[0].lower()
    with_exiv2(path, **{kind: {field: "Jo Zed"}})
    assert cleared(own(folder), ALLOWED, {}).licences["A"] == "CC0-1.0"
    with_exiv2(path, **{kind: {field: "Jo Zed, all rights reserved"}})
    assert refused(folder).startswith(f"{path}: its ")
    assert refused(folder).endswith("says 'Jo Zed, all rights reserved'")


def test_pictures_in_no_split_are_audited_too(folder, capsys):
    (folder / "more" / "trainA").mkdir(parents=True)
    for name in ("beside.png", "more/trainA/deep.png"):
        write_image(folder / name, np.zeros((48, 48, 3), np.uint8))
    audit = audit_folder(folder)
    assert [file.path for file in audit.splits["elsewhere"]] == audit.unknown()
    assert [path.name for path in audit.unknown()] == ["beside.png", "deep.png"]
    status, out, err = call(capsys, "data", "audit", folder, "--require-license", "CC0-1.0")
    assert status == 2 and "10 pictures" in out and "elsewhere unknown 2" in out
    assert f"{folder / 'beside.png'}: says nothing of a licence" in err
    assert cleared(own(folder), ALLOWED, {}).licences["A"] == "CC0-1.0"  # a training does not see them


def test_other_pictures_than_a_card_counts_are_told(folder):
    card = with_card(folder).card
    counted = card.model_copy(update={"counts": {"trainA": 2, "trainB": 2, "testA": 2, "testB": 2}})
    assert audit_folder(folder, counted).remark() is audit_folder(folder, card).remark() is None
    write_image(folder / "trainA" / "2.png", np.zeros((48, 48, 3), np.uint8))
    audit = audit_folder(folder, counted)
    assert "not those that the card counts: 3 in trainA instead of 2; " in audit.as_json()["remark"]
    assert audit.objection(["CC0-1.0"]) is None


@pytest.mark.parametrize(
    "name, why",
    [
        ("t1tot2", "side A .* under no licence that is known: not stated"),  # made here
        ("horse2zebra", "side A .* under no licence that is known: ImageNet terms"),
        ("noto2twemoji", "side A .* under Apache-2.0, which is not among CC0-1.0"),
    ],
)
def test_a_card_is_asked_before_its_pictures_are_fetched(here, capsys, name, why):
    command = ("train", name, "--require-license", "CC0-1.0", "--tracker", "none")
    status, _, err = call(capsys, *command)
    assert status == 2 and re.search(why, err) and len(err.splitlines()) == 1
    assert list(here.iterdir()) == []
    for settings in (TrainSettings(domain=name), TrainSettings(domain=name, data={"root": here})):
        ask_card(
            settings.model_copy(update={"require_license": "Apache-2.0" if settings.data.root else None})
        )


def test_of_the_folder_of_a_card_the_remedy_names_the_domain(emoji, tmp_path, monkeypatch):
    monkeypatch.setenv("CYCLEGAN_DATASETS", str(tmp_path))
    for split in ("trainA", "trainB"):
        (tmp_path / "noto2twemoji" / split).mkdir(parents=True)
        shutil.copy(next((emoji / split).iterdir()), tmp_path / "noto2twemoji" / split)
    assert "'cyclegan train noto2twemoji' goes by it" in refused(tmp_path / "noto2twemoji")
    (tmp_path / "noto2twemoji").rename(tmp_path / "mine")
    assert "there is no card that does; write it into the file" in refused(tmp_path / "mine")


def test_of_a_domain_that_is_not_here_the_card_is_told(here, capsys):
    status, out, err = call(capsys, "data", "audit", "horse2zebra")
    assert status == 2 and "card A  horses: unknown (ImageNet terms" in out and "twice" not in out
    assert len(err.splitlines()) == 1 and "'cyclegan data prepare horse2zebra' does it" in err


def test_the_command_tells_of_pictures_that_the_card_does_not_count(emoji, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("CYCLEGAN_DATASETS", str(tmp_path))
    for split in ("trainA", "trainB"):
        (tmp_path / "noto2twemoji" / split).mkdir(parents=True)
        shutil.copy(next((emoji / split).iterdir()), tmp_path / "noto2twemoji" / split)
    status, out, _ = call(capsys, "data", "audit", "noto2twemoji")
    assert status == 0 and "counts    not those that the card counts: 1 in trainA instead of " in out


def test_the_remedy_for_a_bmp_is_another_format(folder):
    Image.new("RGB", (48, 48)).save(folder / "trainA" / "2.bmp")
    assert "a BMP has no place for one: save it as PNG or TIFF and write it into the file" in refused(folder)


def test_a_style_picture_is_named_without_an_audit_too(folder, tmp_path):
    domain, path = with_card(folder, a="Apache-2.0", b="not stated"), tmp_path / "painting.png"
    write_image(path, np.zeros((48, 48, 3), np.uint8))
    assert cleared(domain, None, {}) is cleared(domain, None, {"A": folder / "trainB/0.png"}) is domain
    assert cleared(domain, None, {"A": path}).licences == {"A": "unknown", "B": "not stated"}
    with_exiv2(path, exif={"Exif.Image.Copyright": "CC BY 4.0", "Exif.Image.Artist": "Al"})
    found = cleared(domain, None, {"A": path})
    assert found.licences == {"A": "Apache-2.0 AND CC-BY-4.0", "B": "not stated"}
    assert found.attribution == {"A": "Jo; Al", "B": "Jo"} and found.clearance.required == ()
    with_exiv2(path, xmp={"Xmp.plus.DataMining": "http://ns.useplus.org/ldf/vocab/DMI-PROHIBITED"})
    assert cleared(domain, None, {"A": path}).licences["A"] == "unknown"


def test_the_report_knows_licences_by_their_identifiers(tiny, folder):
    """Not only by the word non-commercial."""
    about = begin_about(folder, with_card(folder, a="CC-BY-NC-4.0", b="not stated"), 1, "no")
    run = SimpleNamespace(about=about)
    said = [remark["message"] for remark in _remarks(run)]
    assert said[0] == "The training images of A are for non-commercial use."
    assert said[1].startswith("The licence of the training images of B is not known (not stated); ")
    plain = SimpleNamespace(about=begin_about(folder, with_card(folder, b="CC BY 4.0"), 1, "no"))
    assert list(_remarks(plain)) == []


def test_what_is_required_is_kept_as_spdx_spells_it(tiny, folder):
    run = train(tiny(data__root=folder, require_license="cc0-1.0, apache-2.0,", steps=1)).run
    assert "require_license: CC0-1.0,Apache-2.0" in (run.folder / "config.yaml").read_text()
