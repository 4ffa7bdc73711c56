//! `postern rehearse` on the scenarios of this repository, and on broken copies of them.

use std::process::Command;

use rstest::rstest;
use serde_json::Value;

use crate::scenario_copy::{Copy, found, planted};

#[test]
fn the_consolidation_fails_before_as_documented_and_passes_after() {
    let copy = Copy::of("consolidation");
    let rehearsed = copy.rehearse(&[]);
    assert_eq!(rehearsed.code, Some(0), "{}", rehearsed.said());
    assert_eq!(rehearsed.reasons(), Vec::<&str>::new());

    assert_eq!(rehearsed.unexpected("consolidation"), Vec::<String>::new());
    // The training table goes from 0 scored games to 94.
    let scored = |phase: &str| rehearsed.message(phase, "enhanced_games_scored");
    assert!(
        scored("before").contains("0 of 100 rows complete"),
        "{}",
        scored("before")
    );
    assert!(
        scored("after").contains("94 of 100 rows complete"),
        "{}",
        scored("after")
    );

    let steps = rehearsed.report["migrations"]["steps"].as_array().unwrap();
    let passes = |pass: &str| steps.iter().filter(|step| step["pass"] == pass).count();
    assert!(passes("down") > 0);
    assert_eq!(passes("down"), passes("up again"));
    assert_eq!(
        passes("up"),
        passes("down") + 1,
        "all but the last are reversible"
    );
    assert_eq!(rehearsed.report["workloads"][0]["rows"], 94);

    // The same report three times: on stdout, as text, as JUnit.
    let latest = copy.path().join("reports/latest");
    let text = std::fs::read(latest.join("report.txt")).unwrap();
    assert_eq!(text, rehearsed.output.stdout);
    let junit = std::fs::read_to_string(latest.join("report.junit.xml")).unwrap();
    assert!(junit.contains("failures=\"0\" errors=\"0\""), "{junit}");
    assert!(junit.contains("name=\"four_schemas\""), "{junit}");
    // What the README shows of it is what it says.
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let said: Vec<String> = rehearsed.said().lines().map(words).collect();
    let readme = std::fs::read_to_string("README.md").unwrap();
    let is_shown = |line: &&str| line.contains("| fail  ") || line.starts_with("after: ready");
    let shown: Vec<&str> = readme.lines().filter(is_shown).collect();
    assert_eq!(shown.len(), 5, "{shown:#?}");
    for line in shown {
        assert!(said.contains(&words(line)), "{line}");
    }
}

/// The row counts of the phase 4 plan, the guide and the integrity plan.
#[test]
fn the_legacy_database_holds_what_the_documents_say() {
    let copy = Copy::of("consolidation");
    let documented = [
        ("public.sbr_parsed_games", 19_436),
        ("public.sbr_raw_html", 418),
        ("public.game_outcomes", 1_281),
        ("public.migration_log", 17),
        ("public.migration_log_phase2b", 13),
        ("public.benchmark_performance", 200),
        ("public.benchmark_test", 500),
        ("public.concurrency_test", 0),
        ("public.performance_test", 50),
        ("public.test_parallel", 100),
        ("public.test_table", 1),
        ("action.dim_teams", 30),
        ("action.teams_formatted", 30),
        ("action.fact_games", 15),
        ("action.games_with_teams", 15),
        ("splits.games", 252),
        ("splits.sharp_actions", 0),
        ("tracking.active_high_roi_strategies", 20),
        ("tracking.active_strategy_configs", 20),
        ("tracking.strategy_integration_log", 138),
        ("tracking.pre_game_recommendations", 5),
        ("validation.strategy_records", 0),
        ("backtesting.strategy_configurations", 36),
        ("backtesting.strategy_config_history", 26),
        ("backtesting.strategy_config_cache", 0),
        ("backtesting.threshold_configurations", 12),
        ("backtesting.orchestrator_update_triggers", 64),
        ("backtesting.recent_config_changes", 20),
        ("backtesting.strategy_alerts", 0),
        ("backtesting.strategy_lifecycle_events", 0),
        ("backtesting.alignment_analysis", 0),
        ("backtesting.threshold_recommendations", 0),
        ("backtesting.standardization_audit_log", 17),
        ("backtesting.strategy_performance_backup", 0),
        ("curated.enhanced_games", 100),
    ];
    let gates: String = documented
        .iter()
        .map(|(table, rows)| {
            format!(
                "[[gate]]\nid = '{table}'\nkind = 'row_count'\ntable = '{table}'\nequals = {rows}\n"
            )
        })
        .collect();
    let folder = copy.path();
    std::fs::write(folder.join("gates/counts.toml"), gates).unwrap();
    copy.edit(
        "",
        "scenario.toml",
        "gates = [\"../../gates/consolidation\"]",
        "gates = [\"../../gates/counts.toml\"]",
    );
    let scenario = folder.join("fixtures/consolidation/scenario.toml");
    let text = std::fs::read_to_string(&scenario).unwrap();
    std::fs::write(&scenario, text.split("[before.vars]").next().unwrap()).unwrap();
    let rehearsed = copy.rehearse(&[]);
    let outcomes = rehearsed.outcomes("before");
    assert_eq!(outcomes.len(), documented.len());
    for (table, outcome) in outcomes {
        assert_eq!(
            outcome,
            "passed",
            "{table}: {}",
            rehearsed.gate("before", &table)
        );
    }
}

#[test]
fn the_gates_find_exactly_what_was_planted() {
    let rehearsed = Copy::of("consolidation").rehearse(&[]);
    assert_eq!(found(&rehearsed), planted("consolidation"));
}

/// Every migration has a gate that notices when it is wrong.
#[rstest]
#[case::a_table_is_missing(
    "001",
    "operational.system_health_checks",
    "operational.health",
    "documented_tables_exist"
)]
#[case::rows_are_not_copied(
    "002",
    "insert into core_betting.betting_lines_spreads select * from mlb_betting.spreads;",
    "",
    "zero_data_loss"
)]
#[case::outcomes_are_not_synced(
    "003",
    "where o.game_id = e.game_id",
    "where o.id = e.game_id",
    "enhanced_games_scored"
)]
#[case::a_remaining_table_is_missing(
    "004",
    "operational.strategy_alerts",
    "operational.alerts",
    "documented_tables_exist"
)]
#[case::teams_are_not_merged("005", "where f.team_id = t.team_id", "where false", "teams_enriched")]
#[case::mock_data_stays("006", "'dummy_strategy'", "'another_strategy'", "no_mock_data")]
#[case::a_key_is_not_validated(
    "007",
    "add constraint game_outcomes_game_id_fkey foreign key (game_id) references core_betting.games (id)",
    "add constraint game_outcomes_game_id_fkey foreign key (game_id) references core_betting.games (id) not valid",
    "outcomes_have_games"
)]
#[case::splits_are_not_transformed(
    "008",
    "from extracted_splits e\n    where not exists",
    "from extracted_splits e\n    where false and not exists",
    "splits_all_accounted"
)]
#[case::a_logical_name_leads_nowhere(
    "009",
    "('vsin_raw_data', 'raw_data.vsin_raw_data', null, null)",
    "('vsin_raw_data', 'raw_data.vsin', null, null)",
    "registry_answers"
)]
#[case::a_role_may_too_much(
    "010",
    "('monitoring_users', 'monitor', 'operational', false, false, false)",
    "('monitoring_users', 'monitor', 'operational', true, false, false)",
    "roles_may_what_they_must_and_no_more"
)]
#[case::a_table_is_open_to_everyone(
    "010_permissions.up",
    "call operational.apply_role_permissions();",
    "call operational.apply_role_permissions(); grant select on core_betting.games to public;",
    "roles_may_what_they_must_and_no_more"
)]
#[case::uptime_counts_wrongly(
    "011",
    "where is_healthy) / count(*)",
    "where not is_healthy) / count(*)",
    "system_uptime"
)]
#[case::features_are_lost(
    "012_training_features.up",
    "to_jsonb(t) - array[",
    "jsonb_build_object('a', null) - array[",
    "feature_store_quality"
)]
#[case::signals_point_the_wrong_way(
    "012_training_features.up",
    "case when difference > 0 then 'home' else 'away' end",
    "case when difference > 0 then 'away' else 'home' end",
    "signals_follow_splits"
)]
#[case::a_documented_table_is_missing(
    "013",
    "operational.auth_users",
    "operational.users",
    "target_architecture_exists"
)]
#[case::a_partition_is_missing(
    "014_performance_optimization.up",
    "2016..2030",
    "2017..2030",
    "partitions_fit"
)]
#[case::a_test_table_stays(
    "015",
    ", legacy_public.test_table;",
    "; alter table legacy_public.test_table set schema public;",
    "test_tables_gone"
)]
fn a_broken_migration_turns_the_rehearsal_red_and_a_gate_names_it(
    #[case] migration: &str,
    #[case] from: &str,
    #[case] to: &str,
    #[case] gate: &str,
) {
    let copy = Copy::of("consolidation");
    copy.edit("migrations", migration, from, to);
    let rehearsed = copy.rehearse(&[]);
    assert!(
        matches!(rehearsed.code, Some(1 | 3)),
        "{}",
        rehearsed.said()
    );
    let named = format!("gate {gate} failed after");
    let reasons = rehearsed.reasons();
    assert!(
        reasons.iter().any(|reason| reason.starts_with(&named)),
        "{reasons:#?}"
    );
}

#[test]
fn a_day_on_which_nothing_was_recorded_is_noticed() {
    let copy = Copy::of("consolidation");
    copy.edit(
        "operation",
        "030_quality",
        "having count(*) > 0",
        "having false",
    );
    let rehearsed = copy.rehearse(&[]);
    assert_eq!(rehearsed.code, Some(1), "{}", rehearsed.said());
    let reasons = rehearsed.reasons();
    let named = "gate quality_is_recorded failed after";
    assert!(
        reasons.iter().any(|reason| reason.starts_with(named)),
        "{reasons:#?}"
    );
}

#[test]
fn a_failing_migration_is_named_with_statement_line_and_sqlstate() {
    let copy = Copy::of("consolidation");
    copy.edit("migrations", "006", "to_jsonb(gone)", "to_jsonb(lost)");
    let rehearsed = copy.rehearse(&[]);
    let said = rehearsed.said();
    assert_eq!(rehearsed.code, Some(3), "{said}");
    for part in [
        "migration 006_quarantine_mock_data (up) failed at statement 5",
        "SQLSTATE 42703",
        "fixtures/consolidation/migrations/006_quarantine_mock_data.up.sql:24:93",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let stopped = &rehearsed.report["migrations"]["stopped"];
    assert_eq!(stopped["sqlstate"], "42703");
    // What it left was checked all the same.
    assert_eq!(
        rehearsed.gate("after", "enhanced_games_scored")["outcome"],
        "passed"
    );
    assert_eq!(rehearsed.gate("after", "no_mock_data")["outcome"], "failed");
    assert_eq!(rehearsed.report["workloads"], Value::Array(Vec::new()));
}

#[test]
fn a_down_that_does_not_restore_is_named() {
    let copy = Copy::of("consolidation");
    copy.edit(
        "migrations",
        "003_outcome_sync.down",
        "winning_team = null, ",
        "",
    );
    let rehearsed = copy.rehearse(&[]);
    assert_eq!(rehearsed.code, Some(1), "{}", rehearsed.said());
    let reasons = rehearsed.reasons();
    assert!(
        reasons[0].starts_with("the down of 003_outcome_sync does not restore the rows"),
        "{reasons:#?}"
    );
}

#[test]
fn a_legacy_database_that_is_not_as_documented_is_noticed() {
    let copy = Copy::of("consolidation");
    copy.edit(
        "legacy",
        "010",
        "'canceling statement due to lock timeout'",
        "null",
    );
    copy.edit(
        "legacy",
        "010",
        "case when n in (7, 15) then 'failed' else 'completed' end",
        "'completed'",
    );
    let rehearsed = copy.rehearse(&[]);
    assert_eq!(rehearsed.code, Some(1), "{}", rehearsed.said());
    assert_eq!(
        rehearsed.reasons(),
        ["gate migration_log_clean passed before, the scenario says failed"]
    );
}

#[rstest]
#[case::too_slow(
    "-- budget: 1ms\nselect 1 from pg_sleep(0.01);",
    1,
    "is over the budget of 1ms"
)]
#[case::no_row(
    "-- budget: 1m\nselect 1 where false;",
    1,
    "nothing is proved by nothing"
)]
#[case::wrong(
    "-- budget: 1m\nselect gone from core_betting.games;",
    3,
    "column \"gone\" does not exist"
)]
fn a_workload_that_does_not_hold_fails(
    #[case] workload: &str,
    #[case] code: i32,
    #[case] reason: &str,
) {
    let copy = Copy::of("consolidation");
    let file = "fixtures/consolidation/workload/ml_training.sql";
    std::fs::write(copy.path().join(file), workload).unwrap();
    let rehearsed = copy.rehearse(&[]);
    assert_eq!(rehearsed.code, Some(code), "{}", rehearsed.said());
    let [told] = *rehearsed.reasons() else {
        panic!("one reason: {:#?}", rehearsed.reasons())
    };
    assert!(told.contains(reason), "{told}");
}

/// What a query takes is in its hands here: nothing depends on the speed of the machine.
#[rstest]
#[case::no_faster(
    "-- faster_by: 50%",
    // Faster than it was, so that no noise makes it slower, and by less than is required.
    "case when to_regclass('legacy_public.games') is null then 0.15 else 0.2 end",
    "workload query: ",
    "50% faster is required",
    "keep"
)]
#[case::slower(
    "",
    "case when to_regclass('legacy_public.games') is null then 0.2 else 0.02 end",
    "performance degraded: query is ",
    "% slower",
    "roll back"
)]
fn a_migration_is_held_to_what_a_query_took_before_it(
    #[case] required: &str,
    #[case] seconds: &str,
    #[case] begins: &str,
    #[case] contains: &str,
    #[case] verdict: &str,
) {
    let copy = Copy::of("consolidation");
    let query = format!(
        "-- id: query\n-- budget: 1m\n-- baseline: drop_legacy\n{required}\nselect pg_sleep({seconds});\n"
    );
    let file = copy
        .path()
        .join("fixtures/consolidation/workload/ml_training.sql");
    std::fs::write(file, query).unwrap();
    let rehearsed = copy.rehearse(&[]);
    assert_eq!(rehearsed.code, Some(1), "{}", rehearsed.said());
    let [reason] = *rehearsed.reasons() else {
        panic!("one reason: {:#?}", rehearsed.reasons())
    };
    assert!(
        reason.starts_with(begins) && reason.contains(contains),
        "{reason}"
    );
    assert_eq!(rehearsed.report["rollback"]["verdict"], verdict);
}

#[test]
fn a_baseline_before_a_migration_that_is_not_there_is_a_mistake() {
    let copy = Copy::of("consolidation");
    copy.edit(
        "workload",
        "ml_training",
        "014_performance_",
        "014_performence_",
    );
    let rehearsed = copy.rehearse(&[]);
    assert_eq!(rehearsed.code, Some(2));
    assert!(
        rehearsed
            .said()
            .contains("did you mean `014_performance_optimization`?"),
        "{}",
        rehearsed.said()
    );
}

#[test]
fn a_failing_operation_is_named_and_asks_for_a_rollback() {
    let copy = Copy::of("consolidation");
    copy.edit(
        "operation",
        "010_pipelines",
        "select * from operational.sync_game_outcomes();",
        "select * from operational.sync_game_results();",
    );
    let rehearsed = copy.rehearse(&[]);
    let said = rehearsed.said();
    assert_eq!(rehearsed.code, Some(3), "{said}");
    assert!(
        said.contains("operation/010_pipelines.sql` failed at statement 1")
            && said.contains("SQLSTATE 42883"),
        "{said}"
    );
    assert_eq!(rehearsed.report["rollback"]["verdict"], "roll back");
}

#[test]
fn a_gate_that_says_something_else_the_second_time_is_unstable() {
    let copy = Copy::of("consolidation");
    // The server itself counts the sessions that have been on a database.
    let gate = r#"
[[gate]]
id = "flickers"
kind = "sql"
query = """
select n from pg_stat_database, generate_series(1, sessions) n where datname = current_database()
"""
population = "select 1000000"
at_most = 1000000
"#;
    let file = copy.path().join("gates/consolidation/flickers.toml");
    std::fs::write(file, gate).unwrap();
    let rehearsed = copy.rehearse(&[]);
    assert_eq!(rehearsed.code, Some(1), "{}", rehearsed.said());
    assert_eq!(
        rehearsed.reasons(),
        ["gate flickers said something else when it was asked again"]
    );
    assert_eq!(rehearsed.report["rollback"]["verdict"], "roll back");
}

/// The same seed gives the same rows; another seed other rows of the same number; another scale more.
#[test]
fn the_data_depends_on_seed_and_scale_alone() {
    let messages = |more: &[&str]| {
        let rehearsed = Copy::of("consolidation").rehearse(more);
        let text = |gate: &str| rehearsed.message("after", gate);
        (
            rehearsed.code,
            text("zero_data_loss"),
            text("data_quality_score"),
        )
    };
    let first = messages(&[]);
    assert_eq!(first, messages(&["--set", "postern.seed=1"]));
    assert_eq!(first, messages(&["--set", "postern.seed=another"]));
    let scaled = messages(&["--set", "postern.scale=2"]);
    assert_eq!(scaled.0, Some(0));
    assert_eq!(
        (first.1.as_str(), scaled.1.as_str()),
        (
            "33,698 rows equal on both sides of 34 pairs",
            "62,624 rows equal on both sides of 34 pairs"
        )
    );
}

#[test]
fn every_mistake_of_a_scenario_is_told_at_once() {
    let copy = Copy::of("consolidation");
    copy.edit("", "scenario.toml", "four_schemas = ", "for_schemas = ");
    let folder = copy.path().join("fixtures/consolidation");
    std::fs::remove_file(folder.join("migrations/004_extend_schemas.down.sql")).unwrap();
    std::fs::write(folder.join("workload/another.sql"), "select 1;").unwrap();
    let rehearsed = copy.rehearse(&[]);
    let said = rehearsed.said();
    assert_eq!(rehearsed.code, Some(2), "{said}");
    for part in [
        "did you mean `four_schemas`?",
        "004_extend_schemas",
        "workload/another.sql",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn an_unknown_scenario_is_a_usage_error() {
    let output = Command::new(env!("CARGO_BIN_EXE_postern"))
        .args(["rehearse", "consolidatoin"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("`consolidation`"), "{said}");
}
