"""Study files and the search space; imports neither torch nor optuna.

``schema`` has the keys of a study file, ``loader`` reads one, ``space`` samples its parameters.
"""

from searchae.config.loader import load_data_set, load_study_file, spec_from_document
from searchae.config.net_factory import (
    FACTORY_VARIABLE,
    NetFactory,
    allow_factory,
    find_factory,
)
from searchae.config.objectives import OBJECTIVES, Objective, objective_texts
from searchae.config.parameters import COMPARED_PARAMETERS, CONDITIONS, Parameter, Value
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
    middle_value,
    midpoint_params,
    model_choices,
    model_variants,
    params_of_trial,
    readable_params,
    sample_params,
    stored_value,
    values_of,
)
from searchae.config.study_file_catalog import find_study_file, study_files
from searchae.config.study_file_errors import explain_fault
from searchae.config.study_names import check_study_name, folder_name, is_folder_name
from searchae.config.study_spec import StudySpec
from searchae.config.toml_file import read_toml

__all__ = [
    "COMPARED_PARAMETERS",
    "CONDITIONS",
    "FACTORY_VARIABLE",
    "OBJECTIVES",
    "SOURCES_WITHOUT_PATH",
    "DataSpec",
    "Layer",
    "ModelParams",
    "NetFactory",
    "Objective",
    "Parameter",
    "Positive",
    "ProgressCallback",
    "SearchSpec",
    "Section",
    "StudySpec",
    "TrainParams",
    "TrialParams",
    "Value",
    "allow_factory",
    "batch_size_variants",
    "check_study_name",
    "explain_fault",
    "find_factory",
    "find_study_file",
    "folder_name",
    "initial_params",
    "is_folder_name",
    "load_data_set",
    "load_study_file",
    "middle_value",
    "midpoint_params",
    "model_choices",
    "model_variants",
    "objective_texts",
    "params_of_trial",
    "read_toml",
    "readable_params",
    "sample_params",
    "sampler_seed",
    "spec_from_document",
    "split_seed",
    "stored_value",
    "study_files",
    "training_seed",
    "values_of",
]
