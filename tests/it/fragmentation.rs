//! The scenario `fragmentation`: its legacy database against the audit, its merge against the two
//! masters, and its gates against what is broken on purpose.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::LazyLock;

use postern::audit::{self, audit};
use postern::migrate::{Contents, Pass, Replayer};
use postern::pg::Database;
use postern::scenario::Scenario;
use postern::sql::AuthorSql;
use rstest::rstest;
use serde_json::Value;
use sqlx::Row;

use crate::scenario_copy::{Copy, Rehearsed, found, planted, toml};
use crate::support;

/// The legacy database with `settings` over those of the scenario, and as many of the migrations.
async fn made(settings: &[(&str, &str)], migrations: usize) -> Database {
    let scenario = Scenario::load(Path::new("fixtures/fragmentation")).unwrap();
    let mut all = scenario.settings.clone();
    all.extend(
        settings
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
    );
    let database = support::database().await;
    database.configure(&all).await.unwrap();
    let mut session = database.connect().await.unwrap();
    let progress = &mut ();
    let mut replayer = Replayer::new(&mut session, database.address(), progress);
    for script in &scenario.legacy {
        replayer.apply_script(script).await.unwrap();
    }
    for migration in scenario.history.migrations().iter().take(migrations) {
        replayer.apply(migration, Pass::First).await.unwrap();
    }
    database
}

/// The rows of a query of a text and a number.
async fn counts(database: &Database, query: &str) -> BTreeMap<String, i64> {
    let mut session = database.connect().await.unwrap();
    let query = AuthorSql::new(query).to_sql();
    let rows = sqlx::query(&query).fetch_all(&mut session).await.unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn named<const N: usize>(counts: [(&str, i64); N]) -> BTreeMap<String, i64> {
    counts.map(|(name, count)| (name.to_owned(), count)).into()
}

const TABLES: &str = "
select n.nspname::text, count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' group by n.nspname";

#[tokio::test]
async fn the_legacy_database_has_the_audits_schemas_tables_and_keys() {
    let legacy = made(&[], 0).await;
    let tables = counts(&legacy, TABLES).await;
    let documented = [
        ("action_network", 4),
        ("analysis", 7),
        ("analytics", 9),
        ("coordination", 1),
        ("curated", 20),
        ("monitoring", 2),
        ("operational", 15),
        ("public", 23),
        ("raw_data", 14),
        ("splits", 2),
        ("staging", 9),
    ];
    assert_eq!(tables, named(documented));
    assert_eq!((tables.len(), tables.values().sum::<i64>()), (11, 106));

    let keys = "select 'declared', count(*) from pg_constraint where contype = 'f'
        union all select 'not valid', count(*) from pg_constraint where contype = 'f' and not convalidated
        union all select 'disabled', count(distinct tgconstraint) from pg_trigger where tgenabled = 'D'";
    let documented = [("declared", 28), ("not valid", 2), ("disabled", 1)];
    assert_eq!(counts(&legacy, keys).await, named(documented));

    // Two masters, and the test tables with the counts of the phase 4 plan.
    let rows = "select 'enhanced_games', count(*) from curated.enhanced_games
        union all select 'games_complete', count(*) from curated.games_complete
        union all select 'both', count(*) from curated.enhanced_games e join curated.games_complete c on c.id = e.id + 202500090
        union all select 'benchmark_performance', count(*) from public.benchmark_performance
        union all select 'benchmark_test', count(*) from public.benchmark_test
        union all select 'concurrency_test', count(*) from public.concurrency_test
        union all select 'performance_test', count(*) from public.performance_test
        union all select 'test_parallel', count(*) from public.test_parallel
        union all select 'test_table', count(*) from public.test_table";
    let documented = [
        ("enhanced_games", 1_200),
        ("games_complete", 1_220),
        ("both", 1_130),
        ("benchmark_performance", 200),
        ("benchmark_test", 500),
        ("concurrency_test", 0),
        ("performance_test", 50),
        ("test_parallel", 100),
        ("test_table", 1),
    ];
    assert_eq!(counts(&legacy, rows).await, named(documented));
}

/// The audit counts what the first document announces, and names what it saw.
#[tokio::test]
async fn an_audit_counts_what_the_document_announces() {
    let legacy = made(&[], 0).await;
    let audit = audit(legacy.address(), &audit::Options::default())
        .await
        .unwrap();
    let summary = &audit.summary;
    assert_eq!(
        (summary.schemas, summary.tables, summary.foreign_keys),
        (11, 106, 28)
    );
    assert_eq!(summary.test_tables, 6);
    let told = |object: &str, part: &str| {
        let mut findings = audit.findings.iter();
        findings.any(|finding| finding.object == object && finding.what.contains(part))
    };
    for (object, part) in [
        (
            "analytics.betting_recommendations (game_id)",
            "is NOT VALID",
        ),
        (
            "analytics.confidence_scores (game_id)",
            "triggers are switched off",
        ),
        (
            "analytics.cross_market_analysis (game_id)",
            "no key is declared",
        ),
        ("analytics.strategy_signals (game_id)", "no key is declared"),
        ("monitoring.ml_model_alerts (experiment_id)", "is NOT VALID"),
        (
            "monitoring.ml_model_performance (experiment_id)",
            "double precision",
        ),
        (
            "curated.enhanced_games, curated.games_complete and splits.games",
            "`game_id` means either",
        ),
    ] {
        assert!(told(object, part), "{object}: {part}");
    }
}

#[tokio::test]
async fn the_data_depends_on_seed_and_scale_alone() {
    let contents = async |settings: &[(&str, &str)]| {
        let database = made(settings, 0).await;
        let mut session = database.connect().await.unwrap();
        Contents::capture(&mut session, database.address())
            .await
            .unwrap()
    };
    let first = contents(&[]).await;
    assert_eq!(first.diff(&contents(&[]).await), []);

    let another = first.diff(&contents(&[("postern.seed", "another")]).await);
    let rows =
        |contents: &Option<postern::migrate::TableContents>| contents.as_ref().map(|c| c.rows);
    for difference in &another {
        assert_eq!(
            rows(&difference.before),
            rows(&difference.after),
            "{difference}"
        );
    }
    let other: BTreeSet<&str> = another
        .iter()
        .map(|difference| difference.table.as_str())
        .collect();
    assert!(other.contains("curated.enhanced_games"), "{other:?}");
    assert!(!other.contains("curated.teams"), "{other:?}");

    // Twice as many lines, splits and pages; not one game more.
    let scaled = first.diff(&contents(&[("postern.scale", "2")]).await);
    let grown: BTreeSet<&str> = scaled
        .iter()
        .filter(|difference| rows(&difference.before) != rows(&difference.after))
        .map(|difference| difference.table.as_str())
        .collect();
    for table in [
        "curated.betting_lines_unified",
        "curated.unified_betting_splits",
        "raw_data.sbr_parsed_games",
    ] {
        assert!(grown.contains(table), "{grown:?}");
    }
    for table in [
        "curated.enhanced_games",
        "curated.games_complete",
        "raw_data.mlb_stats_api_games",
    ] {
        assert!(!grown.contains(table), "{grown:?}");
    }
}

/// The rehearsal of the scenario as it is; one for all tests that only read it.
fn sound() -> &'static Rehearsed {
    static SOUND: LazyLock<Rehearsed> = LazyLock::new(|| Copy::of("fragmentation").rehearse(&[]));
    &SOUND
}

#[test]
fn the_fragmentation_fails_before_as_documented_and_passes_after() {
    let rehearsed = sound();
    assert_eq!(rehearsed.code, Some(0), "{}", rehearsed.said());
    assert_eq!(rehearsed.reasons(), Vec::<&str>::new());
    assert_eq!(rehearsed.unexpected("fragmentation"), Vec::<String>::new());
    assert_eq!(found(rehearsed), planted("fragmentation"));

    // What the manifest plants without a row to count fails all the same.
    for defect in toml("fixtures/fragmentation/manifest.toml")["planted"]
        .as_array()
        .unwrap()
    {
        let gate = rehearsed.gate("before", defect["gate"].as_str().unwrap());
        assert!(
            defect.get("phase").is_some() || gate["outcome"] == "failed",
            "{gate}"
        );
    }

    let steps = rehearsed.report["migrations"]["steps"].as_array().unwrap();
    let passes = |pass: &str| steps.iter().filter(|step| step["pass"] == pass).count();
    assert_eq!(
        (passes("up"), passes("down"), passes("up again")),
        (4, 3, 3)
    );
    assert_eq!(rehearsed.report["workloads"][0]["rows"], 1_220);
}

const UNDECLARED: &str = "no foreign key is declared";
const UNINDEXED: &str = "no index leads with the referencing columns";

/// The audit writes `→ NULL` of all six; the gates tell them apart.
#[rstest]
#[case("recommendations_have_games", 6, &["the foreign key `betting_recommendations_game_id_fkey` is NOT VALID; its orphans have to go first", UNINDEXED])]
#[case("confidence_scores_have_games", 5, &["the triggers of the foreign key `confidence_scores_game_id_fkey` are disabled on analytics.confidence_scores"])]
#[case("market_analyses_have_games", 4, &[UNDECLARED])]
#[case("signals_have_games", 0, &[UNDECLARED, UNINDEXED])]
#[case("alerts_have_experiments", 0, &["the foreign key `ml_model_alerts_experiment_id_fkey` is NOT VALID", UNINDEXED])]
#[case("performance_has_experiments", 3, &["no foreign key is declared; double precision cannot refer to integer", UNINDEXED, "the types differ: `experiment_id` is double precision, `id` is integer; its orphans have to go first"])]
fn each_of_the_six_references_is_broken_in_its_own_way(
    #[case] gate: &str,
    #[case] orphans: i64,
    #[case] expected: &[&str],
) {
    let gate = sound().gate("before", gate);
    assert_eq!(gate["rows_offending"], orphans, "{gate}");
    let findings = gate["findings"].as_array().unwrap().iter();
    let findings: Vec<&str> = findings
        .map(|finding| finding["what"].as_str().unwrap())
        .collect();
    let orphaned = format!("{orphans} rows without a row to refer to");
    let orphaned = (orphans > 0).then_some(orphaned.as_str());
    let expected: Vec<&str> = orphaned
        .into_iter()
        .chain(expected.iter().copied())
        .collect();
    assert_eq!(findings, expected);
}

#[tokio::test]
async fn the_merge_loses_no_game_doubles_none_and_decides_every_conflict() {
    let merged = made(&[], 3).await;
    let games = "select 'games', count(*) from curated.enhanced_games
        union all select 'different games', count(distinct mlb_game_pk) from curated.enhanced_games
        union all select 'under the other name', count(*) from curated.games_complete
        union all select 'in both', count(*) from (select game_id from operational.unified_games group by game_id having count(*) = 2) both_know
        union all select 'in one', count(*) from (select game_id from operational.unified_games group by game_id having count(*) = 1) one_knows
        union all select 'numbered by the second', count(*) from curated.enhanced_games where id = complete_id
        union all select 'outcomes', count(*) from curated.game_outcomes
        union all select 'returned', count(*) from operational.returned_rows
        union all select 'set aside', count(*) from operational.orphaned_rows";
    let expected = [
        ("games", 1_290),
        ("different games", 1_290),
        ("under the other name", 1_290),
        ("in both", 1_130),
        ("in one", 160),
        ("numbered by the second", 90),
        ("outcomes", 1_290),
        ("returned", 7),
        ("set aside", 11),
    ];
    assert_eq!(counts(&merged, games).await, named(expected));

    let decisions = "select rule || ': ' || taken_from, count(*) from operational.game_decisions group by rule, taken_from";
    let expected = [
        // 4 scores, 16 names of ballparks, days and numbers of 3 games
        ("higher quality: enhanced_games", 4 + 16 + 6),
        // 4 scores, 4 games that are not suspended any more
        ("higher quality: games_complete", 4 + 4),
        ("updated later: games_complete", 2),
        ("first master: enhanced_games", 2),
        // both scores of 25 games
        ("only one knows: games_complete", 50),
        // MLB's numbers
        ("only one knows: enhanced_games", 20),
    ];
    assert_eq!(counts(&merged, decisions).await, named(expected));

    // A conflict is a decision that both had a say in: as many as masters_agree counted before.
    let conflicts = "select 'conflicts', count(*) from operational.game_decisions where rule <> 'only one knows'";
    let planted = planted("fragmentation")[&("before".to_owned(), "masters_agree".to_owned())];
    assert_eq!(
        counts(&merged, conflicts).await,
        named([("conflicts", planted)])
    );
}

#[tokio::test]
async fn the_consolidation_leaves_the_audits_four_schemas_and_no_table_behind() {
    let done = made(&[], 4).await;
    let tables = counts(&done, TABLES).await;
    assert_eq!(
        tables.keys().map(String::as_str).collect::<Vec<_>>(),
        ["curated", "operational", "raw_data", "staging"]
    );
    // 106, less six test tables and one master that is a view now, and the log, the decisions, the
    // rows set aside (6 parts of one), those that returned, the rows of both masters (2 parts of one).
    assert_eq!(
        tables.values().sum::<i64>(),
        106 - 6 - 1 + 1 + 1 + 7 + 1 + 3
    );
}

#[test]
fn twice_the_data_is_rehearsed_alike() {
    let rehearsed = Copy::of("fragmentation").rehearse(&[
        "--set",
        "postern.scale=2",
        "--set",
        "postern.seed=another",
    ]);
    assert_eq!(rehearsed.code, Some(0), "{}", rehearsed.said());
    assert_eq!(found(&rehearsed), planted("fragmentation"));
    assert_eq!(
        rehearsed.message("after", "zero_data_loss"),
        "86,426 rows equal on both sides of 97 pairs"
    );
}

/// A text of a migration and what is written in its place.
type Edit = (&'static str, &'static str, &'static str);

/// Every migration has gates that notice when it is wrong: these, and no others.
#[rstest]
#[case::references_are_not_repaired(
    &[
        ("001_emergency_stabilization.up", "alter table analytics.betting_recommendations validate constraint betting_recommendations_game_id_fkey;", ""),
        (
            "001_emergency_stabilization.up",
            "insert into operational.reference_repairs",
            "alter table analytics.confidence_scores disable trigger all;\ninsert into operational.reference_repairs",
        ),
        ("001_emergency_stabilization.up", "create index strategy_signals_game_id_idx on analytics.strategy_signals (game_id)", "create index strategy_signals_game_id_idx on analytics.strategy_signals (strategy)"),
        ("001_emergency_stabilization.up", "add constraint cross_market_analysis_game_id_fkey foreign key (game_id) references curated.enhanced_games (id)", "add constraint cross_market_analysis_game_id_fkey foreign key (game_id) references curated.enhanced_games (id) not valid"),
        ("001_emergency_stabilization.up", "alter table monitoring.ml_model_alerts validate constraint ml_model_alerts_experiment_id_fkey;", ""),
        ("001_emergency_stabilization.up", "type integer using experiment_id::integer", "type bigint using experiment_id::bigint"),
    ],
    &[
        "recommendations_have_games", "confidence_scores_have_games", "market_analyses_have_games",
        "signals_have_games", "alerts_have_experiments", "performance_has_experiments", "no_broken_key",
    ]
)]
#[case::orphans_are_miscounted(
    &[("001_emergency_stabilization.up", "r.kept + r.aside, r.aside", "r.kept, 0")],
    &["orphans_documented"]
)]
#[case::orphans_are_set_aside_without_a_reason(
    &[
        ("001_emergency_stabilization.up", "reason        text not null", "reason        text"),
        ("001_emergency_stabilization.up", "'no such experiment in analysis.ml_experiments', to_jsonb(gone)", "null, to_jsonb(gone)"),
    ],
    &["orphans_have_reasons"]
)]
#[case::rows_are_set_aside_that_refer_to_something(
    &[(
        "001_emergency_stabilization.up",
        "and not exists (select from analysis.ml_experiments e where e.id = p.experiment_id)",
        "and (p.id % 2 = 0 or not exists (select from analysis.ml_experiments e where e.id = p.experiment_id))",
    )],
    &["orphans_few"]
)]
#[case::orphans_are_thrown_away(
    &[("001_emergency_stabilization.up", "to_jsonb(gone) from gone;", "to_jsonb(gone) from gone where id <> 77;")],
    &["zero_data_loss"]
)]
#[case::tables_are_moved_to_the_wrong_places(
    &[
        ("002_schema_consolidation.up", "alter table splits.sharp_actions set schema staging;", "alter table splits.sharp_actions set schema raw_data;"),
        ("002_schema_consolidation.down", "alter table staging.sharp_actions set schema splits;", "alter table raw_data.sharp_actions set schema splits;"),
        ("002_schema_consolidation.up", "alter table public.alembic_version set schema operational;", "alter table public.alembic_version set schema curated;"),
        ("002_schema_consolidation.down", "alter table operational.alembic_version set schema public;", "alter table curated.alembic_version set schema public;"),
    ],
    &["keys_flow_one_way", "mlflow_together", "zero_data_loss"]
)]
#[case::names_are_not_told_apart(
    &[
        ("002_schema_consolidation", "ml_model_alert_rules", "games"),
        ("002_schema_consolidation.up", "alter table raw_data.vsin_data add constraint vsin_data_pkey primary key (id);", ""),
    ],
    &["names_are_told_apart", "tables_have_primary_keys", "zero_data_loss"]
)]
#[case::conflicts_are_decided_by_chance(
    &[
        ("003_game_unification.up", "where told.enhanced_value is distinct from told.complete_value;", "where told.enhanced_value is distinct from told.complete_value and told.column_name <> 'venue';"),
        ("003_game_unification.up", "    status = coalesce(t.taken ->> 'status', e.status),\n", ""),
        ("003_game_unification.up", "first_pitch = case when c.game_date = coalesce((t.taken ->> 'game_date')::date, e.game_date) then c.first_pitch end", "first_pitch = c.first_pitch"),
        ("003_game_unification.up", "where (known.home_win", "where false and (known.home_win"),
    ],
    &["conflicts_decided", "decisions_kept", "games_begin_on_their_day", "outcomes_follow_scores"]
)]
#[case::the_other_name_tells_something_else(
    &[
        ("003_game_unification.up", "venue as venue_name", "home_team as venue_name"),
        ("003_game_unification.up", "from curated.enhanced_games;\ncomment", "from curated.enhanced_games where complete_id is not null;\ncomment"),
    ],
    &["masters_agree", "masters_know_the_same_games"]
)]
#[case::a_game_comes_from_nowhere(
    &[("003_game_unification.up", "to_jsonb(e) from curated.enhanced_games e;", "to_jsonb(e) from curated.enhanced_games e where e.id <> 1190;")],
    &["no_game_lost", "games_come_from_the_masters"]
)]
#[case::a_reference_is_left_without_a_key(
    &[
        ("003_game_unification.up", "alter table curated.closing_lines\n    add constraint closing_lines_game_id_fkey foreign key (game_id) references curated.enhanced_games (id);", ""),
        ("003_game_unification.down", "alter table curated.closing_lines drop constraint closing_lines_game_id_fkey;", ""),
        ("003_game_unification.up", "where r.source_table = 'analytics.confidence_scores';", "where false;"),
    ],
    &["game_ids_mean_the_master", "zero_data_loss"]
)]
#[case::a_test_table_stays(
    &[("004", "public.test_parallel, public.test_table;", "public.test_parallel;")],
    &["four_schemas", "test_tables_gone", "no_mock_data"]
)]
fn a_broken_migration_turns_the_rehearsal_red_and_its_gates_name_it(
    #[case] edits: &[Edit],
    #[case] gates: &[&str],
) {
    let copy = Copy::of("fragmentation");
    for (migration, from, to) in edits {
        copy.edit("migrations", migration, from, to);
    }
    let rehearsed = copy.rehearse(&[]);
    assert!(
        matches!(rehearsed.code, Some(1 | 3)),
        "{}",
        rehearsed.said()
    );
    let expected: BTreeSet<&str> = gates.iter().copied().collect();
    assert_eq!(red(&rehearsed), expected, "{:#?}", rehearsed.reasons());
}

/// The gates that did not pass after.
fn red(rehearsed: &Rehearsed) -> BTreeSet<&str> {
    let gates = rehearsed.report["after"]["gates"].as_array().unwrap();
    let red = gates.iter().filter(|gate| gate["outcome"] != "passed");
    red.map(|gate| gate["id"].as_str().unwrap()).collect()
}

#[test]
fn games_that_are_not_recognised_stop_the_merge() {
    let copy = Copy::of("fragmentation");
    let from = "left join curated.enhanced_games numbered on numbered.mlb_game_pk = c.mlb_game_pk";
    let to = "left join curated.enhanced_games numbered on false";
    copy.edit("migrations", "003_game_unification.up", from, to);
    let rehearsed = copy.rehearse(&[]);
    assert_eq!(rehearsed.code, Some(3), "{}", rehearsed.said());
    // A game that is told twice cannot get in: its number is unique.
    assert_eq!(
        rehearsed.report["migrations"]["stopped"]["sqlstate"],
        "23505"
    );
    assert!(red(&rehearsed).contains("one_game_master"));
    assert_eq!(rehearsed.report["workloads"], Value::Array(Vec::new()));
}

#[test]
fn a_table_that_is_left_behind_stops_the_last_step() {
    let copy = Copy::of("fragmentation");
    for (file, statement) in [
        (
            "002_schema_consolidation.up",
            "alter table public.trace_info set schema operational;",
        ),
        (
            "002_schema_consolidation.down",
            "alter table operational.trace_info set schema public;",
        ),
    ] {
        copy.edit("migrations", file, statement, "");
    }
    let rehearsed = copy.rehearse(&[]);
    let said = rehearsed.said();
    assert_eq!(rehearsed.code, Some(3), "{said}");
    assert!(
        said.contains("outside of the four schemas there is still public.trace_info"),
        "{said}"
    );
    let red = red(&rehearsed);
    for gate in ["four_schemas", "mlflow_together", "test_tables_gone"] {
        assert!(red.contains(gate), "{red:?}");
    }
}

#[rstest]
#[case::a_value(
    "003",
    "    winning_team = r.winning_team, ",
    "    ",
    "the down of 003_game_unification does not restore the rows"
)]
#[case::a_state(
    "001",
    "analysis.ml_experiments (id) not valid;",
    "analysis.ml_experiments (id);",
    "the down of 001_emergency_stabilization does not restore the schema"
)]
#[case::triggers_that_were_disabled(
    "001",
    "drop table operational.reference_repairs;",
    "alter table analytics.confidence_scores enable trigger all;\ndrop table operational.reference_repairs;",
    "the down of 001_emergency_stabilization does not restore the schema"
)]
#[case::a_name(
    "002",
    "rename to idx_game_id;",
    "rename to game_id_idx;",
    "the down of 002_schema_consolidation does not restore the schema"
)]
fn a_down_that_does_not_restore_is_named(
    #[case] migration: &str,
    #[case] from: &str,
    #[case] to: &str,
    #[case] told: &str,
) {
    let copy = Copy::of("fragmentation");
    let files = Path::new("fixtures/fragmentation/migrations");
    let down = std::fs::read_dir(files)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .find(|name| name.starts_with(migration) && name.ends_with(".down.sql"))
        .unwrap();
    copy.edit("migrations", &down, from, to);
    let rehearsed = copy.rehearse(&[]);
    let reasons = rehearsed.reasons();
    assert!(
        reasons.iter().any(|reason| reason.starts_with(told)),
        "{reasons:#?}"
    );
}

#[test]
fn games_that_are_no_baseball_are_noticed_before_anything_moves() {
    let copy = Copy::of("fragmentation");
    for (script, from, to) in [
        ("000", "s.home as home_score", "s.home + 1 as home_score"),
        (
            "000",
            "generate.at(g.day, '17:05')",
            "generate.at(g.day, '23:05')",
        ),
        (
            "010",
            "division from generate.team order by no;",
            "division from generate.team where no > 0 order by no;",
        ),
        ("010", "game_number = 2", "game_number = 1"),
        ("020", "generate.american(c.home * 1.022)", "99"),
        ("020", "round(100 - p.bets)", "round(90 - p.bets)"),
    ] {
        copy.edit("legacy", script, from, to);
    }
    let rehearsed = copy.rehearse(&[]);
    let reasons = rehearsed.reasons();
    for gate in [
        "games_begin_on_their_day",
        "no_game_doubled",
        "no_ties",
        "odds_are_possible",
        "runs_are_believable",
        "splits_sum_to_100",
        "teams_known",
        "teams_thirty",
    ] {
        let reason = format!("gate {gate} failed before, the scenario says passed");
        assert!(reasons.contains(&reason.as_str()), "{gate}: {reasons:#?}");
    }
}
