"""The patch of a status: only what changed, and nothing that this version does not know."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from retune.cluster.writes import merge_patch

Json = dict[str, Any]
_NAMES = st.sampled_from("abcdef")
_LEAVES = st.integers(0, 3) | st.sampled_from(["", "x"]) | st.lists(st.integers(0, 2), max_size=2)
DOCUMENTS = st.dictionaries(
    _NAMES,
    st.recursive(_LEAVES, lambda inner: st.dictionaries(_NAMES, inner, max_size=4), max_leaves=6),
    max_size=4,
)


def patched(target: Any, patch: Any) -> Any:
    """RFC 7386, as the API server does it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = patched(result.get(name), value)
    return result


@given(old=DOCUMENTS, new=DOCUMENTS)
def test_the_patch_turns_the_old_document_into_the_new(old: Json, new: Json) -> None:
    """What the server makes of the patch is what was meant."""
    assert patched(old, merge_patch(old, new)) == new


@given(document=DOCUMENTS)
def test_equal_documents_need_no_patch(document: Json) -> None:
    """No write when nothing changed."""
    assert merge_patch(document, document) == {}


@given(old=DOCUMENTS, new=DOCUMENTS, unknown=st.integers())
def test_fields_that_neither_side_knows_survive(old: Json, new: Json, unknown: int) -> None:
    """An older operator keeps what a newer one has written."""
    stored = old | {"fromTheFuture": unknown}
    assert patched(stored, merge_patch(old, new))["fromTheFuture"] == unknown
