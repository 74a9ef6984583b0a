"""What all tests share: properties have no deadline, because a busy machine is no fault."""

from hypothesis import settings

settings.register_profile("patient", settings(), deadline=None)
settings.load_profile("patient")
