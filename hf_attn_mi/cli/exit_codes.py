"""What an exit status says, in every command alike."""

DONE = 0  # done, and what the command claims holds
FAILED = 1  # done, but a claim does not hold, or a part of what was asked for is missing: the output says which
REFUSED = 2  # wrong usage (argparse's own status), wrong input, a file that cannot be written, an unsupported model
INTERRUPTED = 130  # as a shell says it: 128 + SIGINT
PIPE_CLOSED = 141  # 128 + SIGPIPE

IN_WORDS = (
    "Exit status: 0 done, and what is claimed holds; 1 done, but a claim does not hold or a part is missing; "
    "2 refused: wrong usage, wrong input or a model that is not supported."
)
