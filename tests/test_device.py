"""Choosing a device: by name, refused in one line where it is unknown or not there."""

import pytest
import torch

from ssvos.device import choose_device


def test_auto_is_cuda_where_there_is_one():
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    assert choose_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "", "meta", "mps", "cuda:99", "cuda:x"])
def test_a_device_that_is_unknown_or_missing_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f"device '{name}'.*use") as caught:
        choose_device(name)
    assert "\n" not in str(caught.value)
