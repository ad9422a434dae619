BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE searchae_leases (
	trial_id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	worker VARCHAR(64), 
	place VARCHAR(255), 
	process VARCHAR(64), 
	beat_at DOUBLE NOT NULL, 
	losses INTEGER NOT NULL, 
	PRIMARY KEY (trial_id)
);
INSERT INTO "searchae_leases" VALUES(7,1,NULL,'somewhere|39e01894-d73c-4613-bd15-54faf460d965|pid:[4026531836]','18366:170309',1.7958822133623285294e+09,0);
CREATE TABLE searchae_workers (
	worker VARCHAR(64) NOT NULL, 
	study_id INTEGER NOT NULL, 
	host VARCHAR(255) NOT NULL, 
	pid INTEGER NOT NULL, 
	place VARCHAR(255) NOT NULL, 
	process VARCHAR(64) NOT NULL, 
	device VARCHAR(64) NOT NULL, 
	trial INTEGER, 
	epoch INTEGER, 
	started_at DOUBLE NOT NULL, 
	beat_at DOUBLE NOT NULL, 
	PRIMARY KEY (worker)
);
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'tiny');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MAXIMIZE',1,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_system_attributes" VALUES(1,1,'study:metric_names','["psnr_db"]');
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_user_attributes" VALUES(1,1,'searchae:data_hash','"a1b71b63a463e61279abe94761a2eb7fa793a5f90331252130aa562b999fb59c"');
INSERT INTO "study_user_attributes" VALUES(2,1,'searchae:baseline_db','10.210281193256378');
INSERT INTO "study_user_attributes" VALUES(3,1,'searchae:versions','{"python": "3.11.7", "searchae": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "optuna": "5.0.0", "numpy": "2.4.6"}');
INSERT INTO "study_user_attributes" VALUES(4,1,'searchae:spec','{"description": "A study begun by searchae 0.1.0, to be finished by later versions", "seed": 0, "data": {"name": "npz", "path": "images.npz", "test_path": null, "validation": 0.25, "train_images": null, "test_images": null, "image_size": 32, "grayscale": false}, "model": {"kind": "dense", "channels": [32, 64, 128], "kernel_size": 3, "downsample": "stride", "encoder": null, "decoder": null, "bottleneck": "dense", "batch_norm": false, "hidden": [8], "latent_dim": 4, "latent_activation": "none", "output": "sigmoid", "image_range": "unit", "activation": {"choices": ["relu", "tanh"]}}, "train": {"epochs": 6, "batch_size": 8, "optimizer": "adam", "momentum": 0.0, "weight_decay": 0.0, "clip": 0.5, "l1_target": "latent", "noise_std": 0.0, "noise_from_epoch": 1, "patience": 0, "min_delta_db": 0.01, "learning_rate": {"low": 0.001, "high": 0.1, "log": true}, "regularizer": {"choices": ["clip", "clip+l1"]}, "l1_weight": {"low": 1e-06, "high": 0.01, "log": true}}, "search": {"trials": 12, "sampler": "tpe", "pruner": "successive-halving", "min_epochs": 1, "reduction_factor": 2, "startup_trials": 10, "first": [], "midpoint_first": true, "heartbeat_s": 20.0, "grace_s": 300.0, "max_attempts": 3}}');
INSERT INTO "study_user_attributes" VALUES(5,1,'searchae:splits','{"train": 48, "validation": 16, "test": 16, "image_shape": [1, 8, 8], "bytes": 5120, "hash": "a1b71b63a463e61279abe94761a2eb7fa793a5f90331252130aa562b999fb59c"}');
INSERT INTO "study_user_attributes" VALUES(6,1,'searchae:budget','12');
INSERT INTO "study_user_attributes" VALUES(7,1,'searchae:time_limit','null');
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_intermediate_values" VALUES(1,1,1,9.33472316372256649685e+00,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(2,1,2,9.60888837857561561861e+00,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(3,1,3,9.85737390243320454885e+00,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(4,1,4,1.00543225229470110091e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(5,1,5,1.01573029367417575483e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(6,1,6,1.02903641527427414104e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(7,2,1,1.08643967231399045663e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(8,2,2,1.09774736313890119987e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(9,2,3,1.1372259695088160925e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(10,2,4,1.09615300113781390935e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(11,2,5,1.15084701613883559905e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(12,2,6,1.14292303109111408336e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(13,3,1,9.67647415581103231829e+00,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(14,4,1,9.11016901212124530218e+00,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(15,5,1,1.00357134628426027946e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(16,5,2,1.01648075286568939645e+01,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(17,6,1,9.19738579713249393421e+00,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(18,7,1,9.9482255670025,'FINITE');
INSERT INTO "trial_intermediate_values" VALUES(19,7,2,1.00564098478259857929e+01,'FINITE');
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'activation',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", "tanh"]}}');
INSERT INTO "trial_params" VALUES(2,1,'learning_rate',0.01,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.1, "log": true}}');
INSERT INTO "trial_params" VALUES(3,1,'regularizer',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["clip", "clip+l1"]}}');
INSERT INTO "trial_params" VALUES(4,2,'activation',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", "tanh"]}}');
INSERT INTO "trial_params" VALUES(5,2,'learning_rate',0.0564224340214117,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.1, "log": true}}');
INSERT INTO "trial_params" VALUES(6,2,'regularizer',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["clip", "clip+l1"]}}');
INSERT INTO "trial_params" VALUES(7,3,'activation',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", "tanh"]}}');
INSERT INTO "trial_params" VALUES(8,3,'learning_rate',9.99022056101131136762e-03,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.1, "log": true}}');
INSERT INTO "trial_params" VALUES(9,3,'regularizer',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["clip", "clip+l1"]}}');
INSERT INTO "trial_params" VALUES(10,4,'activation',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", "tanh"]}}');
INSERT INTO "trial_params" VALUES(11,4,'learning_rate',2.42596695503538182722e-03,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.1, "log": true}}');
INSERT INTO "trial_params" VALUES(12,4,'regularizer',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["clip", "clip+l1"]}}');
INSERT INTO "trial_params" VALUES(13,5,'activation',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", "tanh"]}}');
INSERT INTO "trial_params" VALUES(14,5,'learning_rate',7.16132483543450437668e-02,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.1, "log": true}}');
INSERT INTO "trial_params" VALUES(15,5,'regularizer',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["clip", "clip+l1"]}}');
INSERT INTO "trial_params" VALUES(16,5,'l1_weight',3.90709797020736751679e-05,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 1e-06, "high": 0.01, "log": true}}');
INSERT INTO "trial_params" VALUES(17,6,'activation',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", "tanh"]}}');
INSERT INTO "trial_params" VALUES(18,6,'learning_rate',1.62476100458085496655e-03,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.1, "log": true}}');
INSERT INTO "trial_params" VALUES(19,6,'regularizer',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["clip", "clip+l1"]}}');
INSERT INTO "trial_params" VALUES(20,6,'l1_weight',4.93592039240889888553e-04,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 1e-06, "high": 0.01, "log": true}}');
INSERT INTO "trial_params" VALUES(21,7,'activation',0.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["relu", "tanh"]}}');
INSERT INTO "trial_params" VALUES(22,7,'learning_rate',9.78422653935639152766e-02,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 0.001, "high": 0.1, "log": true}}');
INSERT INTO "trial_params" VALUES(23,7,'regularizer',1.0,'{"name": "CategoricalDistribution", "attributes": {"choices": ["clip", "clip+l1"]}}');
INSERT INTO "trial_params" VALUES(24,7,'l1_weight',3.12734951954286657135e-05,'{"name": "FloatDistribution", "attributes": {"step": null, "low": 1e-06, "high": 0.01, "log": true}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_system_attributes" VALUES(1,1,'fixed_params','{"activation": "relu", "learning_rate": 0.01, "regularizer": "clip"}');
INSERT INTO "trial_system_attributes" VALUES(2,1,'completed_rung_0','9.334723163722566');
INSERT INTO "trial_system_attributes" VALUES(3,1,'completed_rung_1','9.608888378575616');
INSERT INTO "trial_system_attributes" VALUES(4,1,'completed_rung_2','10.054322522947011');
INSERT INTO "trial_system_attributes" VALUES(5,2,'completed_rung_0','10.864396723139905');
INSERT INTO "trial_system_attributes" VALUES(6,2,'completed_rung_1','10.977473631389012');
INSERT INTO "trial_system_attributes" VALUES(7,2,'completed_rung_2','10.961530011378139');
INSERT INTO "trial_system_attributes" VALUES(8,3,'completed_rung_0','9.676474155811032');
INSERT INTO "trial_system_attributes" VALUES(9,4,'completed_rung_0','9.110169012121245');
INSERT INTO "trial_system_attributes" VALUES(10,5,'completed_rung_0','10.035713462842603');
INSERT INTO "trial_system_attributes" VALUES(11,5,'completed_rung_1','10.164807528656894');
INSERT INTO "trial_system_attributes" VALUES(12,6,'completed_rung_0','9.197385797132494');
INSERT INTO "trial_system_attributes" VALUES(13,7,'completed_rung_0','9.9482255670025');
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'searchae:runtime','{"worker": "somewhere-18366-764f2268", "host": "somewhere", "device": "cpu", "precision": "fp32", "kernels": "torch", "threads": 1, "cpu": "AVX512", "python": "3.11.7", "searchae": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "optuna": "5.0.0", "numpy": "2.4.6"}');
INSERT INTO "trial_user_attributes" VALUES(2,1,'searchae:history','{"train_mse": [0.113284, 0.105628, 0.0994451, 0.0937292, 0.0896058, 0.0858319], "val_mse": [0.116736, 0.109638, 0.103978, 0.099353, 0.0974158, 0.0945817], "psnr_of_mse_db": [9.32793, 9.6004, 9.83058, 10.0282, 10.1137, 10.2419], "sparsity": [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], "seconds": [0.00592143, 0.0078056, 0.0052864, 0.00581051, 0.00619571, 0.00566064]}');
INSERT INTO "trial_user_attributes" VALUES(3,2,'searchae:runtime','{"worker": "somewhere-18366-764f2268", "host": "somewhere", "device": "cpu", "precision": "fp32", "kernels": "torch", "threads": 1, "cpu": "AVX512", "python": "3.11.7", "searchae": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "optuna": "5.0.0", "numpy": "2.4.6"}');
INSERT INTO "trial_user_attributes" VALUES(4,2,'searchae:history','{"train_mse": [0.0941795, 0.0727533, 0.0749818, 0.0704134, 0.0671025, 0.0661555], "val_mse": [0.0853681, 0.0848313, 0.0825032, 0.0878181, 0.0773339, 0.0784196], "psnr_of_mse_db": [10.687, 10.7144, 10.8353, 10.5642, 11.1163, 11.0558], "sparsity": [0.0, 0.0, 0.0, 0.0, 0.0, 0.0], "seconds": [0.00365754, 0.00454901, 0.00743866, 0.010981, 0.00789458, 0.00333691]}');
INSERT INTO "trial_user_attributes" VALUES(5,3,'searchae:runtime','{"worker": "somewhere-18366-764f2268", "host": "somewhere", "device": "cpu", "precision": "fp32", "kernels": "torch", "threads": 1, "cpu": "AVX512", "python": "3.11.7", "searchae": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "optuna": "5.0.0", "numpy": "2.4.6"}');
INSERT INTO "trial_user_attributes" VALUES(6,3,'searchae:history','{"train_mse": [0.10738], "val_mse": [0.108109], "psnr_of_mse_db": [9.66138], "sparsity": [0.0], "seconds": [0.00396852]}');
INSERT INTO "trial_user_attributes" VALUES(7,4,'searchae:runtime','{"worker": "somewhere-18366-764f2268", "host": "somewhere", "device": "cpu", "precision": "fp32", "kernels": "torch", "threads": 1, "cpu": "AVX512", "python": "3.11.7", "searchae": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "optuna": "5.0.0", "numpy": "2.4.6"}');
INSERT INTO "trial_user_attributes" VALUES(8,4,'searchae:history','{"train_mse": [0.115772], "val_mse": [0.122902], "psnr_of_mse_db": [9.10441], "sparsity": [0.0], "seconds": [0.0042315]}');
INSERT INTO "trial_user_attributes" VALUES(9,5,'searchae:runtime','{"worker": "somewhere-18366-764f2268", "host": "somewhere", "device": "cpu", "precision": "fp32", "kernels": "torch", "threads": 1, "cpu": "AVX512", "python": "3.11.7", "searchae": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "optuna": "5.0.0", "numpy": "2.4.6"}');
INSERT INTO "trial_user_attributes" VALUES(10,5,'searchae:history','{"train_mse": [0.102828, 0.0889342], "val_mse": [0.0998566, 0.0980399], "psnr_of_mse_db": [10.0062, 10.086], "sparsity": [0.0, 0.0], "seconds": [0.00454675, 0.00579913]}');
INSERT INTO "trial_user_attributes" VALUES(11,6,'searchae:runtime','{"worker": "somewhere-18366-764f2268", "host": "somewhere", "device": "cpu", "precision": "fp32", "kernels": "torch", "threads": 1, "cpu": "AVX512", "python": "3.11.7", "searchae": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "optuna": "5.0.0", "numpy": "2.4.6"}');
INSERT INTO "trial_user_attributes" VALUES(12,6,'searchae:history','{"train_mse": [0.113107], "val_mse": [0.120566], "psnr_of_mse_db": [9.18776], "sparsity": [0.0], "seconds": [0.00400319]}');
INSERT INTO "trial_user_attributes" VALUES(13,7,'searchae:runtime','{"worker": "somewhere-18366-764f2268", "host": "somewhere", "device": "cpu", "precision": "fp32", "kernels": "torch", "threads": 1, "cpu": "AVX512", "python": "3.11.7", "searchae": "0.1.0", "torch": "2.14.1", "torchvision": "0.29.1", "optuna": "5.0.0", "numpy": "2.4.6"}');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,1.02903641527427414104e+01,'FINITE');
INSERT INTO "trial_values" VALUES(2,2,0,1.14292303109111408336e+01,'FINITE');
INSERT INTO "trial_values" VALUES(3,3,0,9.67647415581103231829e+00,'FINITE');
INSERT INTO "trial_values" VALUES(4,4,0,9.11016901212124530218e+00,'FINITE');
INSERT INTO "trial_values" VALUES(5,5,0,1.01648075286568939645e+01,'FINITE');
INSERT INTO "trial_values" VALUES(6,6,0,9.19738579713249393421e+00,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-28 16:10:12.880784','2026-11-28 16:10:13.182879');
INSERT INTO "trials" VALUES(2,1,1,'COMPLETE','2026-11-28 16:10:13.209145','2026-11-28 16:10:13.265894');
INSERT INTO "trials" VALUES(3,2,1,'PRUNED','2026-11-28 16:10:13.280447','2026-11-28 16:10:13.295204');
INSERT INTO "trials" VALUES(4,3,1,'PRUNED','2026-11-28 16:10:13.303491','2026-11-28 16:10:13.318807');
INSERT INTO "trials" VALUES(5,4,1,'PRUNED','2026-11-28 16:10:13.323544','2026-11-28 16:10:13.344607');
INSERT INTO "trials" VALUES(6,5,1,'PRUNED','2026-11-28 16:10:13.348646','2026-11-28 16:10:13.359971');
INSERT INTO "trials" VALUES(7,6,1,'WAITING','2026-11-28 16:10:13.363668',NULL);
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE INDEX ix_trials_study_id ON trials (study_id);
CREATE INDEX ix_searchae_leases_study_id ON searchae_leases (study_id);
CREATE INDEX ix_searchae_workers_study_id ON searchae_workers (study_id);
COMMIT;
