"""Study files and the search space; imports neither torch nor optuna.

``schema`` has the keys of a study file, ``loader`` reads one, ``space`` samples its parameters.
"""

from searchae.config.data_spec import SOURCES_WITHOUT_PATH, DataSpec
from searchae.config.loader import (
    apply_overrides,
    load_data_set,
    load_study_file,
    load_study_tables,
    spec_from_document,
)
from searchae.config.net_factory import (
    FACTORY_VARIABLE,
    NetFactory,
    allow_factory,
    below_here,
    factory_here,
    factory_hint,
    find_factory,
)
from searchae.config.objectives import OBJECTIVES, Objective, objective_texts
from searchae.config.parameters import (
    COMPARED_PARAMETERS,
    CONDITIONS,
    Parameter,
    Value,
    comparable,
    compared_by_default,
)
from searchae.config.schema import Layer, ModelParams, ProgressCallback, TrainParams, TrialParams
from searchae.config.search_spec import SearchSpec
from searchae.config.section import Positive, Section
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
    untried_choices,
    values_of,
)
from searchae.config.study_draft import (
    LIKES,
    USUAL,
    DraftImages,
    StudyDraft,
    check_like,
    draft_study,
)
from searchae.config.study_file_catalog import (
    built_in_studies,
    find_study_file,
    note_on_study_file,
    study_files,
)
from searchae.config.study_file_errors import explain_fault
from searchae.config.study_names import check_study_name, folder_name, is_folder_name
from searchae.config.study_spec import StudySpec
from searchae.config.toml_file import read_toml, read_toml_text, toml_value
from searchae.config.toml_text import study_toml

__all__ = [
    "COMPARED_PARAMETERS",
    "CONDITIONS",
    "FACTORY_VARIABLE",
    "LIKES",
    "OBJECTIVES",
    "SOURCES_WITHOUT_PATH",
    "USUAL",
    "DataSpec",
    "DraftImages",
    "Layer",
    "ModelParams",
    "NetFactory",
    "Objective",
    "Parameter",
    "Positive",
    "ProgressCallback",
    "SearchSpec",
    "Section",
    "StudyDraft",
    "StudySpec",
    "TrainParams",
    "TrialParams",
    "Value",
    "allow_factory",
    "apply_overrides",
    "batch_size_variants",
    "below_here",
    "built_in_studies",
    "check_like",
    "check_study_name",
    "comparable",
    "compared_by_default",
    "draft_study",
    "explain_fault",
    "factory_here",
    "factory_hint",
    "find_factory",
    "find_study_file",
    "folder_name",
    "initial_params",
    "is_folder_name",
    "load_data_set",
    "load_study_file",
    "load_study_tables",
    "middle_value",
    "midpoint_params",
    "model_choices",
    "model_variants",
    "note_on_study_file",
    "objective_texts",
    "params_of_trial",
    "read_toml",
    "read_toml_text",
    "readable_params",
    "sample_params",
    "sampler_seed",
    "spec_from_document",
    "split_seed",
    "stored_value",
    "study_files",
    "study_toml",
    "toml_value",
    "training_seed",
    "untried_choices",
    "values_of",
]
