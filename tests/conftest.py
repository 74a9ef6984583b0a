"""What all tests share: properties have no deadline, because a busy machine is no fault; in haste, fewer examples."""

import os

from hypothesis import settings

settings.register_profile("patient", settings(), deadline=None)
settings.register_profile("brief", settings.get_profile("patient"), max_examples=25)
settings.load_profile(os.environ.get("RETUNE_TEST_PROFILE", "patient"))
