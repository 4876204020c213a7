"""A refresh that fails, is interrupted or killed leaves the catalogue as it was, and says why in one line."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
    SSOTokenLoadError,
)
from local_aws import PriceApis, raised_rates
from replay import Recorder

from infra.catalog_refresh import services
from infra.catalog_refresh.clients import Clients, connect
from infra.catalog_refresh.refresh import Summary, refresh
from model_runtime.progress import Lines
from sizing.errors import UserError
from sizing.hardware.load import load_hardware

NOW = datetime(2026, 11, 24, 5, 40, 38, tzinfo=UTC)
LATER = datetime(2026, 12, 24, 5, 40, 38, tzinfo=UTC)
KEPT = "; the data in force are unchanged"


SILENT = Lines(lambda _: None)


def client_error(code: str, message: str = "as AWS words it.") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": message}}, "Operation")


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file under a folder but the lock, which holds nothing."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


@pytest.fixture(scope="module")
def recorder(clients: Clients, price_apis: PriceApis, tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    """Clients that replay a whole refresh of eu-west-1."""
    price_apis.on_demand, price_apis.before = raised_rates(), None
    recorded = Recorder(clients)
    refresh(["eu-west-1"], recorded.clients(), SILENT, NOW, folder=tmp_path_factory.mktemp("recorded"))
    return recorded


@pytest.fixture
def replayed(recorder: Recorder) -> Callable[..., Summary]:
    """Refreshes eu-west-1 from the record: `replayed(fail_at, error)`."""

    def run(fail_at: int = -1, error: BaseException | None = None, now: datetime = NOW) -> Summary:
        return refresh(["eu-west-1"], recorder.failing(fail_at, error or Exception()), SILENT, now)

    return run


class TestAtEveryStep:
    """The record tells which requests a refresh makes; the first and the last of every kind fail in turn."""

    @pytest.mark.parametrize(
        "error",
        [
            client_error("UnauthorizedOperation"),
            client_error("ThrottlingException"),
            client_error("InternalError"),
            EndpointConnectionError(endpoint_url="https://api.pricing.us-east-1.amazonaws.com"),
            ReadTimeoutError(endpoint_url="https://ec2.eu-west-1.amazonaws.com"),
            KeyboardInterrupt(),
        ],
        ids=["denied", "throttled", "internal", "no-connection", "timeout", "ctrl-c"],
    )
    def test_nothing_is_changed(
        self, replayed: Callable[..., Summary], recorder: Recorder, catalog: Path, error: BaseException
    ) -> None:
        replayed()
        asked = list(recorder.asked)
        before = snapshot(catalog)
        in_force = load_hardware()
        last = len(asked) - 1
        steps = {asked.index(kind) for kind in asked} | {last - asked[::-1].index(kind) for kind in asked}
        assert len({asked[number] for number in steps}) == 5
        for number in sorted(steps):
            with pytest.raises((UserError, KeyboardInterrupt)) as ended:
                replayed(number, error, LATER)
            if isinstance(ended.value, UserError):
                assert str(ended.value).endswith(KEPT)
                assert "\n" not in str(ended.value)
            assert snapshot(catalog) == before, recorder.asked[-1]
        assert load_hardware() is in_force

    def test_with_nothing_before_nothing_is_there_after(self, replayed: Callable[..., Summary], catalog: Path) -> None:
        for number in (0, 1, 2, 20):
            with pytest.raises(UserError):
                replayed(number, client_error("AccessDenied"))
            assert snapshot(catalog) == {}
            assert load_hardware().origin.kind == "embedded"

    def test_the_next_refresh_succeeds(self, replayed: Callable[..., Summary]) -> None:
        with pytest.raises(UserError):
            replayed(5, client_error("AccessDenied"))
        replayed()
        assert load_hardware().origin.regions == ("eu-west-1",)


class TestWhatItSays:
    @pytest.mark.parametrize(
        ("operation", "error", "message"),
        [
            (
                "describe_instance_types",
                client_error("UnauthorizedOperation"),
                r"may not call ec2:DescribeInstanceTypes \(region eu-west-1\): allow it;",
            ),
            ("describe_instance_types", client_error("AuthFailure"), "eu-west-1 .AuthFailure.: .*has not enabled it"),
            ("describe_instance_types", client_error("OptInRequired"), "the account has not enabled it"),
            (
                "describe_instance_type_offerings",
                client_error("UnauthorizedOperation"),
                "may not call ec2:DescribeInstanceTypeOfferings",
            ),
            (
                "describe_spot_price_history",
                client_error("UnauthorizedOperation"),
                "may not call ec2:DescribeSpotPriceHistory .*allow it or leave it out with --without spot;",
            ),
            ("get_products", client_error("AccessDeniedException"), r"may not call pricing:GetProducts .*: allow it;"),
            (
                "get_products",
                client_error("ExpiredTokenException"),
                "refused the credentials .ExpiredTokenException.: renew",
            ),
            ("get_products", client_error("ThrottlingException"), "throttled pricing:GetProducts .*try again later;"),
            (
                "get_products",
                client_error("InvalidNextTokenException"),
                "with InvalidNextTokenException: .*as AWS words it;",
            ),
            ("get_products", NoCredentialsError(), "no usable AWS credentials .*aws configure"),
            (
                "get_products",
                SSOTokenLoadError(error_msg="Token has expired"),
                "no answer to pricing:GetProducts .*expired;",
            ),
            (
                "describe_savings_plans_offering_rates",
                client_error("AccessDeniedException"),
                "may not call savingsplans:DescribeSavingsPlansOfferingRates .*--without savings;",
            ),
        ],
    )
    def test_the_action_the_reason_and_what_to_do(
        self,
        replayed: Callable[..., Summary],
        recorder: Recorder,
        operation: str,
        error: BotoCoreError | ClientError,
        message: str,
    ) -> None:
        replayed()
        with pytest.raises(UserError, match=message) as ended:
            replayed(recorder.asked.index(operation), error)
        assert str(ended.value).endswith(KEPT)
        assert "\n" not in str(ended.value)

    def test_sagemaker_may_be_left_out(self, replayed: Callable[..., Summary], recorder: Recorder) -> None:
        replayed()
        last = len(recorder.asked) - 1 - len(services.QUESTIONS)  # those of the services come after
        with pytest.raises(UserError, match="--without sagemaker"):
            replayed(last, client_error("AccessDeniedException"))

    def test_no_credentials_at_all(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        with pytest.raises(UserError, match=r"no AWS credentials found: run `aws configure`.*Berth's own dated prices"):
            connect()

    def test_a_profile_that_is_not_there(self) -> None:
        with pytest.raises(UserError, match=r"cannot use the AWS credentials: .*\(nosuch\) could not be found"):
            connect("nosuch")


class TestAnswersThatAreNotAsDocumented:
    """Refused, or read as unpriced: never a guess."""

    @pytest.mark.parametrize(
        ("reply", "message"),
        [
            ((200, {"FormatVersion": "aws_v1", "PriceList": ["{cut"]}), "an entry of PriceList is not JSON"),
            ((200, {"FormatVersion": "aws_v1", "PriceList": ['{"terms": {}}']}), "product.attributes is missing"),
            ((200, {"FormatVersion": "aws_v1", "PriceList": []}), "no on-demand price for eu-west-1"),
            ((400, {"__type": "AccessDeniedException", "message": "no"}), "may not call pricing:GetProducts"),
            ((400, {"__type": "ThrottlingException", "message": "slow"}), "throttled pricing:GetProducts"),
            ((500, {"__type": "InternalErrorException", "message": "oops"}), "with InternalErrorException"),
            ((0, {}), "no answer to pricing:GetProducts"),
        ],
        ids=["no-json", "no-product", "empty", "denied", "throttled", "internal", "hang-up"],
    )
    def test_over_the_wire(
        self, clients: Clients, aws: PriceApis, catalog: Path, reply: tuple[int, dict[str, Any]], message: str
    ) -> None:
        aws.before = lambda *_: reply
        with pytest.raises(UserError, match=message) as ended:
            refresh(["eu-west-1"], clients, SILENT, NOW)
        assert str(ended.value).endswith(KEPT)
        assert snapshot(catalog) == {}

    def test_a_throttled_request_is_tried_again(self, clients: Clients, aws: PriceApis) -> None:
        refused: list[str] = []

        def once(service: str, request: dict[str, Any]) -> tuple[int, dict[str, Any]] | None:
            if service in refused:
                return None
            refused.append(service)
            return 400, {"__type": "ThrottlingException", "message": "slow"}

        aws.before = once
        refresh(["eu-west-1"], clients, SILENT, NOW)
        assert refused == ["pricing", "savingsplans"]
        assert load_hardware().origin.kind == "refreshed"

    def test_a_product_at_zero_or_in_another_currency_is_unpriced(self, clients: Clients, aws: PriceApis) -> None:
        aws.on_demand["g4dn.xlarge", "eu-west-1"] = 0.0
        refresh(["eu-west-1"], clients, SILENT, NOW)
        hardware = load_hardware()
        assert hardware.offered("g4dn.xlarge", "eu-west-1")
        assert "g4dn.xlarge" in {i.name for i in hardware.unpriced("eu-west-1")} or not {
            "on-demand",
            "reserved-1y",
            "savings-1y",
        } & set(hardware.prices["g4dn.xlarge", "eu-west-1"].usd_per_hour)


@pytest.fixture
def environment(endpoints: dict[str, str], aws: PriceApis, cache_dir: Path) -> dict[str, str]:
    return {**os.environ, **endpoints, "BERTH_CACHE_DIR": str(cache_dir), "PYTHONWARNINGS": "error"}


@pytest.fixture
def stuck(aws: PriceApis) -> Iterator[threading.Event]:
    """The price APIs stop answering at request 30; the event is set when a refresh is there."""
    arrived, release = threading.Event(), threading.Event()

    def before(service: str, request: dict[str, Any]) -> None:
        if len(aws.requests) >= 30:
            arrived.set()
            release.wait(30)

    aws.before = before
    yield arrived
    release.set()


REFRESH = [sys.executable, "-m", "berth", "catalog", "refresh", "--region", "eu-west-1"]


class TestTheProcessEnds:
    @pytest.mark.parametrize(("ending", "code"), [(signal.SIGKILL, -9), (signal.SIGINT, 130)])
    def test_in_the_middle_of_asking(
        self,
        environment: dict[str, str],
        stuck: threading.Event,
        replayed: Callable[..., Summary],
        catalog: Path,
        ending: int,
        code: int,
    ) -> None:
        replayed()
        before = snapshot(catalog)
        child = subprocess.Popen(REFRESH, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert stuck.wait(60)
        child.send_signal(ending)
        out, err = child.communicate(timeout=60)
        assert child.returncode == code, err
        assert out == ""
        assert "Traceback" not in err
        assert snapshot(catalog) == before
        assert load_hardware().origin.regions == ("eu-west-1",)

    def test_in_the_middle_of_writing(self, environment: dict[str, str], catalog: Path) -> None:
        """Killed at any moment while it writes version after version, one of them is in force, whole."""
        script = """
import sys
from datetime import datetime, timedelta, UTC
from pathlib import Path
from infra.catalog_refresh import store
from model_runtime.progress import Lines
from sizing.hardware.load import DATA, read_tables
folder = Path(sys.argv[1])
rows, _ = read_tables(DATA)
tables = {
    name: [row.cells for row in found if row.cells.get("region", "us-east-1") == "us-east-1"]
    for name, found in rows.items()
}
print("ready", flush=True)
now = datetime(2026, 1, 1, tzinfo=UTC)
while True:
    now += timedelta(seconds=1)
    with store.locked(folder):
        store.sweep(folder)
        store.publish(folder, tables, ["us-east-1"], now, lambda staged: None)
"""
        seen = set()
        for attempt in range(8):
            child = subprocess.Popen(
                [sys.executable, "-c", script, str(catalog)], env=environment, stdout=subprocess.PIPE, text=True
            )
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
            time.sleep(0.05 + 0.037 * attempt)
            child.kill()
            child.wait()
            child.stdout.close()
            if (catalog / "current").exists():
                hardware = load_hardware()
                assert hardware.origin.kind == "refreshed"
                assert len(hardware.prices) == 260
                seen.add(hardware.origin.path.name)
        assert len(seen) > 1

    def test_what_a_killed_refresh_left_is_swept_by_the_next(
        self, replayed: Callable[..., Summary], catalog: Path
    ) -> None:
        replayed()
        (catalog / ".staging-dead").mkdir()
        (catalog / ".staging-dead" / "prices.csv").write_text("half")
        (catalog / "20200101T000000Z-orphan").mkdir()
        replayed(now=LATER)
        versions = {path.name for path in catalog.iterdir() if path.is_dir()}
        assert len(versions) == 2
        assert all(re.match(r"20261[12]24T054038Z-", name) for name in versions)

    def test_a_disk_that_is_full(self, environment: dict[str, str], catalog: Path) -> None:
        """A file-size limit stands for the full disk: the write fails in the middle of a file."""
        script = (
            "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); "
            "from berth.cli import main; main(sys.argv[1:])"
        )
        ran = subprocess.run(
            [sys.executable, "-c", script, *REFRESH[3:]], env=environment, capture_output=True, text=True, check=False
        )
        assert ran.returncode == 2, ran.stderr
        last = ran.stderr.splitlines()[-1]
        assert last.startswith(f"berth: cannot write the catalogue cache {catalog}: File too large; the data in force")
        assert snapshot(catalog) == {}


def test_two_refreshes_at_once(
    environment: dict[str, str], stuck: threading.Event, replayed: Callable[..., Summary]
) -> None:
    child = subprocess.Popen(REFRESH, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert stuck.wait(60)
        with pytest.raises(UserError, match="another `berth catalog` command is writing"):
            replayed()
    finally:
        child.kill()
        child.communicate()


def test_a_cache_folder_that_cannot_be(replayed: Callable[..., Summary], cache_dir: Path) -> None:
    (cache_dir / "catalog").write_text("a file in its place")
    with pytest.raises(UserError, match=r"cannot write the catalogue cache .*BERTH_CACHE_DIR names another"):
        replayed()


def test_a_hollow_catalogue_is_not_put_in_force(
    recorder: Recorder, replayed: Callable[..., Summary], catalog: Path
) -> None:
    """Rates that load refuses (negative: no such price) stop a refresh before anything is in force."""
    key = next(k for k in recorder.answers if "describe_spot_price_history" in k)
    page = recorder.answers[key][0]["SpotPriceHistory"][0]
    whole = page["SpotPrice"]
    page["SpotPrice"] = "-1.0"
    try:
        with pytest.raises(UserError, match=r"makes no catalogue: prices\.csv, line \d+, .* is negative") as refused:
            replayed()
        assert str(refused.value).endswith(KEPT)
    finally:
        page["SpotPrice"] = whole
    assert snapshot(catalog) == {}
