//! Clusters, and roles and grants on them.

use std::sync::Arc;

use super::{append, database, embedded, prod, repository, spec, target};
use crate::job::{ExternalEvent, ExternalRequest, Failure, JobEvent, Phase, Work};
use crate::privilege::{Privilege, Securable};
use crate::store::*;

/// A job that another cluster does, whose repository the journal need not know.
fn external(database: &str, label: &str, queue: bool) -> JobSpec {
    let target = target(database, label);
    JobSpec {
        cluster: prod(),
        work: Work::External(Box::new(ExternalRequest {
            kind: JobKind::Backup,
            database: target.database,
            label: target.label,
            repository: None,
            statement: String::new(),
            objects: Vec::new(),
            queue,
            catalogs: false,
            timestamp: None,
            external: None,
            expected: Vec::new(),
            base: None,
        })),
        ..spec(database, label)
    }
}

pub(super) async fn clusters(store: Arc<dyn Store>) {
    let properties = |secret: &str| BTreeMap::from([("password".to_owned(), secret.to_owned())]);
    let cluster = ClusterRecord {
        name: prod(),
        created_at: Timestamp(1),
        properties: properties("hush"),
    };
    assert_eq!(
        store
            .change_cluster(&cluster, &cluster)
            .await
            .expect_err("none")
            .kind,
        ErrorKind::UndefinedObject
    );
    store.add_cluster(&cluster).await.expect("added");
    assert_eq!(
        store.add_cluster(&cluster).await.expect_err("twice").kind,
        ErrorKind::DuplicateObject
    );
    let changed = ClusterRecord {
        properties: properties("still"),
        ..cluster.clone()
    };
    store
        .change_cluster(&cluster, &changed)
        .await
        .expect("changed");
    assert_eq!(
        store
            .change_cluster(&cluster, &cluster)
            .await
            .expect_err("late")
            .kind,
        ErrorKind::WrongState
    );
    assert_eq!(store.clusters().await.expect("listed"), [changed]);
    // A repository's name is its cluster's.
    store.add_repository(&repository("r")).await.expect("added");
    store
        .add_repository(&RepositoryRecord {
            cluster: prod(),
            ..repository("r")
        })
        .await
        .expect("another one");
    let moved = RepositoryRecord {
        cluster: prod(),
        location: "/y".into(),
        ..repository("r")
    };
    store.change_repository(&moved).await.expect("changed");
    assert_eq!(
        store
            .repository(&prod(), &moved.name)
            .await
            .expect("found")
            .location,
        "/y"
    );
    assert_eq!(
        store
            .repository(&embedded(), &moved.name)
            .await
            .expect("found")
            .location,
        "/x"
    );
    // Its jobs are counted by the cluster itself, so the journal takes as many as there are.
    let first = store
        .admit(&external("d", "l", false), Timestamp(2))
        .await
        .expect("admitted");
    let second = store
        .admit(&external("d", "l", true), Timestamp(3))
        .await
        .expect("admitted");
    store
        .admit(&spec("d", "l"), Timestamp(3))
        .await
        .expect("another cluster's");
    assert_eq!(
        store
            .unsettled(&prod(), &database("d"))
            .await
            .expect("asked"),
        [first.id, second.id]
    );
    assert_eq!(
        store.remove_cluster(&prod()).await.expect_err("busy").kind,
        ErrorKind::ObjectInUse
    );
    let filter = JobFilter {
        cluster: Some("prod".into()),
        ..JobFilter::default()
    };
    let states = |rows: Vec<JobRow>| rows.into_iter().filter_map(|r| r.state).collect::<Vec<_>>();
    assert_eq!(
        states(store.jobs(&filter).await.expect("listed")),
        [Phase::Pending, Phase::Queued]
    );
    for job in [first, second] {
        let event = JobEvent::External(Box::new(ExternalEvent::Cancelled {
            failure: Failure::user_cancelled(None),
        }));
        let next = append(&*store, &job, event, Timestamp(4)).await;
        assert_eq!(store.load(job.id).await.expect("loaded"), next);
    }
    store.remove_cluster(&prod()).await.expect("removed");
    assert_eq!(
        store.remove_cluster(&prod()).await.expect_err("gone").kind,
        ErrorKind::UndefinedObject
    );
    assert_eq!(
        store.repositories().await.expect("listed").len(),
        1,
        "its repositories go with it"
    );
    assert_eq!(
        store.jobs(&filter).await.expect("listed").len(),
        2,
        "its history stays"
    );
}

pub(super) async fn roles_and_grants(store: &Arc<dyn Store>, user: &UserName) {
    let role = |name: &str| RoleName::new(name).expect("valid");
    let kind = |result: Result<(), Error>| result.expect_err("refused").kind;
    for name in ["a", "b"] {
        store
            .add_role(&RoleRecord {
                name: role(name),
                created_at: Timestamp(1),
            })
            .await
            .expect("added");
    }
    let again = RoleRecord {
        name: role("a"),
        created_at: Timestamp(2),
    };
    assert_eq!(
        kind(store.add_role(&again).await),
        ErrorKind::DuplicateObject
    );
    let record = |grantee: Grantee, grant: Grant| GrantRecord {
        grantee,
        grant,
        cluster: None,
    };
    let privilege = Grant::Privilege(Privilege::Repository, Securable::System);
    let of_a = record(Grantee::Role(role("a")), privilege.clone());
    let a_of_b = record(Grantee::Role(role("b")), Grant::Role(role("a")));
    let b_of_user = record(Grantee::User(user.clone()), Grant::Role(role("b")));
    store
        .add_grants(&[of_a.clone(), a_of_b.clone(), b_of_user.clone()])
        .await
        .expect("granted");
    store
        .add_grants(std::slice::from_ref(&of_a))
        .await
        .expect("granted again");
    let mut all = vec![of_a.clone(), a_of_b.clone(), b_of_user.clone()];
    all.sort();
    assert_eq!(store.grants().await.expect("listed"), all);
    assert_eq!(
        store.holdings(user).await.expect("read").grants,
        all,
        "through roles of roles, too"
    );
    let stranger = UserName::new("stranger").expect("valid");
    assert_eq!(
        store.holdings(&stranger).await.expect("read"),
        Holdings::default()
    );
    // All or none: the second of two names nobody.
    let nobody = record(
        Grantee::User(UserName::new("nobody").expect("valid")),
        privilege.clone(),
    );
    let of_user = record(Grantee::User(user.clone()), privilege);
    assert_eq!(
        kind(store.add_grants(&[of_user.clone(), nobody]).await),
        ErrorKind::UndefinedObject
    );
    assert_eq!(store.grants().await.expect("listed"), all);
    assert_eq!(
        kind(store.remove_grants(&[of_a, of_user]).await),
        ErrorKind::UndefinedObject
    );
    assert_eq!(store.grants().await.expect("listed"), all);
    let circle = record(Grantee::Role(role("a")), Grant::Role(role("b")));
    assert_eq!(
        kind(store.add_grants(&[circle]).await),
        ErrorKind::InvalidGrant
    );
    store.remove_role(&role("a")).await.expect("removed");
    assert_eq!(
        store.grants().await.expect("listed"),
        [b_of_user],
        "what a role held and who held it goes with the role"
    );
    assert_eq!(
        kind(store.remove_role(&role("a")).await),
        ErrorKind::UndefinedObject
    );
}
