"""`python -m tests.localcluster`."""

import sys

from tests.localcluster.cli import main

sys.exit(main())
