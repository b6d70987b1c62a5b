"""Oxen.ai's routes as methods, one call each; jobs/ keeps what is promised across failures."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

from ..control import Control
from ..credentials import Account
from ..errors import GenerationNotFound, InvalidParameters, ModelNotFound, ReplyError, UnexpectedReply, Upstream
from ..http.transport import MAX_REPLY_BYTES, REPLY_BYTES, ROW_BYTES, Reply, Transport
from ..secrets import PICTURE_FIELDS
from .models import DEFAULT
from .replies import (
    EditImage,
    History,
    JobStatus,
    Listed,
    Model,
    Row,
    is_generation_id,
    read_edit,
    read_generation_ids,
    read_history,
    read_history_row,
    read_model,
    read_row,
    read_rows,
    shown_id,
)
from .request import ALONE, Beside, EditParameters

T = TypeVar("T")

DEFAULT_EDIT_SECONDS = 300.0
_ENQUEUE_SECONDS = 60.0
# How long it may be under way: its last block takes as long as its answer at most.
ENQUEUED_WITHIN = 2 * _ENQUEUE_SECONDS
_IMPATIENT_SECONDS = 3.0
# How long a job's answer is awaited once Cancel was pressed, so that the job can be cancelled at the service.
_LINGER_SECONDS = 3.0


class Client:
    """One account's routes over one connection pool; `close` it at the end.

    Every method raises the errors of `transport.Transport.send` besides those it names.
    """

    def __init__(self, account: Account, control: Control | None = None) -> None:
        self.account = account
        self.control = control or Control()
        self.transport = Transport(account, self.control)

    def under(self, control: Control) -> Client:
        """The same connections under another `Control`."""
        other = copy.copy(self)
        other.control = control
        other.transport = self.transport.under(control)
        return other

    def for_cleanup(self) -> Client:
        """The same connections under a `Control` of their own, for what is still to be said once a run was stopped."""
        return self.under(Control())

    def close(self) -> None:
        self.transport.close()

    def edit(
        self,
        parameters: EditParameters,
        input_image: str,
        beside: Beside = ALONE,
        *,
        seconds: float = DEFAULT_EDIT_SECONDS,
        before_last: Callable[[], None] | None = None,
    ) -> tuple[EditImage, ...]:
        """Edit a picture in one blocking request, on the route of its model; paid, sent once.

        input_image: a data URI, or a URL that the service can download. beside: what goes with it. seconds: how long
        to wait. before_last: is called when all of the request but its last block is out, so that it cannot have been
        taken yet.
        """
        pictures = parameters.pictures(input_image, beside)
        body = {**parameters.body(), **pictures, "response_format": "b64_json"}
        reply = self.transport.send(
            "POST",
            f"/api/ai/images/{parameters.model.route}",
            json=body,
            paid=True,
            seconds=seconds,
            lingers=seconds,  # the picture is paid for, and cannot be cancelled
            max_bytes=MAX_REPLY_BYTES,
            before_last=before_last,
        )
        return self._read(read_edit, reply)

    def enqueue(
        self,
        parameters: EditParameters,
        input_image: str,
        beside: Beside = ALONE,
        *,
        before_last: Callable[[], None] | None = None,
    ) -> str:
        """Put an edit into the queue and return its generation id (POST /api/ai/queue); paid, sent once.

        The queue does not check model parameters: a bad one ends the job later as failed. before_last: as in `edit`.
        """
        body = {**parameters.body(), **parameters.pictures(input_image, beside)}
        reply = self.transport.send(
            "POST",
            "/api/ai/queue",
            json=body,
            paid=True,
            seconds=_ENQUEUE_SECONDS,
            lingers=_LINGER_SECONDS,
            before_last=before_last,
        )
        generation_id = self._read(read_generation_ids, reply)[0]
        if self.transport.redact(generation_id) != generation_id:
            raise UnexpectedReply("The service accepted the request and named a generation by what no id may hold.")
        return generation_id

    def row(self, generation_id: str, *, within: float | None = None) -> Row:
        """A job's row, from the queue or else the history; raises GenerationNotFound where neither knows the id.

        It is asked for again and again, and so comes without the pictures that it repeats.

        within: one try of so many seconds at each, which does not wait after a 429; None is patient.
        """
        try:
            reply = self._about(generation_id, "GET", "/api/ai/queue/", within)
        except GenerationNotFound as unknown:
            try:
                return self._past(generation_id, within)
            except GenerationNotFound as error:
                error.definite = error.definite and unknown.definite
                raise
        return self._one(read_row, generation_id, reply)

    def cancel(self, generation_id: str) -> None:
        """Ask the service to cancel a job; without effect on one that has ended. Raises GenerationNotFound."""
        self._about(generation_id, "DELETE", "/api/ai/queue/")

    def active(self, *, model: str | None = DEFAULT.id, namespace: str | None = None) -> Listed:
        """The queued and processing jobs, newest first."""
        params = {name: value for name, value in (("model", model), ("namespace", namespace)) if value}
        listed = self._read(read_rows, self._list("/api/ai/queue", params))
        return replace(listed, rows=tuple(map(self._shown, listed.rows)))

    def history(
        self,
        *,
        page: int = 1,
        page_size: int = 50,
        model: str | None = DEFAULT.id,
        namespace: str | None = None,
        status: JobStatus | None = None,
    ) -> History:
        """A page of past generations with their cost; `page_size` 1 to 1000."""
        params: dict[str, str | int] = {"page": page, "page_size": page_size}
        chosen = (("model", model), ("namespace", namespace), ("status", status.value if status else None))
        params.update({name: value for name, value in chosen if value})
        history = self._read(read_history, self._list("/api/ai/generations", params))
        return replace(history, rows=tuple(map(self._shown, history.rows)))

    def past(self, generation_id: str, *, patient: bool = True) -> Row:
        """One past generation with its cost, without the pictures that it repeats; raises GenerationNotFound.

        patient: False makes one try of 3 s, which does not wait after a 429.
        """
        return self._past(generation_id, None if patient else _IMPATIENT_SECONDS)

    def _past(self, generation_id: str, within: float | None) -> Row:
        reply = self._about(generation_id, "GET", "/api/ai/generations/", within)
        return self._one(read_history_row, generation_id, reply)

    def _one(self, read: Callable[..., Row], generation_id: str, reply: Reply) -> Row:
        """The row that was asked for, without the pictures that it repeats, fit to be shown."""
        return self._shown(self._read(partial(read, generation_id=generation_id), reply, PICTURE_FIELDS))

    def model(self, name: str = DEFAULT.id) -> Model:
        """A model's schema, price and description; public, needs no key. Raises ModelNotFound."""
        if not name.strip("."):  # dots alone would lead to another route
            raise InvalidParameters(
                f"{name!r} is not the name of a model; {DEFAULT.id} is the default. Nothing was sent."
            )
        try:
            reply = self.transport.send("GET", f"/api/ai/models/{quote(name, safe='')}", public=True)
        except ModelNotFound:
            raise ModelNotFound(
                f"Oxen.ai has no model named {name!r}; {DEFAULT.id} is the default. Nothing was charged.", status=404
            ) from None
        return self._read(read_model, reply)

    def models(self) -> tuple[Model, ...]:
        """All models; public."""
        reply = self.transport.redact.value(self.transport.send("GET", "/api/ai/models", public=True).json())
        data = reply.get("data") if isinstance(reply, dict) else None
        return tuple(read_model(entry) for entry in (data if isinstance(data, list) else []))

    def username(self, *, within: float | None = None) -> str:
        """The name of the key's user (GET /api/users/me), the cheapest check of a key known; within: as in `row`."""
        if within is None:
            answer = self.transport.send("GET", "/api/users/me")
        else:
            answer = self.transport.send("GET", "/api/users/me", seconds=within, patient=False)
        reply = self.transport.redact.value(answer.json())
        user = reply.get("user") if isinstance(reply, dict) else None
        name = user.get("username") if isinstance(user, dict) else None
        if not isinstance(name, str) or not name:
            raise Upstream("Oxen.ai did not say whose key this is.")
        return name

    def _list(self, path: str, params: Mapping[str, str | int]) -> Reply:
        return self.transport.send("GET", path, params=params, max_bytes=MAX_REPLY_BYTES)

    def _read(self, read: Callable[[Any], T], reply: Reply, unread: Collection[str] = ()) -> T:
        """What `read` makes of a reply's JSON without the fields `unread`.

        Its error may quote the service, which may quote anything.
        """
        try:
            return read(self.transport.redact.value(reply.json(unread)))
        except UnexpectedReply as error:
            raise error.reworded(self.transport.redact(error.message)) from None

    def _shown(self, row: Row) -> Row:
        """The row with its error fit to be shown: the service quotes addresses with their signatures."""
        return replace(row, error_message=row.error_message and self.transport.redact(row.error_message))

    def check_id(self, generation_id: str) -> None:
        """Raises InvalidParameters for what is no generation id, the key or a piece of it above all."""
        if not is_generation_id(generation_id):
            raise InvalidParameters(
                f"{shown_id(generation_id)} is not a generation id. Nothing was sent. Copy it as Kontext Submit shows "
                "it."
            )
        if self.transport.redact(generation_id) != generation_id:
            raise InvalidParameters(
                "The API key, or a piece of it, was given for a generation id. It was neither sent nor kept. "
                "Write the id in its place."
            )

    def _about(self, generation_id: str, method: str, path: str, within: float | None = None) -> Reply:
        self.check_id(generation_id)
        try:
            size = ROW_BYTES if method == "GET" else REPLY_BYTES
            if within is None:
                return self.transport.send(method, path + generation_id, max_bytes=size)
            return self.transport.send(method, path + generation_id, seconds=within, patient=False, max_bytes=size)
        except ReplyError as error:
            if error.status != 404:
                raise
            not_found = GenerationNotFound(
                "Oxen.ai knows no such generation. Check the id, and that the key is the account's. Nothing was "
                "charged for asking.",
                status=404,
                generation_id=generation_id,
            )
            not_found.definite = error.definite
            raise not_found from None
