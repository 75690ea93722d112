"""Content, style and total variation: what a picture shows, how it is painted, how restless it is.

Gatys et al. 2016 ("Image Style Transfer Using Convolutional Neural Networks"). Features are activations
of a fixed network, such as VGG-19's, of any scale. Sums are divided by the number of their terms, so that
a weight means the same at every image size.
"""

from collections.abc import Mapping

from torch import Tensor


def content_loss(x: Tensor, y: Tensor) -> Tensor:
    """Mean squared difference of features (Gatys et al. 2016, eq. 1, as a mean in place of half the sum).

    Args:
        x, y: features of one layer, (N, C, H, W).
    """
    return (x - y).square().mean()


def gram(features: Tensor, guide: Tensor | None = None) -> Tensor:
    """Correlations of channels over all places: (N, C, C), divided by C*H*W (Gatys et al. 2016, eq. 3).

    Args:
        features: (N, C, H, W).
        guide: (N or 1, 1, H, W), how much each place counts; its squares' sum then stands for H*W (Gatys et
            al. 2017, "Controlling Perceptual Factors", §4.1), so that a region's size does not matter.
    """
    if guide is None:
        places = features.shape[2] * features.shape[3]
    else:
        features = features * guide
        places = guide.square().sum(dim=(1, 2, 3)).clamp(min=1e-8)[:, None, None]
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / (features.shape[1] * places)


def style_loss(
    grams: Mapping[str, Tensor], targets: Mapping[str, Tensor], weights: Mapping[str, float] | None = None
) -> Tensor:
    """Squared difference of Gram matrices, the weighted sum over layers (Gatys et al. 2016, eqs. 4 and 5).

    Args:
        grams: by layer, (N, C, C), of the images.
        targets: by layer, (N or 1, C, C), of the style; others than ``grams`` has are left out.
        weights: by layer; default the same for each, together 1.

    Returns:
        The mean over images of sum_l w_l |G_l - A_l|^2, the sum over all entries.
    """
    terms = [
        (1 / len(grams) if weights is None else weights[layer])
        * (found - targets[layer]).square().sum(dim=(1, 2)).mean()
        for layer, found in grams.items()
    ]
    return sum(terms[1:], terms[0])


def total_variation(images: Tensor) -> Tensor:
    """Mean absolute difference of neighbours, horizontal plus vertical (Rudin et al. 1992, anisotropic).

    Args:
        images: (N, C, H, W), H and W at least 2.
    """
    across = (images[:, :, :, 1:] - images[:, :, :, :-1]).abs().mean()
    return across + (images[:, :, 1:, :] - images[:, :, :-1, :]).abs().mean()
