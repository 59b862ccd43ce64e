"""The same again: seeds by key, the state of every generator, checkpoints that are whole or absent, run manifests.

Importing this does nothing; it needs torch, safetensors and the standard library.
"""

from bedstone.repro.cache import cache_folder
from bedstone.repro.checkpoint import Checkpoint, CheckpointDamaged, CheckpointStore
from bedstone.repro.checkpoint_folder import CheckpointError, CheckpointVersionError, read_folder, verify_folder
from bedstone.repro.compare import Difference, first_difference
from bedstone.repro.files import sha256_file, write_json_atomic
from bedstone.repro.fingerprint import canonical_json, fingerprint
from bedstone.repro.lock import RunLock
from bedstone.repro.manifest import manifest
from bedstone.repro.rng import capture_rng, restore_rng
from bedstone.repro.seeds import SeedTree, seed_everything
from bedstone.repro.tree import FlatTree, Tree, flatten, unflatten

__all__ = [
    "Checkpoint",
    "CheckpointDamaged",
    "CheckpointError",
    "CheckpointStore",
    "CheckpointVersionError",
    "Difference",
    "FlatTree",
    "RunLock",
    "SeedTree",
    "Tree",
    "cache_folder",
    "canonical_json",
    "capture_rng",
    "fingerprint",
    "first_difference",
    "flatten",
    "manifest",
    "read_folder",
    "restore_rng",
    "seed_everything",
    "sha256_file",
    "unflatten",
    "verify_folder",
    "write_json_atomic",
]
