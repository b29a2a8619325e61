//! StarRocks clusters as they come and go, how they are reached, and repositories without one.

use crate::fake_fe::{FakeFe, Fault, Pace};
use crate::starrocks::{FAST, fixture, fixture_of};
use crate::support::{TestServer, connect, fails, rows, run, until, value};

#[tokio::test(flavor = "multi_thread")]
async fn lost_frontends_are_replaced() {
    let fe = FakeFe::start("3.3.16", 3, Pace::Manual).await;
    let w = fixture_of(fe, "").await;
    let ports = w.fe.addresses();
    let address = |n: usize| ports.split(',').nth(n).expect("a port").to_owned();
    assert_eq!(
        w.value("SELECT leader FROM system.clusters WHERE cluster = 'prod'")
            .await,
        address(0)
    );
    run(
        &w.client,
        "USE shop; BACKUP SNAPSHOT one TO r ON (customers)",
    )
    .await;
    w.fe.step();
    w.until(
        "SELECT native_state FROM system.jobs WHERE snapshot = 'one'",
        "SNAPSHOTING",
    )
    .await;
    let first = w.value("SELECT native_job_id FROM system.jobs").await;
    // The leader dies; another takes over and begins the phase anew, under another id. It is the
    // same job.
    w.fe.model(|m| m.fail_over());
    w.fe.lead(1);
    w.fe.set_up(0, false);
    w.until(
        "SELECT native_state FROM system.jobs WHERE snapshot = 'one'",
        "PENDING",
    )
    .await;
    w.until(
        "SELECT leader FROM system.clusters WHERE cluster = 'prod'",
        &address(1),
    )
    .await;
    for _ in 0..6 {
        w.fe.step();
    }
    assert_eq!(w.ends().await, "succeeded");
    assert_ne!(
        w.value("SELECT native_job_id FROM system.jobs").await,
        first
    );
    // SHOW RESTORE is asked of the leader: the followers of the fake cluster would tell old news.
    run(&w.client, "RESTORE SNAPSHOT one FROM r ON (customers AS again) PROPERTIES (\"backup_timestamp\" = \"latest\")").await;
    for _ in 0..6 {
        w.fe.step();
    }
    assert_eq!(w.ends().await, "succeeded");
    // All of them are down: an error with the addresses, history all the same, and nothing waits.
    for number in 0..3 {
        w.fe.set_up(number, false);
    }
    let (code, message) = fails(&w.client, "BACKUP SNAPSHOT two TO r ON (customers)").await;
    assert_eq!(code, "08006");
    assert!((0..3).all(|n| message.contains(&address(n))), "{message}");
    assert_eq!(rows(&w.client, "SHOW BACKUP").await.len(), 1);
    assert_eq!(rows(&w.client, "SHOW BACKUP FROM shop").await.len(), 1);
    assert_eq!(
        fails(&w.client, "SELECT * FROM shop.customers").await.0,
        "08006"
    );
    let clusters = rows(
        &w.client,
        "SELECT reachable, error IS NOT NULL FROM system.clusters WHERE cluster = 'prod'",
    )
    .await;
    assert_eq!(clusters, [[Some("f".to_owned()), Some("t".to_owned())]]);
    assert_eq!(
        w.value("SELECT status FROM system.jobs WHERE snapshot = 'two'")
            .await,
        "refused"
    );
    w.fe.set_up(2, true);
    w.until(
        "SELECT reachable FROM system.clusters WHERE cluster = 'prod'",
        "t",
    )
    .await;
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn stored_snapshots_are_read_without_cluster() {
    for version in ["3.3.16", "4.2.0"] {
        let w = fixture(version, FAST).await;
        run(
            &w.client,
            "BACKUP SNAPSHOT shop.whole TO r ON (orders, customers)",
        )
        .await;
        assert_eq!(w.ends().await, "succeeded");
        let root = w.bucket().join("__starrocks_repository_r");
        let label = root.join("__ss_whole");
        let info = std::fs::read_dir(&label)
            .expect("listed")
            .map(|e| e.expect("an entry").path());
        let info = info
            .into_iter()
            .find(|p| p.to_string_lossy().contains("__info_"))
            .expect("the info file");
        // Beside it: one that was never finished, one that is damaged, and what is nobody's.
        std::fs::create_dir_all(root.join("__ss_half/__ss_content")).expect("made");
        crate::fake_fe::put(
            &root.join("__ss_half/__ss_content/__db_1/__tbl_2/__part_3/__idx_4/__5"),
            "0_0.dat",
            b"rows",
        );
        std::fs::write(
            root.join("__ss_half/__ss_content/__db_1/__tbl_2/__part_3/__idx_4/__5/5.hdr.part"),
            "he",
        )
        .expect("written");
        std::fs::create_dir_all(root.join("__ss_damaged")).expect("made");
        let name = info.file_name().expect("a name");
        std::fs::write(root.join("__ss_damaged").join(name), "{}").expect("written");
        std::fs::write(label.join("notes.txt"), "hello").expect("written");

        let list = "SELECT snapshot, status, db_name, tables, partitions, files, bytes_total > 0, cluster FROM system.snapshots
                    WHERE repository = 'r' ORDER BY snapshot";
        let shown = rows(&w.client, list).await;
        let shown: Vec<String> = shown
            .into_iter()
            .map(|r| {
                r.into_iter()
                    .map(|v| v.unwrap_or_default())
                    .collect::<Vec<_>>()
                    .join("|")
            })
            .collect();
        let damaged = shown[0]
            .strip_prefix("damaged|ERROR: Failed to get info: md5sum does not equal. local: ");
        assert!(
            damaged.is_some_and(|rest| rest.contains("remote: ")),
            "{shown:?}"
        );
        assert_eq!(shown[1], "half|ERROR: no snapshot||||2|t|prod", "{version}");
        assert_eq!(shown[2], "whole|OK|shop|2|3|9|t|prod", "{version}");
        let sizes = "SELECT table_name, partition_name, count(*), sum(bytes), min(length(checksum)) FROM system.snapshot_files
                     WHERE snapshot = 'whole' AND table_name IS NOT NULL GROUP BY 1, 2 ORDER BY 1, 2";
        let shown = rows(&w.client, sizes).await;
        let shown: Vec<String> = shown
            .into_iter()
            .map(|r| {
                r.into_iter()
                    .map(|v| v.unwrap_or_default())
                    .collect::<Vec<_>>()
                    .join("|")
            })
            .collect();
        assert_eq!(
            shown,
            [
                "customers|customers|2|19|32",
                "orders|p1|2|19|32",
                "orders|p2|2|19|32"
            ],
            "{version}"
        );
        let odd = "SELECT string_agg(status || ' ' || path, ', ' ORDER BY path) FROM system.snapshot_files WHERE status <> 'OK'";
        assert_eq!(
            w.value(odd).await,
            "PARTIAL __ss_half/__ss_content/__db_1/__tbl_2/__part_3/__idx_4/__5/5.hdr.part, FOREIGN __ss_whole/notes.txt"
        );
        let listed = rows(&w.client, "SHOW SNAPSHOT ON r WHERE SNAPSHOT = 'whole'").await;
        assert_eq!(
            (listed[0][0].as_deref(), listed[0][2].as_deref()),
            (Some("whole"), Some("OK"))
        );
        assert_eq!(
            listed[0][3].as_deref(),
            if version == "4.2.0" { Some("77") } else { None }
        );
        let timestamp = listed[0][1].clone().expect("a timestamp");
        let details = rows(
            &w.client,
            &format!("SHOW SNAPSHOT ON r WHERE SNAPSHOT = 'whole' AND TIMESTAMP = '{timestamp}'"),
        )
        .await;
        assert!(
            details[0][3]
                .as_ref()
                .is_some_and(|d| d.contains("\"orders\"") && d.contains("\"p1\"")),
            "{details:?}"
        );
        // A half-written info file stops StarRocks from reading the snapshot, and is told.
        std::fs::write(label.join(format!("__info_{timestamp}.part")), "{").expect("written");
        let told = w
            .value("SELECT status FROM system.snapshots WHERE snapshot = 'whole'")
            .await;
        assert_eq!(
            told,
            format!("ERROR: Failed to get info: __info_{timestamp}.part is in the way")
        );
        std::fs::remove_file(label.join(format!("__info_{timestamp}.part"))).expect("removed");

        // Storage that is not reached from here refuses nothing: the cluster tells.
        let elsewhere = w.server.dir.path().join("elsewhere");
        std::fs::rename(w.bucket(), &elsewhere).expect("moved");
        let why = w.value("SELECT error FROM system.repositories").await;
        assert!(why.contains("No such file or directory"), "{why}");
        assert_eq!(rows(&w.client, "SHOW SNAPSHOT ON r").await.len(), 0);
        let why = w.value("SELECT status FROM system.snapshot_files").await;
        assert!(
            why.starts_with("ERROR: ") && why.contains("No such file or directory"),
            "{why}"
        );
        std::fs::rename(&elsewhere, w.bucket()).expect("moved back");

        // The cluster is gone; what it wrote is there under another name.
        let root = w.server.client().await;
        run(
            &root,
            "CREATE CLUSTER attic PROPERTIES (\"type\" = \"none\")",
        )
        .await;
        let attic = connect(w.server.server.addr(), "root", "dbname=attic")
            .await
            .expect("connects");
        run(
            &attic,
            &format!(
                "CREATE REPOSITORY r WITH BROKER ON LOCATION \"{}\"",
                w.bucket().display()
            ),
        )
        .await;
        assert_eq!(
            value(
                &attic,
                "SELECT tables FROM system.snapshots WHERE cluster = 'attic' AND snapshot = 'whole'"
            )
            .await,
            "2"
        );
        assert_eq!(rows(&attic, "SHOW SNAPSHOT ON r").await.len(), 3);
        assert_eq!(
            rows(&attic, "SHOW REPOSITORIES").await[0][1].as_deref(),
            Some("r")
        );
        for refused in [
            "BACKUP SNAPSHOT d.x TO r",
            "CREATE DATABASE d",
            "SHOW BACKUP FROM d",
        ] {
            let (code, _) = fails(&attic, refused).await;
            assert!(
                ["0A000", "3F000"].contains(&code.as_str()),
                "{refused}: {code}"
            );
        }
        let nowhere = fails(
            &attic,
            "CREATE REPOSITORY s WITH BROKER ON LOCATION \"/nope\"",
        )
        .await;
        assert!(
            nowhere.1.starts_with("Failed to create repository: "),
            "{nowhere:?}"
        );
        run(&attic, "DROP REPOSITORY r").await;
        w.server.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_is_reached_with_properties_of_its_own() {
    use crate::support::{BUCKET, S3};
    let (w, s3) = (fixture("3.3.16", Pace::Manual).await, S3::start().await);
    // Created past the gateway: the cluster knows how it is reached, and the gateway does not.
    w.fe.say(
        None,
        &format!(
            "CREATE REPOSITORY theirs WITH BROKER hdfs_broker ON LOCATION \"s3://{BUCKET}/x\""
        ),
    );
    let why = "SELECT error FROM system.repositories WHERE repository = 'theirs'";
    // StarRocks would write it as it is.
    let key = format!("\"encryption.key\" = \"{}\"", "1".repeat(64));
    for statement in [
        format!(
            "CREATE REPOSITORY q WITH BROKER hdfs_broker ON LOCATION \"s3://{BUCKET}/y\" PROPERTIES (\"encryption\" = \"aes256-gcm\", {key})"
        ),
        format!("ALTER REPOSITORY theirs SET PROPERTIES ({key})"),
    ] {
        assert_eq!(fails(&w.client, &statement).await.0, "0A000", "{statement}");
    }
    assert_eq!(
        w.value(why).await,
        "its storage properties are not known here; ALTER REPOSITORY … SET PROPERTIES (…) gives them"
    );
    let root = s3.root.join(BUCKET).join("x/__starrocks_repository_theirs");
    std::fs::create_dir_all(&root).expect("made");
    std::fs::write(
        root.join("__repo_info"),
        "{\"name\":\"theirs\",\"create_time\":\"2026-01-01 08:00:00\"}",
    )
    .expect("written");
    let info =
        br#"{"name":"s","database":"d","id":1,"backup_time":1767225600000,"backup_objects":{}}"#;
    crate::fake_fe::put(&root.join("__ss_s"), "__info_2026-01-01-00-00-00-000", info);
    crate::fake_fe::put(&root.join("__ss_s"), "__meta", b"meta");
    let (client, mut notices) = w.server.client_with_notices_of("prod").await;
    let alter = format!(
        "ALTER REPOSITORY theirs SET PROPERTIES ({}, \"max_bytes_per_second\" = \"1\")",
        s3.properties()
    );
    run(&client, &alter).await;
    assert_eq!(
        notices.recv().await.expect("a notice"),
        (
            "WARNING".to_owned(),
            "the storage property \"max_bytes_per_second\" has no effect: StarRocks moves the data"
                .to_owned()
        )
    );
    assert_eq!(w.value(why).await, "");
    let found = "SELECT snapshot || ' ' || db_name || ' ' || status FROM system.snapshots WHERE repository = 'theirs'";
    assert_eq!(w.value(found).await, "s d OK");
    assert_eq!(
        fails(
            &w.client,
            "ALTER REPOSITORY nowhere SET PROPERTIES (\"a\" = \"b\")"
        )
        .await
        .0,
        "42704"
    );
    assert_eq!(fails(&w.client, "ALTER REPOSITORY theirs").await.0, "42601");
    w.server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clusters_are_created_changed_and_dropped() {
    let fe = FakeFe::start("3.3.16", 1, Pace::Manual).await;
    let server = TestServer::start().await;
    let root = server.client().await;
    for (statement, code, message) in [
        (
            "CREATE CLUSTER c PROPERTIES (\"fe\" = \"x y\")",
            "22023",
            "invalid value of cluster property \"fe\": \"x y\" is not host:port",
        ),
        (
            "CREATE CLUSTER c PROPERTIES (\"fe\" = \"x\", \"colour\" = \"red\")",
            "22023",
            "unknown cluster property \"colour\"",
        ),
        (
            "CREATE CLUSTER c PROPERTIES (\"type\" = \"none\", \"fe\" = \"x\")",
            "22023",
            "invalid value of cluster property \"fe\": a cluster of type \"none\" has no other properties",
        ),
        (
            "CREATE CLUSTER embedded PROPERTIES (\"fe\" = \"x\")",
            "42710",
            "cluster \"embedded\" already exists",
        ),
        (
            "ALTER CLUSTER c SET (\"fe\" = \"x\")",
            "42704",
            "cluster \"c\" does not exist",
        ),
        (
            "ALTER CLUSTER embedded SET (\"fe\" = \"x\")",
            "55000",
            "cluster \"embedded\" was not created by a statement",
        ),
        ("DROP CLUSTER c", "42704", "cluster \"c\" does not exist"),
    ] {
        assert_eq!(
            fails(&root, statement).await,
            (code.to_owned(), message.to_owned()),
            "{statement}"
        );
    }
    for syntax in [
        "CREATE CLUSTER c",
        "CREATE CLUSTER c PROPERTIES ()",
        "ALTER CLUSTER c",
        "CANCEL JOB x",
    ] {
        assert_eq!(fails(&root, syntax).await.0, "42601", "{syntax}");
    }
    // A cluster that is down is created all the same, and tells.
    run(&root, "CREATE CLUSTER prod PROPERTIES (\"fe\" = \"127.0.0.1:1\", \"user\" = \"keeper\", \"password\" = \"wrong\")").await;
    assert_eq!(
        value(
            &root,
            "SELECT reachable FROM system.clusters WHERE cluster = 'prod'"
        )
        .await,
        "f"
    );
    let prod = connect(server.server.addr(), "root", "dbname=prod")
        .await
        .expect("connects");
    assert_eq!(fails(&prod, "USE shop").await.0, "08006");
    let alive = prod
        .prepare("SELECT count(*) FROM system.backends WHERE alive")
        .await
        .expect("prepares");
    assert!(
        prod.query_one(&alive, &[])
            .await
            .is_err_and(|e| e.code().is_some_and(|c| c.code() == "08006"))
    );
    run(
        &root,
        &format!("ALTER CLUSTER prod SET (\"fe\" = \"{}\")", fe.addresses()),
    )
    .await;
    let told = value(
        &root,
        "SELECT error FROM system.clusters WHERE cluster = 'prod'",
    )
    .await;
    assert!(
        told.contains("Access denied") && !told.contains("wrong"),
        "{told}"
    );
    run(
        &root,
        &format!(
            "ALTER CLUSTER prod SET PROPERTIES (\"password\" = \"{}\", \"poll_idle_ms\" = \"20\")",
            crate::fake_fe::PASSWORD
        ),
    )
    .await;
    // What was prepared before asks the cluster as it is now.
    assert!(
        prod.query_one(&alive, &[])
            .await
            .expect("answers")
            .get::<_, i64>(0)
            > 0
    );
    let shown = rows(&root, "SHOW CLUSTERS").await;
    let shown: Vec<_> = shown[1]
        .iter()
        .map(|v| v.clone().unwrap_or_default())
        .collect();
    assert_eq!(
        shown,
        [
            "prod",
            "starrocks",
            &fe.addresses(),
            "3.3.16",
            &fe.addresses(),
            "true",
            "well",
            "0",
            ""
        ]
    );
    // Its password is nowhere to be seen.
    for query in [
        "SELECT * FROM system.settings",
        "SELECT statement FROM system.sessions",
        "SELECT * FROM system.jobs",
        "SELECT * FROM system.clusters",
    ] {
        assert!(
            !format!("{:?}", rows(&root, query).await).contains(crate::fake_fe::PASSWORD),
            "{query}"
        );
    }
    let prod = connect(server.server.addr(), "root", "dbname=prod")
        .await
        .expect("connects");
    assert_eq!(value(&prod, "SELECT current_database()").await, "prod");
    assert_eq!(fails(&prod, "DROP CLUSTER prod").await.0, "55006");
    // A running job holds it; the history stays when it goes.
    run(
        &prod,
        &format!(
            "CREATE REPOSITORY r WITH BROKER hdfs_broker ON LOCATION \"{}\"",
            server.dir.path().join("b").display()
        ),
    )
    .await;
    run(&prod, "BACKUP SNAPSHOT shop.s TO r ON (customers)").await;
    assert_eq!(fails(&root, "DROP CLUSTER prod").await.0, "55006");
    run(&prod, "CANCEL BACKUP FROM shop").await;
    until(&root, "SELECT status FROM system.jobs", "cancelled").await;
    // Only an administrator does any of this.
    run(&root, "CREATE USER ana; GRANT REPOSITORY ON SYSTEM TO ana").await;
    let ana = connect(server.server.addr(), "ana", "dbname=prod")
        .await
        .expect("connects");
    assert_eq!(
        fails(&ana, "ALTER CLUSTER prod SET (\"user\" = \"ana\")")
            .await
            .0,
        "42501"
    );
    // What she may on the cluster is asked here: it knows one user only.
    assert_eq!(
        fails(&ana, "BACKUP SNAPSHOT shop.t TO r ON (customers)")
            .await
            .0,
        "42501"
    );
    assert_eq!(fails(&ana, "SELECT * FROM shop.customers").await.0, "42501");
    run(&prod, "GRANT EXPORT, SELECT ON TABLE shop.customers TO ana").await;
    run(&ana, "BACKUP SNAPSHOT shop.t TO r ON (customers)").await;
    assert_eq!(fails(&ana, "BACKUP SNAPSHOT shop.u TO r").await.0, "42501");
    assert_eq!(
        value(&ana, "SELECT count(*) FROM shop.customers").await,
        "3"
    );
    run(&ana, "CANCEL BACKUP FROM shop").await;
    until(
        &root,
        "SELECT count(*) FROM system.jobs WHERE status = 'cancelled'",
        "2",
    )
    .await;
    run(&root, "DROP CLUSTER prod").await;
    assert_eq!(
        value(
            &root,
            "SELECT count(*) FROM system.jobs WHERE cluster = 'prod' AND status = 'cancelled'"
        )
        .await,
        "2"
    );
    assert!(
        connect(server.server.addr(), "root", "dbname=prod")
            .await
            .is_err()
    );
    server.stop().await;
}

/// A cluster of the settings file, over TLS.
#[tokio::test(flavor = "multi_thread")]
async fn the_way_to_the_frontends_is_encrypted() {
    use starkeep::settings::{ClusterSettings, Scalar};
    let key =
        rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("a certificate");
    let der = key.cert.der().clone();
    let provider = std::sync::Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let config = tokio_rustls::rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![der],
            key.signing_key.serialize_der().try_into().expect("a key"),
        )
        .expect("fits");
    let tls = std::sync::Arc::new(tokio_rustls::TlsAcceptor::from(std::sync::Arc::new(config)));
    let (fe, plain) = (
        FakeFe::start_with("3.3.16", 1, Pace::Manual, Some(tls)).await,
        FakeFe::start("3.3.16", 1, Pace::Manual).await,
    );
    let dir = tempfile::tempdir().expect("a directory");
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, key.cert.pem()).expect("written");
    let port = |fe: &FakeFe| {
        fe.addresses()
            .rsplit(':')
            .next()
            .expect("a port")
            .to_owned()
    };
    let cluster = |name: &str, fe: String, more: &[(&str, &str)]| {
        let mut properties = vec![
            ("fe", fe.as_str()),
            ("password", crate::fake_fe::PASSWORD),
            ("connect_timeout_seconds", "3"),
        ];
        properties.extend(more);
        let properties = properties
            .iter()
            .map(|(k, v)| ((*k).to_owned(), Scalar::Text((*v).to_owned())))
            .collect();
        ClusterSettings {
            name: name.into(),
            properties,
        }
    };
    let ca = ca.display().to_string();
    let server = TestServer::start_in(dir, |settings| {
        settings.cluster = vec![
            cluster(
                "verified",
                format!("localhost:{}", port(&fe)),
                &[("tls", "verify"), ("tls_ca", &ca)],
            ),
            cluster(
                "unknown",
                format!("localhost:{}", port(&fe)),
                &[("tls", "verify")],
            ),
            cluster(
                "other_name",
                format!("127.0.0.1:{}", port(&fe)),
                &[("tls", "verify"), ("tls_ca", &ca)],
            ),
            cluster(
                "any",
                format!("127.0.0.1:{}", port(&fe)),
                &[("tls", "required")],
            ),
            cluster("downgraded", plain.addresses(), &[("tls", "required")]),
        ];
        settings.default_cluster = "any".into();
    })
    .await;
    let client = connect(server.server.addr(), "root", "")
        .await
        .expect("connects");
    assert_eq!(value(&client, "SELECT current_database()").await, "any");
    let reachable = rows(
        &client,
        "SELECT cluster, reachable FROM system.clusters ORDER BY cluster",
    )
    .await;
    let reachable: Vec<_> = reachable
        .iter()
        .map(|r| (r[0].as_deref().unwrap_or(""), r[1].as_deref().unwrap_or("")))
        .collect();
    assert_eq!(
        reachable,
        [
            ("any", "t"),
            ("downgraded", "f"),
            ("embedded", "t"),
            ("other_name", "f"),
            ("unknown", "f"),
            ("verified", "t")
        ]
    );
    assert_eq!(fails(&client, "DROP CLUSTER verified").await.0, "55000");
    server.stop().await;
}

/// Whoever does not answer is given up, at every stage of a connection.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_waits_for_a_silent_frontend() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let fe = FakeFe::start("3.3.16", 1, Pace::Manual).await;
    let server = TestServer::start().await;
    let root = server.client().await;
    let create = |name: &str, fe: &str| {
        format!(
            "CREATE CLUSTER {name} PROPERTIES (\"fe\" = \"{fe}\", \"password\" = \"{}\", \"connect_timeout_seconds\" = \"1\",
             \"statement_timeout_seconds\" = \"1\", \"names_max_age_ms\" = \"0\")",
            crate::fake_fe::PASSWORD
        )
    };
    run(
        &root,
        &create(
            "silent",
            &silent.local_addr().expect("an address").to_string(),
        ),
    )
    .await;
    let client = connect(server.server.addr(), "root", "dbname=silent")
        .await
        .expect("connects");
    let (code, message) = fails(&client, "SHOW FRONTENDS").await;
    assert!(
        code == "08006" && message.contains("nothing within 1000 ms"),
        "{message}"
    );
    // One that stops answering in the middle.
    run(&root, &create("slow", &fe.addresses())).await;
    let client = connect(server.server.addr(), "root", "dbname=slow")
        .await
        .expect("connects");
    fe.fail("SHOW BACKENDS", Fault::Hold);
    let (code, message) = fails(&client, "SELECT * FROM system.backends").await;
    assert!(
        code == "08006" && message.starts_with("no answer from cluster \"slow\""),
        "{message}"
    );
    fe.go_on();
    fe.fail("SELECT t1.`id` AS o1_0", Fault::Hold);
    let (code, message) = fails(&client, "SELECT id FROM shop.customers ORDER BY id").await;
    assert!(
        code == "08006" && message.starts_with("no answer from 127.0.0.1:"),
        "{message}"
    );
    fe.go_on();
    assert_eq!(
        rows(&client, "SELECT id FROM shop.customers ORDER BY id")
            .await
            .len(),
        3
    );
    server.stop().await;
}

/// A snapshot of one cluster is restored into another that knows the repository; what is in the way
/// is told before anything is begun.
#[tokio::test(flavor = "multi_thread")]
async fn snapshots_are_restored_into_another_cluster() {
    let w = fixture("3.3.16", FAST).await;
    run(
        &w.client,
        "BACKUP SNAPSHOT shop.s TO r ON (orders, customers)",
    )
    .await;
    assert_eq!(w.ends().await, "succeeded");
    let other = FakeFe::start("3.5.0", 1, FAST).await;
    let kept = w.fe.model(|m| (m.kept.clone(), m.homes.clone()));
    other.model(|m| (m.kept, m.homes) = kept);
    run(&w.client, &other.create("other", "")).await;
    let there = connect(w.server.server.addr(), "root", "dbname=other")
        .await
        .expect("connects");
    let restore = |cluster: &str, objects: &str, replicas: u8| {
        format!(
            "RESTORE SNAPSHOT shop.s FROM r ON CLUSTER {cluster} ON ({objects}) PROPERTIES (\"backup_timestamp\" = \"latest\", \"replication_num\" = \"{replicas}\")"
        )
    };
    let again = restore("other", "orders AS again, customers AS folk", 1);
    let refused = async |statement: &str, code: &str| {
        let told = fails(&w.client, statement).await;
        assert_eq!(told.0, code, "{statement}: {}", told.1);
    };
    // Not known there; then known in another place.
    refused(&again, "42704").await;
    let create = |location: &str| {
        format!("CREATE REPOSITORY r WITH BROKER hdfs_broker ON LOCATION \"{location}\"")
    };
    let elsewhere = FakeFe::location(w.server.dir.path()).with_file_name("elsewhere");
    std::fs::create_dir(&elsewhere).expect("made");
    run(&there, &create(&elsewhere.display().to_string())).await;
    refused(&again, "42704").await;
    run(&there, "DROP REPOSITORY r").await;
    run(&there, &create(&w.bucket().display().to_string())).await;

    refused(&restore("nowhere", "orders", 1), "42704").await;
    refused(&restore("embedded", "orders", 1), "0A000").await;
    refused(&restore("other", "nothing", 1), "42P01").await;
    refused(&restore("other", "orders", 9), "55000").await;
    assert!(other.effects("RESTORE").is_empty(), "nothing was begun");
    let steps = rows(&w.client, &format!("EXPLAIN {again}")).await;
    let steps: Vec<_> = steps
        .iter()
        .map(|row| row[1].clone().unwrap_or_default())
        .collect();
    assert_eq!(steps, ["shop.again", "shop.folk", "s"]);

    run(&w.client, &again).await;
    assert_eq!(w.ends().await, "succeeded");
    let last = "SELECT cluster || ' ' || kind || ' ' || status || ' ' || requested_by FROM system.jobs ORDER BY job_id DESC LIMIT 1";
    assert_eq!(w.value(last).await, "other restore succeeded root");
    let tables = other.model(|m| {
        m.databases["shop"]
            .tables
            .keys()
            .cloned()
            .collect::<Vec<_>>()
    });
    assert!(
        tables.contains(&"again".to_owned()) && tables.contains(&"folk".to_owned()),
        "{tables:?}"
    );
    assert!(w.fe.effects("RESTORE").is_empty());
    // From a cluster that is gone.
    run(
        &w.client,
        "CREATE CLUSTER attic PROPERTIES (\"type\" = \"none\")",
    )
    .await;
    let attic = connect(w.server.server.addr(), "root", "dbname=attic")
        .await
        .expect("connects");
    run(&attic, &create(&w.bucket().display().to_string())).await;
    run(&attic, &restore("other", "customers AS third", 1)).await;
    assert_eq!(w.ends().await, "succeeded");
    assert_eq!(w.value(last).await, "other restore succeeded root");
    w.server.stop().await;
}
