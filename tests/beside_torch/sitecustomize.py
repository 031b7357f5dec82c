"""Put this folder on PYTHONPATH, and processes that a test starts can import torchvision beside a CPU build of torch."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))

import cpu_torchvision

cpu_torchvision.install()
