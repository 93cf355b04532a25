"""Convolutions of the loop over frames, whose weight gradient is taken once for all frames.

A recurrence must go back through the frames one by one, but only for the gradient of what is passed on. The gradient
of a weight is a sum over frames, and one product of all frames' inputs with all frames' gradients is that sum: as many
operations, in one large product that a processor does well in place of many small ones.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.functional import conv2d

from ssvos.models import winograd


class LoopConv(nn.Conv2d):
    """A convolution with a bias that keeps its input's size. Inside `unrolled` it counts as one of several steps."""

    steps: "_Steps | None" = None

    def forward(self, x: Tensor) -> Tensor:
        if self.steps is not None:
            return self.steps(x)
        if winograd.pays(x, self.weight, self.dilation[0]):
            kept = winograd.kept_transformed(self, self.weight, self.weight)
            return winograd.convolve(x, self.weight, self.bias[:, None, None], self.dilation[0], kept)
        return super().forward(x)


@contextmanager
def unrolled(convs: Iterable[LoopConv], length: int, like: Tensor) -> Iterator[None]:
    """Inside, each of `convs` is called `length` times, on inputs (N, ., h, w) of one size.

    like: (N, ., h, w) in the precision of the convolutions' outputs. Without gradients all is as it was.
    """
    convs = [conv for conv in convs if conv.weight.requires_grad and torch.is_grad_enabled()]
    try:
        for conv in convs:
            conv.steps = _Steps(conv, length, like)
        yield
    finally:
        for conv in convs:
            # gone, not None: for that difference a compiled network would be compiled again
            vars(conv).pop("steps", None)


class _Steps:
    """One convolution's calls: inputs are kept, and every step's output takes its bias from one tensor of all steps, so
    that this tensor's gradient, complete once the last step has been gone back through, is that of all outputs."""

    def __init__(self, conv: LoopConv, length: int, like: Tensor):
        self.conv, self.inputs = conv, []
        # in the precision that autocast would choose, once and not once a step
        self.weight = conv.weight.detach().to(like.dtype)
        self.transformed = None
        self.biases = _Biases.apply(conv.weight, conv.bias, conv, length, like, self.inputs).unbind()

    def __call__(self, x: Tensor) -> Tensor:
        bias = self.biases[len(self.inputs)]
        x = x.to(self.weight.dtype)
        if not self.inputs and winograd.pays(x, self.weight, self.conv.dilation[0]):
            self.transformed = winograd.transformed(self.weight)
        self.inputs.append(x.detach())
        if self.transformed is not None:
            return winograd.convolve(x, self.weight, bias, self.conv.dilation[0], self.transformed)
        return conv2d(x, self.weight, None, 1, self.conv.padding, self.conv.dilation).add_(bias)


class _Biases(torch.autograd.Function):
    """(length, N, C, h, w), the bias at every position of every step; its gradient gives the weight's as well."""

    @staticmethod
    def forward(ctx, weight, bias, conv, length, like, inputs):
        ctx.conv, ctx.inputs = conv, inputs
        return bias.to(like.dtype)[:, None, None].expand(length, len(like), -1, *like.shape[-2:])

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        conv, x = ctx.conv, torch.cat(ctx.inputs)
        grad = grad.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        if winograd.pays(x, conv.weight, conv.dilation[0]):
            of_weight = winograd.weight_gradient(x, grad, conv.dilation[0])
            return of_weight, grad.sum(dim=(0, 2, 3)), None, None, None, None
        _, of_weight, of_bias = torch.ops.aten.convolution_backward(
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
        return of_weight.to(conv.weight.dtype), of_bias.to(conv.weight.dtype), None, None, None, None
