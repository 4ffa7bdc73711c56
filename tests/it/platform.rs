//! The systems of the consolidation scenario, called as their clients call them.

use std::path::Path;

use postern::migrate::{History, Pass, Replayer, Script};
use postern::pg::{Database, Server};
use rstest::rstest;
use sqlx::{Connection, Executor, PgConnection, Row};
use tokio::sync::OnceCell;

use super::support;

const FOLDER: &str = "fixtures/consolidation";

/// The migrated database, and as it was before the old tables were dropped. Roles belong to a whole
/// server, so that this server is for these tests alone.
struct Platform {
    server: Server,
    switched: Database,
    whole: Database,
}

async fn platform() -> &'static Platform {
    static PLATFORM: OnceCell<Platform> = OnceCell::const_new();
    PLATFORM
        .get_or_init(|| async {
            let server = Server::start(&support::local()).await.unwrap();
            let switched = server.create_database("switched").await.unwrap();
            let mut session = switched.connect().await.unwrap();
            for script in Script::discover(&Path::new(FOLDER).join("legacy")).unwrap() {
                replayer(&mut session, &switched, &mut ())
                    .apply_script(&script)
                    .await
                    .unwrap();
            }
            let history = History::discover(&Path::new(FOLDER).join("migrations")).unwrap();
            let last = history.position("015_drop_legacy").unwrap();
            for migration in &history.migrations()[..last] {
                replayer(&mut session, &switched, &mut ())
                    .apply(migration, Pass::First)
                    .await
                    .unwrap();
            }
            session.close().await.unwrap();
            let whole = server.clone_database(&switched, "whole").await.unwrap();
            let mut session = whole.connect().await.unwrap();
            replayer(&mut session, &whole, &mut ())
                .apply(&history.migrations()[last], Pass::First)
                .await
                .unwrap();
            session.close().await.unwrap();
            Platform {
                server,
                switched,
                whole,
            }
        })
        .await
}

fn replayer<'a>(
    session: &'a mut PgConnection,
    database: &'a Database,
    progress: &'a mut (),
) -> Replayer<'a> {
    Replayer::new(session, database.address(), progress)
}

/// A migrated database of one's own.
async fn whole() -> Database {
    let platform = platform().await;
    let clone = platform.server.clone_database(&platform.whole, "platform");
    clone.await.unwrap()
}

/// A database of one's own in which the old names still answer.
async fn switched() -> Database {
    let platform = platform().await;
    let clone = platform
        .server
        .clone_database(&platform.switched, "switching");
    clone.await.unwrap()
}

async fn row(session: &mut PgConnection, query: &'static str) -> Vec<Option<String>> {
    let row = session
        .fetch_one(sqlx::raw_sql(query))
        .await
        .unwrap_or_else(|error| panic!("{query}: {error}"));
    (0..row.len())
        .map(|at| {
            row.try_get_raw(at)
                .unwrap()
                .as_str()
                .ok()
                .map(str::to_owned)
        })
        .collect()
}

async fn value(session: &mut PgConnection, query: &'static str) -> String {
    row(session, query).await[0].clone().unwrap_or_default()
}

async fn run(session: &mut PgConnection, statement: &'static str) -> Result<u64, String> {
    match session.execute(sqlx::raw_sql(statement)).await {
        Ok(done) => Ok(done.rows_affected()),
        Err(sqlx::Error::Database(error)) => Err(error.code().unwrap_or_default().into_owned()),
        Err(error) => panic!("{statement}: {error}"),
    }
}

/// Connects as a user who was given one kind of permission and nothing else.
async fn connect_as(database: &Database, user_type: &str) -> PgConnection {
    let mut owner = database.connect().await.unwrap();
    // The end of the database's name is its own; a role's name has room for no more.
    let own = &database.name()[database.name().len() - 8..];
    let user = format!("service_{user_type}_{own}");
    let statement = format!(
        "create role {user} login password 'secret'; select grant_user_permissions('{user}', '{user_type}')"
    );
    owner
        .execute(sqlx::raw_sql(sqlx::AssertSqlSafe(statement)))
        .await
        .unwrap();
    owner.close().await.unwrap();
    let options = database.address().options().clone();
    PgConnection::connect_with(&options.username(&user).password("secret"))
        .await
        .unwrap()
}

/// What `user_type` may do with a table of each schema, tried out: r read, a insert, w change, c create.
#[rstest]
#[case("collector", "ra", "", "", "")]
#[case("processor", "r", "raw", "", "")]
#[case("analytics_processor", "", "r", "raw", "")]
#[case("strategist", "r", "r", "raw", "raw")]
#[case("analyst", "", "r", "r", "")]
#[case("monitor", "", "", "", "r")]
#[case("administrator", "rawc", "rawc", "rawc", "rawc")]
#[case("application", "raw", "raw", "raw", "raw")]
#[tokio::test]
async fn a_role_may_what_its_work_needs_and_nothing_more(
    #[case] user_type: &str,
    #[case] raw_data: &str,
    #[case] core_betting: &str,
    #[case] analytics: &str,
    #[case] operational: &str,
) {
    const ATTEMPTS: [(&str, [&str; 5]); 4] = [
        (
            "raw_data",
            [
                "select count(*) from raw_data.vsin_raw_data",
                "insert into raw_data.vsin_raw_data (page, content) values ('splits', '<html>')",
                "update raw_data.vsin_raw_data set page = page",
                "delete from raw_data.vsin_raw_data",
                "create table raw_data.made (a integer)",
            ],
        ),
        (
            "core_betting",
            [
                "select count(*) from core_betting.steam_moves",
                "insert into core_betting.steam_moves (game_id, market, books)
                 select min(id), 'total', 3 from core_betting.games",
                "update core_betting.steam_moves set books = books",
                "delete from core_betting.steam_moves",
                "create table core_betting.made (a integer)",
            ],
        ),
        (
            "analytics",
            [
                "select count(*) from analytics.roi_calculations",
                "insert into analytics.roi_calculations (strategy_id, roi_per_100) values ('s', 1)",
                "update analytics.roi_calculations set roi_per_100 = 2",
                "delete from analytics.roi_calculations",
                "create table analytics.made (a integer)",
            ],
        ),
        (
            "operational",
            [
                "select count(*) from operational.collection_logs",
                "insert into operational.collection_logs (source, rows_collected) values ('vsin', 1)",
                "update operational.collection_logs set rows_collected = 2",
                "delete from operational.collection_logs",
                "create table operational.made (a integer)",
            ],
        ),
    ];
    let database = whole().await;
    let mut session = connect_as(&database, user_type).await;
    for ((schema, [read, insert, update, delete, create]), may) in
        ATTEMPTS
            .iter()
            .zip([raw_data, core_betting, analytics, operational])
    {
        for (letter, statement) in [
            ('r', read),
            ('a', insert),
            ('w', update),
            ('w', delete),
            ('c', create),
        ] {
            let done = run(&mut session, statement).await;
            if may.contains(letter) {
                assert!(
                    done.is_ok(),
                    "{user_type} may {letter} in {schema}: {done:?}"
                );
            } else {
                // 42501: insufficient privilege.
                assert_eq!(done, Err("42501".to_owned()), "{user_type}: {statement}");
            }
        }
    }
    // The list of permissions is nobody's to change.
    let widened = run(
        &mut session,
        "update operational.role_permissions set may_change = true",
    );
    assert!(widened.await.is_err());
    session.close().await.unwrap();
}

#[tokio::test]
async fn check_user_permissions_tells_what_was_granted() {
    let database = whole().await;
    let session = connect_as(&database, "processor").await;
    session.close().await.unwrap();
    let mut owner = database.connect().await.unwrap();
    let told: Vec<(String, bool, bool, bool, bool, bool)> = sqlx::query_as(
        "select p.* from pg_roles r, check_user_permissions(r.rolname) p
         where r.rolname = 'service_processor_' || right(current_database(), 8)",
    )
    .fetch_all(&mut owner)
    .await
    .unwrap();
    let told: Vec<_> = told
        .iter()
        .map(|(schema, read, insert, update, delete, create)| {
            (
                schema.as_str(),
                [read, insert, update, delete, create].map(|may| *may),
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            ("analytics", [false; 5]),
            ("core_betting", [true, true, true, true, false]),
            ("operational", [false; 5]),
            ("raw_data", [true, false, false, false, false]),
        ]
    );
}

#[rstest]
#[case("select grant_user_permissions('nobody_at_all', 'analyst')", "42704")]
#[case("select grant_user_permissions(current_user, 'owner')", "22023")]
#[case("select * from check_user_permissions('nobody_at_all')", "42704")]
#[tokio::test]
async fn a_wrong_grant_is_refused(#[case] statement: &'static str, #[case] sqlstate: &str) {
    let mut session = whole().await.connect().await.unwrap();
    assert_eq!(run(&mut session, statement).await, Err(sqlstate.to_owned()));
}

/// A processor may run the pipelines, though it may not write where they write.
#[tokio::test]
async fn pipelines_run_for_whose_work_they_are() {
    let database = whole().await;
    let mut processor = connect_as(&database, "processor").await;
    let synced = row(
        &mut processor,
        "select * from operational.sync_game_outcomes()",
    )
    .await;
    assert_eq!(
        synced,
        [Some("0".into()), Some("0".into()), Some("6".into())]
    );
    let split = row(
        &mut processor,
        "select * from operational.transform_betting_splits()",
    )
    .await;
    assert_eq!(split, [Some("0".into()), Some("0".into())]);
    let mut analyst = connect_as(&database, "analyst").await;
    let refused = run(&mut analyst, "select operational.sync_game_outcomes()").await;
    assert_eq!(refused, Err("42501".to_owned()));
}

/// Everything that a pipeline writes, apart from its log.
const HELD: &str = "select md5(concat(
    (select string_agg(t::text, ',' order by t.id) from core_betting.enhanced_games t),
    (select string_agg(t::text, ',' order by t.outcome_id) from operational.rejected_outcomes t),
    (select string_agg(t::text, ',' order by t.raw_split_id) from analytics.betting_splits t),
    (select string_agg(t::text, ',' order by t.raw_split_id) from operational.rejected_splits t),
    (select string_agg(t::text, ',' order by t.game_id, t.split_type) from core_betting.betting_splits t),
    (select string_agg(t::text, ',' order by t.game_id, t.split_type) from analytics.sharp_action_signals t),
    (select string_agg(t::text, ',' order by t.game_id) from analytics.ml_features t)))";

#[tokio::test]
async fn running_the_pipelines_again_changes_nothing() {
    let database = whole().await;
    let mut session = database.connect().await.unwrap();
    let before = value(&mut session, HELD).await;
    for statement in [
        "select operational.sync_game_outcomes()",
        "select operational.transform_betting_splits()",
        "select analytics.refresh_sharp_action_signals()",
        "call analytics.refresh_training_history()",
        "select analytics.refresh_ml_features()",
    ] {
        run(&mut session, statement).await.unwrap();
    }
    assert_eq!(value(&mut session, HELD).await, before);
}

/// A result that comes in later is taken over by the next run, alone; one that was wrong and is
/// corrected leaves the list of those set aside.
#[tokio::test]
async fn the_sync_takes_what_is_new_and_what_was_corrected() {
    let database = whole().await;
    let mut session = database.connect().await.unwrap();
    run(
        &mut session,
        "update core_betting.game_outcomes set home_score = 5, away_score = 4
         where home_score is null
           and game_id = (select min(game_id) from core_betting.game_outcomes where home_score is null)",
    )
    .await
    .unwrap();
    let synced = row(
        &mut session,
        "select * from operational.sync_game_outcomes()",
    )
    .await;
    assert_eq!(
        synced,
        [Some("1".into()), Some("0".into()), Some("5".into())]
    );

    run(
        &mut session,
        "update core_betting.game_outcomes o set home_score = 3, away_score = 2
         from operational.rejected_outcomes r where r.outcome_id = o.id and r.reason like '%tie%'",
    )
    .await
    .unwrap();
    let synced = row(
        &mut session,
        "select * from operational.sync_game_outcomes()",
    )
    .await;
    assert_eq!(
        synced,
        [Some("1".into()), Some("0".into()), Some("4".into())]
    );
    let left = value(
        &mut session,
        "select count(*) from operational.rejected_outcomes",
    )
    .await;
    assert_eq!(left, "1");
}

/// One bad row is set aside; a batch of bad rows means that the source is broken.
#[rstest]
#[case::one_bad(1, Ok("93"))]
#[case::a_tenth(9, Ok("85"))]
#[case::more(10, Err("P0001"))]
#[tokio::test]
async fn the_circuit_breaker_opens_on_a_broken_source(
    #[case] bad: i32,
    #[case] expected: Result<&str, &str>,
) {
    let database = whole().await;
    let mut session = database.connect().await.unwrap();
    run(
        &mut session,
        "update core_betting.enhanced_games set home_score = null, away_score = null, winning_team = null",
    )
    .await
    .unwrap();
    sqlx::query(
        "update core_betting.game_outcomes o set home_score = -1
         from (select o.id from core_betting.game_outcomes o
               join core_betting.enhanced_games e using (game_id)
               where operational.outcome_flaw(o.home_score, o.away_score) is null and o.home_score is not null
               order by o.id limit $1) bad
         where bad.id = o.id",
    )
    .bind(bad)
    .execute(&mut session)
    .await
    .unwrap();
    let done = run(&mut session, "select operational.sync_game_outcomes()").await;
    let scored = value(
        &mut session,
        "select count(*) from core_betting.enhanced_games where home_score is not null",
    )
    .await;
    match expected {
        Ok(count) => {
            assert!(done.is_ok(), "{done:?}");
            assert_eq!(scored, count);
        }
        Err(sqlstate) => {
            assert_eq!(done, Err(sqlstate.to_owned()));
            assert_eq!(scored, "0");
        }
    }
}

/// Two runs at once do the work once: the second waits for the first and finds nothing left.
#[tokio::test]
async fn two_runs_at_once_do_the_work_once() {
    let database = whole().await;
    let mut first = database.connect().await.unwrap();
    run(
        &mut first,
        "update core_betting.enhanced_games set home_score = null, away_score = null, winning_team = null;
         delete from analytics.betting_splits;",
    )
    .await
    .unwrap();
    run(&mut first, "begin").await.unwrap();
    let synced = value(
        &mut first,
        "select synced from operational.sync_game_outcomes()",
    )
    .await;
    let split = value(
        &mut first,
        "select transformed from operational.transform_betting_splits()",
    );
    assert_eq!((synced, split.await), ("94".to_owned(), "1499".to_owned()));

    let mut second = database.connect().await.unwrap();
    let pid = value(&mut second, "select pg_backend_pid()").await;
    let waiting = tokio::spawn(async move {
        let synced = value(
            &mut second,
            "select synced from operational.sync_game_outcomes()",
        )
        .await;
        let split = value(
            &mut second,
            "select transformed from operational.transform_betting_splits()",
        );
        (synced, split.await)
    });
    // The event to wait for: the second session stands at the first one's lock.
    let mut watcher = database.connect().await.unwrap();
    let is_waiting = "select exists (select from pg_locks where pid = $1::int and not granted)";
    while !sqlx::query_scalar::<_, bool>(is_waiting)
        .bind(pid.parse::<i32>().unwrap())
        .fetch_one(&mut watcher)
        .await
        .unwrap()
    {
        tokio::task::yield_now().await;
    }
    run(&mut first, "commit").await.unwrap();
    assert_eq!(waiting.await.unwrap(), ("0".to_owned(), "0".to_owned()));
}

#[tokio::test]
async fn every_raw_split_ends_transformed_or_refused_with_a_reason() {
    let database = whole().await;
    let mut session = database.connect().await.unwrap();
    run(
        &mut session,
        "insert into raw_data.raw_mlb_betting_splits
             (game_id, source, book, split_type, home_bets_pct, away_bets_pct, home_money_pct, away_money_pct, last_updated)
         select game_id, 'VSIN', 'circa', 'moneyline', bets, '40%', '55 %', '45', now()
         from (select game_id from raw_data.raw_mlb_betting_splits order by id limit 1) g,
              (values ('60%'), ('57'), ('75%'), ('n/a')) v(bets)
         union all select 'nowhere', 'VSIN', 'circa', 'moneyline', '60%', '40%', '55%', '45%', now()",
    )
    .await
    .unwrap();
    let done = row(
        &mut session,
        "select * from operational.transform_betting_splits()",
    )
    .await;
    assert_eq!(done, [Some("1".into()), Some("4".into())]);
    let reasons = value(
        &mut session,
        "select string_agg(reason, '; ' order by raw_split_id)
         from (select * from operational.rejected_splits order by raw_split_id desc limit 4) r",
    )
    .await;
    assert_eq!(
        reasons,
        "shares of bets make 97%; shares of bets make 115%; no figures; no such game"
    );
}

/// During the switch both names lead to the same rows, and what is written under the old name is there
/// under the new one.
#[tokio::test]
async fn old_names_answer_during_the_switch() {
    let database = switched().await;
    let mut session = database.connect().await.unwrap();
    let names = row(
        &mut session,
        "select operational.get_table('raw_betting_splits'), operational.get_table('legacy_raw_betting_splits')",
    )
    .await;
    assert_eq!(
        names,
        [
            Some("raw_data.raw_mlb_betting_splits".into()),
            Some("splits.raw_mlb_betting_splits".into())
        ]
    );
    let moved: Vec<(String, i64, i64, i64, i64)> =
        sqlx::query_as("select * from operational.migration_parity()")
            .fetch_all(&mut session)
            .await
            .unwrap();
    assert_eq!(moved.len(), 37);
    for (name, legacy, current, set_aside, lost) in moved {
        assert_eq!(lost, 0, "{name}");
        // The log goes on.
        if name != "migration_log" {
            assert_eq!(legacy, current + set_aside, "{name}");
        }
    }
    run(
        &mut session,
        "insert into splits.games (external_id, game_date, home_team, away_team, game_datetime, status)
         values ('late', '2025-07-03', 'NYY', 'BOS', now(), 'scheduled');
         update mlb_betting.moneyline set home_ml = -111 where id = 1;
         delete from clean.betting_recommendations where id = 1",
    )
    .await
    .unwrap();
    let seen = row(
        &mut session,
        "select (select count(*) from core_betting.supplementary_games where external_id = 'late'),
                (select home_ml from core_betting.betting_lines_moneyline where id = 1),
                (select count(*) from analytics.betting_recommendations where id = 1)",
    )
    .await;
    assert_eq!(
        seen,
        [Some("1".into()), Some("-111".into()), Some("0".into())]
    );
    let unknown = run(&mut session, "select operational.get_table('gmes')").await;
    assert_eq!(unknown, Err("42P01".to_owned()));
}

#[tokio::test]
async fn old_names_are_gone_after_the_drop() {
    let database = whole().await;
    let mut session = database.connect().await.unwrap();
    let old = run(&mut session, "select operational.get_table('legacy_games')").await;
    assert_eq!(old, Err("42P01".to_owned()));
    let new = value(&mut session, "select operational.get_table('games')").await;
    assert_eq!(new, "core_betting.games");
}

/// The destructive step looks for itself.
#[tokio::test]
async fn nothing_is_dropped_while_a_row_is_lost() {
    let database = switched().await;
    let mut session = database.connect().await.unwrap();
    run(
        &mut session,
        "delete from core_betting.betting_lines_totals where id = 77",
    )
    .await
    .unwrap();
    let history = History::discover(&Path::new(FOLDER).join("migrations")).unwrap();
    let last = history.position("drop_legacy").unwrap();
    let error = replayer(&mut session, &database, &mut ())
        .apply(&history.migrations()[last], Pass::First)
        .await
        .unwrap_err();
    assert!(
        error
            .message()
            .contains("1 of 2520 rows of totals are neither in their new table nor set aside"),
        "{error}"
    );
    let kept = value(
        &mut session,
        "select count(*) from legacy_mlb_betting.totals",
    )
    .await;
    assert_eq!(kept, "2520");
}

/// A check that is told twice counts once, and one failure in a thousand is too many.
#[tokio::test]
async fn uptime_is_the_share_of_healthy_checks() {
    let database = whole().await;
    let mut session = database.connect().await.unwrap();
    run(
        &mut session,
        "select operational.record_health('database', n <> 500, timestamptz '2025-07-02 00:00+00' + n * interval '1 minute')
         from generate_series(1, 1000) n, generate_series(1, 2) twice",
    )
    .await
    .unwrap();
    let told = row(
        &mut session,
        "select checks, healthy, uptime_pct from operational.uptime",
    )
    .await;
    assert_eq!(
        told,
        [
            Some("1000".into()),
            Some("999".into()),
            Some("99.900".into())
        ]
    );
    let alert = value(&mut session, "select alert from operational.open_alerts").await;
    assert_eq!(alert, "uptime_pct_min");
}

#[tokio::test]
async fn a_month_without_a_partition_gets_one() {
    let database = whole().await;
    let mut session = database.connect().await.unwrap();
    for _ in 0..2 {
        run(
            &mut session,
            "select core_betting.add_moneyline_partition('2026-04-15')",
        )
        .await
        .unwrap();
    }
    run(
        &mut session,
        "insert into core_betting.betting_lines_moneyline (game_id, sportsbook, home_ml, away_ml, odds_timestamp)
         select min(id), 'Circa', -120, 110, '2026-04-30 23:59:59+00' from core_betting.games",
    )
    .await
    .unwrap();
    let rows = value(
        &mut session,
        "select count(*) from core_betting.betting_lines_moneyline_2026_04",
    )
    .await;
    assert_eq!(rows, "1");
}
