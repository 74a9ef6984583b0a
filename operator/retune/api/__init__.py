"""The two kinds of `retune.dev/v1alpha1` as typed, frozen models, and the CRDs generated from them.

This package is the bottom of the house: it imports nothing else of ours and does no I/O.
"""

GROUP = "retune.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
FIELD_MANAGER = "retune"
"""Name under which Retune owns fields of other people's objects."""
