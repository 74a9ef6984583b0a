"""Have a registry hold the versions that serve or are to serve next, and say which is which."""
