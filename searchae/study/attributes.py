"""Keys of the attributes that searchae stores with Optuna's studies and trials.

All values are JSON. ``searchae.study.epoch_history.HISTORY`` and ``searchae.search.PAUSED`` are
further attributes of a trial.
"""

from __future__ import annotations

from types import UnionType

# User attributes of a study, written when it is created. Only SPEC may change later, in keys that
# change no result.

CREATING = "searchae:creating"
"""bool: Stands in a study from its first moment until it has been created to the end. A study with
it and without ``SPEC`` may be replaced, and no other: a study that another program has just made is
as empty."""

DATA_HASH = "searchae:data_hash"
"""str: SHA-256 of the images, in hexadecimal."""

IDENTITY = "searchae:identity"
"""str: 32 random hexadecimal digits. Files belong to the study that has the identity they were
written with, not to a name, which another study may have had before. Absent in studies of earlier
versions."""

FOLDER = "searchae:folder"
"""str: Name of the study's folder below the artifact folder. Absent: as the study's name."""

SHARES_FOLDER = "searchae:shares_folder"
"""str: The database in which a copy of the study has the same folder, without the password: the
folder is not removed with either. Absent where there is none."""

CREATED = "searchae:created"
"""float: When the study was made, in seconds since 1970. Absent in studies of earlier versions."""

BASELINE_DB = "searchae:baseline_db"
"""float: PSNR in dB of the mean training image on the validation split."""

VERSIONS = "searchae:versions"
"""dict[str, str]: Package -> version that created the study; see ``package_versions``."""

IMPORTED = "searchae:imported"
"""dict[str, int]: State (``complete``, ``pruned``) -> number of trials imported by a warm start.
Absent without a warm start."""

STARTING = "searchae:starting_points"
"""int: Number of trials that were enqueued by a warm start from a study of other images. Absent
without one."""

FOREIGN = "searchae:foreign"
"""dict[str, int]: State (``complete``, ``pruned``) -> number of trials that another program added
and that do not fit into the study; see ``foreign_trials``. Absent without any."""

SPEC = "searchae:spec"
"""dict: The study file after all overrides, as ``StudySpec.document`` writes it. The last attribute
that a new study gets."""

TRAININGS_OF = "searchae:trainings_of"
"""str: The study whose trainings this one lists; absent for a search. See ``training_list``."""

# User attributes of a study that change while it is worked on.

SPLITS = "searchae:splits"
"""dict: The images' splits, as ``data.describe_splits`` writes them."""

DECODED = "searchae:decoded"
"""dict[str, str]: Split -> SHA-256 of its images in the cache of decoded images."""

COMPARISON = "searchae:comparison"
"""str: SHA-256 of the file with the last result of ``compare``."""

BUDGET = "searchae:budget"
"""int: How many trials have to end COMPLETE or PRUNED. Absent: ``search.trials`` of the spec."""

ASKED_TRIALS = "searchae:asked_trials"
"""int: The budget that somebody asked for by name (``--trials``), rather than by the study file."""

EARLY_END = "searchae:early_end"
"""dict[str, int]: How the search ended by itself the last time, see ``early_end``; absent if it
never did."""

TIME_LIMIT = "searchae:time_limit"
"""float | None: When work ends, in seconds since 1970 by the database's clock; None for never."""

OPEN_UNTIL = "searchae:open_until"
"""dict[str, float]: Process that decides on more trainings of a list -> until when workers wait for
it, in seconds since 1970 by the database's clock."""

STOPPED = "searchae:stopped"
"""str: Why no more trials are given out; empty or absent while they are."""

STOP_ASKED = "searchae:stop_asked"
"""str: Who asked for a stop, as ``USER on HOST``: workers leave after their epoch. Empty or absent
while nobody does."""

QUARANTINED = "searchae:quarantined:"
"""str: Prefix of a key that ends with a worker's name. Why that worker left for good; empty once
the study has been started again."""

WINNER = "searchae:winner"
"""dict: The best trial by ``compare --top``: ``number``, ``seeds`` and ``mean_db``."""

COMPARED = "searchae:compared"
"""dict: The best setting that ``compare`` measured: ``number`` of its first training in the list of
trainings, ``mean_db`` and ``seeds``."""

FACTORY = "searchae:factory"
"""str: Where ``tune`` last found the code of a net of one's own, as ``FILE.py:FUNCTION``. It is
shown in hints; nothing is run because of it."""

TYPES: dict[str, type | UnionType] = {
    SPEC: dict,
    DATA_HASH: str,
    IDENTITY: str,
    FOLDER: str,
    SHARES_FOLDER: str,
    CREATED: float | int,
    BASELINE_DB: float | int,
    VERSIONS: dict,
    IMPORTED: dict,
    STARTING: int,
    FOREIGN: dict,
    TRAININGS_OF: str,
    SPLITS: dict,
    DECODED: dict,
    COMPARISON: str,
    BUDGET: int,
    ASKED_TRIALS: int,
    EARLY_END: dict,
    TIME_LIMIT: float | int | None,
    OPEN_UNTIL: dict,
    STOPPED: str,
    STOP_ASKED: str,
    WINNER: dict,
    COMPARED: dict,
    FACTORY: str,
}
"""The types of a study's attributes: other programs can write them too."""

# User attributes of a trial.

WITHDRAWN = "withdrawn"
"""The ``OUTCOME`` of a listed trial that was taken off the list before it was begun. It is FAIL."""

TRAINING = "searchae:training"
"""dict: What a listed trial trains, see ``ListedTraining.document``. Absent in a search."""

MEASURED = "searchae:measured"
"""dict: Measurements of a listed trial on the test split, see ``training_record``, with the
``sha256`` of the file that holds all of them."""

WARM_START = "searchae:warm_start"
"""str: The study and trial that an imported trial was copied from, as ``NAME #NUMBER``."""

STARTED_FROM = "searchae:started_from"
"""str: The study of other images and its trial whose parameters this trial has, as ``NAME
#NUMBER``."""

PAUSED_BYTES = "searchae:paused_bytes"
"""int: The bytes that the checkpoints of a paused trial take. Absent while it is not paused."""

RUNTIME = "searchae:runtime"
"""dict: Worker, device, precision and versions that trained it last; see ``worker.hardware``."""

OUTCOME = "searchae:outcome"
"""str: How a trial ended badly: ``diverged``, ``dead``, ``out-of-memory``, ``lost``, ``bug`` or
``invalid``. Absent for every other trial."""

REFUSED = "searchae:refused"
"""int: How many nets above ``search.max_parameters`` came before its own. Absent for none."""

REPEATED = "searchae:repeated_epochs"
"""int: How many of its epochs were trained again, since no checkpoint held them. Absent for none.
The last epoch before a worker was killed is often among them."""

ERROR = "searchae:error"
"""str: The message or the traceback of the error behind ``OUTCOME``."""
