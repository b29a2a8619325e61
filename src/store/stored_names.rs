//! The names under which values of enums lie in the journal and in the metadata. An older file has
//! them, so none may ever change or go; new ones come to stored_names.txt as they come here.

use std::fmt::Write;

use serde::Serialize;

use crate::error::ErrorKind;
use crate::job::{DroppedBackups, JobKind, JobStatus, Requester, Resource, StatusCode, TaskKind};
use crate::names::*;
use crate::privilege::{Grant, Grantee, Privilege, Securable};

fn name<N: TryFrom<String, Error = crate::error::Error>>(text: &str) -> N {
    N::try_from(text.to_owned()).expect("a valid name")
}

fn section<T: Serialize>(text: &mut String, of: &str, values: impl IntoIterator<Item = T>) {
    writeln!(text, "{of}").expect("into memory");
    for value in values {
        let stored = serde_json::to_string(&value).expect("serializes");
        writeln!(text, "    {stored}").expect("into memory");
    }
}

#[test]
fn stored_names_do_not_change() {
    let mut now = String::new();
    section(&mut now, "ErrorKind", ErrorKind::ALL);
    section(&mut now, "StatusCode", StatusCode::ALL);
    section(
        &mut now,
        "JobStatus",
        [
            JobStatus::Queued,
            JobStatus::Running,
            JobStatus::Succeeded,
            JobStatus::Failed,
            JobStatus::Cancelled,
            JobStatus::Refused,
            JobStatus::Lost,
        ],
    );
    section(
        &mut now,
        "JobKind",
        [
            JobKind::Backup,
            JobKind::Restore,
            JobKind::DropSnapshot,
            JobKind::Verify,
            JobKind::Prune,
        ],
    );
    section(
        &mut now,
        "TaskKind",
        [
            TaskKind::Snapshot,
            TaskKind::Upload,
            TaskKind::Prepare,
            TaskKind::Download,
        ],
    );
    section(
        &mut now,
        "Requester",
        [
            Requester::User {
                name: "u".into(),
                client_addr: None,
                application_name: None,
            },
            Requester::Expiry,
            Requester::Outside,
            Requester::Verification(JobId(1)),
        ],
    );
    section(
        &mut now,
        "DroppedBackups",
        [
            DroppedBackups::All {
                cluster_id: "i".into(),
                force: false,
            },
            DroppedBackups::Expired {
                timestamp: BackupTimestamp::new("2026-01-02-03-04-05-678").expect("valid"),
            },
        ],
    );
    section(
        &mut now,
        "Resource",
        [
            Resource::Database(name("c"), name("d")),
            Resource::Snapshot(name("c"), name("r"), name("l")),
            Resource::Repository(name("c"), name("r")),
            Resource::Leftovers(name("c"), name("r")),
        ],
    );
    section(&mut now, "Privilege", Privilege::ALL);
    section(
        &mut now,
        "Securable",
        [
            Securable::System,
            Securable::Catalog,
            Securable::Database(Some(name("d"))),
            Securable::AllDatabases,
            Securable::Table(Some(name("d")), name("t")),
            Securable::AllTablesIn(name("d")),
            Securable::AllTables,
        ],
    );
    section(
        &mut now,
        "Grantee",
        [Grantee::User(name("u")), Grantee::Role(name("r"))],
    );
    section(
        &mut now,
        "Grant",
        [
            Grant::Privilege(Privilege::Select, Securable::AllTables),
            Grant::Role(name("r")),
        ],
    );
    assert_eq!(now, include_str!("stored_names.txt"));
}
