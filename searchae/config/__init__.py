"""Study files and the search space; imports neither torch nor optuna.

``schema`` has the keys of a study file, ``loader`` reads one, ``space`` samples its parameters.
"""

from searchae.config.loader import load_study_file, spec_from_document
from searchae.config.parameters import CONDITIONS, Parameter, Value
from searchae.config.schema import (
    SOURCES_WITHOUT_PATH,
    DataSpec,
    Layer,
    ModelParams,
    Positive,
    ProgressCallback,
    SearchSpec,
    Section,
    TrainParams,
    TrialParams,
)
from searchae.config.seeds import sampler_seed, split_seed, training_seed
from searchae.config.space import (
    batch_size_variants,
    initial_params,
    model_variants,
    params_of_trial,
    readable_params,
    sample_params,
    stored_value,
)
from searchae.config.study_file_catalog import find_study_file, study_files
from searchae.config.study_spec import StudySpec

__all__ = [
    "CONDITIONS",
    "SOURCES_WITHOUT_PATH",
    "DataSpec",
    "Layer",
    "ModelParams",
    "Parameter",
    "Positive",
    "ProgressCallback",
    "SearchSpec",
    "Section",
    "StudySpec",
    "TrainParams",
    "TrialParams",
    "Value",
    "batch_size_variants",
    "find_study_file",
    "initial_params",
    "load_study_file",
    "model_variants",
    "params_of_trial",
    "readable_params",
    "sample_params",
    "sampler_seed",
    "spec_from_document",
    "split_seed",
    "stored_value",
    "study_files",
    "training_seed",
]
