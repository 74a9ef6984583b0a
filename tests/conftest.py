"""What all tests share: none is slow or wrong because the machine is busy, and in haste properties have fewer examples.

Properties have no deadline. Threads of OpenMP wait for each other by spinning: where other work takes a core, two of
them took minutes for a fit of milliseconds. So libraries get one each, as Jobs get what their CPU limit says.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from hypothesis import settings

settings.register_profile("patient", settings(), deadline=None)
settings.register_profile("brief", settings.get_profile("patient"), max_examples=25)
settings.load_profile(os.environ.get("RETUNE_TEST_PROFILE", "patient"))
