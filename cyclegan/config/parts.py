"""The sections of a recipe, each a frozen model of its own."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator


class Frozen(BaseModel):
    """Settings do not change while a run goes on, and a key that nobody reads is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)


VggLayer = Literal[
    "relu1_1", "relu1_2", "relu2_1", "relu2_2", "relu3_1", "relu3_2", "relu3_3", "relu3_4",
    "relu4_1", "relu4_2", "relu4_3", "relu4_4", "relu5_1", "relu5_2", "relu5_3", "relu5_4",
]  # fmt: skip


class DataSettings(Frozen):
    root: Path | None = Field(None, description="folder with trainA, trainB and, if there are, testA, testB")
    a: Path | None = Field(None, description="any folder of pictures, as domain A; goes with --data.b")
    b: Path | None = Field(None, description="any folder of pictures, as domain B; goes with --data.a")
    held_out: float = Field(
        0.1, gt=0, lt=1, description="share of --data.a and --data.b kept out of training, for the samples"
    )
    channels: Literal[1, 3] = Field(
        3, description="1: grey, 3: colour; files of the other kind are converted"
    )
    background: tuple[int, int, int] = Field(
        (255, 255, 255), description="RGB colour under transparent pixels"
    )
    skip_bad: bool = Field(False, description="train without the files that cannot be used")
    memory_gib: float = Field(
        4.0, ge=0, description="decoded images beyond this size are kept on disk, not in memory"
    )
    workers: int | None = Field(
        None, ge=0, description="processes that load images; default 0 on a CPU, 4 for each GPU"
    )


LARGEST_SIZE = 65536  # pixels a side of anything; past it a setting is a trap
PresetName = Literal["resize_and_crop", "scale_shortside_and_crop", "crop", "resize"]


class AugmentSettings(Frozen):
    preset: PresetName = Field("resize_and_crop", description="how an image comes to the training size")
    load_size: int | None = Field(
        None,
        ge=1,
        le=LARGEST_SIZE,
        description="size before the random crop; default 286/256 of --size, as in the paper",
    )
    flip: bool = Field(True, description="mirror half of the images")
    transforms: tuple[dict[str, Any], ...] = Field(
        (), description="more albumentations transforms by name, e.g. {name: ColorJitter, hue: 0.05}"
    )

    @field_validator("transforms")
    @classmethod
    def _plain(cls, transforms: tuple[dict[str, Any], ...]) -> tuple[dict[str, Any], ...]:
        """YAML has dates, bytes and infinities, which no transform takes and no config.yaml gives back."""
        try:
            json.dumps(transforms, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"augment.transforms: takes words, numbers and lists alone ({error})") from error
        return transforms


class GeneratorSettings(Frozen):
    """What is left out takes the network's own default; what the network lacks is refused."""

    name: str = Field("resnet", description="network of both generators")
    filters: int | None = Field(None, ge=1, le=4096, description="features after the first layer")
    blocks: int | None = Field(
        None,
        ge=0,
        le=256,
        description="residual blocks of resnet, transformer blocks of vit_unet and modnet",
    )
    depth: int | None = Field(
        None, ge=1, le=10, description="halvings; of unet as many as lead to one pixel, of the others 4"
    )
    features: int | None = Field(None, ge=1, le=4096, description="of a transformer's tokens")
    heads: int | None = Field(None, ge=1, le=1024, description="of a transformer's attention")
    style: Literal["token", "reference"] | None = Field(
        None, description="modnet's style: learned, or that of a picture of the target domain"
    )
    attention: int | None = Field(
        None, ge=1, description="self-attention on feature maps of this side, at the training size"
    )
    norm: Literal["instance", "instance_affine", "batch", "none"] | None = Field(
        None, description="normalization"
    )
    upsample: Literal["transpose", "resize", "resize_zero", "bilinear", "bilinear_zero", "blur"] | None = (
        Field(None, description="transpose as in the paper; resize is free of checkerboards")
    )
    downsample: Literal["stride", "blur"] | None = Field(
        None, description="stride as in the paper; blur is free of aliasing"
    )
    padding: Literal["reflect", "replicate", "zero"] | None = Field(
        None, description="of residual blocks at the borders"
    )
    dropout: bool | None = Field(None, description="drop half of some layers' values while training")
    residual: bool | Literal["coarse"] | None = Field(
        None,
        description="the network adds to the image instead of making it anew, and begins as the identity; "
        "coarse: to its colours without detail",
    )


class DiscriminatorSettings(Frozen):
    name: str = Field("patchgan", description="network of both discriminators")
    filters: int | None = Field(None, ge=1, le=4096, description="features after the first layer")
    layers: int | None = Field(None, ge=1, le=5, description="strided layers; 3 see 70x70 pixels")
    norm: Literal["instance", "batch", "none"] | None = Field(None, description="normalization")
    spectral_norm: bool | None = Field(None, description="divide weights by their largest singular value")
    attention: int | None = Field(
        None, ge=1, description="self-attention on feature maps of this side, at the training size"
    )
    scales: int | None = Field(
        None, ge=1, le=5, description="discriminators of multiscale, blocks of VGG-19 that projected looks at"
    )
    detail: float | None = Field(
        None,
        gt=0,
        le=64,
        description="projected looks at images less their blur by so many pixels: at how things are drawn, "
        "not at their colours",
    )
    queue: int | None = Field(
        None, ge=1, description="images that batch_statistics compares each with, of earlier steps"
    )


class LossSettings(Frozen):
    adversarial: str = Field("lsgan", description="lsgan, vanilla, hinge or wgan-gp")
    lambda_adversarial_ab: float = Field(1.0, ge=0, description="weight of G_AB's adversarial loss")
    lambda_adversarial_ba: float = Field(1.0, ge=0, description="weight of G_BA's adversarial loss")
    lambda_cycle_a: float = Field(10.0, ge=0, description="weight of |rec_a - real_a|")
    lambda_cycle_b: float = Field(10.0, ge=0, description="weight of |rec_b - real_b|")
    lambda_identity_a: float = Field(5.0, ge=0, description="weight of |G_BA(real_a) - real_a|")
    lambda_identity_b: float = Field(5.0, ge=0, description="weight of |G_AB(real_b) - real_b|")
    lambda_gradient_penalty: float = Field(10.0, ge=0, description="weight of wgan-gp's penalty")
    lambda_r1: float = Field(0.0, ge=0, description="weight of the discriminators' gradient at real images")
    lambda_zero_centred: float = Field(
        0.0, ge=0, description="weight of their gradient between real and fake images, as in UVCGANv2"
    )
    lambda_edge_a: float = Field(
        0.0, ge=0, description="weight of D_A's loss on counterfeits: A blurred, or with B's detail, as fakes"
    )
    lambda_edge_b: float = Field(
        0.0, ge=0, description="weight of D_B's loss on counterfeits: B blurred, or with A's detail, as fakes"
    )
    lambda_style_code: float = Field(
        1.0, ge=0, description="weight of |style code of a fake - that of its reference|"
    )
    lambda_content: float = Field(
        0.0, ge=0, description="weight of the distance of VGG-19's features of a fake and its input"
    )
    lambda_style: float = Field(
        0.0, ge=0, description="weight of the distance of a fake's Gram matrices to those of the style"
    )
    lambda_total_variation: float = Field(
        0.0, ge=0, description="weight of the mean difference of a fake's neighbouring pixels"
    )
    lambda_consist: float = Field(
        0.0, ge=0, description="weight of |fake - its input|, both at the size consist_size, as in UVCGANv2"
    )
    consist_size: int = Field(32, ge=1, description="height and width at which a fake is like its input")
    content_layers: tuple[VggLayer, ...] = Field(
        ("relu4_2",), min_length=1, description="of VGG-19, relu1_1 to relu5_4, that the content is in"
    )
    style_layers: tuple[VggLayer, ...] = Field(
        ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1"),
        min_length=1,
        description="of VGG-19, that the style is in",
    )
    style_picture_a: Path | None = Field(
        None, description="picture whose style G_BA's fakes take; default the mean of A's training images"
    )
    style_picture_b: Path | None = Field(
        None, description="picture whose style G_AB's fakes take; default the mean of B's training images"
    )
    diff_augment: tuple[Literal["color", "translation", "cutout"], ...] = Field(
        (), description="how all that discriminators see is augmented, for small data"
    )

    @property
    def gradient_penalty(self) -> float:
        """The weight of wgan-gp's penalty, which no other adversarial loss has."""
        return self.lambda_gradient_penalty if self.adversarial == "wgan-gp" else 0.0

    @property
    def penalizes_gradients(self) -> bool:
        """Whether discriminators pay for their gradients."""
        return max(self.gradient_penalty, self.lambda_r1, self.lambda_zero_centred) > 0

    @property
    def style_pictures(self) -> dict[str, Path]:
        """By side the pictures that are named for their style."""
        named = {"A": self.style_picture_a, "B": self.style_picture_b}
        return {side: path for side, path in named.items() if path is not None}


class NceSettings(Frozen):
    """PatchNCE, which holds what a picture shows in cut and fastcut (arXiv 2007.15651, §3)."""

    weight: float | None = Field(
        None, gt=0, description="weight of the loss; default 1 for cut, 10 for fastcut"
    )
    identity: bool | None = Field(
        None, description="half of it on images of the target, which are to stay; default for cut"
    )
    flip: bool | None = Field(
        None, description="translate half of the images mirrored, and compare as if not; default for fastcut"
    )
    temperature: float = Field(0.07, gt=0, description="by which similarities are divided")
    patches: int = Field(256, ge=2, description="places compared in each image and each layer")
    features: int = Field(256, ge=1, le=4096, description="of a patch, after its projection")
    layers: tuple[int, ...] | None = Field(
        None, description="the generator's maps on the way in, 0 its input; default as the network says"
    )


class OptimizerSettings(Frozen):
    """Adam, for generators and discriminators alike."""

    lr: float = Field(2e-4, gt=0, description="learning rate of the generators")
    lr_discriminator: float | None = Field(None, gt=0, description="of the discriminators; default: lr")
    discriminator_updates: int = Field(
        1,
        ge=1,
        description="updates of the discriminators in a step, on other fakes each where there are pools",
    )
    beta1: float = Field(0.5, ge=0, lt=1, description="Adam's first decay")
    beta2: float = Field(0.999, ge=0, lt=1, description="Adam's second decay")
    schedule: Literal["linear", "cosine", "constant"] = Field(
        "linear", description="how the rate falls to 0 after decay_from"
    )
    decay_from: float = Field(
        0.5, ge=0, le=1, description="share of the run at full rate; the paper's is 100 of 200 epochs"
    )
    decay_to: float = Field(0.0, ge=0, le=1, description="share of the rate that is left at the end")
    warmup_steps: int = Field(0, ge=0, description="steps in which the rate rises to the full one")


class PretrainSettings(Frozen):
    """The generators learn to complete masked images before the discriminators come in (UVCGAN)."""

    steps: int = Field(0, ge=0, description="steps of the run that are pre-training")
    masked: float = Field(0.4, gt=0, lt=1, description="share of the patches that are masked")
    patch: int = Field(32, ge=1, description="side of the masked patches in pixels")


class SampleSettings(Frozen):
    every: int = Field(1000, ge=1, description="steps between two grids")
    count: int = Field(8, ge=1, description="held-out images of each domain on a grid")
    translate: int = Field(100, ge=0, description="held-out images of each domain translated at the end")


class CheckpointSettings(Frozen):
    every: int = Field(1000, ge=1, description="steps between two checkpoints")
    keep: int = Field(2, ge=1, description="newest checkpoints that stay")
    keep_every: int | None = Field(
        None, ge=1, description="steps; checkpoints at a multiple of it stay for ever"
    )


class NumbersSettings(Frozen):
    """What is done about steps with NaN or infinite numbers, which are never applied."""

    refused: int = Field(10, ge=1, description="such steps in a row, after which training goes back")
    setbacks: int = Field(
        3, ge=0, description="times to go back to the last checkpoint before the run is given up"
    )
    slow_down: float = Field(0.5, gt=0, le=1, description="factor of the learning rate each time")


class EvaluationSettings(Frozen):
    every: int = Field(
        1000,
        ge=0,
        description="steps between two evaluations on held-out images; 0: none, not at the end either",
    )
    images: int = Field(500, ge=2, description="held-out images of each domain that are judged, at most")
    networks: tuple[Literal["vgg19", "inception", "lpips"], ...] = Field(
        ("vgg19",), description="what judges; vgg19 always does, inception and lpips are fetched once"
    )
    best_by: str = Field(
        "kid_vgg19", description="metric by whose mean over the directions generators/best is chosen"
    )
    early_stop: int = Field(
        0, ge=0, description="end after so many evaluations in a row that are not the best; 0: never"
    )


class SpeedSettings(Frozen):
    """Time and memory: the mathematics stay, to rounding."""

    recompute: bool = Field(
        False,
        description="compute the generators' features anew for the backward pass in place of keeping them: "
        "less memory, for a third more of their time",
    )
    compile: bool = Field(
        False, description="torch.compile the networks; the first steps take minutes, and a C++ compiler"
    )
    cuda_graphs: bool = Field(
        False,
        description="with speed.compile on a CUDA GPU: record the networks' kernels once and start them "
        "together, for less waiting between small ones; takes more memory",
    )
    fewer_products: bool = Field(
        True,
        description="on CPUs convolve many channels with a quarter (fp32) or four ninths (bf16) of the "
        "multiplications, which rounds more; false: as torch does, but in VGG-19",
    )
    tf32: bool = Field(True, description="on CUDA GPUs multiply fp32 in TF32, which keeps 10 bits")
    autotune: bool = Field(
        True, description="on CUDA GPUs let cuDNN try which of its convolutions is fastest for each shape"
    )


class TrackingSettings(Frozen):
    """How trackers file the run, as far as they have a place for it."""

    group: str | None = Field(None, description="runs that belong together")
    tags: tuple[str, ...] = Field((), description="words to find the run by")
    notes: str | None = Field(None, description="what the run is for")
