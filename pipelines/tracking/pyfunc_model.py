"""The logged model as MLflow loads it: segments videos with a checkpoint, each from a scribble on its first frame."""

from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class ScribbleSegmenter(PythonModel):
    """`predict([{"video": file or folder of frames, "scribble": PNG or JSON, "out": folder}, ...])`.

    Writes a palette PNG per frame, as `ssvos segment` does, and returns the folders.
    """

    def load_context(self, context) -> None:
        self.checkpoint = context.artifacts["checkpoint"]

    def predict(self, context, model_input: list[dict[str, str]], params=None) -> list[str]:
        from contextlib import contextmanager
        from pathlib import Path

        from ssvos.inference.segment_video import DEFAULT_PREDICT, segment_video

        @contextmanager
        def no_progress(_what, _total):
            yield lambda *_: None

        for item in model_input:
            video, scribble, out = (Path(item[key]) for key in ("video", "scribble", "out"))
            segment_video(
                video, scribble, Path(self.checkpoint), out, "auto", False, False, DEFAULT_PREDICT, no_progress
            )
        return [item["out"] for item in model_input]


set_model(ScribbleSegmenter())
