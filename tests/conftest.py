"""What all tests share."""

from __future__ import annotations

import os

# Set before torch and numpy come in. One thread: the tests' images are small, so that more threads only get in each
# other's way, and sums in one order give the same figures on every machine.
os.environ.setdefault("OMP_NUM_THREADS", "1")
