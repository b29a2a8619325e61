//! The names under which values of enums lie in the journal and in the metadata. An older file has
//! them, so none may ever change or go; new ones come to stored_names.txt as they come here.

use std::fmt::Write;

use serde::Serialize;

use crate::error::ErrorKind;
use crate::job::{
    BackupEvent, BackupRequest, ControlEvent, DropEvent, DropRequest, DroppedBackups,
    ExternalEvent, ExternalRequest, JobEvent, JobKind, JobStatus, PruneEvent, PruneRequest,
    Requester, Resource, RestoreEvent, RestoreRequest, SAMPLE_ALL, Speaker, StagedEvent,
    StagedRequest, StatusCode, Target, TaskKind, VerifyEvent, VerifyLevel, VerifyRequest, Work,
};
use crate::names::*;
use crate::privilege::{Grant, Grantee, Privilege, Securable};
use crate::schema::{
    Aggregate, Bound, Bounds, ColumnType, DefaultValue, KeyModel, Partitioning, RangeKey,
};

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

/// One value of each variant; a variant that is missing does not compile.
macro_rules! section {
    ($text:ident, $of:ident { $($pattern:pat => $value:expr,)* }) => {
        section(&mut $text, stringify!($of), {
            let _ = |value: &$of| match value { $($pattern => (),)* };
            [$($value,)*]
        })
    };
}

fn target() -> Target {
    Target {
        database: name("d"),
        label: name("l"),
        repository: name("r"),
    }
}

fn timestamp() -> BackupTimestamp {
    BackupTimestamp::new("2026-01-02-03-04-05-678").expect("valid")
}

fn dropped() -> DropRequest {
    DropRequest {
        repository: name("r"),
        label: name("l"),
        backups: DroppedBackups::Expired {
            timestamp: timestamp(),
        },
    }
}

#[test]
fn stored_names_do_not_change() {
    let mut now = String::new();
    section(&mut now, "ErrorKind", ErrorKind::ALL);
    section(&mut now, "StatusCode", StatusCode::ALL);
    section!(now, JobStatus {
        JobStatus::Queued => JobStatus::Queued,
        JobStatus::Running => JobStatus::Running,
        JobStatus::Succeeded => JobStatus::Succeeded,
        JobStatus::Failed => JobStatus::Failed,
        JobStatus::Cancelled => JobStatus::Cancelled,
        JobStatus::Refused => JobStatus::Refused,
        JobStatus::Lost => JobStatus::Lost,
    });
    section!(now, JobKind {
        JobKind::Backup => JobKind::Backup,
        JobKind::Restore => JobKind::Restore,
        JobKind::DropSnapshot => JobKind::DropSnapshot,
        JobKind::Verify => JobKind::Verify,
        JobKind::Prune => JobKind::Prune,
    });
    section!(now, TaskKind {
        TaskKind::Snapshot => TaskKind::Snapshot,
        TaskKind::Upload => TaskKind::Upload,
        TaskKind::Prepare => TaskKind::Prepare,
        TaskKind::Download => TaskKind::Download,
    });
    section!(now, Requester {
        Requester::User { .. } => Requester::User {
            name: "u".into(),
            client_addr: None,
            application_name: None,
        },
        Requester::Expiry => Requester::Expiry,
        Requester::Outside => Requester::Outside,
        Requester::Verification(_) => Requester::Verification(JobId(1)),
        Requester::Staging(_) => Requester::Staging(JobId(1)),
    });
    section!(now, DroppedBackups {
        DroppedBackups::All { .. } => DroppedBackups::All {
            cluster_id: "i".into(),
            force: false,
        },
        DroppedBackups::Expired { .. } => dropped().backups,
    });
    section!(now, Resource {
        Resource::Database(..) => Resource::Database(name("c"), name("d")),
        Resource::Snapshot(..) => Resource::Snapshot(name("c"), name("r"), name("l")),
        Resource::Repository(..) => Resource::Repository(name("c"), name("r")),
        Resource::Leftovers(..) => Resource::Leftovers(name("c"), name("r")),
    });
    section(&mut now, "Privilege", Privilege::ALL);
    section!(now, Securable {
        Securable::System => Securable::System,
        Securable::Catalog => Securable::Catalog,
        Securable::Database(_) => Securable::Database(Some(name("d"))),
        Securable::AllDatabases => Securable::AllDatabases,
        Securable::Table(..) => Securable::Table(Some(name("d")), name("t")),
        Securable::AllTablesIn(_) => Securable::AllTablesIn(name("d")),
        Securable::AllTables => Securable::AllTables,
    });
    section!(now, Grantee {
        Grantee::User(_) => Grantee::User(name("u")),
        Grantee::Role(_) => Grantee::Role(name("r")),
    });
    section!(now, Grant {
        Grant::Privilege(..) => Grant::Privilege(Privilege::Select, Securable::AllTables),
        Grant::Role(_) => Grant::Role(name("r")),
    });
    section!(now, Work {
        Work::Backup { .. } => Work::Backup {
            target: target(),
            request: BackupRequest {
                objects: Vec::new(),
                views: Vec::new(),
                ttl: None,
                base: None,
            },
        },
        Work::Restore { .. } => Work::Restore {
            target: target(),
            request: RestoreRequest {
                timestamp: timestamp(),
                objects: Vec::new(),
                views: Vec::new(),
                replication_num: 1,
                replication_given: false,
                allow_load: false,
                makes_database: false,
            },
        },
        Work::External(_) => Work::External(Box::new(ExternalRequest {
            kind: JobKind::Backup,
            database: name("d"),
            label: name("l"),
            repository: None,
            statement: String::new(),
            objects: Vec::new(),
            queue: false,
            catalogs: false,
            timestamp: None,
            external: None,
            expected: Vec::new(),
            base: None,
        })),
        Work::DropSnapshot(_) => Work::DropSnapshot(dropped()),
        Work::Verify(_) => Work::Verify(VerifyRequest {
            repository: name("r"),
            label: None,
            level: VerifyLevel::Files,
            sample: SAMPLE_ALL,
        }),
        Work::Prune(_) => Work::Prune(PruneRequest {
            repository: name("r"),
            grace_seconds: 0,
            wait_seconds: 0,
            dry_run: false,
        }),
        Work::Staged(_) => Work::Staged(Box::new(StagedRequest {
            target: target(),
            timestamp: timestamp(),
            tables: Vec::new(),
            steps: Vec::new(),
            replication_num: 1,
        })),
    });
    section!(now, JobEvent {
        JobEvent::Backup(_) => JobEvent::Backup(BackupEvent::Released),
        JobEvent::Restore(_) => JobEvent::Restore(RestoreEvent::Released),
        JobEvent::External(_) => JobEvent::External(Box::new(ExternalEvent::TurnCame)),
        JobEvent::DropSnapshot(_) => JobEvent::DropSnapshot(DropEvent::Deleted),
        JobEvent::Verify(_) => JobEvent::Verify(VerifyEvent::Released),
        JobEvent::Prune(_) => JobEvent::Prune(PruneEvent::MarkLeft),
        JobEvent::Staged(_) => JobEvent::Staged(StagedEvent::Swapped),
        JobEvent::Control(_) => JobEvent::Control(ControlEvent::Paused {
            by: Speaker::User("u".into()),
        }),
    });
    section!(now, ColumnType {
        ColumnType::Boolean => ColumnType::Boolean,
        ColumnType::TinyInt => ColumnType::TinyInt,
        ColumnType::SmallInt => ColumnType::SmallInt,
        ColumnType::Int => ColumnType::Int,
        ColumnType::BigInt => ColumnType::BigInt,
        ColumnType::LargeInt => ColumnType::LargeInt,
        ColumnType::Float => ColumnType::Float,
        ColumnType::Double => ColumnType::Double,
        ColumnType::Decimal { .. } => ColumnType::Decimal {
            precision: 10,
            scale: 2,
        },
        ColumnType::Date => ColumnType::Date,
        ColumnType::DateTime => ColumnType::DateTime,
        ColumnType::Char(_) => ColumnType::Char(4),
        ColumnType::VarChar(_) => ColumnType::VarChar(5),
        ColumnType::String => ColumnType::String,
        ColumnType::Json => ColumnType::Json,
        ColumnType::Array(_) => ColumnType::Array(Box::new(ColumnType::Int)),
    });
    section!(now, DefaultValue {
        DefaultValue::Literal(_) => DefaultValue::Literal("x".into()),
        DefaultValue::Null => DefaultValue::Null,
        DefaultValue::CurrentTimestamp => DefaultValue::CurrentTimestamp,
    });
    section!(now, KeyModel {
        KeyModel::Duplicate => KeyModel::Duplicate,
        KeyModel::Unique => KeyModel::Unique,
        KeyModel::Aggregate => KeyModel::Aggregate,
        KeyModel::Primary => KeyModel::Primary,
    });
    section!(now, Aggregate {
        Aggregate::Sum => Aggregate::Sum,
        Aggregate::Min => Aggregate::Min,
        Aggregate::Max => Aggregate::Max,
        Aggregate::Replace => Aggregate::Replace,
    });
    section!(now, Partitioning {
        Partitioning::Unpartitioned => Partitioning::Unpartitioned,
        Partitioning::Range { .. } => Partitioning::Range { column: "c".into() },
        Partitioning::List { .. } => Partitioning::List {
            columns: vec!["c".into()],
        },
    });
    section!(now, Bounds {
        Bounds::Whole => Bounds::Whole,
        Bounds::Range { .. } => Bounds::Range {
            lower: Bound::Min,
            upper: Bound::Max,
        },
        Bounds::List(_) => Bounds::List(vec![vec![Some("x".into()), None]]),
    });
    section!(now, Bound {
        Bound::Min => Bound::Min,
        Bound::At(_) => Bound::At(RangeKey::Int(1)),
        Bound::Max => Bound::Max,
    });
    section!(now, RangeKey {
        RangeKey::Int(_) => RangeKey::Int(1),
        RangeKey::Date(_) => RangeKey::Date(2),
        RangeKey::DateTime(_) => RangeKey::DateTime(3),
    });
    assert_eq!(now, include_str!("stored_names.txt"));
}
