"""What the lab says when it cannot do what was asked."""


class LabError(Exception):
    """One sentence for a person: what is wrong and what to do next."""
