"""Convolutions in the loop over frames, whose weight gradients are computed once for all frames.

Backpropagation through a recurrence must visit the frames one by one, but only for the gradient of the state. The
gradient of a weight is a sum over frames. One product of the inputs and the gradients of all frames computes that sum
with the same number of operations, and one large product is faster than many small ones.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d

from ssvos.models import winograd


class LoopConv(nn.Conv2d):
    """A convolution with a bias that keeps its input's size. Inside `unrolled` its calls are the steps of a loop."""

    steps: "_Steps | None" = None

    def forward(self, x: Tensor) -> Tensor:
        if self.steps is not None:
            return self.steps(x)
        if winograd.is_faster(x, self.weight, self.dilation[0]):
            assert self.bias is not None
            filters = winograd.cached_filters(self, self.weight, self.weight)
            return winograd.convolve(x, self.weight, self.bias[:, None, None], self.dilation[0], filters)
        return super().forward(x)


@contextmanager
def unrolled(convs: Iterable[LoopConv], length: int, like: Tensor) -> Iterator[None]:
    """Context in which each of `convs` is called `length` times, on inputs (N, ., h, w) of one size.

    Without gradients the context has no effect.

    like: (N, ., h, w) with the size and the precision of the outputs
    """
    convs = [conv for conv in convs if conv.weight.requires_grad and torch.is_grad_enabled()]
    try:
        for conv in convs:
            conv.steps = _Steps(conv, length, like)
        yield
    finally:
        for conv in convs:
            # deleted and not set to None: that difference would make torch.compile compile the network again
            vars(conv).pop("steps", None)


class _Steps:
    """The calls of one convolution.

    It stores the inputs. Each step adds its own slice of one bias tensor that covers all steps. The gradient of that
    tensor is complete after backpropagation through the last step, and it equals the gradient of all outputs.
    """

    def __init__(self, conv: LoopConv, length: int, like: Tensor):
        self.conv = conv
        self.inputs: list[Tensor] = []
        # cast once to the precision that autocast would choose, and not once per step
        self.weight = conv.weight.detach().to(like.dtype)
        self.filters: Tensor | None = None
        inputs = conv.weight, conv.bias, conv, length, like, self.inputs
        biases: Tensor = _Biases.apply(*inputs)  # type: ignore[no-untyped-call]  # torch does not annotate it
        self.biases = biases.unbind()

    def __call__(self, x: Tensor) -> Tensor:
        bias = self.biases[len(self.inputs)]
        x = x.to(self.weight.dtype)
        if not self.inputs and winograd.is_faster(x, self.weight, self.conv.dilation[0]):
            self.filters = winograd.transform_filters(self.weight)
        self.inputs.append(x.detach())
        if self.filters is not None:
            return winograd.convolve(x, self.weight, bias, self.conv.dilation[0], self.filters)
        return conv2d(x, self.weight, None, 1, self.conv.padding, self.conv.dilation).add_(bias)


class _Biases(torch.autograd.Function):
    """The bias at every position of every step, (length, N, C, h, w). Its gradient also gives that of the weight."""

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, bias: Tensor, conv: LoopConv, length: int, like: Tensor, inputs: list[Tensor]
    ) -> Tensor:
        ctx.conv, ctx.inputs = conv, inputs
        return bias.to(like.dtype)[:, None, None].expand(length, len(like), -1, *like.shape[-2:])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        conv, x = ctx.conv, torch.cat(ctx.inputs)
        grad = grad.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        if winograd.is_faster(x, conv.weight, conv.dilation[0]):
            grad_weight = winograd.weight_gradient(x, grad, conv.dilation[0])
            return grad_weight, grad.sum(dim=(0, 2, 3)), None, None, None, None
        _, grad_weight, grad_bias = torch.ops.aten.convolution_backward(
            grad,
            x,
            conv.weight.detach().to(x.dtype),
            [conv.out_channels],
            conv.stride,
            conv.padding,
            conv.dilation,
            False,
            (0, 0),
            1,
            (False, True, True),
        )
        return grad_weight.to(conv.weight.dtype), grad_bias.to(conv.weight.dtype), None, None, None, None
