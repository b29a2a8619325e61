//! Repositories in Google's storage, against a server that speaks its XML interface: tokens that a
//! service account has signed, and puts on condition of a generation.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::AUTHORIZATION;
use ring::signature::{KeyPair, RSA_PKCS1_2048_8192_SHA256, RsaKeyPair, UnparsedPublicKey};
use serde_json::Value;

use crate::support::{BUCKET, S3, TestServer, Translation, fails, job_ends, run, value};

/// Made for this test, and used nowhere else.
const KEY: &str = include_str!("fixtures/service-account.pem");
const EMAIL: &str = "keeper@example.iam.gserviceaccount.com";

/// What stands between the lines of a PEM file.
fn der(pem: &str) -> Vec<u8> {
    let lines = pem.lines().filter(|line| !line.starts_with("-----"));
    let base64: String = lines.collect();
    base64::engine::general_purpose::STANDARD
        .decode(base64)
        .expect("base64")
}

/// Whether a token is of the service account and made for storage.
fn is_valid(token: &str, key: &RsaKeyPair) -> Option<()> {
    let (signed, signature) = token.rsplit_once('.')?;
    let signature = URL_SAFE_NO_PAD.decode(signature).ok()?;
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, key.public_key())
        .verify(signed.as_bytes(), &signature)
        .ok()?;
    let claims = URL_SAFE_NO_PAD.decode(signed.split_once('.')?.1).ok()?;
    let claims: Value = serde_json::from_slice(&claims).ok()?;
    let is_for_storage = claims["scope"].as_str()?.ends_with("/cloud-platform");
    (claims["iss"] == EMAIL && is_for_storage).then_some(())
}

/// Turns requests to Google's storage into S3's.
fn google() -> Translation {
    let key = RsaKeyPair::from_pkcs8(&der(KEY)).expect("a key");
    Arc::new(move |headers| {
        let token = headers.remove(AUTHORIZATION)?;
        is_valid(token.to_str().ok()?.strip_prefix("Bearer ")?, &key)?;
        // Generation 0 is that of no object.
        if let Some(generation) = headers.remove("x-goog-if-generation-match") {
            assert_eq!(generation, "0");
            headers.insert(http::header::IF_NONE_MATCH, "*".parse().expect("a value"));
        }
        Some(())
    })
}

fn create(gcs: &S3, email: &str) -> String {
    let account = serde_json::json!({
        "type": "service_account",
        "client_email": email,
        "private_key": KEY,
        "private_key_id": "1",
        "gcs_base_url": format!("http://{}", gcs.addr),
    });
    let account = account
        .to_string()
        .replace('\\', "\\\\")
        .replace('"', "\\\"");
    format!(
        "CREATE REPOSITORY r WITH BROKER ON LOCATION \"gs://{BUCKET}/some/path\" PROPERTIES (\"gcp.gcs.service_account_key\" = \"{account}\")"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn googles_storage_keeps_backups() {
    let gcs = S3::speaking(google()).await;
    let server = TestServer::start().await;
    let client = server.client().await;
    run(
        &client,
        "CREATE DATABASE d; USE d;
         CREATE TABLE t (a BIGINT) DISTRIBUTED BY HASH (a) BUCKETS 8;
         INSERT INTO t SELECT value FROM generate_series(1, 1000);
         CREATE TABLE big (a BIGINT, b STRING) DISTRIBUTED BY HASH (a) BUCKETS 1;
         INSERT INTO big SELECT value, encode(sha512(concat('x', value)), 'hex') FROM generate_series(1, 300000)",
    )
    .await;
    let in_parts = "SELECT bytes > 17000000 FROM system.tables WHERE table_name = 'big'";
    assert_eq!(value(&client, in_parts).await, "t");
    let (code, message) = fails(&client, &create(&gcs, "somebody@example.com")).await;
    assert_eq!(code, "58030", "{message}");
    run(&client, &create(&gcs, EMAIL)).await;
    run(&client, "BACKUP SNAPSHOT s TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    run(&client, "BACKUP SNAPSHOT again TO r").await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    let moved = "SELECT bytes_new FROM system.jobs ORDER BY job_id DESC LIMIT 1";
    assert_eq!(value(&client, moved).await, "0");
    let sum = "SELECT sum(xx_hash3_64(b)::decimal(38,0)) FROM d.big";
    let whole = value(&client, sum).await;
    run(
        &client,
        "DROP TABLE t; DROP TABLE big;
         RESTORE SNAPSHOT s FROM r PROPERTIES (\"backup_timestamp\" = \"latest\")",
    )
    .await;
    assert_eq!(job_ends(&client, "d").await, "succeeded");
    assert_eq!(value(&client, sum).await, whole);
    assert_eq!(value(&client, "SELECT sum(a) FROM d.t").await, "500500");
    run(&client, "DROP SNAPSHOT s ON r").await;
    let left = "SELECT string_agg(snapshot, ' ') FROM system.snapshots";
    assert_eq!(value(&client, left).await, "again");
    server.stop().await;
}
