"""The one exception that entry points turn into one line; apart from contracts, which are heavy to import."""


class InputError(ValueError):
    """Something a person must mend: entry points print its one line and exit with code 2, without a traceback."""
