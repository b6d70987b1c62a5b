"""Downloading the picture of a finished job, tried again until it is whole or certainly gone."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from functools import partial
from http import HTTPStatus
from typing import Generic, TypeVar
from urllib.parse import urljoin

from ..api.client import Client
from ..api.replies import inline
from ..control import Deadline
from ..errors import ConnectionFailed, ResultUnavailable, ResultUnreadable, UrlRefused
from ..http.fetch import Fetcher, with_retries

Picture = TypeVar("Picture")

_TRIES = 4
_ROUNDS = 3
_FIRST_PAUSE = 0.25
ANEW = "set result to always new to pay for another"
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
        Raises ResultUnreadable for what came and could not be decoded; ResultUnavailable saying that it is paid for
        and how to get it, with the `status` 410 where it is gone for good, 403 where fresh addresses are refused as
        well, which may be for good, and 413 where it is larger than is downloaded; Interrupted.
        """
        why, gone, refused, denied = "the service gives no address for it.", False, True, False
        unread: list[bytes] = []
        downloads = 0
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
                    held = inline(url)
                    fetch = partial(self._fetcher.fetch, url)
                    data = with_retries(self._client.control, _TRIES, fetch) if held is None else held
                    return data, self.decode(data)
                except (ConnectionFailed, ResultUnavailable, UrlRefused) as error:
                    if isinstance(error, UrlRefused) and error.status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
                        raise _too_large(error.message, generation_id) from None
                    # an address that is refused is out of date; without an id there is no way to a fresh one
                    why, gone = error.message, error.status in ({404, 410} if generation_id else {403, 404, 410})
                    refused = error.status in {401, 403, 404, 410}
                    denied = error.status == 403 or isinstance(error, UrlRefused)
                except ValueError as error:
                    why, gone, refused, denied = str(error), False, False, False
                    downloads += 1
                    if data not in unread:
                        unread.append(data)
            if number + 1 >= _ROUNDS and not refused:
                break
            if generation_id is not None:
                url = self._client.row(generation_id).result_url
        if unread:
            may_pass = len(unread) > 1 or refused or downloads < 2
            raise unreadable(why, unread[-1], generation_id, downloaded=True, may_pass=may_pass)
        advice = _RETRY
        if gone or denied:
            where = "It is gone there, and not on this machine. " if gone else ""
            advice = f"{where}Run again to try once more, or {ANEW}."
        raise ResultUnavailable(
            f"The edit is finished and paid for, but its picture could not be downloaded: {why} {advice}",
            status=410 if gone else 403 if denied else None,
            generation_id=generation_id,
        )


def unreadable(
    why: str, data: bytes, generation_id: str | None = None, *, downloaded: bool = False, may_pass: bool = False
) -> ResultUnreadable:
    """The error for what came and is no picture that can be read; why: a sentence."""
    how = "could not be downloaded as one that can be read" if downloaded else "cannot be read"
    return ResultUnreadable(
        f"The edit is finished and paid for, but its picture {how}: {why}",
        data,
        may_pass=may_pass,
        generation_id=generation_id,
    )


def _too_large(why: str, generation_id: str | None) -> ResultUnavailable:
    return ResultUnavailable(
        f"The edit is finished and paid for, but its picture could not be downloaded: {why} Running "
        "again cannot change that. Save it from your account at Oxen.ai; or ask for output_format jpg or webp, which "
        f"makes smaller files and is another edit that is paid for, or {ANEW}.",
        status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        generation_id=generation_id,
    )


def _absolute(base_url: str, url: str) -> str:
    """A result's address as the service means it, which may leave out what is its own."""
    try:
        return urljoin(base_url, url.strip())
    except ValueError:  # what is no address is named by whoever fetches it
        return url
