"""`Runoff`: everything that a data scientist does with a gateway, as calls that answer with something to look at.

from runoff import Runoff
gateway = Runoff()
gateway.split("phishing", champion=80, challenger=20, reason="try the new features")
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

from runoff.errors import RequestRefused, RunoffError
from runoff.tables import Reply, Table
from runoff.transport import Transport

DEFAULT_URL: Final = "http://127.0.0.1:8090"
WAIT_S: Final = 120.0
"""How long a change may take to be live before a call answers with what it is then."""
_LABELS_A_CALL: Final = 10_000
_TUNING_S: Final = 300.0
"""Models are measured one at a time, so that the answer may have to wait for others."""

Label = Mapping[str, Any]


class Runoff:
    """A gateway, by the address of its admin listener.

    `url` and `key` default to RUNOFF_URL and RUNOFF_KEY. `data_url` (for predictions and labels) is asked from the gateway.
    Raises GatewayUnreachable or RequestRefused, both RunoffError.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        key: str | None = None,
        data_url: str | None = None,
        timeout_s: float = 60.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._key = key or os.environ.get("RUNOFF_KEY") or None
        self._timeout_s = timeout_s
        self._admin = Transport(
            url or os.environ.get("RUNOFF_URL") or DEFAULT_URL, key=self._key, timeout_s=timeout_s, transport=transport
        )
        self._data_url = data_url
        self._data: Transport | None = None

    # ---------------------------------------------------------------- routes

    def routes(self) -> Table:
        """Every endpoint: its state, who answers with which share, and what is mirrored."""
        found = self._admin.call("GET", "/admin/v1/routes").json()["routes"]
        rows = [{"endpoint": route["endpoint"], **route["status"], "document": route} for route in found]
        for row in rows:
            row["following"] = (row["following"] or {}).get("summary")
            row["alarm"] = (row["steps"] or {}).get("alarm")
            row["steps"] = (row["steps"] or {}).get("summary")
        columns = ("endpoint", "revision", "state", "shares", "versions", "mirrors", "following", "steps", "problem")
        return Table(rows, columns)

    def route(self, endpoint: str) -> Reply:
        """The route document, and under `status` what has become of it."""
        return Reply(self._admin.call("GET", f"/admin/v1/routes/{_quoted(endpoint)}").json())

    def plan(self, document: Mapping[str, Any]) -> Reply:
        """What applying this document would change; changes nothing itself."""
        return Reply(
            self._admin.call("POST", f"/admin/v1/routes/{_quoted(document.get('endpoint'))}:plan", body=document).json()
        )

    def apply(
        self,
        document: Mapping[str, Any],
        *,
        reason: str,
        wait_s: float = WAIT_S,
        plan: Mapping[str, Any] | None = None,
    ) -> Reply:
        """Makes the document the endpoint's route; a document that changes nothing makes no revision (`state` is then `unchanged`).

        `plan` is the answer of `plan` for this document, for who has asked already.
        """
        endpoint = str(document.get("endpoint"))
        plan = plan or self.plan(document)
        if plan["problems"]:
            raise RequestRefused(
                422, "route_invalid", f"the route of endpoint '{endpoint}' is refused", plan["problems"]
            )
        if not plan["changes"]:
            return Reply(endpoint=endpoint, revision=plan["revision"], state="unchanged", changes=[])
        base = plan["revision"]
        headers = {"If-None-Match": "*"} if base is None else {"If-Match": f'"{base}"'}
        path = f"/admin/v1/routes/{_quoted(endpoint)}"
        return self._change("PUT", path, body=document, reason=reason, headers=headers, wait_s=wait_s, plan=plan)

    def split(self, endpoint: str, *, reason: str, wait_s: float = WAIT_S, **weights: float) -> Reply:
        """Sets weights; variants not named keep theirs."""
        return self.set_weights(endpoint, weights, reason=reason, wait_s=wait_s)

    def set_weights(self, endpoint: str, weights: Mapping[str, float], *, reason: str, wait_s: float = WAIT_S) -> Reply:
        """As `split`, for variants whose names are not Python names."""
        headers = {"If-Match": self._etag(endpoint)}
        path = f"/admin/v1/routes/{_quoted(endpoint)}/weights"
        return self._change("PATCH", path, body=dict(weights), reason=reason, headers=headers, wait_s=wait_s)

    def mirror(
        self,
        endpoint: str,
        name: str,
        model: str | None = None,
        *,
        reason: str,
        wait_s: float = WAIT_S,
        **more: Any,
    ) -> Reply:
        """Mirrors requests to a model, as `name`, or to another server (`remote={"url": …, "model": …}`).

        `more` are the other keys of a mirror: `sample`, `priority`, `until`, `body_bytes_max`. What is not named stays as it is in a
        mirror that there is already (None: as by default); with nothing named at all that mirror is taken away (RunoffError: there is none).
        """
        document = self.route(endpoint)
        tag = f'"{document.pop("status")["revision"]}"'
        mirrors = {mirror["name"]: mirror for mirror in document.get("mirrors", ())}
        named = more | ({} if model is None else {"model": model})
        if named:
            mirrors[name] = _mirror(mirrors.get(name, {"name": name}), named)
        elif mirrors.pop(name, None) is None:
            there = ", ".join(mirrors) or "none"
            raise RunoffError(f"endpoint '{endpoint}' has no mirror '{name}' to take away; there: {there}")
        document["mirrors"] = list(mirrors.values())
        path = f"/admin/v1/routes/{_quoted(endpoint)}"
        return self._change("PUT", path, body=document, reason=reason, headers={"If-Match": tag}, wait_s=wait_s)

    def promote(
        self,
        endpoint: str,
        *,
        reason: str,
        variant: str | None = None,
        mirror: str | None = None,
        wait_s: float = WAIT_S,
    ) -> Reply:
        """The champion takes the version that this variant or mirror serves now; the registry alias follows."""
        body = {"variant": variant, "mirror": mirror}
        headers = {"If-Match": self._etag(endpoint)}
        return self._change(
            "POST",
            f"/admin/v1/routes/{_quoted(endpoint)}:promote",
            body={name: value for name, value in body.items() if value is not None},
            reason=reason,
            headers=headers,
            wait_s=wait_s,
        )

    def rollback(
        self,
        endpoint: str,
        *,
        reason: str,
        to: int | None = None,
        move_alias: bool = False,
        wait_s: float = WAIT_S,
    ) -> Reply:
        """Back to the previous live revision, or to revision `to`; asks nobody, also not the registry."""
        body = ({} if to is None else {"to": to}) | ({"move_alias": True} if move_alias else {})
        return self._change(
            "POST", f"/admin/v1/routes/{_quoted(endpoint)}:rollback", body=body, reason=reason, wait_s=wait_s
        )

    def follow(self, endpoint: str, *, reason: str, override: bool = False, wait_s: float = WAIT_S) -> Reply:
        """Takes the versions that the registry's aliases name now, as they are shown in `routes`.

        `override` takes them past the checks that they fail; the endpoint then declares what its champion declares.
        """
        path = f"/admin/v1/routes/{_quoted(endpoint)}"
        status = self.route(endpoint)["status"]
        versions = (status["following"] or {}).get("offered", {})
        headers = {"If-Match": f'"{status["revision"]}"'}
        body = {"versions": versions, "override": override}
        return self._change("POST", f"{path}:follow", body=body, reason=reason, headers=headers, wait_s=wait_s)

    def pause(self, endpoint: str, *, reason: str) -> Reply:
        """Stays at the present step of the route's steps."""
        return self._change("POST", f"/admin/v1/routes/{_quoted(endpoint)}:pause", reason=reason)

    def resume(self, endpoint: str, *, reason: str, what: str | None = None) -> Reply:
        """Goes on following aliases, after a rollback or a refused version, and with paused steps; `what`: only `following` or `steps`."""
        path = f"/admin/v1/routes/{_quoted(endpoint)}:resume"
        return self._change("POST", path, body={} if what is None else {"what": what}, reason=reason)

    def delete(self, endpoint: str, *, reason: str) -> Reply:
        """Takes the endpoint away; its history stays, and a rollback brings it back."""
        headers = {"If-Match": self._etag(endpoint)}
        return self._change("DELETE", f"/admin/v1/routes/{_quoted(endpoint)}", reason=reason, headers=headers)

    def forget(self, unit: str, *, reason: str) -> Reply:
        """Deletes what is recorded about one unit: its predictions, their shadows and labels, over all endpoints."""
        # Deleting rewrites files of the lake, so this may take as long as any other change.
        reply = self._admin.call(
            "POST", "/admin/v1/records:forget", body={"unit": unit}, query={"reason": reason}, wait_s=WAIT_S
        )
        return Reply(reply.json())

    # ---------------------------------------------------------------- looking

    def history(self, endpoint: str | None = None, *, limit: int = 50) -> Table:
        """Revisions of an endpoint, or of all, newest first: who, when, why, and what became of them. The title says if the past was changed."""
        path = "/admin/v1/revisions" if endpoint is None else f"/admin/v1/routes/{_quoted(endpoint)}/history"
        found = self._admin.call("GET", path, query={"limit": limit}).json()
        columns = ("revision", "state", "action", "author", "created_at", "reason", "changes", "problem")
        return Table(
            found["revisions"], columns if endpoint else ("endpoint", *columns), title=_verdict(found["audit"])
        )

    def audit(self, endpoint: str | None = None, *, limit: int = 50) -> Table:
        """Everything that was done, newest first: changes, what came of them, keys, deletions. The title says if the past was changed."""
        found = self._admin.call("GET", "/admin/v1/audit", query={"limit": limit, "endpoint": endpoint}).json()
        columns = ("sequence", "at", "author", "action", "endpoint", "revision", "reason", "detail")
        return Table(found["rows"], columns, title=_verdict(found))

    def models(self) -> Table:
        """Every model version that was made ready to serve."""
        found = self._admin.call("GET", "/admin/v1/models").json()["models"]
        return Table(found, ("name", "version", "state", "flavor", "size_bytes", "memory_bytes", "used_by", "digest"))

    def model(self, name: str, version: str) -> Reply:
        """One version: its signature, certificate, tuning profile and memory."""
        return Reply(self._admin.call("GET", f"/admin/v1/models/{_quoted(name)}/{_quoted(version)}").json())

    def tune(
        self,
        name: str,
        version: str,
        *,
        reason: str,
        target_ms: float | None = None,
        from_traffic: str | None = None,
        int8: bool | None = None,
        score_tolerance: float | None = None,
        share_weights: bool | None = None,
    ) -> Reply:
        """Measures a version anew and answers its profile; takes seconds. What is left out stays as it was asked for last.

        `target_ms`: the longest that one run may last. `from_traffic`: an endpoint whose recorded rows are taken. `int8`: whether the
        quantised form may be taken. `share_weights`: whether workers share one copy of a large model's weights.
        """
        wishes = {
            "target_ms": target_ms,
            "from_traffic": from_traffic,
            "int8": int8,
            "score_tolerance": score_tolerance,
            "share_weights": share_weights,
        }
        path = f"/admin/v1/models/{_quoted(name)}/{_quoted(version)}:tune"
        body = {name: wish for name, wish in wishes.items() if wish is not None}
        return Reply(self._admin.call("POST", path, body=body, query={"reason": reason}, wait_s=_TUNING_S).json())

    def status(self) -> Reply:
        """What every process does now."""
        return Reply(self._admin.call("GET", "/admin/v1/runtime").json())

    def ledger(self, endpoint: str, **query: Any) -> Reply:
        """Champion and mirrors on the same rows: agreement, flips, score differences."""
        return Reply(self._admin.call("GET", f"/admin/v1/endpoints/{_quoted(endpoint)}/ledger", query=query).json())

    def quality(self, endpoint: str, **query: Any) -> Reply:
        """How right each variant (`by="assigned"` or `"answered"`) and mirror was, with the coverage of labels."""
        return Reply(self._admin.call("GET", f"/admin/v1/endpoints/{_quoted(endpoint)}/quality", query=query).json())

    def prediction(self, prediction_id: str) -> Reply:
        """One prediction's record, its shadows and its labels."""
        return Reply(self._admin.call("GET", f"/admin/v1/predictions/{_quoted(prediction_id)}").json())

    # ---------------------------------------------------------------- keys

    def keys(self) -> Table:
        """Every key that there ever was: who it is for, what it may do, and until when. Their secrets are kept nowhere."""
        found = self._admin.call("GET", "/admin/v1/keys").json()["keys"]
        return Table(
            found,
            ("id", "name", "state", "scopes", "rate_per_s", "created_by", "created_at", "expires_at", "last_used_at"),
        )

    def create_key(
        self,
        name: str,
        scopes: Sequence[str],
        *,
        reason: str,
        expires_s: float | None = None,
        rate_per_s: float | None = None,
        burst: int | None = None,
    ) -> Reply:
        """Makes a key; `key` in the answer is shown this once. Scopes as `predict:phishing`, `read`, `label:fraud-*`."""
        limits = {"expires_s": expires_s, "rate_per_s": rate_per_s, "burst": burst}
        body = {"name": name, "scopes": list(scopes), **{name: one for name, one in limits.items() if one is not None}}
        return Reply(self._admin.call("POST", "/admin/v1/keys", body=body, query={"reason": reason}).json())

    def rotate_key(self, key_id: str, *, reason: str, overlap_s: float = 86400.0) -> Reply:
        """Makes a successor with the same name and scopes; the old key goes on for the overlap, then ends."""
        path = f"/admin/v1/keys/{_quoted(key_id)}:rotate"
        return Reply(self._admin.call("POST", path, body={"overlap_s": overlap_s}, query={"reason": reason}).json())

    def revoke_key(self, key_id: str, *, reason: str) -> Reply:
        """Ends a key, everywhere within a tenth of a second."""
        return Reply(self._admin.call("DELETE", f"/admin/v1/keys/{_quoted(key_id)}", query={"reason": reason}).json())

    # ---------------------------------------------------------------- data

    def predict(self, endpoint: str, body: Mapping[str, Any], *, headers: Mapping[str, str] | None = None) -> Reply:
        """One call of MLflow's scoring protocol: `{"dataframe_split": …}`, `{"inputs": …}`, …"""
        reply = self._door().call(
            "POST", f"/endpoints/{_quoted(endpoint)}/invocations", body=dict(body), headers=headers
        )
        return Reply(reply.json())

    def label(self, labels: Label | Iterable[Label]) -> Reply:
        """Reports truths: `{"prediction_id": …, "label": 1}`. Sent in portions; the answer adds up what became of all of them."""
        rows = [labels] if isinstance(labels, Mapping) else list(labels)
        accepted, rejected = 0, []
        for start in range(0, len(rows), _LABELS_A_CALL):
            portion: Sequence[Label] = [dict(row) for row in rows[start : start + _LABELS_A_CALL]]
            answer = self._door().call("POST", "/v1/labels", body=portion).json()
            accepted += answer["accepted"]
            rejected += [{**row, "index": row["index"] + start} for row in answer["rejected"]]
        return Reply(accepted=accepted, rejected=rejected)

    # ----------------------------------------------------------------

    def close(self) -> None:
        self._admin.close()
        if self._data is not None:
            self._data.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _repr_html_(self) -> str:
        return self.routes()._repr_html_()

    def _etag(self, endpoint: str) -> str:
        return self._admin.call("GET", f"/admin/v1/routes/{_quoted(endpoint)}").headers["etag"]

    def _change(
        self,
        method: str,
        path: str,
        *,
        reason: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        wait_s: float = 0.0,
        plan: Mapping[str, Any] | None = None,
    ) -> Reply:
        """A write. A revision that failed is raised with its problems, as a refusal is."""
        query = {"reason": reason, "wait": wait_s or None}
        reply = self._admin.call(method, path, body=body, query=query, headers=headers, wait_s=wait_s)
        return Reply(reply.json() | ({"changes": plan["changes"]} if plan else {}))

    def _door(self) -> Transport:
        if self._data is None:
            url = self._data_url or str(self.status()["listeners"]["rest"])
            self._data = Transport(url, key=self._key, timeout_s=self._timeout_s)
        return self._data


def _mirror(before: Mapping[str, Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """A mirror with these keys set. It has a model here or a server elsewhere, whichever was named last.

    A server at the same address keeps what is not named of it; at another one it keeps nothing, least of all a token.
    """
    gone = {"remote"} if "model" in named else {"model"} if "remote" in named else set()
    kept = {key: value for key, value in before.items() if key not in gone}
    remote = named.get("remote")
    if isinstance(remote, Mapping) and kept.get("remote", {}).get("url") == remote.get("url"):
        named = {**named, "remote": {**kept["remote"], **remote}}
    return {key: value for key, value in {**kept, **named}.items() if value is not None}


def _verdict(audit: Mapping[str, Any]) -> str:
    """What the chain of the audit says of the past; nothing where it holds."""
    return "" if audit["intact"] else f"the audit was changed at row {audit['broken_at']}"


def _quoted(name: object) -> str:
    """A name as one part of a path."""
    return quote(str(name), safe="")
