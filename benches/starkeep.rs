//! Benches, each beside something it can be compared with: `cargo bench`.
//!
//! `transfer` moves the same files three ways: a plain copy with fsync, upload into a local
//! repository, and download from it. The README's ratios are these, read off on one machine in one
//! run.

use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use starkeep::env::Env;
use starkeep::job::*;
use starkeep::names::*;
use starkeep::repository::{ByteBudget, Location, Locations, OpenRepository, hash_file};
use starkeep::server::Server;
use starkeep::settings::Settings;
use starkeep::statement::parse_one;
use starkeep::store::{Journal, Repositories, RepositoryRecord, SecretKey, SqliteStore};
use tokio::runtime::Runtime;
use tokio_postgres::NoTls;

const FILES: usize = 8;
const FILE_BYTES: usize = 8 << 20;

fn name<N: TryFrom<String, Error = starkeep::error::Error>>(text: &str) -> N {
    N::try_from(text.to_owned()).expect("valid")
}

fn statement_parse(c: &mut Criterion) {
    let mut group = c.benchmark_group("parse");
    for (what, text) in [
        (
            "backup",
            "BACKUP SNAPSHOT shop.monday TO vault ON (orders PARTITION (p1, p2), customers) PROPERTIES (\"type\" = \"full\", \"timeout\" = \"3600\")",
        ),
        (
            "show",
            "SHOW BACKUP FROM shop WHERE SnapshotName LIKE \"n%\" ORDER BY JobId DESC LIMIT 10",
        ),
        (
            "select",
            "SELECT job_id, state FROM system.jobs WHERE db_name = 'shop' ORDER BY job_id DESC LIMIT 10",
        ),
    ] {
        group.bench_function(what, |b| {
            b.iter(|| parse_one(black_box(text)).expect("parses"))
        });
    }
    let garbage = format!("SHOW BACKUP WHERE {}", "(a=(".repeat(16 << 10));
    group.bench_function("64 KiB of nested garbage, refused", |b| {
        b.iter(|| parse_one(black_box(&garbage)).expect_err("refused"))
    });
    group.finish();
}

fn journal_append(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    let env = Env::system();
    let store = SqliteStore::open(
        &dir.path().join("meta.db"),
        SecretKey::random(&env),
        env.clone(),
    )
    .expect("opens");
    let repository = RepositoryRecord {
        cluster: name("embedded"),
        id: RepositoryId(0),
        name: name("r"),
        location: "/x".into(),
        broker: None,
        read_only: false,
        created_at: Timestamp(0),
        properties: Default::default(),
    };
    runtime
        .block_on(store.add_repository(&repository))
        .expect("added");
    let mut n = 0;
    let mut group = c.benchmark_group("journal");
    group.bench_function("admit and cancel (three synced transactions)", |b| {
        b.iter(|| {
            n += 1;
            let spec = JobSpec {
                uid: JobUid::new(format!("u{n}")).expect("valid"),
                cluster: name("embedded"),
                requester: Requester::User {
                    name: "root".into(),
                    client_addr: None,
                    application_name: None,
                },
                statement: String::new(),
                timeout_seconds: 600,
                max_bytes_per_second: None,
                work: Work::Backup {
                    target: Target {
                        database: name("d"),
                        label: name("l"),
                        repository: name("r"),
                    },
                    request: BackupRequest {
                        objects: Vec::new(),
                        views: Vec::new(),
                        ttl: None,
                        base: None,
                    },
                },
            };
            runtime.block_on(async {
                let job = store.admit(&spec, Timestamp(n)).await.expect("admitted");
                let mut job = job;
                for event in [
                    job.cancelled(Failure::user_cancelled(None)),
                    JobEvent::Backup(BackupEvent::Released),
                ] {
                    let delta = Arc::new(Delta::one(&job, event, Timestamp(n)).expect("legal"));
                    store.append(&delta).await.expect("appended");
                    job = delta.job.clone();
                }
            });
        })
    });
    group.bench_function(
        "a synced write of 4 KiB (for comparison, three times)",
        |b| {
            use std::io::Write;
            let mut file = std::fs::File::create(dir.path().join("plain")).expect("a file");
            b.iter(|| {
                for _ in 0..3 {
                    file.write_all(&[0; 4096])
                        .and_then(|()| file.sync_all())
                        .expect("written");
                }
            })
        },
    );
    group.finish();
}

fn wire_round_trip(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    let settings = Settings {
        data_dir: dir.path().join("data"),
        listen: ([127, 0, 0, 1], 0).into(),
        http: ([127, 0, 0, 1], 0).into(),
        ..Settings::default()
    };
    let (server, client) = runtime.block_on(async {
        let server = Server::start(&settings, Env::system())
            .await
            .expect("starts");
        let config = format!("host=127.0.0.1 port={} user=root", server.addr().port());
        let (client, connection) = tokio_postgres::connect(&config, NoTls)
            .await
            .expect("connects");
        tokio::spawn(connection);
        (server, client)
    });
    let mut group = c.benchmark_group("wire");
    group.bench_function("empty query", |b| {
        b.iter(|| runtime.block_on(client.simple_query("")).expect("answered"))
    });
    group.bench_function("SELECT 1", |b| {
        b.iter(|| {
            runtime
                .block_on(client.simple_query("SELECT 1"))
                .expect("answered")
        })
    });
    group.bench_function("SELECT from system.jobs", |b| {
        b.iter(|| {
            runtime
                .block_on(client.simple_query("SELECT * FROM system.jobs WHERE job_id = 1"))
                .expect("answered")
        })
    });
    group.finish();
    drop(client);
    runtime.block_on(server.stop());
}

fn source_files(dir: &Path) -> Vec<(PathBuf, DataFile)> {
    let env = Env::system();
    std::fs::create_dir(dir.join("source")).expect("a directory");
    let make = |i: usize| {
        let path = dir.join("source").join(format!("{i}"));
        let mut bytes = vec![0; FILE_BYTES];
        env.ids.fill(&mut bytes);
        std::fs::write(&path, bytes).expect("written");
        let (sha256, bytes) = hash_file(&path).expect("hashed");
        (
            path,
            DataFile {
                sha256: Sha256::new(sha256).expect("a digest"),
                bytes,
                rows: 1,
            },
        )
    };
    (0..FILES).map(make).collect()
}

fn transfer(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    let files = source_files(dir.path());
    let budget = ByteBudget::new(64 << 20);
    let open = |to: &Path| {
        let location = Location {
            url: to.display().to_string(),
            properties: Default::default(),
        };
        runtime.block_on(location.create()).expect("made");
        Locations::default()
            .open(&name("r"), &location)
            .expect("opens")
    };
    let fresh = || tempfile::tempdir_in(dir.path()).expect("a directory");
    let mut group = c.benchmark_group("transfer");
    group
        .throughput(Throughput::Bytes((FILES * FILE_BYTES) as u64))
        .sample_size(10);
    group.bench_function("plain copy with fsync", |b| {
        b.iter_batched(
            fresh,
            |to| {
                for (i, (path, _)) in files.iter().enumerate() {
                    let target = to.path().join(format!("{i}"));
                    std::fs::copy(path, &target).expect("copied");
                    std::fs::File::open(&target)
                        .and_then(|f| f.sync_all())
                        .expect("synced");
                }
                to
            },
            criterion::BatchSize::PerIteration,
        )
    });
    group.bench_function("upload into a repository", |b| {
        b.iter_batched(
            fresh,
            |to| {
                let repository = open(to.path());
                runtime.block_on(async {
                    let uploads = files
                        .iter()
                        .map(|(path, file)| repository.upload(file, path, &budget));
                    futures::future::try_join_all(uploads)
                        .await
                        .expect("uploaded");
                });
                to
            },
            criterion::BatchSize::PerIteration,
        )
    });
    let stored = fresh();
    let repository = open(stored.path());
    for (path, file) in &files {
        runtime
            .block_on(repository.upload(file, path, &budget))
            .expect("uploaded");
    }
    group.bench_function("download from a repository", |b| {
        b.iter_batched(
            fresh,
            |to| {
                runtime.block_on(async {
                    let downloads = files.iter().map(|(_, file)| {
                        repository.download(
                            file,
                            vec![to.path().join(&*file.sha256)],
                            &budget,
                            || Ok(()),
                        )
                    });
                    futures::future::try_join_all(downloads)
                        .await
                        .expect("downloaded");
                });
                to
            },
            criterion::BatchSize::PerIteration,
        )
    });
    group.finish();
}

criterion_group!(
    benches,
    statement_parse,
    journal_append,
    wire_round_trip,
    transfer
);
criterion_main!(benches);
