"""Choosing a device by name; an unknown or missing device is rejected in one line."""

import pytest
import torch

from ssvos.device import choose_device


def test_auto_is_cuda_if_available_else_cpu():
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "meta", "mps", "cuda:99", "cuda:x"])
def test_an_unknown_or_missing_device_is_rejected_by_name(name):
    with pytest.raises(ValueError, match=f"device '{name}'.*use") as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)
