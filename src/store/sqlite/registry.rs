//! Repositories, clusters, users, roles and grants in SQLite.

use super::*;

impl SqliteStore {
    fn seal_repository(&self, repository: &RepositoryRecord) -> Result<Vec<u8>, Error> {
        let context = seal_context(repository.cluster.as_str(), repository.name.as_str());
        Ok(self
            .key
            .seal(&self.env, &context, &to_json(&repository.properties)?))
    }

    fn seal_cluster(&self, cluster: &ClusterRecord) -> Result<Vec<u8>, Error> {
        Ok(self.key.seal(
            &self.env,
            &cluster_context(cluster.name.as_str()),
            &to_json(&cluster.properties)?,
        ))
    }
}

#[async_trait]
impl Repositories for SqliteStore {
    async fn add_repository(&self, repository: &RepositoryRecord) -> Result<RepositoryId, Error> {
        let repository = repository.clone();
        let sealed = self.seal_repository(&repository)?;
        self.call(move |t| {
            let inserted = t.execute(
                "INSERT INTO repositories (cluster, name, location, broker, read_only, created_at, properties)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
                params![
                    repository.cluster.as_str(),
                    repository.name.as_str(),
                    repository.location,
                    repository.broker,
                    repository.read_only,
                    repository.created_at.0,
                    sealed
                ],
            );
            match inserted {
                Ok(_) => Ok(RepositoryId(t.last_insert_rowid())),
                Err(e) if violates(&e, "repositories.name") => Err(repository_exists(&repository.name)),
                Err(e) => Err(sql_error(e)),
            }
        })
        .await
    }

    async fn change_repository(&self, repository: &RepositoryRecord) -> Result<(), Error> {
        let repository = repository.clone();
        let sealed = self.seal_repository(&repository)?;
        self.call(move |t| {
            let changed = t
                .execute(
                    "UPDATE repositories SET location = ?3, broker = ?4, read_only = ?5, created_at = ?6, properties = ?7
                     WHERE cluster = ?1 AND name = ?2",
                    params![
                        repository.cluster.as_str(),
                        repository.name.as_str(),
                        repository.location,
                        repository.broker,
                        repository.read_only,
                        repository.created_at.0,
                        sealed
                    ],
                )
                .map_err(sql_error)?;
            if changed == 0 { Err(no_such_repository()) } else { Ok(()) }
        })
        .await
    }

    async fn remove_repository(
        &self,
        cluster: &ClusterName,
        name: &RepositoryName,
    ) -> Result<(), Error> {
        let (cluster, name) = (cluster.clone(), name.clone());
        self.call(move |t| {
            let key = [cluster.as_str(), name.as_str()];
            let busy: i64 = t
                .query_row("SELECT count(*) FROM jobs WHERE cluster = ?1 AND repository = ?2 AND settled = 0", key, |r| r.get(0))
                .map_err(sql_error)?;
            if busy > 0 {
                return Err(repository_busy());
            }
            // Another one of that name is not where their copies belong.
            t.execute("UPDATE jobs SET mirrored = 1 WHERE cluster = ?1 AND repository = ?2", key).map_err(sql_error)?;
            match t.execute("DELETE FROM repositories WHERE cluster = ?1 AND name = ?2", key).map_err(sql_error)? {
                0 => Err(no_such_repository()),
                _ => Ok(()),
            }
        })
        .await
    }

    async fn repositories(&self) -> Result<Vec<RepositoryRecord>, Error> {
        let key = self.key.clone();
        self.readers
            .read(move |t| {
                let mut select = t
                    .prepare_cached(
                        "SELECT repository_id, cluster, name, location, broker, read_only, created_at, properties
                     FROM repositories ORDER BY cluster, name",
                    )
                    .map_err(sql_error)?;
                let mut rows = select.query([]).map_err(sql_error)?;
                let mut out = Vec::new();
                while let Some(r) = rows.next().map_err(sql_error)? {
                    let (cluster, name): (String, String) = (r.get(1).map_err(sql_error)?, r.get(2).map_err(sql_error)?);
                    let sealed: Vec<u8> = r.get(7).map_err(sql_error)?;
                    out.push(RepositoryRecord {
                        id: RepositoryId(r.get(0).map_err(sql_error)?),
                        location: r.get(3).map_err(sql_error)?,
                        broker: r.get(4).map_err(sql_error)?,
                        read_only: r.get(5).map_err(sql_error)?,
                        created_at: Timestamp(r.get(6).map_err(sql_error)?),
                        properties: from_json(&key.open(&seal_context(&cluster, &name), &sealed)?)?,
                        cluster: ClusterName::new(cluster)?,
                        name: RepositoryName::new(name)?,
                    });
                }
                Ok(out)
            })
            .await
    }
}

#[async_trait]
impl ClusterRegistry for SqliteStore {
    async fn clusters(&self) -> Result<Vec<ClusterRecord>, Error> {
        let key = self.key.clone();
        self.readers
            .read(move |t| {
                let mut select = t
                    .prepare_cached(
                        "SELECT name, created_at, properties FROM clusters ORDER BY name",
                    )
                    .map_err(sql_error)?;
                let mut rows = select.query([]).map_err(sql_error)?;
                let mut out = Vec::new();
                while let Some(r) = rows.next().map_err(sql_error)? {
                    let name: String = r.get(0).map_err(sql_error)?;
                    let sealed: Vec<u8> = r.get(2).map_err(sql_error)?;
                    out.push(ClusterRecord {
                        created_at: Timestamp(r.get(1).map_err(sql_error)?),
                        properties: from_json(&key.open(&cluster_context(&name), &sealed)?)?,
                        name: ClusterName::new(name)?,
                    });
                }
                Ok(out)
            })
            .await
    }

    async fn add_cluster(&self, cluster: &ClusterRecord) -> Result<(), Error> {
        let cluster = cluster.clone();
        let sealed = self.seal_cluster(&cluster)?;
        self.call(move |t| {
            let values = params![cluster.name.as_str(), cluster.created_at.0, sealed];
            match t.execute(
                "INSERT INTO clusters (name, created_at, properties) VALUES (?1, ?2, ?3)",
                values,
            ) {
                Ok(_) => Ok(()),
                Err(e) if violates(&e, "clusters.name") => Err(cluster_exists(&cluster.name)),
                Err(e) => Err(sql_error(e)),
            }
        })
        .await
    }

    async fn change_cluster(
        &self,
        before: &ClusterRecord,
        after: &ClusterRecord,
    ) -> Result<(), Error> {
        let (before, sealed, key) = (before.clone(), self.seal_cluster(after)?, self.key.clone());
        self.call(move |t| {
            let name = before.name.as_str();
            let found: Option<Vec<u8>> = t
                .query_row(
                    "SELECT properties FROM clusters WHERE name = ?1",
                    [name],
                    |r| r.get(0),
                )
                .optional()
                .map_err(sql_error)?;
            let found = key.open(
                &cluster_context(name),
                &found.ok_or_else(|| no_cluster(&before.name))?,
            )?;
            if from_json::<BTreeMap<String, String>>(&found)? != before.properties {
                return Err(changed_meanwhile(&format!("cluster \"{name}\"")));
            }
            t.execute(
                "UPDATE clusters SET properties = ?2 WHERE name = ?1",
                params![name, sealed],
            )
            .map_err(sql_error)?;
            Ok(())
        })
        .await
    }

    async fn remove_cluster(&self, name: &ClusterName) -> Result<(), Error> {
        let name = name.clone();
        self.call(move |t| {
            let busy: i64 = t
                .query_row(
                    "SELECT count(*) FROM jobs WHERE cluster = ?1 AND settled = 0",
                    [name.as_str()],
                    |r| r.get(0),
                )
                .map_err(sql_error)?;
            if busy > 0 {
                return Err(cluster_busy(&name));
            }
            if t.execute("DELETE FROM clusters WHERE name = ?1", [name.as_str()])
                .map_err(sql_error)?
                == 0
            {
                return Err(no_cluster(&name));
            }
            for table in ["repositories", "grants"] {
                t.execute(
                    &format!("DELETE FROM {table} WHERE cluster = ?1"),
                    [name.as_str()],
                )
                .map_err(sql_error)?;
            }
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Users for SqliteStore {
    async fn add_user(&self, user: &UserRecord) -> Result<(), Error> {
        let user = user.clone();
        self.call(move |t| match write_user(t, "INSERT", &user) {
            Err(e) if violates(&e, "users.name") => Err(user_exists(&user.name)),
            Err(e) => Err(sql_error(e)),
            Ok(_) => Ok(()),
        })
        .await
    }

    async fn set_password(
        &self,
        name: &UserName,
        verifier: &PasswordVerifier,
    ) -> Result<(), Error> {
        let (name, verifier) = (name.clone(), verifier.clone());
        self.call(move |t| {
            let changed = t
                .execute(
                    "UPDATE users SET salt = ?2, iterations = ?3, stored_key = ?4, server_key = ?5 WHERE name = ?1",
                    params![name.as_str(), verifier.salt, verifier.iterations, verifier.stored_key, verifier.server_key],
                )
                .map_err(sql_error)?;
            if changed == 0 { Err(no_user(&name)) } else { Ok(()) }
        })
        .await
    }

    async fn set_admin(&self, name: &UserName, admin: bool) -> Result<(), Error> {
        let name = name.clone();
        self.call(move |t| {
            let changed = t
                .execute(
                    "UPDATE users SET admin = ?2 WHERE name = ?1",
                    params![name.as_str(), admin],
                )
                .map_err(sql_error)?;
            if changed == 0 {
                Err(no_user(&name))
            } else {
                Ok(())
            }
        })
        .await
    }

    async fn remove_user(&self, name: &UserName) -> Result<(), Error> {
        let name = name.clone();
        self.call(move |t| {
            if t.execute("DELETE FROM users WHERE name = ?1", [name.as_str()])
                .map_err(sql_error)?
                == 0
            {
                return Err(no_user(&name));
            }
            t.execute(
                "DELETE FROM grants WHERE grantee = ?1",
                [to_json(&Grantee::User(name))?],
            )
            .map_err(sql_error)?;
            Ok(())
        })
        .await
    }

    async fn roles(&self) -> Result<Vec<RoleRecord>, Error> {
        self.readers.read(read_roles).await
    }

    async fn add_role(&self, role: &RoleRecord) -> Result<(), Error> {
        let role = role.clone();
        self.call(move |t| {
            match t.execute(
                "INSERT INTO roles (name, created_at) VALUES (?1, ?2)",
                params![role.name.as_str(), role.created_at.0],
            ) {
                Ok(_) => Ok(()),
                Err(e) if violates(&e, "roles.name") => Err(role_exists(&role.name)),
                Err(e) => Err(sql_error(e)),
            }
        })
        .await
    }

    async fn remove_role(&self, name: &RoleName) -> Result<(), Error> {
        let name = name.clone();
        self.call(move |t| {
            if t.execute("DELETE FROM roles WHERE name = ?1", [name.as_str()])
                .map_err(sql_error)?
                == 0
            {
                return Err(no_role(&name));
            }
            let (holder, held) = (
                to_json(&Grantee::Role(name.clone()))?,
                to_json(&Grant::Role(name))?,
            );
            t.execute(
                "DELETE FROM grants WHERE grantee = ?1 OR item = ?2",
                [holder, held],
            )
            .map_err(sql_error)?;
            Ok(())
        })
        .await
    }

    async fn grants(&self) -> Result<Vec<GrantRecord>, Error> {
        self.readers.read(read_grants).await
    }

    async fn add_grants(&self, grants: &[GrantRecord]) -> Result<(), Error> {
        let grants = grants.to_vec();
        self.call(move |t| {
            let (all, roles) = (read_grants(t)?, read_roles(t)?);
            let known = |name: &RoleName| {
                roles
                    .iter()
                    .any(|r| &r.name == name)
                    .then_some(())
                    .ok_or_else(|| no_role(name))
            };
            for new in &grants {
                match &new.grantee {
                    Grantee::Role(name) => known(name)?,
                    Grantee::User(name) => t
                        .query_row(
                            "SELECT 1 FROM users WHERE name = ?1",
                            [name.as_str()],
                            |_| Ok(()),
                        )
                        .optional()
                        .map_err(sql_error)?
                        .ok_or_else(|| no_user(name))?,
                }
                if let Grant::Role(name) = &new.grant {
                    known(name)?;
                }
                refuse_cycle(&all, new)?;
                t.execute(
                    "INSERT OR IGNORE INTO grants (grantee, item, cluster) VALUES (?1, ?2, ?3)",
                    grant_columns(new)?,
                )
                .map_err(sql_error)?;
            }
            Ok(())
        })
        .await
    }

    async fn remove_grants(&self, grants: &[GrantRecord]) -> Result<(), Error> {
        let grants = grants.to_vec();
        self.call(move |t| {
            for grant in &grants {
                let gone = t
                    .execute(
                        "DELETE FROM grants WHERE grantee = ?1 AND item = ?2 AND cluster = ?3",
                        grant_columns(grant)?,
                    )
                    .map_err(sql_error)?;
                if gone == 0 {
                    return Err(no_grant(grant));
                }
            }
            Ok(())
        })
        .await
    }

    async fn forget_object(
        &self,
        cluster: &ClusterName,
        database: &DatabaseName,
        table: Option<&TableName>,
    ) -> Result<(), Error> {
        let (cluster, database, table) = (cluster.clone(), database.clone(), table.cloned());
        self.call(move |t| {
            for grant in read_grants(t)?
                .iter()
                .filter(|g| g.is_about(&cluster, &database, table.as_ref()))
            {
                t.execute(
                    "DELETE FROM grants WHERE grantee = ?1 AND item = ?2 AND cluster = ?3",
                    grant_columns(grant)?,
                )
                .map_err(sql_error)?;
            }
            Ok(())
        })
        .await
    }

    async fn holdings(&self, name: &UserName) -> Result<Holdings, Error> {
        let name = name.clone();
        self.readers
            .read(move |t| {
                let admin = t.query_row("SELECT admin FROM users WHERE name = ?1", [name.as_str()], |r| r.get(0)).optional();
                // A role is written alike where it holds and where it is held.
                let mut select = t
                    .prepare_cached(
                        "WITH RECURSIVE held (grantee, item, cluster) AS (
                             SELECT grantee, item, cluster FROM grants WHERE grantee = ?1
                             UNION
                             SELECT g.grantee, g.item, g.cluster FROM grants g JOIN held h ON g.grantee = h.item
                         ) SELECT grantee, item, cluster FROM held",
                    )
                    .map_err(sql_error)?;
                let rows = select.query([to_json(&Grantee::User(name.clone()))?]).map_err(sql_error)?;
                Ok(Holdings { admin: admin.map_err(sql_error)?.unwrap_or(false), grants: grants_of(rows)? })
            })
            .await
    }

    async fn users(&self) -> Result<Vec<UserRecord>, Error> {
        self.readers
            .read(|t| {
                let mut select = t
                    .prepare_cached(
                        "SELECT name, admin, created_at, salt, iterations, stored_key, server_key FROM users ORDER BY name",
                    )
                    .map_err(sql_error)?;
                let mut rows = select.query([]).map_err(sql_error)?;
                let mut out = Vec::new();
                while let Some(r) = rows.next().map_err(sql_error)? {
                    let salt: Option<Vec<u8>> = r.get(3).map_err(sql_error)?;
                    let verifier = match salt {
                        None => None,
                        Some(salt) => Some(PasswordVerifier {
                            salt,
                            iterations: r.get(4).map_err(sql_error)?,
                            stored_key: r.get(5).map_err(sql_error)?,
                            server_key: r.get(6).map_err(sql_error)?,
                        }),
                    };
                    out.push(UserRecord {
                        name: UserName::new(r.get::<_, String>(0).map_err(sql_error)?)?,
                        admin: r.get(1).map_err(sql_error)?,
                        created_at: Timestamp(r.get(2).map_err(sql_error)?),
                        verifier,
                    });
                }
                Ok(out)
            })
            .await
    }
}

fn grant_columns(grant: &GrantRecord) -> Result<[String; 3], Error> {
    let cluster = grant
        .cluster
        .as_ref()
        .map_or(String::new(), ToString::to_string);
    Ok([to_json(&grant.grantee)?, to_json(&grant.grant)?, cluster])
}

fn read_grants(transaction: &Transaction<'_>) -> Result<Vec<GrantRecord>, Error> {
    let mut select = transaction
        .prepare_cached("SELECT grantee, item, cluster FROM grants")
        .map_err(sql_error)?;
    grants_of(select.query([]).map_err(sql_error)?)
}

fn grants_of(mut rows: rusqlite::Rows<'_>) -> Result<Vec<GrantRecord>, Error> {
    let mut out = Vec::new();
    while let Some(r) = rows.next().map_err(sql_error)? {
        let cluster: String = r.get(2).map_err(sql_error)?;
        out.push(GrantRecord {
            grantee: from_json(&r.get::<_, String>(0).map_err(sql_error)?)?,
            grant: from_json(&r.get::<_, String>(1).map_err(sql_error)?)?,
            cluster: if cluster.is_empty() {
                None
            } else {
                Some(ClusterName::new(cluster)?)
            },
        });
    }
    out.sort();
    Ok(out)
}

fn read_roles(transaction: &Transaction<'_>) -> Result<Vec<RoleRecord>, Error> {
    let mut select = transaction
        .prepare_cached("SELECT name, created_at FROM roles ORDER BY name")
        .map_err(sql_error)?;
    let mut rows = select.query([]).map_err(sql_error)?;
    let mut out = Vec::new();
    while let Some(r) = rows.next().map_err(sql_error)? {
        out.push(RoleRecord {
            name: RoleName::new(r.get::<_, String>(0).map_err(sql_error)?)?,
            created_at: Timestamp(r.get(1).map_err(sql_error)?),
        });
    }
    Ok(out)
}

fn write_user(
    transaction: &Transaction<'_>,
    verb: &str,
    user: &UserRecord,
) -> Result<usize, rusqlite::Error> {
    let verifier = user.verifier.as_ref();
    transaction.execute(
        &format!("{verb} INTO users (name, admin, created_at, salt, iterations, stored_key, server_key) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)"),
        params![
            user.name.as_str(),
            user.admin,
            user.created_at.0,
            verifier.map(|v| &v.salt),
            verifier.map(|v| v.iterations),
            verifier.map(|v| &v.stored_key),
            verifier.map(|v| &v.server_key),
        ],
    )
}
