"""Exceptions named for the response they call for, not for the place they come from.

Every message is one line that says what was got, what it may be and what to do. `code` is a short machine-readable reason that
travels into outcomes, ledgers and reports.
"""


class MotionpairError(Exception):
    """Root of everything this project raises on purpose."""

    code = "error"

    def __init__(self, message: str, code: str | None = None) -> None:
        super().__init__(message, code)
        self.message = message
        self.code = code or type(self).code

    def __str__(self) -> str:
        return self.message


class BadInput(MotionpairError):
    """The input itself can't be used. Asking again gives the same answer: report it and go on with the others."""

    code = "bad_input"


class BadRecipe(MotionpairError):
    """The user asked for something that can't be: an unknown key, an impossible quota. Exit code 2."""

    code = "bad_recipe"


class BadAnswer(MotionpairError):
    """A model's answer is not what was asked for; in words, one outside its schema. Remembered like a rejection."""

    code = "bad_answer"


class BadOutput(BadAnswer):
    """The same of a file: a generator came back as if all were well, and what it wrote is missing, half-written or something else."""

    code = "bad_output"


class Rejected(MotionpairError):
    """A job was tried within its budget and no result passed. An ordinary outcome, remembered like any other."""

    code = "rejected"


class NeedsReview(MotionpairError):
    """A person has to look before it is known whether the result may be used. Listed and left out, never dropped in silence."""

    code = "review"


class Transient(MotionpairError):
    """The machine's fault, not the work's (a lost worker, a timeout): try again, remember nothing."""

    code = "transient"


class OutOfMemory(Transient):
    """The task did not fit. A larger pool may take it; without one it stays undecided."""

    code = "out_of_memory"


class OutOfSpace(MotionpairError):
    """The disk is full or can't be written. The run stops and can be resumed."""

    code = "out_of_space"


class Damaged(MotionpairError):
    """Stored bytes are not what their digest says."""

    code = "damaged"

    def __init__(self, message: str, code: str | None = None, digest: str = "") -> None:
        super().__init__(message, code)
        self.args = (message, code, digest)
        self.digest = digest
        """of the artifact, where it is one"""
