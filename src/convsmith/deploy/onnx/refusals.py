"""Why the quick way to a model ends: with an answer, or with a question for the slow one."""


class BranchError(Exception):
    """Forward decided by values or by the batch size; the message says by which operator, and in which module."""


class NotQuickError(Exception):
    """The quick conversion cannot follow; another may."""
