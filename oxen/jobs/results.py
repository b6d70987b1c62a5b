"""Getting the picture of a finished job, whole, however often it takes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from typing import Generic, TypeVar
from urllib.parse import urljoin

from ..api.client import Client
from ..api.replies import inline
from ..control import Deadline
from ..errors import ConnectionFailed, ResultUnavailable, UrlRefused
from ..http.fetch import Fetcher, with_retries

Picture = TypeVar("Picture")

_TRIES = 4
_ROUNDS = 3
_FIRST_PAUSE = 0.25
_RETRY = "It is remembered: run again to download it, it is not paid a second time."


class Results(Generic[Picture]):
    """Downloads results and decodes them.

    decode: bytes to picture; raises ValueError for bytes that are no whole picture, so that a damaged download is
    noticed while it can still be repeated.
    """

    def __init__(self, client: Client, fetcher: Fetcher, decode: Callable[[bytes], Picture]) -> None:
        self._client = client
        self._fetcher = fetcher
        self.decode = decode

    def under(self, client: Client) -> Results[Picture]:
        """The same downloads under another client's control, for what is still to be fetched after a stop."""
        return Results(client, self._fetcher.under(client.control), self.decode)

    def download(self, url: str | None, generation_id: str | None, late: float = 0.0) -> tuple[bytes, Picture]:
        """The file bytes and the picture behind a result URL.

        A presigned URL may have expired: the row, where there is one, is read again for a fresh one. late: seconds
        for which the picture of a job that has just ended may not be there yet.
        Raises ResultUnavailable saying that it is paid for and how to get it, with the `status` 410 where it is gone
        for good and 403 where fresh addresses are refused as well, which may be for good; Interrupted.
        """
        why, gone, refused, denied = "the service gives no address for it.", False, True, False
        comes_by, pause = Deadline(late), _FIRST_PAUSE
        for number in itertools.count():
            if number and not comes_by.passed:
                self._client.control.sleep(min(pause, comes_by.left))
                pause *= 2
            elif number >= _ROUNDS:
                break
            if url is not None:
                url = _absolute(self._client.account.base_url, url)
                try:
                    data = inline(url)
                    if data is None:
                        data = with_retries(self._client.control, _TRIES, partial(self._fetcher.fetch, url))
                    return data, self.decode(data)
                except (ConnectionFailed, ResultUnavailable, UrlRefused) as error:
                    # an address that is refused is out of date; without an id there is no way to a fresh one
                    why, gone = error.message, error.status in ({404, 410} if generation_id else {403, 404, 410})
                    refused = error.status in {401, 403, 404, 410}
                    denied = error.status == 403
                except ValueError as error:
                    why, gone, refused, denied = str(error), False, False, False
            if number + 1 >= _ROUNDS and not refused:
                break
            if generation_id is not None:
                url = self._client.row(generation_id).result_url
        name = f"Generation {generation_id}" if generation_id else "The edit"
        advice = (
            "Run again to try once more, or set result to always new to pay for another." if gone or denied else _RETRY
        )
        raise ResultUnavailable(
            f"{name} is finished and paid for, but its picture could not be downloaded: {why} {advice}",
            status=410 if gone else 403 if denied else None,
            generation_id=generation_id,
        )


def _absolute(base_url: str, url: str) -> str:
    """A result's address as the service means it, which may leave out what is its own."""
    try:
        return urljoin(base_url, url.strip())
    except ValueError:  # what is no address is named by whoever fetches it
        return url
