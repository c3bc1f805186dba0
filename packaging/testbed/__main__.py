"""Build the package and boot it in clean Debian systems."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from testbed import package, roots
from testbed.container import Container
from testbed.sandbox import TestbedError


def _prepare(_: argparse.Namespace) -> int:
    def prepare(release: str) -> int:
        for kind in roots.layers():
            with roots.use(release, kind) as root:
                print(f"{release} {kind}: {root.lowers[0]}")
        return 0

    return _on_each_release(prepare)


def _deb(_: argparse.Namespace) -> int:
    def build(release: str) -> int:
        built = package.build(release)
        print(f"{release}: {built.deb}\n{release}: {built.command_deb}\n{built.lintian}", end="")
        return 0 if built.lint_ok else 1

    return _on_each_release(build)


def _boot(options: argparse.Namespace) -> int:
    with Container(options.release, kind=options.kind) as container:
        print(f"{options.release} is {container.state}")
        if options.install:
            container.install(package.build(options.release).deb)
        for source, _, target in (pair.partition(":") for pair in options.copy):
            container.copy_in(Path(source), target)
        if not options.command:
            return container.shell()
        result = container.run(options.command, check=False, timeout_s=3600)
        sys.stdout.write(result.stdout)
        sys.stderr.write(result.stderr)
        return result.returncode


def _prune(_: argparse.Namespace) -> int:
    for name in roots.prune():
        print(f"removed {name}")
    return 0


def _on_each_release(work: Callable[[str], int]) -> int:
    """Do the work for all releases at once; return the worst status."""
    with ThreadPoolExecutor(len(roots.RELEASES)) as pool:
        return max(pool.map(work, roots.RELEASES))


def main() -> int:
    """Parse the command line and do what it says."""
    parser = argparse.ArgumentParser(prog="testbed", description=__doc__)
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def add(
        name: str, do: Callable[[argparse.Namespace], int], text: str
    ) -> argparse.ArgumentParser:
        verb = verbs.add_parser(name, help=text, description=text)
        verb.set_defaults(do=do)
        return verb

    add("prepare", _prepare, "make the roots that are missing")
    add("deb", _deb, "build and lint the package for each release, into dist/RELEASE")
    add("prune", _prune, "remove the roots that are out of date")
    boot = add("boot", _boot, "boot a release; run a command in it, or a shell")
    boot.add_argument("release", choices=roots.RELEASES)
    boot.add_argument("--kind", choices=list(roots.layers()), default="test")
    boot.add_argument("--install", action="store_true", help="install the package first")
    boot.add_argument("--copy", action="append", default=[], metavar="FROM:TO")
    boot.add_argument("command", nargs=argparse.REMAINDER, help="options come before RELEASE")
    options = parser.parse_args()
    try:
        status: int = options.do(options)
    except TestbedError as error:
        print(f"testbed: {error}", file=sys.stderr)
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
