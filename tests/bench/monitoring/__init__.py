"""How often monitoring cries wolf, how soon it sees a change, and what a check costs, beside Evidently's defaults.

The planner decides when a signal is raised, and imports what the monitor image has no use for; so the libraries of the
tree's .venv come behind those of the image.
"""

import sys
from pathlib import Path

sys.path.extend(str(place.absolute()) for place in Path(".venv/lib").glob("python3*/site-packages"))
