"""What the end-to-end tests start from, written into a claim by a Job of the optimizer's own image.

Real data (breast_cancer) and a real model (a multilayer network of scikit-learn, converted to ONNX); and beside them
the same files broken in every way that a user's files can be. Prints each file it writes.
"""

import sys
from pathlib import Path

import numpy as np
from onnx import TensorProto, helper
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.preprocessing import StandardScaler

Split = tuple[np.ndarray, np.ndarray]
SEED = 7


def main(root: Path) -> None:
    """Write good and bad files below `root`."""
    train, validation, test = splits()
    save(root / "data/train.npz", train)
    save(root / "data/validation.npz", validation)
    save(root / "data/test.npz", test)
    model = network(train)
    write(root / "models/good.onnx", model)
    write(root / "models/other.onnx", network((train[0], 1 - train[1])))
    save_weights(root / "models/net.safetensors", train)
    save_forest(root / "models/forest.skops", train)
    bad_models(root / "models", model)
    bad_data(root / "data", test)


def splits() -> tuple[Split, Split, Split]:
    """Return train, validation and test, standardized, as float32 (rows, 30) and int64 (rows,)."""
    inputs, labels = load_breast_cancer(return_X_y=True)
    inputs = StandardScaler().fit_transform(inputs).astype(np.float32)
    rest, test, rest_labels, test_labels = train_test_split(
        inputs, labels, test_size=0.5, random_state=SEED, stratify=labels
    )
    train, validation, train_labels, validation_labels = train_test_split(
        rest, rest_labels, test_size=0.35, random_state=SEED, stratify=rest_labels
    )
    return (train, train_labels), (validation, validation_labels), (test, test_labels)


def network(train: Split) -> bytes:
    """Return a trained network of 30-512-512-2 as ONNX: large enough that 8-bit weights shrink it."""
    classifier = MLPClassifier((512, 512), max_iter=60, random_state=SEED, early_stopping=True).fit(*train)
    options = {"zipmap": False, "output_class_labels": False}
    converted = to_onnx(classifier, train[0][:1], options=options, target_opset={"": 17, "ai.onnx.ml": 3})
    return bytes(converted.SerializeToString())


def save_weights(path: Path, train: Split) -> None:
    """Train a network of the catalogue with torch, and write its weights alone."""
    import torch
    from safetensors.torch import save_file

    from optimizer_jobs.nets.catalogue import mlp

    torch.manual_seed(SEED)
    net = mlp(inputs=30, outputs=2, width=256)
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3, weight_decay=1e-2)
    inputs, labels = torch.from_numpy(train[0]), torch.from_numpy(train[1])
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step()
    save_file(net.state_dict(), path)
    path.chmod(0o644)
    sys.stdout.write(f"{path} {path.stat().st_size} bytes\n")


def save_forest(path: Path, train: Split) -> None:
    """Fit a forest that is larger than it need be, and write it without code."""
    from sklearn.ensemble import RandomForestClassifier
    from skops import io

    io.dump(RandomForestClassifier(300, random_state=SEED).fit(*train), path)
    path.chmod(0o644)
    sys.stdout.write(f"{path} {path.stat().st_size} bytes\n")


def write(path: Path, content: bytes) -> None:
    """Write a file that every user may read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    path.chmod(0o644)
    sys.stdout.write(f"{path} {len(content)} bytes\n")


def save(path: Path, split: Split) -> None:
    """Write inputs `x` and labels `label`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, x=split[0], label=split[1])
    sys.stdout.write(f"{path} {len(split[1])} rows\n")


def bad_models(folder: Path, model: bytes) -> None:
    """Write a cut-off file, a text, an unreadable file, and a model whose weights lie outside its folder."""
    write(folder / "truncated.onnx", model[: len(model) // 2])
    write(folder / "text.onnx", b"this is not a model\n" * 50)
    write(folder / "secret.onnx", model)
    (folder / "secret.onnx").chmod(0)
    write(folder / "outside.onnx", _with_outside_weights())


def _with_outside_weights() -> bytes:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[30, 2], data_location=TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="../../../../etc/hostname")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "outside",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 30])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 2])],
        [weight],
    )
    return bytes(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]).SerializeToString())


def bad_data(folder: Path, test: Split) -> None:
    """Write data without a label, without rows, with NaN labels, with one class, and with another width."""
    inputs, labels = test
    np.savez(folder / "unlabelled.npz", x=inputs)
    save(folder / "empty.npz", (inputs[:0], labels[:0]))
    holes = labels.astype(np.float64)
    holes[::10] = np.nan
    save(folder / "nan-labels.npz", (inputs, holes))
    save(folder / "one-class.npz", (inputs[labels == 1], labels[labels == 1]))
    save(folder / "narrow.npz", (inputs[:, :12], labels))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
