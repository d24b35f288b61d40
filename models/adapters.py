"""PEFT's LoRA adapters: what one is made of, and its products added to the weights of its base model.

Letters: o output, i input, r rank.

Sources: Hu et al. 2021 (arXiv 2106.09685); Kalajdzievski 2023 (arXiv 2312.03732) for rank-stabilized LoRA.
"""

import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxconf.models.config import DecoderConfig
from jaxconf.models.errors import InputError
from jaxconf.models.families import leaves, unembedding, unprefixed
from jaxconf.models.files import read_object
from jaxconf.models.leaves import Leaf
from jaxconf.models.tensor_files import FLOATS, Tensor, bare, read_header

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."
MERGE = "merge it with merge_and_unload of peft, save the model, and load that"
ROWS = 1024  # of a weight that its product is added to at once

# Attributes of adapter_config.json that are read here, or that count only in training.
KNOWN = frozenset(
    """
    alpha_pattern auto_mapping base_model_name_or_path bias eva_config exclude_modules fan_in_fan_out inference_mode
    init_lora_weights layers_pattern layers_to_transform lora_alpha lora_dropout megatron_core modules_to_save
    peft_type peft_version qalora_group_size r rank_pattern revision target_modules task_type use_rslora
    """.split()
)
# How A and B may have been drawn. Others, such as PiSSA, also change the base model's weights.
DRAWN = (None, True, False, "gaussian", "orthogonal", "eva")


@dataclasses.dataclass(frozen=True)
class Merged(Tensor):
    """A tensor of the base model plus a multiple of B·A: both are read, and multiplied, when it is mapped."""

    A: Tensor  # r i
    B: Tensor  # o r
    factor: float
    transposed: bool  # the tensor is stored as [i o], not as [o i]

    def map(self) -> np.ndarray:
        """The sum in float32, or in float64 if the base model's tensor is."""
        dtype: Any = np.float64 if self.dtype == "F64" else np.float32
        merged: Any = np.array(super().map(), dtype)
        left, right = self.B.map().astype(dtype), self.A.map().astype(dtype)
        if self.transposed:
            left, right = right.T, left.T
        for row in range(0, len(merged), ROWS):
            merged[row : row + ROWS] += self.factor * (left[row : row + ROWS] @ right)
        return merged

    def ahead(self, view: np.ndarray, mapped: np.ndarray) -> None:
        """Nothing is left to be read: what `map` gives is in memory."""


@dataclasses.dataclass(frozen=True)
class Adapter:
    """A LoRA adapter, whose module names are those of the base model in transformers."""

    folder: Path
    base: str  # the base model's folder or hub id
    base_revision: str | None
    products: Mapping[str, Mapping[str, Tensor]]  # module → its A and B
    factors: Mapping[str, float]  # module → what B·A is multiplied by
    saved: Mapping[str, Tensor]  # tensors that replace the base model's

    def config(self, config: DecoderConfig) -> DecoderConfig:
        """The base model's config, untied if the adapter holds an embedding and an unembedding of its own.

        Raises InputError for an adapter that changes only one of the two, or multiplies one, where they are tied.
        """
        if not config.tied:
            return config
        tied = {unembedding(config), next(leaf.source for leaf in leaves(config) if leaf.path == "embed/tokens")}
        saved, multiplied = tied & self._saved(config).keys(), tied & self._multiplied(config).keys()
        if saved == tied and not multiplied:
            return dataclasses.replace(config, tied=False)
        if changed := sorted(saved | multiplied):
            raise InputError(
                f"the adapter {self.folder} changes {changed[0]!r}, which its base {self.base} uses both as embedding "
                f"and as unembedding; {MERGE}"
            )
        return config

    def replaced(self, config: DecoderConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The base model's tensors, named as in the leaf table, with the adapter's own in place of some of them."""
        self._check_known(self._saved(config).keys() - _rows(config).keys())
        return {**tensors, **self._saved(config)}

    def merged(self, config: DecoderConfig, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """These tensors, which must be complete, with the products added."""
        rows, products = _rows(config), self._multiplied(config)
        self._check_known(products.keys() - rows.keys())
        found = dict(tensors)
        for name, module in products.items():
            base, A, B = tensors[name], self.products[module]["A"], self.products[module]["B"]
            transposed = rows[name].stored_as_read
            if (B.shape[0], A.shape[1]) != (base.shape[::-1] if transposed else base.shape):
                raise InputError(
                    f"the adapter {self.folder} has matrices of shapes {list(B.shape)} and {list(A.shape)} for "
                    f"{module!r}, which is {list(base.shape)} in the base {self.base}; use the adapter's own base"
                )
            found[name] = Merged(**vars(base), A=A, B=B, factor=self.factors[module], transposed=transposed)
        return found

    def _saved(self, config: DecoderConfig) -> dict[str, Tensor]:
        return {unprefixed(config, name): tensor for name, tensor in self.saved.items()}

    def _multiplied(self, config: DecoderConfig) -> dict[str, str]:
        """Tensor that a product is added to → its module."""
        return {unprefixed(config, f"{module}.weight"): module for module in self.products}

    def _check_known(self, unknown: set[str]) -> None:
        if unknown:
            raise InputError(
                f"the adapter {self.folder} changes {min(unknown)!r}, which its base {self.base} does not have; "
                "use the adapter's own base"
            )


def _rows(config: DecoderConfig) -> dict[str, Leaf]:
    """Tensor → a row of the leaf table that reads it."""
    return {name: leaf for leaf in leaves(config) for name in leaf.names(config).flat}


def is_adapter(folder: Path) -> bool:
    return (folder / CONFIG).is_file()


def read_adapter(folder: Path) -> Adapter:
    """The adapter in a folder; none of its numbers is read yet.

    Raises InputError for an adapter that is not plain LoRA, names no base, or is not whole, and for a folder that
    holds a model's own weights too.
    """
    if both := [path.name for path in folder.glob("model*.safetensors")]:
        raise InputError(
            f"{folder} holds both a model ({both[0]}) and an adapter ({CONFIG}); move one of them elsewhere"
        )
    base, revision = base_named(folder)
    file = folder / CONFIG
    values = read_object(file)
    products, saved = _tensors(folder)
    for module in _listed(values.get("modules_to_save")):
        if not any(f".{module}." in f".{name}" for name in saved):
            raise InputError(f"the adapter {folder} lacks the module {module!r} that its {CONFIG} names; save it again")
    factors = {}
    for module, pair in products.items():
        try:
            rank, alpha = (
                _of_module(values.get(pattern) or {}, module, values[name])
                for pattern, name in (("rank_pattern", "r"), ("alpha_pattern", "lora_alpha"))
            )
            factors[module] = float(alpha) / (rank**0.5 if values.get("use_rslora") else rank)
        except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError, re.error) as error:
            raise InputError(f"{file} gives no rank and scaling of {module!r} ({error}); save it again") from error
        if (pair["A"].shape[0], pair["B"].shape[1]) != (rank, rank):
            raise InputError(
                f"{file} gives {module!r} the rank {rank}, but its matrices in {WEIGHTS} have shapes "
                f"{list(pair['B'].shape)} and {list(pair['A'].shape)}; save it again"
            )
    return Adapter(folder, base, revision, products, factors, saved)


def base_named(folder: Path) -> tuple[str, str | None]:
    """The folder or hub id of the base model that an adapter names, and its revision.

    Raises InputError for an adapter that is not plain LoRA or names no base.
    """
    file = folder / CONFIG
    values = read_object(file)
    _check_plain(file, values)
    base, revision = values.get("base_model_name_or_path"), values.get("revision")
    if not isinstance(base, str) or not base:
        raise InputError(f"{file} names no base model; set base_model_name_or_path in it")
    return base, str(revision) if revision else None


def _check_plain(file: Path, values: Mapping[str, Any]) -> None:
    """Raises InputError for the config of an adapter that does more than to add products to weights."""
    kind = values.get("peft_type")
    if kind != "LORA":
        raise InputError(f"{file} has the peft_type {kind!r}, and only LORA is merged here; {MERGE}")
    odd = {
        name: value for name, value in values.items() if name not in KNOWN and value not in (None, False, [], {}, "")
    }
    odd |= {"bias": values.get("bias")} if values.get("bias") not in (None, "none") else {}
    drawn = values.get("init_lora_weights")
    odd |= {"init_lora_weights": drawn} if drawn not in DRAWN else {}
    for name, value in odd.items():
        raise InputError(f"{file} sets {name!r} to {value!r}, and only plain LoRA is merged here; {MERGE}")


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else []


def _of_module(patterns: Mapping[str, Any], module: str, otherwise: Any) -> Any:
    """What the first pattern that fits the end of a module's name gives, as in PEFT; else `otherwise`."""
    fitting = (value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", module))
    return next(fitting, otherwise)


def _tensors(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Module → its A and B, and the tensors that the adapter replaces. Raises InputError for any others."""
    if not (folder / WEIGHTS).is_file() and (folder / PICKLED).is_file():
        raise InputError(
            f"the adapter {folder} holds only pickled weights, which can run code and are never loaded; "
            "save it as safetensors"
        )
    products: dict[str, dict[str, Tensor]] = {}
    saved = {}
    for full, tensor in read_header(folder / WEIGHTS).items():
        name = bare(full).removeprefix(PREFIX)
        if match := re.fullmatch(r"(.+)\.lora_(?:embedding_)?([AB])(?:\.weight)?", name):
            if tensor.dtype not in FLOATS or len(tensor.shape) != 2:
                raise InputError(f"the adapter {folder} holds {full!r}, which is no matrix of floats; save it again")
            products.setdefault(match[1], {})[match[2]] = tensor
        elif ".lora_" in name:
            raise InputError(f"the adapter {folder} holds {full!r}, which is not plain LoRA; {MERGE}")
        else:
            saved[name.replace(".base_layer.", ".")] = tensor
    for module, pair in products.items():
        if len(pair) < 2:
            raise InputError(f"the adapter {folder} holds only one of the two matrices of {module!r}; save it again")
    if not products and not saved:
        raise InputError(f"the adapter {folder} holds no tensors; save it again")
    return products, saved
