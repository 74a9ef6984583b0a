"""What is raised where a model's outputs, or the rows, are not what its task needs; the message is for its owner."""


class UnfitAnswersError(ValueError):
    """The model's outputs do not fit its task."""


class NotUnderstoodError(UnfitAnswersError):
    """No output has the form that the task and the labels ask for."""
