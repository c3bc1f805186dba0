"""The tests that the package ships for Debian's own machinery."""

from __future__ import annotations

from machine import CAP_S, Machine

from testbed.package import Built


def test_each_passes(release: str, built: Built) -> None:
    (dsc,), (tarball,) = built.directory.glob("*.dsc"), built.directory.glob("*.tar.*")
    with Machine(release) as machine:
        for path in (built.deb, built.command_deb, dsc, tarball):
            machine.copy_in(path, f"/var/tmp/{path.name}")
        # Each would get a machine of its own from Debian; here they share one that is thrown away.
        what = [f"/var/tmp/{path.name}" for path in (built.deb, built.command_deb, dsc)]
        options = ["--no-built-binaries", "--ignore-restrictions=isolation-container"]
        said = machine.run(
            ["autopkgtest", *options, *what, "--", "null"], check=False, timeout_s=5 * CAP_S
        )
        assert said.returncode == 0, said.stdout[-5000:] + said.stderr[-5000:]
