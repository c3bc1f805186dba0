"""What ``cluster`` of ``openclaw-gateway.json`` comes to, and what a wrong one is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from openclaw_gateway.errors import ConfigurationError, ExitCode
from openclaw_gateway.settings.load import AROUND, Cluster, Examined, examine

PLAIN = {"endpoints": ["http://127.0.0.1:2379"], "name": "home"}
SAFE = PLAIN | {"endpoints": ["https://etcd-a:2379"], "caPath": "/etc/ssl/etcd.pem"}
SCHEMA = json.loads(
    (Path(__file__).parents[2] / "packaging/schema/openclaw-gateway.schema.json").read_text()
)
AROUND_HERE = AROUND._replace(host_name=lambda: "gw-a")


class Home:
    """A home directory with both files in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.directory = path / ".openclaw"
        self.directory.mkdir()
        self.own = self.directory / "openclaw-gateway.json"

    def examine(
        self, cluster: Any, *, gateway: Any = None, serves: bool = True, **environ: str
    ) -> Examined:
        """Examine settings whose ``cluster`` is this; ``gateway`` is that of ``openclaw.json``."""
        self.own.write_text(json.dumps({} if cluster is None else {"cluster": cluster}))
        self.own.chmod(0o600)
        document = self.directory / "openclaw.json"
        document.write_text(json.dumps({"gateway": gateway or {}}))
        document.chmod(0o600)
        environ = {"HOME": str(self.path)} | environ
        return examine({}, environ, serves=serves, around=AROUND_HERE)

    def cluster(self, cluster: Any, **more: Any) -> Cluster:
        """Return what good settings come to."""
        found = self.examine(cluster, **more)
        assert not found.problems
        assert found.settings is not None
        assert found.settings.cluster is not None
        return found.settings.cluster

    def problem(self, cluster: Any, **more: Any) -> ConfigurationError:
        """Return what wrong settings are told."""
        found = self.examine(cluster, **more)
        assert found.settings is None
        return found.problems[0]


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def test_without_it_there_is_none(home: Home) -> None:
    found = home.examine(None)
    assert found.settings is not None
    assert found.settings.cluster is None


@pytest.mark.parametrize("serves", [True, False])
def test_two_lines_are_enough(home: Home, serves: bool) -> None:
    """Also for a gateway that is guarded, whose own settings are not ours to judge."""
    assert home.cluster(PLAIN, serves=serves) == Cluster(
        ("http://127.0.0.1:2379",), "home", "http://gw-a:18789", 15, 10, 2, None, None, None, None, None
    )  # fmt: skip


def test_the_kernels_end_is_between_the_deadline_and_the_lease(home: Home) -> None:
    assert home.cluster(PLAIN).kill_s == pytest.approx(12)


def test_etcds_port_is_the_default_and_each_endpoint_counts_once(home: Home) -> None:
    urls = ["http://127.0.0.1", "http://127.0.0.1:2379/", "http://[::1]", "http://LOCALHOST:1"]
    found = home.cluster(PLAIN | {"endpoints": urls}).endpoints
    assert found == ("http://127.0.0.1:2379", "http://[::1]:2379", "http://localhost:1")


@pytest.mark.parametrize(
    ("gateway", "url"),
    [
        ({"bind": "lan", "port": 1234}, "http://gw-a:1234"),
        ({"bind": "custom", "customBindHost": "192.0.2.7"}, "http://192.0.2.7:18789"),
        ({"bind": "custom", "customBindHost": "2001:db8::7"}, "http://[2001:db8::7]:18789"),
        ({"tls": {"enabled": True}}, "https://gw-a:18789"),
    ],
)
def test_its_own_url_is_what_the_settings_say(home: Home, gateway: Any, url: str) -> None:
    assert home.cluster(PLAIN, gateway=gateway).url == url
    assert home.cluster(PLAIN | {"url": "https://x.org"}, gateway=gateway).url == "https://x.org"


def test_paths_are_absolute(home: Home) -> None:
    found = home.cluster(SAFE | {"caPath": "~/ca", "certPath": "/c", "keyPath": "/k"})
    assert found[-3:] == (f"{home.path}/ca", "/c", "/k")


TIMES = {"leaseMs": 15000, "renewDeadlineMs": 10000, "retryMs": 2000}


@pytest.mark.parametrize(
    ("cluster", "text"),
    [
        ({}, "cluster: names no etcd"),
        (7, "cluster: must be an object"),
        ({"name": "x"}, "cluster: names no etcd"),
        (PLAIN | {"endpoints": []}, "cluster: names no etcd"),
        ({"endpoints": PLAIN["endpoints"]}, "cluster: has no name"),
        (PLAIN | {"name": "a/b"}, 'cluster.name: must be letters, digits, ., _ and -, at most 64'),
        (PLAIN | {"name": ""}, "cluster.name: must be letters"),
        (PLAIN | {"name": "a" * 65}, "cluster.name: must be letters"),
        (PLAIN | {"name": "_a"}, "cluster.name: must be letters"),
        (PLAIN | {"endpoints": "http://x"}, "cluster.endpoints: must be a list of strings"),
        (PLAIN | {"endpoints": ["etcd:2379"]}, "cluster.endpoints: must be a list of URLs such as"),
        (PLAIN | {"endpoints": ["ftp://x"]}, "cluster.endpoints: must be a list of URLs such as"),
        (PLAIN | {"endpoints": ["http://x/v3"]}, "cluster.endpoints: must be a list of URLs such"),
        (PLAIN | {"endpoints": ["http://x:0"]}, "cluster.endpoints: must be a list of URLs such as"),
        (PLAIN | {"endpoints": ["http://x:65536"]}, "cluster.endpoints: must be a list of URLs"),
        (PLAIN | {"endpoints": ["http://[x]:1"]}, "cluster.endpoints: must be a list of URLs such"),
        (PLAIN | {"endpoints": ["http://a b"]}, "cluster.endpoints: must be a list of URLs such as"),
        (
            SAFE | {"endpoints": ["http://127.0.0.1", "https://x"]},
            "cluster.endpoints: are http and https at once",
        ),
        (
            {"name": "x", "endpoints": ["https://x"]},
            "cluster.endpoints: are https, and nothing says who signed etcd's certificates",
        ),
        (PLAIN | {"caPath": "/x"}, "cluster.caPath: is set, but the endpoints are http"),
        (SAFE | {"certPath": "/x"}, "cluster.certPath: is set without cluster.keyPath"),
        (SAFE | {"keyPath": "/x"}, "cluster.keyPath: is set without cluster.certPath"),
        (PLAIN | {"user": "u"}, "cluster.user: is set, but there is no password"),
        (PLAIN | {"user": "u", "password": 7}, "cluster.password: must be a string"),
        (PLAIN | {"url": "ws://x"}, 'cluster.url: must be a URL such as'),
        (PLAIN | {"url": 7}, "cluster.url: must be a URL such as"),
        (
            PLAIN | TIMES | {"renewDeadlineMs": 10501},
            "cluster.renewDeadlineMs: leaves no time to stop: renewDeadlineMs (10501) must be at "
            "most 10500, 7/10 of leaseMs (15000)",
        ),
        (PLAIN | {"leaseMs": 9000}, "cluster.leaseMs: leaves no time to stop"),
        (
            PLAIN | TIMES | {"retryMs": 5001},
            "cluster.retryMs: leaves no second chance: retryMs (5001) must be at most 5000, half "
            "of renewDeadlineMs (10000)",
        ),
        (PLAIN | {"renewDeadlineMs": 3000}, "cluster.renewDeadlineMs: leaves no second chance"),
        (PLAIN | {"leaseMs": 999}, "cluster.leaseMs: must be milliseconds, 1000 to 3600000, not 999"),
        (PLAIN | {"leasMs": 15000}, 'cluster.leasMs: is no setting; did you mean "cluster.leaseMs"?'),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(home: Home, cluster: Any, text: str) -> None:
    error = home.problem(cluster)
    assert text in str(error)
    assert error.source == str(home.own)
    assert error.exit_code == ExitCode.CONFIG


@pytest.mark.parametrize("cluster", [{}, 7, {"name": "x"}, {"endpoint": ["http://x"], "name": "x"}])
def test_a_guard_does_not_start_without_the_cluster_that_was_asked_for(
    home: Home, cluster: Any
) -> None:
    assert "cluster: names no etcd" in str(home.problem(cluster, serves=False))


@pytest.mark.parametrize("urls", [["http://root:s3cret@x:2379"], ["http://a", "http://s3cret@b"]])
def test_password_in_a_url_is_refused_and_not_shown(home: Home, urls: list[str]) -> None:
    text = str(home.problem(PLAIN | {"endpoints": urls}))
    assert "without paths, users and passwords" in text
    assert "s3cret" not in text
    assert "s3cret" not in str(home.problem(PLAIN | {"url": urls[-1]}))


def test_password_may_stand_in_the_file(home: Home) -> None:
    assert home.cluster(PLAIN | {"user": "u", "password": " s3cret "}).password == "s3cret"


def test_password_may_come_from_a_variable(home: Home) -> None:
    user = PLAIN | {"user": "u"}
    variable = {"OPENCLAW_GATEWAY_CLUSTER_PASSWORD": "one"}
    assert home.cluster(user, **variable).password == "one"
    assert home.cluster(user | {"password": "$OTHER"}, OTHER="two", **variable).password == "two"
    reference = {"source": "env", "provider": "default", "id": "OTHER"}
    assert home.cluster(user | {"password": reference}, OTHER="two").password == "two"


def test_password_may_be_a_private_file(home: Home) -> None:
    file = home.path / "password"
    file.write_text("s3cret\n")
    file.chmod(0o600)
    user = PLAIN | {"user": "u", "password": "another"}
    assert home.cluster(user | {"passwordPath": "~/password"}).password == "s3cret"
    file.chmod(0o644)
    problem = home.problem(user | {"passwordPath": str(file)})
    assert f"{file} is open to others (mode 0644)" in str(problem)
    assert problem.hint == f"chmod 600 {file}"


def test_credential_goes_before_all(home: Home) -> None:
    file = home.path / "openclaw-gateway.cluster-password"
    file.write_text("s3cret")
    user = PLAIN | {"user": "u", "passwordPath": "/nowhere"}
    assert home.cluster(user, CREDENTIALS_DIRECTORY=str(home.path)).password == "s3cret"


def test_password_that_everyone_may_read_is_told(home: Home) -> None:
    home.examine(PLAIN | {"user": "u", "password": "s3cret"})
    home.own.chmod(0o644)
    warnings = examine({}, {"HOME": str(home.path)}).warnings
    assert (
        f"{home.own}: everyone may read cluster.password in it (mode 0644): chmod 600" in warnings
    )


def test_password_is_not_read_where_nobody_is_to_be_authenticated(home: Home) -> None:
    found = home.examine(PLAIN | {"passwordPath": "/nowhere"})
    assert found.settings is not None
    assert any("has no effect without cluster.user" in warning for warning in found.warnings)


@pytest.mark.parametrize(("user", "what"), [({}, "the record"), ({"user": "u"}, "etcd's password")])
def test_what_goes_over_the_net_in_the_clear_is_told(
    home: Home, user: dict[str, str], what: str
) -> None:
    remote = PLAIN | {"endpoints": ["http://etcd-a"]} | user
    found = home.examine(remote, OPENCLAW_GATEWAY_CLUSTER_PASSWORD="x")
    assert any(f"{what} goes to http://etcd-a:2379 in the clear" in w for w in found.warnings)
    near = home.examine(PLAIN | user, OPENCLAW_GATEWAY_CLUSTER_PASSWORD="x")
    assert near.warnings == ()


def test_in_openclaws_file_it_counts_and_is_told_where_it_belongs(home: Home) -> None:
    """OpenClaw itself would not start; one active gateway too many would be worse than a warning."""
    found = home.examine(None, gateway={"cluster": PLAIN})
    assert found.settings is not None
    assert found.settings.cluster is not None
    assert any("belongs into" in w and "as cluster.name" in w for w in found.warnings)


@pytest.mark.parametrize("cluster", [PLAIN, SAFE, SAFE | TIMES | {"user": "u", "password": "x"}])
def test_schema_takes_what_the_code_takes(home: Home, cluster: Any) -> None:
    jsonschema.validate({"cluster": cluster}, SCHEMA)
    assert home.cluster(cluster).name == "home"
