"""Run pytest inside the optimizer image, with the test tools of the mounted tree's .venv behind the image's libraries.

The image has no test tools, and gets none: whatever it has itself comes first.
"""

import sys
from pathlib import Path

sys.path.append(str(next(Path(".venv/lib").glob("python3*")).absolute() / "site-packages"))

import pytest

if __name__ == "__main__":
    sys.exit(pytest.main(["-p", "no:cacheprovider", *sys.argv[1:]]))
