"""What systemd itself finds wrong in our units' files, asked of the real ``systemd-analyze``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from openclaw_gateway.admin.look.units import SYSTEM, Unit, parse
from openclaw_gateway.admin.look.verify import UnitFault, Verified, verify

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)
NAME = "openclaw-gateway.service"
SHIPPED = Path(__file__).parents[2] / "systemd"


def verified(tmp_path: Path, drop_in: str) -> Verified:
    """Verify our unit as shipped, beside a drop-in; its program is one that is there."""
    fragment = tmp_path / NAME
    text = (SHIPPED / NAME).read_text().replace("/usr/bin/openclaw-gateway", "/bin/sh")
    fragment.write_text(text)
    (tmp_path / f"{NAME}.d").mkdir()
    (tmp_path / f"{NAME}.d/x.conf").write_text(drop_in)
    found = verify(
        _unit(str(fragment), f"{tmp_path}/{NAME}.d/x.conf"),
        {**os.environ, "SYSTEMD_UNIT_PATH": f"{tmp_path}:"},
    )
    if os.geteuid() != 0 and not os.path.isdir("/run/systemd"):
        assert found.problem and "/run/systemd" in found.problem
        pytest.skip(f"systemd's files can't be checked here: {found.problem}")
    return found


def _unit(fragment: str, drop_in: str) -> Unit:
    text = f"Id={NAME}\nFragmentPath={fragment}\nDropInPaths={drop_in}"
    (unit,) = parse(text, SYSTEM, now_s=0.0)
    return unit


def test_shipped_unit_is_sound(tmp_path: Path) -> None:
    assert verified(tmp_path, "") == Verified(())


def test_unknown_directive_is_named_with_its_line_and_does_no_more(tmp_path: Path) -> None:
    (fault,) = verified(tmp_path, "[Service]\nRestrt=always\n").faults
    assert fault.sentence.startswith(f"{tmp_path}/{NAME}.d/x.conf:2: ")
    assert "Restrt" in fault.sentence
    assert fault.is_ignored


def test_second_exec_start_stops_the_next_start(tmp_path: Path) -> None:
    faults = verified(tmp_path, "[Service]\nExecStart=/bin/true\n").faults
    assert any("more than one ExecStart=" in fault.sentence for fault in faults)
    assert not any(fault.is_ignored for fault in faults)


def test_faults_of_other_units_are_not_ours(tmp_path: Path) -> None:
    other = "[Service]\nExecStart=/bin/sh\nNonsense=1\n"
    (tmp_path / "other.service").write_text(other)
    found = verified(tmp_path, "[Unit]\nWants=other.service\n")
    assert found == Verified(())


def test_fault_is_told_once() -> None:
    from openclaw_gateway.admin.look import verify as verifying

    line = "/x.conf:2: Unknown key name 'A' in section 'Service', ignoring.\n"
    found = tuple(verifying.parse(line * 2, _unit("/f", "/x.conf")))
    assert found == (UnitFault(line.strip(), True),)
