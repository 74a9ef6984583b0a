"""Settings from the environment, and what is said of bad ones."""

import pytest

from retune.settings import Server, Settings, SettingsError


def test_nothing_set_gives_working_defaults() -> None:
    """The operator runs without configuration."""
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert settings.defaults.artifact_store == "pvc://retune-artifacts"


def test_every_setting_is_read_from_its_variable() -> None:
    """Types follow the field: lists by comma, numbers as numbers, empty context as none."""
    settings = Settings.from_environment(
        {
            "RETUNE_OPTIMIZER_IMAGE": "registry.example/optimizer@sha256:ab",
            "RETUNE_NAMESPACES": "ml, serving,",
            "RETUNE_WORKERS": "12",
            "RETUNE_RESYNC_SECONDS": "90.5",
            "RETUNE_ARTIFACT_STORE": "",
            "RETUNE_KUBECONTEXT": "",
            "UNRELATED": "x",
        }
    )
    assert settings.optimizer_image == "registry.example/optimizer@sha256:ab"
    assert settings.namespaces == ("ml", "serving")
    assert (settings.workers, settings.resync_seconds, settings.kubecontext) == (12, 90.5, None)
    assert settings.defaults.artifact_store is None


@pytest.mark.parametrize("store", ["s3://bucket", "gs://bucket/retune/", "az://container/retune"])
def test_a_default_store_in_a_bucket_may_have_a_secret(store: str) -> None:
    """Without one, Jobs are known by their service account."""
    with_secret = {"RETUNE_ARTIFACT_STORE": store, "RETUNE_ARTIFACT_STORE_CREDENTIALS": "retune-store"}
    settings = Settings.from_environment(with_secret)
    assert (settings.defaults.artifact_store, settings.artifact_store_credentials) == (store, "retune-store")
    assert Settings.from_environment({"RETUNE_ARTIFACT_STORE": store}).artifact_store_credentials == ""


@pytest.mark.parametrize(
    "variable,value,says",
    [
        ("RETUNE_WORKERS", "many", "RETUNE_WORKERS is 'many': give a whole number"),
        ("RETUNE_WORKERS", "0", "RETUNE_WORKERS is 0: it must lie between 1 and 64"),
        ("RETUNE_RESYNC_SECONDS", "soon", "RETUNE_RESYNC_SECONDS is 'soon': give a number"),
        ("RETUNE_METRICS_PORT", "70000", "RETUNE_METRICS_PORT is 70000: it must lie between 0 and 65535"),
        ("RETUNE_IMAGE_PULL_POLICY", "Sometimes", "it must be one of Always, IfNotPresent, Never"),
        ("RETUNE_PRIVATE_ADDRESSES", "maybe", "it must be one of Allow, Refuse"),
        ("RETUNE_STORE_QUOTA", "much", "give a quantity of bytes, such as 20Gi"),
        ("RETUNE_STORE_QUOTA", "0Gi", "give a quantity of bytes, such as 20Gi"),
        (
            "RETUNE_ARTIFACT_STORE",
            "abfs://container/x",
            "an artifact store is pvc://CLAIM/PATH, s3://BUCKET/PATH, gs://",
        ),
        ("RETUNE_ARTIFACT_STORE", "retune-artifacts", "an artifact store is pvc://CLAIM/PATH"),
        ("RETUNE_ARTIFACT_STORE_CREDENTIALS", "My Secret", "a name has lower-case letters"),
        ("RETUNE_ARTIFACT_STORE_CREDENTIALS", "secret", "is for a store in a bucket only"),
        ("RETUNE_PROMETHEUS", "main", "give name=value, and each name once"),
        ("RETUNE_PROMETHEUS", "a=http://h,a=http://i", "each name once"),
        ("RETUNE_PROMETHEUS", "Main=http://h", "give name=value"),
        ("RETUNE_PROMETHEUS", "main=ftp://h", "give https://host:port"),
        ("RETUNE_PROMETHEUS", "main=http://user:secret@h", "give https://host:port"),
        ("RETUNE_PROMETHEUS", "main=http://h:99999", "give https://host:port"),
        ("RETUNE_PROMETHEUS", "main=http://", "give https://host:port"),
        ("RETUNE_PROMETHEUS", "main=http://h", "nobody may ask server main"),
        ("RETUNE_PROMETHEUS_TOKENS", "main=/token", "for a server of RETUNE_PROMETHEUS"),
        ("RETUNE_LOG_LEVEL", "LOUD", "it must be one of DEBUG, INFO, WARNING, ERROR"),
    ],
)
def test_a_bad_value_is_refused_with_the_variable_and_what_it_may_be(variable: str, value: str, says: str) -> None:
    """The error says what is wrong, where, and what would be right."""
    with pytest.raises(SettingsError) as error:
        Settings.from_environment({variable: value})
    assert says in str(error.value)
    assert variable in str(error.value)


def test_prometheus_servers_are_named_and_may_have_tokens() -> None:
    """A path in front is kept, a slash at the end is not."""
    settings = Settings.from_environment(
        {
            "RETUNE_PROMETHEUS": "main=https://prometheus.monitoring:9090/prom/,edge=http://10.0.0.7:9090",
            "RETUNE_PROMETHEUS_TOKENS": "main=/etc/retune/prometheus/main/token",
            "RETUNE_PROMETHEUS_NAMESPACES": "main=ml team-a",
            "RETUNE_PROMETHEUS_PARAMETERS": "edge=namespace",
        }
    )
    assert settings.servers == {
        "main": Server(
            "https://prometheus.monitoring:9090/prom", "/etc/retune/prometheus/main/token", ("ml", "team-a")
        ),
        "edge": Server("http://10.0.0.7:9090", parameter="namespace"),
    }
