"""Access to the parameters of rich clips."""

from ssvos.config import RichConfig, SyntheticConfig


def rich_parameters(config: SyntheticConfig) -> RichConfig:
    """The rich parameters of a configuration that has them; only such configurations reach this package."""
    assert config.rich is not None
    return config.rich
