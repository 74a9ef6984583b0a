"""Objects that the API server must accept or refuse, each with the field and the sentence a user reads."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tests import samples

Json = dict[str, Any]
KSERVE = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "name": "digits"}
KEY: Json = {"type": "ConfigMap", "configMap": {"name": "wanted", "key": "uri"}, "takeover": "Force"}
ANOTHER_PORT = KEY | {"configMap": {"name": "wanted", "key": "uri", "agentPort": 9090}}
REMOVED = object()
"""Value of a change that takes the field away."""


@dataclass(frozen=True)
class Case:
    """One change of the sample; `says` is None where it must be accepted.

    at: path of the refused field, as the server writes it. before: changes of the object that it updates, if it does.
    """

    name: str
    changes: Mapping[str, Any]
    says: str | None = None
    at: str = ""
    before: Mapping[str, Any] | None = field(default=None)

    def document(self) -> Json:
        """The object to send."""
        return changed(self.changes)


def changed(changes: Mapping[str, Any]) -> Json:
    """The sample with values set or removed by dotted path."""
    document = samples.manifest()
    for path, value in changes.items():
        *parents, last = path.split(".")
        node = document
        for parent in parents:
            node = node.setdefault(parent, {})
        if value is REMOVED:
            del node[last]
        else:
            node[last] = value
    return document


def refused(name: str, path: str, value: Any, says: str, *, at: str | None = None, **more: Any) -> Case:
    """A case that changes one field, which is also the field refused."""
    return Case(name, {path: value, **more.pop("also", {})}, says, at=path if at is None else at, **more)


def constraint(value: Any, kind: str = "MaxDegradation", metric: str = "accuracy", **more: Any) -> list[Json]:
    """Objectives with one goal."""
    goal = {"type": kind, "value": value}
    return [
        {"metric": metric, "role": "Constrain", "goal": goal} | more,
        {"metric": "size_bytes" if metric != "size_bytes" else "accuracy"},
    ]


def by_route(**ref: str) -> Json:
    """Traffic by an HTTPRoute."""
    return {"kind": "HTTPRoute", "route": {"name": "digits"} | ref}


def testers(name: str, value: str) -> Json:
    """Testers who are told by a header."""
    return {"header": {"name": name, "value": value}}


def technique(**more: Any) -> list[Json]:
    """One technique."""
    return [{"name": "quant", "type": "Quantization"} | more]


SETTINGS = {
    "tuning": "HyperparameterTuning",
    "architecture": "Architecture",
    "preparation": "DataPreparation",
    "augmentation": "Augmentation",
    "adversarial": "AdversarialTraining",
    "distillation": "Distillation",
    "factorization": "Factorization",
    "pruning": "Pruning",
    "graph": "GraphOptimization",
    "quantization": "Quantization",
    "recalibration": "Recalibration",
}
"""Field of a technique's settings to the type it belongs to."""

CONTAINER = {"image": "registry.example/train:1", "command": ["train"]}
"""A training container of the user's own."""

PARAMETERS = {
    "tuning": "HyperparameterTuning",
    "architecture": "Architecture",
    "distillation": "Distillation",
    "container": "CustomTraining",
}
"""Fields of settings with parameters to search."""

DATASETS = ("training", "validation", "test", "calibration")
FILE_URI = "a file's URI is pvc://CLAIM/PATH"
DIGEST = "a digest is sha256: followed by 64 lower-case hexadecimal digits"
DECIMAL = 'a decimal is a quoted string such as "0.01" or "20"'
WATCHED_AND_ASKED: Json = {
    "spec.monitoring": {"production": {"uri": "pvc://digits/captured"}},
    "spec.target.inference": {"port": 8080, "modelName": "digits"},
}
"""What a shadow needs."""
DURATION = "a duration is written with units, such as 90s, 10m or 1h30m"
CPU = 'a CPU quantity is written like "2", "0.5" or "500m"'
MEMORY = 'a memory quantity is written like "512Mi" or "4Gi"'
LONG = "Too long: may not be more than"

NUMBER_FIELDS = {
    "adversarial": ("AdversarialTraining", "epsilon"),
    "pruning": ("Pruning", "maxRatio"),
}
METRIC_OF_TASK = "an objective's quality metric must fit model.task"
FACTORY = "a factory is named package.module:callable"
ARGUMENT = "an argument's name has letters, digits and _"


def _of_parameter(field: str, kind: str) -> tuple[Case, ...]:
    """What is wrong with a parameter, in one of the places that have some."""
    at = f"spec.techniques[0].{field}.parameters[0]"

    def bad(fault: str, says: str, *, under: str = "", **parameter: Any) -> Case:
        needed = CONTAINER if field == "container" else {}
        settings = {field: {**needed, "parameters": [{"name": "depth"} | parameter]}}
        return refused(f"{fault} in {field}", "spec.techniques", technique(type=kind, **settings), says, at=at + under)

    return (
        bad("neither values nor range", "a parameter has either values, or min and max"),
        bad("half a range", "a parameter has either values, or min and max", min="1"),
        bad("a range turned round", "min must not exceed max", min="2", max="1"),
        bad("a logarithm of zero", "a logarithmic scale needs a min above 0", min="0", max="1", log=True),
        bad(
            "a name with a dash",
            "a parameter's name has letters, digits and _",
            under=".name",
            name="max-depth",
            values=["1"],
        ),
        bad("a least in words", DECIMAL, under=".min", min="one", max="2"),
        bad("a most in words", DECIMAL, under=".max", min="1", max="two"),
    )


ARGUMENTS: Json = {"arguments": [{"name": "least", "value": "0.5"}]}
CODE: Json = {"entryPoint": "shop.quality:iou", **ARGUMENTS}
EITHER = "customMetric has either entryPoint, code in the Job's image, or container, an image of your own"
COST = {"actual": "fraud", "predicted": "fine", "cost": "20"}

_AMOUNTS: tuple[tuple[str, Json, str, str], ...] = (
    (
        "more CPU than allowed",
        {"requests": {"cpu": "2"}, "limits": {"cpu": "1"}},
        "requests.cpu must not exceed limits.cpu",
        "",
    ),
    (
        "more memory than allowed",
        {"requests": {"memory": "2Gi"}, "limits": {"memory": "1Gi"}},
        "requests.memory must not exceed limits.memory",
        "",
    ),
    ("no CPU", {"limits": {"cpu": "0"}}, "limits.cpu must be above zero", ".limits.cpu"),
    ("no memory", {"limits": {"memory": "0Gi"}}, "limits.memory must be above zero", ".limits.memory"),
    ("CPU in words", {"requests": {"cpu": "two"}}, CPU, ".requests.cpu"),
    ("CPU in words as limit", {"limits": {"cpu": "two"}}, CPU, ".limits.cpu"),
    ("memory in MB", {"requests": {"memory": "1MB"}}, MEMORY, ".requests.memory"),
    ("memory in MB as limit", {"limits": {"memory": "1MB"}}, MEMORY, ".limits.memory"),
)
"""Resources that are wrong: what is, the sentence, and where below."""

ACCEPTED = (
    Case("the smallest useful object", {}),
    Case("no training data", {"spec.data.training": REMOVED}),
    Case("only watching needs no test data", {"spec.mode": "ObserveOnly", "spec.data.test": REMOVED}),
    Case("a name of forty characters", {"metadata.name": "a" * 40}),
    Case("what Git merges", {"spec.mode": "Propose", "spec.rollout": {"bakeTime": "5m"}}),
    Case("a digest", {"spec.model.digest": samples.DIGEST}),
    Case("batches of two sizes", {"spec.serving.batches": [{"size": 1, "weight": "0.9"}, {"size": 32}]}),
    Case(
        "every objective",
        {
            "spec.objectives": [
                *constraint("0.5", "PercentMaxDegradation"),
                {"metric": "latency_p95_ms", "tolerance": "0.1"},
            ]
        },
    ),
    Case("a threshold in bytes", {"spec.objectives": constraint("1000000", "Threshold", "size_bytes")}),
    Case("an exact margin", {"spec.objectives": constraint("0")}),
    *(
        Case(f"quality by {metric}", {"spec.objectives": constraint("0.01", metric=metric)})
        for metric in ("f1_macro", "roc_auc", "log_loss", "d2_brier_score", "top_5_accuracy", "ndcg@10", "fidelity")
    ),
    *(
        Case(
            f"quality of numbers by {metric}",
            {"spec.model.task": "Regression", "spec.objectives": constraint("0.01", metric=metric)},
        )
        for metric in ("r2", "mape", "pinball@0.9", "mrr")
    ),
    Case(
        "outputs, classes and threshold in words",
        {
            "spec.model.outputs": {"scores": "logits", "scale": "Logits"},
            "spec.model.classes": ["ham", "spam"],
            "spec.model.threshold": "0.3",
            "spec.model.positiveLabel": "spam",
            "spec.data.test.groupColumn": "user",
            "spec.data.test.weightColumn": "exposure",
        },
    ),
    Case(
        "costs of mistakes, as a limit and as what is optimized",
        {
            "spec.model.costs": [
                {"actual": "fraud", "predicted": "fine", "cost": "20"},
                {"actual": "fine", "predicted": "fraud", "cost": "0.5"},
            ],
            "spec.objectives": [{"metric": "expected_cost", "goal": {"type": "PercentMaxDegradation", "value": "5"}}],
        },
    ),
    Case("a metric by code that no objective names", {"spec.model.customMetric": CODE}),
    Case(
        "a metric by a container",
        {"spec.model.customMetric": {"container": {**CONTAINER, "resources": {"limits": {"cpu": "2"}}}, **ARGUMENTS}},
    ),
    Case(
        "the longest command that measures",
        {"spec.model.customMetric": {"container": {**CONTAINER, "command": ["a" * 4096] * 16}}},
    ),
    *(
        Case(
            f"quality by {metric} of task {task}",
            {
                "spec.model.task": task,
                "spec.model.customMetric": CODE,
                "spec.objectives": [{"metric": metric, "goal": {"type": "Threshold", "value": "0.5"}}],
            },
        )
        for metric, task in (("custom", "Embedding"), ("custom_loss", "Regression"))
    ),
    Case("costs of mistakes without a metric by them", {"spec.model.costs": [COST]}),
    Case(
        "static quantization with training data", {"spec.techniques": technique(quantization={"schemes": ["Static"]})}
    ),
    Case(
        "every scheme of quantization with training data",
        {"spec.techniques": technique(quantization={"schemes": ["Static", "Dynamic", "WeightOnly", "Half", "Aware"]})},
    ),
    Case(
        "a student that learns answers alone",
        {"spec.techniques": technique(type="Distillation", distillation={"features": "Never"})},
    ),
    Case(
        "separable convolutions alone",
        {
            "spec.techniques": technique(
                type="Factorization", factorization={"forms": ["Separable"], "shares": ["0.25", "1"]}
            )
        },
    ),
    Case(
        "every form of factorization",
        {
            "spec.techniques": technique(
                type="Factorization", factorization={"forms": ["LowRank", "Separable", "Tables", "Hashed"]}
            )
        },
    ),
    Case(
        "static quantization with calibration data",
        {
            "spec.techniques": technique(),
            "spec.data.training": REMOVED,
            "spec.data.calibration": {"uri": "pvc://data/c.npz"},
        },
    ),
    Case(
        "dynamic quantization without training data",
        {"spec.techniques": technique(quantization={"schemes": ["Dynamic"]}), "spec.data.training": REMOVED},
    ),
    Case(
        "quantization by default without training data", {"spec.techniques": technique(), "spec.data.training": REMOVED}
    ),
    Case("an object store", {"spec.model.uri": "s3://models/digits/model.onnx"}),
    Case("a model in MLflow by its alias", {"spec.model.uri": "mlflow://my%20net.v2@champion"}),
    Case("a registry", {"spec.registry": {"uri": "mlflow://my%20net.v2"}}),
    Case("a repository of images", {"spec.registry": {"uri": "oci://registry.example.org:5000/ml/my_net-2"}}),
    Case(
        "a registry with all that can be said, of a model that is delivered there too",
        {
            "spec.registry": {
                "uri": "mlflow://digits",
                "aliases": {"challenger": "next", "champion": "live"},
                "experiment": "/teams/vision/digits",
                "credentials": {"secretName": "mlflow"},
            },
            "spec.model.uri": "mlflow://digits@champion",
        },
    ),
    Case("a version in MLflow", {"spec.model.uri": "mlflow://digits/12"}),
    Case("a folder", {"spec.model.uri": "pvc://models/bert", "spec.model.format": "HuggingFace"}),
    Case("a folder with a slash", {"spec.model.uri": "s3://models/bert/", "spec.model.format": "HuggingFace"}),
    Case("a web server", {"spec.data.test.uri": "https://data.example:8443/digits/test.npz"}),
    Case(
        "weights and their factory",
        {
            "spec.model": {
                "uri": "pvc://models/digits.safetensors",
                "format": "SafeTensors",
                "factory": {"entryPoint": "shop.nets:build", "arguments": [{"name": "width", "value": "64"}]},
            }
        },
    ),
    Case(
        "weights of torch.save and their factory",
        {
            "spec.model": {
                "uri": "pvc://models/digits.pth",
                "format": "StateDict",
                "factory": {"entryPoint": "shop.nets:build"},
            }
        },
    ),
    *(
        Case(f"boosted trees of {library}", {"spec.model.format": library})
        for library in ("XGBoost", "LightGBM", "CatBoost")
    ),
    Case("a pickle that is trusted", {"spec.model.format": "Pickle", "spec.model.trust": "RunsCodeFromFile"}),
    Case(
        "a regression with its own metric",
        {"spec.model.task": "Regression", "spec.objectives": constraint("0.5", metric="rmse")},
    ),
    Case("an embedding by its defaults", {"spec.model.task": "Embedding"}),
    Case("a generic model by its defaults", {"spec.model.task": "Generic"}),
    Case("delivered models that go live", {"spec.rollout": {"deliveredModel": "GoesLive"}}),
    Case(
        "delivered embeddings that go live by the owner's own metric",
        {
            "spec.rollout": {"deliveredModel": "GoesLive"},
            "spec.model.task": "Embedding",
            "spec.model.customMetric": CODE,
            "spec.objectives": [{"metric": "custom"}],
        },
    ),
    Case("rows with times", {"spec.data.test.timeColumn": "when"}),
    Case("several label columns", {"spec.data.validation.labelColumns": ["h1", "h2"]}),
    Case("a setting that the data lacks", {"spec.model.inputs": [{"name": "sr", "value": "16000"}]}),
    Case(
        "several labels a row, from a probability on",
        {
            "spec.model.task": "MultiLabel",
            "spec.model.threshold": "0.3",
            "spec.objectives": constraint("0.1", metric="hamming_loss"),
        },
    ),
    Case("the smallest scratch folder", {"spec.execution.scratchSize": "64Mi"}),
    Case("the largest scratch folder", {"spec.execution.scratchSize": "1Ti"}),
    Case(
        "the longest command",
        {"spec.techniques": technique(type="CustomTraining", container={**CONTAINER, "command": ["a" * 4096] * 16})},
    ),
    Case(
        "every technique",
        {"spec.techniques": [{"name": kind.lower(), "type": kind, field: {}} for field, kind in SETTINGS.items()]},
    ),
    Case(
        "a training container",
        {
            "spec.techniques": [
                {"name": "mine", "type": "CustomTraining", "container": {**CONTAINER, "timeout": "30m"}},
                *technique(),
            ]
        },
    ),
    Case(
        "parameters of every form",
        {
            "spec.techniques": technique(
                type="HyperparameterTuning",
                tuning={
                    "parameters": [
                        {"name": "learning_rate", "min": "0.0001", "max": "0.1", "log": True},
                        {"name": "classifier__max_depth", "min": "2", "max": "12", "integer": True},
                        {"name": "criterion", "values": ["gini", "entropy"]},
                    ]
                },
            )
        },
    ),
    Case("budgets", {"spec.search": {"maxDuration": "20m", "maxCpuHours": "1.5", "sampler": "NSGAIII"}}),
    Case(
        "an edge device",
        {"spec.serving": {"profile": "EdgeCPU", "cores": 2, "memory": "512Mi", "engines": ["ONNXRuntime", "OpenVINO"]}},
    ),
    Case("a server of others", {"spec.serving": {"runtime": "Triton", "engineVersion": "1.20"}}),
    Case(
        "the image of a server of others",
        {"spec.serving": {"runtime": "Triton", "image": "registry.example/triton@sha256:" + "0" * 64}},
    ),
    Case(
        "OpenVINO Model Server",
        {"spec.serving": {"runtime": "OVMS", "engines": ["OpenVINO"], "engineVersion": "2025.4"}},
    ),
    Case("two techniques", {"spec.techniques": [*technique(), {"name": "graph", "type": "GraphOptimization"}]}),
    Case("as many workers as trials", {"spec.search": {"parallelism": 4, "maxTrials": 4}}),
    Case("a canary by default", {"spec.rollout.strategy": "Canary"}),
    Case(
        "a canary of its own",
        {
            "spec.rollout": {
                "strategy": "Canary",
                "canary": {
                    "steps": [
                        {"weight": 5, "hold": "0s", "minRequests": 0},
                        {"weight": 5},
                        {"weight": 99, "hold": "24h"},
                    ],
                    "traffic": {"kind": "Replicas", "maxSurge": 25, "overlap": "Allow"},
                    "evidenceTimeout": "168h",
                    "onEvidenceTimeout": "Proceed",
                },
                "analysis": {
                    "errorMargin": "0",
                    "slowMargin": "0.5",
                    "confidence": "0.9999",
                    "require": "ProvenNotWorse",
                },
            }
        },
    ),
    Case(
        "a canary with a shadow",
        {
            **WATCHED_AND_ASKED,
            "spec.rollout": {
                "strategy": "Canary",
                "canary": {"shadow": {}, "traffic": {"kind": "HTTPRoute", "route": {"name": "digits"}}},
            },
        },
    ),
    Case(
        "a canary by a route",
        {
            "spec.rollout": {
                "strategy": "Canary",
                "canary": {"traffic": {"kind": "HTTPRoute", "route": {"name": "digits.v2", "service": "digits"}}},
            }
        },
    ),
    Case(
        "a canary that testers see first",
        {
            "spec.rollout": {
                "strategy": "Canary",
                "canary": {
                    "steps": [{"weight": 0, "hold": "1h", "minRequests": 0}, {"weight": 10}],
                    "traffic": {
                        "kind": "HTTPRoute",
                        "route": {"name": "digits"},
                        "testers": {"header": {"name": "X-Tester!#$%&'*+-.^_`|~9", "value": 'team a; v="1"'}},
                    },
                },
            }
        },
    ),
    Case(
        "requests that are switched at once",
        {
            "spec.rollout": {
                "strategy": "BlueGreen",
                "blueGreen": {
                    "preview": "30m",
                    "keepOld": "168h",
                    "traffic": {"kind": "HTTPRoute", "route": {"name": "digits"}},
                },
            }
        },
    ),
    Case("a rejected version tried again", {"spec.rollout.retry": samples.DIGEST}),
    Case("a version by its number put back", {"spec.rollout.rollbackTo": 3}),
    Case("a version by its quoted number put back", {"spec.rollout.rollbackTo": "12"}),
    Case("a version by its digest put back", {"spec.rollout.rollbackTo": samples.DIGEST}),
    Case(
        "a version approved",
        {"spec.rollout": {"approval": "Manual", "approvedVersion": samples.DIGEST, "approvalTimeout": "24h"}},
    ),
    Case("a composed duration", {"spec.execution.runTimeout": "1h30m", "spec.rollout.bakeTime": "0s"}),
    Case(
        "resources in every form",
        {
            "spec.execution.resources": {
                "requests": {"cpu": "250m", "memory": "512Mi"},
                "limits": {"cpu": "0.5", "memory": "1.5Gi"},
            }
        },
    ),
    Case("only requests", {"spec.execution.resources.requests": {"cpu": "8", "memory": "16G"}}),
    Case("a toleration of everything", {"spec.execution.tolerations": [{"operator": "Exists"}]}),
    Case(
        "a toleration with a value",
        {"spec.execution.tolerations": [{"key": "gpu", "value": "no", "effect": "NoSchedule"}]},
    ),
    Case("a store that is a whole claim", {"spec.execution.artifactStore": "pvc://retune-artifacts"}),
    Case("a store below a claim", {"spec.execution.artifactStore": "pvc://artifacts/team-a/digits/"}),
    Case("a store that is a whole bucket", {"spec.execution.artifactStore": "s3://my-bucket.eu"}),
    Case("a store below a bucket", {"spec.execution.artifactStore": "gs://my_bucket/retune/team-a/"}),
    Case("a store below a container", {"spec.execution.artifactStore": "az://my-container/retune/team-a"}),
    Case("a queue", {"spec.execution.queueName": "ml-batch"}),
    Case(
        "credentials for a bucket",
        {"spec.execution.credentials.secretName": "bucket", "spec.model.uri": "s3://models/digits/model.onnx"},
    ),
    Case("golden requests", {"spec.target.inference": {"port": 9000, "modelName": "digits_v1.2"}}),
    Case(
        "a Rollout",
        {"spec.target.ref": {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "digits"}},
    ),
    Case("an InferenceService", {"spec.target": {"ref": KSERVE, "injection": {"type": "StorageUri"}}}),
    Case("a StatefulSet", {"spec.target.ref": {"kind": "StatefulSet", "name": "digits"}}),
    Case("a key of a ConfigMap", {"spec.target.injection": KEY}),
    Case(
        "a key of a ConfigMap for a StatefulSet, with an agent of its own port",
        {
            "spec.target": {
                "ref": {"kind": "StatefulSet", "name": "digits"},
                "injection": KEY | {"configMap": {"name": "wanted.v1", "key": "a_b-c.d", "agentPort": 9}},
            }
        },
    ),
    Case("another port of the agents", {"spec.target.injection": ANOTHER_PORT}, before={"spec.target.injection": KEY}),
    Case("another variable", {"spec.target.injection": {"name": "_MODEL", "takeover": "Force"}}),
    Case("pause and resume", {"spec.suspend": True}, before={}),
    Case("a new nonce", {"spec.manualNonce": "2026-07-01T10:00"}, before={"spec.manualNonce": "first"}),
    Case("another container of the same target", {"spec.target.container": "server"}, before={}),
)

_SHAPE = (
    refused("an unknown field", "spec.serch", {"maxTrials": 3}, 'unknown field "spec.serch"', at=""),
    refused("an unknown field deep down", "spec.search.trials", 3, 'unknown field "spec.search.trials"', at=""),
    refused("no model", "spec.model", REMOVED, "Required value"),
    refused(
        "a version of a registry that is followed",
        "spec.model.updatePolicy",
        "Follow",
        "a version in MLflow never changes: follow an alias",
        at="spec.model",
        also={"spec.model.uri": "mlflow://digits/3", "spec.monitoring": {"window": "1h"}},
    ),
    refused("no validation data", "spec.data.validation", REMOVED, "Required value"),
    refused("no target", "spec.target", REMOVED, "Required value"),
    refused("no name of the target", "spec.target.ref", {}, "Required value", at="spec.target.ref.name"),
    refused(
        "an unquoted margin",
        "spec.objectives",
        constraint(0.01),
        'must be of type string: "number"',
        at="spec.objectives[0].goal.value",
    ),
    refused("an unquoted gain", "spec.selection.minGain", 0.05, 'must be of type string: "number"'),
    refused("an unquoted CPU", "spec.execution.resources.limits.cpu", 2, 'must be of type string: "integer"'),
    refused("a duration as a number", "spec.rollout.bakeTime", 120, 'must be of type string: "integer"'),
    refused("a truth in words", "spec.suspend", "yes", 'must be of type boolean: "string"'),
    refused("a profile in capitals", "spec.execution.profile", "GPU", "a name has lower-case letters, digits and '-'"),
    refused("another mode", "spec.mode", "Auto", 'supported values: "Automatic", "Propose", "RecommendOnly"'),
    refused("another format", "spec.model.format", "Keras", 'supported values: "ONNX", "SafeTensors", "Skops"'),
    refused("another kind of target", "spec.target.ref.kind", "DaemonSet", 'supported values: "Deployment"'),
    refused(
        "another metric",
        "spec.objectives",
        [{"metric": "happiness"}],
        "supported values:",
        at="spec.objectives[0].metric",
    ),
    refused(
        "a metric twice",
        "spec.objectives",
        [{"metric": "accuracy"}, {"metric": "accuracy"}],
        "Duplicate value",
        at="spec.objectives[1]",
    ),
    refused(
        "a technique's name twice",
        "spec.techniques",
        technique() + technique(),
        "Duplicate value",
        at="spec.techniques[1]",
    ),
    refused(
        "a scheme twice",
        "spec.techniques",
        technique(quantization={"schemes": ["Static", "Static"]}),
        "Duplicate value",
        at="spec.techniques[0].quantization.schemes[1]",
    ),
    refused("another approval", "spec.rollout.approval", "Ask", 'supported values: "Automatic", "Manual"'),
    refused(
        "another strategy", "spec.rollout.strategy", "Magic", 'supported values: "RollingUpdate", "Canary", "BlueGreen"'
    ),
    refused(
        "another way to share requests",
        "spec.rollout.canary.traffic.kind",
        "Magic",
        'supported values: "Replicas", "HTTPRoute"',
    ),
    refused(
        "another word for overlaps",
        "spec.rollout.canary.traffic.overlap",
        "Yes",
        'supported values: "Refuse", "Allow"',
    ),
    refused(
        "another end of a wait for evidence",
        "spec.rollout.canary.onEvidenceTimeout",
        "Ask",
        'supported values: "Return", "Proceed"',
    ),
    refused(
        "another requirement of a canary",
        "spec.rollout.analysis.require",
        "Luck",
        'supported values: "NoHarmShown", "ProvenNotWorse"',
    ),
    refused(
        "another policy on deletion",
        "spec.deletionPolicy",
        "Delete",
        'supported values: "KeepChampion", "RestoreOriginal"',
    ),
)

_BOUNDS = (
    refused("a canary without a step", "spec.rollout.canary.steps", [], "should have at least 1 items"),
    refused("more steps than eight", "spec.rollout.canary.steps", [{"weight": 5}] * 9, "must have at most 8 items"),
    refused(
        "a weight of less than nothing",
        "spec.rollout.canary.steps",
        [{"weight": -1}],
        "should be greater than or equal to 0",
        at="spec.rollout.canary.steps[0].weight",
    ),
    refused(
        "a weight of all",
        "spec.rollout.canary.steps",
        [{"weight": 100}],
        "should be less than or equal to 99",
        at="spec.rollout.canary.steps[0].weight",
    ),
    refused(
        "fewer requests than none",
        "spec.rollout.canary.steps",
        [{"weight": 5, "minRequests": -1}],
        "should be greater than or equal to 0",
        at="spec.rollout.canary.steps[0].minRequests",
    ),
    refused("no surge", "spec.rollout.canary.traffic.maxSurge", 0, "should be greater than or equal to 1"),
    refused(
        "more pods than the target's",
        "spec.rollout.canary.traffic.maxSurge",
        101,
        "should be less than or equal to 100",
    ),
    refused("no trials", "spec.search.maxTrials", 0, "should be greater than or equal to 1"),
    refused("too many trials", "spec.search.maxTrials", 1001, "should be less than or equal to 1000"),
    refused(
        "too many workers",
        "spec.search.parallelism",
        65,
        "should be less than or equal to 64",
        also={"spec.search.maxTrials": 100},
    ),
    refused("no finalists", "spec.search.finalists", 0, "should be greater than or equal to 1"),
    refused("a negative seed", "spec.search.seed", -1, "should be greater than or equal to 0"),
    refused("no objectives", "spec.objectives", [], "should have at least 1 items"),
    refused("no techniques", "spec.techniques", [], "should have at least 1 items"),
    refused(
        "too few calibration rows",
        "spec.techniques",
        technique(quantization={"calibration": {"samples": 8}}),
        "should be greater than or equal to 16",
        at="spec.techniques[0].quantization.calibration.samples",
    ),
    refused(
        "a port that does not exist",
        "spec.target.inference",
        {"port": 70000, "modelName": "m"},
        "should be less than or equal to 65535",
        at="spec.target.inference.port",
    ),
    refused(
        "credentials without a name",
        "spec.execution.credentials",
        {},
        "Required value",
        at="spec.execution.credentials.secretName",
    ),
    refused("too many retries", "spec.execution.backoffLimit", 11, "should be less than or equal to 10"),
    refused("no history", "spec.history.successfulRuns", 0, "should be greater than or equal to 1"),
    refused("no version to go back to", "spec.history.versions", 0, "should be greater than or equal to 1"),
    refused("more versions than a status holds", "spec.history.versions", 9, "should be less than or equal to 8"),
    refused("an endless URI", "spec.model.uri", "pvc://data/" + "a" * 1100, LONG),
    refused("an endless nonce", "spec.manualNonce", "n" * 65, LONG),
    refused(
        "too many node labels",
        "spec.execution.nodeSelector",
        {f"k{n}": "v" for n in range(17)},
        "must have at most 16 items",
    ),
)

_WORDS = (
    *(
        refused(f"a path outside the claim in {name}", f"spec.data.{name}.uri", "pvc://data/../secret.npz", FILE_URI)
        for name in DATASETS
    ),
    *(
        refused(
            f"a short digest in {name}",
            f"spec.data.{name}.digest",
            "sha256:abc",
            DIGEST,
            also={f"spec.data.{name}.uri": f"pvc://elsewhere/{name}.npz"},
        )
        for name in DATASETS
    ),
    refused("another scheme", "spec.model.uri", "ftp://models/digits/model.onnx", FILE_URI),
    refused("a query in an address", "spec.model.uri", "https://models.example/model.onnx?token=1", FILE_URI),
    refused("a claim without a file", "spec.model.uri", "pvc://models", FILE_URI),
    *(
        refused(f"a model in MLflow as {uri!r}", "spec.model.uri", uri, "a model in MLflow is mlflow://NAME@ALIAS")
        for uri in ("mlflow://digits", "mlflow://digits@a/1", "mlflow://digits/latest", "mlflow://a/b@c")
    ),
    *(
        refused(f"a registry as {uri!r}", "spec.registry.uri", uri, "a registry is mlflow://NAME")
        for uri in (
            *("mlflow://digits@champion", "mlflow://digits/3", "mlflow://", "s3://models/digits", "digits"),
            *("oci://registry.example.org", "oci://registry.example.org/ml/digits:live", "oci://Registry.example/ml"),
        )
    ),
    refused(
        "an experiment of images",
        "spec.registry",
        {"uri": "oci://registry.example.org/ml/digits", "experiment": "digits"},
        "registry.experiment belongs to a registry in MLflow",
    ),
    *(
        refused(
            f"an alias {alias!r}",
            "spec.registry.aliases",
            {"champion": alias},
            "MLflow keeps latest, v1, v2",
            also={"spec.registry.uri": "mlflow://digits"},
        )
        for alias in ("latest", "Latest", "v3", "V12")
    ),
    refused(
        "one alias for two versions",
        "spec.registry.aliases",
        {"challenger": "champion"},
        "which one alias cannot name",
        also={"spec.registry.uri": "mlflow://digits"},
    ),
    *(
        refused(
            f"a {role} with a space",
            f"spec.registry.aliases.{role}",
            "the best",
            "an alias has letters, digits, _ and -",
            also={"spec.registry.uri": "mlflow://digits"},
        )
        for role in ("challenger", "champion")
    ),
    refused(
        "a registry's Secret in capitals",
        "spec.registry.credentials.secretName",
        "MLflow",
        "a name has lower-case letters",
        also={"spec.registry.uri": "mlflow://digits"},
    ),
    *(
        refused(
            f"a registry that would deliver its own {alias}",
            "spec.model.uri",
            f"mlflow://digits@{alias}",
            "model.uri reads what registry writes",
            at="spec",
            also={"spec.registry": {"uri": "mlflow://digits"}},
        )
        for alias in ("champion", "challenger", "latest")
    ),
    refused("rows in MLflow", "spec.data.validation.uri", "mlflow://digits/1", FILE_URI),
    refused("a digest in capitals", "spec.model.digest", samples.DIGEST.upper(), DIGEST),
    refused("a version by its number", "spec.rollout.retry", "2", DIGEST),
    *(
        refused(f"a rollback to {name!r}", "spec.rollout.rollbackTo", name, "a version is named by its number")
        for name in (0, -1, "v3", "3 ", samples.DIGEST[:-1])
    ),
    refused("an approval by a number", "spec.rollout.approvedVersion", "2", DIGEST),
    *(
        refused(
            f"a store at {uri[:40]}",
            "spec.execution.artifactStore",
            uri,
            "an artifact store is pvc://CLAIM/PATH, s3://BUCKET/PATH, gs://BUCKET/PATH or az://CONTAINER/PATH;",
        )
        for uri in (
            "https://x/y",
            "abfs://container/x",
            "az://account.blob.core.windows.net/container",
            "oci://registry.example/x",
            "hf://org/model",
            "mlflow://digits@champion",
            "file:///mnt/x",
            "s3://bucket:9000/x",
            "s3://bucket/../x",
            f"s3://bucket{'/a' * 7}",
        )
    ),
    refused(
        "a margin in words", "spec.objectives", constraint("one point"), DECIMAL, at="spec.objectives[0].goal.value"
    ),
    refused(
        "a margin in percent signs", "spec.objectives", constraint("1%"), DECIMAL, at="spec.objectives[0].goal.value"
    ),
    refused(
        "a tolerance with a comma",
        "spec.objectives",
        constraint("0.01", tolerance="0,05"),
        DECIMAL,
        at="spec.objectives[0].tolerance",
    ),
    refused("a gain in percent signs", "spec.selection.minGain", "5%", DECIMAL),
    refused("a confidence in scientific notation", "spec.selection.confidence", "9.5e-1", DECIMAL),
    *(
        refused(
            f"{number} in percent signs",
            "spec.techniques",
            technique(type=kind, **{field: {number: "10%"}}),
            DECIMAL,
            at=f"spec.techniques[0].{field}.{number}",
        )
        for field, (kind, number) in NUMBER_FIELDS.items()
    ),
    *(
        refused(
            f"{number} of a factorization in percent signs",
            "spec.techniques",
            technique(type="Factorization", factorization={number: ["50%"]}),
            DECIMAL,
            at=f"spec.techniques[0].factorization.{number}[0]",
        )
        for number in ("ranks", "shares")
    ),
    *(
        refused(f"{number} in words", f"spec.{number}", "some", DECIMAL)
        for number in ("search.maxCpuHours", "serving.wattsPerCpu", "serving.pricePerCpuHour")
    ),
    refused("days of search", "spec.search.maxDuration", "1d", DURATION),
    *(
        refused(f"a server and an engine that do not go together ({number})", "spec.serving", fields, words)
        for number, (fields, words) in enumerate(
            (
                ({"runtime": "OVMS"}, "OVMS computes with OpenVINO alone"),
                ({"runtime": "Triton", "engines": ["OpenVINO"]}, "leave it out of serving.engines"),
                ({"runtime": "KServe", "engines": ["OpenVINO", "TensorRT"]}, "serving.runtime KServe is one server"),
                ({"engines": ["OpenVINO", "TensorRT"], "engineVersion": "2025.4"}, "is that of one engine"),
                ({"runtime": "Triton", "engineVersion": "25.08"}, "is that of ONNX Runtime, 1.15 or later"),
                ({"engines": ["OpenVINO"], "engineVersion": "1.20"}, "is that of OpenVINO, 2023.0 or later"),
                ({"image": "registry.example/triton:1"}, "set serving.runtime to Triton, OVMS or KServe"),
                ({"runtime": "Custom", "image": "own:1"}, "set serving.runtime to Triton, OVMS or KServe"),
            )
        )
    ),
    refused(
        "a version in words", "spec.serving.engineVersion", "latest", "the version of an engine is a quoted string"
    ),
    refused("memory in MB to serve with", "spec.serving.memory", "512MB", MEMORY),
    refused(
        "a factory without a module",
        "spec.model.factory",
        {"entryPoint": "build"},
        FACTORY,
        at="spec.model.factory.entryPoint",
        also={"spec.model.format": "SafeTensors"},
    ),
    refused(
        "an argument with a dash",
        "spec.model.factory",
        {"entryPoint": "a:b", "arguments": [{"name": "a-b", "value": "1"}]},
        ARGUMENT,
        at="spec.model.factory.arguments[0].name",
        also={"spec.model.format": "SafeTensors"},
    ),
    refused(
        "a student without a module",
        "spec.techniques",
        technique(type="Distillation", distillation={"student": {"entryPoint": "build"}}),
        FACTORY,
        at="spec.techniques[0].distillation.student.entryPoint",
    ),
    refused(
        "an argument of a student with a dash",
        "spec.techniques",
        technique(
            type="Distillation",
            distillation={"student": {"entryPoint": "a:b", "arguments": [{"name": "a-b", "value": "1"}]}},
        ),
        ARGUMENT,
        at="spec.techniques[0].distillation.student.arguments[0].name",
    ),
    refused(
        "a technique named in capitals",
        "spec.techniques",
        technique(name="Quant"),
        "a technique's name has lower-case letters, digits and '-'",
        at="spec.techniques[0].name",
    ),
    refused(
        "a target named in capitals",
        "spec.target.ref.name",
        "Digits",
        "a name has lower-case letters, digits, '-' and '.'",
    ),
    refused(
        "a variable with a dash",
        "spec.target.injection.name",
        "MODEL-URI",
        "an environment variable's name has letters, digits and _",
    ),
    *(
        refused(
            f"the variable {name}",
            "spec.target.injection.name",
            name,
            "is a variable that loaders, interpreters or network libraries read",
        )
        for name in (
            "LD_PRELOAD",
            "ld_library_path",
            "PYTHONPATH",
            "PATH",
            "https_proxy",
            "JAVA_TOOL_OPTIONS",
            "BASH_ENV",
        )
    ),
    refused(
        "a model name that climbs", "spec.target.inference.modelName", "../admin", "a served model's name has letters"
    ),
    refused(
        "a Secret named in capitals",
        "spec.execution.credentials",
        {"secretName": "S3"},
        "a name has lower-case letters, digits, '-' and '.'",
        at="spec.execution.credentials.secretName",
    ),
    refused(
        "a route named in capitals",
        "spec.rollout.canary.traffic",
        {"kind": "HTTPRoute", "route": {"name": "Digits"}},
        "a name has lower-case letters, digits, '-' and '.'",
        at="spec.rollout.canary.traffic.route.name",
    ),
    refused(
        "a header's name with a colon",
        "spec.rollout.canary.traffic",
        {
            "kind": "HTTPRoute",
            "route": {"name": "digits"},
            "testers": {"header": {"name": ":authority", "value": "x"}},
        },
        "a header's name has letters, digits and",
        at="spec.rollout.canary.traffic.testers.header.name",
    ),
    refused(
        "a header's value with a blank at its end",
        "spec.rollout.canary.traffic",
        {"kind": "HTTPRoute", "route": {"name": "digits"}, "testers": {"header": {"name": "x", "value": "x "}}},
        "printable ASCII characters",
        at="spec.rollout.canary.traffic.testers.header.value",
    ),
    refused(
        "a Service with a dot",
        "spec.rollout.canary.traffic",
        {"kind": "HTTPRoute", "route": {"name": "digits", "service": "digits.ml"}},
        "a name has lower-case letters, digits and '-'",
        at="spec.rollout.canary.traffic.route.service",
    ),
    refused(
        "a queue with a slash",
        "spec.execution.queueName",
        "team/queue",
        "a name has lower-case letters, digits and '-'",
    ),
    *(
        refused(f"days in {path}", f"spec.{path}", "1d", DURATION)
        for path in (
            "execution.runTimeout",
            "execution.ttlAfterFinished",
            "rollout.progressDeadline",
            "rollout.bakeTime",
            "rollout.approvalTimeout",
            "rollout.canary.evidenceTimeout",
            "rollout.blueGreen.preview",
            "rollout.blueGreen.keepOld",
        )
    ),
    *(
        refused(f"a number for {field}", f"spec.rollout.analysis.{field}", "one percent", DECIMAL)
        for field in ("errorMargin", "slowMargin", "confidence")
    ),
    refused(
        "days of a canary",
        "spec.rollout.canary.steps",
        [{"weight": 5, "hold": "1d"}],
        DURATION,
        at="spec.rollout.canary.steps[0].hold",
    ),
    *(
        refused(f"CPU in words in {side}", f"spec.execution.resources.{side}.cpu", "two", CPU)
        for side in ("requests", "limits")
    ),
    *(
        refused(f"memory in MB in {side}", f"spec.execution.resources.{side}.memory", "512MB", MEMORY)
        for side in ("requests", "limits")
    ),
)

_TOGETHER = (
    refused(
        "a name of forty-one characters",
        "metadata.name",
        "a" * 41,
        "metadata.name must have at most 40 characters",
        at="",
    ),
    refused("a name with a dot", "metadata.name", "a.b", "and no dot: the names of Jobs are made from it", at=""),
    refused("no test data", "spec.data.test", REMOVED, "data.test is required unless mode is ObserveOnly", at="spec"),
    refused(
        "the search's data as test",
        "spec.data.test.uri",
        "pvc://data/digits/validation.npz",
        "data.test decides promotion and must not be the validation set",
        at="spec.data",
    ),
    refused(
        "the search's data as training",
        "spec.data.training.uri",
        "pvc://data/digits/validation.npz",
        "data.training must not be the validation set",
        at="spec.data",
    ),
    refused(
        "training on the test",
        "spec.data.training.uri",
        "pvc://data/digits/test.npz",
        "data.training must not be the test set",
        at="spec.data",
    ),
    refused(
        "calibrating on the test",
        "spec.data.calibration",
        {"uri": "pvc://data/digits/test.npz"},
        "data.calibration must not be the test set",
        at="spec.data",
    ),
    refused(
        "static quantization without data",
        "spec.techniques",
        technique(quantization={"schemes": ["Static"]}),
        "static quantization needs data.training or data.calibration",
        at="spec",
        also={"spec.data.training": REMOVED},
    ),
    refused(
        "quantization-aware training without data",
        "spec.techniques",
        technique(quantization={"schemes": ["Aware"]}),
        "quantization-aware training needs data.training",
        at="spec",
        also={"spec.data.training": REMOVED},
    ),
    *(
        refused(
            f"{kind} without data to train on",
            "spec.techniques",
            technique(type=kind),
            "techniques that train need data.training",
            at="spec",
            also={"spec.data.training": REMOVED},
        )
        for kind in ("HyperparameterTuning", "AdversarialTraining")
    ),
    refused(
        "a training container without data to train on",
        "spec.techniques",
        technique(type="CustomTraining", container=CONTAINER),
        "techniques that train need data.training",
        at="spec",
        also={"spec.data.training": REMOVED},
    ),
    refused(
        "custom training without a container",
        "spec.techniques",
        technique(type="CustomTraining"),
        "type CustomTraining needs container",
        at="spec.techniques[0]",
    ),
    refused(
        "a container of another technique",
        "spec.techniques",
        technique(container=CONTAINER),
        "container may only be set where type is CustomTraining",
        at="spec.techniques[0]",
    ),
    *(
        refused(
            f"custom training beside {kind}",
            "spec.techniques",
            [
                {"name": "mine", "type": "CustomTraining", "container": CONTAINER},
                {"name": "more", "type": kind, **more},
            ],
            "CustomTraining does all the training of a candidate",
        )
        for kind, more in (("Distillation", {}), ("CustomTraining", {"container": CONTAINER}))
    ),
    refused(
        "a program as command",
        "spec.techniques",
        technique(type="CustomTraining", container={**CONTAINER, "command": ["a" * 4096] * 17}),
        "container.command has at most 65536 characters altogether",
        at="spec.techniques[0].container.command",
    ),
    refused(
        "training for days",
        "spec.techniques",
        technique(type="CustomTraining", container={**CONTAINER, "timeout": "1d"}),
        DURATION,
        at="spec.techniques[0].container.timeout",
    ),
    *(
        refused(
            f"{what} of a training container",
            "spec.techniques",
            technique(type="CustomTraining", container={**CONTAINER, "resources": amounts}),
            says,
            at=f"spec.techniques[0].container.resources{under}",
        )
        for what, amounts, says, under in _AMOUNTS
    ),
    *(
        refused(
            f"{what} of a container that measures",
            "spec.model.customMetric",
            {"container": {**CONTAINER, "resources": amounts}},
            says,
            at=f"spec.model.customMetric.container.resources{under}",
        )
        for what, amounts, says, under in _AMOUNTS
    ),
    *(
        refused(
            f"{field} of another technique",
            "spec.techniques",
            technique(type="Quantization" if kind != "Quantization" else "Pruning", **{field: {}}),
            f"{field} may only be set where type is {kind}",
            at="spec.techniques[0]",
        )
        for field, kind in SETTINGS.items()
    ),
    refused(
        "accuracy of a regression",
        "spec.model.task",
        "Regression",
        METRIC_OF_TASK,
        at="spec",
        also={"spec.objectives": constraint("0.01")},
    ),
    refused(
        "an error of a classification", "spec.objectives", constraint("0.01", metric="rmse"), METRIC_OF_TASK, at="spec"
    ),
    *(
        refused(
            f"delivered models of task {task} that go live",
            "spec.model.task",
            task,
            "rollout.deliveredModel GoesLive compares two models by labels",
            at="spec",
            also={"spec.rollout": {"deliveredModel": "GoesLive"}},
        )
        for task in ("Embedding", "Generic")
    ),
    refused(
        "an order of a vector",
        "spec.model.task",
        "Embedding",
        METRIC_OF_TASK,
        at="spec",
        also={"spec.objectives": constraint("0.01", metric="mrr")},
    ),
    refused(
        "a threshold of a regression",
        "spec.model.threshold",
        "0.3",
        "threshold belongs to model.task Classification or MultiLabel",
        at="spec.model",
        also={"spec.model.task": "Regression"},
    ),
    refused(
        "a setting in words",
        "spec.model.inputs",
        [{"name": "sr", "value": "high"}],
        DECIMAL,
        at="spec.model.inputs[0].value",
    ),
    refused(
        "a positive label of several",
        "spec.model.positiveLabel",
        "spam",
        "positiveLabel, classes and costs belong to model.task Classification",
        at="spec.model",
        also={"spec.model.task": "MultiLabel"},
    ),
    refused(
        "the correlation of several labels",
        "spec.model.task",
        "MultiLabel",
        METRIC_OF_TASK,
        at="spec",
        also={"spec.objectives": constraint("0.01", metric="matthews_corrcoef")},
    ),
    refused(
        "a threshold in percent",
        "spec.model.threshold",
        "30",
        'model.threshold is a probability above 0 and below 1, such as "0.3"',
    ),
    refused(
        "a negative cost",
        "spec.model.costs",
        [COST | {"cost": "-1"}],
        "a cost is at least 0",
        at="spec.model.costs[0].cost",
    ),
    refused("a cost in words", "spec.model.costs", [COST | {"cost": "much"}], DECIMAL, at="spec.model.costs[0].cost"),
    refused("two costs of one mistake", "spec.model.costs", [COST, COST], "Duplicate value", at="spec.model.costs[1]"),
    refused(
        "costs of a regression",
        "spec.model.costs",
        [COST],
        "positiveLabel, classes and costs belong to model.task Classification",
        at="spec.model",
        also={"spec.model.task": "Regression"},
    ),
    refused(
        "a metric by code that is not there",
        "spec.objectives",
        [{"metric": "custom"}],
        "metrics custom and custom_loss need model.customMetric: the code that computes them",
        at="spec",
    ),
    refused(
        "an argument of code with a dash",
        "spec.model.customMetric",
        CODE | {"arguments": [{"name": "at-least", "value": "0.5"}]},
        "an argument's name has letters, digits and _, and does not start with a digit",
        at="spec.model.customMetric.arguments[0].name",
    ),
    refused(
        "one code that is better both ways",
        "spec.objectives",
        [{"metric": "custom"}, {"metric": "custom_loss"}],
        "model.customMetric is either metric custom, where more is better, or custom_loss, where less is",
        also={"spec.model.customMetric": CODE},
    ),
    refused("a metric by nothing", "spec.model.customMetric", ARGUMENTS, EITHER),
    refused("a metric by code and by a container", "spec.model.customMetric", {**CODE, "container": CONTAINER}, EITHER),
    refused(
        "a command that measures and is a program",
        "spec.model.customMetric",
        {"container": {**CONTAINER, "command": ["a" * 4096] * 17}},
        "container.command has at most 65536 characters altogether",
        at="spec.model.customMetric.container.command",
    ),
    refused(
        "code by its file",
        "spec.model.customMetric.entryPoint",
        "shop/quality.py",
        "a metric is named package.module:callable",
        at="spec.model.customMetric.entryPoint",
    ),
    refused("a threshold in words", "spec.model.threshold", "half", DECIMAL, at="spec.model.threshold"),
    refused("one class", "spec.model.classes", ["spam"], "should have at least 2 items"),
    refused(
        "another scale",
        "spec.model.outputs",
        {"scale": "Percent"},
        'supported values: "Probabilities", "Logits"',
        at="spec.model.outputs.scale",
    ),
    refused(
        "a folder of a format that is a file",
        "spec.model.uri",
        "pvc://models/digits/",
        "a uri with / at its end names a folder, and only format HuggingFace is one",
        at="spec.model",
    ),
    refused(
        "weights without a factory",
        "spec.model.format",
        "SafeTensors",
        "format SafeTensors holds weights only and needs model.factory",
        at="spec.model",
    ),
    refused(
        "a factory without weights",
        "spec.model.factory",
        {"entryPoint": "shop.nets:build"},
        "the other formats have none",
        at="spec.model",
    ),
    *(
        refused(
            f"{format_} without a word of trust",
            "spec.model.format",
            format_,
            "loading this format runs code from the file",
            at="spec.model",
        )
        for format_ in ("Joblib", "Pickle", "TorchScript", "TorchExport")
    ),
    refused(
        "a search of a second",
        "spec.search.maxDuration",
        "1s",
        "search.maxDuration must be at least 30s",
    ),
    refused("a search without CPU", "spec.search.maxCpuHours", "0", "search.maxCpuHours must be above 0"),
    refused(
        "a Gaussian process for a day",
        "spec.search",
        {"sampler": "GP", "maxTrials": 51},
        "search.sampler GP is too slow for more than 50 trials",
        at="spec.search",
    ),
    refused(
        "CMA-ES for two objectives",
        "spec.search.sampler",
        "CMAES",
        "search.sampler CMAES needs exactly one objective with role Optimize",
        at="spec",
    ),
    refused(
        "a machine that makes power",
        "spec.serving.wattsPerCpu",
        "-1",
        "serving.wattsPerCpu must not be negative",
    ),
    *(
        refused(
            f"label columns beside a label column of {split} data",
            f"spec.data.{split}",
            {"uri": f"pvc://models/{split}.npz", "labelColumn": "label", "labelColumns": ["h1", "h2"]},
            "give labelColumn or labelColumns, not both",
        )
        for split in ("training", "validation", "test", "calibration")
    ),
    refused(
        "batches beside a batch size",
        "spec.serving",
        {"batchSize": 8, "batches": [{"size": 1}]},
        "give serving.batchSize or serving.batches, not both",
        at="spec.serving",
    ),
    refused(
        "batches without any request of a size",
        "spec.serving.batches",
        [{"size": 8, "weight": "0.0"}, {"size": 1}],
        "serving.batches: a weight must be above 0",
        at="spec.serving.batches[0].weight",
    ),
    refused(
        "batches with a weight in words",
        "spec.serving.batches",
        [{"size": 8, "weight": "often"}],
        DECIMAL,
        at="spec.serving.batches[0].weight",
    ),
    refused(
        "batches of one size twice",
        "spec.serving.batches",
        [{"size": 8}, {"size": 8, "weight": "2"}],
        "Duplicate value",
        at="spec.serving.batches[1]",
    ),
    refused(
        "a machine that pays",
        "spec.serving.pricePerCpuHour",
        "-0.1",
        "serving.pricePerCpuHour must not be negative",
    ),
    *(case for place, kind in PARAMETERS.items() for case in _of_parameter(place, kind)),
    refused(
        "nothing to optimize",
        "spec.objectives",
        constraint("0.01")[:1],
        "at least one objective must have role Optimize",
        at="spec.objectives",
    ),
    refused(
        "a constraint without a limit",
        "spec.objectives",
        [{"metric": "accuracy", "role": "Constrain"}, {"metric": "size_bytes"}],
        "an objective with role Constrain needs a goal",
        at="spec.objectives[0]",
    ),
    refused(
        "a margin of one percent as 1.5",
        "spec.objectives",
        constraint("1.5"),
        'this metric is at most 1: write a margin of one point as "0.01"',
        at="spec.objectives[0]",
    ),
    refused(
        "a tolerance in percent",
        "spec.objectives",
        constraint("0.01", tolerance="5"),
        'tolerance is a fraction of at least 0 and below 1: write 5 % as "0.05"',
        at="spec.objectives[0].tolerance",
    ),
    refused(
        "least gain of 100 %",
        "spec.objectives",
        [{"metric": "accuracy", "minGain": "1"}],
        'minGain is a fraction of at least 0 and below 1: write 5 % as "0.05"',
        at="spec.objectives[0].minGain",
    ),
    refused(
        "least gain with a unit",
        "spec.objectives",
        [{"metric": "accuracy", "minGain": "5 %"}],
        "a decimal is a quoted string",
        at="spec.objectives[0].minGain",
    ),
    refused(
        "least gain of a limit",
        "spec.objectives",
        constraint("0.01", minGain="0.02"),
        "minGain belongs to an objective with role Optimize",
        at="spec.objectives[0]",
    ),
    refused(
        "a negative margin",
        "spec.objectives",
        constraint("-0.01"),
        "goal.value must not be negative",
        at="spec.objectives[0].goal.value",
    ),
    refused(
        "more than all of it",
        "spec.objectives",
        constraint("150", "PercentMaxDegradation", "size_bytes"),
        "is a percentage for this goal type and must not exceed 100",
        at="spec.objectives[0].goal",
    ),
    refused("a gain in percent", "spec.selection.minGain", "5", 'write 5 % as "0.05"'),
    refused("a confidence in percent", "spec.selection.confidence", "95", 'write 95 % as "0.95"'),
    refused(
        "more workers than trials",
        "spec.search",
        {"parallelism": 8, "maxTrials": 4},
        "search.parallelism must not exceed search.maxTrials",
    ),
    refused(
        "a Job without time",
        "spec.execution.runTimeout",
        "10s",
        "execution.runTimeout must lie between 1m and 168h",
    ),
    refused(
        "Jobs that go before they are read",
        "spec.execution.ttlAfterFinished",
        "1m",
        "execution.ttlAfterFinished must lie between 10m",
    ),
    *(
        refused(
            f"a scratch folder of {size}",
            "spec.execution.scratchSize",
            size,
            "execution.scratchSize must lie between 64Mi and 1Ti",
        )
        for size in ("1Mi", "2Ti")
    ),
    refused("a scratch folder in MB", "spec.execution.scratchSize", "512MB", MEMORY),
    refused(
        "a rollout without time",
        "spec.rollout.progressDeadline",
        "1s",
        "rollout.progressDeadline must lie between 10s and 24h",
    ),
    refused("baking for days", "spec.rollout.bakeTime", "48h", "rollout.bakeTime must not exceed 24h"),
    *(
        refused(
            f"waiting {time} for approval",
            "spec.rollout.approvalTimeout",
            time,
            "rollout.approvalTimeout must lie between 1m and 2160h",
        )
        for time in ("30s", "2161h")
    ),
    refused(
        "weeks of waiting for evidence",
        "spec.rollout.canary.evidenceTimeout",
        "169h",
        "canary.evidenceTimeout must not exceed 168h",
    ),
    *(
        refused(
            f"{value} as {field}",
            f"spec.rollout.analysis.{field}",
            value,
            f"analysis.{field} must lie between {bounds}",
        )
        for field, value, bounds in (
            ("errorMargin", "-0.01", "0 and 0.5"),
            ("errorMargin", "0.6", "0 and 0.5"),
            ("slowMargin", "1", "0 and 0.5"),
            ("confidence", "0.5", "0.8 and 0.9999"),
            ("confidence", "1", "0.8 and 0.9999"),
        )
    ),
    refused(
        "a shadow where a Service sends the canary requests",
        "spec.rollout.canary.shadow",
        {},
        "which only traffic of kind HTTPRoute can",
        at="spec.rollout.canary",
        also=WATCHED_AND_ASKED,
    ),
    refused(
        "a shadow without what users have asked",
        "spec.rollout.canary",
        {"shadow": {}, "traffic": {"kind": "HTTPRoute", "route": {"name": "digits"}}},
        "give monitoring.production and target.inference",
        at="spec",
    ),
    *(
        refused(
            f"a shadow of {span} with {way}",
            f"spec.rollout.{way}",
            {"shadow": {"span": span}, "traffic": {"kind": "HTTPRoute", "route": {"name": "digits"}}},
            says,
            at=f"spec.rollout.{way}.shadow.span",
            also=WATCHED_AND_ASKED,
        )
        for way in ("canary", "blueGreen")
        for span, says in (("1d", DURATION), ("1000h", "shadow.span must lie between 1m and 720h"))
    ),
    refused(
        "a canary that is held for days",
        "spec.rollout.canary.steps",
        [{"weight": 5, "hold": "48h"}],
        "a canary's hold must not exceed 24h",
        at="spec.rollout.canary.steps[0].hold",
    ),
    refused(
        "a canary that loses weight",
        "spec.rollout.canary.steps",
        [{"weight": 50}, {"weight": 10}],
        "the weights of canary.steps must not fall",
    ),
    refused(
        "a canary by a route that is not named",
        "spec.rollout.canary.traffic",
        {"kind": "HTTPRoute"},
        "traffic of kind HTTPRoute needs route.name",
    ),
    refused(
        "a share of nothing without testers",
        "spec.rollout.canary.steps",
        [{"weight": 0}],
        "a canary's step of weight 0 needs canary.traffic.testers",
        at="spec.rollout.canary",
    ),
    refused(
        "testers without a route",
        "spec.rollout.canary.traffic",
        {"kind": "Replicas", "testers": {"header": {"name": "x", "value": "x"}}},
        "only traffic of kind HTTPRoute can tell testers by a header",
    ),
    *(
        refused(
            f"{name}, with requests at once",
            "spec.rollout.blueGreen.traffic",
            value,
            says,
            at=f"spec.rollout.blueGreen.traffic{below}",
        )
        for name, value, says, below in (
            ("no route", {"kind": "HTTPRoute"}, "traffic of kind HTTPRoute needs route.name", ""),
            ("a route of nobody", {"route": {"name": "digits"}}, "only traffic of kind HTTPRoute has a route", ""),
            ("testers of nobody", {"testers": testers("x", "x")}, "can tell testers by a header", ""),
            ("a route in capitals", by_route(name="Digits"), "a name has lower-case letters", ".route.name"),
            ("a Service with a dot", by_route(service="a.b"), "a name has lower-case letters", ".route.service"),
            (
                "a header with a colon",
                by_route() | {"testers": testers(":x", "x")},
                "a header's name has letters, digits and",
                ".testers.header.name",
            ),
            (
                "a value with a blank",
                by_route() | {"testers": testers("x", " x")},
                "printable ASCII characters",
                ".testers.header.value",
            ),
        )
    ),
    refused(
        "requests that no route can switch",
        "spec.rollout.strategy",
        "BlueGreen",
        "set blueGreen.traffic.kind to HTTPRoute and name the route",
        at="spec.rollout",
    ),
    refused(
        "a proof beside a champion that answers nothing",
        "spec.rollout",
        {
            "strategy": "BlueGreen",
            "blueGreen": {"traffic": {"kind": "HTTPRoute", "route": {"name": "digits"}}},
            "analysis": {"require": "ProvenNotWorse"},
        },
        "with strategy BlueGreen the champion answers nothing",
    ),
    refused(
        "fewer pods than the target's for all requests",
        "spec.rollout.blueGreen",
        {"traffic": {"kind": "HTTPRoute", "route": {"name": "digits"}, "maxSurge": 50}},
        "leave blueGreen.traffic.maxSurge out",
    ),
    *(
        refused(
            f"weeks of {field}",
            f"spec.rollout.blueGreen.{field}",
            "169h",
            f"blueGreen.{field} must not exceed 168h",
        )
        for field in ("preview", "keepOld")
    ),
    refused(
        "a route that nobody uses",
        "spec.rollout.canary.traffic",
        {"kind": "Replicas", "route": {"name": "digits"}},
        "only traffic of kind HTTPRoute has a route",
    ),
    refused(
        "more CPU than allowed",
        "spec.execution.resources",
        {"requests": {"cpu": "2"}, "limits": {"cpu": "1500m"}},
        "requests.cpu must not exceed limits.cpu",
    ),
    refused(
        "more memory than allowed",
        "spec.execution.resources",
        {"requests": {"memory": "2Gi"}, "limits": {"memory": "2G"}},
        "requests.memory must not exceed limits.memory",
    ),
    refused("no CPU at all", "spec.execution.resources.limits.cpu", "0", "limits.cpu must be above zero"),
    refused("no memory at all", "spec.execution.resources.limits.memory", "0Gi", "limits.memory must be above zero"),
    refused(
        "a value that nothing compares",
        "spec.execution.tolerations",
        [{"key": "a", "operator": "Exists", "value": "b"}],
        "a toleration with operator Exists has no value",
        at="spec.execution.tolerations[0]",
    ),
    refused(
        "a value of any key",
        "spec.execution.tolerations",
        [{"value": "b"}],
        "a toleration without key needs operator Exists",
        at="spec.execution.tolerations[0]",
    ),
    *(
        Case(f"a {what} that Git decides on", {"spec.mode": "Propose", f"spec.{path}": value}, words, at="spec")
        for what, path, value, words in (
            ("word", "rollout", {"approval": "Manual"}, "mode Propose leaves the target to Git, where people approve"),
            ("way back", "rollout", {"rollbackTo": "1"}, "mode Propose leaves the target to Git, where people approve"),
            ("deletion", "deletionPolicy", "RestoreOriginal", "deletionPolicy must be KeepChampion"),
        )
    ),
    refused(
        "a Rollout of another API",
        "spec.target.ref",
        {"kind": "Rollout", "name": "digits"},
        "target.ref: kind Rollout is of apiVersion argoproj.io/v1alpha1, kind InferenceService of",
    ),
    refused(
        "a Deployment of Argo's API",
        "spec.target.ref",
        {"apiVersion": "argoproj.io/v1alpha1", "name": "digits"},
        "target.ref: kind Rollout is of apiVersion argoproj.io/v1alpha1, kind InferenceService of",
    ),
    refused(
        "an InferenceService without KServe's own field",
        "spec.target.ref",
        KSERVE,
        "target.injection.type StorageUri is for kind InferenceService, and EnvVar for the others",
        at="spec.target",
    ),
    refused(
        "a Deployment with KServe's field",
        "spec.target.injection",
        {"type": "StorageUri"},
        "target.injection.type StorageUri is for kind InferenceService, and EnvVar for the others",
        at="spec.target",
    ),
    refused(
        "a variable for an InferenceService",
        "spec.target.injection",
        {"type": "StorageUri", "name": "MODEL"},
        "target.injection.name is the name of a variable, which only type EnvVar has: leave it out",
        also={"spec.target.ref": KSERVE},
    ),
    refused(
        "a variable beside a key",
        "spec.target.injection",
        KEY | {"name": "MODEL"},
        "target.injection.name is the name of a variable, which only type EnvVar has: leave it out",
    ),
    *(
        refused(
            f"{what} a key of a ConfigMap",
            "spec.target.injection",
            injection,
            "target.injection.configMap names the ConfigMap and the key of type ConfigMap, and belongs to no other",
        )
        for what, injection in {
            "type ConfigMap without": {"type": "ConfigMap", "takeover": "Force"},
            "a variable with": {"configMap": KEY["configMap"]},
        }.items()
    ),
    refused(
        "a key that is not taken over",
        "spec.target.injection",
        {"type": "ConfigMap", "configMap": KEY["configMap"]},
        "a key of a ConfigMap is owned by whoever has made it: set target.injection.takeover to Force",
    ),
    refused(
        "a key that is a path",
        "spec.target.injection",
        KEY | {"configMap": {"name": "wanted", "key": "a/b"}},
        "a key of a ConfigMap has letters, digits and . _ -",
        at="spec.target.injection.configMap.key",
    ),
    refused(
        "a ConfigMap of another namespace",
        "spec.target.injection",
        KEY | {"configMap": {"name": "other/wanted", "key": "uri"}},
        "a name has lower-case letters, digits, '-' and '.'",
        at="spec.target.injection.configMap.name",
    ),
    refused(
        "a key of a ConfigMap for a Rollout",
        "spec.target.ref",
        {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout", "name": "digits"},
        "target.injection.type ConfigMap is for pods that run on, of a Deployment or StatefulSet",
        at="spec.target",
        also={"spec.target.injection": KEY},
    ),
    *(
        refused(
            f"strategy {strategy} where all pods follow one key",
            "spec.rollout",
            {"strategy": strategy} | more,
            "rollout.strategy Canary and BlueGreen give some pods a version first, and all pods follow the one key",
            at="spec",
            also={"spec.target.injection": KEY},
        )
        for strategy, more in {
            "Canary": {},
            "BlueGreen": {"blueGreen": {"traffic": {"kind": "HTTPRoute", "route": {"name": "digits"}}}},
        }.items()
    ),
    *(
        refused(
            f"another {what} later",
            "spec.target.injection",
            KEY | change,
            f"target.injection.{field} is immutable: create another ModelOptimization",
            at=f"spec.target.injection.{field}",
            before={"spec.target.injection": before},
        )
        for what, field, before, change in (
            ("way to name the model", "type", {}, {}),
            ("ConfigMap", "configMap.name", KEY, {"configMap": {"name": "other", "key": "uri"}}),
            ("key", "configMap.key", KEY, {"configMap": {"name": "wanted", "key": "other"}}),
        )
    ),
    refused(
        "strategy Canary for what is no Deployment",
        "spec.target.ref",
        {"kind": "StatefulSet", "name": "digits"},
        "rollout.strategy Canary and BlueGreen make a Deployment beside the target, which must be one too",
        at="spec",
        also={"spec.rollout.strategy": "Canary"},
    ),
    refused(
        "another kind of target later",
        "spec.target.ref",
        {"kind": "StatefulSet", "name": "digits-server"},
        "target.ref is immutable: create another ModelOptimization",
        at="spec.target.ref",
        before={},
    ),
    refused(
        "another target later",
        "spec.target.ref.name",
        "other",
        "target.ref is immutable: create another ModelOptimization",
        at="spec.target.ref",
        before={},
    ),
    refused(
        "another variable later",
        "spec.target.injection",
        {"name": "OTHER_URI"},
        "target.injection.name is immutable: create another ModelOptimization",
        at="spec.target.injection.name",
        before={},
    ),
)

REFUSED = (*_SHAPE, *_BOUNDS, *_WORDS, *_TOGETHER)
