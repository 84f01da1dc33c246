"""A control plane without processes: the real store, reconciler and admin API over a registry in memory that stages real ONNX files."""

import asyncio
import hashlib
import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Self

import onnx
import uvicorn
from onnx import TensorProto, helper

from gateway.admin.app import build
from gateway.admin.context import Admin
from gateway.admin.deliveries import Webhooks
from gateway.control.aliases import AliasMover
from gateway.control.changes import Author, Changes
from gateway.control.fleet import Fleet
from gateway.control.follow import Follower
from gateway.control.planning import Planner
from gateway.control.preparation import Exact, Preparation
from gateway.control.process import Server, _evidence
from gateway.control.ramp import Ramps
from gateway.control.reconcile import Reconciler
from gateway.control.remotes import Remotes
from gateway.control.tuning import Tuning
from gateway.keys.watch import KeyWatch
from gateway.settings import Settings
from gateway.state.store import StateStore
from gateway.streams.answers import StagedAnswers
from models.errors import ModelUnknown, RegistryUnavailable
from models.ref import parse_ref
from models.signature import Answer, Signature, TensorSpec
from models.staged import ModelKey, StagedModel

ANN = Author("local:ann", "because")


def route(endpoint="phishing", **arms):
    """A document with these variants (name=(model, weight)); a name that starts with `mirror` is a mirror."""
    arms = arms or {"champion": ("models:/phishing@champion", 1)}
    variants = [{"name": name, "model": model, "weight": weight} for name, (model, weight) in arms.items()]
    mirrors = [{"name": one["name"], "model": one["model"]} for one in variants if one["name"].startswith("mirror")]
    variants = [one for one in variants if not one["name"].startswith("mirror")]
    return {"endpoint": endpoint, "variants": variants, "mirrors": mirrors}


class Shelf:
    """A registry: `publish` puts a version on it, `aliases` move, `is_down` makes every question fail."""

    def __init__(self, artifacts: Path) -> None:
        self._artifacts = artifacts
        self._inputs: dict[tuple[str, str], tuple[str, ...]] = {}
        self.aliases: dict[tuple[str, str], str] = {}
        self._staged: dict[str, StagedModel] = {}
        self.is_down = False
        self.asked = 0

    def publish(self, name: str, version: str, *, inputs: tuple[str, ...] = ("x",), alias: str | None = None) -> None:
        self._inputs[name, version] = inputs
        if alias:
            self.aliases[name, alias] = version

    def withdraw(self, name: str, version: str) -> None:
        del self._inputs[name, version]

    def resolve(self, ref) -> Exact:
        self.asked += 1
        if self.is_down:
            raise RegistryUnavailable("the registry does not answer")
        version = self.aliases.get((ref.name, ref.detail), "") if ref.kind == "alias" else ref.detail
        if (ref.name, version) not in self._inputs:
            raise ModelUnknown(f"{ref}: there is no such version")
        return Exact(key=ModelKey(ref.name, version), uri=f"models:/{ref.name}/{version}")

    def stage(self, ref, recorded) -> StagedModel:
        try:
            exact = self.resolve(ref)
        except RegistryUnavailable:
            if str(ref) not in self._staged:
                raise
            return self._staged[str(ref)]
        names = self._inputs[exact.key.name, exact.key.version]
        model = linear(names, float(exact.key.version))
        digest = hashlib.sha256(model + exact.uri.encode()).hexdigest()
        folder = self._artifacts / digest
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.onnx").write_bytes(model)
        specs = tuple(TensorSpec(name=name, datatype="FP32", shape=(-1, 1)) for name in names)
        staged = StagedModel(
            key=exact.key,
            digest=digest,
            uri=exact.uri,
            flavor="onnx",
            file="model.onnx",
            file_sha256=hashlib.sha256(model).hexdigest(),
            size_bytes=len(model),
            signature=Signature(inputs=specs, outputs=(TensorSpec(name="y", datatype="FP32", shape=(-1, 1)),)),
            answer=Answer(),
        )
        staged.write(folder)
        self._staged[staged.uri] = staged
        return staged

    def named(self) -> dict[tuple[str, str], str]:
        self.asked += 1
        if self.is_down:
            raise RegistryUnavailable("the registry does not answer")
        return dict(self.aliases)

    def named_by(self, move) -> str:
        return self.named().get((move.name, move.alias), "")

    def move(self, move) -> None:
        self.resolve(parse_ref(f"models:/{move.name}/{move.version}"))
        self.aliases[move.name, move.alias] = move.version


def linear(names, factor: float) -> bytes:
    """y = factor · (sum of the inputs), as an ONNX file."""
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 1]) for name in names]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 1])
    constant = helper.make_tensor("k", TensorProto.FLOAT, [1], [factor])
    nodes = [helper.make_node("Sum", list(names), ["s"]), helper.make_node("Mul", ["s", "k"], ["y"])]
    graph = helper.make_graph(nodes, "linear", inputs, [output], [constant])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return model.SerializeToString()


class ControlPlane:
    """Use as a context manager inside an event loop. Two versions of `phishing` are on the shelf: champion 1, challenger 2."""

    def __init__(self, folder: Path, *, settings: Settings | None = None, warm_up_s: float = 5.0) -> None:
        self.settings = settings or Settings(state_dir=str(folder))
        self.shelf = Shelf(self.settings.artifacts_path)
        self.shelf.publish("phishing", "1", alias="champion")
        self.shelf.publish("phishing", "2", alias="challenger")
        self.recorded = {}
        self.wall = time.time
        """The wall clock of the state; a test may put its own in its place."""
        self.clock = time.monotonic
        """The clock of ramps, likewise."""
        self._warm_up_s = warm_up_s
        self._threads = ThreadPoolExecutor(2)
        self.start()

    def start(self) -> None:
        """Again after `stop`: what a restarted control process does."""
        self.store = StateStore(self.settings.state_file, clock=lambda: self.wall())  # noqa: PLW0108  # tests exchange it
        self.fleet = Fleet()
        self.fleet.hear({"event": "workers", "live": []})
        self.preparation = Preparation(
            self.store,
            self.shelf.stage,
            self.shelf.resolve,
            self.settings.artifacts_path,
            self._threads,
            self._threads,
            lambda endpoint, signature: self.recorded,
        )
        self.reconciler = Reconciler(self.store, self.preparation, self.fleet, warm_up_s=self._warm_up_s)
        self.remotes = Remotes(self.settings, {}, self.store.routes)
        self.changes = Changes(self.store, self.reconciler, against=self.remotes.problems)
        self.aliases = AliasMover(self.store, self.shelf.named_by, self.shelf.move, self._threads)
        self.follower = Follower(
            self.store,
            self.changes,
            self.reconciler,
            self.shelf.named,
            self._threads,
            poll_s=0.01,
            on_return=self.aliases.wake,
        )
        self.ramps = Ramps(self.store, self.changes, self.reconciler, clock=lambda: self.clock())  # noqa: PLW0108  # as above
        secret = self.settings.webhook_secret
        self.admin_webhooks = Webhooks(secret, self.follower.nudge) if secret else None
        self.planner = Planner(self.store, self.changes, self.preparation)
        self.keys = KeyWatch(self.settings)
        answers, spill = StagedAnswers(self.settings.artifacts_path), self.settings.state_path / "spill"
        evidence = _evidence(self.settings.lake_uri, answers, spill)
        self.tuning = Tuning(self.store, self.settings.artifacts_path, evidence, workers=self.settings.workers)
        self.admin = Admin(
            settings=self.settings,
            store=self.store,
            fleet=self.fleet,
            changes=self.changes,
            planner=self.planner,
            reconciler=self.reconciler,
            follower=self.follower,
            ramps=self.ramps,
            webhooks=self.admin_webhooks,
            evidence=evidence,
            tuning=self.tuning,
            artifacts=self.settings.artifacts_path,
            principal="local:ann",
            keys=self.keys,
        )
        self.app = build(self.admin)

    async def stop(self) -> None:
        await self.reconciler.close()
        self.tuning.close()
        self.keys.close()
        self.store.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        self._threads.shutdown()

    async def put(self, document, *, expected=None, author=ANN):
        """Writes a route and waits for its end."""
        revision = self.changes.put(document["endpoint"], document, expected=expected, author=author)
        return await self.reconciler.finished(revision.number, 10)

    async def ended(self, revision):
        return await self.reconciler.finished(revision.number, 10)

    def spoil(self, endpoint="phishing", **keys):
        """Its documents become what an older release took and this one refuses, as after an upgrade; `keys` instead of a bad unit."""
        rows = self.store._connection.execute("SELECT number, document FROM revisions WHERE endpoint = ?", (endpoint,))
        for number, document in rows.fetchall():
            old = json.dumps(json.loads(document) | (keys or {"unit": {"header": "authorization"}}))
            self.store._connection.execute("UPDATE revisions SET document = ? WHERE number = ?", (old, number))
        self.store._live.clear()

    def live(self, endpoint="phishing"):
        """The versions that are served: arm → version."""
        found = self.store.live(endpoint)
        return {arm: model.key.version for arm, model in found.resolutions.items()} if found else None


class ServedControlPlane:
    """A control plane behind a real socket, on a thread of its own; `url` is where it listens, `shelf` its registry."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join(30)

    def look(self) -> None:
        """One look at the shelf's aliases."""
        asyncio.run_coroutine_threadsafe(self._plane.follower.step(), self._loop).result(20)

    def try_alias_move(self) -> None:
        """One try at the oldest alias that waits."""
        asyncio.run_coroutine_threadsafe(self._plane.aliases.step(), self._loop).result(20)

    def rehearsed(self) -> None:
        """Waits until what is proposed has been checked."""

        async def wait() -> None:
            await asyncio.gather(*self._plane.follower._rehearsals.values())

        asyncio.run_coroutine_threadsafe(wait(), self._loop).result(20)

    async def _serve(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            async with ControlPlane(self._folder) as plane:
                self.shelf, self._plane, self._loop = plane.shelf, plane, asyncio.get_running_loop()
                self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
                self._server = Server(uvicorn.Config(plane.app, lifespan="off", log_config=None))
                serving = asyncio.create_task(self._server.serve(sockets=[listener]))
                await self._server.listening.wait()
                self._listening.set()
                await serving
