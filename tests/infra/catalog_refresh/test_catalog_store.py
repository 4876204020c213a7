"""The cache of refreshed catalogues: which is in force, what a damaged one says, and its removal."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from platformdirs import user_cache_path

from infra.catalog_refresh import store
from sizing.errors import UserError
from sizing.hardware import cache
from sizing.hardware.load import DATA, Hardware, build_hardware, load_hardware, read_tables

NOW = datetime(2026, 11, 24, 5, 40, 38, tzinfo=UTC)
REGION = "us-east-1"


def tables(*regions: str) -> dict[str, list[dict[str, str]]]:
    """The shipped rows of some regions, as a refresh would write them."""
    rows, _ = read_tables(DATA)
    return {
        name: [row.cells for row in found if row.cells.get("region", regions[0]) in regions]
        for name, found in rows.items()
    }


def publish(
    folder: Path, now: datetime = NOW, check: Callable[[Path], object] = lambda staged: build_hardware(DATA, staged)
) -> Path:
    with store.locked(folder):
        return store.publish(folder, tables(REGION), [REGION], now, lambda staged: (check(staged), None)[1])


class TestWhereItIs:
    def test_the_environment_s_folder(self, cache_dir: Path) -> None:
        assert cache.catalog_dir() == cache_dir / "catalog"

    def test_the_platform_s_folder_otherwise(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("BERTH_CACHE_DIR")
        assert cache.catalog_dir() == user_cache_path("berth", appauthor=False) / "catalog"

    def test_the_platform_s_folder_where_xdg_says_so(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.delenv("BERTH_CACHE_DIR")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
        assert cache.catalog_dir(os.environ) == user_cache_path("berth", appauthor=False) / "catalog"

    def test_an_empty_setting_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("BERTH_CACHE_DIR", "")
        assert cache.catalog_dir().parent.name == "berth"


class TestInForce:
    def test_what_is_published_is_read(self, catalog: Path) -> None:
        version = publish(catalog)
        hardware = load_hardware()
        assert hardware.origin.path == version
        assert hardware.origin.regions == (REGION,)
        assert hardware.prices == build_hardware(DATA).prices

    def test_a_version_that_the_check_refuses_is_not(self, catalog: Path) -> None:
        first = publish(catalog)

        def refuse(staged: Path) -> None:
            assert (staged / "manifest.json").exists()
            raise UserError("hollow")

        with pytest.raises(UserError, match="hollow"):
            publish(catalog, check=refuse)
        assert load_hardware().origin.path == first
        assert [path.name for path in catalog.iterdir() if path.is_dir()] == [first.name]

    def test_a_reader_of_the_version_before_can_end(self, catalog: Path) -> None:
        first = publish(catalog)
        second = publish(catalog, NOW.replace(hour=6))
        assert build_hardware(DATA, first).prices == build_hardware(DATA, second).prices
        publish(catalog, NOW.replace(hour=7))
        assert not first.exists()
        assert second.exists()


class TestDamage:
    @pytest.mark.parametrize(
        ("name", "content", "problem"),
        [
            ("current", "", "current names no version"),
            ("current", "../../etc", "current names no version"),
            ("current", "20260101T000000Z-gone", "which is not there"),
            ("current", b"\xff\xfe", "current cannot be read"),
            ("manifest.json", None, "manifest.json is missing"),
            ("manifest.json", "{", "manifest.json is not JSON"),
            ("manifest.json", "[]", "manifest.json is not of format 1"),
            ("manifest.json", '{"format": 99}', "manifest.json is not of format 1, which this Berth reads"),
            ("manifest.json", '{"format": 1}', "lacks refreshed_at, regions or files"),
            ("prices.csv", None, "prices.csv is missing"),
            ("prices.csv", "", "prices.csv is not as the refresh wrote it"),
            ("instances.csv", "cut", "instances.csv is not as the refresh wrote it"),
        ],
    )
    def test_one_line_says_what_and_how_to_remove_it(
        self, catalog: Path, name: str, content: str | bytes | None, problem: str
    ) -> None:
        version = publish(catalog)
        path = catalog / name if name == "current" else version / name
        if content is None:
            path.unlink()
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(UserError) as refused:
            load_hardware()
        assert str(refused.value).startswith(f"the refreshed catalogue in {catalog} is damaged: ")
        assert problem in str(refused.value)
        assert str(refused.value).endswith(
            "`berth catalog reset` removes the refreshed catalogue and Berth's own data serve again"
        )

        assert store.reset(catalog)
        assert load_hardware().origin.kind == "embedded"

    def test_rows_that_cannot_be_though_the_sums_agree(self, catalog: Path) -> None:
        version = publish(catalog)
        prices = version / "prices.csv"
        prices.write_text(prices.read_text().replace("0.526,", "-0.526,", 1))
        manifest = json.loads((version / "manifest.json").read_text())
        manifest["files"]["prices.csv"] = cache.digest(prices)
        (version / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(UserError, match=r"prices\.csv, line 2, column on_demand_usd_h: -0\.526 is negative.*reset"):
            load_hardware()


class TestReset:
    def test_nothing_there(self, catalog: Path) -> None:
        assert store.reset(catalog) is False
        assert not catalog.exists()

    def test_only_what_is_berth_s_own_is_removed(self, catalog: Path) -> None:
        publish(catalog)
        (catalog / ".staging-dead").mkdir()
        (catalog / "notes.txt").write_text("a person's own")
        (catalog / "2026").mkdir()
        assert store.reset(catalog)
        assert {path.name for path in catalog.iterdir()} == {"notes.txt", "2026", "lock"}
        assert load_hardware().origin.kind == "embedded"
        assert store.reset(catalog) is False

    def test_not_while_it_is_written(self, catalog: Path) -> None:
        publish(catalog)
        with store.locked(catalog), pytest.raises(UserError, match="another `berth catalog` command"):
            store.reset(catalog)
        assert load_hardware().origin.kind == "refreshed"


def test_a_catalogue_of_this_process_is_read_anew_when_another_comes_in_force(catalog: Path) -> None:
    kinds: list[Hardware] = [load_hardware()]
    publish(catalog)
    kinds.append(load_hardware())
    store.reset(catalog)
    kinds.append(load_hardware())
    assert [hardware.origin.kind for hardware in kinds] == ["embedded", "refreshed", "embedded"]
