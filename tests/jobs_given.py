"""A template for Jobs' pods in which an administrator says everything that can be said."""

from typing import Any

EVERYTHING: dict[str, Any] = {
    "labels": {"team": "ml", "example.com/cost-centre": "7"},
    "annotations": {"example.com/note": "batch"},
    "priorityClassName": "system-cluster-critical",
    "runtimeClassName": "gvisor",
    "serviceAccountName": "jobs",
    "imagePullSecrets": [{"name": "pull"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["batch"]}]},
                    {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]},
                ]
            },
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 5, "preference": {"matchExpressions": [{"key": "cores", "operator": "Gt", "values": ["8"]}]}}
            ],
        },
        "podAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {
                    "weight": 1,
                    "podAffinityTerm": {"topologyKey": "zone", "labelSelector": {"matchLabels": {"app": "cache"}}},
                }
            ]
        },
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {
                    "topologyKey": "kubernetes.io/hostname",
                    "labelSelector": {"matchExpressions": [{"key": "tier", "operator": "Exists"}]},
                    "namespaces": ["other"],
                }
            ]
        },
    },
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "zone",
            "whenUnsatisfiable": "ScheduleAnyway",
            "labelSelector": {"matchLabels": {"team": "ml"}},
            "nodeTaintsPolicy": "Honor",
        }
    ],
    "env": [
        {"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"},
        {"name": "NO_PROXY", "value": ".svc,10.0.0.0/8"},
    ],
    "caCertificates": {"name": "company-ca", "key": "ca.crt"},
    "ephemeralStorage": {"request": "6Gi", "limit": "20Gi"},
    "scratchSize": "16Gi",
    "storeAccess": "ReadWriteMany",
    "runAsUser": 1234,
}
