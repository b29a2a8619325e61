//! sqlx against the server of PGHOST and PGPORT: everything is prepared, every value binary;
//! `describe` is what `query!` asks.

use futures::{StreamExt, TryStreamExt};
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolCopyExt, PgPoolOptions, PgRow};
use sqlx::types::Decimal;
use sqlx::types::chrono::{DateTime, NaiveDate, NaiveDateTime, Utc};
use sqlx::{Column, ConnectOptions, Connection, Executor, Row, SqlSafeStr, Statement, TypeInfo};

type Answer = Result<(), Box<dyn std::error::Error>>;

#[derive(Debug, PartialEq, sqlx::FromRow)]
struct Order {
    id: i64,
    customer: String,
    amount: Option<Decimal>,
    placed: Option<NaiveDateTime>,
    day: Option<NaiveDate>,
    paid: Option<bool>,
    weight: Option<f64>,
    note: Option<String>,
}

fn day(day: u32) -> NaiveDate {
    NaiveDate::from_ymd_opt(2024, 1, day).expect("a day")
}

fn orders() -> Vec<Order> {
    let order = |id, customer: &str| Order {
        id,
        customer: customer.into(),
        amount: None,
        placed: None,
        day: None,
        paid: None,
        weight: None,
        note: None,
    };
    vec![
        Order {
            amount: Some(Decimal::new(105_000, 4)),
            placed: day(2).and_hms_opt(3, 4, 5),
            day: Some(day(2)),
            paid: Some(true),
            weight: Some(1.5),
            note: Some("first".into()),
            ..order(1, "ann")
        },
        Order {
            amount: Some(Decimal::new(202_500, 4)),
            placed: day(3).and_hms_opt(0, 0, 0),
            day: Some(day(3)),
            paid: Some(false),
            ..order(2, "bob")
        },
        Order {
            weight: Some(0.1),
            note: Some("o'clock".into()),
            ..order(3, "cy")
        },
    ]
}

fn code(error: &sqlx::Error) -> Option<String> {
    Some(error.as_database_error()?.code()?.into_owned())
}

async fn values(pool: &PgPool) -> Answer {
    let found: Vec<Order> = sqlx::query_as("SELECT * FROM market.orders ORDER BY id")
        .fetch_all(pool)
        .await?;
    assert_eq!(found, orders());
    let found: Vec<i64> =
        sqlx::query_scalar("SELECT id FROM market.orders WHERE id = ANY($1) ORDER BY id")
            .bind(vec![1_i64, 3, 99])
            .fetch_all(pool)
            .await?;
    assert_eq!(found, [1, 3]);
    let found: Option<Order> = sqlx::query_as(
        "SELECT * FROM market.orders WHERE amount = $1 AND placed >= $2 AND day = $3 AND paid = $4 AND weight < $5 AND note = $6",
    )
    .bind(Decimal::new(105, 1))
    .bind(day(2).and_hms_opt(0, 0, 0))
    .bind(day(2))
    .bind(true)
    .bind(2.0)
    .bind("first")
    .fetch_optional(pool)
    .await?;
    assert_eq!(found.map(|o| o.id), Some(1));
    let nothing: Option<i64> =
        sqlx::query_scalar("SELECT id FROM market.orders WHERE customer = $1")
            .bind(None::<String>)
            .fetch_optional(pool)
            .await?;
    assert_eq!(nothing, None);
    let row: PgRow = sqlx::query(
        "SELECT $1::smallint, $2::integer, $3::real, $4::bytea, $5::timestamptz, $6::text[]",
    )
    .bind(-7_i16)
    .bind(70_000)
    .bind(0.5_f32)
    .bind(vec![0_u8, 255])
    .bind(DateTime::<Utc>::UNIX_EPOCH)
    .bind(vec![Some("a"), None, Some("b,\"c")])
    .fetch_one(pool)
    .await?;
    assert_eq!(
        (
            row.get::<i16, _>(0),
            row.get::<i32, _>(1),
            row.get::<f32, _>(2)
        ),
        (-7, 70_000, 0.5)
    );
    assert_eq!(
        (row.get::<Vec<u8>, _>(3), row.get::<DateTime<Utc>, _>(4)),
        (vec![0, 255], DateTime::UNIX_EPOCH)
    );
    assert_eq!(
        row.get::<Vec<Option<String>>, _>(5),
        [Some("a".into()), None, Some("b,\"c".into())]
    );
    // Without parameters and as they come: the simple protocol, in text.
    let rows = sqlx::raw_sql("SELECT 1; SELECT customer FROM market.orders ORDER BY id")
        .fetch_all(pool)
        .await?;
    assert_eq!(
        rows.iter()
            .skip(1)
            .map(|r| r.get::<String, _>(0))
            .collect::<Vec<_>>(),
        ["ann", "bob", "cy"]
    );
    Ok(())
}

/// What the compile-time checks of `query!` ask: types, columns, and whether they may be NULL.
async fn describes(pool: &PgPool) -> Answer {
    let mut connection = pool.acquire().await?;
    let asked = "SELECT id, customer, amount FROM market.orders WHERE id = $1 AND placed > $2";
    let statement = (&mut *connection).prepare(asked.into_sql_str()).await?;
    let columns = statement
        .columns()
        .iter()
        .map(|c| (c.name(), c.type_info().name()))
        .collect::<Vec<_>>();
    assert_eq!(
        columns,
        [
            ("id", "INT8"),
            ("customer", "VARCHAR"),
            ("amount", "NUMERIC")
        ]
    );
    let described = (&mut *connection).describe(asked.into_sql_str()).await?;
    assert_eq!(
        described
            .columns()
            .iter()
            .map(|c| c.name())
            .collect::<Vec<_>>(),
        ["id", "customer", "amount"]
    );
    let nullable: Vec<_> = (0..3).map(|i| described.nullable(i)).collect();
    assert_eq!(nullable, [Some(false), Some(false), Some(true)]);
    let parameters = described
        .parameters()
        .and_then(|p| p.left())
        .unwrap_or_default();
    assert_eq!(
        parameters.iter().map(TypeInfo::name).collect::<Vec<_>>(),
        ["INT8", "TIMESTAMP"]
    );
    Ok(())
}

async fn streams_and_blocks(pool: &PgPool) -> Answer {
    let mut rows =
        sqlx::query_scalar::<_, i64>("SELECT n::bigint FROM generate_series(1, 100000) AS s(n)")
            .fetch(pool);
    let sum = async {
        let mut sum = 0;
        while let Some(n) = rows.try_next().await? {
            sum += n;
        }
        Ok::<_, sqlx::Error>(sum)
    };
    assert_eq!(sum.await?, 5_000_050_000);
    drop(rows);
    // Half-read and dropped: the connection is good for the next statement.
    let mut connection = pool.acquire().await?;
    let first = sqlx::query("SELECT n FROM generate_series(1, 100000) AS s(n)")
        .fetch(&mut *connection)
        .next()
        .await;
    assert!(first.is_some_and(|r| r.is_ok()));
    assert_eq!(
        sqlx::query_scalar::<_, i32>("SELECT 7")
            .fetch_one(&mut *connection)
            .await?,
        7
    );

    let mut outer = connection.begin().await?;
    let mut inner = outer.begin().await?;
    let error = sqlx::query("SELECT nope FROM market.orders")
        .fetch_one(&mut *inner)
        .await
        .expect_err("no such column");
    assert_eq!(code(&error).as_deref(), Some("42703"));
    let error = sqlx::query("SELECT 1")
        .fetch_one(&mut *inner)
        .await
        .expect_err("a failed block");
    assert_eq!(code(&error).as_deref(), Some("25P02"));
    inner.rollback().await?;
    assert_eq!(
        sqlx::query_scalar::<_, i64>("SELECT count(*) FROM market.orders")
            .fetch_one(&mut *outer)
            .await?,
        3
    );
    // Dropped without a word: rolled back before the connection is used again.
    drop(outer);
    sqlx::query("SET statement_timeout = '50ms'")
        .execute(&mut *connection)
        .await?;
    let error = sqlx::query("SELECT pg_sleep(60)")
        .execute(&mut *connection)
        .await
        .expect_err("takes too long");
    assert_eq!(code(&error).as_deref(), Some("57014"));
    sqlx::query("RESET statement_timeout")
        .execute(&mut *connection)
        .await?;
    connection.ping().await?;
    Ok(())
}

async fn copies(pool: &PgPool) -> Answer {
    let out = pool
        .copy_out_raw(
            "COPY (SELECT id, customer FROM market.orders ORDER BY id) TO STDOUT (FORMAT csv)",
        )
        .await?;
    let text = out.try_fold(Vec::new(), |mut all, part| async move {
        all.extend_from_slice(&part);
        Ok(all)
    });
    assert_eq!(String::from_utf8(text.await?)?, "1,ann\n2,bob\n3,cy\n");
    let table = "market.from_sqlx";
    pool.execute(sqlx::AssertSqlSafe(format!(
        "CREATE TABLE {table} (id BIGINT, word VARCHAR(20))"
    )))
    .await?;
    let mut into = pool
        .copy_in_raw(&format!("COPY {table} FROM STDIN (FORMAT csv)"))
        .await?;
    into.send(&b"1,one\n2,two\n"[..]).await?;
    assert_eq!(into.finish().await?, 2);
    let inserted = sqlx::query(sqlx::AssertSqlSafe(format!(
        "INSERT INTO {table} VALUES ($1, $2), ($3, $4)"
    )))
    .bind(3_i64)
    .bind("three")
    .bind(4_i64)
    .bind(None::<String>)
    .execute(pool)
    .await?;
    assert_eq!(inserted.rows_affected(), 2);
    let words: Vec<Option<String>> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
        "SELECT word FROM {table} ORDER BY id"
    )))
    .fetch_all(pool)
    .await?;
    assert_eq!(
        words,
        [
            Some("one".into()),
            Some("two".into()),
            Some("three".into()),
            None
        ]
    );
    pool.execute(sqlx::AssertSqlSafe(format!("DROP TABLE {table}")))
        .await?;
    PgListener::connect_with(pool).await?.listen("jobs").await?;
    Ok(())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Answer {
    let options = PgConnectOptions::new()
        .application_name("sqlx")
        .disable_statement_logging();
    let pool = PgPoolOptions::new()
        .max_connections(4)
        .test_before_acquire(true)
        .connect_with(options)
        .await?;
    values(&pool).await?;
    describes(&pool).await?;
    streams_and_blocks(&pool).await?;
    copies(&pool).await?;
    pool.close().await;
    println!("sqlx passed");
    Ok(())
}
