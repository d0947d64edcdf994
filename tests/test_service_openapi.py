"""The service keeps what its own OpenAPI document promises, for requests that fit it and for others."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.schemas import OpenApiSchema
from service import TOKEN, Client, serving

from taro_rt.runtime.service.documents import GenerateOptions, JobRecord, Output

EXAMPLES = 25
"""For each operation, of either kind."""
OPERATIONS = (
    ("get", "/v1/health"),
    ("get", "/v1/info"),
    ("post", "/v1/generate"),
    ("post", "/v1/onsets"),
    ("get", "/v1/jobs/{job}"),
    ("delete", "/v1/jobs/{job}"),
    ("get", "/v1/jobs/{job}/events"),
    ("get", "/v1/jobs/{job}/takes/{take}"),
)
RELATIONS = ("guidance_low: expected at most guidance_high", "end: expected more than the start")
"""Refusals of one value for the sake of another, for which a schema has no words."""
WITHOUT_INPUT = ("/v1/health", "/v1/info")
"""What cannot be asked wrongly."""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory, tiny_bundle: Path) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("allowed")
    with serving(tiny_bundle, allow=(folder,), max_waiting=10_000, keep_jobs=5) as client:
        yield client


@pytest.fixture(scope="module")
def described(client: Client) -> OpenApiSchema:
    """The document as a client gets it."""
    return schemathesis.openapi.from_url(f"http://{client.host}:{client.port}/openapi.json")


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_is_one_that_is_described(
    described: OpenApiSchema, method: str, path: str, mode: GenerationMode
) -> None:
    if mode.is_negative and path in WITHOUT_INPUT:
        return

    @given(case=described[path][method].as_strategy(generation_mode=mode))
    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
    def check(case: schemathesis.Case) -> None:
        answer = case.call(headers={"Authorization": f"Bearer {TOKEN}"})
        if answer.status_code != 422 or not answer.json()["error"]["message"].startswith(RELATIONS):
            case.validate_response(answer)

    check()


@pytest.mark.slow
def test_the_command_of_schemathesis_finds_nothing(client: Client, tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("schemathesis")
    url = f"http://{client.host}:{client.port}/openapi.json"
    command = [program, "run", url, "-H", f"Authorization: Bearer {TOKEN}", "--max-examples", "25"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_all_routes_are_described_and_tried(described: OpenApiSchema) -> None:
    document = described.raw_schema["paths"]
    assert {(method, path) for path, found in document.items() for method in found} == set(OPERATIONS)


def test_the_page_of_the_docs_names_every_route_and_field() -> None:
    told = (Path(__file__).parents[1] / "docs" / "serve.md").read_text("utf-8")
    fields = [*GenerateOptions.model_fields, *Output.model_fields, *JobRecord.model_fields]
    assert [path for _, path in OPERATIONS if f"{path}`" not in told] == []
    assert [name for name in fields if f"`{name}`" not in told and f'"{name}"' not in told] == []
