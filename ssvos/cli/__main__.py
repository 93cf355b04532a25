"""`python -m ssvos.cli` runs `ssvos`."""

from ssvos.cli import main

if __name__ == "__main__":
    main()
