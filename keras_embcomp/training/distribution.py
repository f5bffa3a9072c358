"""Tables on several devices: which weights are split, and along which axis."""

import warnings
from collections.abc import Mapping

import keras
from keras.distribution import LayoutMap, ModelParallel, TensorLayout

from keras_embcomp._compat import has_layout
from keras_embcomp.layers.methods import METHODS

_KERAS_AXES = {"embeddings": 0}  # of `keras.layers.Embedding`


def layout_map(
    device_mesh: keras.distribution.DeviceMesh, axis: str = "model"
) -> LayoutMap:
    """Returns the layouts of compressed tables, to be added to.

    Use it with `keras.distribution.ModelParallel` where the axes that it splits
    divide by the devices, and `TableParallel` where they may not.

    Args:
        device_mesh: A `keras.distribution.DeviceMesh`.
        axis: Name of the mesh's axis that splits tables.

    Returns:
        A `keras.distribution.LayoutMap` from paths of weights. It also splits
        the tables of `keras.layers.Embedding`.

    Raises:
        ValueError: if the mesh has no such axis, or the backend is not JAX.

    Example:

    ```
    mesh = keras.distribution.DeviceMesh((2, 4), ("batch", "model"), devices)
    layouts = layout_map(mesh)
    layouts["dense/kernel"] = (None, "model")
    ```
    """
    if keras.backend.backend() != "jax":
        raise ValueError(
            "`keras.distribution` needs the JAX backend: set "
            "KERAS_BACKEND=jax. TensorFlow has tf.distribute.MirroredStrategy. "
            f"Received: backend={keras.backend.backend()}"
        )
    if axis not in device_mesh.axis_names:
        raise ValueError(
            "`axis` must be one of the mesh. Received: "
            f"axis={axis}, axis_names={tuple(device_mesh.axis_names)}"
        )
    layouts = LayoutMap(device_mesh)
    splits = dict(_KERAS_AXES)
    for method in METHODS:
        splits.update(method.device_axes)
    for name, split in splits.items():
        layouts[f"(.*/)?({name})"] = (None,) * split + (axis,)
    return layouts


class TableParallel(ModelParallel):
    """Splits compressed tables over devices, whatever their sizes.

    A `ModelParallel` with the layouts of `layout_map`. Where the axis of a
    weight does not divide by the devices, its largest axis that does is split;
    where there is none, each device holds all of it. Either is said in a
    warning. No weight changes its shape, so files of weights and of optimizers
    load under any layout, and under none.

    Args:
        device_mesh: A `keras.distribution.DeviceMesh`.
        axis: Name of the mesh's axis that splits tables.
        layouts: Dictionary from regular expressions of paths to tuples of axis
            names, for other weights; it goes before those of `layout_map`.
        batch_dim_name: Name of the mesh's axis that splits batches. `None` is
            the first one.
        auto_shard_dataset: As in `keras.distribution.ModelParallel`.

    Raises:
        ValueError: if the mesh has no such axis, or the backend is not JAX; and
            in training, if a batch does not divide by the devices.

    Example:

    ```
    mesh = keras.distribution.DeviceMesh(
        (2, 4), ("batch", "model"), keras.distribution.list_devices()
    )
    keras.distribution.set_distribution(TableParallel(mesh))
    # From here, build, compile and fit as ever.
    ```
    """

    def __init__(
        self,
        device_mesh: keras.distribution.DeviceMesh,
        axis: str = "model",
        layouts: Mapping[str, tuple] | None = None,
        batch_dim_name: str | None = None,
        auto_shard_dataset: bool = True,
    ) -> None:
        self._tables = layout_map(device_mesh, axis)
        self._own = LayoutMap(device_mesh)
        self._own.update(layouts or {})
        super().__init__(
            layout_map=self._own,
            batch_dim_name=batch_dim_name,
            auto_shard_dataset=auto_shard_dataset,
        )

    def get_variable_layout(self, variable):
        found = self._own[variable.path]
        if found is None:
            found = self._tables[variable.path]
        if found is None or has_layout(variable):
            return super().get_variable_layout(variable)
        axes = self._fitting(variable, found.axes)
        return TensorLayout(axes, self.device_mesh)

    def _fitting(self, variable, axes):
        """Returns axes near the wanted ones that divide a variable."""
        shape = variable.shape
        axes = [*axes, *[None] * (len(shape) - len(axes))]
        for place, axis in enumerate(list(axes)):
            if axis is None:
                continue
            count = self._devices_along(axis)
            if shape[place] % count == 0:
                continue
            axes[place] = None
            others = [
                (size, other)
                for other, size in enumerate(shape)
                if size % count == 0 and axes[other] is None
            ]
            if others:
                axes[max(others)[1]] = axis
            if shape[place] > 1:
                _say(variable, place, axes, axis, count)
        return axes

    def _devices_along(self, axis):
        mesh = self.device_mesh
        return mesh.shape[mesh.axis_names.index(axis)]

    def get_data_layout(self, data_shape):
        # A process is given its own part of a batch.
        devices = max(1, self.num_model_replicas // self.num_processes)
        if data_shape[0] % devices:
            raise ValueError(
                "Each batch must divide by the devices that share it, the "
                "last one too: drop it, or choose another `batch_size`. "
                f"Received: a batch of {data_shape[0]}, {devices} devices "
                f"along '{self.batch_dim_name}'"
            )
        return super().get_data_layout(data_shape)


def _say(variable, place, axes, axis, count):
    size = variable.shape[place]
    found = "each device holds all of it"
    if axis in axes:
        found = f"axis {axes.index(axis)} is split in its place"
    warnings.warn(
        f"Axis {place} of '{variable.path}', of shape {tuple(variable.shape)}, "
        f"does not divide by the {count} devices along '{axis}', so {found}. "
        f"The next size that divides is {size + -size % count}.",
        stacklevel=2,
    )
