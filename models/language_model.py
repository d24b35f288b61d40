"""`load` loads a model from a folder or from the hub; `LanguageModel` runs it."""

import dataclasses
import functools
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import huggingface_hub
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import ArrayLike

from jaxconf.models import adapters, tokenizer_files
from jaxconf.models.adapters import base_named, is_adapter, read_adapter
from jaxconf.models.checkpoint import Layers, load_params
from jaxconf.models.config import DecoderConfig
from jaxconf.models.decoder import Output, Params, check_tokens, forward
from jaxconf.models.errors import InputError
from jaxconf.models.families import accepted, config_from_hf
from jaxconf.models.files import read_object
from jaxconf.models.generate import generate
from jaxconf.models.hub import HUB_ID, hub_errors
from jaxconf.models.mesh import make_mesh, mesh_of, over_data
from jaxconf.models.sites import Edit
from jaxconf.models.tensor_files import no_weights
from jaxconf.models.tokenizer import Tokenizer
from jaxconf.models.tokenizer_names import check_special, named_ids

TEXTS = ["config.json", adapters.CONFIG, *tokenizer_files.FILES]
BUNDLED = Path(__file__).parent / "bundled"
WEIGHTS = ["model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors", adapters.WEIGHTS]

_forward = jax.jit(forward, static_argnames=("config", "capture", "start_at_layer", "stop_at_layer"))


class Base(NamedTuple):
    """The model that an adapter was merged into."""

    name: str  # the folder or hub id that the adapter names
    revision: str | None  # the hub's commit, None for a folder
    folder: Path


@dataclasses.dataclass(frozen=True)
class LanguageModel:
    """A decoder with its parameters, its tokenizer, and where they came from."""

    config: DecoderConfig
    params: Params  # nested dict of arrays, as the leaf table names them
    name: str  # the folder or hub id that was asked for
    revision: str | None  # the hub's commit, None for a folder
    folder: Path  # it has the tokenizer
    hf_config: Mapping[str, Any]  # the content of config.json
    accepted: tuple[str, ...] = ()  # attributes of config.json whose meaning is not known and which were passed over
    base: Base | None = None  # of an adapter; name and revision are then the adapter's

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, read on first use.

        Raises InputError if the folder has none, one that cannot be read, or one whose BOS or EOS the model lacks.
        """
        return Tokenizer.from_folder(self.folder, self.config.vocab_size)

    @property
    def has_tokenizer(self) -> bool:
        return tokenizer_files.has_tokenizer(self.folder)

    @functools.cached_property
    def eos_ids(self) -> frozenset[int]:
        """The ids that end a text: those of config.json, and those of the tokenizer if there is one."""
        return self._named_ids("eos_token_id") | (
            frozenset(self.tokenizer.eos_ids) if self.has_tokenizer else frozenset()
        )

    @functools.cached_property
    def end_ids(self) -> frozenset[int]:
        """The BOS and EOS ids of config.json, and those of the tokenizer if there is one."""
        bos = self.tokenizer.bos_id if self.has_tokenizer else None
        return self.eos_ids | self._named_ids("bos_token_id") | (frozenset() if bos is None else {bos})

    @property
    def bos_id(self) -> int | None:
        """The id that begins a text: the tokenizer's, or that of config.json if there is no tokenizer.

        Raises InputError if the model's vocabulary lacks it.
        """
        if self.has_tokenizer:
            return self.tokenizer.bos_id
        ids = self._named_ids("bos_token_id")
        check_special(ids, "bos", self.folder / "config.json", self.config.vocab_size)
        return next(iter(ids), None)

    def _named_ids(self, name: str) -> frozenset[int]:
        return frozenset(named_ids(self.hf_config, name, self.folder / "config.json"))

    @property
    def mesh(self) -> Mesh:
        """The devices that the parameters lie on."""
        return mesh_of(self.params)

    def over_data(self, array: np.ndarray) -> jax.Array:
        """Put an array whose first axis is sequences, such as token ids, on the model's mesh, split over that axis."""
        return over_data(self.mesh, array)

    @property
    def special_ids(self) -> frozenset[int]:
        """The ids that are not text to be predicted: BOS, EOS, and for GPT-2, as in the paper's code, the newline."""
        if self.config.model_type == "gpt2" and self.has_tokenizer and self.tokenizer.newline_id is not None:
            return self.end_ids | {self.tokenizer.newline_id}
        return self.end_ids

    def apply(
        self,
        tokens: ArrayLike,
        edits: Mapping[str, Edit] | None = None,
        capture: tuple[str, ...] | list[str] = (),
        start_at_layer: int | None = None,
        stop_at_layer: int | None = None,
    ) -> Output:
        """Run the compiled model: `.logits` float32 [b t v] and `.captured`, site → array.

        Arguments as for `jaxconf.models.decoder.forward`.

        Raises InputError, besides what `forward` raises, for token ids outside the vocabulary.
        """
        inputs = jnp.asarray(tokens)
        if inputs.ndim != (2 if start_at_layer is None else 3):
            raise InputError(
                f"the input has shape {list(inputs.shape)}; "
                "give token ids as [batch, position], or a stream as [batch, position, width]"
            )
        if isinstance(capture, str):
            raise InputError(f"capture is the string {capture!r}; give a list of site names, [{capture!r}]")
        if start_at_layer is None and not isinstance(inputs, jax.core.Tracer):
            check_tokens(self.config, np.asarray(inputs))
        return _forward(
            self.config, self.params, inputs, dict(edits or {}), tuple(capture), start_at_layer, stop_at_layer
        )

    def generate(
        self,
        prompts: Sequence[Sequence[int]] | np.ndarray,
        max_new_tokens: int,
        *,
        temperature: float = 0.0,
        seed: int = 0,
        edits: Mapping[str, Edit] | None = None,
    ) -> list[np.ndarray]:
        """The token ids generated after each prompt, up to and with the first of `eos_ids`.

        Arguments as for `jaxconf.models.generate.generate`.
        """
        ends = sorted(self.eos_ids)
        return generate(
            self.config,
            self.params,
            prompts,
            max_new_tokens,
            temperature=temperature,
            seed=seed,
            end_ids=ends,
            edits=edits,
        )


def load(
    folder_or_id: str | Path,
    revision: str | None = None,
    dtype: Any = jnp.float32,
    mesh: Mesh | None = None,
    layers: Layers = "all",
    accept: str | Sequence[str] = (),
) -> LanguageModel:
    """Load a model from a local folder in Hugging Face layout, or from the hub by its id ("openai-community/gpt2") and
    revision. A LoRA adapter of PEFT is loaded merged into the base model that its adapter_config.json names.

    `dtype`: the type of the parameters. It is a floating-point type, None to keep the stored type, or a mapping to
    either from the names of parameters or of branches of them ("unembed", "blocks/attn", "ln_final/scale"). If several
    names of the mapping fit a parameter, the longest counts; if none does, the stored type is kept. `mesh`: the devices
    that hold the parameters, split as `jaxconf.models.mesh.RULES` says (by default the first device). `layers`: "last"
    reads only the last MLP, the final norm and the unembedding, which is enough for `jaxconf.weight_statistics`; such a
    model cannot be run, and its MLP's arrays have one layer. `accept`: attributes of config.json that jaxconf does not
    know and that are known to you not to change the model's outputs; without it, such an attribute is an error.

    Loading a local folder never contacts the hub, unless it holds an adapter to a model of the hub. Raises InputError
    for a model that cannot be found, is of an unknown family, or does not fit its own config.json, for an adapter that
    is not plain LoRA, for other values of `dtype` or `layers`, and for an attribute in `accept` that config.json lacks
    or that needs no accepting.
    """
    if layers not in ("all", "last"):
        raise InputError(f"layers is {layers!r}; give 'all' or 'last'")
    folder, commit = find(folder_or_id, revision)
    mesh = make_mesh(data=1) if mesh is None else mesh
    if not is_adapter(folder):
        hf_config = read_config(folder)
        config, [passed] = config_from_hf(hf_config, accept), accepted([hf_config], accept)
        params = load_params(config, folder, mesh, dtype, layers)
        return LanguageModel(config, params, str(folder_or_id), commit, folder, hf_config, passed)
    adapter, base = read_adapter(folder), base_of(folder)
    with _of_base(folder, base.name):
        hf_config = read_config(base.folder)
        config, [passed] = adapter.config(config_from_hf(hf_config, accept)), accepted([hf_config], accept)
        params = load_params(config, base.folder, mesh, dtype, layers, adapter)
    return LanguageModel(config, params, str(folder_or_id), commit, text_folder(folder), hf_config, passed, base)


def base_of(folder: Path, weights: bool = True) -> Base:
    """The base model of the adapter in a folder, found as by `find`. Raises InputError as that and `base_named` do."""
    name, revision = base_named(folder)
    with _of_base(folder, name):
        found, commit = find(name, None if local_folder(name).is_dir() else revision, weights)
        if is_adapter(found):
            raise InputError("it is itself an adapter, and only one is merged; merge that one first, with peft")
    return Base(name, commit, found)


@contextmanager
def _of_base(folder: Path, base: str) -> Iterator[None]:
    """Errors within the block say that they are about the base model of an adapter."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{folder} holds an adapter to {base}, which cannot be used: {error}") from error


def text_folder(folder: Path) -> Path:
    """The folder itself, or that of its base model if it holds an adapter without a tokenizer."""
    with_base = is_adapter(folder) and not tokenizer_files.has_tokenizer(folder)
    return base_of(folder, weights=False).folder if with_base else folder


def read_config(folder: Path) -> dict[str, Any]:
    """The content of config.json, which for an adapter is its base model's.

    Raises InputError if it is missing or not a JSON object.
    """
    if is_adapter(folder):
        folder = base_of(folder, weights=False).folder
    if not (folder / "config.json").is_file():
        if any(folder.glob("*.gguf")):
            raise no_weights(str(folder), [file.name for file in folder.iterdir()])
        raise InputError(f"{folder} has no config.json; point to a folder that holds a model in Hugging Face layout")
    return read_object(folder / "config.json")


def local_folder(name: str) -> Path:
    """The folder that a name stands for if it is not a hub id."""
    return BUNDLED if name == "bundled" else Path(name).expanduser()


def find(
    folder_or_id: str | Path, revision: str | None = None, weights: bool = True, what: str = "model"
) -> tuple[Path, str | None]:
    """The local folder of a model, and the hub's commit if the model is from the hub, else None.

    A model of the hub is downloaded, unless it is in the local cache. `weights`: whether to download the weights too.
    `what`: how errors call it, a model or a tokenizer.
    Raises InputError if there is no such model or it cannot be fetched.
    """
    name = str(folder_or_id)
    folder = local_folder(name)
    if folder.is_dir():
        if revision is not None:
            raise InputError(
                f"{name} is a local folder, which has no revisions; leave the revision out or give a hub id"
            )
        return folder, None
    if folder.is_file() and name.endswith(".gguf"):
        raise no_weights(name, [name])
    problem = f"{name} is a file, not a folder" if folder.is_file() else f"no folder {name}"
    if not re.fullmatch(HUB_ID, name):
        raise InputError(f"{problem}; give a folder that holds a {what}, or a hub id such as openai-community/gpt2")
    with hub_errors(what, name, revision, f"{problem}, and "):
        path = Path(
            huggingface_hub.snapshot_download(
                name, revision=revision, allow_patterns=[*TEXTS, *(WEIGHTS if weights else [])]
            )
        )
        lacking = weights and not any(path.glob("*.safetensors"))
        if (lacking or not any((path / text).is_file() for text in TEXTS)) and not huggingface_hub.is_offline_mode():
            files = huggingface_hub.list_repo_files(name, revision=path.name)
            if any(file.endswith(".gguf") for file in files):
                raise no_weights(f"the model {name}", files)
    if lacking:
        raise InputError(
            f"the model {name} has no model.safetensors on the hub, and pickled weights are never loaded; "
            "choose a revision that has it"
        )
    return path, path.name
