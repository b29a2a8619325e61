//! What privileges allow.

use tokio_postgres::error::SqlState;

use crate::support::{TestServer, connect, fails, job_ends, run, value};

/// Nothing is allowed that was not granted, and what was granted is: each step of StarRocks' rules
/// for BACKUP and RESTORE.
#[tokio::test(flavor = "multi_thread")]
async fn privileges_allow_what_they_say_and_nothing_else() {
    let server = TestServer::start().await;
    let addr = server.server.addr();
    let root = server.client().await;
    run(&root, "CREATE DATABASE d; CREATE TABLE d.t (a INT); CREATE TABLE d.u (a INT); INSERT INTO d.t VALUES (1)").await;
    // Bare names in a view are its database's, wherever the reader is; a WITH of the same name
    // elsewhere changes nothing.
    run(&root, "USE d; CREATE VIEW bare AS SELECT a FROM t").await;
    run(&root, "CREATE VIEW twice AS SELECT t.a FROM t JOIN (WITH t AS (SELECT 1 AS a) SELECT a FROM t) w ON t.a = w.a").await;
    run(&root, "CREATE VIEW d.v AS SELECT a FROM d.u; CREATE USER ana; CREATE ROLE keeper; CREATE ROLE inner_role").await;
    run(
        &root,
        "GRANT inner_role TO ROLE keeper; GRANT keeper TO ana",
    )
    .await;
    let ana = connect(addr, "ana", "").await.expect("logs in");
    let lacks = async |statement: &str, what: &str| {
        let (code, message) = fails(&ana, statement).await;
        let start = format!(
            "Access denied; you need (at least one of) the {what} for this operation. Please ask the admin"
        );
        assert!(
            code == "42501" && message.starts_with(&start),
            "{statement}: {message}"
        );
        assert!(
            message.ends_with("Current role(s): [keeper, inner_role]. Inactivated role(s): NONE."),
            "{message}"
        );
    };
    let create = format!(
        "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\"",
        server.repository().display()
    );
    let repository = "REPOSITORY privilege(s) on SYSTEM";
    for statement in [
        create.as_str(),
        "DROP REPOSITORY r",
        "DROP SNAPSHOT s ON r",
        "SHOW BACKUP",
        "SHOW RESTORE FROM d",
        "CANCEL BACKUP FROM d",
    ] {
        lacks(statement, repository).await;
    }
    // What a role holds counts, through another role too, and at once.
    run(&root, "GRANT REPOSITORY ON SYSTEM TO ROLE inner_role").await;
    // Where the server's own files are is for administrators to say.
    let through_url = create.replace("LOCATION \"/", "LOCATION \"FILE:///");
    let key = "CREATE REPOSITORY r WITH BROKER ON LOCATION \"gs://b/p\" PROPERTIES (\"gcp.gcs.service_account_key_path\" = \"/etc/passwd\")";
    for statement in [create.as_str(), &through_url, key] {
        lacks(statement, "ADMIN privilege(s)").await;
    }
    let (code, message) = fails(
        &ana,
        "CREATE REPOSITORY r WITH BROKER ON LOCATION \"ftp://x/y\"",
    )
    .await;
    assert!(code == "0A000", "{message}");
    run(&root, &create).await;
    lacks("ALTER REPOSITORY r SET PROPERTIES (\"gcp.gcs.service_account_key_path\" = \"/etc/passwd\")", "ADMIN privilege(s)").await;
    run(&ana, "SHOW BACKUP; SHOW RESTORE FROM d; SHOW SNAPSHOT ON r").await;

    // BACKUP: EXPORT on every table.
    lacks(
        "BACKUP SNAPSHOT d.s TO r ON (t)",
        "EXPORT privilege(s) on TABLE t",
    )
    .await;
    run(&root, "GRANT EXPORT ON TABLE d.t TO ana").await;
    lacks("BACKUP SNAPSHOT d.s TO r", "EXPORT privilege(s) on TABLE u").await;
    run(&ana, "BACKUP SNAPSHOT d.s TO r ON (t)").await;
    assert_eq!(job_ends(&ana, "d").await, "succeeded");

    // RESTORE with ON: CREATE TABLE on the database, INSERT on tables that are there. Without:
    // CREATE DATABASE.
    let latest = "PROPERTIES (\"backup_timestamp\" = \"latest\")";
    lacks(
        &format!("RESTORE SNAPSHOT d.s FROM r ON (t AS t2) {latest}"),
        "CREATE TABLE privilege(s) on DATABASE d",
    )
    .await;
    run(&root, "GRANT CREATE TABLE ON DATABASE d TO ana").await;
    run(
        &ana,
        &format!("RESTORE SNAPSHOT d.s FROM r ON (t AS t2) {latest}"),
    )
    .await;
    assert_eq!(job_ends(&ana, "d").await, "succeeded");
    lacks(
        &format!("RESTORE SNAPSHOT d.s FROM r ON (t) {latest}"),
        "INSERT privilege(s) on TABLE t",
    )
    .await;
    lacks(
        &format!("RESTORE SNAPSHOT d.s FROM r ON (ALL TABLES) {latest}"),
        "INSERT privilege(s) on TABLE t",
    )
    .await;
    run(&root, "GRANT INSERT ON ALL TABLES IN DATABASE d TO ana").await;
    run(
        &ana,
        &format!("RESTORE SNAPSHOT d.s FROM r ON (t) {latest}"),
    )
    .await;
    assert_eq!(job_ends(&ana, "d").await, "succeeded");
    lacks(
        &format!("RESTORE SNAPSHOT e.s FROM r {latest}"),
        "CREATE DATABASE privilege(s) on CATALOG default_catalog",
    )
    .await;
    run(
        &root,
        "GRANT CREATE DATABASE ON CATALOG default_catalog TO ROLE keeper",
    )
    .await;
    run(&ana, &format!("RESTORE SNAPSHOT e.s FROM r {latest}")).await;
    assert_eq!(job_ends(&ana, "e").await, "succeeded");

    // Rows: INSERT was granted, reading was not; a view is read with the rights to what it stands
    // on.
    run(&ana, "INSERT INTO d.u VALUES (5)").await;
    lacks(
        "INSERT INTO d.u SELECT a FROM d.t",
        "SELECT privilege(s) on TABLE t",
    )
    .await;
    lacks("SELECT * FROM d.v", "SELECT privilege(s) on TABLE u").await;
    for statement in [
        "SELECT * FROM d.bare",
        "SELECT * FROM d.twice",
        "SELECT * FROM D.T",
        "WITH t AS (SELECT 1 AS a) SELECT * FROM d.t",
        "SELECT 1 WHERE EXISTS (SELECT * FROM d.bare)",
        "EXPLAIN SELECT * FROM d.bare",
        "SELECT a FROM (SELECT a FROM d.t UNION ALL SELECT a FROM d.bare) x",
    ] {
        lacks(statement, "SELECT privilege(s) on TABLE t").await;
    }
    run(&ana, "USE d").await;
    lacks("SELECT * FROM bare", "SELECT privilege(s) on TABLE t").await;
    lacks(
        "SELECT (SELECT max(a) FROM t)",
        "SELECT privilege(s) on TABLE t",
    )
    .await;
    assert_eq!(
        value(&ana, "WITH t AS (SELECT 3 AS a) SELECT a FROM t").await,
        "3"
    );
    assert_eq!(
        value(&ana, "SELECT max(value) FROM generate_series(1, 4)").await,
        "4"
    );
    lacks("DELETE FROM d.u", "DELETE privilege(s) on TABLE u").await;
    lacks("TRUNCATE TABLE d.u", "DELETE privilege(s) on TABLE u").await;
    run(&root, "GRANT DELETE ON TABLE d.u TO ana").await;
    run(&ana, "DELETE FROM d.u WHERE a = 6").await;
    // A DELETE looks at its own rows with DELETE alone; a subquery could tell about them in words.
    lacks(
        "DELETE FROM d.u WHERE a > (SELECT max(a) FROM d.u)",
        "SELECT privilege(s) on TABLE u",
    )
    .await;
    lacks(
        "DELETE FROM d.u WHERE EXISTS (SELECT 1 FROM d.u AS x WHERE x.a = 5)",
        "SELECT privilege(s) on TABLE u",
    )
    .await;
    run(&root, "GRANT SELECT ON TABLE d.u TO ana").await;
    assert_eq!(value(&ana, "SELECT a FROM d.v").await, "5");
    lacks(
        "DELETE FROM d.u WHERE a IN (SELECT a FROM d.t)",
        "SELECT privilege(s) on TABLE t",
    )
    .await;
    run(&ana, "DELETE FROM d.u WHERE a = 5").await;

    // What others say and where they are is not hers to see.
    let others = "SELECT count(*) > 0 FROM system.sessions WHERE user_name = 'root' AND statement IS NOT NULL";
    assert_eq!(
        (value(&ana, others).await, value(&root, others).await),
        ("f".into(), "t".into())
    );
    assert_eq!(
        value(
            &ana,
            "SELECT count(statement) FROM system.sessions WHERE user_name = 'ana'"
        )
        .await,
        "1"
    );

    // Definitions.
    run(&ana, "CREATE TABLE d.w (a INT)").await;
    lacks("DROP TABLE d.w", "DROP privilege(s) on TABLE w").await;
    lacks(
        "CREATE VIEW d.x AS SELECT a FROM d.u",
        "CREATE VIEW privilege(s) on DATABASE d",
    )
    .await;
    lacks("DROP DATABASE d", "DROP privilege(s) on DATABASE d").await;
    lacks(
        "ALTER TABLE d.t ADD PARTITION p VALUES LESS THAN (\"5\")",
        "ALTER privilege(s) on TABLE t",
    )
    .await;
    lacks(
        "COPY d.u FROM '/etc/passwd' (FORMAT csv)",
        "ADMIN privilege(s)",
    )
    .await;
    lacks("GRANT ADMIN TO ana", "ADMIN privilege(s)").await;

    // What is revoked is gone at once, for a statement that was prepared before, too.
    let prepared = ana
        .prepare("INSERT INTO d.u VALUES (6)")
        .await
        .expect("prepared");
    run(
        &root,
        "REVOKE INSERT ON ALL TABLES IN DATABASE d FROM ana; REVOKE keeper FROM ana",
    )
    .await;
    let error = ana.execute(&prepared, &[]).await.expect_err("revoked");
    assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    assert_eq!(fails(&ana, "SHOW BACKUP").await.0, "42501");
    drop((root, ana));
    server.stop().await;
}
