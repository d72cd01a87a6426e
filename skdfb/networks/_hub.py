"""Whether the servers of pre-trained weights answer, and which of their files were downloaded before."""

import os
from collections.abc import Iterable
from pathlib import Path
from threading import Thread

import huggingface_hub
from huggingface_hub import constants, try_to_load_from_cache

__all__ = ["cached_file", "first_line", "hub_address", "why_unreachable"]

_SECONDS = 5.0


def hub_address() -> str:
    """Return the address of the Hugging Face hub, or of the mirror that the user has set."""
    return constants.ENDPOINT


def why_unreachable(address: str) -> str | None:
    """Return why a server does not answer; None if it does, whatever the answer is.

    It gets five seconds, or those of the environment variable ``HF_HUB_ETAG_TIMEOUT``. A download alone would try
    again and again for a minute.
    """
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    seconds, errors = float(os.environ.get("HF_HUB_ETAG_TIMEOUT") or _SECONDS), []

    def ask() -> None:
        try:
            # The session of the hub has the user's proxies and certificates.
            huggingface_hub.get_session().head(address, timeout=seconds)
            errors.append("")
        except Exception as error:
            errors.append(f"{address} cannot be reached: {first_line(error)}")

    # In a thread: a timeout is for each attempt, and a server has several addresses, which are looked up before. A
    # firewall that drops packets would take the sum.
    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(seconds)
    return (
        (errors[0] or None)
        if errors
        else f"{address} did not answer within {seconds:g} s; for more set HF_HUB_ETAG_TIMEOUT"
    )


def cached_file(repository: str, names: Iterable[str]) -> Path | None:
    """Return the first of some files of a model on the hub that was downloaded before; None if none was."""
    repository, _, revision = repository.partition("@")
    found = (try_to_load_from_cache(repository, name, revision=revision or None) for name in names)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def first_line(error: BaseException) -> str:
    """Return the type of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}".rstrip(".")
