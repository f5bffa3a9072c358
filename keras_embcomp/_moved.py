"""Says where a module of an earlier layout is now."""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_ROOT = "keras_embcomp."
_MOVED = {
    "callbacks": "training.callbacks",
    "candidates": "compression.candidates",
    "cloning": "models.copy",
    "compress": "compression.compress",
    "deploy.litert_calibration": "deploy.samples",
    "deploy.litert_files": "deploy.litert.convert",
    "deploy.litert_formats": "deploy.litert.prepare",
    "deploy.litert_runs": "deploy.litert.compare",
    "deploy.litert_tables": "deploy.litert.tables",
    "deploy.served_extras": "deploy.serving.extras",
    "deploy.served_functions": "deploy.serving.signatures",
    "distillation": "training.distillation",
    "distribution": "training.distribution",
    "layers.base_softmax": "layers.softmax",
    "layers.codes": "layers.product_quantized.table",
    "layers.crossentropy_head": "training.crossentropy_head",
    "layers.decoders": "layers.distilled.table",
    "layers.dense": "layers.from_keras",
    "layers.formats": "layers.quantization",
    "layers.reconstruction": "layers.distilled.fitting",
    "layers.subvectors": "layers.hashed.table",
    "layers.tt_cores": "layers.tensor_train.table",
    "layers.word_groups": "layers.group_reduce.table",
    "losses": "training.crossentropy",
    "measures": "reporting.costs",
    "numerics.backends": "layers.execution",
    "numerics.budget": "budgets",
    "numerics.code_budget": "numerics.product_quantized.budgets",
    "numerics.code_fitting": "numerics.product_quantized.fitting",
    "numerics.formats": "numerics.quantized",
    "numerics.groups": "numerics.group_reduce.groups",
    "numerics.product_codes": "numerics.product_quantized.codes",
    "numerics.products": "numerics.small_products",
    "numerics.schedules": "training.schedules",
    "numerics.shuffles": "numerics.hashed.shuffles",
    "numerics.tables": "layers.factors",
    "numerics.tt_plans": "numerics.tensor_train.contraction",
    "numerics.tt_products": "numerics.tensor_train.lookups",
    "numerics.tt_shapes": "numerics.tensor_train.shapes",
    "plan": "compression.plan",
    "planning": "compression.choose",
    "report": "reporting.measure",
    "report_plot": "reporting.plot",
    "report_value": "reporting.report",
    "resizing": "models.resize",
    "sweep": "compression.sweep",
    "table_files": "models.read",
    "vocabulary_tables": "models.find",
}


class MovedModules(MetaPathFinder):
    """The last finder: it finds nothing, and names the new place in its error.

    `import keras_embcomp.losses` fails with the path that has its contents.
    """

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,
        target: ModuleType | None = None,
    ) -> ModuleSpec | None:
        place = _MOVED.get(fullname.removeprefix(_ROOT))
        if not fullname.startswith(_ROOT) or place is None:
            return None
        raise ModuleNotFoundError(
            f"No module named '{fullname}': its contents are in "
            f"'{_ROOT}{place}'. What the documentation names is in "
            "'keras_embcomp' and 'keras_embcomp.budgets'.",
            name=fullname,
        )


def install() -> None:
    """Adds the finder behind all others, once."""
    if not any(isinstance(one, MovedModules) for one in sys.meta_path):
        sys.meta_path.append(MovedModules())
