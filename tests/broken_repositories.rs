//! A shelf of broken repositories: what is wrong with each is found by VERIFY and named, and a
//! RESTORE from it fails before anything that is there has changed.
//!
//! They are copies of `tests/fixtures/repository-0.1.0`, which version 0.1.0 wrote and every later
//! version reads.

use std::fs;
use std::path::{Path, PathBuf};

use ring::digest::{SHA256, digest};
use tokio_postgres::Client;

use crate::support::{TestServer, fails, rows, run, value};

const FIXTURE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/fixtures/repository-0.1.0"
);
const RESTORE: &str =
    "RESTORE SNAPSHOT d.first FROM shelf PROPERTIES (\"backup_timestamp\" = \"latest\")";

/// A repository that something was done to.
struct Broken {
    what: &'static str,
    /// Gets the repository's directory.
    breaks: fn(&Path),
    /// The kinds of what VERIFY finds, and the error that RESTORE ends in; none if nothing keeps
    /// it.
    finding: &'static str,
    restore: Option<&'static str>,
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("made");
    for entry in fs::read_dir(from).expect("a folder") {
        let path = entry.expect("an entry").path();
        let target = to.join(path.file_name().expect("a name"));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).expect("copied");
        }
    }
}

/// The data files of the snapshot `first`, in order.
fn data(root: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(manifest(root, "first")).expect("a manifest");
    let mut files = crate::consistency::files(&root.join("data"));
    files.retain(|file| {
        let name = file
            .file_stem()
            .expect("a name")
            .to_string_lossy()
            .into_owned();
        text.contains(&name)
    });
    files.sort();
    files
}

fn manifest(root: &Path, label: &str) -> PathBuf {
    crate::consistency::files(&root.join(format!("__ss_{label}"))).remove(0)
}

fn flip(path: &Path) {
    let mut bytes = fs::read(path).expect("a file");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).expect("written");
}

fn cut(path: &Path) {
    let bytes = fs::read(path).expect("a file");
    fs::write(path, &bytes[..bytes.len() / 2]).expect("written");
}

/// Changes a manifest and gives it the hash that it should have.
fn forge(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).expect("a manifest");
    let body = text.split_once("\"manifest\":").expect("an envelope").1;
    let body = body
        .strip_suffix('}')
        .expect("an envelope")
        .replace(from, to);
    let sha256 = hex::encode(digest(&SHA256, body.as_bytes()));
    let sealed = format!("{{\"sha256\":\"{sha256}\",\"manifest\":{body}}}");
    assert_ne!(sealed, text, "{from} is not there");
    fs::write(path, sealed).expect("written");
}

const SHELF: &[Broken] = &[
    Broken {
        what: "nothing",
        breaks: |_| {},
        finding: "",
        restore: None,
    },
    Broken {
        what: "a file is missing",
        breaks: |root| fs::remove_file(&data(root)[0]).expect("removed"),
        finding: "missing",
        restore: Some("58P01"),
    },
    Broken {
        what: "a file is cut short",
        breaks: |root| cut(&data(root)[0]),
        finding: "wrong_length",
        restore: Some("XX001"),
    },
    Broken {
        what: "a bit of a file is flipped",
        breaks: |root| flip(&data(root)[0]),
        finding: "damaged",
        restore: Some("XX001"),
    },
    Broken {
        what: "two files are swapped",
        breaks: |root| {
            let files = data(root);
            let (a, b) = (
                fs::read(&files[0]).expect("a"),
                fs::read(&files[1]).expect("b"),
            );
            fs::write(&files[0], b).expect("written");
            fs::write(&files[1], a).expect("written");
        },
        finding: "wrong_length",
        restore: Some("XX001"),
    },
    Broken {
        what: "a file is a directory",
        breaks: |root| {
            let file = &data(root)[0];
            fs::remove_file(file).expect("removed");
            fs::create_dir(file).expect("made");
        },
        finding: "missing",
        restore: Some("58P01"),
    },
    Broken {
        what: "a bit of a manifest is flipped",
        breaks: |root| flip(&manifest(root, "first")),
        finding: "manifest_damaged",
        restore: Some("XX001"),
    },
    Broken {
        what: "a manifest is cut short",
        breaks: |root| cut(&manifest(root, "first")),
        finding: "manifest_damaged",
        restore: Some("XX001"),
    },
    Broken {
        what: "a manifest is empty",
        breaks: |root| fs::write(manifest(root, "first"), "").expect("written"),
        finding: "manifest_damaged",
        restore: Some("XX001"),
    },
    Broken {
        what: "a manifest is another one's",
        breaks: |root| {
            fs::copy(manifest(root, "second"), manifest(root, "first")).expect("copied");
        },
        finding: "manifest_damaged",
        restore: Some("XX001"),
    },
    Broken {
        what: "a manifest names a file outside",
        breaks: |root| {
            let name = data(root)[0]
                .file_stem()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            let outside = format!("../../../../{}", &name[12..]);
            forge(&manifest(root, "first"), &name, &outside);
        },
        finding: "manifest_damaged",
        restore: Some("XX001"),
    },
    Broken {
        what: "a manifest has a table twice",
        breaks: |root| forge(&manifest(root, "first"), "\"name\":\"u\"", "\"name\":\"t\""),
        finding: "manifest_damaged",
        restore: Some("XX001"),
    },
    Broken {
        what: "a manifest is of the future",
        breaks: |root| forge(&manifest(root, "first"), "\"format\":1", "\"format\":2"),
        finding: "manifest_newer",
        restore: Some("0A000"),
    },
    Broken {
        what: "a manifest has a field that is not known",
        breaks: |root| {
            forge(
                &manifest(root, "first"),
                "\"format\":1",
                "\"format\":1,\"colour\":\"blue\"",
            );
        },
        finding: "",
        restore: None,
    },
    Broken {
        what: "files that are none of it",
        breaks: |root| {
            fs::write(root.join("readme.txt"), "x").expect("written");
            fs::write(root.join("data/notes"), "x").expect("written");
        },
        finding: "foreign",
        restore: None,
    },
    Broken {
        what: "a snapshot that was begun and never finished",
        breaks: |root| {
            fs::create_dir(root.join("__ss_third")).expect("made");
            let name = "0".repeat(64);
            fs::create_dir_all(root.join("data/00")).expect("made");
            fs::write(root.join(format!("data/00/{name}.parquet")), "x").expect("written");
            fs::write(root.join("data/00/.partial-abc"), "x").expect("written");
        },
        finding: "unreferenced",
        restore: None,
    },
];

/// Verifies the repository; the kinds of what was found, each once.
async fn found(client: &Client) -> String {
    run(client, "VERIFY REPOSITORY shelf").await;
    let id = value(client, "SELECT max(job_id) FROM system.jobs").await;
    run(client, &format!("WAIT FOR JOB {id}")).await;
    let kinds = format!(
        "SELECT DISTINCT kind FROM system.repository_findings WHERE job_id = {id} ORDER BY 1"
    );
    let kinds: Vec<_> = rows(client, &kinds)
        .await
        .into_iter()
        .flatten()
        .flatten()
        .collect();
    kinds.join("|")
}

/// The SQLSTATE that the statement, or else its job, ends in.
async fn restored(client: &Client) -> Option<String> {
    if let Err(error) = client.batch_execute(RESTORE).await {
        let code = error.code().expect("an error of the server").code();
        return Some(code.to_owned());
    }
    let id = value(client, "SELECT max(job_id) FROM system.jobs").await;
    let waited = client.batch_execute(&format!("WAIT FOR JOB {id}")).await;
    waited
        .err()
        .map(|e| e.code().expect("an error of the server").code().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_repositories_are_found_out_and_change_nothing() {
    let server = TestServer::start().await;
    let client = server.client().await;
    let here = "SELECT (SELECT count(*) FROM d.t) || ' ' || (SELECT sum(a) FROM d.t) || ' ' ||
                       (SELECT count(*) FROM system.tables WHERE state = 'NORMAL') || ' ' ||
                       (SELECT count(*) FROM system.databases)";
    let drop = "DROP DATABASE IF EXISTS d FORCE";
    for broken in SHELF {
        let what = broken.what;
        let location = server.dir.path().join(what.replace(' ', "_"));
        copy(Path::new(FIXTURE), &location);
        let root = location.join("__starrocks_repository_shelf");
        let create = format!(
            "CREATE REPOSITORY shelf WITH BROKER ON LOCATION \"{}\"",
            location.display()
        );
        run(&client, &create).await;
        // The tables are there, with other rows.
        run(&client, drop).await;
        run(&client, RESTORE).await;
        assert_eq!(crate::support::job_ends(&client, "d").await, "succeeded");
        run(&client, "INSERT INTO d.t (a, b) VALUES (1000, 'mine')").await;
        let before = value(&client, here).await;
        assert_eq!(before, "101 6050 2 1");

        (broken.breaks)(&root);
        let found = found(&client).await;
        assert_eq!(found, broken.finding, "{what}");
        let ended = restored(&client).await;
        assert_eq!(ended.as_deref(), broken.restore, "{what}");
        let after = value(&client, here).await;
        if broken.restore.is_some() {
            assert_eq!(after, before, "{what}");
        } else {
            assert_eq!(after, "100 5050 2 1", "{what}");
        }
        run(&client, "DROP REPOSITORY shelf").await;
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn newer_and_foreign_repositories_are_refused() {
    let server = TestServer::start().await;
    let client = server.client().await;
    for (name, breaks, code) in [
        (
            "future",
            (|root: &Path| {
                let info = root.join("__repo_info");
                let text = fs::read_to_string(&info).expect("read");
                fs::write(&info, text.replace("\"format\":1", "\"format\":3")).expect("written");
            }) as fn(&Path),
            "0A000",
        ),
        ("cut", |root| cut(&root.join("__repo_info")), "0A000"),
        (
            "gone",
            |root| fs::remove_file(root.join("__repo_info")).expect("removed"),
            "58P01",
        ),
    ] {
        let location = server.dir.path().join(name);
        copy(Path::new(FIXTURE), &location);
        breaks(&location.join("__starrocks_repository_shelf"));
        let create = format!(
            "CREATE READ ONLY REPOSITORY shelf WITH BROKER ON LOCATION \"{}\"",
            location.display()
        );
        assert_eq!(fails(&client, &create).await.0, code, "{name}");
    }
    server.stop().await;
}
