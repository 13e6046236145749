"""What a stranger, who has no token, gets out of a port: every call that Ray's services know, and HTTP."""

from __future__ import annotations

import http.client
import importlib
import pkgutil
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import grpc
import ray.core.generated

# A busy machine's answers take their time; a call that waits for something was let in, and waits longer.
WAIT_S = 60.0
WRONG_TOKEN = {"authorization": "Bearer " + "0" * 64}
# Services that Ray has no Python module of.
FURTHER = {"ray.rpc.ObjectManagerService": ("Push", "Pull", "FreeObjects")}
SILENT = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNIMPLEMENTED)  # nobody there, or no such call
REFUSED = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)
# Calls that change nothing, of which each of Ray's servers knows one: with the token they show that the door works.
HARMLESS = (
    "/ray.rpc.NodeInfoGcsService/GetAllNodeInfo",
    "/ray.rpc.NodeManagerService/GetSystemConfig",
    "/ray.rpc.CoreWorkerService/GetCoreWorkerStats",
    "/ray.rpc.ObjectManagerService/Pull",
    "/ray.rpc.ReporterService/HealthCheck",
)
# Of the agents and the dashboard: reading, starting a job, making an environment; and what is no path at all.
REQUESTS = (
    ("GET", "/"),
    ("GET", "/metrics"),
    ("GET", "/api/version"),
    ("GET", "/nodes?view=summary"),
    ("GET", "/api/job_agent/jobs/any/logs"),
    ("POST", "/api/job_agent/jobs/"),
    ("POST", "/api/jobs/"),
    ("POST", "/get_or_create_runtime_env"),
    ("POST", "/get_runtime_envs_info"),
    ("POST", "/delete_runtime_env_if_possible"),
    ("PUT", "/api/packages/gcs/any.zip"),
    ("DELETE", "/api/job_agent/jobs/any"),
)
FIGURES = b"# HELP"  # with which what Prometheus reads begins; its servers answer every path with it
# What gRPC itself tells anybody: that the server lives, and the names of its calls.
TOLD_TO_ALL = ("/grpc.health.v1.Health/Check", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")


@dataclass
class Answers:
    """What came of knocking at one port.

    Attributes:
        speaks: `gRPC`, `HTTP`, `figures` (HTTP, with which Prometheus reads figures, and nothing else) or `unknown`.
        tried: calls that the server knows, but those that tell anybody the same.
        refused: those of them that were refused for want of a token.
        let_in: those that were answered otherwise.
        told: calls of gRPC itself that were answered.
        with_token: what a harmless call with the right token came to; empty where none was tried.
    """

    speaks: str
    tried: int = 0
    refused: int = 0
    let_in: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    with_token: str = ""


def ray_calls() -> list[str]:
    """All calls of all services that Ray's servers have, as gRPC names them."""
    services: dict[str, tuple[str, ...]] = dict(FURTHER)
    for module in pkgutil.iter_modules(ray.core.generated.__path__):
        if module.name.endswith("_pb2"):
            found = importlib.import_module(f"ray.core.generated.{module.name}").DESCRIPTOR.services_by_name.values()
            services |= {each.full_name: tuple(method.name for method in each.methods) for each in found}
    return [f"/{service}/{name}" for service, names in services.items() for name in names]


CALLS = ray_calls()


def knock(host: str, port: int, token: str | None) -> Answers:
    """Tries everything at a port: without a token, then with a wrong one.

    Args:
        host: where it listens.
        port: the port.
        token: the right one, for one harmless call.

    Raises:
        OSError: nothing listens there any more.
    """
    socket.create_connection((host, port), WAIT_S).close()
    if (found := _knock_http(host, port)) is not None:
        return found
    return _knock_grpc(host, port, token)


def _knock_grpc(host: str, port: int, token: str | None) -> Answers:
    answers = Answers("gRPC")
    with grpc.insecure_channel(f"{host}:{port}") as channel:
        # First what does no harm: where that is let in there is no need to try what ends the server.
        for call in HARMLESS:
            if (code := _code(_begin(channel, call, {}))) not in (*REFUSED, *SILENT):
                answers.let_in.append(_told(call, code))
        if answers.let_in:
            answers.tried = len(answers.let_in)
            return answers
        for headers in ({}, WRONG_TOKEN):
            for call, code in _call_all(channel, headers):
                if code is grpc.StatusCode.UNAVAILABLE:  # no gRPC; or nobody any more, which this raises
                    socket.create_connection((host, port), WAIT_S).close()
                    return Answers("unknown")
                if code is grpc.StatusCode.UNIMPLEMENTED:
                    continue
                answers.tried += 1
                if code in REFUSED:
                    answers.refused += 1
                else:
                    answers.let_in.append(_told(call, code))
        answers.told = [call for call in TOLD_TO_ALL if _code(_begin(channel, call, {})) is None]
        if token is not None:
            codes = [_code(_begin(channel, call, {"authorization": f"Bearer {token}"})) for call in HARMLESS]
            known = [code for code in codes if code is not grpc.StatusCode.UNIMPLEMENTED]
            answers.with_token = "refused" if any(code in REFUSED for code in known) else "let in" if known else ""
    return answers


def _told(call: str, code: grpc.StatusCode | None) -> str:
    return f"{call} ({code.name if code else 'answered'})"


def _call_all(channel: grpc.Channel, headers: Mapping[str, str]) -> Iterator[tuple[str, grpc.StatusCode | None]]:
    calls = [(call, _begin(channel, call, headers)) for call in CALLS]
    yield from ((call, _code(begun)) for call, begun in calls)


def _begin(channel: grpc.Channel, call: str, headers: Mapping[str, str]) -> grpc.Future:
    """Begins a call with an empty message, which is a valid one of any type; one answer is enough of a stream."""
    return channel.unary_unary(call).future(b"", timeout=WAIT_S, metadata=tuple(headers.items()))


def _code(begun: grpc.Future) -> grpc.StatusCode | None:
    """What a call came to; None where it was answered."""
    error = begun.exception()
    return None if error is None else error.code()


def _knock_http(host: str, port: int) -> Answers | None:
    """None where no HTTP is spoken."""
    answers = Answers("HTTP")
    figures = 0
    for headers in ({}, WRONG_TOKEN):
        for method, path in REQUESTS:
            try:
                status, body = _request(host, port, method, path, headers)
            except (http.client.HTTPException, ConnectionError, TimeoutError):
                return None
            if status in (404, 405):  # no such thing here
                continue
            if method == "GET" and body.startswith(FIGURES):
                figures += 1
                continue
            answers.tried += 1
            if status in (401, 403):
                answers.refused += 1
            else:
                answers.let_in.append(f"{method} {path} ({status})")
    if figures and not answers.tried:
        answers.speaks = "figures"
    return answers


def _request(host: str, port: int, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(host, port, timeout=WAIT_S)
    try:
        body = b'{"entrypoint": "true"}' if method == "POST" else None
        connection.request(method, path, body, {"content-type": "application/json", **headers})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
