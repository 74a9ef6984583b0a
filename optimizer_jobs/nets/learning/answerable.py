"""Which outputs a student can give. There is no torch in here, because students of scikit-learn ask it too."""

from optimizer_jobs.signature import Signature


def not_answerable(signature: Signature) -> str | None:
    """Return why no student can give these outputs, or None. It gives scores, and the label that follows from them."""
    score = signature.score_output
    if score is None or len(score.shape) not in {1, 2} or any(size < 0 for size in score.shape[1:]):
        return "the model has no output of one number, or of a fixed number of scores, a row to learn from"
    others = [tensor.name for tensor in signature.outputs if tensor not in (score, signature.label_output)]
    return f"the model also answers {', '.join(others)}, which a student cannot" if others else None
