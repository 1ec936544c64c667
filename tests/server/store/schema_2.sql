-- A store's file as the release with schema version 2 wrote it, dumped with sqlite3.iterdump(). Never edit.
BEGIN TRANSACTION;
CREATE TABLE counters (deployment TEXT PRIMARY KEY, head INTEGER NOT NULL) STRICT;
INSERT INTO "counters" VALUES('prod/v3',2);
INSERT INTO "counters" VALUES('prod/gone',1);
CREATE TABLE deployments (
    name TEXT PRIMARY KEY,
    spec TEXT NOT NULL,
    etag TEXT NOT NULL,
    generation INTEGER NOT NULL,
    committed INTEGER NOT NULL,
    created_at_s REAL NOT NULL
) STRICT;
INSERT INTO "deployments" VALUES('prod/v3','{"engine": "", "forecast": {"half_life_windows": 100.0, "recent_windows": 1}, "layer_ids": [3, 7], "migration": {"bytes_per_expert": 44000000, "inter_node_bytes_per_s": 50000000000.0, "intra_node_bytes_per_s": 450000000000.0}, "model_name": "", "num_expert_groups": 1, "num_logical_experts": 4, "policy": {"max_moved_slots": 2, "mode": "global", "name": "robust", "parameters": [], "seed": 0, "spill": 0}, "rollout_mode": "advisory", "rules": {"forbids_duplicates": false, "forbids_moves_inside_rank": false, "max_replicas": 0}, "samples": {"deadline_s": 10.0, "min_coverage": 0.75}, "topology": {"masked_ranks": [], "num_nodes": 1, "rank_capacities": [1.0, 0.5], "ranks_per_node": 2, "slots_per_rank": 3}, "trigger": {"cooldown_s": 0.0, "horizon_s": 300.0, "max_window_s": 600.0, "min_gain": 0.01, "min_samples": 1, "moe_time_fraction": 0.5, "safety": 2.0, "stall_fraction": 0.1, "window_samples": 4}}','ac8a979cc7fe4bff830f6c1db1842820',1,2,1000.0);
CREATE TABLE forecasts (
    deployment TEXT PRIMARY KEY REFERENCES deployments (name) ON DELETE CASCADE,
    generation INTEGER NOT NULL,
    checkpoint BLOB NOT NULL,
    written_at_s REAL NOT NULL
) STRICT;
INSERT INTO "forecasts" VALUES('prod/v3',1,X'6C6561726E6564',1200.0);
CREATE TABLE plans (
    deployment TEXT NOT NULL REFERENCES deployments (name) ON DELETE CASCADE,
    version INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    parent INTEGER NOT NULL,
    state TEXT NOT NULL,
    digest TEXT NOT NULL,
    num_layers INTEGER NOT NULL,
    num_slots INTEGER NOT NULL,
    num_logical_experts INTEGER NOT NULL,
    phy2log BLOB NOT NULL,
    provenance TEXT NOT NULL,
    created_at_s REAL NOT NULL, transfers BLOB,
    PRIMARY KEY (deployment, version)
) STRICT;
INSERT INTO "plans" VALUES('prod/v3',1,1,1,0,'superseded','11d83d7604921c0e447daeeaa447b2b95dbba65e55cae97aa7bd27c107322be5',2,6,4,X'000001000200030000000100030002000100000003000200','{"balance": {"balancedness": 0.8, "mean": 0.8, "minimum": 0.8, "per_layer": [0.75, 0.85]}, "balance_before": {"balancedness": 0.6, "mean": 0.6, "minimum": 0.6, "per_layer": [0.6]}, "cost_s": 0.5, "evaluation": "in_sample", "gain": 0.25, "gain_s": 37.5, "is_drifting": false, "mode": "global", "most_moved_slots": 2, "moved_slots": 2, "necessity": null, "parameters": [["rounds", "2"]], "policy": "deepseek", "reason": "PUBLISHED", "seed": 0, "solve_s": 0.001, "spill": 0, "transfers": {"estimated_s": 0.25, "total_bytes": 88000000}}',1100.5,X'000002000200010000000200000001000100020000000200');
INSERT INTO "plans" VALUES('prod/v3',2,1,1,1,'applied','e0b94c6761a3f64168f8130c5e2adb5384b3d3959907fc1d358f194e2ab35794',2,6,4,X'000002000100030000000100030001000200000003000200','{"balance": {"balancedness": 0.8, "mean": 0.8, "minimum": 0.8, "per_layer": [0.75, 0.85]}, "balance_before": {"balancedness": 0.6, "mean": 0.6, "minimum": 0.6, "per_layer": [0.6]}, "cost_s": 0.5, "evaluation": "in_sample", "gain": 0.25, "gain_s": 37.5, "is_drifting": false, "mode": "global", "most_moved_slots": 2, "moved_slots": 2, "necessity": null, "parameters": [["rounds", "2"]], "policy": "deepseek", "reason": "PUBLISHED", "seed": 0, "solve_s": 0.001, "spill": 0, "transfers": {"estimated_s": 0.25, "total_bytes": 88000000}}',1101.5,X'000002000200010000000200000001000100020000000200');
CREATE TABLE requests (
    request_id TEXT PRIMARY KEY,
    call TEXT NOT NULL,
    created_at_s REAL NOT NULL
) STRICT;
INSERT INTO "requests" VALUES('r1','create prod/v3',1000.0);
INSERT INTO "requests" VALUES('r2','delete prod/gone',1002.0);
CREATE TABLE term (id INTEGER PRIMARY KEY CHECK (id = 1), epoch INTEGER NOT NULL) STRICT;
INSERT INTO "term" VALUES(1,1);
PRAGMA user_version = 2;
COMMIT;
