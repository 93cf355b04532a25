"""What the network needs of a backbone, for ResNets and EfficientNets alike."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

from torch import Tensor, nn


class Trunk(NamedTuple):
    """Features that the backbone computes once per frame, for all objects.

    s4: layer1, at stride 4
    s8: layer2, at stride 8
    deep: layer3, at the network's stride
    color: the normalised frame at stride 4
    """

    s4: Tensor
    s8: Tensor
    deep: Tensor
    color: Tensor


class Backbone(nn.Module, ABC):
    """A classifier's layers up to `layer3`, and for ResNets up to `layer4`, which follows the attention.

    mean, std: of a frame's red, green and blue in [0, 1], by which the published network normalises its input
    channels: number of features of layer1, layer2, layer3 and, if there is one, layer4
    """

    mean: ClassVar[tuple[float, float, float]]
    std: ClassVar[tuple[float, float, float]]
    channels: dict[str, int]
    layer4: nn.Sequential  # absent if the backbone ends at layer3

    @abstractmethod
    def trunk(self, frames: Tensor) -> Trunk:
        """Features up to layer3 of normalised frames (N, 3, H, W), H and W multiples of 16."""

    def freeze(self) -> None:
        """Turn off the gradients of the stem to layer3; layer4 stays trainable."""
        for name, parameter in self.named_parameters():
            if not name.startswith("layer4"):
                parameter.requires_grad_(False)


def select_images(x: Tensor, image_idx: Tensor | None) -> Tensor:
    """Repeat what belongs to images (M, ...) for each of their objects (N, ...)."""
    is_one_to_one = image_idx is None or len(image_idx) == len(x) == 1
    return x if image_idx is None or is_one_to_one else x.index_select(0, image_idx)
